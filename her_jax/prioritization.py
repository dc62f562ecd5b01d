"""Which episodes are replayed more often: a priority for each, fixed when it is stored.

A priority is a pure, unbatched function of an episode. It changes how often an episode is drawn and
never what is in it; steps of a drawn episode stay uniform.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from her_jax.types import Episode

Priority = Callable[[Episode], jax.Array]
"""Unbatched episode -> its priority, float32 [], at least 0."""

GRAVITY = 9.81
"""m/s^2."""

STEP_S = 0.04
"""Seconds between two states of a Fetch episode: 25 Hz."""

MAX_STEP_ENERGY = 0.5
"""Joules that a step adds at most, so that one blow does not outweigh all else (the authors' code,
`clip_energy` for FetchPickAndPlace; used here for all Fetch tasks)."""


def uniform(episode: Episode) -> jax.Array:
    """The same for all."""
    return jnp.ones_like(episode.achieved_goal[0, 0])


def energy(episode: Episode) -> jax.Array:
    """Energy that the object was given: the sum over steps of its increases, in J for 1 kg.

    Goals must be positions in metres, z last, of states that are `STEP_S` apart. Their first state
    is taken to be at rest. Potential and linear kinetic energy, as in the authors' code for the
    Fetch tasks.

    References:
      Zhao and Tresp 2018, "Energy-Based Hindsight Experience Prioritization" (arXiv:1810.01363),
      section 3; their code's mass of 1 kg.
    """
    position = episode.achieved_goal
    velocity = jnp.diff(position, axis=0, prepend=position[:1]) / STEP_S
    total = GRAVITY * position[:, -1] + 0.5 * jnp.sum(jnp.square(velocity), axis=-1)
    return jnp.sum(jnp.clip(jnp.diff(total), 0.0, MAX_STEP_ENERGY))


PRIORITIES: dict[str, Priority] = {"uniform": uniform, "energy": energy}
