"""Draws learning curves: `python experiments/plot.py RUN [RUN ...] [--out FILE]`.

Without `--out` a single run's curve goes into its folder, several runs' into ./curves.png. Runs
of one task are drawn in one panel beside what doing nothing scores.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import launch
from her_jax import metrics

CURVE = "curve.png"


def main(
    runs: Annotated[list[Path], tyro.conf.Positional],
    out: Path | None = None,
) -> None:
    """Draw the success of runs on held-out requested goals.

    Args:
      runs: Run folders.
      out: Picture to write.
    """
    where = out or (runs[0] / CURVE if len(runs) == 1 else Path("curves.png"))
    curves(runs, where)
    launch.console.print(f"wrote {where}")


def curves(runs: list[Path], out: Path) -> None:
    """Draws one panel a task.

    Args:
      runs: run folders with at least one epoch.
      out: PNG, PDF or SVG file to write.

    Raises:
      UserError: if a folder is no run, or has no epoch.
    """
    by_task: dict[str, list[Path]] = {}
    for run in runs:
        task = launch.read_config(run).env.task
        by_task.setdefault(task, []).append(run)
    figure = Figure(figsize=(5.5 * len(by_task), 4), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(by_task), squeeze=False)[0]
    for panel, (task, members) in zip(panels, by_task.items(), strict=True):
        for run in members:
            _curve(panel, run)
        panel.set(
            title=task,
            xlabel="environment steps",
            ylabel="success on held-out requested goals",
            ylim=(-0.02, 1.02),
        )
        panel.grid(alpha=0.3)
        panel.legend(fontsize="small")
    figure.savefig(out, dpi=120)


def _curve(panel, run: Path) -> None:
    records = metrics.read(run)
    steps = [record["env_steps"] for record in records]
    success = [record["requested_goal_success"] for record in records]
    panel.plot(steps, success, label=run.name)
    if (run / metrics.SUMMARY).is_file():
        floor = metrics.read_json(run / metrics.SUMMARY)["no_action_success"]
        panel.axhline(floor, color="gray", linestyle=":", linewidth=1)


if __name__ == "__main__":
    launch.guarded(lambda: tyro.cli(main))
