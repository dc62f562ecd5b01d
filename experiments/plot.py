"""Draws learning curves: `python experiments/plot.py RUN [RUN ...] [--out FILE] [--by NAME ...]`.

Runs whose settings differ in nothing but the seed are drawn together: each seed as a thin line, and
over them their median with the interquartile range as a band. Runs of one task share a panel, with
what doing nothing scores as a dotted line. `--by strategy k` names the settings that tell curves
apart, and brings sparse and dense rewards into one panel if `reward` is among them; without it,
labels are made of all settings that differ.

`--against k` draws the best and the mean success of training over a setting instead of over time,
as figure 6 of the HER paper does. `--table` prints the success at the end: median, interquartile
mean (IQM) with its 95 % bootstrap interval, steps to a success of 0.90, and doing nothing. `--csv
FILE` writes the curves as numbers, a line for each evaluation.

Without `--out` the picture of a single run or sweep goes into its folder, that of several into the
current one.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from csv import DictWriter
from pathlib import Path
from typing import Annotated, Any

import matplotlib
import numpy as np
import tyro
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import grouping
import launch
from grouping import Seeds
from her_jax import metrics, statistics
from her_jax.errors import UserError

CURVE, CURVES, FIGURE = "curve.png", "curves.png", "figure.png"

_HEADER = (
    "| task | setting | seeds | steps | success at the end | IQM [95 % interval] "
    f"| steps to {grouping.THRESHOLD:.2f} | doing nothing |",
    "|---|---|---|---|---|---|---|---|",
)

_ORIGIN = ("task", "agent", "setting", "seed")
_FIGURES = ("env_steps", "wall_s", "requested_goal_success", "requested_goal_success_any_step")
_SOURCE = (
    *("no_action_success", "distance_threshold", "device", "commit"),
    *("physics", "model", "scored_on"),
)


def main(
    runs: Annotated[tuple[Path, ...], tyro.conf.Positional] = (),
    out: Path | None = None,
    by: tuple[str, ...] = (),
    against: str | None = None,
    table: bool = False,
    csv: Path | None = None,
) -> None:
    """Draw the success of runs on held-out requested goals.

    Args:
      runs: Run folders, or folders of sweeps for all runs in them.
      out: Picture to write.
      by: Names of the settings that tell curves apart; default those that differ.
      against: Name of a setting with numbers, to draw success over it instead of over steps.
      table: Print the success at the end as a Markdown table too.
      csv: File to write the curves to, as numbers.
    """
    if not runs:
        raise UserError("runs: none given; name one or more run folders")
    if csv is not None and csv.suffix != ".csv":
        raise UserError(f"csv: {csv} is no .csv file; name one")
    if out is not None:
        _require_picture(out)
    folder = runs[0] if len(runs) == 1 else Path()
    runs = tuple(grouping.named(runs))
    grouping.note_twins(grouping.alike(runs))
    if csv is not None:
        write_csv(runs, csv, by)
    if against is None:
        where = out or folder / (CURVE if runs == (folder,) else CURVES)
        curves(runs, where, by)
    else:
        where = out or folder / FIGURE
        over_setting(runs, where, against, by)
    if table:
        launch.console.print(summary_table(runs, by), markup=False)
    launch.console.print(f"wrote {where}")


def curves(runs: Sequence[Path], out: Path, by: Sequence[str] = ()) -> None:
    """Draws success over environment steps, a panel for each task, reward and tolerance.

    Args:
      runs: run folders with at least one epoch.
      out: PNG, PDF or SVG file to write.
      by: settings that tell curves apart; default those that differ.

    Raises:
      UserError: if a folder is no run or has no epoch, `out` is no picture, or `by` names no
        setting, or too few to tell the curves apart.
    """
    _require_picture(out)
    panels = grouping.panels(grouping.alike(runs, by))
    figure, axes = _figure(1, len(panels))
    for panel, (title, members) in zip(axes[0], panels.items(), strict=True):
        for seeds, color in zip(members, _colors(len(members)), strict=True):
            curve(panel, seeds, color)
        floors(panel, members)
        panel.set(title=title, xlabel="environment steps")
    _save(figure, out)


def over_setting(runs: Sequence[Path], out: Path, name: str, by: Sequence[str] = ()) -> None:
    """Draws the best success of all epochs (top) and their mean (bottom) over a numeric setting.

    Points are medians over seeds and bars interquartile ranges. Settings that were run with one
    value only are drawn as a horizontal line.

    Args:
      runs: run folders with at least one epoch.
      out: PNG, PDF or SVG file to write.
      name: the setting, e.g. "k".
      by: settings that tell lines apart; default those that differ.

    Raises:
      UserError: as `curves`, or if the setting has no numbers.

    References:
      Andrychowicz et al. 2017 (arXiv:1707.01495), figure 6.
    """
    _require_picture(out)
    for seeds in grouping.alike(runs):
        if not isinstance(seeds.settings.get(name), int | float):
            raise UserError(
                f"against: {name!r} is no setting with numbers; name one, e.g. k or discount"
            )
    groups = grouping.alike(runs, (*by, name) if by and name not in by else by)
    panels = grouping.panels(groups)
    figure, axes = _figure(2, len(panels))
    rows: tuple[tuple[str, Callable[..., Any]], ...] = (("best", np.max), ("mean", np.mean))
    for i, (title, members) in enumerate(panels.items()):
        names = [n for n in by or grouping.differing(members) if n != name]
        lines: dict[str, list[Seeds]] = {}
        for seeds in members:
            lines.setdefault(grouping.label(seeds.settings, names), []).append(seeds)
        shown = None if by else grouping.SHOWN
        labels = [grouping.label(points[0].settings, names, shown) for points in lines.values()]
        for (word, figure_of), row in zip(rows, axes, strict=True):
            for points, label, color in zip(
                lines.values(), labels, _colors(len(lines)), strict=True
            ):
                _points(row[i], points, name, figure_of, label, color)
            row[i].set_ylabel(f"{word} success of all epochs")
            row[i].set(title=title, xlabel=name)
    _save(figure, out)


def summary_table(runs: Sequence[Path], by: Sequence[str] = ()) -> str:
    """Markdown: the success at the end of the finished runs, a line for each setting.

    Args:
      runs: run folders.
      by: settings that tell lines apart; default those that differ.
    """
    return "\n".join([*_HEADER, *(_row(seeds) for seeds in grouping.alike(runs, by))])


def write_csv(runs: Sequence[Path], out: Path, by: Sequence[str] = ()) -> None:
    """Writes a line for every evaluation of the runs, with where it comes from.

    Args:
      runs: run folders; what a summary says is left empty for those that have none.
      out: file to write.
      by: settings that tell curves apart; default those that differ.
    """
    lines = []
    for seeds in grouping.alike(runs, by):
        for run in seeds.runs:
            summary = grouping.summary(run) if grouping.finished([run]) else {}
            task, agent = seeds.settings["task"], seeds.settings["agent"]
            seed = launch.read_config(run).seed
            origin = dict(zip(_ORIGIN, (task, agent, seeds.label, seed), strict=True))
            source = {
                name: summary.get(name, seeds.settings.get(name, "")) for name in _SOURCE
            }  # summaries of early runs lack what they had no choice of
            for line in metrics.read(run):
                figures = {name: line.get(name, "") for name in _FIGURES}
                lines.append(origin | figures | source)
    text = io.StringIO()
    writer = DictWriter(text, _ORIGIN + _FIGURES + _SOURCE, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    with launch.writing("csv", out):
        out.parent.mkdir(parents=True, exist_ok=True)
        metrics.write_text(out, text.getvalue())


def curve(panel: Axes, seeds: Seeds, color: Any) -> None:
    """Median and band of some seeds over thin lines of each."""
    success = [grouping.column(run, "requested_goal_success") for run in seeds.runs]
    steps = [grouping.column(run, "env_steps") for run in seeds.runs]
    count = len(seeds.runs)
    if count == 1:
        panel.plot(steps[0], success[0], color=color, label=seeds.label or seeds.runs[0].name)
        return
    for x, y in zip(steps, success, strict=True):
        panel.plot(x, y, color=color, linewidth=0.6, alpha=0.4)
    shared = min(map(len, success))
    middle = statistics.band([curve[:shared] for curve in success])
    label = f"{seeds.label}, {count} seeds" if seeds.label else f"median of {count} seeds"
    panel.plot(steps[0][:shared], middle.median, color=color, linewidth=2, label=label)
    panel.fill_between(
        steps[0][:shared], middle.low, middle.high, color=color, alpha=0.2, linewidth=0
    )


def _points(
    panel: Axes,
    groups: Sequence[Seeds],
    name: str,
    figure_of: Callable[..., Any],
    label: str,
    color: Any,
) -> None:
    """Medians and quartiles of a figure of each run, over the setting `name`."""
    groups = sorted(groups, key=lambda seeds: seeds.settings[name])
    figures = [
        [figure_of(grouping.column(run, "requested_goal_success")) for run in seeds.runs]
        for seeds in groups
    ]
    bands = [statistics.band(values) for values in figures]
    middle, low, high = (np.array(column) for column in zip(*bands, strict=True))
    if len(groups) == 1:
        panel.axhline(middle[0], color=color, linestyle="--", label=label or None)
        return
    x = [seeds.settings[name] for seeds in groups]
    panel.errorbar(
        x, middle, (middle - low, high - middle), color=color, marker="o", capsize=3,
        label=label or None,
    )  # fmt: skip
    if min(x) > 0:
        panel.set_xscale("log", base=2)
    panel.set_xticks(x, [grouping.word(value) for value in x])


def floors(panel: Axes, members: Sequence[Seeds]) -> None:
    """What doing nothing scores, a dotted line for each value."""
    scores = {
        grouping.summary(run)["no_action_success"]
        for seeds in members
        for run in grouping.finished(seeds.runs)
    }
    for score in scores:
        panel.axhline(score, color="gray", linestyle=":", linewidth=1)


def _row(seeds: Seeds) -> str:
    """One line of the table; seeds that did not finish are named, not scored."""
    finished = grouping.finished(seeds.runs)
    left_out = [str(launch.read_config(run).seed) for run in seeds.runs if run not in finished]
    summaries = [grouping.summary(run) for run in finished]
    scored = ", ".join(str(summary["seed"]) for summary in summaries)
    names = scored + (f" (unfinished: {', '.join(left_out)})" if left_out else "")
    cells = [seeds.title.partition(",")[0], seeds.label or "-", names.strip()]
    if not summaries:
        return f"| {' | '.join([*cells, '-', '-', '-', '-', '-'])} |"
    final = [summary["requested_goal_success"] for summary in summaries]
    middle = statistics.interquartile_mean_interval(final)
    spread = f"{middle.low:.3f}, {middle.high:.3f}" if len(final) > 1 else "-"
    reached = statistics.median_steps(grouping.reached(finished))
    budgets = sorted({summary["env_steps"] for summary in summaries})
    idle = [summary["no_action_success"] for summary in summaries]
    cells += [
        " to ".join(f"{budget:,}" for budget in dict.fromkeys([budgets[0], budgets[-1]])),
        f"{np.median(final):.3f}",
        f"{middle.value:.3f} [{spread}]",
        grouping.amount(reached),
        f"{np.median(idle):.3f}",
    ]
    return f"| {' | '.join(cells)} |"


def _colors(count: int) -> list[Any]:
    """Ten that are easy to tell apart, or as many as asked for from dark to light."""
    if count <= 10:
        return [f"C{i}" for i in range(count)]
    return list(matplotlib.colormaps["viridis"](np.linspace(0, 0.95, count)))


def _require_picture(out: Path) -> None:
    if out.suffix not in (".png", ".pdf", ".svg"):
        raise UserError(f"out: {out} is no picture; name a .png, .pdf or .svg file")


def _figure(rows: int, columns: int) -> tuple[Figure, Any]:
    """An empty figure and its panels [rows, columns]."""
    figure = Figure(figsize=(5.5 * columns, 4 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False)


def _save(figure: Figure, out: Path) -> None:
    """Finishes every panel and writes the picture."""
    for panel in figure.axes:
        panel.set_ylim(-0.02, 1.02)
        if not panel.get_ylabel():
            panel.set_ylabel("success on held-out requested goals")
        panel.grid(alpha=0.3)
        if panel.get_legend_handles_labels()[1]:
            panel.legend(
                fontsize="small", ncols=1 + len(panel.get_legend_handles_labels()[1]) // 12
            )
    with launch.writing("out", out):
        out.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(out, dpi=120)


if __name__ == "__main__":
    launch.command(main)
