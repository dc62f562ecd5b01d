from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from conftest import SILENT, fetch, with_
from her_jax import evaluate, train
from her_jax.agents.ddpg import DDPG
from her_jax.runner import Run
from her_jax.types import GoalObs


def straight(key, obs):
    """Solves the toy: walks towards the goal at full speed."""
    del key
    return jnp.clip((obs.desired_goal - obs.achieved_goal) / 0.1, -1, 1)


def test_perfect_and_idle_policies(toy):
    keys = evaluate.held_out(50)
    solved = evaluate.evaluate(toy, straight, keys)
    assert solved.success.all() and solved.success_any.all()
    assert float(solved.distance.max()) < toy.tolerance
    idle = evaluate.evaluate(toy, evaluate.no_action(toy), keys)
    assert not idle.success_any.any()
    assert float(idle.distance.min()) >= 0.8


def test_success_is_at_the_last_step_and_any_step_apart(toy):
    """A policy that passes through the goal and walks on is successful only on the way."""

    def through(key, obs):
        del key
        return obs.desired_goal / jnp.linalg.norm(obs.desired_goal)

    outcome = evaluate.evaluate(toy, through, evaluate.held_out(50))
    assert outcome.success_any.all()
    assert not outcome.success.any()


def test_held_out_sets_are_fixed_nested_and_apart_from_training(toy, config):
    few, many = evaluate.held_out(5), evaluate.held_out(9)
    np.testing.assert_array_equal(jax.random.key_data(few), jax.random.key_data(many)[:5])
    first = evaluate.starts(toy, many)
    assert evaluate.fingerprint(first) == evaluate.fingerprint(evaluate.starts(toy, many))
    other = evaluate.starts(toy, evaluate.held_out(9, seed=1))
    assert evaluate.fingerprint(first) != evaluate.fingerprint(other)
    agent = DDPG(config.agent, toy.action_size)
    for seed in range(3):
        state = train.init(toy, agent, config, jax.random.key(seed))
        state, _ = train.epoch(toy, agent, config, state)
        trained = np.asarray(state.buffer.episodes.desired_goal)
        assert not set(map(tuple, trained)) & set(map(tuple, np.asarray(first.desired_goal)))


def test_relabelling_cannot_change_an_evaluation(toy, config, tmp_path):
    """Metamorphic: the same parameters score the same under every replay setting."""
    keys = evaluate.held_out(20)
    state = train.init(toy, DDPG(config.agent, 2), config, jax.random.key(0))

    def distances(changed):
        outcome = Run(toy, changed, tmp_path / "never", SILENT).evaluate(state, keys)
        return np.asarray(outcome.distance)

    reference = distances(config)
    for changes in ({"strategy": "random"}, {"k": 0.0}, {"strategy": "none", "batch_size": 2}):
        np.testing.assert_array_equal(distances(with_(config, **changes)), reference)
    other = train.init(toy, DDPG(config.agent, 2), config, jax.random.key(1))
    state = state.replace(learner=other.learner)
    assert not np.array_equal(distances(config), reference)


def test_fingerprint_ignores_rounding_only():
    goals = jnp.asarray([[0.25, -0.5], [1.0, 0.75]])
    first = GoalObs(goals, goals, goals)
    for nudge, equal in ((2e-7, True), (1e-5, False)):
        nudged = first._replace(desired_goal=goals + nudge)
        assert (evaluate.fingerprint(first) == evaluate.fingerprint(nudged)) == equal


@pytest.mark.parametrize(
    ("name", "floor"),
    [("FetchReach", 0.019), ("FetchPush", 0.069), ("FetchSlide", 0.0028),
     ("FetchPickAndPlace", 0.037)],
)  # fmt: skip
def test_share_of_goals_reached_at_the_start_is_the_known_one(name, floor):
    """Monte Carlo of the original's reset, within four standard deviations."""
    env, count = fetch(name), 4000
    first = jax.jit(lambda keys: evaluate.starts(env, keys))(evaluate.held_out(count))
    solved = np.mean(env.success(first.achieved_goal, first.desired_goal))
    assert abs(solved - floor) < 4 * np.sqrt(floor * (1 - floor) / count)


def test_doing_nothing_on_push_scores_the_goals_reached_at_the_start():
    env, keys = fetch("FetchPush"), evaluate.held_out(100)
    idle = jax.jit(lambda keys: evaluate.evaluate(env, evaluate.no_action(env), keys))(keys)
    first = evaluate.starts(env, keys)
    at_start = env.success(first.achieved_goal, first.desired_goal)
    np.testing.assert_array_equal(idle.success, at_start)


@pytest.mark.parametrize(
    ("name", "fingerprint"),
    [("FetchReach", "43668a91c5bf7f65"), ("FetchPush", "086172be587a4d0e"),
     ("FetchSlide", "7a7814e28add1dda"), ("FetchPickAndPlace", "2c920662b9e92c24")],
)  # fmt: skip
def test_the_held_out_sets_stay_what_they_are(name, fingerprint):
    """Every published figure is on these 200 goals; another generator would change them."""
    env = fetch(name)
    first = jax.jit(lambda keys: evaluate.starts(env, keys))(evaluate.held_out(200))
    assert evaluate.fingerprint(first) == fingerprint
