"""The Fetch environments as unbatched pure functions over any physics backend."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
from flax import struct
from jax.typing import ArrayLike

from her_envs.fetch import observe
from her_envs.fetch.tasks import HORIZON, FetchTask
from her_envs.physics.base import Physics, Readings
from her_jax.errors import UserError
from her_jax.types import GoalObs, GoalSpec, Key

POSITION_SCALE = 0.05
"""Metres that a full action moves the mocap target per step."""

MIN_OBJECT_DISTANCE = 0.1
"""Objects start at least this far from the gripper, horizontally, in metres."""

MAX_LIFT = 0.45
"""Highest goal above the table in metres."""


class FetchState(struct.PyTreeNode):
    """State of one environment.

    Attributes:
      physics: the backend's own state.
      obs: what the agent sees now.
    """

    physics: Any
    obs: GoalObs


class Start(NamedTuple):
    """The random part of a reset, metres.

    Attributes:
      object_xy: float32 [2], where the object starts (drawn but unused without an object).
      desired_goal: float32 [3].
    """

    object_xy: jax.Array
    desired_goal: jax.Array


@dataclasses.dataclass(frozen=True, eq=False)
class FetchEnv:
    """One Fetch task; satisfies `her_jax.types.GoalEnv`.

    Semantics are Gymnasium-Robotics' Fetch v4: 25 Hz Cartesian control of the gripper through a
    mocap weld, sparse reward, 50 steps, no termination. Build it with `her_envs.make`.

    Attributes:
      task: the task's constants.
      physics: the backend.
      tolerance: success distance in metres.
      dense: whether the reward is the negative distance instead of -1 or 0.
    """

    task: FetchTask
    physics: Physics
    tolerance: float
    dense: bool = False

    @property
    def name(self) -> str:
        """Public name, as given to `her_envs.make`."""
        return self.task.name

    @property
    def horizon(self) -> int:
        """Steps of an episode."""
        return HORIZON

    @property
    def observation_size(self) -> int:
        """25 with an object, 10 without."""
        return 25 if self.task.has_object else 10

    @property
    def action_size(self) -> int:
        """Three Cartesian displacements and the fingers."""
        return 4

    @property
    def goal_spec(self) -> GoalSpec:
        """A position in world coordinates."""
        of = "object" if self.task.has_object else "gripper"
        return GoalSpec(name=f"{of} position", size=3, units="m", tolerance=self.tolerance)

    def reset(self, key: Key) -> FetchState:
        """Draws an object position and a goal, and starts there; consumes `key`."""
        start = self.draw(key)
        physics, values = self.physics.reset(start.object_xy)
        return FetchState(physics, observe.goal_obs(values, start.desired_goal))

    def step(self, state: FetchState, action: jax.Array) -> FetchState:
        """Advances by 40 ms; `action` [4] is clipped to [-1, 1]."""
        action = jnp.clip(jnp.asarray(action, jnp.float32), -1.0, 1.0)
        chex.assert_shape(action, (self.action_size,))
        finger_delta = jnp.zeros(()) if self.task.block_gripper else action[3]
        physics, values = self.physics.step(
            state.physics, action[:3] * POSITION_SCALE, finger_delta
        )
        return FetchState(physics, observe.goal_obs(values, state.obs.desired_goal))

    def reward(self, achieved_goal: ArrayLike, desired_goal: ArrayLike) -> jax.Array:
        """0 within the tolerance, boundary included, else -1; [..., 3], [..., 3] -> [...].

        With `dense`, the negative distance in metres.
        """
        distance = _distance(achieved_goal, desired_goal)
        if self.dense:
            return -distance
        return -(distance > self.tolerance).astype(jnp.float32)

    def success(self, achieved_goal: ArrayLike, desired_goal: ArrayLike) -> jax.Array:
        """Whether the distance is below the tolerance, boundary excluded as in the original."""
        return _distance(achieved_goal, desired_goal) < self.tolerance

    def restore(self, integration_state: ArrayLike, desired_goal: ArrayLike) -> FetchState:
        """Goes on from recorded simulator states; not under jit.

        Args:
          integration_state: float64 [..., n] NumPy rows of `mjSTATE_INTEGRATION`.
          desired_goal: [..., 3] metres.

        Returns:
          State with the same leading dimensions, for `jax.vmap(env.step)`.

        Raises:
          UserError: if the rows are not float64, or a shape does not fit.
        """
        physics, values = self.physics.restore(integration_state)
        return FetchState(physics, observe.goal_obs(values, _goal(desired_goal, values)))

    def state_at(self, qpos: ArrayLike, qvel: ArrayLike, desired_goal: ArrayLike) -> FetchState:
        """Starts at given joint positions and velocities as if just reset; not under jit.

        Args:
          qpos: float64 [..., nq] NumPy values, metres and radians.
          qvel: float64 [..., nv], per second.
          desired_goal: [..., 3] metres.

        Raises:
          UserError: if the arrays are not float64, or a shape does not fit.
        """
        physics, values = self.physics.state_at(qpos, qvel)
        return FetchState(physics, observe.goal_obs(values, _goal(desired_goal, values)))

    def draw(self, key: Key) -> Start:
        """The random part of `reset`, without physics; consumes `key`."""
        object_key, goal_key = jax.random.split(key)
        return Start(self._draw_object(object_key), self._draw_goal(goal_key))

    def _draw_object(self, key: Key) -> jax.Array:
        """Uniform on the square less the disc of 0.1 m: rejection until accepted, so exact."""
        bound = self.task.object_range

        def propose(carry):
            key, _ = carry
            next_key, draw_key = jax.random.split(key)
            return next_key, jax.random.uniform(draw_key, (2,), minval=-bound, maxval=bound)

        def rejected(carry):
            return jnp.linalg.norm(carry[1]) < MIN_OBJECT_DISTANCE

        _, offset = jax.lax.while_loop(rejected, propose, (key, jnp.zeros(2)))
        return jnp.asarray(self.physics.scene.gripper_pos[:2], jnp.float32) + offset

    def _draw_goal(self, key: Key) -> jax.Array:
        box_key, air_key, height_key = jax.random.split(key, 3)
        bound = self.task.target_range
        centre = jnp.asarray(self.physics.scene.gripper_pos, jnp.float32)
        goal = centre + jax.random.uniform(box_key, (3,), minval=-bound, maxval=bound)
        if not self.task.has_object:
            return goal
        goal = goal + jnp.asarray(self.task.target_offset)
        lift = jnp.zeros(())
        if self.task.target_in_the_air:
            in_the_air = jax.random.bernoulli(air_key)
            lift = in_the_air * jax.random.uniform(height_key, maxval=MAX_LIFT)
        return goal.at[2].set(self.physics.scene.object_height + lift)


def _distance(a: ArrayLike, b: ArrayLike) -> jax.Array:
    return jnp.linalg.norm(jnp.asarray(a) - jnp.asarray(b), axis=-1)


def _goal(desired_goal: ArrayLike, values: Readings) -> jax.Array:
    goal = jnp.asarray(desired_goal, jnp.float32)
    if goal.shape != values.grip_pos.shape:
        raise UserError(
            f"desired_goal: shape {goal.shape}; the states ask for {values.grip_pos.shape}"
        )
    return goal
