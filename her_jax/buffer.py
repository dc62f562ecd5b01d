"""The goal buffer: a ring of whole episodes in device memory.

Plain state and pure functions. A round of N episodes is written contiguously at the cursor, always
the same N, of which C is a multiple, so a write never wraps and costs the same whether the ring is
empty or full. The oldest episodes go first.
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
      priority: float32 [C], of every episode; 0 in rows that are not filled.
      cursor: int32 [], row of the next write.
      size: int32 [], rows filled; they are always the first `size`.
    """

    episodes: Episode
    priority: jax.Array
    cursor: jax.Array
    size: jax.Array


def init(example: Episode, capacity: int) -> BufferState:
    """An empty ring for `capacity` episodes shaped like the unbatched `example`."""
    episodes = jax.tree.map(lambda x: jnp.zeros((capacity, *x.shape), x.dtype), example)
    nothing = jnp.zeros((), jnp.int32)
    return BufferState(episodes, jnp.zeros(capacity), nothing, jnp.copy(nothing))


def capacity(state: BufferState) -> int:
    """C, in episodes."""
    return state.episodes.desired_goal.shape[0]


def insert(state: BufferState, episodes: Episode, priority: jax.Array | None = None) -> BufferState:
    """Writes N episodes [N, ...] and their priorities [N] over the oldest.

    Args:
      state: the ring.
      episodes: new episodes, [N, ...]; N divides the capacity and is the same in every call for
        one ring: the cursor cannot be checked under jit, and a write that would wrap is moved
        back, over newer episodes.
      priority: float32 [N], at least 0; equal ones without it.
    """
    total, count = capacity(state), episodes.desired_goal.shape[0]
    priority = jnp.ones(count) if priority is None else priority
    chex.assert_shape(priority, (count,))
    chex.assert_is_divisible(total, count)
    chex.assert_trees_all_equal_dtypes(state.episodes, episodes)

    def write(stored: jax.Array, new: jax.Array) -> jax.Array:
        chex.assert_equal_shape_suffix([stored, new], stored.ndim - 1)
        return jax.lax.dynamic_update_slice_in_dim(stored, new, state.cursor, axis=0)

    return BufferState(
        episodes=jax.tree.map(write, state.episodes, episodes),
        priority=jax.lax.dynamic_update_slice_in_dim(state.priority, priority, state.cursor, 0),
        cursor=(state.cursor + count) % total,
        size=jnp.minimum(state.size + count, total),
    )


def cumulative(state: BufferState, share: float) -> jax.Array:
    """Distribution function [C] of episodes: by priority with probability `share`, else uniform.

    Where every priority is 0, all of it is uniform.
    """
    filled = jnp.arange(capacity(state)) < state.size
    total = jnp.sum(state.priority)
    used = jnp.where(total > 0, share, 0.0)
    by_priority = state.priority / jnp.where(total > 0, total, 1.0)
    sums = jnp.cumsum(used * by_priority + (1.0 - used) * filled / state.size)
    return sums / sums[-1]


def sample(
    state: BufferState, key: Key, batch_size: int, distribution: jax.Array | None = None
) -> Moment:
    """Moments [B] of steps, with replacement; times are uniform. Consumes `key`.

    Args:
      state: the ring; it must hold at least one episode.
      key: consumed.
      batch_size: B.
      distribution: `cumulative` of the ring; episodes are uniform without it.
    """
    episode_key, time_key = jax.random.split(key)
    horizon = state.episodes.action.shape[-2]
    if distribution is None:
        episode = jax.random.randint(episode_key, (batch_size,), 0, state.size)
    else:
        level = jax.random.uniform(episode_key, (batch_size,))
        # A parallel sum in float32 is not quite monotone, so the flat tail may be found too late.
        found = jnp.searchsorted(
            distribution,
            level,
            side="right",
            method="scan_unrolled",  # a loop of 15 steps would make a GPU wait at each
        )
        episode = jnp.minimum(found, state.size - 1)
    return Moment(
        episode.astype(jnp.int32), jax.random.randint(time_key, (batch_size,), 0, horizon)
    )
