"""A goal-conditioned point in the plane: cheap to compile, hopeless without hindsight."""

# pyright: reportIncompatibleMethodOverride=false
# Fields stand for the protocol's properties.

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from her_jax.types import Box, CostSpec, GoalEnv, GoalObs, GoalSpec, RewardPair


class PointState(struct.PyTreeNode):
    obs: GoalObs
    cost: jax.Array
    dropped: jax.Array


class PointStart(NamedTuple):
    desired_goal: jax.Array


@dataclasses.dataclass(frozen=True)
class PointEnv(GoalEnv):
    """Starts at the origin; goals lie on the ring of radius 0.8 to 1, out of reach of noise.

    Its costs are speed and the distance travelled beyond the unit circle.
    """

    horizon: int = 15
    tolerance: float = 0.1
    name: str = "Point"
    observation_size: int = 2
    action_size: int = 2
    discrete: bool = False
    bytes_per_env: int = 0

    @property
    def goal_spec(self) -> GoalSpec:
        return GoalSpec(
            name="position",
            coordinates=("x", "y"),
            units="m",
            tolerance=self.tolerance,
            measured="the point's position",
            region=Box((-1.0, -1.0), (1.0, 1.0)),
            bounds=Box((-2.5, -2.5), (2.5, 2.5)),
        )

    @property
    def cost_specs(self) -> tuple[CostSpec, ...]:
        return (CostSpec("speed", "m", "Length of a step."), CostSpec("outside", "m", "Beyond 1."))

    @property
    def reward_pairs(self) -> tuple[RewardPair, ...]:
        edge = self.tolerance
        return (
            RewardPair("hit", (0.5, 0.5), (0.5, 0.5), 0.0, True),
            RewardPair("miss", (0.5, 0.5), (-0.5, 0.5), -1.0, False),
            RewardPair("threshold", (edge, 0.0), (0.0, 0.0), 0.0, False),
        )

    def draw(self, key) -> PointStart:
        angle_key, radius_key = jax.random.split(key)
        angle = jax.random.uniform(angle_key, maxval=2 * jnp.pi)
        radius = jax.random.uniform(radius_key, minval=0.8, maxval=1.0)
        return PointStart(radius * jnp.stack([jnp.cos(angle), jnp.sin(angle)]))

    def begin(self, start) -> PointState:
        goal = jnp.asarray(start.desired_goal)
        never = jnp.zeros((), bool)
        return PointState(GoalObs(jnp.zeros(2), jnp.zeros(2), goal), jnp.zeros(2), never)

    def step(self, state, action):
        move = 0.1 * jnp.clip(action, -1, 1)
        position = state.obs.observation + move
        cost = jnp.stack([jnp.linalg.norm(move), jnp.maximum(jnp.linalg.norm(position) - 1.0, 0.0)])
        obs = GoalObs(position, position, state.obs.desired_goal)
        return PointState(obs, cost, jnp.zeros((), bool))

    def reward(self, achieved_goal, desired_goal):
        return -(self._distance(achieved_goal, desired_goal) > self.tolerance).astype(jnp.float32)

    def success(self, achieved_goal, desired_goal):
        return self._distance(achieved_goal, desired_goal) < self.tolerance

    def _distance(self, achieved_goal, desired_goal):
        return jnp.linalg.norm(achieved_goal - desired_goal, axis=-1)
