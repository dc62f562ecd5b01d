"""Settings, one Python file each.

Each docstring states the command, the hardware, the time and the expected result.
"""

from __future__ import annotations

import importlib

from her_jax.config import Config
from her_jax.errors import UserError

TASKS = {
    "fetch-reach": "FetchReach",
    "fetch-push": "FetchPush",
    "fetch-slide": "FetchSlide",
    "fetch-pick-and-place": "FetchPickAndPlace",
}
"""Command-line names of the environments."""

PRESETS = ("tuned", "plappert2018")


def load(preset: str, task: str) -> Config:
    """The settings of `preset` for `task`.

    Args:
      preset: "tuned" for the task's own file, or "plappert2018".
      task: one of `TASKS`.

    Raises:
      UserError: if either is unknown.
    """
    env = environment(task)
    if preset not in PRESETS:
        raise UserError(f"preset: {preset!r} is unknown; choose one of {', '.join(PRESETS)}")
    name = task.replace("-", "_") if preset == "tuned" else preset
    return importlib.import_module(f"{__name__}.{name}").config(env)


def environment(task: str) -> str:
    """The environment behind a command-line name.

    Raises:
      UserError: if it is unknown.
    """
    if task not in TASKS:
        raise UserError(f"task: {task!r} is unknown; choose one of {', '.join(TASKS)}")
    return TASKS[task]
