"""Every figure of a run from one pass: one compiled program, one state, one set of goals.

Figures that were measured at different times, on different goals or with different settings can
each be true and still mislead together. Here success on requested goals, the no-action floor,
costs, goal coverage and what relabelling does to the labels come out of one call.

Names: only figures on requested goals are called success. What hindsight goals show is `reached`.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from her_jax import buffer, evaluate, train
from her_jax.config import Config
from her_jax.types import Agent, Box, Episode, GoalEnv, GoalObs, GoalSpec, Key

SAMPLED_ROWS = 4096
"""Transitions that are drawn from the buffer to describe relabelling."""

RECOMMANDED_GOALS = 100
"""Relabelled goals that are commanded anew."""

NEWEST_EPISODES = 200
"""Latest episodes of training that stand for the exploring policy."""


class Measured(NamedTuple):
    """What the pass returns.

    Attributes:
      played: held-out episodes [E, ...] of the greedy policy.
      outcome: what came of them.
      idle: what comes of the same starts if nothing is done.
      numbers: name -> scalar; see `measure`.
    """

    played: Episode
    outcome: evaluate.Outcome
    idle: evaluate.Outcome
    numbers: dict[str, jax.Array]


def measure(
    env: GoalEnv, agent: Agent, config: Config, state: train.TrainState, starts: Any, key: Key
) -> Measured:
    """The one pass.

    Args:
      env: the environment.
      agent: the learner's functions.
      config: settings of the run.
      state: the run; its buffer must hold at least one episode.
      starts: held-out starts [E, ...].
      key: consumed; decides which stored rows and relabelled goals are drawn.

    Returns:
      Episodes, outcomes and these numbers. Distances are in the goal's units.

        hindsight_ratio: relabelled share of the drawn rows.
        identity_mismatches: drawn rows whose reward under the requested goal differs between a
          whole batch and one row at a time.
        goal_coverage: share of the cells of the requested region that stored states achieved;
          cells are at most one tolerance wide.
        goal_distribution_distance: Wasserstein-1 distance between achieved and requested goals,
          mean over coordinates.
        achieved_goal_spread, requested_goal_spread: standard deviation, mean over coordinates.
        moved_rate: share of stored episodes in which the achieved goal left its start by half
          a tolerance or more.
        invalid_goal_share: share of stored achieved goals that are out of bounds or not finite.
        relabelled_goal_distance_from_start, requested_goal_distance_from_start: means.
        hindsight_reached: share of relabelled rows whose next state is at the relabelled goal.
        hindsight_already_reached: share of relabelled rows whose own state is there.
        recommanded_goals: relabelled goals, away from their own start, that were commanded anew.
        recommanded_goal_reached: share of them that the greedy policy reaches on purpose.
        exploring_requested_goal_success: of the latest stored episodes.
        static_goal_jitter: how much the achieved goal changes from step to step while nothing is
          done; root mean square of the last ten steps, median of the held-out episodes.
    """

    def greedy(_: Key, obs: GoalObs) -> jax.Array:
        return train.greedy(agent, config, state.learner, state.normalizer, obs)

    rows_key, label_key, identity_key, start_key = jax.random.split(key, 4)
    played = evaluate.episodes(env, greedy, starts)
    idle = evaluate.episodes(env, evaluate.no_action(env), starts)
    steps = buffer.sample(state.buffer, rows_key, SAMPLED_ROWS)
    drawn, reward = train.replayed(env, config, state.buffer, steps, label_key)
    stored = state.buffer.episodes
    start = stored.achieved_goal[steps.episode, 0]
    requested = stored.desired_goal[steps.episode]
    achieved = stored.achieved_goal[steps.episode, steps.time]
    away = drawn.relabelled & ~env.success(start, drawn.desired_goal)
    reached, commanded = _recommand(env, greedy, drawn.desired_goal, away, start_key)

    def of_relabelled(values: jax.Array) -> jax.Array:
        return _share(values, drawn.relabelled)

    numbers = {
        "hindsight_ratio": jnp.mean(drawn.relabelled),
        "identity_mismatches": _identity_mismatches(env, config, state.buffer, identity_key),
        **_coverage(env.goal_spec, state.buffer),
        "goal_distribution_distance": _wasserstein(drawn.next_achieved_goal, requested),
        "achieved_goal_spread": jnp.mean(jnp.std(drawn.next_achieved_goal, axis=0)),
        "requested_goal_spread": jnp.mean(jnp.std(requested, axis=0)),
        "relabelled_goal_distance_from_start": of_relabelled(
            jnp.linalg.norm(drawn.desired_goal - start, axis=-1)
        ),
        "requested_goal_distance_from_start": jnp.mean(jnp.linalg.norm(requested - start, axis=-1)),
        "hindsight_reached": of_relabelled(
            env.success(drawn.next_achieved_goal, drawn.desired_goal)
        ),
        "hindsight_already_reached": of_relabelled(env.success(achieved, drawn.desired_goal)),
        "replayed_reward": jnp.mean(reward),
        "recommanded_goals": jnp.sum(commanded),
        "recommanded_goal_reached": _share(reached, commanded),
        "exploring_requested_goal_success": _newest(env, state.buffer),
        "static_goal_jitter": _jitter(idle),
    }
    return Measured(played, evaluate.outcome(env, played), evaluate.outcome(env, idle), numbers)


def requested_goals_agree(trained: np.ndarray, held_out: np.ndarray) -> bool:
    """Whether training and evaluation request goals from one distribution.

    Kolmogorov and Smirnov's two-sample test of every coordinate, at a level of one in a thousand
    for all coordinates together.

    Args:
      trained: requested goals [n, G] of training.
      held_out: requested goals [E, G].
    """
    n, m = len(trained), len(held_out)
    level = 1e-3 / trained.shape[1]
    limit = math.sqrt(-math.log(level / 2) / 2 * (n + m) / (n * m))
    statistics = []
    for a, b in zip(trained.T, held_out.T, strict=True):
        points = np.concatenate([a, b])
        cumulative = (np.searchsorted(np.sort(x), points, "right") / len(x) for x in (a, b))
        statistics.append(np.abs(np.subtract(*cumulative)).max())
    return bool(max(statistics) <= limit)


def _share(values: jax.Array, chosen: jax.Array) -> jax.Array:
    """Mean of the chosen values; NaN if none is chosen."""
    return jnp.sum(jnp.where(chosen, values, 0)) / jnp.sum(chosen)


def _identity_mismatches(
    env: GoalEnv, config: Config, replay: buffer.BufferState, key: Key
) -> jax.Array:
    """Rows whose unchanged goal is not paid as the environment pays one step at a time."""
    sample_key, label_key = jax.random.split(key)
    steps = buffer.sample(replay, sample_key, SAMPLED_ROWS)
    unchanged = dataclasses.replace(config, replay=dataclasses.replace(config.replay, k=0.0))
    _, reward = train.replayed(env, unchanged, replay, steps, label_key)
    paid = jax.lax.map(
        lambda step: env.reward(
            replay.episodes.achieved_goal[step.episode, step.time + 1],
            replay.episodes.desired_goal[step.episode],
        ),
        steps,
    )
    return jnp.sum(jnp.abs(paid - reward) > 1e-5)


def _recommand(
    env: GoalEnv, policy: Any, goals: jax.Array, chosen: jax.Array, key: Key
) -> tuple[jax.Array, jax.Array]:
    """Commands the first chosen goals [B, G] from fresh starts: reached [M], commanded [M]."""
    first = jnp.argsort(~chosen, stable=True)[:RECOMMANDED_GOALS]
    starts = jax.vmap(env.draw)(jax.random.split(key, RECOMMANDED_GOALS))
    starts = starts._replace(desired_goal=goals[first])
    return evaluate.evaluate(env, policy, starts).success, chosen[first]


def _coverage(spec: GoalSpec, replay: buffer.BufferState) -> dict[str, jax.Array]:
    """What all stored states have achieved."""
    achieved = replay.episodes.achieved_goal
    filled = jnp.arange(achieved.shape[0]) < replay.size
    counted = jnp.broadcast_to(filled[:, None], achieved.shape[:2])
    low, cells, width = _cells(spec.region, spec.tolerance)
    index = jnp.floor((achieved - low) / width).astype(jnp.int32)
    inside = counted & jnp.all((index >= 0) & (index < cells), axis=-1)
    index = jnp.where(inside[..., None], index, 0)
    visited = jnp.zeros(tuple(cells), bool)
    visited = visited.at[tuple(jnp.moveaxis(index, -1, 0))].max(inside)
    far = jnp.linalg.norm(achieved - achieved[:, :1], axis=-1).max(axis=1) >= spec.tolerance / 2
    out = (achieved < jnp.asarray(spec.bounds.low)) | (achieved > jnp.asarray(spec.bounds.high))
    invalid = jnp.any(out | ~jnp.isfinite(achieved), axis=-1)
    return {
        "goal_coverage": jnp.mean(visited),
        "moved_rate": _share(far, filled),
        "invalid_goal_share": _share(invalid, counted),
    }


def _cells(region: Box, tolerance: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Corner [G], number of cells [G] and their width [G].

    A coordinate along which the region is thinner than two tolerances is one cell that reaches
    a tolerance beyond it on both sides.
    """
    low, high = map(np.asarray, region)
    thin = high - low < 2 * tolerance
    low, high = low - thin * tolerance, high + thin * tolerance
    cells = np.where(thin, 1, np.ceil((high - low) / tolerance - 1e-6)).astype(int)
    return low, cells, (high - low) / cells


def _wasserstein(a: jax.Array, b: jax.Array) -> jax.Array:
    """Between two samples [B, G]: mean over coordinates of the distance of sorted values."""
    return jnp.mean(jnp.abs(jnp.sort(a, axis=0) - jnp.sort(b, axis=0)))


def _newest(env: GoalEnv, replay: buffer.BufferState) -> jax.Array:
    """Success of the exploring policy on the goals that it was asked for."""
    total = buffer.capacity(replay)
    age = jnp.arange(min(NEWEST_EPISODES, total))
    rows = (replay.cursor - 1 - age) % total
    achieved = replay.episodes.achieved_goal[rows, -1]
    return _share(env.success(achieved, replay.episodes.desired_goal[rows]), age < replay.size)


def _jitter(idle: Episode) -> jax.Array:
    """Typical change of the achieved goal in a step while nothing is done."""
    change = jnp.linalg.norm(jnp.diff(idle.achieved_goal[:, -11:], axis=1), axis=-1)
    return jnp.median(jnp.sqrt(jnp.mean(change**2, axis=-1)))
