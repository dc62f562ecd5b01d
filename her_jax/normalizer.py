"""Running normalisation of observations and goals, after Baselines' `normalizer.py`.

The statistics are Brax's (Welford's update); the floor of the standard deviation and the clips
are Baselines'. Two deviations from it: no count of one is assumed before the first data, and the
sums are Welford's instead of float32 E[x^2] - E[x]^2, which cancels far from zero.
"""

from __future__ import annotations

import contextlib
import io
from typing import Any

import jax
import jax.numpy as jnp

from her_jax.config import NormalizerConfig

with contextlib.redirect_stdout(
    io.StringIO()
):  # MJX, which Brax imports, prints that Warp is absent
    from brax.training.acme import running_statistics

NormalizerState = running_statistics.RunningStatisticsState


def init(observation_size: int, goal_size: int) -> NormalizerState:
    """No data yet: mean 0, standard deviation 1."""
    return running_statistics.init_state(
        {"observation": jnp.zeros(observation_size), "goal": jnp.zeros(goal_size)}
    )


def update(
    state: NormalizerState,
    observation: jax.Array,
    goal: jax.Array,
    config: NormalizerConfig,
) -> NormalizerState:
    """Takes in observations [..., O] and goals [..., G] with equal leading dimensions."""
    return running_statistics.update(
        state, _clipped(observation, goal, config), std_min_value=config.std_floor
    )


def inputs(
    state: NormalizerState,
    observation: jax.Array,
    goal: jax.Array,
    config: NormalizerConfig,
) -> jax.Array:
    """Normalised observation and goal, concatenated: [..., O], [..., G] -> [..., O+G]."""
    normalized = running_statistics.normalize(
        _clipped(observation, goal, config), state, max_abs_value=config.output_clip
    )
    return jnp.concatenate([normalized["observation"], normalized["goal"]], axis=-1)


def _clipped(observation: jax.Array, goal: jax.Array, config: NormalizerConfig) -> Any:
    values = {"observation": observation, "goal": goal}
    return jax.tree.map(lambda x: jnp.clip(x, -config.input_clip, config.input_clip), values)
