"""Actor and critic: ReLU networks with Glorot initialisation, as in Baselines."""

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
    """

    hidden: Sequence[int]
    output_size: int

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """[..., inputs] -> [..., output_size]."""
        x = inputs
        for width in self.hidden:
            x = nn.relu(nn.Dense(width, kernel_init=nn.initializers.glorot_uniform())(x))
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


class Critic(nn.Module):
    """Action value.

    Attributes:
      hidden: widths of the hidden layers.
    """

    hidden: Sequence[int]

    @nn.compact
    def __call__(self, inputs: jax.Array, action: jax.Array) -> jax.Array:
        """[..., O+G], [..., A] -> [...], unbounded."""
        return MLP(self.hidden, 1)(jnp.concatenate([inputs, action], axis=-1))[..., 0]
