"""A goal-conditioned point in the plane: cheap to compile, hopeless without hindsight."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from flax import struct

from her_jax.types import GoalObs, GoalSpec


class PointState(struct.PyTreeNode):
    obs: GoalObs


@dataclasses.dataclass(frozen=True)
class PointEnv:
    """Starts at the origin; goals lie on the ring of radius 0.8 to 1, out of reach of noise."""

    horizon: int = 15
    tolerance: float = 0.1
    name: str = "Point"
    observation_size: int = 2
    action_size: int = 2

    @property
    def goal_spec(self) -> GoalSpec:
        return GoalSpec(name="position", size=2, units="m", tolerance=self.tolerance)

    def reset(self, key):
        angle_key, radius_key = jax.random.split(key)
        angle = jax.random.uniform(angle_key, maxval=2 * jnp.pi)
        radius = jax.random.uniform(radius_key, minval=0.8, maxval=1.0)
        goal = radius * jnp.stack([jnp.cos(angle), jnp.sin(angle)])
        return PointState(GoalObs(jnp.zeros(2), jnp.zeros(2), goal))

    def step(self, state, action):
        position = state.obs.observation + 0.1 * jnp.clip(action, -1, 1)
        return PointState(GoalObs(position, position, state.obs.desired_goal))

    def reward(self, achieved_goal, desired_goal):
        return -(self._distance(achieved_goal, desired_goal) > self.tolerance).astype(jnp.float32)

    def success(self, achieved_goal, desired_goal):
        return self._distance(achieved_goal, desired_goal) < self.tolerance

    def _distance(self, achieved_goal, desired_goal):
        return jnp.linalg.norm(achieved_goal - desired_goal, axis=-1)
