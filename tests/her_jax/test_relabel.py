"""Relabelling changes labels, never physics, and picks the right moment."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from conftest import naming_episodes, p_value
from her_jax import buffer, relabel
from her_jax.types import REQUEST, Moment
from oracles import sample_her_transitions

HORIZON, EPISODES, SAMPLES = 7, 6, 20_000


@functools.cache
def drawn(strategy: str, probability: float, min_displacement: float = 0.0):
    """Steps and transitions sampled from a ring that has wrapped: rows hold 6..11."""
    state = buffer.init(jax.tree.map(lambda x: x[0], naming_episodes(1, HORIZON)), EPISODES)
    for first in range(0, 12, 2):
        state = buffer.insert(state, naming_episodes(2, HORIZON, first))
    steps = buffer.sample(state, jax.random.key(0), SAMPLES)
    one = functools.partial(
        relabel.transition,
        state.episodes,
        state.size,
        strategy=relabel.STRATEGIES[strategy],
        probability=probability,
        min_displacement=min_displacement,
    )
    transitions = jax.jit(jax.vmap(one))(steps, jax.random.split(jax.random.key(1), SAMPLES))
    return jax.tree.map(np.asarray, (steps, transitions))


@pytest.mark.parametrize("strategy", relabel.STRATEGIES)
def test_physics_is_bit_equal_to_what_was_stored(strategy):
    steps, got = drawn(strategy, 0.8)
    owner = got.observation[:, 0]
    assert set(owner) == set(range(6, 12))
    np.testing.assert_array_equal(got.observation[:, 1], steps.time)
    np.testing.assert_array_equal(got.action, got.observation[:, :2])
    np.testing.assert_array_equal(got.next_observation[:, 0], owner)
    np.testing.assert_array_equal(got.next_observation[:, 1], steps.time + 1)
    np.testing.assert_array_equal(got.next_achieved_goal, got.next_observation[:, :2])


@pytest.mark.parametrize("strategy", relabel.STRATEGIES)
def test_unchanged_rows_keep_the_requested_goal(strategy):
    _, got = drawn(strategy, 0.8)
    kept = ~got.relabelled
    np.testing.assert_array_equal(got.desired_goal[kept, 0], got.observation[kept, 0])
    np.testing.assert_array_equal(got.desired_goal[kept, 1], -1)


@pytest.mark.parametrize("strategy", ["future", "final", "episode"])
def test_goals_come_from_the_same_episode(strategy):
    _, got = drawn(strategy, 1.0)
    np.testing.assert_array_equal(got.desired_goal[:, 0], got.observation[:, 0])


def test_future_is_uniform_on_the_strictly_later_states():
    steps, got = drawn("future", 1.0)
    goal_time = got.desired_goal[:, 1]
    assert (goal_time > steps.time).all()
    for time in range(HORIZON - 1):  # the last has one choice
        times = goal_time[steps.time == time]
        counts = np.bincount(times.astype(int), minlength=HORIZON + 1)[time + 1 :]
        assert (counts > 0).all()
        assert p_value(stats.chisquare(counts)) > 1e-4


def test_final_is_the_last_state():
    _, got = drawn("final", 1.0)
    np.testing.assert_array_equal(got.desired_goal[:, 1], HORIZON)


def test_episode_is_uniform_on_all_its_states():
    _, got = drawn("episode", 1.0)
    counts = np.bincount(got.desired_goal[:, 1].astype(int), minlength=HORIZON + 1)
    assert p_value(stats.chisquare(counts)) > 1e-4


def test_future_actual_is_half_future_and_half_what_was_asked_for():
    steps, got = drawn("future_actual", 1.0)
    asked = got.desired_goal[:, 1] == -1
    assert abs(asked.mean() - 0.5) < 4 * np.sqrt(0.25 / SAMPLES)
    own = got.observation[:, 0]
    np.testing.assert_array_equal(got.desired_goal[~asked, 0], own[~asked])
    assert (got.desired_goal[~asked, 1] > steps.time[~asked]).all()
    np.testing.assert_array_equal(got.hindsight, ~asked)
    counts = np.bincount(got.desired_goal[asked, 0].astype(int) - 6, minlength=EPISODES)
    assert p_value(stats.chisquare(counts)) > 1e-4


def test_random_is_uniform_on_everything_stored():
    _, got = drawn("random", 1.0)
    episode, time = got.desired_goal[:, 0].astype(int) - 6, got.desired_goal[:, 1].astype(int)
    counts = np.bincount(episode * (HORIZON + 1) + time, minlength=EPISODES * (HORIZON + 1))
    assert p_value(stats.chisquare(counts)) > 1e-4


@pytest.mark.parametrize("k", [1.0, 4.0, 8.0])
def test_share_of_relabelled_rows(k):
    probability = 1 - 1 / (1 + k)
    _, got = drawn("future", probability)
    sigma = np.sqrt(probability * (1 - probability) / SAMPLES)
    assert abs(got.relabelled.mean() - probability) < 3 * sigma


@pytest.mark.parametrize("strategy", relabel.STRATEGIES)
def test_goals_near_the_start_of_their_episode_are_not_given(strategy):
    """Achieved goals lie as far from the first as their time says."""
    (steps, every), (_, got) = drawn(strategy, 0.8), drawn(strategy, 0.8, 3.0)
    near = every.hindsight & (every.desired_goal[:, 1] < 3)
    assert near.any() == (strategy != "final")
    np.testing.assert_array_equal(got.relabelled, every.relabelled & ~near)
    np.testing.assert_array_equal(got.hindsight, every.hindsight & ~near)
    np.testing.assert_array_equal(got.desired_goal[~near], every.desired_goal[~near])
    np.testing.assert_array_equal(got.desired_goal[near, 0], got.observation[near, 0])
    np.testing.assert_array_equal(got.desired_goal[near, 1], -1)
    np.testing.assert_array_equal(got.observation, every.observation)
    np.testing.assert_array_equal(got.next_observation[:, 1], steps.time + 1)


def test_agrees_with_baselines_sampler():
    """Same joint distribution of (time, goal time) as a NumPy transcription of Baselines."""
    steps, got = drawn("future", 0.8)
    episodes = jax.tree.map(np.asarray, naming_episodes(EPISODES, HORIZON, first=6))

    def reward(achieved, goal):
        return -(np.abs(achieved - goal).sum(-1) > 0.5).astype(np.float32)

    oracle = sample_her_transitions(
        episodes, SAMPLES, replay_k=4, reward=reward, rng=np.random.default_rng(0)
    )
    bins = [np.arange(HORIZON + 1), np.arange(-1, HORIZON + 2)]
    ours = np.histogram2d(steps.time, got.desired_goal[:, 1], bins)[0].ravel()
    theirs = np.histogram2d(oracle["o"][:, 1], oracle["g"][:, 1], bins)[0].ravel()
    np.testing.assert_array_equal(ours > 0, theirs > 0)
    table = np.stack([ours, theirs])[:, ours + theirs > 0]
    assert p_value(stats.chi2_contingency(table)) > 1e-4
    ours_reward = reward(got.next_achieved_goal, got.desired_goal)
    both = np.stack([np.bincount(-r.astype(int), minlength=2) for r in (ours_reward, oracle["r"])])
    assert p_value(stats.chi2_contingency(both)) > 1e-4


def test_choice_and_goal_use_different_keys():
    """A strategy that tosses the coin which the choice would toss with the same key."""

    def coin(key, step, stored, horizon):
        del stored, horizon
        return Moment(step.episode, jax.random.bernoulli(key).astype(jnp.int32))

    episodes = naming_episodes(EPISODES, HORIZON)
    one = functools.partial(
        relabel.transition, episodes, jnp.asarray(EPISODES), strategy=coin, probability=0.5
    )
    steps = Moment(jnp.zeros(4000, jnp.int32), jnp.zeros(4000, jnp.int32))
    got = jax.vmap(one)(steps, jax.random.split(jax.random.key(0), 4000))
    heads = np.asarray(got.desired_goal)[np.asarray(got.relabelled), 1]
    assert abs(heads.mean() - 0.5) < 0.05


def test_strategies_are_unbatched_functions():
    for name, strategy in relabel.STRATEGIES.items():
        step = Moment(jnp.asarray(3), jnp.asarray(2))
        at = strategy(jax.random.key(0), step, jnp.asarray(5), HORIZON)
        assert at.episode.shape == at.time.shape == (), name
        assert 0 <= int(at.episode) < 5 and REQUEST <= int(at.time) <= HORIZON
