"""Figures of several seeds, by hand, by brute force and beside SciPy."""

from __future__ import annotations

import itertools
import statistics as plain

import numpy as np
import pytest
from scipy import stats

from her_jax import statistics


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([0.3], 0.3),
        ([0.0, 0.9], 0.45),
        ([0.0, 0.6, 0.9], 0.5),  # of fewer than four none goes
        ([9.0, 0.0, 2.0, 1.0], 1.5),
        ([9.0, 0.0, 2.0, 1.0, 3.0], 2.0),
        ([0.0, 0.0, 1.0, 2.0, 3.0, 6.0, 9.0, 9.0], 3.0),
        ([[0.0, 1.0], [2.0, 9.0]], 1.5),  # tasks are pooled
    ],
)
def test_interquartile_mean_is_that_of_the_middle_half(scores, expected):
    assert statistics.interquartile_mean(scores) == pytest.approx(expected)


@pytest.mark.parametrize(("successes", "trials"), [(0, 7), (3, 7), (977, 1000), (1000, 1000)])
def test_a_success_rate_has_wilson_s_interval(successes, trials):
    """Its ends are the rates that are 1.96 of their own standard errors from the one found."""
    found = statistics.success_interval(successes, trials)
    assert found.value == successes / trials and 0 <= found.low <= found.value <= found.high <= 1
    for end in {found.low, found.high} - {found.value}:
        error = (end * (1 - end) / trials) ** 0.5
        assert abs(end - found.value) == pytest.approx(stats.norm.ppf(0.975) * error, rel=1e-6)


def test_interval_is_that_of_all_resamples():
    """Four scores have 4^4 ordered resamples, few enough to list."""
    scores = np.array([0.1, 0.4, 0.7, 1.0])
    means = [stats.trim_mean(drawn, 0.25) for drawn in itertools.product(scores, repeat=4)]
    low, high = np.quantile(means, (0.1, 0.9))
    found = statistics.interquartile_mean_interval(scores, resamples=40_000, level=0.8)
    assert found.value == pytest.approx(stats.trim_mean(scores, 0.25))
    assert (found.low, found.high) == (pytest.approx(low, abs=0.02), pytest.approx(high, abs=0.02))


def test_interval_is_scipys_bootstrap():
    scores = np.random.default_rng(1).uniform(size=10)
    expected = stats.bootstrap(
        (scores,),
        lambda x, axis: stats.trim_mean(x, 0.25, axis=axis),
        method="percentile",
        n_resamples=20_000,
        rng=np.random.default_rng(0),
    ).confidence_interval
    found = statistics.interquartile_mean_interval(scores, resamples=20_000)
    assert found.low == pytest.approx(expected.low, abs=0.01)
    assert found.high == pytest.approx(expected.high, abs=0.01)


def test_tasks_are_resampled_apart():
    """Runs of a task are equal, so no resampling within tasks changes anything."""
    scores = np.tile([0.0, 0.2, 0.6, 1.0], (5, 1))
    found = statistics.interquartile_mean_interval(scores, resamples=200)
    assert found.low == found.value == found.high == pytest.approx(0.4)


def test_one_seed_has_an_interval_of_no_width():
    assert statistics.interquartile_mean_interval([0.5]) == (0.5, 0.5, 0.5)


def test_band_is_the_quartiles_of_every_evaluation():
    curves = np.random.default_rng(2).uniform(size=(5, 4))
    found = statistics.band(curves)
    for i in range(4):
        low, median, high = plain.quantiles(curves[:, i], n=4, method="inclusive")
        assert found.low[i] == pytest.approx(low) and found.high[i] == pytest.approx(high)
        assert found.median[i] == pytest.approx(median)


def test_steps_to_a_threshold():
    steps, success = [10, 20, 30, 40], [0.1, 0.9, 0.5, 0.95]
    assert statistics.steps_to(steps, success, 0.9) == 20  # at it, and although lost again
    assert statistics.steps_to(steps, success, 0.91) == 40
    assert statistics.steps_to(steps, success, 0.96) is None


def test_seeds_that_never_get_there_count_as_last():
    assert statistics.median_steps([30, None, 10]) == 30
    assert statistics.median_steps([10, 20]) == 15
    assert statistics.median_steps([10, None]) is None
    assert statistics.median_steps([None]) is None
