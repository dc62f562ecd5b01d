"""Scores a trained policy: `python experiments/evaluate.py RUN [--episodes --seed]`.

Success is measured on held-out requested goals, without exploration noise, at the tolerance the
run was trained with; the printed JSON says which, and what doing nothing scores on the same goals.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import jax
import numpy as np
import tyro

import launch
from her_jax import evaluate
from her_jax.errors import UserError


def main(run: Annotated[Path, tyro.conf.Positional], episodes: int = 1000, seed: int = 0) -> None:
    """Evaluate the latest checkpoint of a run.

    Args:
      run: Run folder.
      episodes: Number of held-out goals.
      seed: Which held-out set; 0 is the one that training reports on.
    """
    if episodes < 1:
        raise UserError(f"episodes: {episodes} is not positive; try 1000")
    opened = launch.open_run(run)
    epoch, state, _ = opened.restore()
    keys = evaluate.held_out(episodes, seed)
    launch.status.print(f"compiling, then playing {episodes} held-out goals twice ...")
    outcome = jax.jit(opened.evaluate)(state, keys)
    floor = opened.floor(keys)
    launch.report(
        {
            "task": opened.config.env.task,
            "physics": opened.config.env.physics,
            "epoch": epoch,
            "env_steps": int(state.env_steps),
            "requested_goal_success": float(np.asarray(outcome.success).mean()),
            "requested_goal_success_any_step": float(np.asarray(outcome.success_any).mean()),
            "final_distance": float(np.mean(outcome.distance)),
            **floor,
            "distance_threshold": opened.env.goal_spec.tolerance,
        }
    )


if __name__ == "__main__":
    launch.guarded(lambda: tyro.cli(main))
