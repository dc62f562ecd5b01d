"""Trains seeds x settings: `python experiments/sweep.py TASK --seeds 0 1 2 --grid k=4,8 [options]`.

    python experiments/sweep.py fetch-push --grid strategy=future,final k=4,8 --env-steps 200000
    python experiments/sweep.py fetch-push --grid "hidden=64 64,256 256"
    python experiments/sweep.py fetch-push --figure strategies --seeds 0 1 2 3 4
    python experiments/sweep.py --resume runs/SWEEP

Settings are named and typed as options of train.py, true or false for flags, and every option of
train.py but `--seed` and `--video` sets the base that the grid changes. The seeds of a setting are
one compiled program (`her_jax.group`); settings follow each other. OUT, printed first, gets

    SETTING-seedN/  an ordinary run folder each: plot.py, table.py, audit.py, ... read it
    plugin.py       the plugin, if there is one
    sweep.json      settings, seeds, and command, commit, device and seconds of every sitting
    curves.png      median and interquartile band of every setting
    figure.png      with `--figure`: success over the number that the figure varies, if it does
    curves.csv      the same as numbers
    table.md        success at the end with its interval

`--resume OUT` skips finished runs and goes on with the others from their checkpoints; a run folder
without a checkpoint holds nothing that could be lost, and is made anew. Seconds of a sitting count
until its last finished setting.

Figures of the literature, "bits" on bit-flip with 50,000 episodes a run unless `--env-steps` says
otherwise, the others on any Fetch task:

    bits        bit strings of 8 to 50 bits with and without hindsight: Andrychowicz et al. 2017,
                figure 1
    goals       the same goal in every episode against many goals, with and without hindsight:
                Andrychowicz et al. 2017, figures 3 and 4
    strategies  relabelling strategies x k: Andrychowicz et al. 2017 (arXiv:1707.01495), figure 6
    rewards     sparse and dense reward, with and without hindsight: the four configurations of
                Plappert et al. 2018 (arXiv:1802.09464)

and of this project:

    updates     25 to 200 updates for each round of episodes
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import re
import shutil
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import grouping
import launch
import plot
import presets
import train
from her_envs import bitflip
from her_jax import checkpoint, group, lock, memory, metrics, provenance
from her_jax.config import Config
from her_jax.errors import UserError
from her_jax.runner import PLUGIN, Run, plugin_hash
from her_jax.types import GoalEnv

NUMBERS, TABLE = "curves.csv", "table.md"

_BUDGET = re.compile(r"--(train\.)?env[-_]steps(=.*)?")

Grid = tuple[str, ...]
"""Words like "k=4,8": a setting and its values."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A figure of the literature.

    Attributes:
      grids: each a cross product; all of them together are the settings.
      against: the number on its horizontal axis, if that is not time.
      flips: whether it is of bit flipping, and not of a Fetch task; None for any, as of a grid.
      episodes: budget of a bit-flipping run, whatever the length of its episodes.
    """

    grids: tuple[Grid, ...]
    against: str | None = None
    flips: bool | None = None
    episodes: int | None = None

    def budgeted(self, config: Config) -> Config:
        """The configuration with the recipe's budget, if it has one."""
        if self.episodes is None:
            return config
        steps = self.episodes * config.env.n
        return dataclasses.replace(config, train=dataclasses.replace(config.train, env_steps=steps))


FIGURES = {
    "strategies": Recipe(
        (("strategy=none",), ("strategy=future,final,episode,random", "k=1,2,4,8,16")), "k", False
    ),
    "bits": Recipe((("n=8,10,11,12,13,15,20,30,50", "strategy=future,none"),), "n", True, 50_000),
    "goals": Recipe((("goal=single,many", "strategy=future,none"),), flips=False),
    "rewards": Recipe((("reward=sparse,dense", "strategy=future,none"),), flips=False),
    "updates": Recipe((("updates_per_cycle=25,50,100,200",),), flips=False),
}


@dataclasses.dataclass(frozen=True)
class Options:
    """Train seeds x settings; every option of train.py but --seed and --video sets the base."""

    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of every setting."""
    grid: Grid = ()
    """Settings to cross, each with its values: strategy=future,final k=4,8."""
    figure: str | None = None
    """Settings of a figure instead: "strategies", "bits", "goals", "rewards" or "updates"."""
    batch: str = "auto"
    """Seeds of a program one after the other ("map"), at once ("vmap"), or as the device suits."""
    out: Path | None = None
    """Folder to make; default runs/TASK-sweep-TIME."""


@dataclasses.dataclass(frozen=True)
class Resume:
    """Go on with an interrupted sweep."""

    resume: Path
    """Folder of the sweep."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """One point of a grid.

    Attributes:
      changes: setting -> value, as typed.
      config: what they make of the base; its seed is not used.
    """

    changes: dict[str, str]
    config: Config

    @property
    def label(self) -> str:
        """Of its run folders, e.g. "strategy=future,k=4"; the task without a change."""
        words = [f"{name}={value.replace(' ', 'x')}" for name, value in self.changes.items()]
        return ",".join(words) or presets.word(self.config.env.task)


@dataclasses.dataclass(frozen=True)
class Sweep:
    """What is trained.

    Attributes:
      settings: with different labels.
      seeds: of every setting.
      batch: one of `group.BATCHES`.
      against: see `Recipe`.
    """

    settings: tuple[Setting, ...]
    seeds: tuple[int, ...]
    batch: str
    against: str | None = None

    @property
    def by(self) -> tuple[str, ...]:
        """Names of all settings that the sweep changes."""
        return tuple(dict.fromkeys(name for setting in self.settings for name in setting.changes))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for sweep.json."""
        return {
            "seeds": list(self.seeds),
            "batch": self.batch,
            "against": self.against,
            "settings": [
                {"changes": setting.changes, "config": setting.config.to_dict()}
                for setting in self.settings
            ],
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Sweep:
        """Inverse of `to_dict`.

        Raises:
          UserError: if a configuration is of another version.
        """
        settings = tuple(
            Setting(entry["changes"], Config.from_dict(entry["config"]))
            for entry in values["settings"]
        )
        return cls(settings, tuple(values["seeds"]), values["batch"], values["against"])


def main() -> None:
    """Parses the command line, trains, and draws and prints what came of it."""
    words = sys.argv[1:]
    with contextlib.ExitStack() as locks:
        if any(word == "--resume" or word.startswith("--resume=") for word in words):
            if not words[0].startswith("-"):
                raise UserError("task: the folder knows it; give --resume SWEEP alone")
            folder = launch.options(Resume, prog="sweep.py", args=words).resume
            locks.enter_context(lock.alone(folder))
            sweep, groups, sittings = reopen(folder)
        else:
            sweep, out = parse(words)
            folder, sittings = out or default_folder(sweep), []
            _require_new(folder)
            groups = bind(sweep, folder)
            for runs in groups:
                group.require(runs, sweep.batch)
            _create(folder, sweep.settings[0].config.replay.plugin)
            locks.enter_context(lock.alone(folder))
        try:
            run(sweep, groups, folder, sittings)
        except KeyboardInterrupt:
            launch.status.print(f"go on with sweep.py --resume {folder}", markup=False)
            raise


def reopen(folder: Path) -> tuple[Sweep, list[list[Run]], list[dict[str, Any]]]:
    """A sweep to go on with, its runs and what sweep.json says of earlier sittings.

    Raises:
      UserError: if the folder holds none, or a plugin that is not the one it began with.
    """
    values = read(folder)
    if any(entry["config"]["replay"].get("plugin") for entry in values["settings"]):
        launch.load_plugin(str(folder / PLUGIN))
    sweep = Sweep.from_dict(values)
    groups = bind(sweep, folder)
    _require_same_plugin(groups, folder)
    _clear(groups)
    return sweep, groups, values["sittings"]


def run(
    sweep: Sweep, groups: Sequence[Sequence[Run]], folder: Path, sittings: list[dict[str, Any]]
) -> None:
    """Trains what is left of a sweep, and draws and prints what came of it; see `fit`.

    Raises:
      UserError: if runs have stopped.
    """
    launch.console.print(
        f"sweep folder: {folder}; {len(sweep.settings)} settings x {len(sweep.seeds)} seeds"
    )
    stopped = fit(sweep, groups, folder, sittings)
    launch.console.print(report(sweep, groups, folder), markup=False)
    launch.console.print(f"total {sittings[-1]['wall_s']:.1f} s; results in {folder}")
    if stopped:
        raise UserError(
            f"{len(stopped)} runs have stopped; the first: {next(iter(stopped.values()))}"
        )


def parse(words: list[str]) -> tuple[Sweep, Path | None]:
    """TASK first, then options of the sweep and of train.py; returns the sweep and `--out`.

    Raises:
      UserError: names the setting or the value that does not fit.
    """
    task = [word for word in words[:1] if not word.startswith("-")]
    options, base = launch.options(
        Options,
        prog="sweep.py TASK",
        description=f"Train seeds x settings; TASK is {', '.join(presets.TASKS)}. Every option of "
        "`train.py TASK --help` but --seed and --video sets the base. `sweep.py --resume SWEEP` "
        "goes on with an interrupted sweep.",
        args=words[len(task) :],
        return_unknown_args=True,
    )
    if any(word == "--seed" or word.startswith("--seed=") for word in base):
        raise UserError("seed: a sweep has several; give --seeds 0 1 2")
    if {"--video", "--no-video"} & {word.replace("_", "-") for word in base}:
        raise UserError("video: a sweep records none; leave it out, and use render.py RUN")
    group.resolve(options.batch)
    seeds = options.seeds
    if not seeds or len(set(seeds)) < len(seeds):
        raise UserError(f"seeds: {seeds} are not different ones; give e.g. --seeds 0 1 2")
    if options.figure is not None and options.grid:
        raise UserError("figure, grid: both given; a figure brings its own settings")
    if options.figure is not None and options.figure not in FIGURES:
        raise UserError(
            f"figure: {options.figure!r} is unknown; choose one of {', '.join(FIGURES)}"
        )
    recipe = Recipe((options.grid,)) if options.figure is None else FIGURES[options.figure]
    plain = train.parse([*task, *base]).config
    usual = grouping.settings(plain)
    names = [name for name in usual if name not in ("task", "agent")]
    flips = plain.env.task == bitflip.NAME
    if recipe.flips is not None and recipe.flips != flips:
        kind = "bit-flip" if recipe.flips else "a Fetch task"
        raise UserError(f"figure: {options.figure!r} is not of {task[0]}; give {kind}")
    if any(_BUDGET.fullmatch(word) for word in base):
        recipe = dataclasses.replace(recipe, episodes=None)  # the command line says
    settings = tuple(
        Setting(changes, recipe.budgeted(_changed([*task, *base], changes, usual)))
        for grid in recipe.grids
        for changes in cross(grid, names)
    )
    typed = train.named(base)
    varied = list(dict.fromkeys(name for setting in settings for name in setting.changes))
    for name in varied:
        if name in typed:
            raise UserError(f"{name}: the sweep sets it; leave the option out")
    for seed in seeds:
        try:
            dataclasses.replace(plain, seed=seed)
        except UserError as error:
            raise UserError(f"seeds: {str(error).removeprefix('seed: ')}") from None
    train.require_effect([*typed, *varied], [setting.config for setting in settings])
    train.require_used([setting.config for setting in settings])
    settings = _different(settings)
    return Sweep(settings, seeds, options.batch, recipe.against), options.out


def cross(grid: Grid, names: Iterable[str]) -> list[dict[str, str]]:
    """The cross product of a grid: setting -> value, as typed, for each of its points.

    Args:
      grid: words like "k=4,8"; of a value with spaces each word counts, as in "hidden=64 64".
      names: of all settings.

    Raises:
      UserError: if a word has no values, or names no setting or one that was named before.
    """
    axes: dict[str, list[str]] = {}
    for word in grid:
        name, equals, values = word.partition("=")
        name = name.replace("-", "_")
        listed = [value.strip() for value in values.split(",")]
        if not equals or not all(listed):
            raise UserError(f"grid: {word!r} is no setting with values; give e.g. k=4,8")
        if name == "seed":
            raise UserError("grid: 'seed' is no setting of a grid; give --seeds 0 1 2")
        if name in ("algorithm", "agent"):
            raise UserError(
                f"grid: {name!r} is the same in a whole sweep; run one with --algorithm for each, "
                "and draw them together by plot.py SWEEP OTHER --by agent"
            )
        if name not in names:
            raise UserError(f"grid: {name!r} is no setting; choose some of {', '.join(names)}")
        if name in axes:
            raise UserError(f"grid: {name!r} is named twice; list its values once")
        axes[name] = listed
    return [dict(zip(axes, point, strict=True)) for point in itertools.product(*axes.values())]


def bind(sweep: Sweep, folder: Path) -> list[list[Run]]:
    """For each setting the runs of its seeds; those of equal `config.env` share an environment."""
    launch.keep_programs()
    envs: dict[Any, tuple[GoalEnv, GoalEnv]] = {}
    groups = []
    for setting in sweep.settings:
        config = setting.config
        if config.replay.plugin:  # the copy is there wherever the sweep goes on
            kept = dataclasses.replace(config.replay, plugin=str(folder / PLUGIN))
            config = dataclasses.replace(config, replay=kept)
        if config.env not in envs:
            envs[config.env] = launch.make_envs(config.env)
        env, judge = envs[config.env]
        groups.append(
            [
                Run(
                    env,
                    dataclasses.replace(config, seed=seed),
                    folder / f"{setting.label}-seed{seed}",
                    launch.console,
                    judge,
                )
                for seed in sweep.seeds
            ]
        )
    return groups


def fit(
    sweep: Sweep, groups: Sequence[Sequence[Run]], folder: Path, sittings: list[dict[str, Any]]
) -> dict[Path, str]:
    """Trains setting after setting and keeps sweep.json up to date.

    Args:
      sweep: what is trained.
      groups: its runs.
      folder: of the sweep.
      sittings: what sweep.json says of earlier ones; this one is added.

    Returns:
      Folder of each run that stopped, and why.
    """
    began = time.perf_counter()
    sitting: dict[str, Any] = {
        "command": provenance.command(),
        "batch": group.resolve(sweep.batch),
        "commit": provenance.commit(),
        "device": provenance.device(),
        "versions": provenance.versions(),
        "wall_s": 0.0,
        "stopped": {},
    }
    sittings.append(sitting)
    write(sweep, folder, sittings)
    for number, (setting, runs) in enumerate(zip(sweep.settings, groups, strict=True), 1):
        launch.console.print(f"setting {number} of {len(groups)}: {setting.label}")
        try:
            with memory.exhaustible():
                stopped = group.fit(runs, sweep.batch)
        except UserError as error:  # the settings that follow may run
            stopped = {run.folder: str(error) for run in runs if not group.finished(run)}
            launch.console.print(f"stopped: {error}", markup=False)
        sitting["stopped"] |= {path.name: reason for path, reason in stopped.items()}
        sitting["wall_s"] = time.perf_counter() - began
        write(sweep, folder, sittings)
    return {folder / name: reason for name, reason in sitting["stopped"].items()}


def report(sweep: Sweep, groups: Sequence[Sequence[Run]], folder: Path) -> str:
    """Draws the pictures of the runs that have an epoch, and writes and returns the table."""
    runs = [run.folder for runs in groups for run in runs if _epochs(run)]
    if not runs:
        return "no run has an epoch"
    plot.curves(runs, folder / plot.CURVES, sweep.by)
    plot.write_csv(runs, folder / NUMBERS, sweep.by)
    if sweep.against is not None:
        plot.over_setting(runs, folder / plot.FIGURE, sweep.against, sweep.by)
    table = plot.summary_table(runs, sweep.by)
    metrics.write_text(folder / TABLE, table + "\n")
    return table


def read(folder: Path) -> dict[str, Any]:
    """The sweep.json of a sweep.

    Raises:
      UserError: if the folder holds none, or it is damaged.
    """
    if not (folder / grouping.SWEEP).is_file():
        raise UserError(
            f"sweep: {folder} holds no {grouping.SWEEP}; give a folder that sweep.py made"
        )
    values = metrics.read_json(folder / grouping.SWEEP)
    missing = {"settings", "seeds", "batch", "against", "sittings"} - values.keys()
    if missing:
        raise UserError(
            f"sweep: {folder / grouping.SWEEP} lacks {', '.join(sorted(missing))}; restore it"
        )
    settings, parts = values["settings"], {"changes", "config"}
    whole = isinstance(settings, list) and settings
    if not whole or not all(isinstance(x, dict) and parts <= x.keys() for x in settings):
        raise UserError(f"sweep: {folder / grouping.SWEEP} names no whole settings; restore it")
    return values


def write(sweep: Sweep, folder: Path, sittings: list[dict[str, Any]]) -> None:
    """Writes sweep.json."""
    metrics.write_json(folder / grouping.SWEEP, sweep.to_dict() | {"sittings": sittings})


def default_folder(sweep: Sweep) -> Path:
    """runs/TASK-sweep-TIME below the current folder."""
    task = Setting({}, sweep.settings[0].config).label
    return Path("runs") / f"{task}-sweep-{time.strftime('%Y%m%d-%H%M%S')}"


def _require_new(folder: Path) -> None:
    if folder.exists():
        resume = f", or go on with --resume {folder}" if (folder / grouping.SWEEP).is_file() else ""
        raise UserError(f"out: {folder} already exists; name a new folder{resume}")


def _create(folder: Path, plugin: str) -> None:
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"out: {folder} cannot be made ({error}); name another") from None
    if plugin:
        shutil.copyfile(plugin, folder / PLUGIN)


def _require_same_plugin(groups: Sequence[Sequence[Run]], folder: Path) -> None:
    """Refuses a plugin that is not the one that the runs of the sweep began with."""
    began_with = plugin_hash(folder / PLUGIN)
    for run in itertools.chain(*groups):
        if run.folder.is_dir() and plugin_hash(run.folder / PLUGIN) != began_with:
            raise UserError(
                f"plugin: {folder / PLUGIN} is not that of {run.folder.name}; restore it"
            )


def _clear(groups: Sequence[Sequence[Run]]) -> None:
    """Removes run folders in which nothing has been saved."""
    for run in itertools.chain(*groups):
        if (
            run.folder.is_dir()
            and not group.finished(run)
            and checkpoint.latest(run.folder) is None
        ):
            shutil.rmtree(run.folder)


def _changed(words: list[str], changes: dict[str, str], usual: dict[str, Any]) -> Config:
    """What train.py makes of its words and of the changes to what is usual.

    Raises:
      UserError: names the change that does not fit.
    """
    flags = [_flag(name, value, usual[name]) for name, value in changes.items()]
    return train.parse([*words, *itertools.chain(*flags)]).config


def _flag(name: str, value: str, usual: Any) -> list[str]:
    """A change as words of train.py's command line."""
    option = name.replace("_", "-")
    if not isinstance(usual, bool):
        return [f"--{option}", *value.split()]
    if value.lower() not in ("true", "false"):
        raise UserError(f"grid: {name}: {value!r} is neither true nor false")
    return [f"--{option}" if value.lower() == "true" else f"--no-{option}"]


def _different(settings: Sequence[Setting]) -> tuple[Setting, ...]:
    """The settings without those that are the training of an earlier one, e.g. k=8 without HER.

    Raises:
      UserError: if two are the same once parsed, e.g. k=4 and k=4.0.
    """
    kept: dict[Config, Setting] = {}
    for setting in settings:
        earlier = kept.setdefault(grouping.effective(setting.config), setting)
        if earlier is setting:
            continue
        if earlier.config == setting.config:
            raise UserError(
                f"grid: {earlier.label} and {setting.label} are one setting; name it once"
            )
        launch.console.print(f"{setting.label} is the same training as {earlier.label}; left out")
    return tuple(kept.values())


def _epochs(run: Run) -> bool:
    """Whether the run has logged an epoch."""
    path = run.folder / metrics.METRICS
    return path.is_file() and path.stat().st_size > 0


if __name__ == "__main__":
    launch.guarded(main)
