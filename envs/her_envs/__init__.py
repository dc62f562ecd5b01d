"""Goal-conditioned robotics environments in JAX.

import her_envs
env = her_envs.make("FetchPush")
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from typing import Any

import numpy as np

from her_envs import bitflip
from her_envs.bitflip import BitFlipEnv
from her_envs.fetch import model as scenes
from her_envs.fetch.env import FetchEnv, FetchState
from her_envs.fetch.tasks import DISTANCE_THRESHOLD, TASKS
from her_envs.physics.base import Physics
from her_envs.physics.mjx import GRAPH_MODES, IMPLEMENTATIONS, NCONMAX, NJMAX, Mjx, require_options
from her_envs.physics.native import Native
from her_envs.repeat import Repeated
from her_jax.errors import UserError, reason
from her_jax.types import GoalEnv

PHYSICS = ("native", *IMPLEMENTATIONS)
"""Backends that `make` knows: MuJoCo's C engine, MuJoCo Warp and MJX in pure JAX."""

MODELS = scenes.VARIANTS
"""Models that `make` knows."""

TOLERANCES = {
    "v4": dict.fromkeys(TASKS, DISTANCE_THRESHOLD),
    "her2017": {"FetchPush": 0.07, "FetchPickAndPlace": 0.07, "FetchSlide": 0.20},
}
"""Success distances in metres by name: Gymnasium-Robotics v4's, and those of the HER paper
(Andrychowicz et al. 2017, arXiv:1707.01495, figure 3), whose results are not comparable."""

REWARDS = ("sparse", "dense")

GOALS = ("many", "single")


_OWN: dict[str, Callable[[], GoalEnv]] = {}
"""Environments that `register` added."""


def names() -> tuple[str, ...]:
    """Names of all environments."""
    return (*TASKS, bitflip.NAME, *_OWN)


def register(name: str, make: Callable[[], GoalEnv]) -> None:
    """Adds an environment of a user's own under a name that `her_envs.make` and the scripts know.

    Args:
      name: a new one, or one registered before; the environment's own, but for a number at its end.
      make: a class, or what else makes the environment; its `simulator` is None, the default,
        whatever simulates it, for the settings of physics are those of the Fetch tasks.

    Raises:
      UserError: if the name is a built-in one, or nothing is made by a call.
    """
    if not callable(make):
        raise UserError(f"environment: {make!r} makes none; give its class, or a function")
    if name in (*TASKS, bitflip.NAME):
        raise UserError(f"environment: {name!r} is a built-in one; choose another name")
    _OWN[name] = make


def registered() -> tuple[str, ...]:
    """Names that `register` added."""
    return tuple(_OWN)


def forget(names: Collection[str] | None = None) -> None:
    """Removes what `register` added, or what of it has one of these names."""
    for name in registered():
        if names is None or name in names:
            del _OWN[name]


def make(
    name: str,
    *,
    physics: str = "native",
    model: str = "stock",
    num_threads: int = 0,
    nconmax: int = NCONMAX,
    njmax: int = NJMAX,
    graph_mode: str = GRAPH_MODES[0],
    tolerance: str = "v4",
    reward: str = "sparse",
    goal: str = "many",
    action_repeat: int = 1,
    n: int = 10,
) -> Any:
    """Makes an environment, a `her_jax.types.GoalEnv`.

    Args:
      name: one of `names()`. Bit flipping has only `n`, the Fetch tasks all but `n`, registered
        ones nothing; of what a task has not, sizes, threads and graph modes are ignored and all
        else is refused.
      physics: one of `PHYSICS`.
      model: one of `MODELS`: "stock" is the original's; "jax" needs "portable".
      num_threads: host threads for the `native` physics; 0 for all cores.
      nconmax: contacts for which the `warp` physics has room, an environment.
      njmax: constraint rows for which it has room, in each environment.
      graph_mode: how it captures CUDA graphs, see `her_envs.physics.mjx.GRAPH_MODES`.
      tolerance: one of `TOLERANCES`; anything but "v4" leaves parity with the original.
      reward: "sparse" (-1 or 0) or "dense" (negative distance in metres).
      goal: "many", uniform over the task's region, or "single", the same in every episode.
      action_repeat: environment steps for which an action is held; it must divide the horizon.
      n: number of bits.

    Raises:
      UserError: if a name is unknown, with the list of those that are known, an environment would
        be another than what was asked for, or the physics cannot simulate the model.
    """
    _check("environment", name, names())
    _check("physics", physics, PHYSICS)
    _check("model", model, MODELS)
    require_options(nconmax, njmax, graph_mode)
    _check("tolerance", tolerance, tuple(TOLERANCES))
    _check("reward", reward, REWARDS)
    _check("goal", goal, GOALS)
    of_fetch = {"physics": physics, "model": model, "tolerance": tolerance}
    of_fetch |= {"reward": reward, "goal": goal, "action_repeat": action_repeat}
    if name == bitflip.NAME:
        if not isinstance(n, int | np.integer) or n < 1:
            raise UserError(f"n: {n} is no positive whole number; give the number of bits, e.g. 10")
        _refuse_unused(name, of_fetch)
        return BitFlipEnv(n)
    _refuse_unused(name, {"n": n})
    if name in _OWN:
        _refuse_unused(name, of_fetch)
        try:
            return _OWN[name]()
        except Exception as error:  # whatever a user's class may raise
            raise UserError(
                f"environment: {name!r} cannot be made: {reason(error)}; mend it"
            ) from error
    if name not in TOLERANCES[tolerance]:
        raise UserError(f"tolerance: {tolerance!r} is not defined for {name}; choose v4")
    scene = scenes.scene(TASKS[name], model)
    backend: Physics = (
        Native(scene, num_threads)
        if physics == "native"
        else Mjx(scene, physics, nconmax, njmax, graph_mode)
    )
    env = FetchEnv(
        task=TASKS[name],
        physics=backend,
        tolerance=TOLERANCES[tolerance][name],
        dense=reward == "dense",
        single_goal=goal == "single",
    )
    return env if action_repeat == 1 else Repeated(env, action_repeat)


def _check(field: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise UserError(f"{field}: {value!r} is unknown; choose one of {', '.join(known)}")


def _refuse_unused(name: str, options: dict[str, Any]) -> None:
    """Refuses what a run would be told apart by although the environment is the same."""
    for field, value in options.items():
        default = inspect.signature(make).parameters[field].default
        if value != default:
            raise UserError(f"{field}: {value!r} has no meaning in {name}; leave it at {default!r}")


__all__ = [
    "GOALS",
    "MODELS",
    "PHYSICS",
    "REWARDS",
    "TASKS",
    "TOLERANCES",
    "BitFlipEnv",
    "FetchEnv",
    "FetchState",
    "Repeated",
    "make",
    "names",
    "register",
]
