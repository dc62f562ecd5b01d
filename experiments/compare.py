"""Compares audited runs: `python experiments/compare.py RUN RUN ...`.

Success, with the 95 % interval that the number of held-out goals allows, stands beside costs and
what tells the runs apart. Runs whose evaluation settings differ in anything (task, physics, MuJoCo,
goal set, tolerance, ...) are refused, and the difference is named.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

import grouping
import launch
from her_jax import statistics
from her_jax.audit import record
from her_jax.errors import UserError


def main(runs: Annotated[tuple[Path, ...], tyro.conf.Positional]) -> None:
    """Print a table of audited runs.

    Args:
      runs: Two or more folders of finished runs, or folders of sweeps for all runs in them.
    """
    runs = tuple(grouping.named(runs))
    if len(runs) < 2:
        raise UserError(f"runs: {len(runs)} given; name two or more run folders")
    for run in runs:
        grouping.require_finished(run)
    records = {str(run): record.read(run) for run in runs}
    record.require_comparable(records)
    for run, audited in records.items():
        success = audited.report_metrics.get("requested_goal_success")
        count = audited.evaluation.get("episodes")
        shown = [channel.get("episode_sum") for channel in audited.costs.values()]
        shown += [
            audited.report_metrics.get("no_action_success"),
            audited.relabel_strategy.get("k"),
        ]
        whole = all(isinstance(figure, int | float) for figure in shown)
        plausible = isinstance(success, float) and 0 <= success <= 1
        if not (whole and plausible and isinstance(count, int)):
            raise UserError(
                f"run: {run} has an audit.json with figures that are no numbers, as of episodes "
                "that all broke, or edited; audit it anew, or leave it out"
            )
        if count < 1:
            raise UserError(f"run: {run} was scored on no goal; audit it anew")
        if {*audited.costs} != {*next(iter(records.values())).costs}:
            raise UserError(f"run: {run} has other costs than {runs[0]}; audit both anew")
    trained = {
        str(run): (seeds.label or "-", f"{grouping.summary(run)['env_steps']:,}")
        for seeds in grouping.alike(runs, title=grouping.task)
        for run in seeds.runs
    }
    launch.console.print(table(records, trained), markup=False)


def table(records: dict[str, record.AuditRecord], trained: dict[str, tuple[str, str]]) -> str:
    """Markdown, a line a run.

    Args:
      records: by run; they are comparable.
      trained: of each run what tells it from the others, and its environment steps.
    """
    first = next(iter(records.values()))
    header = ["run", "setting", "steps", "success", "95 % interval", "doing nothing", "strategy"]
    header.append("labels")
    header += [f"{name} ({channel['units']})" for name, channel in first.costs.items()]
    lines = [_line(header), _line(["---"] * len(header))]
    for name, audited in records.items():
        figures, relabel = audited.report_metrics, audited.relabel_strategy
        idle = relabel["strategy"] == "none"
        success, goals = figures["requested_goal_success"], audited.evaluation["episodes"]
        _, low, high = statistics.success_interval(round(success * goals), goals)
        cells = [
            name,
            *trained[name],
            f"{success:.3f}",
            f"{low:.3f} to {high:.3f}",
            f"{figures['no_action_success']:.3f}",
            relabel["strategy"] + ("" if idle else f", k = {relabel['k']:g}"),
            ", ".join(audited.failure_labels) or "none",
        ]
        cells += [f"{channel['episode_sum']:.3g}" for channel in audited.costs.values()]
        lines.append(_line(cells))
    return "\n".join(lines)


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    launch.command(main)
