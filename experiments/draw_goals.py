"""Writes a held-out goal set: `python experiments/draw_goals.py TASK --out FILE [--seed N]`.

The set that published figures are on is seed 0 and comes with the environments; search.py chooses
settings on that of seed 1. Training on the Fetch tasks never draws what any seed here leads to;
bit strings are few, and a short one's goals are not new.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

import her_envs
import launch
import presets
from her_jax import goal_set
from her_jax.errors import UserError


def main(
    task: Annotated[str, tyro.conf.Positional],
    out: Path,
    episodes: int = 1000,
    seed: int = 2,
    plugin: str = "",
) -> None:
    """Draw a held-out goal set and write it as CSV.

    Args:
      task: One of train.py's tasks; of bit-flip, strings of 10 bits. Or what `--plugin` registers.
      out: File to write.
      episodes: Number of starts.
      seed: Which set.
      plugin: Python file that registers the task.
    """
    if episodes < 1:
        raise UserError(f"episodes: {episodes} is not positive; try 1000")
    if not 0 <= seed < 2**31:
        raise UserError(f"seed: {seed} does not lie in [0, 2**31); try 2")
    if plugin:
        launch.load_plugin(plugin)
    env = her_envs.make(presets.environment(task))
    with launch.writing("out", out):
        out.parent.mkdir(parents=True, exist_ok=True)
    goals = goal_set.draw(env, episodes, seed)
    goal_set.save(env, goals, out)
    launch.console.print(f"{out}: {episodes} starts of {env.name}, sha256 {goals.sha256}")


if __name__ == "__main__":
    launch.command(main)
