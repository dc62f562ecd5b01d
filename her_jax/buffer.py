"""The goal buffer: a ring of whole episodes in device memory.

Plain state and pure functions. A round of N episodes is written contiguously at the cursor;
C is a multiple of N, so a write never wraps and costs the same whether the ring is empty or
full. The oldest episodes go first.
"""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
from flax import struct

from her_jax.types import Episode, Key, Moment


class BufferState(struct.PyTreeNode):
    """The ring.

    Attributes:
      episodes: storage, every field [C, ...].
      cursor: int32 [], row of the next write.
      size: int32 [], rows filled; they are always the first `size`.
    """

    episodes: Episode
    cursor: jax.Array
    size: jax.Array


def init(example: Episode, capacity: int) -> BufferState:
    """An empty ring for `capacity` episodes shaped like the unbatched `example`."""
    episodes = jax.tree.map(lambda x: jnp.zeros((capacity, *x.shape), x.dtype), example)
    return BufferState(episodes, jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))


def capacity(state: BufferState) -> int:
    """C, in episodes."""
    return state.episodes.desired_goal.shape[0]


def insert(state: BufferState, episodes: Episode) -> BufferState:
    """Writes N episodes [N, ...] over the oldest ones; N must divide the capacity."""
    total, count = capacity(state), episodes.desired_goal.shape[0]
    chex.assert_is_divisible(total, count)
    chex.assert_trees_all_equal_dtypes(state.episodes, episodes)

    def write(stored: jax.Array, new: jax.Array) -> jax.Array:
        chex.assert_equal_shape_suffix([stored, new], stored.ndim - 1)
        return jax.lax.dynamic_update_slice_in_dim(stored, new, state.cursor, axis=0)

    return BufferState(
        episodes=jax.tree.map(write, state.episodes, episodes),
        cursor=(state.cursor + count) % total,
        size=jnp.minimum(state.size + count, total),
    )


def sample(state: BufferState, key: Key, batch_size: int) -> Moment:
    """Moments [B] of steps, uniform over stored episodes and times, with replacement.

    Consumes `key`. The ring must hold at least one episode.
    """
    episode_key, time_key = jax.random.split(key)
    horizon = state.episodes.action.shape[-2]
    return Moment(
        jax.random.randint(episode_key, (batch_size,), 0, state.size),
        jax.random.randint(time_key, (batch_size,), 0, horizon),
    )
