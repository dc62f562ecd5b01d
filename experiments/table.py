"""Prints the tables of results and of costs: `python experiments/table.py [RUN ...]`.

Without arguments it reads the committed runs in experiments/reference. Success is on held-out
requested goals at the last step (of bit flipping at any step); steps and seconds to a success are
those of the first evaluation that reached it. Where there are several seeds, figures are medians
over them, with the lowest and the highest in brackets. The setting is what tells runs from the
others of their task.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

import grouping
import her_envs
import launch
from grouping import Seeds
from her_envs import bitflip
from her_jax import metrics, statistics
from her_jax.errors import UserError

REFERENCE = Path(__file__).resolve().parent / "reference"
_HEADER = (
    "| task | setting | success within | physics | seeds | steps to 0.90 | seconds to 0.90 "
    "| success at the end | steps | seconds | doing nothing |",
    "|---|---|---|---|---|---|---|---|---|---|---|",
)


def main(runs: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()) -> None:
    """Print Markdown tables of runs: success, and costs.

    Args:
      runs: Run folders, or folders of sweeps for all runs in them; default the committed ones.
    """
    chosen = grouping.named(runs) or committed()
    launch.console.print(f"{table(chosen)}\n\n{cost_table(chosen)}".strip(), markup=False)


def committed() -> list[Path]:
    """Folders of the committed runs."""
    return sorted(path.parent for path in REFERENCE.glob(f"*/{metrics.SUMMARY}"))


def table(runs: list[Path]) -> str:
    """Markdown, a line for runs of one MuJoCo and budget that differ in nothing but the seed.

    Args:
      runs: folders of finished runs.

    Raises:
      UserError: if a folder holds no summary or no epoch.
    """
    return "\n".join([*_HEADER, *map(_row, _alike(runs))])


def cost_table(runs: list[Path]) -> str:
    """Markdown: costs of each line of `table` as "sum of an episode (worst step)"; "" without any.

    Lines of a task that share what doing nothing costs are followed by it.
    """
    groups = [(seeds, _summaries(seeds)) for seeds in _alike(runs)]
    units = {
        name: channel["units"]
        for _, summaries in groups
        for name, channel in summaries[0]["costs"].items()
    }
    header = ("task", "setting", *(f"{name}, {unit}" for name, unit in units.items()))
    lines = [f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
    rows = [
        (seeds.title, _costs(summaries, "no_action_costs"), seeds.label, _costs(summaries, "costs"))
        for seeds, summaries in groups
        if summaries[0]["costs"]
    ]
    if not rows:
        return ""
    for (task, idle), together in itertools.groupby(rows, key=lambda row: row[:2]):
        shown = [(label or "-", costs) for *_, label, costs in together]
        for setting, costs in [*shown, ("doing nothing", idle)]:
            cells = [task, setting, *(costs.get(name, "-") for name in units)]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _costs(summaries: list[dict[str, Any]], part: str) -> dict[str, str]:
    """Medians over the seeds by channel, "sum (worst step)"."""

    def median(name: str, field: str) -> float:
        return float(np.median([summary[part][name][field] for summary in summaries]))

    return {
        name: f"{median(name, 'episode_sum'):.3g} ({median(name, 'worst_step'):.3g})"
        for name in summaries[0][part]
    }


def _alike(runs: list[Path]) -> list[Seeds]:
    """Runs of one MuJoCo and budget that differ in nothing but the seed, told apart by task."""
    return grouping.alike(runs, title=grouping.task, also=_conditions)


def _conditions(run: Path) -> dict[str, Any]:
    """What must be equal for a median over seeds, beside the settings that evaluations depend on.

    Raises:
      UserError: if the run is not finished, or of a version without costs.
    """
    grouping.require_finished(run)
    summary = grouping.summary(run, "wall_s", "distance_threshold")
    if not {"costs", "no_action_costs", "versions", "physics"} <= summary.keys():
        raise UserError(f"run: {run} is of an older version, without costs; train it again")
    budget = launch.read_config(run).train.env_steps
    return {"env_steps": budget, "mujoco": summary["versions"]["mujoco"]}


def _summaries(seeds: Seeds) -> list[dict[str, Any]]:
    return [grouping.summary(run) for run in seeds.runs]


def _within(seeds: Seeds, tolerance: float) -> str:
    """The success distance; bits must all be right, at any step."""
    if seeds.settings["task"] == bitflip.NAME:
        return "any step"
    is_length = seeds.settings["task"] in her_envs.TASKS
    return f"{100 * tolerance:.0f} cm" if is_length else f"{tolerance:g}"


def _physics(summary: dict[str, Any]) -> str:
    """What was trained on and, if it is another, what success was measured on."""
    model = summary.get("model", "stock")  # summaries of early runs lack what they had no choice of
    trained = summary["physics"] + ("" if model == "stock" else f" ({model})")
    scored = summary.get("scored_on", "native")
    return trained if trained == scored else f"{trained}, scored on {scored}"


def _spread(values: Sequence[float | None], show: Callable[[Any], str]) -> str:
    """Median over the seeds and, where they differ, the range; None is above all numbers."""
    ordered = sorted(values, key=lambda value: math.inf if value is None else value)
    middle, low, high = map(show, (statistics.median_steps(values), ordered[0], ordered[-1]))
    return middle if low == high else f"{middle} ({low} to {high})"


def _row(seeds: Seeds) -> str:
    """One line."""
    summaries = _summaries(seeds)

    def median(field: str) -> float:
        return float(np.median([summary[field] for summary in summaries]))

    ends = [summary["requested_goal_success"] for summary in summaries]
    seconds = statistics.median_steps(grouping.reached(seeds.runs, "wall_s"))

    cells = [
        seeds.title,
        seeds.label or "-",
        _within(seeds, summaries[0]["distance_threshold"]),
        _physics(summaries[0]) if seeds.settings["task"] in her_envs.TASKS else "-",
        ", ".join(str(summary["seed"]) for summary in summaries),
        _spread(grouping.reached(seeds.runs), grouping.amount),
        grouping.amount(seconds),
        _spread(ends, "{:.3f}".format),
        f"{median('env_steps'):,.0f}",
        f"{median('wall_s'):,.0f}",
        f"{median('no_action_success'):.3f}",
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    launch.command(main)
