from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from her_jax import normalizer
from her_jax.config import NormalizerConfig

CONFIG = NormalizerConfig()


def test_statistics_are_arrays_before_the_first_data_too():
    """Or an epoch is compiled twice, and no checkpoint of them is written."""
    state = normalizer.init(3, 2)
    later = normalizer.update(state, jnp.ones((1, 3)), jnp.ones((1, 2)), CONFIG)
    kinds = [[jax.typeof(x) for x in jax.tree.leaves(each)] for each in (state, later)]
    assert kinds[0] == kinds[1]


def test_agrees_with_two_passes_in_float64_far_from_zero():
    """Values of 1.3 m with a spread of 2 mm, a million of them; E[x^2] - E[x]^2 fails here."""
    rng = np.random.default_rng(0)
    config = NormalizerConfig(std_floor=1e-6)
    state: Any = normalizer.init(3, 2)
    sums = np.zeros((2, 3), np.float32)
    seen = []
    for _ in range(100):
        observation = (1.3 + 0.002 * rng.normal(size=(10_000, 3))).astype(np.float32)
        seen.append(observation)
        sums += np.stack([observation.sum(0), (observation**2).sum(0)])
        state = normalizer.update(
            state, jnp.asarray(observation), jnp.asarray(observation[:, :2]), config
        )
    everything = np.concatenate(seen).astype(np.float64)
    expected = everything.std(0)
    np.testing.assert_allclose(state.mean["observation"], everything.mean(0), atol=1e-5)
    np.testing.assert_allclose(state.std["observation"], expected, rtol=5e-3)
    np.testing.assert_allclose(state.std["goal"], expected[:2], rtol=5e-3)
    mean, square = sums / np.float32(len(everything))
    naive = np.sqrt(np.maximum(square - mean**2, 0))
    assert (np.abs(naive / expected - 1) > 0.02).any()


@pytest.mark.parametrize("offset", [10.0, 150.0])
def test_the_first_batch_is_as_exact_as_later_ones(offset):
    values = np.random.default_rng(0).normal(offset, 0.02, (800, 2)).astype(np.float32)
    state: Any = normalizer.init(2, 2)
    state = normalizer.update(state, jnp.asarray(values), jnp.asarray(values), CONFIG)
    expected = values.astype(np.float64).std(0)
    np.testing.assert_allclose(state.std["observation"], expected, rtol=1e-3)
    np.testing.assert_allclose(state.mean["goal"], values.astype(np.float64).mean(0), rtol=1e-6)


def test_standard_deviation_has_a_floor():
    state: Any = normalizer.init(1, 1)
    state = normalizer.update(state, jnp.full((8, 1), 3.0), jnp.full((8, 1), 3.0), CONFIG)
    np.testing.assert_allclose(state.std["goal"], 0.01)
    inputs = normalizer.inputs(state, jnp.array([3.02]), jnp.array([2.99]), CONFIG)
    np.testing.assert_allclose(inputs, [2.0, -1.0], atol=1e-3)


def test_output_and_input_clips():
    state = normalizer.init(1, 1)
    inputs = normalizer.inputs(state, jnp.array([7.0]), jnp.array([-9.0]), CONFIG)
    np.testing.assert_array_equal(inputs, [5.0, -5.0])
    wide = NormalizerConfig(output_clip=1e6)
    inputs = normalizer.inputs(state, jnp.array([1e4]), jnp.array([-1e4]), wide)
    np.testing.assert_array_equal(inputs, [200.0, -200.0])


def test_batch_shape_does_not_matter():
    rng = np.random.default_rng(1)
    observation, goal = rng.normal(size=(6, 4, 3)), rng.normal(size=(6, 4, 2))
    nested: Any = normalizer.update(
        normalizer.init(3, 2), jnp.asarray(observation), jnp.asarray(goal), CONFIG
    )
    flat: Any = normalizer.update(
        normalizer.init(3, 2),
        jnp.asarray(observation.reshape(24, 3)),
        jnp.asarray(goal.reshape(24, 2)),
        CONFIG,
    )
    np.testing.assert_allclose(nested.mean["goal"], flat.mean["goal"], rtol=1e-6)
    np.testing.assert_allclose(nested.std["observation"], flat.std["observation"], rtol=1e-6)
