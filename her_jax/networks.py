"""Actors and critics: ReLU networks with Glorot initialisation, as in Baselines."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp


class MLP(nn.Module):
    """Hidden ReLU layers and a linear output.

    Attributes:
      hidden: widths of the hidden layers.
      output_size: width of the output.
      layer_norm: whether hidden layers are normalised before their ReLU.
    """

    hidden: Sequence[int]
    output_size: int
    layer_norm: bool = False

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """[..., inputs] -> [..., output_size]."""
        x = inputs
        for width in self.hidden:
            x = nn.Dense(width, kernel_init=nn.initializers.glorot_uniform())(x)
            x = nn.relu(nn.LayerNorm()(x) if self.layer_norm else x)
        return nn.Dense(self.output_size, kernel_init=nn.initializers.glorot_uniform())(x)


class Actor(nn.Module):
    """Deterministic policy.

    Attributes:
      hidden: widths of the hidden layers.
      action_size: A.
    """

    hidden: Sequence[int]
    action_size: int

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """[..., O+G] -> actions [..., A] in [-1, 1]."""
        return jnp.tanh(MLP(self.hidden, self.action_size)(inputs))


_LOG_STD = (-20.0, 2.0)
"""Range of the logarithm of a standard deviation."""


class GaussianActor(nn.Module):
    """Stochastic policy: a normal distribution that tanh squashes to [-1, 1].

    Attributes:
      hidden: widths of the hidden layers.
      action_size: A.
    """

    hidden: Sequence[int]
    action_size: int

    @nn.compact
    def __call__(self, inputs: jax.Array) -> tuple[jax.Array, jax.Array]:
        """[..., O+G] -> mean and logarithm of the standard deviation before tanh, [..., A] each."""
        mean, log_std = jnp.split(MLP(self.hidden, 2 * self.action_size)(inputs), 2, axis=-1)
        return mean, jnp.clip(log_std, *_LOG_STD)


class Critic(nn.Module):
    """Action value.

    Attributes:
      hidden: widths of the hidden layers.
      layer_norm: whether they are normalised.
    """

    hidden: Sequence[int]
    layer_norm: bool = False

    @nn.compact
    def __call__(self, inputs: jax.Array, action: jax.Array) -> jax.Array:
        """[..., O+G], [..., A] -> [...], unbounded."""
        both = jnp.concatenate([inputs, action], axis=-1)
        return MLP(self.hidden, 1, self.layer_norm)(both)[..., 0]
