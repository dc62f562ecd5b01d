"""What goal buffers and simulations take of a device's memory, before anything compiles."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import psutil

from her_jax import train
from her_jax.config import Config
from her_jax.errors import UserError, is_out_of_memory, reason
from her_jax.types import GoalEnv

MAX_SHARE = 0.8
"""Largest share of free memory that goal buffers and simulations of training may take."""

_CGROUP = Path("/sys/fs/cgroup")


def require(env: GoalEnv, config: Config, buffers: int = 1, playing: int = 1) -> None:
    """Refuses goal buffers and simulations that free memory cannot hold, before anything compiles.

    Args:
      env: the environment, which says how large an episode is.
      config: settings, which say how many are stored.
      buffers: goal buffers at a time.
      playing: agents that play at a time, each in environments of its own.

    Raises:
      UserError: names the capacity, or the number of environments, that fits.
    """
    capacity, num_envs = config.replay.capacity, config.train.num_envs
    episode, worlds, free = episode_bytes(env), playing * num_envs * env.bytes_per_env, free_bytes()
    if worlds > MAX_SHARE * free:
        fits = int(MAX_SHARE * free / env.bytes_per_env / playing)
        of = f" for each of {playing} agents" if playing > 1 else ""
        raise UserError(
            f"num_envs: {num_envs} simulations{of} of {env.bytes_per_env / 1e3:.0f} kB need "
            f"{worlds / 1e9:.1f} GB and {free / 1e9:.1f} GB are free; at most {fits} fit"
        )
    needed, room = buffers * episode * capacity, MAX_SHARE * free - worlds
    if needed > room:
        fits = int(room / episode / buffers) // num_envs * num_envs
        held = "the goal buffer" if buffers == 1 else f"{buffers} goal buffers"
        raise UserError(
            f"capacity: {capacity} episodes need {needed / 1e9:.1f} GB for {held} and "
            f"{free / 1e9:.1f} GB are free; at most {fits} episodes fit"
        )


class OutOfMemoryError(UserError):
    """The device ran out of memory."""


@contextlib.contextmanager
def exhaustible() -> Iterator[None]:
    """Says in one line that the device ran out of memory, which no plan foresees to the byte.

    Raises:
      OutOfMemoryError: in place of XLA's error inside.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemoryError(
            f"memory: the device ran out ({reason(error)}); ask for fewer environments, a smaller "
            "capacity or batch, or fewer goals"
        ) from error


def episode_bytes(env: GoalEnv) -> int:
    """Memory of a stored episode."""
    example = jax.eval_shape(lambda: train.example_episode(env))
    return sum(leaf.size * jnp.dtype(leaf.dtype).itemsize for leaf in jax.tree.leaves(example))


def plan(env: GoalEnv, config: Config, buffers: int = 1, playing: int = 1) -> str:
    """What training will hold in the first device's memory, in a line; arguments of `require`."""
    capacity, num_envs = buffers * config.replay.capacity, playing * config.train.num_envs
    name = "goal buffer" if buffers == 1 else f"{buffers} goal buffers"
    parts = [f"{name} {capacity * episode_bytes(env) / 1e9:.2f} GB"]
    if env.bytes_per_env:
        parts.append(
            f"{num_envs:,} simulations of {env.bytes_per_env / 1e3:.0f} kB: "
            f"{num_envs * env.bytes_per_env / 1e9:.2f} GB"
        )
    return f"memory: {', '.join(parts)}; free {free_bytes() / 1e9:.1f} GB"


def free_bytes() -> int:
    """Free memory of the first device; the host's where the device does not say."""
    stats = jax.devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    free = psutil.virtual_memory().available
    try:  # a container's own limit, where it has one
        limit = int(_CGROUP.joinpath("memory.max").read_text())
        used = int(_CGROUP.joinpath("memory.current").read_text())
        details = dict(line.split() for line in _CGROUP.joinpath("memory.stat").open())
        return min(free, limit - used + int(details["inactive_file"]))  # reclaimable page cache
    except (OSError, ValueError, KeyError):
        return free
