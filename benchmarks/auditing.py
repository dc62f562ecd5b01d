"""Cost of the audit: `python benchmarks/auditing.py [--smoke] [--out FILE]`.

Offline, every step of a full buffer is relabelled and checked, for each strategy; while training, a
few rows of each batch of an epoch's last round are. Episodes are random walks in the shape of
FetchPush, so that no physics is timed.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import harness
import her_envs
from her_jax import buffer, goal_set, train
from her_jax.audit import replay
from her_jax.config import Config, ReplayConfig
from her_jax.relabel import STRATEGIES
from her_jax.types import Episode, Key

UPDATES, ROWS = 100, 4  # of an epoch's last round in the presets, and audited of each


def main(smoke: bool = False, rounds: int = 3, out: Path | None = None) -> None:
    """Measure the audit of a million stored transitions and of an epoch's sample.

    Args:
      smoke: A tiny run that only shows that everything works.
      rounds: Timed calls of each.
      out: Results file; default runs/benchmarks/auditing.json.
    """
    harness.require_positive(rounds=rounds)
    path = harness.results_file("auditing", out, smoke)
    env = her_envs.make("FetchPush")
    capacity = 32 if smoke else 20_000
    stored = _filled(env, capacity, jax.random.key(0))
    rows = [_row(env, stored, strategy, 1 if smoke else rounds) for strategy in STRATEGIES]
    print(table(rows))
    harness.write("auditing", rows, path)


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: seconds to audit a buffer, milliseconds to audit an epoch's sample."""
    return harness.markdown(
        ["strategy", "transitions", "every stored step, s", "400 rows while training, ms"],
        [
            [
                row["strategy"],
                f"{row['transitions']:,}",
                f"{row['stored_s']:.1f}",
                f"{1000 * row['drawn_s']:.1f}",
            ]
            for row in rows
        ],
    )


def _row(
    env: her_envs.FetchEnv, stored: buffer.BufferState, strategy: str, rounds: int
) -> dict[str, Any]:
    config = Config(replay=ReplayConfig(strategy=strategy, capacity=buffer.capacity(stored)))
    relabel = jax.jit(functools.partial(train.replayed, env, config))
    steps = buffer.sample(stored, jax.random.key(1), UPDATES * ROWS)
    reward, goals = replay.scorer(env.reward), goal_set.standard(env, 200)
    transitions, paid = relabel(stored, steps, jax.random.key(2))
    way = train.returns(env, config, stored, steps, transitions, paid)
    drawn = train.Drawn(steps, transitions, paid, way)
    seconds = harness.side_by_side(
        {
            "stored": lambda: _clean(replay.check_stored(env, config, stored, jax.random.key(3))),
            "drawn": lambda: _sampled(env, config, reward, goals, stored, drawn),
        },
        rounds,
    )
    return {
        "strategy": strategy,
        "transitions": buffer.capacity(stored) * env.horizon,
        "stored_s": seconds["stored"],
        "drawn_s": seconds["drawn"],
    }


def _sampled(
    env: Any, config: Config, reward: Any, goals: Any, stored: buffer.BufferState, drawn: Any
) -> None:
    """What the runner does after an epoch: 400 new episodes and 400 rows."""
    goal_set.require_disjoint(goals, np.asarray(stored.episodes.desired_goal[:400]))
    _clean(replay.check_drawn(env, config, reward, stored, drawn))


def _clean(report: Any) -> None:
    assert not report.broken, report.reasons()


def _filled(env: her_envs.FetchEnv, capacity: int, key: Key) -> buffer.BufferState:
    """A full buffer of random walks from the gripper's start."""

    @jax.jit
    def walks(key: Key) -> Episode:
        example = train.example_episode(env)
        leaves, shape = jax.tree.flatten(example)
        keys = jax.random.split(key, len(leaves))
        drawn = [
            0.001 * jax.random.normal(k, (capacity, *leaf.shape))
            for k, leaf in zip(keys, leaves, strict=True)
        ]
        episodes = jax.tree.unflatten(shape, drawn)
        start = jnp.asarray(env.physics.scene.gripper_pos, jnp.float32)
        walked = start + jnp.cumsum(episodes.achieved_goal, axis=1)
        return episodes._replace(achieved_goal=walked, desired_goal=start + episodes.desired_goal)

    episodes = walks(key)
    full = jnp.asarray(capacity, jnp.int32)
    return buffer.BufferState(
        episodes, jnp.ones(capacity), cursor=jnp.zeros((), jnp.int32), size=full
    )


if __name__ == "__main__":
    harness.run(main)
