"""The bit-flipping problem of the HER paper: the smallest task that needs hindsight.

A state is a string of n bits, an action flips one of them, and start and goal are uniform. The
reward is -1 until the strings agree, which by chance happens once in 2^n states. An episode lasts n
steps, and it succeeds if any of its states is the goal.

References:
  Andrychowicz et al. 2017, "Hindsight Experience Replay" (arXiv:1707.01495), section 3.1.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
from flax import struct

from her_jax.types import Box, GoalEnv, GoalObs, GoalSpec, Key, RewardPair

NAME = "BitFlip"

_TOLERANCE = 0.5
"""Between 0, the distance of equal strings, and 1, that of strings which differ in one bit."""


class BitFlipStart(NamedTuple):
    """The random part of a reset.

    Attributes:
      bits: float32 [n], each 0 or 1.
      desired_goal: float32 [n], each 0 or 1.
    """

    bits: jax.Array
    desired_goal: jax.Array


class BitFlipState(struct.PyTreeNode):
    """An episode's state.

    Attributes:
      obs: observation and achieved goal are both the bits.
      cost: float32 [0]; there are no costs.
      dropped: bool [], never: there is no physics.
    """

    obs: GoalObs
    cost: jax.Array
    dropped: jax.Array


@dataclasses.dataclass(frozen=True)
class BitFlipEnv(GoalEnv):
    """n bits, n actions, n steps.

    Attributes:
      bits: n.
    """

    bits: int

    @property
    def name(self) -> str:
        """The size is part of it, because results of different sizes are not comparable."""
        return f"{NAME}{self.bits}"

    @property
    def horizon(self) -> int:
        """As many steps as bits."""
        return self.bits

    @property
    def observation_size(self) -> int:
        """The bits."""
        return self.bits

    @property
    def action_size(self) -> int:
        """One choice for each bit."""
        return self.bits

    @property
    def discrete(self) -> bool:
        """An action is a one-hot vector."""
        return True

    @property
    def goal_spec(self) -> GoalSpec:
        """All bits equal, at any step."""
        return GoalSpec(
            name="bit string",
            coordinates=tuple(f"bit{i}" for i in range(self.bits)),
            units="bits",
            tolerance=_TOLERANCE,
            measured="the bits of the state",
            region=Box((0.0,) * self.bits, (1.0,) * self.bits),
            bounds=Box((0.0,) * self.bits, (1.0,) * self.bits),
            any_step=True,
            count=2**self.bits,
        )

    @property
    def reward_pairs(self) -> tuple[RewardPair, ...]:
        """Equal strings, opposite strings, and one bit between them at half its way."""
        zeros, ones = (0.0,) * self.bits, (1.0,) * self.bits
        return (
            RewardPair("hit", ones, ones, 0.0, True),
            RewardPair("miss", zeros, ones, -1.0, False),
            RewardPair("threshold", (_TOLERANCE, *zeros[1:]), zeros, -1.0, False),
        )

    def draw(self, key: Key) -> BitFlipStart:
        """Uniform start and goal; consumes `key`."""
        bits_key, goal_key = jax.random.split(key)
        return BitFlipStart(*(self._uniform(one) for one in (bits_key, goal_key)))

    def begin(self, start: BitFlipStart) -> BitFlipState:
        """The initial state."""
        return _state(jnp.asarray(start.bits), jnp.asarray(start.desired_goal))

    def step(self, state: BitFlipState, action: jax.Array) -> BitFlipState:
        """Flips the chosen bit; a vector without any entry above 0.5 flips none."""
        chex.assert_shape(action, (self.action_size,))
        chosen = jax.nn.one_hot(jnp.argmax(action), self.bits) * (jnp.max(action) > 0.5)
        bits = jnp.abs(state.obs.observation - chosen)
        return _state(bits, state.obs.desired_goal)

    def reward(self, achieved_goal: jax.Array, desired_goal: jax.Array) -> jax.Array:
        """0 where the strings agree, -1 elsewhere: [..., n], [..., n] -> [...]."""
        return self.success(achieved_goal, desired_goal).astype(jnp.float32) - 1.0

    def success(self, achieved_goal: jax.Array, desired_goal: jax.Array) -> jax.Array:
        """Whether the strings agree: [..., n], [..., n] -> bool [...]."""
        distance = jnp.linalg.norm(achieved_goal - desired_goal, axis=-1)
        return distance < _TOLERANCE

    def _uniform(self, key: Key) -> jax.Array:
        return jax.random.bernoulli(key, shape=(self.bits,)).astype(jnp.float32)


def _state(bits: jax.Array, desired_goal: jax.Array) -> BitFlipState:
    return BitFlipState(GoalObs(bits, bits, desired_goal), jnp.zeros(0), jnp.zeros((), bool))
