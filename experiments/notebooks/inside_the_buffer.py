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
# # Inside the goal buffer
#
# A step that missed its goal teaches little: the reward is -1, as before. Hindsight experience
# replay asks a second question of the same step: what if the goal had been a state that was reached
# anyway? The goal is exchanged, the reward is computed again, and nothing else changes.
#
# Strategies differ in where the new goal comes from. This notebook takes the buffer of a trained
# run and draws the same steps from it under each strategy.

# %%
import dataclasses
import functools
import sys
from pathlib import Path

# The scripts' folder: this file's parent, or, in Jupyter, that of the current folder.
sys.path.append(str(Path(globals().get("__file__", "cell")).resolve().parents[1]))

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Rectangle

import cells
from her_jax import buffer, relabel, train
from her_jax.config import ReplayConfig
from her_jax.errors import UserError

# %% [markdown]
# ## Options
#
# By default FetchReach is trained, in about a minute. Change the defaults here, or name them on the
# command line: `python experiments/notebooks/inside_the_buffer.py --help`. Pushing shows more, but
# takes minutes to train: `--run runs/RUN` reads the buffer of a run that you have.


# %% tags=["parameters"]
@dataclasses.dataclass(frozen=True)
class Options(cells.Options):
    """What is drawn from the buffer."""

    rows: int = 20_000
    """Steps drawn, with replacement."""
    k: float = 4.0
    """Relabelled steps for each unchanged one."""

    def __post_init__(self) -> None:
        ReplayConfig(k=self.k)  # refuses what is none
        if self.rows < 1:
            raise UserError(f"rows: {self.rows} is not positive; try 20000")


OPTIONS = cells.options(Options)

# %%
RUN = cells.checked(lambda: cells.trained(OPTIONS))
_, STATE, _ = cells.checked(RUN.restore)
SPEC = RUN.env.goal_spec
STORED = STATE.buffer
SIZE, HORIZON = int(STORED.size), RUN.env.horizon
print(f"{RUN.env.name}: {SIZE:,} episodes of {HORIZON} steps; goals are the {SPEC.name}")

# %% [markdown]
# ## Draw
#
# All strategies see the same steps and relabel the same ones, because they are given the same keys.
# So the figures below differ in the goals only. `train.replayed` is what the learner itself calls;
# `min_displacement`, by which a run may leave out goals near the object's start, is 0 here.
#
# The ring overwrites its oldest episodes first. Counting rows from the oldest on puts the episodes
# in the order in which they were played.


# %%
@dataclasses.dataclass(frozen=True)
class Draw:
    """Steps of the buffer under the goals of one strategy.

    Attributes:
      age: float [B], place of the episode between the oldest (0) and the newest (1).
      relabelled: bool [B].
      goal: float32 [B, G].
      reward: float32 [B].
      distance: float [B], from the goal that the state before the action satisfies, in goal units.
      from_start: float [B], from the goal that the episode's first state satisfies.
      reached: bool [B], whether the state before the action satisfies the goal already.
    """

    age: np.ndarray
    relabelled: np.ndarray
    goal: np.ndarray
    reward: np.ndarray
    distance: np.ndarray
    from_start: np.ndarray
    reached: np.ndarray


def draw(strategy: str) -> Draw:
    """Rows under a strategy, as a learner gets them that replays all episodes equally often."""
    replay = dataclasses.replace(
        RUN.config.replay, strategy=strategy, k=OPTIONS.k, min_displacement=0.0
    )
    config = dataclasses.replace(RUN.config, replay=replay)
    sample_key, label_key = jax.random.split(jax.random.key(0))
    steps = buffer.sample(STORED, sample_key, OPTIONS.rows)
    rows, reward = jax.jit(functools.partial(train.replayed, RUN.env, config))(
        STORED, steps, label_key
    )
    before = STORED.episodes.achieved_goal[steps.episode, steps.time]
    start = STORED.episodes.achieved_goal[steps.episode, 0]
    oldest = STORED.cursor if buffer.capacity(STORED) == SIZE else 0
    return Draw(
        age=np.asarray((steps.episode - oldest) % SIZE) / max(SIZE - 1, 1),
        relabelled=np.asarray(rows.relabelled),
        goal=np.asarray(rows.desired_goal),
        reward=np.asarray(reward),
        distance=np.asarray(jnp.linalg.norm(before - rows.desired_goal, axis=-1)),
        from_start=np.asarray(jnp.linalg.norm(start - rows.desired_goal, axis=-1)),
        reached=np.asarray(RUN.env.success(before, rows.desired_goal)),
    )


DRAWS = {name: draw(name) for name in relabel.STRATEGIES}
NONE = DRAWS["none"]  # every row keeps the goal that its episode was asked for
HINDSIGHT = {name: one for name, one in DRAWS.items() if one.relabelled.any()}

# %% [markdown]
# ## Which goals?
#
# The first column shows the goals that episodes were asked for, the others those that a strategy
# puts in their place. Dark points come from old episodes, bright ones from new ones. The box is the
# region that requested goals are drawn from.
#
# - `future`, `final` and `episode` take goals from the step's own episode, so their goals lie where
#   the robot (or the object) has been, also outside the box. `random` takes them from any episode.
# - `future_actual` takes half of its goals from `future`; the other half are goals that some
#   episode was asked for.
# - `none` relabels nothing and has no column.
#
# In FetchReach a goal is a position of the gripper, which moves from the first episode on. In the
# other tasks a goal is a position of the object. As long as nothing touches the object, its goals
# are where it lay. Goals below the table are those of an object that has fallen off it.

# %%
PAIRS = [(0, j) for j in range(1, min(SPEC.size, 3))]
SHOWN = slice(3_000)  # rows are in random order; more would only hide each other
COLUMNS = {"requested": (NONE, ~NONE.relabelled)} | {
    name: (one, one.relabelled) for name, one in HINDSIGHT.items()
}

picture, grid = plt.subplots(
    len(PAIRS),
    len(COLUMNS),
    figsize=(2.8 * len(COLUMNS), 2.8 * len(PAIRS)),
    sharex=True,
    sharey="row",
    squeeze=False,
    layout="constrained",
)
for column, (name, (one, chosen)) in enumerate(COLUMNS.items()):
    goal, age = one.goal[SHOWN][chosen[SHOWN]], one.age[SHOWN][chosen[SHOWN]]
    for row, (i, j) in enumerate(PAIRS):
        axes = grid[row, column]
        low, high = np.array(SPEC.region.low), np.array(SPEC.region.high)
        box = Rectangle((low[i], low[j]), *(high - low)[[i, j]], fill=False, zorder=3)
        axes.add_patch(box)
        points = axes.scatter(goal[:, i], goal[:, j], s=2, c=age, cmap="plasma", vmin=0, vmax=1)
        axes.set(xlabel=f"{SPEC.coordinates[i]} ({SPEC.units})")
        if column == 0:
            axes.set(ylabel=f"{SPEC.coordinates[j]} ({SPEC.units})")
            picture.colorbar(points, ax=grid[row], label="oldest 0, newest 1", pad=0.01)
    grid[0, column].set_title(name)
cells.show(picture, "goals", OPTIONS)

# %% [markdown]
# ## Which rewards?
#
# The reward is 0 where the next state satisfies the goal, and -1 elsewhere. The figure shows the
# share of rows with reward 0, apart for rows that kept their goal and rows that were relabelled.
#
# - Rows that kept their goal have the same share under every strategy: they are the same rows. Only
#   `none` keeps the goals of all.
# - Under `future` and `final` the goal is a state that the episode was still to reach. Under
#   `episode` it may lie behind, under `random` in another episode. Where episodes differ much,
#   `random` therefore reaches its goals least.
# - A share near 1 is no good sign: the learner sees no misses then, and nothing tells a good action
#   from a bad one.


# %%
def mean(values: np.ndarray) -> float:
    """Mean; not a number where there is nothing."""
    return float(np.mean(values)) if len(values) else float("nan")


picture, axes = plt.subplots(figsize=(9, 3.5), layout="constrained")
places = np.arange(len(DRAWS))
for offset, label, keep in ((-0.2, "kept their goal", False), (0.2, "relabelled", True)):
    paid = [mean(one.reward[one.relabelled == keep] == 0) for one in DRAWS.values()]
    axes.bar(places + offset, paid, width=0.4, label=label)
    for place, value in zip(places, paid, strict=True):
        text = "no rows" if np.isnan(value) else f"{value:.2f}"
        axes.text(place + offset, np.nan_to_num(value), text, ha="center", va="bottom")
axes.set(xticks=places, xticklabels=list(DRAWS), ylim=(0, 1.1), ylabel="share with reward 0")
axes.legend()
cells.show(picture, "rewards", OPTIONS)

# %% [markdown]
# ## From easy to hard
#
# A relabelled goal is easy if the state before the action satisfies it already: then the best
# action is to leave things as they are. The buffer keeps what the policy did at every stage of
# training, so its rows show how the goals changed. Each point is a tenth of the buffer, the oldest
# episodes on the left.
# The dashed line is what the requested goals ask for.
#
# - **Left:** how far the goal is from the state before the action.
# - **Middle:** how far it is from where the episode began. In tasks with an object this is the
#   distance by which the object was moved.
# - **Right:** the share of goals that are reached already.
#
# With an object, training begins with goals that are nearly all reached already: nothing has
# touched the object, and hindsight asks to leave it there. The first pushes bring goals at a
# distance, and with them the requested goals come within reach. Nobody planned this curriculum.
# A policy that has learned reaches its goal early and stays, and its goals become easier again.
# Goals of `random` are no easier than requested ones at any time.
#
# FetchReach has no such beginning. Its gripper moves at random first, so its goals are spread
# early. Only the last part is seen here: the policy learns to go to its goal and to stay, most of
# an episode's later states are where the step is already, and relabelled goals become easier.

# %%
BINS = min(10, SIZE)


def by_age(one: Draw, values: np.ndarray, chosen: np.ndarray) -> list[np.ndarray]:
    """The chosen rows' values in each part of the buffer, oldest first."""
    part = np.minimum((one.age * BINS).astype(int), BINS - 1)
    return [values[chosen & (part == i)] for i in range(BINS)]


picture, grid = plt.subplots(1, 3, figsize=(15, 4), layout="constrained")
centres = (np.arange(BINS) + 0.5) / BINS
panels = (
    ("distance", f"distance from the state ({SPEC.units}), mean"),
    ("from_start", f"distance from the first state ({SPEC.units}), mean"),
    ("reached", "share reached already"),
)
for axes, (field, label) in zip(grid, panels, strict=True):
    for name, one in HINDSIGHT.items():
        parts = by_age(one, getattr(one, field), one.relabelled)
        axes.plot(centres, [mean(part) for part in parts], marker=".", label=name)
    asked = by_age(NONE, getattr(NONE, field), ~NONE.relabelled)
    axes.plot(centres, [mean(part) for part in asked], "k--", label="requested")
    axes.set(xlabel="place in the buffer: oldest 0, newest 1", ylabel=label)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
picture.legend(*grid[0].get_legend_handles_labels(), loc="outside right center")
cells.show(picture, "drift", OPTIONS)

# %% [markdown]
# ## The same in numbers
#
# `relabelled` is the share of rows that got another goal, k / (k + 1) and chance. `reward 0` is the
# share among those. The last columns compare the oldest tenth of the buffer with the newest.

# %%
print(
    f"{'strategy':>14} {'relabelled':>10} {'reward 0':>8} {'reached, old':>12} {'new':>6} "
    f"{'mean distance, old':>18} {'new':>6}"
)
for name, one in DRAWS.items():
    reached = by_age(one, one.reached, one.relabelled)
    distance = by_age(one, one.distance, one.relabelled)
    print(
        f"{name:>14} {mean(one.relabelled):>10.3f} "
        f"{mean(one.reward[one.relabelled] == 0):>8.3f} "
        f"{mean(reached[0]):>12.3f} {mean(reached[-1]):>6.3f} "
        f"{mean(distance[0]):>18.3f} {mean(distance[-1]):>6.3f}"
    )
