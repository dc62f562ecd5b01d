"""What the notebooks share: their options, a run to look at, their figures.

A notebook is a Python file. As a script it takes its options from the command line and saves its
figures; in Jupyter it takes the defaults and shows them.
"""

from __future__ import annotations

import builtins
import dataclasses
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from rich.console import Console

import launch
import presets
from her_jax.errors import UserError
from her_jax.runner import Run

Result = TypeVar("Result")


@dataclasses.dataclass(frozen=True)
class Figures:
    """Where a script leaves its figures."""

    figures: Path = Path("runs/figures")
    """Folder where a script saves its figures; a notebook shows them."""


@dataclasses.dataclass(frozen=True)
class Options(Figures):
    """Which run a notebook is about."""

    task: str = "fetch-reach"
    """Task that is trained live, with its preset `tuned`."""
    seed: int = 0
    """Seed of the live run."""
    env_steps: int | None = None
    """Environment steps of the live run, rounded up to whole epochs; default the preset's."""
    out: Path | None = None
    """Folder of the live run; default a temporary one."""
    run: Path | None = None
    """Folder of a run to look at; nothing is trained then."""


Chosen = TypeVar("Chosen", bound=Figures)


def options(kind: type[Chosen]) -> Chosen:
    """The notebook's options: those of the command line, in Jupyter the defaults.

    Bad options end a script with one line.
    """
    if in_jupyter():
        return kind()
    return checked(lambda: _prepared(launch.options(kind)))


def checked(function: Callable[[], Result]) -> Result:
    """What `function` returns; if its input is bad, one line is printed and nothing follows."""
    results: list[Result] = []
    launch.guarded(lambda: results.append(function()))
    return results[0]


def trained(chosen: Options) -> Run:
    """The run to look at: trained now, or one that is there.

    Raises:
      UserError: if the options do not fit, or the folder holds no run.
    """
    if chosen.run is not None:
        for name in ("task", "seed", "env_steps", "out"):
            if getattr(chosen, name) != getattr(type(chosen), name):
                raise UserError(f"{name}: without effect on a run that is there; leave it out")
        return launch.open_run(chosen.run)
    config = dataclasses.replace(presets.load("tuned", chosen.task), seed=chosen.seed)
    if chosen.env_steps is not None:
        budget = dataclasses.replace(config.train, env_steps=chosen.env_steps)
        config = dataclasses.replace(config, train=budget)
    run = launch.bind(config, chosen.out or Path(tempfile.mkdtemp(prefix="her-jax-")) / "run")
    if in_jupyter():  # plain lines: Rich's bar needs another package there
        run.console = Console(
            highlight=False, soft_wrap=True, force_jupyter=False, force_terminal=False
        )
    run.console.print(f"run folder: {run.folder}")
    run.start()
    return run


def show(figure: Figure, name: str, chosen: Figures) -> None:
    """Shows a figure in Jupyter; a script saves it as NAME.png."""
    if in_jupyter():
        plt.show()
        return
    path = chosen.figures / f"{name}.png"
    figure.savefig(path, dpi=120)
    plt.close(figure)
    launch.console.print(f"wrote {path}")


def in_jupyter() -> bool:
    """Whether cells are run one by one, by IPython."""
    return hasattr(builtins, "__IPYTHON__")


def _prepared(chosen: Chosen) -> Chosen:
    """The same options, their folder of figures made."""
    try:
        chosen.figures.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"figures: {chosen.figures} cannot be made ({error}); name another"
        ) from None
    return chosen
