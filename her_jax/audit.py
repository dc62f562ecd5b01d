"""Proves that relabelling changed labels and nothing else, or says which rows broke which rule.

The auditor is given what was stored and what a sampler claims to have made of it, and recomputes
everything else by itself, in NumPy and one array at a time, sharing no code with the sampler. A
rule that a sampler breaks in a single row is reported with that row.

    stored        the claimed step lies in a filled row of the buffer and before its end
    physics       observation, action and next observation equal the stored step's
    requested     a row that was not relabelled carries the goal that was requested
    provenance    a relabelled goal was achieved where the strategy may take goals from: in the
                  same episode, strictly later (`future`), at its end (`final`), anywhere in it
                  (`episode`), or anywhere in the buffer (`random`)
    reward        the reward is that of the next achieved goal under the row's goal
    finite        every number of the row is finite
    workspace     the goal lies within the given bounds (only where bounds are given)

One rule concerns the batch: `share`, the relabelled share lies within three standard deviations of
the configured one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from her_jax.types import Episode, Moment, Transition


class Claim(NamedTuple):
    """What a sampler says it drew: B rows of plain arrays, from any implementation.

    Attributes:
      episode: int [B], the buffer row of each step.
      time: int [B], 0..T-1.
      observation: [B, O].
      action: [B, A].
      next_observation: [B, O].
      desired_goal: [B, G], the goal of the row after relabelling.
      reward: [B].
      relabelled: bool [B], whether the goal was replaced.
    """

    episode: np.ndarray
    time: np.ndarray
    observation: np.ndarray
    action: np.ndarray
    next_observation: np.ndarray
    desired_goal: np.ndarray
    reward: np.ndarray
    relabelled: np.ndarray


class Report(NamedTuple):
    """The outcome.

    Attributes:
      violations: rule that was checked -> bool [B], which rows break it.
      share: relabelled share of the batch.
      share_holds: whether it lies within three standard deviations of the configured one.
    """

    violations: dict[str, np.ndarray]
    share: float
    share_holds: bool

    @property
    def clean(self) -> bool:
        """Whether no rule is broken."""
        return self.share_holds and not any(rows.any() for rows in self.violations.values())


def check(
    episodes: Episode,
    stored: int,
    claim: Claim,
    *,
    reward: Callable[[np.ndarray, np.ndarray], np.ndarray],
    strategy: str,
    probability: float,
    bounds: tuple[np.ndarray, np.ndarray] | None = None,
) -> Report:
    """Audits one batch.

    Args:
      episodes: what was stored, NumPy arrays [C, ...].
      stored: how many leading rows of it are filled.
      claim: what the sampler returned, [B, ...].
      reward: the environment's own, (achieved [B, G], desired [B, G]) -> [B].
      strategy: "future", "final", "episode", "random" or "none".
      probability: configured share of relabelled rows.
      bounds: lowest and highest goal [G], in the goal's units; None for no such rule.

    Returns:
      For each rule the rows that break it, and the verdict on the share.
    """
    held: Any = episodes  # NumPy arrays, which the annotation of Episode does not say
    horizon = held.action.shape[1]
    inside = (claim.episode >= 0) & (claim.episode < stored)
    inside &= (claim.time >= 0) & (claim.time < horizon)
    episode = np.where(inside, claim.episode, 0)
    time = np.where(inside, claim.time, 0)
    goals = claim.desired_goal
    recomputed = np.asarray(reward(held.achieved_goal[episode, time + 1], goals))
    allowed = _allowed(held, stored, episode, time, goals, strategy)
    violations = {
        "stored": ~inside,
        "physics": ~(
            _equal(claim.observation, held.observation[episode, time])
            & _equal(claim.action, held.action[episode, time])
            & _equal(claim.next_observation, held.observation[episode, time + 1])
        ),
        "requested": ~claim.relabelled & ~_equal(goals, held.desired_goal[episode]),
        "provenance": claim.relabelled & ~allowed,
        "reward": ~np.isclose(claim.reward, recomputed, rtol=1e-5, atol=1e-6),
        "finite": ~_finite(claim),
    }
    if bounds is not None:
        lowest, highest = bounds
        violations["workspace"] = ~((goals >= lowest) & (goals <= highest)).all(-1)
    share = float(np.mean(claim.relabelled))
    return Report(violations, share, _share_holds(share, probability, len(claim.relabelled)))


def claim(steps: Moment, drawn: Transition, reward: jax.Array) -> Claim:
    """What this project's own sampler says it drew, as plain arrays."""
    return Claim(
        *map(
            np.asarray,
            (
                steps.episode,
                steps.time,
                drawn.observation,
                drawn.action,
                drawn.next_observation,
                drawn.desired_goal,
                reward,
                drawn.relabelled,
            ),
        )
    )


def merge(reports: list[Report], probability: float) -> Report:
    """One report of several batches; `probability` is the configured share."""
    violations = {
        rule: np.concatenate([report.violations[rule] for report in reports])
        for rule in reports[0].violations
    }
    sizes = [len(report.violations["stored"]) for report in reports]
    share = float(np.average([report.share for report in reports], weights=sizes))
    return Report(violations, share, _share_holds(share, probability, sum(sizes)))


def _share_holds(share: float, probability: float, rows: int) -> bool:
    """Whether a binomial share lies within three standard deviations of its probability."""
    return bool(abs(share - probability) <= 3 * np.sqrt(probability * (1 - probability) / rows))


def _allowed(
    held: Any,
    stored: int,
    episode: np.ndarray,
    time: np.ndarray,
    goals: np.ndarray,
    strategy: str,
) -> np.ndarray:
    """Rows [B] whose goal was achieved where the strategy may take it from."""
    if strategy == "random":
        achieved = held.achieved_goal[:stored].reshape(-1, goals.shape[-1])
        return np.isin(_whole(goals), _whole(achieved))
    there = (held.achieved_goal[episode] == goals[:, None]).all(-1)  # [B, T+1]
    moments = np.arange(there.shape[1])
    if strategy == "future":
        return (there & (moments > time[:, None])).any(-1)
    if strategy == "final":
        return there[:, -1]
    if strategy == "episode":
        return there.any(-1)
    return np.zeros(len(goals), bool)


def _whole(rows: np.ndarray) -> np.ndarray:
    """Rows [n, G] as n values that are equal where all their numbers are."""
    rows = np.ascontiguousarray(rows)
    return rows.view([("", rows.dtype)] * rows.shape[1])[:, 0]


def _equal(claimed: np.ndarray, stored: np.ndarray) -> np.ndarray:
    """Rows [B] in which all numbers are the same."""
    return (claimed == stored).all(-1)


def _finite(claim: Claim) -> np.ndarray:
    """Rows [B] without NaN or infinity."""
    vectors = (claim.observation, claim.action, claim.next_observation, claim.desired_goal)
    return np.isfinite(claim.reward) & np.all([np.isfinite(v).all(-1) for v in vectors], axis=0)
