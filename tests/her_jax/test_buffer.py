from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from conftest import naming_episodes
from her_jax import buffer

HORIZON = 5


def ring(capacity: int) -> buffer.BufferState:
    return buffer.init(jax.tree.map(lambda x: x[0], naming_episodes(1, HORIZON)), capacity)


def fill(state, rounds: int, per_round: int):
    for i in range(rounds):
        state = buffer.insert(state, naming_episodes(per_round, HORIZON, first=i * per_round))
    return state


@pytest.mark.parametrize("rounds", [1, 2, 3, 4, 7])
def test_holds_exactly_the_newest_episodes(rounds):
    state = fill(ring(6), rounds, per_round=2)
    stored = np.asarray(state.episodes.desired_goal[: int(state.size), 0])
    newest = np.arange(2 * rounds)[-6:]
    np.testing.assert_array_equal(np.sort(stored), newest)
    assert int(state.cursor) == (2 * rounds) % 6


def test_rows_stay_whole_across_wraps():
    state = fill(ring(6), rounds=8, per_round=3)
    owner = np.asarray(state.episodes.desired_goal[:, 0])
    for field in (state.episodes.observation, state.episodes.achieved_goal, state.episodes.action):
        np.testing.assert_array_equal(field[..., 0], owner[:, None] * np.ones(field.shape[1]))
    np.testing.assert_array_equal(state.episodes.achieved_goal[..., 1], np.tile(range(6), (6, 1)))


def test_never_samples_unwritten_rows_and_covers_all_written_ones():
    state = fill(ring(12), rounds=2, per_round=3)
    steps = buffer.sample(state, jax.random.key(0), 4096)
    assert set(np.asarray(steps.episode)) == set(range(6))
    assert set(np.asarray(steps.time)) == set(range(HORIZON))


def test_sampling_is_uniform_over_episodes_and_times():
    state = fill(ring(6), rounds=3, per_round=2)
    steps = buffer.sample(state, jax.random.key(1), 30_000)
    counts = np.histogram2d(np.asarray(steps.episode), np.asarray(steps.time), [6, HORIZON])[0]
    expected = 30_000 / counts.size
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert chi_square < 58  # 29 degrees of freedom, p = 0.001


def test_round_that_does_not_divide_the_capacity_is_refused():
    with pytest.raises(AssertionError):
        buffer.insert(ring(6), naming_episodes(4, HORIZON))


def test_insert_writes_in_place_when_donated():
    state = ring(8)
    insert = jax.jit(buffer.insert, donate_argnums=0)
    pointer = state.episodes.observation.unsafe_buffer_pointer()
    for i in range(5):
        state = insert(state, naming_episodes(2, HORIZON, first=2 * i))
        assert state.episodes.observation.unsafe_buffer_pointer() == pointer


def test_insert_inside_a_scan_copies_no_storage():
    """The compiled loop needs no temporary as large as the ring."""
    state = ring(4096)
    new = naming_episodes(4, HORIZON)

    def loop(state):
        def body(state, key):
            state = buffer.insert(state, new)
            steps = buffer.sample(state, key, 8)
            return state, jnp.sum(state.episodes.observation[steps.episode, steps.time])

        return jax.lax.scan(body, state, jax.random.split(jax.random.key(0), 3))

    compiled = jax.jit(loop, donate_argnums=0).lower(state).compile()
    storage = sum(leaf.nbytes for leaf in jax.tree.leaves(state.episodes))
    analysis = compiled.memory_analysis()
    assert analysis is not None
    assert analysis.temp_size_in_bytes < storage / 4


def test_vmap_over_seeds():
    states = jax.tree.map(lambda x: jnp.stack([x, x]), ring(4))
    episodes = jax.tree.map(lambda x: jnp.stack([x, x + 10]), naming_episodes(2, HORIZON))
    states = jax.vmap(buffer.insert)(states, episodes)
    steps = jax.vmap(functools.partial(buffer.sample, batch_size=64))(
        states, jax.random.split(jax.random.key(0))
    )
    assert steps.time.shape == (2, 64)
    np.testing.assert_array_equal(states.episodes.desired_goal[1, :2, 0], [10, 11])
