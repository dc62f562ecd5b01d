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
# # Throughput
#
# Environment steps a second against the number of environments, for every physics backend: a small
# live run on this machine, and every committed result of `benchmarks/results`, each on the device
# that it names.
#
# An environment step is 40 ms of simulated time: 20 steps of MuJoCo, observation and goal.

# %%
import dataclasses
import sys
from pathlib import Path
from typing import Any

# The folders of the scripts and of the benchmarks, from this file or, in Jupyter, from the current
# folder.
_ROOT = Path(globals().get("__file__", "cell")).resolve().parents[2]
sys.path += [str(_ROOT / "experiments"), str(_ROOT / "benchmarks")]

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

import cells
import env_throughput
from her_jax import metrics, provenance

# %% [markdown]
# ## Options
#
# Change the defaults here, or name them on the command line:
# `python experiments/notebooks/throughput.py --help`. On a GPU, `warp` and thousands of
# environments are what to look at; on a CPU `warp` runs too, slowly.


# %% tags=["parameters"]
@dataclasses.dataclass(frozen=True)
class Options(cells.Figures):
    """What is measured live, and which results are drawn."""

    task: str = "FetchPush"
    """Environment of the live run."""
    contestants: tuple[str, ...] = ("native", "batch")
    """Who takes part in the live run, of those that benchmarks/env_throughput.py knows."""
    num_envs: tuple[int, ...] = (1, 4, 16, 64, 256)
    """Numbers of environments of the live run."""
    steps: int = 20
    """Steps in one timed call."""
    results: Path = _ROOT / "benchmarks" / "results"
    """Folder of committed results."""


OPTIONS = cells.options(Options)

# %% [markdown]
# ## Measure
#
# All contestants take turns at every number of environments; figures are medians of three rounds.

# %%
cells.checked(lambda: env_throughput.require_measurable(OPTIONS.num_envs, OPTIONS.steps, rounds=3))
LIVE = cells.checked(
    lambda: [
        row
        for count in OPTIONS.num_envs
        for row in env_throughput.measure(
            OPTIONS.task, OPTIONS.contestants, count, OPTIONS.steps, rounds=3
        )
    ]
)
print(env_throughput.table(LIVE))

# %% [markdown]
# ## The committed results
#
# A file holds rows of one machine; those of `benchmarks/accelerator.py` hold them by part.


# %%
def committed(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Throughput rows by the device that they were measured on."""
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(folder.glob("*.json")):
        values = metrics.read_json(path)
        for row in values["rows"]:
            measured = row.get("result", row)
            for one in measured if isinstance(measured, list) else [measured]:
                if "env_steps_per_s" in one and "contestant" in one:
                    found.setdefault(values["device"], []).append(one)
    return found


def draw(axes: Axes, title: str, rows: list[dict[str, Any]]) -> None:
    """One panel: a line for each contestant, or a point where it had one number of environments."""
    for contestant in dict.fromkeys(row["contestant"] for row in rows):
        points = sorted(
            (row["num_envs"], row["env_steps_per_s"])
            for row in rows
            if row["contestant"] == contestant
        )
        counts, rates = np.array(points, np.float64).T
        axes.plot(counts, rates, marker="o", label=contestant)
    axes.set(title=title, xscale="log", yscale="log", xlabel="environments")
    axes.set_ylabel("environment steps a second")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)


# %%
PANELS = {f"{OPTIONS.task}, live\n{provenance.device()}": LIVE}
for device, rows in committed(OPTIONS.results).items():
    for task in dict.fromkeys(row["task"] for row in rows):
        PANELS[f"{task}\n{device}"] = [row for row in rows if row["task"] == task]

figure, panels = plt.subplots(
    -(-len(PANELS) // 2), 2, figsize=(11, 3.6 * -(-len(PANELS) // 2)), squeeze=False
)
for axes, (title, rows) in zip(panels.flat, PANELS.items(), strict=False):
    draw(axes, title, rows)
for axes in panels.flat[len(PANELS) :]:
    axes.set_axis_off()
figure.tight_layout()
cells.show(figure, "throughput", OPTIONS)
