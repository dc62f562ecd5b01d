"""What every experiment script shares: options to configuration, one-line errors, run folders."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

import her_envs
from her_jax import metrics
from her_jax.config import Config
from her_jax.errors import UserError
from her_jax.runner import Run

console = Console(highlight=False, soft_wrap=True)
status = Console(highlight=False, soft_wrap=True, stderr=True)


def guarded(main: Callable[[], None]) -> None:
    """Runs a script; bad input ends it with one line on standard error and exit status 2."""
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr, flush=True)
        sys.stdout.flush()
        os._exit(130)  # a compiler thread that still runs would crash an orderly exit


def bind(config: Config, folder: Path) -> Run:
    """A run of `config` in `folder`, its environment made."""
    env = her_envs.make(
        config.env.task,
        physics=config.env.physics,
        num_threads=config.env.num_threads,
        tolerance=config.env.tolerance,
        reward=config.env.reward,
    )
    return Run(env, config, folder, console)


def read_config(folder: Path) -> Config:
    """The settings of the run that lives in `folder`.

    Raises:
      UserError: if it is not a run folder.
    """
    if not folder.is_dir():
        raise UserError(f"run: {folder} is no folder; give one that train.py made")
    return Config.from_dict(metrics.read_json(folder / metrics.CONFIG))


def open_run(folder: Path) -> Run:
    """The run that lives in `folder`.

    Raises:
      UserError: if it is not a run folder.
    """
    return bind(read_config(folder), folder)


def report(values: dict[str, Any]) -> None:
    """Prints a dictionary as JSON."""
    console.print(json.dumps(values, indent=2), markup=False)
