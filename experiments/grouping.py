"""Runs of equal settings together: groups, what tells them apart, and what their seeds reached."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import her_envs
import launch
from her_envs import bitflip
from her_jax import checkpoint, metrics, statistics
from her_jax.config import AGENTS, Config
from her_jax.errors import UserError
from her_jax.runner import PLUGIN, plugin_hash

THRESHOLD = 0.9
"""Success whose steps tables count."""

SWEEP = "sweep.json"
"""What tells the folder of a sweep from that of a run."""

SUMMARISED = ("seed", "env_steps", "requested_goal_success", "no_action_success")
"""Figures of a summary that every table shows."""

SHOWN = 3
"""Settings that a label names before it only counts them."""

_OF_WARP = ("nconmax", "njmax", "graph_mode")
"""Settings without effect where nothing is simulated by MuJoCo Warp."""

_PLAIN = {"physics": "native", "model": "stock", "scored_on": "native"}
"""What labels need not say."""


@dataclasses.dataclass(frozen=True)
class Seeds:
    """Runs whose settings differ in nothing but the seed.

    Attributes:
      runs: their folders.
      settings: by name, without the seed.
      title: of the panel that they belong to.
      label: what tells them from the others of the panel; empty if there are none.
    """

    runs: tuple[Path, ...]
    settings: dict[str, Any]
    title: str
    label: str = ""


def alike(
    runs: Sequence[Path],
    by: Sequence[str] = (),
    title: Callable[[dict[str, Any]], str] | None = None,
    also: Callable[[Path], dict[str, Any]] = lambda run: {},
    shown: int | None = SHOWN,
) -> list[Seeds]:
    """Runs whose settings differ in nothing but the seed, together.

    Budget, host threads, checkpoint period and audited rows are no settings here: they change no
    evaluation.

    Args:
      runs: run folders.
      by: settings that labels are made of; default those that differ within a panel, of which
        labels name a few.
      title: of the panel of some settings; default `panel_title`.
      also: what counts as a setting of a run besides, by name.
      shown: how many settings a label names, if they tell all apart, before it only counts them;
        None for all.

    Raises:
      UserError: if a folder is no run, or `by` names no setting, or too few to tell groups apart.
    """
    found: dict[str, Seeds] = {}
    for run in runs:
        plugin = {"plugin": plugin_hash(run / PLUGIN)[:8]}
        values = settings(launch.read_config(run)) | plugin | also(run)
        for name in by:
            if name not in values:
                raise UserError(f"by: {name!r} is no setting; name some of {', '.join(values)}")
        key = json.dumps(values)
        members = found[key].runs if key in found else ()
        found[key] = Seeds(
            (*members, run), values, title(values) if title else panel_title(values, by)
        )
    return [
        seeds
        for members in panels(list(found.values())).values()
        for seeds in _labelled(members, by, shown)
    ]


def settings(config: Config) -> dict[str, Any]:
    """What an evaluation depends on, by the names of train.py's options, without the seed.

    The agent's name is "agent". What has no effect is at its default.
    """
    config = effective(config)
    lasting = {
        "agent" if name == "agent.name" else name.rpartition(".")[2]: value
        for name, value in config.lasting().items()
    }
    del lasting["seed"]
    return lasting | {
        "eval_episodes": config.train.eval_episodes,
        "scored_on": config.env.scored_on,
        "nconmax": config.env.nconmax,
        "njmax": config.env.njmax,
    }


def without_effect(config: Config) -> dict[str, str]:
    """Names of settings that change nothing in a training, each with where it is so."""
    env, replay, names = config.env, config.replay, {}
    if "warp" not in (env.physics, env.scored_on):
        names |= dict.fromkeys(_OF_WARP, f"on {env.physics} physics")
    if replay.strategy == "none":
        names |= dict.fromkeys(("k", "min_displacement"), "with the strategy none")
    elif replay.k == 0:
        names |= dict.fromkeys(("strategy", "min_displacement"), "with k 0")
    if replay.priority == "uniform":
        names["priority_share"] = "with the priority uniform"
    if not getattr(config.agent, "tune_temperature", True):
        of_tuning = "temperature_learning_rate", "target_entropy_per_action"
        names |= dict.fromkeys(of_tuning, "with a fixed temperature")
    return names


def effective(config: Config) -> Config:
    """The same training, with what has no effect in it at its default."""
    if config.replay.k == 0:
        none = dataclasses.replace(config.replay, strategy="none")
        config = dataclasses.replace(config, replay=none)
    idle = without_effect(config)

    def plain(part: Any) -> Any:
        names = {field.name for field in dataclasses.fields(part)} & idle.keys()
        return dataclasses.replace(part, **{name: getattr(type(part), name) for name in names})

    parts = {name: plain(getattr(config, name)) for name in ("env", "replay", "agent")}
    return dataclasses.replace(config, **parts)


def panels(groups: Sequence[Seeds]) -> dict[str, list[Seeds]]:
    """Title -> what is drawn there."""
    found: dict[str, list[Seeds]] = {}
    for seeds in groups:
        found.setdefault(seeds.title, []).append(seeds)
    return found


def differing(groups: Sequence[Seeds]) -> list[str]:
    """Names of the settings in which the groups of a panel differ, or that are none of `_PLAIN`.

    The agent comes first, then always the setting that, with those before it, tells most groups
    apart. What the agents' configurations hold differs only where groups of one agent differ in it.
    """
    of_agents = {field.name for kind in AGENTS.values() for field in dataclasses.fields(kind)}
    left = []
    for name in dict.fromkeys(name for seeds in groups for name in seeds.settings):
        lacking = any(name not in seeds.settings for seeds in groups)
        beside = ["agent"] if lacking or name in of_agents else []
        values = {str(seeds.settings.get(name)) for seeds in groups}
        is_odd = name in _PLAIN and values != {_PLAIN[name]}
        if is_odd or _count(groups, [*beside, name]) > _count(groups, beside):
            left.append(name)
    names: list[str] = []
    while left:
        names.append(max(left, key=lambda n: (n == "agent", _count(groups, [*names, n]))))
        left.remove(names[-1])
    return names


def label(settings: dict[str, Any], names: Sequence[str], shown: int | None = None) -> str:
    """E.g. "strategy=future, k=4"; what agents lack is left out.

    Args:
      settings: of a group.
      names: of settings.
      shown: how many are named before the others are only counted; default all.
    """
    words = [f"{name}={word(settings[name])}" for name in names if name in settings]
    named = words[:shown]
    more = [f"+{len(words) - len(named)} more"] if len(words) > len(named) else []
    return ", ".join(named + more)


def word(value: Any) -> str:
    """A value as one would type it."""
    if isinstance(value, list):
        return " ".join(map(word, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def members(folder: Path) -> list[Path]:
    """The runs that a folder stands for: itself, or those of a sweep.

    Raises:
      UserError: if it is a sweep of which no run has an epoch.
    """
    if not (folder / SWEEP).is_file():
        return [folder]
    runs = sorted(path.parent for path in folder.glob(f"*/{metrics.METRICS}"))
    if not runs:
        raise UserError(f"run: {folder} is a sweep without an epoch; go on with it, by sweep.py")
    return runs


def named(folders: Sequence[Path]) -> list[Path]:
    """The runs that folders stand for, each once.

    Of several, as a shell makes of `runs/*`, those that hold no epoch are left out, and named.

    Raises:
      UserError: if a run is named twice, which would count as two seeds, or none is left.
    """
    empty = [folder for folder in folders if len(folders) > 1 and _is_empty(folder)]
    for folder in empty:
        launch.status.print(f"{folder} holds no epoch of a run; left out", markup=False)
    if folders and len(empty) == len(folders):
        raise UserError("runs: none holds an epoch; name folders that train.py made")
    runs = [run for folder in folders if folder not in empty for run in members(folder)]
    places = [run.resolve() for run in runs]
    for run, place in zip(runs, places, strict=True):
        if places.count(place) > 1:
            raise UserError(f"runs: {run} is named twice; name it once")
    return runs


def note_twins(groups: Sequence[Seeds]) -> None:
    """Says which runs of equal settings share a seed, which tables and curves count as two."""
    for seeds in groups:
        seen: dict[int, Path] = {}
        for run in seeds.runs:
            seed = launch.read_config(run).seed
            if seed in seen:
                launch.status.print(
                    f"{seen[seed]} and {run} have equal settings and seed {seed}, and count as two",
                    markup=False,
                )
            seen[seed] = run


def _is_empty(folder: Path) -> bool:
    """Whether it exists, and neither it nor, if it is a sweep, a run in it has an epoch."""
    runs = folder.glob(f"*/{metrics.METRICS}") if (folder / SWEEP).is_file() else ()
    return folder.exists() and not any(((folder / metrics.METRICS).is_file(), *runs))


def finished(runs: Sequence[Path]) -> list[Path]:
    """Those that have a summary."""
    return [run for run in runs if (run / metrics.SUMMARY).is_file()]


def require_finished(run: Path) -> None:
    """Refuses a run that has not ended.

    Raises:
      UserError: if it is no run, or has no summary.
    """
    launch.require_folder(run)
    if finished([run]):
        return
    launch.read_config(run)
    if (run.parent / SWEEP).is_file():
        advice = f"go on with sweep.py --resume {run.parent}"
    elif checkpoint.latest(run) is not None:
        advice = f"go on with train.py --resume {run}"
    else:
        advice = "leave it out, for it has no checkpoint to go on from"
    raise UserError(f"run: {run} is not finished; {advice}")


def column(run: Path, field: str) -> list[Any]:
    """One figure of every epoch.

    Raises:
      UserError: if an epoch lacks it.
    """
    lines = metrics.read(run)
    for line in lines:
        _require_number(run / metrics.METRICS, line, field)
    return [line[field] for line in lines]


def summary(run: Path, *more: str) -> dict[str, Any]:
    """The summary of a finished run.

    Args:
      run: its folder.
      more: figures that it must hold beside `SUMMARISED`.

    Raises:
      UserError: if it lacks one.
    """
    path = run / metrics.SUMMARY
    values = metrics.read_json(path)
    for field in (*SUMMARISED, *more):
        _require_number(path, values, field)
    return values


def _require_number(path: Path, values: dict[str, Any], field: str) -> None:
    if not isinstance(values.get(field), int | float):
        raise UserError(f"run: {path} holds no number for {field}; restore it or train again")


def reached(runs: Sequence[Path], field: str = "env_steps") -> list[int | None]:
    """Of each run `field` at the first success of `THRESHOLD`; None if it never got there."""
    return [
        statistics.steps_to(column(run, field), column(run, "requested_goal_success"), THRESHOLD)
        for run in runs
    ]


def amount(value: float | None) -> str:
    """Steps or seconds until a success, in words if it was never reached."""
    return "not reached" if value is None else f"{value:,.0f}"


def task(settings: dict[str, Any]) -> str:
    """The title that tables have, whose labels tell apart all settings of a task."""
    return settings["task"]


def panel_title(settings: dict[str, Any], by: Sequence[str]) -> str:
    """Task, tolerance, reward, and whether there is a single goal; of bit strings the size.

    Args:
      settings: of a group.
      by: names of settings that curves are told apart by: of reward, goal and size those that are
        not among them are named.
    """
    task = settings["task"]
    if task == bitflip.NAME:
        return task if "n" in by else f"{task}, {settings['n']} bits"
    tolerance = her_envs.TOLERANCES[settings["tolerance"]].get(task)  # none of a user's own
    within = "" if tolerance is None else f", within {100 * tolerance:.0f} cm"
    named = "reward" not in by and task in her_envs.TASKS
    reward = f", {settings['reward']} reward" if named else ""
    goal = ", single goal" if settings["goal"] == "single" and "goal" not in by else ""
    return f"{task}{reward}{goal}{within}"


def _count(groups: Sequence[Seeds], names: Sequence[str]) -> int:
    """How many kinds of groups some settings tell apart."""
    return len({json.dumps([seeds.settings.get(name) for name in names]) for seeds in groups})


def _kinds(groups: Sequence[Seeds], names: Sequence[str]) -> int:
    """How many different labels some settings make."""
    return len({label(seeds.settings, names) for seeds in groups})


def _labelled(
    members: Sequence[Seeds], by: Sequence[str], shown: int | None = SHOWN
) -> list[Seeds]:
    """The groups of a panel, with labels.

    Raises:
      UserError: if two of them agree in all that `by` names.
    """
    names = by or differing(members)
    if not by and shown is not None:  # as many more as tell all apart
        while shown < len(names) and _kinds(members, names[:shown]) < len(members):
            shown += 1
    seen: dict[str, Seeds] = {}
    for seeds in members if by else ():
        text = label(seeds.settings, by)
        if text in seen:
            others = ", ".join(differing([seen[text], seeds]))
            raise UserError(f"by: runs with {text} differ in {others} too; add that")
        seen[text] = seeds
    return [
        dataclasses.replace(seeds, label=label(seeds.settings, names, None if by else shown))
        for seeds in members
    ]
