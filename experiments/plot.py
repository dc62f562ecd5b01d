"""Draws learning curves: `python experiments/plot.py RUN [RUN ...] [--out FILE] [--by NAME ...]`.

Runs whose settings differ in nothing but the seed are drawn together: each seed as a thin line, and
over them their median with the interquartile range as a band. Runs of one task share a panel, with
what doing nothing scores as a dotted line. `--by strategy k` names the settings that tell curves
apart, and brings sparse and dense rewards into one panel if `reward` is among them; without it,
labels are made of all settings that differ.

`--against k` draws the best and the mean success of training over a setting instead of over time,
as figure 6 of the HER paper does. `--table` prints the success at the end: median, interquartile
mean (IQM) with its 95 % bootstrap interval, steps to a success of 0.90, and doing nothing. `--csv
FILE` writes the curves as numbers, a line for each evaluation; such a file, as
`experiments/reference/sweeps` has them, is drawn in the place of its runs, or beside others.

Without `--out` the picture of a single run or sweep goes into its folder, that of several or of a
file into the current one.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from csv import DictReader, DictWriter
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import matplotlib
import numpy as np
import tyro
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import grouping
import her_envs
import launch
from grouping import Seeds
from her_jax import metrics, statistics
from her_jax.errors import UserError, reason

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


class Curve(NamedTuple):
    """Success of some seeds.

    Attributes:
      label: what tells it from the others of its panel.
      steps, success: of every evaluation of each seed.
      floors: what doing nothing scores.
    """

    label: str
    steps: list[list[int]]
    success: list[list[float]]
    floors: set[float]


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
      runs: Run folders, folders of sweeps for all runs in them, or files that --csv wrote.
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
    files = tuple(path for path in runs if path.suffix == ".csv")
    if files and (by or against or table or csv):
        raise UserError(
            f"runs: {files[0]} has curves and no settings; leave out --by, --against, --table and "
            "--csv, or name run folders"
        )
    folder = runs[0] if len(runs) == 1 and not files else Path()
    runs = tuple(grouping.named([path for path in runs if path not in files]))
    grouping.note_twins(grouping.alike(runs))
    if csv is not None:
        write_csv(runs, csv, by)
    if against is None:
        where = out or folder / (CURVE if runs == (folder,) else CURVES)
        curves(runs, where, by, files)
    else:
        where = out or folder / FIGURE
        over_setting(runs, where, against, by)
    if table:
        launch.console.print(summary_table(runs, by), markup=False)
    launch.console.print(f"wrote {where}")


def curves(
    runs: Sequence[Path], out: Path, by: Sequence[str] = (), files: Sequence[Path] = ()
) -> None:
    """Draws success over environment steps, a panel for each task, reward and tolerance.

    Args:
      runs: run folders with at least one epoch.
      out: PNG, PDF or SVG file to write.
      by: settings that tell curves apart; default those that differ.
      files: CSV files that `write_csv` wrote, drawn too.

    Raises:
      UserError: if a folder is no run or has no epoch, a file holds no curves, `out` is no picture,
        or `by` names no setting, or too few to tell the curves apart.
    """
    _require_picture(out)
    panels: dict[str, list[Curve]] = {}
    groups = grouping.alike(runs, by, _title if files else None)
    for title, members in grouping.panels(groups).items():
        panels[title] = list(map(of_runs, members))
    for file in files:
        for title, read in read_csv(file, is_one_of_several=len(files) + len(runs) > 1).items():
            panels.setdefault(title, []).extend(read)
    figure, axes = _figure(1, len(panels))
    for panel, (title, members) in zip(axes[0], panels.items(), strict=True):
        for one, color in zip(members, _colors(len(members)), strict=True):
            draw(panel, one, color)
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
    named = (*by, name)

    def entitled(settings: dict[str, Any]) -> str:
        return grouping.panel_title(settings, named)

    groups = grouping.alike(runs, tuple(dict.fromkeys(named)) if by else by, entitled)
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
    groups = grouping.alike(runs, by, None if by else grouping.task)
    titles = {(seeds.settings["task"], seeds.title) for seeds in groups}
    tasks = [task for task, _ in titles]
    rows = []
    for seeds in groups:
        task = seeds.settings["task"]
        rows.append(_row(seeds, task if tasks.count(task) == 1 else seeds.title))
    return "\n".join([*_HEADER, *rows])


def write_csv(runs: Sequence[Path], out: Path, by: Sequence[str] = ()) -> None:
    """Writes a line for every evaluation of the runs, with where it comes from.

    Args:
      runs: run folders; what a summary says is left empty for those that have none.
      out: file to write.
      by: settings that tell curves apart; default those that differ.
    """
    lines = []
    for seeds in grouping.alike(runs, by, _title, shown=None):
        for run in seeds.runs:
            summary = grouping.summary(run) if grouping.finished([run]) else {}
            task, agent = seeds.settings["task"], seeds.settings["agent"]
            known = {"distance_threshold": _tolerance(seeds.settings)} | seeds.settings | summary
            seed = launch.read_config(run).seed
            origin = dict(zip(_ORIGIN, (task, agent, seeds.label, seed), strict=True))
            source = {name: known.get(name, "") for name in _SOURCE}
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


def of_runs(seeds: Seeds) -> Curve:
    """The curve of some runs; one that stands alone has its folder's name."""
    alone = seeds.runs[0].name if len(seeds.runs) == 1 else ""
    return Curve(
        seeds.label or alone,
        [grouping.column(run, "env_steps") for run in seeds.runs],
        [grouping.column(run, "requested_goal_success") for run in seeds.runs],
        {grouping.summary(run)["no_action_success"] for run in grouping.finished(seeds.runs)},
    )


def read_csv(path: Path, is_one_of_several: bool = False) -> dict[str, list[Curve]]:
    """The curves of a file that `write_csv` wrote, by the title of their panel.

    Args:
      path: of the file.
      is_one_of_several: whether labels say of which folder it is.

    Raises:
      UserError: if it is no such file.
    """
    found: dict[tuple[str, str], list[list[dict[str, str]]]] = {}
    before: dict[str, str] = {}
    panels: dict[str, list[Curve]] = {}
    try:
        with path.open(newline="") as file:
            reader = DictReader(file)
            if tuple(reader.fieldnames or ()) != _ORIGIN + _FIGURES + _SOURCE:
                raise ValueError("it has other columns")
            for line in reader:
                title = _within(line["task"], line["distance_threshold"])
                seeds = found.setdefault((title, line["setting"]), [])
                if not (before and _goes_on(before, line)):
                    seeds.append([])
                seeds[-1].append(line)
                before = line
        for (title, setting), seeds in found.items():
            folder = path.parent.name if is_one_of_several or not setting else ""
            curve = Curve(
                ": ".join(filter(None, (folder, setting))),
                [[int(line["env_steps"]) for line in lines] for lines in seeds],
                [[float(line["requested_goal_success"]) for line in lines] for lines in seeds],
                {float(s) for lines in seeds for x in lines if (s := x["no_action_success"])},
            )
            panels.setdefault(title, []).append(curve)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"run: {path} holds no curves ({reason(error)}); name another") from None
    if not panels:
        raise UserError(f"run: {path} holds no curves (it has no line); name another")
    return panels


def _goes_on(before: dict[str, str], line: dict[str, str]) -> bool:
    """Whether a line is of the run that the line before it is of; two may have equal settings."""
    alike = all(before[name] == line[name] for name in (*_ORIGIN, "distance_threshold"))
    return alike and int(before["env_steps"]) < int(line["env_steps"])


def _title(settings: dict[str, Any]) -> str:
    """Of a panel, as far as a file knows the settings of its curves."""
    return _within(settings["task"], _tolerance(settings))


def _within(task: str, tolerance: Any) -> str:
    is_length = tolerance and task in her_envs.TASKS
    return f"{task}, within {100 * float(tolerance):.0f} cm" if is_length else task


def _tolerance(settings: dict[str, Any]) -> float | str:
    """Success distance; "" of tasks that are not Fetch's."""
    return her_envs.TOLERANCES[settings["tolerance"]].get(settings["task"], "")


def draw(panel: Axes, curve: Curve, color: Any) -> None:
    """Median and band of some seeds over thin lines of each."""
    label, steps, success, _ = curve
    count = len(steps)
    if count == 1:
        panel.plot(steps[0], success[0], color=color, label=label)
        return
    for x, y in zip(steps, success, strict=True):
        panel.plot(x, y, color=color, linewidth=0.6, alpha=0.4)
    shared = min(map(len, success))
    middle = statistics.band([each[:shared] for each in success])
    label = f"{label}, {count} seeds" if label else f"median of {count} seeds"
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


def floors(panel: Axes, curves: Sequence[Curve]) -> None:
    """What doing nothing scores, a dotted line for each value."""
    for score in {score for curve in curves for score in curve.floors}:
        panel.axhline(score, color="gray", linestyle=":", linewidth=1)


def _row(seeds: Seeds, task: str) -> str:
    """One line of the table; seeds that did not finish are named, not scored."""
    finished = grouping.finished(seeds.runs)
    left_out = [str(launch.read_config(run).seed) for run in seeds.runs if run not in finished]
    summaries = [grouping.summary(run) for run in finished]
    scored = ", ".join(str(summary["seed"]) for summary in summaries)
    names = scored + (f" (unfinished: {', '.join(left_out)})" if left_out else "")
    cells = [task, seeds.label or "-", names.strip()]
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
