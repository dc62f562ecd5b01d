"""Goal-conditioned robotics environments in JAX.

import her_envs
env = her_envs.make("FetchPush")
"""

from __future__ import annotations

from her_envs.fetch import model
from her_envs.fetch.env import FetchEnv, FetchState
from her_envs.fetch.tasks import DISTANCE_THRESHOLD, TASKS
from her_envs.physics.native import Native
from her_jax.errors import UserError

PHYSICS = ("native",)
"""Backends that `make` knows."""

TOLERANCES = {
    "v4": dict.fromkeys(TASKS, DISTANCE_THRESHOLD),
    "her2017": {"FetchPush": 0.07, "FetchPickAndPlace": 0.07, "FetchSlide": 0.20},
}
"""Success distances in metres by name: Gymnasium-Robotics v4's, and those of the HER paper
(Andrychowicz et al. 2017, arXiv:1707.01495, figure 3), whose results are not comparable."""

REWARDS = ("sparse", "dense")


def names() -> tuple[str, ...]:
    """Names of all environments."""
    return tuple(TASKS)


def make(
    name: str,
    *,
    physics: str = "native",
    num_threads: int = 0,
    tolerance: str = "v4",
    reward: str = "sparse",
) -> FetchEnv:
    """Makes an environment.

    Args:
      name: one of `names()`.
      physics: one of `PHYSICS`.
      num_threads: host threads for the `native` physics; 0 for all cores.
      tolerance: one of `TOLERANCES`; anything but "v4" leaves parity with the original.
      reward: "sparse" (-1 or 0) or "dense" (negative distance in metres).

    Raises:
      UserError: if a name is unknown, with the list of those that are known.
    """
    _check("environment", name, names())
    _check("physics", physics, PHYSICS)
    _check("tolerance", tolerance, tuple(TOLERANCES))
    _check("reward", reward, REWARDS)
    if name not in TOLERANCES[tolerance]:
        raise UserError(f"tolerance: {tolerance!r} is not defined for {name}; choose v4")
    task = TASKS[name]
    return FetchEnv(
        task=task,
        physics=Native(model.scene(task), num_threads),
        tolerance=TOLERANCES[tolerance][name],
        dense=reward == "dense",
    )


def _check(field: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise UserError(f"{field}: {value!r} is unknown; choose one of {', '.join(known)}")


__all__ = [
    "PHYSICS",
    "REWARDS",
    "TOLERANCES",
    "FetchEnv",
    "FetchState",
    "make",
    "names",
]
