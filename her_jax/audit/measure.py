"""Every figure of a run from one pass: one compiled program, one state, one set of goals.

Figures that were measured at different times, on different goals or with different settings can
each be true and still mislead together. Here success on requested goals, the no-action floor,
costs, goal coverage and what relabelling does to the labels come out of one call.

Names: only figures on requested goals are called success. What hindsight goals show is `reached`.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from her_jax import buffer, evaluate, train
from her_jax.audit import relabelling
from her_jax.config import Config
from her_jax.rollout import Policy
from her_jax.types import (
    Agent,
    Box,
    Episode,
    GoalEnv,
    GoalObs,
    GoalSpec,
    Key,
    Moment,
    Transition,
)

SAMPLED_ROWS = 16_384
"""Transitions that are drawn from the buffer to describe relabelling."""

RECOMMANDED_GOALS = 100
"""Hindsight goals that are commanded anew."""

MAX_CELLS = 2**24
"""Beyond this many cells, as of a goal with many coordinates, coverage is not measured."""


class Measured(NamedTuple):
    """What the pass returns.

    Attributes:
      played: held-out episodes [E, ...] of the greedy policy.
      outcome: what came of them.
      exploring: what comes of the same starts under the exploring policy.
      idle: what comes of them if nothing is done.
      numbers: name -> scalar; see `measure`.
    """

    played: Episode
    outcome: evaluate.Outcome
    exploring: evaluate.Outcome
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
      key: consumed; decides which stored rows and substitute goals are drawn.

    Returns:
      Episodes, outcomes and these numbers. Distances are in the goal's units.

        hindsight_ratio: share of the drawn rows whose goal is one that was achieved, the hindsight
          rows below; those that are given what another episode was asked for are none.
        replayed_reward: mean reward of a single step of the drawn rows.
        identity_mismatches: of as many rows, drawn anew and uniformly, those whose reward under the
          requested goal differs between a whole batch and one row at a time by more than a
          rounding of the goal makes.
        goal_coverage: share of the cells of the requested region that stored states achieved after
          leaving their episode's start by half a tolerance; cells are at most one tolerance wide,
          but for a coordinate in which the region is thin, see `_cells`. NaN if there are more than
          `MAX_CELLS`, or than twice the states that the buffer has room for.
        goal_distribution_distance: Wasserstein-1 distance between achieved and requested goals,
          mean over coordinates.
        achieved_goal_spread, requested_goal_spread: standard deviation, mean over coordinates.
        moved_rate: share of stored episodes in which the achieved goal left its start by half
          a tolerance or more.
        invalid_goal_share: share of stored achieved goals that are out of bounds or not finite.
        relabelled_goal_distance_from_start, requested_goal_distance_from_start: means, the first
          of hindsight rows.
        hindsight_reached: share of hindsight rows, those with a substitute goal that was achieved,
          whose next state is at that goal.
        hindsight_already_reached: share of hindsight rows whose own state is there.
        recommanded_goals: hindsight goals, away from their own start, that were commanded anew.
        recommanded_goal_reached: share of them that the greedy policy reaches on purpose.
        static_goal_jitter: how much the achieved goal changes from step to step while nothing is
          done; root mean square of the last ten steps, median of the held-out episodes.
    """
    rows_key, label_key, identity_key, start_key, explore_key = jax.random.split(key, 5)
    greedy, exploring = _policies(agent, config, state)
    played, dropped = evaluate.episodes(env, greedy, starts)
    idle = evaluate.episodes(env, evaluate.no_action(env), starts)
    tried = evaluate.episodes(env, exploring, starts, explore_key)
    distribution = train.episode_distribution(config, state.buffer)
    steps = buffer.sample(state.buffer, rows_key, SAMPLED_ROWS, distribution)
    drawn, reward = train.replayed(env, config, state.buffer, steps, label_key)
    numbers = {
        "hindsight_ratio": jnp.mean(drawn.hindsight),
        "replayed_reward": jnp.mean(reward),
        "identity_mismatches": _identity_mismatches(env, config, state.buffer, identity_key),
        **_stored_goals(env.goal_spec, state.buffer),
        **_labels(env, state.buffer, steps, drawn),
        **_recommanded(env, greedy, state.buffer, steps, drawn, start_key),
        "static_goal_jitter": _jitter(idle[0]),
    }
    return Measured(
        played,
        outcome=evaluate.outcome(env, played, dropped),
        exploring=evaluate.outcome(env, *tried),
        idle=evaluate.outcome(env, *idle),
        numbers=numbers,
    )


def requested_goals_agree(trained: np.ndarray, held_out: np.ndarray, tolerance: float) -> bool:
    """Whether training and evaluation request goals from one distribution.

    The two-sample test of Kolmogorov and Smirnov for every coordinate, at a level of one in a
    thousand for all coordinates together. Goals count as equal within a thousandth of a tolerance:
    a constant coordinate may be rounded differently on another processor.

    Args:
      trained: requested goals [n, G] of training.
      held_out: requested goals [E, G].
      tolerance: success distance.
    """
    from scipy import stats  # takes a second, which scripts that measure nothing need not wait

    grid = 1e-3 * tolerance
    ours, theirs = (np.rint(goals.astype(np.float64) / grid) for goals in (trained, held_out))
    tests: list[Any] = [
        stats.ks_2samp(a, b, method="asymp") for a, b in zip(ours.T, theirs.T, strict=True)
    ]
    return bool(min(test.pvalue for test in tests) >= 1e-3 / len(tests))


def _policies(agent: Agent, config: Config, state: train.TrainState) -> tuple[Policy, Policy]:
    """The greedy and the exploring policy of a run."""

    def greedy(_: Key, obs: GoalObs) -> jax.Array:
        return train.greedy(agent, config, state.learner, state.normalizer, obs)

    def exploring(key: Key, obs: GoalObs) -> jax.Array:
        return train.exploring(agent, config, state.learner, state.normalizer, obs, key)

    return greedy, exploring


def _labels(
    env: GoalEnv, replay: buffer.BufferState, steps: Moment, drawn: Transition
) -> dict[str, jax.Array]:
    """What relabelling does to the drawn rows [B]."""
    stored = replay.episodes
    start = stored.achieved_goal[steps.episode, 0]
    now = stored.achieved_goal[steps.episode, steps.time]
    requested = stored.desired_goal[steps.episode]
    after, goal = drawn.next_achieved_goal, drawn.desired_goal

    def of_hindsight(values: jax.Array) -> jax.Array:
        return _share(values, drawn.hindsight)

    return {
        "goal_distribution_distance": _wasserstein(after, requested),
        "achieved_goal_spread": jnp.mean(jnp.std(after, axis=0)),
        "requested_goal_spread": jnp.mean(jnp.std(requested, axis=0)),
        "relabelled_goal_distance_from_start": of_hindsight(_distance(goal, start)),
        "requested_goal_distance_from_start": jnp.mean(_distance(requested, start)),
        "hindsight_reached": of_hindsight(env.success(after, goal)),
        "hindsight_already_reached": of_hindsight(env.success(now, goal)),
    }


def _distance(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.linalg.norm(a - b, axis=-1)


def _share(values: jax.Array, chosen: jax.Array) -> jax.Array:
    """Mean of the chosen values; NaN if none is chosen."""
    return jnp.sum(jnp.where(chosen, values, 0)) / jnp.sum(chosen)


def _identity_mismatches(
    env: GoalEnv, config: Config, replay: buffer.BufferState, key: Key
) -> jax.Array:
    """Rows whose unchanged goal is not paid as the environment pays one step at a time.

    Nor as it would for a goal achieved a rounding nearer or farther; see `relabelling.rounded`.
    """
    sample_key, label_key = jax.random.split(key)
    steps = buffer.sample(replay, sample_key, SAMPLED_ROWS)
    unchanged = dataclasses.replace(config, replay=dataclasses.replace(config.replay, k=0.0))
    _, reward = train.replayed(env, unchanged, replay, steps, label_key)

    def paid(step: Moment) -> jax.Array:
        achieved = replay.episodes.achieved_goal[step.episode, step.time + 1]
        goal = replay.episodes.desired_goal[step.episode]
        nudge = relabelling.rounding(achieved, goal)
        places = (achieved, achieved + nudge, achieved - nudge)
        return jnp.stack([env.reward(place, goal) for place in places])

    agree = jnp.abs(jax.lax.map(paid, steps) - reward[:, None]) <= 1e-5
    return jnp.sum(~agree.any(axis=-1))


def _recommanded(
    env: GoalEnv,
    policy: Policy,
    replay: buffer.BufferState,
    steps: Moment,
    drawn: Transition,
    key: Key,
) -> dict[str, jax.Array]:
    """Commands hindsight goals that lie away from their own start anew, from fresh starts."""
    first_goal = replay.episodes.achieved_goal[steps.episode, 0]
    away = drawn.hindsight & ~env.success(first_goal, drawn.desired_goal)
    chosen = jnp.argsort(~away, stable=True)[:RECOMMANDED_GOALS]
    starts = jax.vmap(env.draw)(jax.random.split(key, RECOMMANDED_GOALS))
    starts = starts._replace(desired_goal=drawn.desired_goal[chosen])
    reached = evaluate.evaluate(env, policy, starts).success
    return {
        "recommanded_goals": jnp.sum(away[chosen]),
        "recommanded_goal_reached": _share(reached, away[chosen]),
    }


def _stored_goals(spec: GoalSpec, replay: buffer.BufferState) -> dict[str, jax.Array]:
    """What all stored states have achieved."""
    achieved = replay.episodes.achieved_goal
    filled = jnp.arange(achieved.shape[0]) < replay.size
    moved = _distance(achieved, achieved[:, :1]) >= spec.tolerance / 2
    out = (achieved < jnp.asarray(spec.bounds.low)) | (achieved > jnp.asarray(spec.bounds.high))
    invalid = jnp.any(out | ~jnp.isfinite(achieved), axis=-1)
    return {
        "goal_coverage": _coverage(spec, achieved, moved & filled[:, None]),
        "moved_rate": _share(jnp.any(moved, axis=1), filled),
        "invalid_goal_share": _share(invalid, jnp.broadcast_to(filled[:, None], invalid.shape)),
    }


def _coverage(spec: GoalSpec, achieved: jax.Array, counted: jax.Array) -> jax.Array:
    """Share of the region's cells that hold a counted goal [C, T+1, G]; ends are included.

    Not a number where memory has no room for the cells, or a full buffer could not meet half.
    """
    low, cells, width = _cells(spec.region, spec.tolerance)
    if np.prod(cells, dtype=np.float64) > min(MAX_CELLS, 2 * counted.size):
        return jnp.asarray(jnp.nan)
    slack = 0.01 * spec.tolerance  # what rests on the region's edge is rounded to either side
    inside = (achieved >= low - slack) & (achieved <= low + cells * width + slack)
    counted &= jnp.all(inside, axis=-1)  # false for NaN
    index = jnp.floor((jnp.where(counted[..., None], achieved, low) - low) / width)
    index = jnp.clip(index.astype(jnp.int32), 0, cells - 1)
    visited = jnp.zeros(tuple(cells), bool)
    return jnp.mean(visited.at[tuple(jnp.moveaxis(index, -1, 0))].max(counted))


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
    """Between two samples [B, G] of equal size: distance of sorted values, mean over coordinates.

    References:
      Villani 2003, Topics in Optimal Transportation, section 2.2: in one dimension the optimal
      transport keeps the order.
    """
    return jnp.mean(jnp.abs(jnp.sort(a, axis=0) - jnp.sort(b, axis=0)))


def _jitter(idle: Episode) -> jax.Array:
    """Typical change of the achieved goal in a step while nothing is done, of intact episodes."""
    change = jnp.linalg.norm(jnp.diff(idle.achieved_goal[:, -11:], axis=1), axis=-1)
    return jnp.nanmedian(jnp.sqrt(jnp.mean(change**2, axis=-1)))
