"""Scores a trained policy: `python experiments/evaluate.py RUN [--episodes N] [--physics P] ...`.

Success is measured on held-out requested goals, without exploration noise, at the tolerance the
run was trained with; the printed JSON says which, what doing nothing scores on the same goals, and
where on the goal space the policy fails. The interval is Wilson's, of 95 %.
A set with goals that the stored episodes were asked for, or another tolerance than the run's, is
refused. `goals_of_stored_episodes` is then 0; it is null where the checkpoint is gone, so that what
was stored is not known, or where goals cannot be held out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import jax
import tyro

import launch
from her_jax import evaluate, goal_set, policy, statistics
from her_jax.audit import record
from her_jax.errors import UserError


def main(
    run: Annotated[Path, tyro.conf.Positional],
    episodes: int | None = None,
    goals: Path | None = None,
    physics: str | None = None,
) -> None:
    """Evaluate the policy of a run, that of its latest checkpoint.

    Args:
      run: Run folder.
      episodes: Number of held-out goals, the first ones of the set; default all of the set.
      goals: CSV that draw_goals.py wrote; default the task's own held-out set.
      physics: Backend to score on, e.g. "warp", to see whether the policy transfers; default what
        the run was scored on, "native" unless it was changed.
    """
    try:
        opened = launch.open_run(run, physics)
    except UserError as error:
        if physics is None:
            raise
        raise UserError(str(error).replace("scored_on:", "physics:", 1)) from None  # as typed
    env = opened.judge
    held_out = goal_set.load(env, goals, episodes) if goals else goal_set.standard(env, episodes)
    comparable = False
    if opened.has_checkpoint():
        epoch, state, _ = opened.restore()
        acting = policy.acting(opened.agent, state)
        opened.require_disjoint(held_out, state)
        comparable = env.goal_spec.can_be_held_out
        del state  # and with it the goal buffer
    else:
        epoch, acting = opened.restore_policy()
    with launch.waiting(f"compiling, then playing {held_out.episodes:,} goals twice"):
        outcome = jax.device_get(jax.jit(opened.evaluate)(acting, held_out.starts))
        floor = opened.floor(held_out)
    reached = int(outcome.success.sum())
    success = statistics.success_interval(reached, held_out.episodes)
    launch.report(
        {
            "epoch": epoch,
            "env_steps": int(acting.env_steps),
            "requested_goal_success": success.value,
            "requested_goal_success_interval": [success.low, success.high],
            "requested_goal_success_any_step": evaluate.mean(outcome.success_any),
            "no_action_success": floor,
            "broken_episodes": evaluate.mean(outcome.broken),
            "dropped_contact_steps": evaluate.mean(outcome.dropped) / env.horizon,
            "final_distance": evaluate.mean(outcome.distance),
            "goals_of_stored_episodes": 0 if comparable else None,
            "by_goal": evaluate.quarters(
                env.goal_spec, held_out.starts.desired_goal, outcome.success
            ),
            "costs": evaluate.costs(env, outcome),
            "evaluation": record.settings(env, held_out),
        }
    )
    task, spec = opened.config.env.task, env.goal_spec
    launch.status.print(
        f"{launch.headline(task, success.value, spec, held_out.episodes, floor)}; "
        f"95 % interval {success.low:.3f} to {success.high:.3f}"
    )


if __name__ == "__main__":
    launch.command(main)
