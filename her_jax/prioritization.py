"""Which episodes are replayed more often: a priority for each, fixed when it is stored.

A priority is a pure, unbatched function of an episode. It changes how often an episode is drawn and
never what is in it; steps of a drawn episode stay uniform.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from her_jax.errors import UserError
from her_jax.types import Episode, GoalEnv

Priority = Callable[[Episode, float | None], jax.Array]
"""Unbatched episode, seconds between its states (None where there are none) -> its priority,
float32 [], at least 0."""

GRAVITY = 9.81
"""m/s^2."""

MAX_POWER = 12.5
"""Watts with which energy is added at most, so that one blow does not outweigh all else: 0.5 J in
a step of 40 ms (the authors' code, `clip_energy` for FetchPickAndPlace; here for all)."""


def uniform(episode: Episode, seconds: float | None) -> jax.Array:
    """The same for all."""
    del seconds
    return jnp.ones_like(episode.achieved_goal[0, 0])


def energy(episode: Episode, seconds: float | None) -> jax.Array:
    """Energy that the object was given: the sum over steps of its increases, in J for 1 kg.

    Goals must be positions in metres, z last, of states that are so many seconds apart; see
    `require`. The first state is taken to be at rest. Potential and linear kinetic energy, as in
    the authors' code for the Fetch tasks.

    References:
      Zhao and Tresp 2018, "Energy-Based Hindsight Experience Prioritization" (arXiv:1810.01363),
      section 3; their code's mass of 1 kg.
    """
    assert seconds is not None, "energy needs the time between two states"
    position = episode.achieved_goal
    velocity = jnp.diff(position, axis=0, prepend=position[:1]) / seconds
    total = GRAVITY * position[:, -1] + 0.5 * jnp.sum(jnp.square(velocity), axis=-1)
    return jnp.sum(jnp.clip(jnp.diff(total), 0.0, MAX_POWER * seconds))


PRIORITIES: dict[str, Priority] = {"uniform": uniform, "energy": energy}


def require(priority: str, env: GoalEnv) -> None:
    """Refuses a priority that means nothing in an environment.

    Raises:
      UserError: if energy is asked for where goals are not positions in space and time.
    """
    spec = env.goal_spec
    if priority != "energy":
        return
    if (spec.coordinates, spec.units) != (tuple("xyz"), "m"):
        raise UserError(
            f"priority: 'energy' needs goals that are positions in metres, and {env.name}'s is a "
            f"{spec.name}; use uniform"
        )
    if env.seconds_per_action is None:
        raise UserError(f"priority: 'energy' needs time, and {env.name} has none; use uniform")
