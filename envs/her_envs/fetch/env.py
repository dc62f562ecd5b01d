"""The Fetch environments as unbatched pure functions over any physics backend."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.typing import ArrayLike

from her_envs.fetch import cost, observe
from her_envs.fetch.tasks import HORIZON, FetchTask
from her_envs.physics.base import Physics, Readings
from her_jax.errors import UserError
from her_jax.types import Box, CostSpec, GoalEnv, GoalObs, GoalSpec, Key, RewardPair

POSITION_SCALE = 0.05
"""Metres that a full action moves the mocap target per step."""

MIN_OBJECT_DISTANCE = 0.1
"""Objects start at least this far from the gripper, horizontally, in metres."""

MAX_LIFT = 0.45
"""Highest goal above the table in metres."""

FLOOR = 0.0
"""Height of the floor in metres."""

ROOM = 2.5
"""An achieved goal further than this from the gripper's start, in metres, is out of bounds for the
audit, which counts it: the arm ends before it, and no rollout seen here left it."""


class FetchState(struct.PyTreeNode):
    """State of one environment.

    Attributes:
      physics: the backend's own state.
      obs: what the agent sees now.
      cost: float32 [K], safety costs of the step that led here; zeros at the start.
      dropped: bool [], whether physics dropped contacts in that step for lack of room.
    """

    physics: Any
    obs: GoalObs
    cost: jax.Array
    dropped: jax.Array


class FetchStart(NamedTuple):
    """The random part of a reset, metres.

    Attributes:
      object_xy: float32 [2], where the object starts (drawn but unused without an object).
      desired_goal: float32 [3].
    """

    object_xy: jax.Array
    desired_goal: jax.Array


@dataclasses.dataclass(frozen=True, eq=False)
class FetchEnv(GoalEnv):
    """One Fetch task.

    Semantics are Gymnasium-Robotics' Fetch v4: 25 Hz Cartesian control of the gripper through a
    mocap weld, sparse reward, 50 steps, no termination. Build it with `her_envs.make`.

    Attributes:
      task: the task's constants.
      physics: the backend.
      tolerance: success distance in metres.
      dense: whether the reward is the negative distance instead of -1 or 0.
      single_goal: whether every episode is asked for the same goal.
    """

    task: FetchTask
    physics: Physics
    tolerance: float
    dense: bool = False
    single_goal: bool = False

    @property
    def name(self) -> str:
        """Public name, as given to `her_envs.make`."""
        return self.task.name

    @property
    def horizon(self) -> int:
        """Steps of an episode."""
        return HORIZON

    @property
    def seconds_per_action(self) -> float:
        """25 actions a second."""
        return self.physics.scene.dt

    @property
    def simulator(self) -> str:
        """The physics backend, as given to `her_envs.make`."""
        return self.physics.name

    @property
    def observation_size(self) -> int:
        """25 with an object, 10 without."""
        return 25 if self.task.has_object else 10

    @property
    def action_size(self) -> int:
        """Three Cartesian displacements and the fingers."""
        return 4

    @property
    def bytes_per_env(self) -> int:
        """Device memory that physics takes for an environment."""
        return self.physics.bytes_per_simulation

    @property
    def goal_spec(self) -> GoalSpec:
        """A position in world coordinates."""
        of, site = ("object", "object0") if self.task.has_object else ("gripper", "robot0:grip")
        here = self.physics.scene.gripper_pos
        return GoalSpec(
            name=f"{of} position",
            coordinates=("x", "y", "z"),
            units="m",
            tolerance=self.tolerance,
            measured=f"world position of the simulator's site {site}",
            region=self._goal_region(),
            bounds=Box(
                (float(here[0]) - ROOM, float(here[1]) - ROOM, FLOOR - self.tolerance),
                (float(here[0]) + ROOM, float(here[1]) + ROOM, float(here[2]) + ROOM),
            ),
            count=1 if self.single_goal else None,
        )

    @property
    def cost_specs(self) -> tuple[CostSpec, ...]:
        """Table force, penetration, speed, workspace, and the fallen object where there is one."""
        return cost.specs(self.task.has_object)

    @property
    def reward_pairs(self) -> tuple[RewardPair, ...]:
        """On the goal, twice the tolerance away, and exactly at the tolerance.

        At the tolerance the original pays 0 and yet reports no success: it compares once with
        `>` and once with `<`.
        """
        goal, far, edge = (0.0, 0.0, 0.0), 2 * self.tolerance, self.tolerance
        miss, threshold = (-far, -edge) if self.dense else (-1.0, 0.0)
        return (
            RewardPair("hit", goal, goal, 0.0, True),
            RewardPair("miss", (far, 0.0, 0.0), goal, miss, False),
            RewardPair("threshold", (0.0, edge, 0.0), goal, threshold, False),
        )

    def begin(self, start: FetchStart) -> FetchState:
        """The initial state of an episode."""
        physics, values = self.physics.reset(jnp.asarray(start.object_xy))
        return self._state(physics, values, jnp.asarray(start.desired_goal))

    def step(self, state: FetchState, action: jax.Array) -> FetchState:
        """Advances by 40 ms; `action` [4] is clipped to [-1, 1].

        What is no number moves nothing; `rollout.broken` finds it in an episode.
        """
        action = jnp.clip(jnp.asarray(action, jnp.float32), -1.0, 1.0)
        chex.assert_shape(action, (self.action_size,))
        finger_delta = jnp.zeros(()) if self.task.block_gripper else action[3]
        physics, values = self.physics.step(
            state.physics, action[:3] * POSITION_SCALE, finger_delta
        )
        costs = cost.costs(values, self.physics.scene, self._workspace())
        return FetchState(
            physics,
            observe.goal_obs(values, state.obs.desired_goal),
            costs.astype(jnp.float32),
            jnp.any(values.overflow > 0, axis=-1),
        )

    def reward(self, achieved_goal: ArrayLike, desired_goal: ArrayLike) -> jax.Array:
        """0 within the tolerance, boundary included, else -1; [..., 3], [..., 3] -> [...].

        A simulation that broke is not within it. With `dense`, the negative distance in metres.
        """
        squared = _squared_distance(achieved_goal, desired_goal)
        if self.dense:
            return -jnp.sqrt(squared)
        return (squared <= self._squared_tolerance).astype(jnp.float32) - 1.0

    def success(self, achieved_goal: ArrayLike, desired_goal: ArrayLike) -> jax.Array:
        """Whether the distance is below the tolerance, boundary excluded as in the original."""
        return _squared_distance(achieved_goal, desired_goal) < self._squared_tolerance

    @property
    def _squared_tolerance(self) -> np.float32:
        """Exact at the boundary, whatever the hardware's square root."""
        return np.square(np.float32(self.tolerance))

    def restore(self, integration_state: ArrayLike, desired_goal: ArrayLike) -> FetchState:
        """Goes on from recorded simulator states; not under jit.

        How exactly, `restore` of each physics says.

        Args:
          integration_state: float64 [..., n] NumPy rows of `mjSTATE_INTEGRATION`.
          desired_goal: [..., 3] metres.

        Returns:
          State with the same leading dimensions, for `jax.vmap(env.step)`.

        Raises:
          UserError: if a shape does not fit, or, on `native` physics, the rows are not float64.
        """
        physics, values = self.physics.restore(integration_state)
        return self._state(physics, values, _goal(desired_goal, values))

    def state_at(self, qpos: ArrayLike, qvel: ArrayLike, desired_goal: ArrayLike) -> FetchState:
        """Starts at given joint positions and velocities as if just reset; not under jit.

        Args:
          qpos: float64 [..., nq] NumPy values, metres and radians.
          qvel: float64 [..., nv], per second.
          desired_goal: [..., 3] metres.

        Raises:
          UserError: if a shape does not fit, or, on `native` physics, the arrays are not float64.
        """
        physics, values = self.physics.state_at(qpos, qvel)
        return self._state(physics, values, _goal(desired_goal, values))

    def _state(self, physics: Any, values: Readings, desired_goal: jax.Array) -> FetchState:
        """A state before its first step, of any leading shape."""
        costs = jnp.zeros((*values.grip_pos.shape[:-1], len(self.cost_specs)), jnp.float32)
        dropped = jnp.any(values.overflow > 0, axis=-1)
        return FetchState(physics, observe.goal_obs(values, desired_goal), costs, dropped)

    @property
    def held_out_file(self) -> pathlib.Path | None:
        """The task's held-out initial states and goals; none of a single goal."""
        if self.single_goal:
            return None
        return pathlib.Path(__file__).parent / "held_out" / f"{self.task.name}.csv"

    def _goal_region(self) -> Box:
        """The box of all requested goals; a point, if there is but one."""
        region = self._task_region()
        if not self.single_goal:
            return region
        low, high = map(np.asarray, region)
        goal = tuple(map(float, np.asarray(low + (high - low) / 4, np.float32)))
        return Box(goal, goal)

    def _task_region(self) -> Box:
        """The box of the task's own goals."""
        centre = self.physics.scene.gripper_pos + np.asarray(self.task.target_offset)
        low, high = centre - self.task.target_range, centre + self.task.target_range
        if self.task.has_object:
            resting = self.physics.scene.object_height
            low[2] = resting
            high[2] = resting + (MAX_LIFT if self.task.target_in_the_air else 0.0)
        return Box(tuple(map(float, low)), tuple(map(float, high)))

    def _workspace(self) -> Box:
        """The box of all starts and goals, `cost.MARGIN` wider, and no lower than the table."""
        here, reach = self.physics.scene.gripper_pos, self.task.object_range
        low, high = map(np.asarray, self._task_region())
        low = np.minimum(low, here - reach) - cost.MARGIN
        high = np.maximum(high, here + np.array([reach, reach, 0.0])) + cost.MARGIN
        low[2] = self.physics.scene.table_top
        return Box(tuple(map(float, low)), tuple(map(float, high)))

    def draw(self, key: Key) -> FetchStart:
        """The random part of `reset`, without physics; consumes `key`."""
        object_key, goal_key = jax.random.split(key)
        goal = self._single_goal() if self.single_goal else self._draw_goal(goal_key)
        return FetchStart(self._draw_object(object_key), goal)

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

    def _single_goal(self) -> jax.Array:
        """A quarter of the way through the task's region, in every coordinate."""
        return jnp.asarray(self._goal_region().low, jnp.float32)

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


def _squared_distance(a: ArrayLike, b: ArrayLike) -> jax.Array:
    return jnp.sum(jnp.square(jnp.asarray(a) - jnp.asarray(b)), axis=-1)


def _goal(desired_goal: ArrayLike, values: Readings) -> jax.Array:
    goal = jnp.asarray(desired_goal, jnp.float32)
    if goal.shape != values.grip_pos.shape:
        raise UserError(
            f"desired_goal: shape {goal.shape}; the states ask for {values.grip_pos.shape}"
        )
    return goal
