"""Learning curves of many runs: grouped by task and settings, summed up over seeds.

Settings are read from config.json as plain values, so that runs of any agent, strategy or task can
be told apart.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from her_jax import metrics

_LOCAL = ("seed", "env.num_threads", "train.checkpoint_period")
"""Settings in which runs of one group may differ."""

_SHOWN = 3
"""Settings that a label names before it only counts them."""


@dataclasses.dataclass(frozen=True)
class Curve:
    """Success of one run on held-out requested goals.

    Attributes:
      folder: the run's.
      env_steps: int [E], steps played before each of E evaluations.
      success: float [E].
      floor: what doing nothing scores; None if the run has no summary yet.
    """

    folder: Path
    env_steps: np.ndarray
    success: np.ndarray
    floor: float | None


@dataclasses.dataclass(frozen=True)
class Group:
    """Runs whose settings differ in nothing but the seed.

    Attributes:
      label: the settings in which they differ from the other groups of their panel.
      curves: one a run.
    """

    label: str
    curves: tuple[Curve, ...]


class Quartiles(NamedTuple):
    """Over seeds, at the steps at which all of them were evaluated; [E]."""

    env_steps: np.ndarray
    lower: np.ndarray
    median: np.ndarray
    upper: np.ndarray


class Panel(NamedTuple):
    """Runs whose success may be compared.

    Attributes:
      task: environment name.
      reward: name of the reward.
      tolerance: name of the success distance.
    """

    task: str
    reward: str
    tolerance: str


def folders(reference: Path) -> list[Path]:
    """Run folders with at least one evaluation below `reference`, sorted."""
    return sorted(path.parent for path in reference.glob(f"*/{metrics.METRICS}"))


def read(runs: list[Path]) -> dict[Panel, list[Group]]:
    """Groups of runs by panel, both in order of appearance.

    Args:
      runs: run folders with config.json and metrics.jsonl.

    Raises:
      UserError: if a folder is no run or has no epoch.
    """
    members: dict[Panel, dict[str, tuple[dict[str, Any], list[Curve]]]] = {}
    for run in runs:
        settings = _flat(metrics.read_json(run / metrics.CONFIG))
        panel = Panel(*(str(settings.get(f"env.{field}", "")) for field in Panel._fields))
        lasting = {name: value for name, value in settings.items() if name not in _LOCAL}
        key = json.dumps(lasting, sort_keys=True)
        members.setdefault(panel, {}).setdefault(key, (lasting, []))[1].append(curve(run))
    return {panel: _labelled(list(groups.values())) for panel, groups in members.items()}


def curve(run: Path) -> Curve:
    """The learning curve of one run.

    Raises:
      UserError: if it has no epoch.
    """
    records = metrics.read(run)
    summary = run / metrics.SUMMARY
    return Curve(
        run,
        np.array([record["env_steps"] for record in records]),
        np.array([record["requested_goal_success"] for record in records]),
        metrics.read_json(summary)["no_action_success"] if summary.is_file() else None,
    )


def quartiles(curves: tuple[Curve, ...]) -> Quartiles:
    """Median and quartiles over runs, at the steps that they share."""
    steps = curves[0].env_steps
    for other in curves[1:]:
        steps = np.intersect1d(steps, other.env_steps)
    success = np.stack([c.success[np.searchsorted(c.env_steps, steps)] for c in curves])
    return Quartiles(steps, *np.quantile(success, (0.25, 0.5, 0.75), axis=0))


def steps_to(one: Curve, success: float) -> float:
    """Environment steps of the first evaluation that reached `success`; infinity if none did."""
    reached = one.env_steps[one.success >= success]
    return float(reached[0]) if len(reached) else float("inf")


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by "part.name"."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def _labelled(groups: list[tuple[dict[str, Any], list[Curve]]]) -> list[Group]:
    """Groups of one panel, named by the settings in which they differ."""
    names = list(dict.fromkeys(name for settings, _ in groups for name in settings))
    differing = [
        name
        for name in names
        if len({json.dumps(settings.get(name)) for settings, _ in groups}) > 1
    ]
    differing.sort(key=lambda name: any(name not in settings for settings, _ in groups))
    return [Group(_label(settings, differing), tuple(curves)) for settings, curves in groups]


def _label(settings: dict[str, Any], differing: list[str]) -> str:
    """The settings of a group that tell it apart; those that all groups have come first."""
    words = [f"{name.split('.')[-1]} {settings[name]}" for name in differing if name in settings]
    more = [f"and {len(words) - _SHOWN} more"] if len(words) > _SHOWN else []
    return ", ".join(words[:_SHOWN] + more) or "this project"
