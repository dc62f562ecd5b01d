"""n-step returns under relabelled goals against a loop over the stored episode."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from conftest import SILENT, ddpg, learn, with_
from her_jax import agents, buffer, normalizer, train
from her_jax.audit import relabelling, replay
from her_jax.errors import UserError
from her_jax.runner import Run
from her_jax.types import Episode, Moment
from toy import PointEnv

COUNT, STORED = 6, 4


@pytest.fixture(scope="module")
def walks() -> buffer.BufferState:
    """Random walks of the toy's size in a ring that is partly filled."""
    env, rng = PointEnv(), np.random.default_rng(0)
    horizon = env.horizon
    position = np.cumsum(rng.normal(scale=0.08, size=(STORED, horizon + 1, 2)), axis=1)
    drawn = (
        position,
        position,
        rng.normal(scale=0.2, size=(STORED, 2)),
        rng.uniform(-1, 1, (STORED, horizon, 2)),
        np.zeros((STORED, horizon, 2)),
    )
    episodes = Episode(*(jnp.asarray(x, jnp.float32) for x in drawn))
    ring = buffer.init(train.example_episode(env), STORED + 2)
    return buffer.insert(
        buffer.insert(ring, jax.tree.map(lambda x: x[:2], episodes)),
        jax.tree.map(lambda x: x[2:], episodes),
    )


@pytest.mark.parametrize("n_step", [1, 3, 40])
def test_returns_equal_a_loop(config, walks, n_step):
    config = with_(config, n_step=n_step)
    env, gamma = PointEnv(), config.agent.discount
    horizon = env.horizon
    steps = Moment(jnp.repeat(jnp.arange(STORED), horizon), jnp.tile(jnp.arange(horizon), STORED))

    @jax.jit
    def run(key):
        drawn, reward = train.replayed(env, config, walks, steps, key)
        return drawn, reward, train.returns(env, config, walks, steps, drawn, reward)

    drawn, reward, window = run(jax.random.key(1))
    assert 0.5 < np.mean(drawn.relabelled) < 1
    seen = set()
    for row in range(STORED * horizon):
        episode, time = int(steps.episode[row]), int(steps.time[row])
        total, factor, t = 0.0, 1.0, time
        while t < horizon and t - time < n_step:
            pay = env.reward(walks.episodes.achieved_goal[episode, t + 1], drawn.desired_goal[row])
            total, factor, t = total + factor * float(pay), factor * gamma, t + 1
        np.testing.assert_allclose(window.reward[row], total, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(window.discount[row], factor, rtol=1e-5)
        np.testing.assert_array_equal(
            window.next_observation[row], walks.episodes.observation[episode, t]
        )
        seen.add(t - time)
    assert seen == set(range(1, min(n_step, horizon) + 1))  # windows that the end cuts short too
    assert set(np.asarray(reward).tolist()) == {-1.0, 0.0}


def test_the_learner_is_given_them(config, walks):
    """Rewards, discounts and inputs of the batch are those of the returns."""
    config = with_(config, n_step=3, updates_per_cycle=1, batch_size=32, audited_rows=32)
    env = PointEnv()
    state = train.init(env, agents.DDPG(ddpg(config), 2), config, jax.random.key(0))
    (_, _, drawn), (batch,) = learn(env, config, state.learner, state.normalizer, walks)
    window = train.returns(env, config, walks, drawn.steps, drawn.transitions, drawn.reward)
    np.testing.assert_allclose(batch.reward, window.reward, rtol=1e-6)
    np.testing.assert_allclose(batch.discount, window.discount, rtol=1e-6)
    assert len(np.unique(np.asarray(batch.discount))) > 1 and batch.reward.min() < -1
    inputs = normalizer.inputs(
        state.normalizer, window.next_observation, drawn.transitions.desired_goal, config.normalizer
    )
    np.testing.assert_allclose(batch.next_inputs, inputs, rtol=1e-6)


def stale_goals(returns, env, config, replay, steps, transitions, reward):
    """The first reward is right, later ones are those of the requested goal."""
    window = returns(env, config, replay, steps, transitions, reward)
    asked = transitions._replace(desired_goal=replay.episodes.desired_goal[steps.episode])
    paid = env.reward(asked.next_achieved_goal, asked.desired_goal)
    unchanged = returns(env, config, replay, steps, asked, paid)
    return window._replace(reward=unchanged.reward - paid + reward)


@pytest.mark.parametrize("honest", [True, False])
def test_the_auditor_recomputes_them(config, tmp_path, monkeypatch, honest):
    run = Run(PointEnv(), with_(config, n_step=3, audited_rows=8), tmp_path / "r", SILENT)
    if honest:
        assert run.start()[1]["audited_rows"] > 0
        return
    monkeypatch.setattr(train, "returns", functools.partial(stale_goals, train.returns))
    with pytest.raises(UserError, match="return: a reward of the n-step return"):
        run.start()


@pytest.mark.parametrize(("units", "right"), [(1, True), (9, False)])
def test_a_reward_in_the_window_may_be_rounded_otherwise(config, units, right):
    """The second of two steps ends on the tolerance, or some units in the last place beyond it."""
    env = PointEnv()
    config = with_(config, n_step=2)
    edge = np.float32(env.tolerance)
    for _ in range(units):
        edge = np.nextafter(edge, np.float32(1))
    achieved = np.ones((1, env.horizon + 1, 2), np.float32)
    achieved[0, 2] = (edge, 0)
    held: Any = train.example_episode(env)._asdict()
    held = {name: np.asarray(x)[None] for name, x in held.items()} | {"achieved_goal": achieved}
    held = Episode(**held)
    goal = np.zeros(2, np.float32)
    claim = relabelling.row(held, time=0, goal=goal, reward=-1.0, relabelled=False)
    gamma = config.agent.discount
    window = train.Returns(
        reward=jnp.array([-1.0 + gamma * 0.0]),
        discount=jnp.array([gamma**2]),
        next_observation=held.observation[:, 2],
    )

    def pay(achieved: np.ndarray, goals: np.ndarray) -> np.ndarray:
        return -(np.abs(achieved - goals)[:, 0] > np.float32(env.tolerance)).astype(np.float32)

    (found,) = replay._right_returns(config, pay, held, claim, window)
    assert found == right
