"""Audits a run's relabelling: `python experiments/audit.py RUN [--draws N]`.

Every step that the checkpoint's buffer holds is relabelled by the run's own sampler, as in
training, and each result is checked in NumPy against what is stored. The reward function is the
environment's own on both sides; what is checked is which goals training gave it. Exit status 1 if a
rule is broken; chance alone breaks the rule of the share in three audits of a thousand, so try
another --seed before believing it.
"""

from __future__ import annotations

import functools
import sys
import time
from pathlib import Path
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
import tyro

import launch
from her_jax import audit, train
from her_jax.errors import UserError
from her_jax.runner import Run
from her_jax.types import Moment

_CHUNK = 20_000  # steps relabelled and checked at a time


def main(run: Annotated[Path, tyro.conf.Positional], draws: int = 1, seed: int = 0) -> None:
    """Audit the relabelling of all stored steps.

    Args:
      run: Run folder.
      draws: How often each step is relabelled.
      seed: Seed of the relabelling.
    """
    if draws < 1:
        raise UserError(f"draws: {draws} is not positive; try 1")
    opened = launch.open_run(run)
    _, state, _ = opened.restore()
    start = time.perf_counter()
    report = relabelling(opened, state, draws, jax.random.key(seed))
    launch.report(
        {
            "task": opened.config.env.task,
            "strategy": opened.config.replay.strategy,
            "k": opened.config.replay.k,
            "distance_threshold": opened.env.goal_spec.tolerance,
            "audited_transitions": len(report.violations["stored"]),
            "violations": {rule: int(rows.sum()) for rule, rows in report.violations.items()},
            "relabelled_share": report.share,
            "configured_share": opened.config.replay.relabel_probability,
            "share_within_three_sigma": report.share_holds,
            "clean": report.clean,
            "audit_s": time.perf_counter() - start,
        }
    )
    if not report.clean:
        sys.exit(1)


def relabelling(run: Run, state: train.TrainState, draws: int, key: jax.Array) -> audit.Report:
    """Relabels every stored step `draws` times and checks all of it."""
    size, horizon = int(state.buffer.size), run.env.horizon
    config = run.config
    draw = jax.jit(functools.partial(train.replayed, run.env, config))
    reward = jax.jit(run.env.reward)
    episodes = jax.tree.map(np.asarray, state.buffer.episodes)
    check = functools.partial(
        audit.check,
        episodes,
        size,
        reward=lambda *goals: np.asarray(reward(*map(jnp.asarray, goals))),
        strategy=config.replay.strategy,
        probability=config.replay.relabel_probability,
    )
    count = draws * size * horizon
    keys = jax.random.split(key, -(-count // _CHUNK))
    reports = []
    for i, chunk_key in enumerate(keys):
        # The last chunk is padded by wrapping around, so that all share one compiled program.
        number = np.arange(i * _CHUNK, (i + 1) * _CHUNK) % (size * horizon)
        steps = Moment(jnp.asarray(number // horizon), jnp.asarray(number % horizon))
        claim = audit.claim(steps, *draw(state.buffer, steps, chunk_key))
        reports.append(check(jax.tree.map(lambda x, i=i: x[: count - i * _CHUNK], claim)))
    return audit.merge(reports, config.replay.relabel_probability)


if __name__ == "__main__":
    launch.guarded(lambda: tyro.cli(main))
