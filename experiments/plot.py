"""Draws learning curves: `python experiments/plot.py RUN [RUN ...] [--out FILE]`.

Without `--out` a single run's curve goes into its folder, several runs' into ./curves.png. Runs
of one task are drawn in one panel beside what doing nothing scores.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import her_envs
import launch
from her_jax import metrics
from her_jax.errors import UserError

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
    if not runs:
        raise UserError("runs: none given; name one or more run folders")
    where = out or (runs[0] / CURVE if len(runs) == 1 else Path("curves.png"))
    curves(runs, where)
    launch.console.print(f"wrote {where}")


def curves(runs: list[Path], out: Path) -> None:
    """Draws one panel for each task, reward and tolerance.

    Args:
      runs: run folders with at least one epoch.
      out: PNG, PDF or SVG file to write.

    Raises:
      UserError: if a folder is no run or has no epoch, or `out` is no picture.
    """
    if out.suffix not in (".png", ".pdf", ".svg"):
        raise UserError(f"out: {out} is no picture; name a .png, .pdf or .svg file")
    panels_of: dict[str, list[Path]] = {}
    for run in runs:
        panels_of.setdefault(_title(run), []).append(run)
    figure = Figure(figsize=(5.5 * len(panels_of), 4), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(panels_of), squeeze=False)[0]
    for panel, (title, members) in zip(panels, panels_of.items(), strict=True):
        for run in members:
            _curve(panel, run)
        panel.set(
            title=title,
            xlabel="environment steps",
            ylabel="success on held-out requested goals",
            ylim=(-0.02, 1.02),
        )
        panel.grid(alpha=0.3)
        panel.legend(fontsize="small")
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=120)


def _title(run: Path) -> str:
    """Task and tolerance; success at other tolerances or rewards is not comparable."""
    env = launch.read_config(run).env
    tolerance = her_envs.TOLERANCES[env.tolerance][env.task]
    return f"{env.task}, {env.reward} reward, within {100 * tolerance:.0f} cm"


def _curve(panel: Axes, run: Path) -> None:
    records = metrics.read(run)
    steps = [record["env_steps"] for record in records]
    success = [record["requested_goal_success"] for record in records]
    panel.plot(steps, success, label=run.name)
    if (run / metrics.SUMMARY).is_file():
        floor = metrics.read_json(run / metrics.SUMMARY)["no_action_success"]
        panel.axhline(floor, color="gray", linestyle=":", linewidth=1)


if __name__ == "__main__":
    launch.guarded(lambda: tyro.cli(main))
