"""Actions held for several steps, and a single goal."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import her_envs
from conftest import ddpg, same, with_
from her_envs.repeat import Repeated
from her_jax import rollout, train
from her_jax.agents import DDPG
from her_jax.errors import UserError
from toy import PointEnv


def test_a_held_action_is_that_many_steps():
    env = PointEnv(horizon=12)
    held = Repeated(env, 3)
    assert held.horizon == 4 and held.goal_spec == env.goal_spec
    for spec, own in zip(held.cost_specs, env.cost_specs, strict=True):
        assert spec.name == own.name and spec.meaning.endswith(
            "Summed over the 3 steps of an action."
        )
    start = env.draw(jax.random.key(0))
    actions = jax.random.uniform(jax.random.key(1), (4, 2), minval=-1, maxval=1)

    def play(env, sequence):
        """An episode of given actions; the environment's own steps, one by one."""
        state, seen = env.begin(start), []
        for action in sequence:
            state = env.step(state, action)
            seen.append(state)
        return seen

    coarse, fine = play(held, actions), play(env, jnp.repeat(actions, 3, axis=0))
    for i in range(4):
        last = fine[3 * i + 2]
        np.testing.assert_allclose(coarse[i].obs.achieved_goal, last.obs.achieved_goal, rtol=1e-6)
        costs = np.sum([fine[3 * i + j].cost for j in range(3)], axis=0)
        np.testing.assert_allclose(coarse[i].cost, costs, rtol=1e-5, atol=1e-7)
    episode, _ = jax.jit(functools.partial(rollout.play, held, lambda key, obs: jnp.ones(2)))(
        start, jax.random.key(0)
    )
    assert episode.action.shape == (4, 2) and episode.achieved_goal.shape == (5, 2)


@pytest.mark.parametrize("times", [0, 5])
def test_what_does_not_divide_an_episode_is_refused(times):
    with pytest.raises(UserError, match=f"action_repeat: {times} does not divide 12"):
        Repeated(PointEnv(horizon=12), times)


def test_contacts_dropped_in_any_of_the_steps_count():
    class Dropping(PointEnv):
        """In the second step alone."""

        def step(self, state, action):
            reached = super().step(state, action)
            return reached.replace(dropped=jnp.abs(reached.obs.observation[0] - 0.2) < 0.05)

    env = Repeated(Dropping(horizon=12), 3)
    first = env.step(env.begin(env.draw(jax.random.key(0))), jnp.asarray([1.0, 0.0]))
    second = env.step(first, jnp.asarray([1.0, 0.0]))
    assert bool(first.dropped) and not bool(second.dropped)


def test_a_simulation_that_breaks_in_any_of_the_steps_says_so():
    class Breaking(PointEnv):
        """In the second step alone; its costs stay finite."""

        def step(self, state, action):
            sound = state.obs._replace(observation=state.obs.achieved_goal)
            reached = super().step(state.replace(obs=sound), action)
            seen = reached.obs.observation
            bad = jnp.abs(seen[0] - 0.2) < 0.05
            obs = reached.obs._replace(observation=jnp.where(bad, jnp.nan, seen))
            return reached.replace(obs=obs)

    env = Repeated(Breaking(horizon=12), 3)
    first = env.step(env.begin(env.draw(jax.random.key(0))), jnp.asarray([1.0, 0.0]))
    second = env.step(first, jnp.asarray([1.0, 0.0]))
    assert np.isnan(first.obs.observation).all() and np.isfinite(first.cost).all()
    assert np.isfinite(second.obs.observation).all()


def test_all_steps_count(config):
    config = with_(config, action_repeat=3)
    env = Repeated(PointEnv(horizon=12), 3)
    agent = DDPG(ddpg(config), 2)
    state = train.init(env, agent, config, jax.random.key(0))
    state, *_ = jax.jit(functools.partial(train.cycle, env, agent, config))(state)
    assert int(state.env_steps) == config.train.num_envs * 12


def test_make_holds_actions_and_asks_for_one_goal():
    env = her_envs.make("FetchPush", action_repeat=5)
    assert env.horizon == 10 and env.name == "FetchPush"
    for bad in (0, 3):
        with pytest.raises(UserError, match="action_repeat"):
            her_envs.make("FetchPush", action_repeat=bad)
    for made in (env, her_envs.make("BitFlip", n=4), her_envs.make("FetchPush")):
        key = jax.random.key(0)
        assert same(made.reset(key), made.begin(made.draw(key)))
    single = her_envs.make("FetchPickAndPlace", goal="single")
    starts = jax.vmap(single.draw)(jax.random.split(jax.random.key(0), 20))
    goals = np.asarray(starts.desired_goal)
    assert (goals == goals[0]).all() and len(np.unique(np.asarray(starts.object_xy), axis=0)) == 20
    low, high = map(np.asarray, single.goal_spec.region)
    assert ((goals[0] >= low) & (goals[0] <= high)).all()
    assert single.held_out_file is None and not single.goal_spec.can_be_held_out
