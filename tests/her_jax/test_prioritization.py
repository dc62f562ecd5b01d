from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import her_envs
from conftest import SILENT, naming_episodes, p_value, with_
from her_jax import agents, buffer, prioritization, train
from her_jax.errors import UserError
from her_jax.runner import Run
from her_jax.types import Episode
from toy import PointEnv

HORIZON = 4


def moving(positions) -> Episode:
    """An episode whose object is at the given positions [T+1, 3]."""
    episode = jax.tree.map(lambda x: x[0], naming_episodes(1, len(positions) - 1))
    return episode._replace(achieved_goal=jnp.asarray(positions, jnp.float32))


def test_energy_of_a_lift_and_of_a_push():
    """Energies by hand: 1 kg, 9.81 m/s^2, 0.04 s between states."""
    lifted = moving([[0, 0, 0.4], [0, 0, 0.41], [0, 0, 0.42], [0, 0, 0.42]])
    speed = 0.01 / 0.04
    expected = (9.81 * 0.01 + 0.5 * speed**2) + 9.81 * 0.01  # then the speed is lost
    np.testing.assert_allclose(prioritization.energy(lifted, 0.04), expected, rtol=1e-4)

    struck = moving([[0, 0, 0.4], [0.1, 0, 0.4], [0.2, 0, 0.4], [0.2, 0, 0.4]])
    assert 0.5 < 0.5 * (0.1 / 0.04) ** 2  # more than a step may add
    np.testing.assert_allclose(prioritization.energy(struck, 0.04), 0.5, rtol=1e-4)

    slow = prioritization.energy(lifted, 0.08)
    np.testing.assert_allclose(slow, expected - 0.375 * speed**2, rtol=1e-4)  # at half the speed

    lift = np.zeros((41, 3))
    lift[:, 2] = 0.01 * np.arange(41)  # 0.25 m/s, the gripper's own speed
    held = prioritization.energy(moving(lift[::10]), 0.4)  # each action for ten steps
    np.testing.assert_allclose(held, prioritization.energy(moving(lift), 0.04), rtol=1e-4)

    still = moving([[0.3, 0.2, 0.4]] * 4)
    assert prioritization.energy(still, 0.04) == 0


def ring(priorities, per_round=2):
    capacity = 8
    example = jax.tree.map(lambda x: x[0], naming_episodes(1, HORIZON))
    state = buffer.init(example, capacity)
    for i in range(0, len(priorities), per_round):
        episodes = naming_episodes(per_round, HORIZON, first=i)
        state = buffer.insert(state, episodes, jnp.asarray(priorities[i : i + per_round]))
    return state


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_episodes_are_drawn_by_their_priority(share):
    priorities = [0.0, 1.0, 2.0, 5.0, 0.0, 2.0]
    state = ring(priorities)
    distribution = buffer.cumulative(state, share)
    draw = jax.jit(functools.partial(buffer.sample, batch_size=40_000))
    steps = draw(state, jax.random.key(0), distribution=distribution)
    expected = share * np.array(priorities) / 10 + (1 - share) / 6
    count = np.bincount(np.asarray(steps.episode), minlength=6)
    assert len(count) == 6  # rows that are not filled are never drawn
    assert (count[expected == 0] == 0).all()
    likely = expected > 0
    assert p_value(stats.chisquare(count[likely], 40_000 * expected[likely])) > 1e-3
    times = np.bincount(np.asarray(steps.time), minlength=HORIZON)
    assert p_value(stats.chisquare(times)) > 1e-3


def test_the_newest_episodes_bring_their_own_priority():
    state = ring([1.0] * 8 + [3.0, 4.0])  # the ring has 8 rows
    np.testing.assert_array_equal(state.priority, [3, 4, 1, 1, 1, 1, 1, 1])
    np.testing.assert_array_equal(state.episodes.desired_goal[:2, 0], [8, 9])


def test_without_any_energy_all_episodes_are_drawn():
    distribution = buffer.cumulative(ring([0.0] * 4), 1.0)
    np.testing.assert_allclose(distribution[:4], [0.25, 0.5, 0.75, 1.0], rtol=1e-6)


def test_energy_is_that_of_a_thing_in_space(config, tmp_path):
    with pytest.raises(UserError, match="priority: 'energy' needs goals that are positions"):
        Run(PointEnv(), with_(config, priority="energy"), tmp_path / "r", SILENT)


def test_energy_needs_a_clock_and_heeds_held_actions():
    env = her_envs.make("FetchPush")
    prioritization.require("energy", env)
    assert env.seconds_per_action == 0.04
    held = her_envs.make("FetchPush", action_repeat=5)
    prioritization.require("energy", held)
    assert held.seconds_per_action == pytest.approx(0.2)

    class Timeless(type(env)):
        seconds_per_action = None

    timeless = Timeless(env.task, env.physics, env.tolerance)
    with pytest.raises(UserError, match="priority: 'energy' needs time, and FetchPush has none"):
        prioritization.require("energy", timeless)


def test_training_stores_priorities_and_replays_by_them(monkeypatch, config):
    """Only the first episode of a round has any; all that is drawn is of such episodes."""

    def first_of_round(episode, seconds):
        assert seconds is None  # the point has no clock
        return (episode.desired_goal[0] == chosen).astype(jnp.float32)

    env, config = PointEnv(), with_(config, priority_share=1.0, audited_rows=8)
    agent = agents.make(config.agent, env)
    state = train.init(env, agent, config, jax.random.key(0))
    play_key = jax.random.split(state.key, 4)[1]
    played, _ = train.explore(env, agent, config, state, play_key)
    chosen = played.desired_goal[0, 0]
    monkeypatch.setitem(prioritization.PRIORITIES, "first", first_of_round)
    config = with_(config, priority="first")
    start = state
    state, _, drawn = jax.jit(functools.partial(train.cycle, env, agent, config))(start)
    size = int(state.buffer.size)
    assert np.asarray(state.buffer.priority)[:size].tolist() == [1.0] + [0.0] * (size - 1)
    assert (np.asarray(drawn.steps.episode) == 0).all()
    halved = with_(config, priority_share=0.5)
    _, _, drawn = jax.jit(functools.partial(train.cycle, env, agent, halved))(start)
    shares = np.bincount(np.asarray(drawn.steps.episode), minlength=size) / drawn.reward.size
    assert 0.4 < shares[0] < 0.9 and (shares[1:] > 0).any()  # half, and a quarter of the rest
