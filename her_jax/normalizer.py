"""Running normalisation of observations and goals, after Baselines' `normalizer.py`.

The statistics are Brax's (Welford's update); the floor of the standard deviation and the clips
are Baselines'. Two deviations from it: no count of one is assumed before the first data, and the
sums are Welford's, about the first batch's mean, instead of float32 E[x^2] - E[x]^2, which cancels
far from zero.
"""

from __future__ import annotations

import contextlib
import functools
import io
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from her_jax.config import NormalizerConfig

if TYPE_CHECKING:
    from brax.training.acme.running_statistics import RunningStatisticsState as NormalizerState


@functools.cache
def _brax() -> Any:
    """The module `running_statistics`, imported at its first use.

    Brax imports MJX and Warp: seconds that neither plots nor refusals of bad input should take. The
    first use may be within a trace, of which no constant of those modules may become a part; and
    MJX prints when Warp is absent.
    """
    with jax.ensure_compile_time_eval(), contextlib.redirect_stdout(io.StringIO()):
        from brax.training.acme import running_statistics
    return running_statistics


def init(observation_size: int, goal_size: int) -> NormalizerState:
    """No data yet: mean 0, standard deviation 1."""
    state: Any = _brax().init_state(
        {"observation": jnp.zeros(observation_size), "goal": jnp.zeros(goal_size)}
    )
    return jax.tree.map(jnp.asarray, state)  # of which Brax makes one leaf a Python number


def update(
    state: NormalizerState,
    observation: jax.Array,
    goal: jax.Array,
    config: NormalizerConfig,
) -> NormalizerState:
    """Takes in observations [..., O] and goals [..., G] with equal leading dimensions."""
    values = _clipped(observation, goal, config)
    before: Any = state  # its count is of two words, and it can be replaced
    first = (before.count.hi == 0) & (before.count.lo == 0)  # where Brax has a mean of 0
    mean = jax.tree.map(
        lambda x, mean: jnp.where(first, x.mean(axis=tuple(range(x.ndim - 1))), mean),
        values,
        before.mean,
    )
    return _brax().update(before.replace(mean=mean), values, std_min_value=config.std_floor)


def inputs(
    state: NormalizerState,
    observation: jax.Array,
    goal: jax.Array,
    config: NormalizerConfig,
) -> jax.Array:
    """Normalised observation and goal, concatenated: [..., O], [..., G] -> [..., O+G]."""
    normalized = _brax().normalize(
        _clipped(observation, goal, config), state, max_abs_value=config.output_clip
    )
    return jnp.concatenate([normalized["observation"], normalized["goal"]], axis=-1)


def _clipped(observation: jax.Array, goal: jax.Array, config: NormalizerConfig) -> Any:
    values = {"observation": observation, "goal": goal}
    return jax.tree.map(lambda x: jnp.clip(x, -config.input_clip, config.input_clip), values)
