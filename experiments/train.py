"""Trains a policy: `python experiments/train.py TASK [options]`, or goes on with `--resume RUN`.

TASK is fetch-reach, fetch-push, fetch-slide, fetch-pick-and-place or bit-flip, or what `--plugin
FILE` registers. The run folder (printed first; `--out` names it) gets config.json, metrics.jsonl,
summary.json, policy.npz, the audit, checkpoints/, curve.png and, of Fetch tasks, rollout.mp4.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import tyro

import grouping
import launch
import plot
import presets
from her_jax import checkpoint, metrics
from her_jax.audit import record
from her_jax.config import AGENTS, Config
from her_jax.errors import UserError
from her_jax.runner import PLUGIN, Run
from her_jax.train import TrainState

_PREFIX = re.compile(r"^--(env|train|replay|agent|normalizer)\.([\w-]+)")
"""`--env.n 50` is the same as `--n 50`."""


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of the script itself; all others are settings of the run."""

    preset: str = "tuned"
    """Where settings start from: "tuned" (the task's own preset), "efficient" (on FetchPush fewer
    environment steps, more seconds each), "plappert2018", "accelerator" (many environments, fewer
    updates a step), or the folder of a run, whose settings they then are."""
    algorithm: str | None = None
    """Agent: "ddpg", "td3", "sac" or "dqn", or one that `--plugin` registers; default the
    preset's."""
    out: Path | None = None
    """Run folder to make; default runs/TASK-seedN-TIME."""
    video: bool = True
    """Whether to record rollout.mp4 at the end (--no-video to skip)."""


@dataclasses.dataclass(frozen=True)
class Launch:
    """Train a policy with hindsight experience replay."""

    options: Options
    config: Config


@dataclasses.dataclass(frozen=True)
class Resume:
    """Go on with an interrupted run from its latest checkpoint."""

    resume: Path
    """Run folder."""
    env_steps: int | None = None
    """New budget of environment steps, to train longer than planned."""
    video: bool = True
    """Whether to record rollout.mp4 at the end (--no-video to skip)."""


def main() -> None:
    """Parses the command line, trains, and prints where the results are."""
    words = sys.argv[1:]
    began = time.perf_counter()
    resumes = any(word == "--resume" or word.startswith("--resume=") for word in words)
    if resumes:
        run, video = reopen(words)
    else:
        settings = parse(words)
        require_effect(named(words), [settings.config])
        require_used([settings.config])
        video = settings.options.video
        run = launch.bind(settings.config, settings.options.out or default_folder(settings.config))
        launch.console.print(f"run folder: {run.folder}")
    try:
        state, summary = run.resume() if resumes else run.start()
    except KeyboardInterrupt:
        launch.status.print(what_is_saved(run), markup=False)
        raise
    finish(run, state, summary, video)
    launch.console.print(f"total {time.perf_counter() - began:.1f} s; results in {run.folder}")


def what_is_saved(run: Run) -> str:
    """What an interruption leaves, in a line."""
    epoch, period = checkpoint.latest(run.folder), run.config.train.checkpoint_period
    if epoch is None:
        return f"nothing was saved: the first checkpoint is that of epoch {min(period, run.epochs)}"
    return f"saved until epoch {epoch} of {run.epochs}; go on with train.py --resume {run.folder}"


def reopen(words: list[str]) -> tuple[Run, bool]:
    """The run to go on with, and whether to film it; a leading TASK must be the run's own."""
    typed = words[:1] if words and not words[0].startswith("-") else []
    options = launch.options(Resume, prog="train.py", args=words[len(typed) :])
    config = launch.read_config(options.resume)
    task = presets.environment(typed[0]) if typed else config.env.task
    if task != config.env.task:
        raise UserError(
            f"checkpoint: {options.resume} is of task {config.env.task!r}, not {task!r}; "
            f"use a run of {task!r}"
        )
    if options.env_steps is not None:
        longer = dataclasses.replace(config.train, env_steps=options.env_steps)
        config = dataclasses.replace(config, train=longer)
    return launch.bind(config, options.resume), options.video


def parse(words: list[str]) -> Launch:
    """TASK first, then flags over its preset's settings.

    Raises:
      UserError: names the setting or the value that does not fit.
    """
    if not words or words[0].startswith("-"):
        if not {"-h", "--help"} & set(words):
            raise UserError(f"task: none given; name one of {', '.join(presets.TASKS)} first")
        task, flags = "fetch-reach", words
    else:
        task, flags = words[0], words[1:]
    # A plugin may add settings, by which sections are checked: it is looked up and run before.
    plain = [_PREFIX.sub(r"--\2", word) for word in flags]
    if sum(word.partition("=")[0] == "--plugin" for word in plain) > 1:
        raise UserError("plugin: named twice; put what both register into one file")
    if plugin := _value(plain, "--plugin", ""):
        launch.load_plugin(plugin)
    preset = _preset(task, plain)
    flags = [_PREFIX.sub(_without_section, word) for word in flags]
    algorithm = _value(flags, "--algorithm", preset.agent.NAME)
    default = Launch(Options(), presets.with_agent(preset, algorithm))
    _require_own(flags, algorithm)
    settings = launch.options(
        Launch,
        prog="train.py TASK",
        description=f"Train a policy; TASK is {', '.join(presets.TASKS)}. "
        "`train.py --resume RUN` goes on with an interrupted run. Defaults shown are TASK's.",
        default=default,
        args=flags,
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.AvoidSubcommands),
    )
    if settings.config.env.task != presets.environment(task):
        raise UserError(
            f"task: {task!r} and --task {settings.config.env.task!r} differ; name it once, first"
        )
    return settings


def _preset(task: str, flags: list[str]) -> Config:
    """The settings that the flags are over: of a preset, or of a run.

    Raises:
      UserError: if there is no such preset, or the run is of another task.
    """
    name = _value(flags, "--preset", "tuned")
    folder = Path(name)
    if not name or name in presets.PRESETS or not folder.is_dir():
        bits = _value(flags, "--n", "10")
        return presets.load(name, task, int(bits) if bits.isdecimal() else 10)
    if _value(flags, "--plugin", ""):  # which takes the place of the run's own
        config = Config.from_dict(metrics.read_json(folder / metrics.CONFIG))
    else:
        config = launch.read_config(folder)
    if config.env.task != presets.environment(task):
        raise UserError(f"preset: {folder} is of {config.env.task}; name that task first")
    if config.replay.plugin:
        strategy = _value(flags, "--strategy", config.replay.strategy)
        algorithm = _value(flags, "--algorithm", config.agent.NAME)
        used = _uses(config.env.task, strategy, algorithm)
        kept = dataclasses.replace(config.replay, plugin=str(folder / PLUGIN) if used else "")
        config = dataclasses.replace(config, replay=kept)
    return config


def named(words: Iterable[str]) -> list[str]:
    """Names of the settings whose options are among the words of a command line."""
    options = [word.partition("=")[0] for word in words if word.startswith("--")]
    names = [option.removeprefix("--").rpartition(".")[2] for option in options]
    return [name.replace("-", "_").removeprefix("no_") for name in names]


def require_effect(names: Iterable[str], configs: Sequence[Config]) -> None:
    """Refuses settings that change nothing in any of some trainings.

    Args:
      names: of the settings that were asked for.
      configs: of the trainings.

    Raises:
      UserError: names the first such setting.
    """
    everywhere = [grouping.without_effect(config) for config in configs]
    for name in names:
        if all(name in idle for idle in everywhere):
            raise UserError(f"{name}: without effect {everywhere[0][name]}; leave it out")


def require_used(configs: Sequence[Config]) -> None:
    """Refuses a plugin of which none of some trainings uses anything.

    Raises:
      UserError: names what it registers.
    """
    plugin = configs[0].replay.plugin
    used = (_uses(one.env.task, one.replay.strategy, one.agent.NAME) for one in configs)
    if plugin and not any(used):
        added = ", ".join(launch.registered()) or "nothing"
        raise UserError(
            f"plugin: {plugin} registers {added}, and the strategy is "
            f"{configs[0].replay.strategy!r}, the agent {configs[0].agent.NAME}; name what it "
            "registers as TASK, by --strategy or by --algorithm, or leave the plugin out"
        )


def _uses(*names: str) -> bool:
    """Whether one of them is what a plugin registered."""
    return not set(names).isdisjoint(launch.registered())


def _without_section(flag: re.Match[str]) -> str:
    """`--n` of `--env.n`.

    Raises:
      UserError: if the section has no such setting.
    """
    section, name = flag[1], flag[2].replace("-", "_")
    kinds = AGENTS.values() if section == "agent" else [type(getattr(Config(), section))]
    names = {field.name for kind in kinds for field in dataclasses.fields(kind)}
    if not names & {name, name.removeprefix("no_")}:
        raise UserError(f"options: {flag[0]} is no setting; without its section it may be one")
    return f"--{flag[2]}"


def _require_own(flags: list[str], algorithm: str) -> None:
    """Refuses options that other agents have, and this one has not.

    Raises:
      UserError: names the option and the agents.
    """
    fields = {agent: {f.name for f in dataclasses.fields(kind)} for agent, kind in AGENTS.items()}
    for flag in flags:
        having = [agent for agent, names in fields.items() if names & {*named([flag])}]
        if having and algorithm not in having:
            owners = " and ".join(having)
            raise UserError(
                f"options: {flag} is of {owners}, not of {algorithm}; leave it out, or name one by "
                "--algorithm"
            )


def _value(words: list[str], flag: str, default: str) -> str:
    """The last value of one flag, as the parser takes it, looked up before the others."""
    found = default
    for word, following in itertools.pairwise([*words, ""]):
        if word == flag:
            found = following
        elif word.startswith(flag + "="):
            found = word.removeprefix(flag + "=")
    return found


def default_folder(config: Config) -> Path:
    """runs/TASK-seedN-TIME below the current folder."""
    task = presets.word(config.env.task)
    return Path("runs") / f"{task}-seed{config.seed}-{time.strftime('%Y%m%d-%H%M%S')}"


def finish(run: Run, state: TrainState, summary: dict[str, Any], video: bool) -> None:
    """Draws the curve, records the video, prints the headline."""
    headline = launch.headline(
        summary["task"],
        summary["requested_goal_success"],
        run.env.goal_spec,
        summary["eval_episodes"],
        summary["no_action_success"],
    )
    launch.console.print(
        f"{headline} after {summary['env_steps']:,} environment steps and "
        f"{summary['wall_s']:.0f} s, audit included"
    )
    costs = [
        f"{name} {channel['episode_sum']:.3g} {channel['units']}".removesuffix(" 1")
        for name, channel in summary["costs"].items()
    ]
    if costs:
        launch.console.print(f"costs, sum of an episode: {', '.join(costs)}")
    launch.console.print(
        f"failure labels: {', '.join(summary['failure_labels']) or 'none'}; "
        f"audit: {run.folder / record.MARKDOWN}"
    )
    for warning in record.read(run.folder).warnings:
        launch.console.print(f"warning: {warning}", markup=False)
    plot.curves([run.folder], run.folder / plot.CURVE)
    if not video:
        return
    import render  # takes long

    if not render.scene(run.judge):
        return
    try:
        render.record(run, state, run.folder / metrics.VIDEO)
    except UserError as error:  # the run is whole without it
        launch.status.print(f"no video: {error}", markup=False)


if __name__ == "__main__":
    launch.guarded(main)
