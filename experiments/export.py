"""Writes a trained policy as one file for JAX alone: `python experiments/export.py RUN [--out F]`.

    policy = jax.export.deserialize(pathlib.Path("policy.jax").read_bytes())
    action = policy.call(observation, desired_goal)

The file is a function as JAX lowers it, networks and normalisation inside, for CPUs, CUDA and TPUs.
It takes float32 [n, O] observations and [n, G] requested goals, and gives greedy actions [n, A];
reading it takes JAX and flatbuffers, and nothing of this project. JAX promises to read such files
for six months (`jax.export`); what lasts is the run's policy.npz.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import jax
import jax.numpy as jnp
import tyro
from jax import export

import launch
from her_jax import metrics
from her_jax.runner import Run
from her_jax.types import GoalObs

PLATFORMS = ("cpu", "cuda", "tpu")


def main(run: Annotated[Path, tyro.conf.Positional], out: Path | None = None) -> None:
    """Write the policy of a run's latest checkpoint.

    Args:
      run: Run folder.
      out: File to write; default RUN/policy.jax.
    """
    where = out or run / metrics.EXPORTED
    write(launch.open_run(run), where)
    launch.console.print(f"wrote {where}")


def write(run: Run, out: Path) -> None:
    """Writes the policy of a run's latest checkpoint.

    Raises:
      UserError: if there is no policy, or the file cannot be written; one that was there stays.
    """
    _, state = run.restore_policy()
    env = run.judge

    def policy(observation: jax.Array, desired_goal: jax.Array) -> jax.Array:
        return run.act(state, GoalObs(observation, jnp.zeros_like(desired_goal), desired_goal))

    (count,) = export.symbolic_shape("n")
    shapes = [
        jax.ShapeDtypeStruct((count, size), jnp.float32)
        for size in (env.observation_size, env.goal_spec.size)
    ]
    exported = export.export(jax.jit(policy), platforms=PLATFORMS)(*shapes)
    with launch.writing("out", out):
        out.parent.mkdir(parents=True, exist_ok=True)
        metrics.write_whole(out, lambda partial: partial.write_bytes(exported.serialize()))


if __name__ == "__main__":
    launch.command(main)
