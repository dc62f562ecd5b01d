"""The traced episode log: sampled episodes step by step, as Parquet.

Each row is a step. Rows of source `held_out` are the episodes behind the reported success, all of
them; rows of source `replay` are stored training episodes under one draw of the relabeller.

    source               "held_out" or "replay"
    episode, step        int32; step counts from 0
    desired_goal         float32 [G], as requested
    achieved_goal        float32 [G], before the step
    next_achieved_goal   float32 [G], after it
    action               float32 [A]
    cost                 float32 [K]
    reward               float32, of the next achieved under the requested goal
    relabelled           bool
    relabelled_goal      float32 [G], the goal of the row after relabelling; null for held_out
    relabelled_reward    float32, under that goal; null for held_out
    label                failure labels of the run, comma-separated, or "none"

The schema's metadata names task, tolerance, units, cost channels and the hashes of the record.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from her_jax import metrics, train
from her_jax.audit import programs
from her_jax.config import Config
from her_jax.errors import UserError, reason
from her_jax.types import Episode, GoalEnv, Key, Moment

REPLAYED_EPISODES = 20
"""Stored episodes in the log."""


def write(path: Path, table: pa.Table) -> None:
    """Writes the log; the file is replaced whole."""
    metrics.write_whole(path, lambda partial: pq.write_table(table, partial))


def build(
    env: GoalEnv,
    config: Config,
    played: Episode,
    state: train.TrainState,
    key: Key,
    about: dict[str, Any],
) -> pa.Table:
    """The log of a run.

    Args:
      env: the environment.
      config: settings of the run.
      played: held-out episodes [E, ...].
      state: the run.
      key: consumed; decides which stored episodes are logged and how they are relabelled.
      about: hashes and labels of the record, for the metadata and the column `label`.
    """
    label = ",".join(about["failure_labels"]) or "none"
    held_out = _rows(env, "held_out", played, label)
    pick_key, label_key = jax.random.split(key)
    size = int(state.buffer.size)
    chosen = jax.random.permutation(pick_key, size)[:REPLAYED_EPISODES]
    stored = jax.tree.map(lambda x: x[chosen], state.buffer.episodes)
    steps = Moment(jnp.repeat(chosen, env.horizon), jnp.tile(jnp.arange(env.horizon), len(chosen)))
    drawn, reward = programs.replayed(env, config, state.buffer, steps, label_key)
    replay = _rows(env, "replay", stored, label)
    replay["episode"] = np.asarray(steps.episode)
    replay["relabelled"] = np.asarray(drawn.relabelled)
    replay["relabelled_goal"] = _vectors(np.asarray(drawn.desired_goal))
    replay["relabelled_reward"] = np.asarray(reward)
    metadata = {
        "task": env.name,
        "tolerance": repr(env.goal_spec.tolerance),
        "units": env.goal_spec.units,
        "scored_at": env.goal_spec.scored_at,
        "costs": json.dumps([spec._asdict() for spec in env.cost_specs]),
        "about": json.dumps(about),
    }
    schema = _schema().with_metadata(metadata)
    return pa.concat_tables([pa.table(rows, schema=schema) for rows in (held_out, replay)])


def read(path: Path) -> pa.Table:
    """The log of a run folder.

    Raises:
      UserError: if the file is missing or damaged.
    """
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        why = reason(error)
        raise UserError(f"log: {path} is no episode log ({why}); audit the run anew") from None
    if not table.schema.equals(_schema()) or b"tolerance" not in (table.schema.metadata or {}):
        raise UserError(f"log: {path} is no episode log (other columns); audit the run anew")
    if "held_out" not in table["source"].unique().to_pylist():
        raise UserError(f"log: {path} holds no held-out episode; audit the run anew")
    return table


def equal(a: pa.Table, b: pa.Table) -> bool:
    """Whether two logs have the same rows; unlike Arrow's, NaN equals NaN."""
    return str(a.to_pylist()) == str(b.to_pylist())


def success(table: pa.Table) -> float:
    """Success of the held-out episodes, from the log alone.

    An episode that broke has failed, as far as the log shows it, which lacks observations.
    """
    tolerance = np.float32(table.schema.metadata[b"tolerance"])
    held_out = np.array(table["source"].to_pylist()) == "held_out"
    rows = table.filter(pa.array(held_out))
    episode, step = rows["episode"].to_numpy(), rows["step"].to_numpy()
    goals, achieved = (
        np.stack(rows[name].to_numpy()) for name in ("desired_goal", "next_achieved_goal")
    )
    reached = np.linalg.norm(achieved - goals, axis=-1) < tolerance
    logged = (np.stack(rows[name].to_numpy()) for name in ("achieved_goal", "action", "cost"))
    finite = np.isfinite(np.concatenate([achieved, *logged], axis=-1)).all(axis=-1)
    reached &= ~np.isin(episode, episode[~finite])
    if table.schema.metadata.get(b"scored_at") != b"any step":
        reached &= step == step.max()
    return len(np.unique(episode[reached])) / len(np.unique(episode))


def _schema() -> pa.Schema:
    vector = pa.list_(pa.float32())
    return pa.schema(
        [
            ("source", pa.string()),
            ("episode", pa.int32()),
            ("step", pa.int32()),
            pa.field("desired_goal", vector, nullable=False),
            pa.field("achieved_goal", vector, nullable=False),
            pa.field("next_achieved_goal", vector, nullable=False),
            ("action", vector),
            ("cost", vector),
            ("reward", pa.float32()),
            ("relabelled", pa.bool_()),
            ("relabelled_goal", vector),
            ("relabelled_reward", pa.float32()),
            ("label", pa.string()),
        ]
    )


def _vectors(rows: np.ndarray) -> pa.ListArray:
    """Vectors [n, size] as a column."""
    offsets = np.arange(len(rows) + 1, dtype=np.int32) * rows.shape[1]
    return pa.ListArray.from_arrays(offsets, rows.reshape(-1))


def _rows(env: GoalEnv, source: str, episodes: Episode, label: str) -> dict[str, Any]:
    """Columns of whole episodes [n, ...], not relabelled."""
    count, steps = episodes.action.shape[:2]
    after = episodes.achieved_goal[:, 1:]
    goals = jnp.broadcast_to(episodes.desired_goal[:, None], after.shape)

    def flat(values: jax.Array) -> np.ndarray:
        return np.asarray(values).reshape(count * steps, *values.shape[2:])

    return {
        "source": [source] * (count * steps),
        "episode": np.repeat(np.arange(count), steps),
        "step": np.tile(np.arange(steps), count),
        "desired_goal": _vectors(flat(goals)),
        "achieved_goal": _vectors(flat(episodes.achieved_goal[:, :-1])),
        "next_achieved_goal": _vectors(flat(after)),
        "action": _vectors(flat(episodes.action)),
        "cost": _vectors(flat(episodes.cost)),
        "reward": flat(env.reward(after, goals)),
        "relabelled": np.zeros(count * steps, bool),
        "relabelled_goal": [None] * (count * steps),
        "relabelled_reward": [None] * (count * steps),
        "label": [label] * (count * steps),
    }
