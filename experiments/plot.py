"""Draws learning curves: `python experiments/plot.py RUN [RUN ...] [--out FILE] [--by NAME ...]`.

Runs whose settings differ in nothing but the seed are drawn together: each seed as a thin line, and
over them their median with the interquartile range as a band. Runs of one task share a panel, with
what doing nothing scores as a dotted line. `--by strategy k` names the settings that tell curves
apart, and brings sparse and dense rewards into one panel if `reward` is among them; without it,
labels are made of all settings that differ.

`--against k` draws the best and the mean success of training over a setting instead of over time,
as figure 6 of the HER paper does. `--table` prints the success at the end: median, interquartile
mean (IQM) with its 95 % bootstrap interval, steps to a success of 0.90, and doing nothing.

Without `--out` a single run's curve goes into its folder, several runs' into ./curves.png.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import matplotlib
import numpy as np
import tyro
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import her_envs
import launch
from her_envs import bitflip
from her_jax import metrics, statistics
from her_jax.config import Config
from her_jax.errors import UserError

CURVE = "curve.png"
THRESHOLD = 0.9
"""Success whose steps the table counts."""

_HEADER = (
    "| task | setting | seeds | steps | success at the end | IQM [95 % interval] "
    f"| steps to {THRESHOLD:.2f} | doing nothing |",
    "|---|---|---|---|---|---|---|---|",
)


@dataclasses.dataclass(frozen=True)
class Seeds:
    """Runs whose settings differ in nothing but the seed.

    Attributes:
      runs: their folders.
      title: of the panel that they belong to.
      settings: by name, without the seed.
      label: what tells them from the others of the panel; empty if there are none.
    """

    runs: tuple[Path, ...]
    title: str
    settings: dict[str, Any]
    label: str


def main(
    runs: Annotated[tuple[Path, ...], tyro.conf.Positional] = (),
    out: Path | None = None,
    by: tuple[str, ...] = (),
    against: str | None = None,
    table: bool = False,
) -> None:
    """Draw the success of runs on held-out requested goals.

    Args:
      runs: Run folders.
      out: Picture to write.
      by: Names of the settings that tell curves apart; default those that differ.
      against: Name of a setting with numbers, to draw success over it instead of over steps.
      table: Print the success at the end as a Markdown table too.
    """
    if not runs:
        raise UserError("runs: none given; name one or more run folders")
    where = out or (runs[0] / CURVE if len(runs) == 1 else Path("curves.png"))
    if against is None:
        curves(runs, where, by)
    else:
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
    panels = _panels(alike(runs, by))
    figure, axes = _figure(1, len(panels))
    for panel, (title, members) in zip(axes[0], panels.items(), strict=True):
        for seeds, color in zip(members, _colors(len(members)), strict=True):
            _curve(panel, seeds, color)
        _floors(panel, members)
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
    groups = alike(runs, (*by, name) if by and name not in by else by)
    for seeds in groups:
        if not isinstance(seeds.settings.get(name), int | float):
            raise UserError(
                f"against: {name!r} is no setting with numbers; name one, e.g. k or discount"
            )
    names = by or _differing(groups)
    panels = _panels(groups)
    figure, axes = _figure(2, len(panels))
    rows: tuple[tuple[str, Callable[..., Any]], ...] = (("best", np.max), ("mean", np.mean))
    for i, (title, members) in enumerate(panels.items()):
        lines: dict[str, list[Seeds]] = {}
        for seeds in members:
            lines.setdefault(_label(seeds.settings, [n for n in names if n != name]), []).append(
                seeds
            )
        for (word, figure_of), row in zip(rows, axes, strict=True):
            for (label, points), color in zip(lines.items(), _colors(len(lines)), strict=True):
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
    return "\n".join([*_HEADER, *(_row(seeds) for seeds in alike(runs, by))])


def alike(runs: Sequence[Path], by: Sequence[str] = ()) -> list[Seeds]:
    """Runs whose settings differ in nothing but the seed, together.

    Budget, host threads and checkpoint period are no settings here: they change no evaluation.

    Args:
      runs: run folders.
      by: settings that labels are made of; default those that differ within a panel.

    Raises:
      UserError: if a folder is no run, or `by` names no setting, or too few to tell groups apart.
    """
    found: dict[str, Seeds] = {}
    for run in runs:
        config = launch.read_config(run)
        values = settings(config)
        for name in by:
            if name not in values:
                raise UserError(f"by: {name!r} is no setting; name some of {', '.join(values)}")
        key = json.dumps(values)
        members = found[key].runs if key in found else ()
        found[key] = Seeds((*members, run), _title(config, by), values, "")
    return [
        dataclasses.replace(seeds, label=_label(seeds.settings, by or _differing(members)))
        for members in _panels(list(found.values())).values()
        for seeds in _told_apart(members, by)
    ]


def settings(config: Config) -> dict[str, Any]:
    """What an evaluation depends on, by the names of train.py's options, without the seed."""
    lasting = {name.rpartition(".")[2]: value for name, value in config.lasting().items()}
    del lasting["seed"]
    return lasting | {"eval_episodes": config.train.eval_episodes}


def _title(config: Config, by: Sequence[str]) -> str:
    """Task and tolerance, and the reward unless it tells curves apart; of bit strings the size."""
    env = config.env
    if env.task == bitflip.NAME:
        return env.task if "n" in by else f"{env.task}, {env.n} bits"
    tolerance = her_envs.TOLERANCES[env.tolerance][env.task]
    reward = "" if "reward" in by else f"{env.reward} reward, "
    goal = "single goal, " if env.goal == "single" and "goal" not in by else ""
    return f"{env.task}, {reward}{goal}within {100 * tolerance:.0f} cm"


def _panels(groups: Sequence[Seeds]) -> dict[str, list[Seeds]]:
    """Title -> what is drawn there."""
    panels: dict[str, list[Seeds]] = {}
    for seeds in groups:
        panels.setdefault(seeds.title, []).append(seeds)
    return panels


def _differing(groups: Sequence[Seeds]) -> list[str]:
    """Names of the settings in which the groups of a panel differ."""
    first = groups[0].settings
    names = dict.fromkeys(name for seeds in groups for name in seeds.settings)
    return [name for name in names if any(s.settings.get(name) != first.get(name) for s in groups)]


def _told_apart(members: list[Seeds], by: Sequence[str]) -> list[Seeds]:
    """The groups of a panel.

    Raises:
      UserError: if two of them agree in all that `by` names.
    """
    seen: dict[str, Seeds] = {}
    for seeds in members if by else ():
        label = _label(seeds.settings, by)
        if label in seen:
            others = ", ".join(_differing([seen[label], seeds]))
            raise UserError(f"by: runs with {label} differ in {others} too; add that")
        seen[label] = seeds
    return members


def _label(settings: dict[str, Any], names: Sequence[str]) -> str:
    """E.g. "strategy=future, k=4"."""
    return ", ".join(f"{name}={_word(settings.get(name))}" for name in names)


def _word(value: Any) -> str:
    """A value as one would type it."""
    if isinstance(value, list):
        return " ".join(map(_word, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _curve(panel: Axes, seeds: Seeds, color: Any) -> None:
    """Median and band of some seeds over thin lines of each."""
    success = [_column(run, "requested_goal_success") for run in seeds.runs]
    steps = [_column(run, "env_steps") for run in seeds.runs]
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
        [figure_of(_column(run, "requested_goal_success")) for run in seeds.runs]
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
    panel.set_xticks(x, [_word(value) for value in x])


def _floors(panel: Axes, members: Sequence[Seeds]) -> None:
    """What doing nothing scores, a dotted line for each value."""
    floors = {
        metrics.read_json(run / metrics.SUMMARY)["no_action_success"]
        for seeds in members
        for run in _finished(seeds)
    }
    for floor in floors:
        panel.axhline(floor, color="gray", linestyle=":", linewidth=1)


def _row(seeds: Seeds) -> str:
    """One line of the table; seeds that did not finish are named, not scored."""
    finished = _finished(seeds)
    left_out = [str(launch.read_config(run).seed) for run in seeds.runs if run not in finished]
    summaries = [metrics.read_json(run / metrics.SUMMARY) for run in finished]
    scored = ", ".join(str(summary["seed"]) for summary in summaries)
    names = scored + (f" (unfinished: {', '.join(left_out)})" if left_out else "")
    cells = [seeds.title.partition(",")[0], seeds.label or "-", names.strip()]
    if not summaries:
        return f"| {' | '.join([*cells, '-', '-', '-', '-', '-'])} |"
    final = [summary["requested_goal_success"] for summary in summaries]
    middle = statistics.interquartile_mean_interval(final)
    spread = f"{middle.low:.3f}, {middle.high:.3f}" if len(final) > 1 else "-"
    reached = statistics.median_steps(
        [
            statistics.steps_to(
                _column(run, "env_steps"), _column(run, "requested_goal_success"), THRESHOLD
            )
            for run in finished
        ]
    )
    budgets = sorted({summary["env_steps"] for summary in summaries})
    floors = [summary["no_action_success"] for summary in summaries]
    cells += [
        " to ".join(f"{budget:,}" for budget in dict.fromkeys([budgets[0], budgets[-1]])),
        f"{np.median(final):.3f}",
        f"{middle.value:.3f} [{spread}]",
        "not reached" if reached is None else f"{reached:,.0f}",
        f"{np.median(floors):.3f}",
    ]
    return f"| {' | '.join(cells)} |"


def _finished(seeds: Seeds) -> list[Path]:
    return [run for run in seeds.runs if (run / metrics.SUMMARY).is_file()]


def _column(run: Path, field: str) -> list[Any]:
    """One figure of every epoch."""
    return [line[field] for line in metrics.read(run)]


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
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=120)


if __name__ == "__main__":
    launch.guarded(lambda: tyro.cli(main))
