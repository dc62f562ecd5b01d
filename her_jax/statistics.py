"""What several seeds say together, and so many goals of one: pure functions of NumPy arrays.

A few seeds say little, and a mean over them is at the mercy of one: medians and interquartile means
stand here beside intervals that show how little.

References:
  Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice"
  (arXiv:2108.13264), section 4; their code, rliable, trims and resamples alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike


class Band(NamedTuple):
    """The middle of several curves.

    Attributes:
      median: float64 [V].
      low: float64 [V], first quartile.
      high: float64 [V], third quartile.
    """

    median: np.ndarray
    low: np.ndarray
    high: np.ndarray


class Interval(NamedTuple):
    """A figure and the range that chance leaves it."""

    value: float
    low: float
    high: float


def band(curves: ArrayLike) -> Band:
    """Median and interquartile range of curves [S, V], over the S seeds."""
    low, median, high = np.quantile(np.asarray(curves, np.float64), (0.25, 0.5, 0.75), axis=0)
    return Band(median, low, high)


def interquartile_mean(scores: ArrayLike) -> float:
    """Mean of the middle half (IQM): a quarter of the scores, rounded down, goes at each end.

    Of fewer than four scores none goes.

    Args:
      scores: of any shape; all are pooled.
    """
    return float(_trimmed_mean(np.asarray(scores, np.float64).ravel()))


def interquartile_mean_interval(
    scores: ArrayLike, resamples: int = 10_000, level: float = 0.95, seed: int = 0
) -> Interval:
    """The IQM and its percentile interval under a bootstrap stratified by task.

    Of fewer than four scores the IQM is their mean, and the 95 % interval of two or three runs of
    one task reaches from the lowest to the highest.

    Args:
      scores: [S], or [S, M] for M tasks; within each task its own S runs are drawn anew, with
        replacement.
      resamples: how often.
      level: share of the resampled IQMs that the interval holds.
      seed: of the resampling.
    """
    table = np.asarray(scores, np.float64)
    table = table.reshape(len(table), -1)
    runs, tasks = table.shape
    drawn = np.random.default_rng(seed).integers(runs, size=(resamples, runs, tasks))
    means = _trimmed_mean(table[drawn, np.arange(tasks)].reshape(resamples, -1))
    tail = (1 - level) / 2
    low, high = np.quantile(means, (tail, 1 - tail))
    return Interval(interquartile_mean(table), float(low), float(high))


def success_interval(successes: int, trials: int, level: float = 0.95) -> Interval:
    """A success rate and its Wilson interval: what that many goals of one policy leave open.

    It says nothing of other seeds of training.

    Args:
      successes: goals reached, up to `trials`.
      trials: goals asked for, at least one.
      level: share of such intervals that hold the rate on all goals.

    Reference:
      Wilson 1927, "Probable Inference, the Law of Succession, and Statistical Inference".
    """
    from scipy import stats  # see `_trimmed_mean`

    found = stats.binomtest(successes, trials).proportion_ci(level, method="wilson")
    return Interval(successes / trials, float(found.low), float(found.high))


def steps_to(steps: Sequence[int], success: Sequence[float], threshold: float) -> int | None:
    """Steps at the first evaluation whose success is at or above the threshold; None if none is.

    Args:
      steps: environment steps [V] before each evaluation, rising.
      success: [V].
      threshold: e.g. 0.9.
    """
    reached = (step for step, share in zip(steps, success, strict=True) if share >= threshold)
    return next(reached, None)


def median_steps(steps: Sequence[float | None]) -> float | None:
    """Median over seeds; seeds that never got there count as later than all others.

    None if the median seed never got there, or, of an even number, one of the middle two.
    """
    middle = float(np.median([math.inf if step is None else step for step in steps]))
    return None if math.isinf(middle) else middle


def _trimmed_mean(rows: np.ndarray) -> np.ndarray:
    """Mean of the middle half of each row [..., n] -> [...]."""
    from scipy import stats  # takes a second, which scripts that only name this need not wait

    return stats.trim_mean(rows, 0.25, axis=-1)
