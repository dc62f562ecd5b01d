# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Learning curves
#
# This notebook trains FetchReach, which takes about a minute on two cores. Then it draws every
# committed run of `experiments/reference`, and beside them what others have published.
#
# Success is measured on held-out requested goals, at the last step of an episode, with the
# deterministic policy.

# %%
import dataclasses
import itertools
import sys
from pathlib import Path

# The scripts' folder: this file's parent, or, in Jupyter, that of the current folder.
sys.path.append(str(Path(globals().get("__file__", "cell")).resolve().parents[1]))

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

import cells
import grouping
import plot
import published
from her_jax import metrics

# %% [markdown]
# ## Options
#
# Change the defaults here, or name them on the command line:
# `python experiments/notebooks/learning_curves.py --help`.


# %% tags=["parameters"]
@dataclasses.dataclass(frozen=True)
class Options(cells.Options):
    """Which runs are drawn."""

    reference: Path = Path(published.__file__).parent / "reference"
    """Folder of the runs to draw."""


OPTIONS = cells.options(Options)

# %% [markdown]
# ## Train
#
# Each line is an evaluation. *Nothing* is what a policy scores that never moves: the share of goals
# that are reached already at the start.

# %%
RUN = cells.checked(lambda: cells.trained(OPTIONS))

# %% [markdown]
# ## The committed runs
#
# Runs whose settings differ in nothing but the seed form a group. A group is named by the settings
# that tell it from the other groups of its panel.


# %%
def grouped(runs: list[Path], name: str) -> dict[str, list[grouping.Seeds]]:
    """Groups of runs by the title of their panel; `name` is that of a panel's only group."""
    groups = grouping.alike(runs)
    return grouping.panels([dataclasses.replace(s, label=s.label or name) for s in groups])


def print_steps(panels: dict[str, list[grouping.Seeds]]) -> None:
    """When each seed first reached a success of `grouping.THRESHOLD`."""
    for title, groups in panels.items():
        for seeds in groups:
            reached = ", ".join(map(grouping.amount, grouping.reached(seeds.runs)))
            print(f"{title}; {seeds.label}: steps to {grouping.THRESHOLD:.2f}: {reached}")


FOLDERS = sorted(path.parent for path in OPTIONS.reference.glob(f"*/{metrics.METRICS}"))
PANELS = cells.checked(lambda: grouped(FOLDERS, "this project"))
LIVE = cells.checked(lambda: grouped([RUN.folder], "this notebook's"))
cells.checked(lambda: print_steps(PANELS))
cells.checked(lambda: print_steps(LIVE))

# %% [markdown]
# ## Curves
#
# How to read a panel:
#
# - A thin line is one of several seeds. The thick line is the median over them, the band lies
#   between the lower and the upper quartile. With two or three seeds the band shows little more
#   than their range.
# - The dashed line is the run that this notebook has just trained or read.
# - The dotted line is what doing nothing scores.
# - Markers are published figures. A filled one was quoted from a text or computed from the authors'
#   data. A hollow one was read off a plot, and is as inaccurate as that. A star is a code that was
#   given knowledge of the task.
# - Tolerance `v4` is that of the original tasks, 5 cm. Figures at another one are not drawn.
# - The axis of steps is logarithmic, because the codes lie more than a factor of ten apart.


# %%
def draw_published(axes: Axes, task: str) -> None:
    """Published figures of one task, a marker for each code."""
    figures = [figure for figure in published.figures() if figure.task == task]
    markers = dict(zip(dict.fromkeys(f.code for f in figures), itertools.cycle("osD^vPX<>")))
    for figure in figures:
        if figure.success is not None:
            axes.plot(
                figure.env_steps,
                figure.success,
                marker="*" if figure.task_knowledge else markers[figure.code],
                markersize=10 if figure.task_knowledge else 6,
                color="0.3",
                markerfacecolor="none" if figure.read == "read off a plot" else "0.3",
                linestyle="none",
                label=figure.code,
            )


def draw_panel(axes: Axes, title: str) -> None:
    """All that is known of one task under one reward and tolerance."""
    ours, live = PANELS.get(title, []), LIVE.get(title, [])
    curves = list(map(plot.of_runs, ours))
    for i, curve in enumerate(curves):
        plot.draw(axes, curve, f"C{i}")
    plot.floors(axes, curves)
    for seeds in live:
        names = ("env_steps", "requested_goal_success")
        steps, success = (grouping.column(seeds.runs[0], name) for name in names)
        axes.plot(steps, success, "k--", marker=".", label=seeds.label)
    settings = [*ours, *live][0].settings
    if (settings["reward"], settings["tolerance"], settings["goal"]) == ("sparse", "v4", "many"):
        draw_published(axes, settings["task"])
    axes.set(
        title=title,
        xlabel="environment steps",
        ylabel="success on held-out requested goals",
        xscale="log",
        ylim=(-0.02, 1.04),
    )
    axes.grid(alpha=0.3)
    handles, labels = axes.get_legend_handles_labels()
    once = dict(zip(labels, handles, strict=True))  # a code may have several figures
    axes.legend(once.values(), once.keys(), fontsize="x-small")


titles = list(dict.fromkeys([*PANELS, *LIVE]))
rows = (len(titles) + 1) // 2
picture, grid = plt.subplots(rows, 2, figsize=(12, 4.5 * rows), layout="constrained", squeeze=False)
for axes, title in zip(grid.flat, titles, strict=False):
    draw_panel(axes, title)
for axes in grid.flat[len(titles) :]:
    axes.axis("off")
cells.show(picture, "learning_curves", OPTIONS)

# %% [markdown]
# ## What was published, and where
#
# These figures come from other codes, older versions of MuJoCo and of the tasks, and other numbers
# of test episodes. They say how far apart methods lie, not which of two close ones is better.
# Where the authors gave only words, there is no marker.

# %%
for figure in published.figures():
    success = "no number" if figure.success is None else f"{figure.success:.3f}"
    print(
        f"{figure.task}, {figure.code}: {success} at {figure.env_steps:,} steps "
        f"({figure.read}; {figure.note})\n    {figure.source}"
    )
