"""What an environment asks of a physics backend."""

# pyright: reportAttributeAccessIssue=false
# MuJoCo's bindings are compiled and come without type stubs.

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import jax
import mujoco
import numpy as np
from jax.typing import ArrayLike


class Readings(NamedTuple):
    """Sensor values after a step, float32, in world coordinates.

    Positions in metres, angles in radians, velocities times the 0.04 s of an environment step
    (so metres and radians per step). Object fields have size 0 where a task has no object.

    Attributes:
      grip_pos: [..., 3].
      grip_velp: [..., 3].
      finger_pos: [..., 2], right then left.
      finger_vel: [..., 2].
      object_pos: [..., 3].
      object_rel_pos: [..., 3], relative to the gripper.
      object_rot: [..., 3], Euler angles.
      object_velp: [..., 3], relative to the gripper's.
      object_velr: [..., 3].
    """

    grip_pos: jax.Array
    grip_velp: jax.Array
    finger_pos: jax.Array
    finger_vel: jax.Array
    object_pos: jax.Array
    object_rel_pos: jax.Array
    object_rot: jax.Array
    object_velp: jax.Array
    object_velr: jax.Array


class Physics(Protocol):
    """Advances one simulation by one environment step; unbatched, for `jax.vmap`."""

    @property
    def model(self) -> mujoco.MjModel:
        """The compiled model that is simulated."""
        ...

    @property
    def gripper_pos(self) -> np.ndarray:
        """float64 [3], the gripper's starting position in metres."""
        ...

    @property
    def object_height(self) -> float:
        """Height of the resting object in metres."""
        ...

    def reset(self, object_xy: jax.Array) -> tuple[Any, Readings]:
        """Starting pose with the object at `object_xy` [2] in metres (ignored without one)."""
        ...

    def step(
        self, state: Any, gripper_delta: jax.Array, finger_delta: jax.Array
    ) -> tuple[Any, Readings]:
        """Moves the mocap target by `gripper_delta` [3] and the fingers by `finger_delta` []."""
        ...

    def restore(self, row: ArrayLike) -> tuple[Any, Readings]:
        """Goes on from float64 [..., n] `mjSTATE_INTEGRATION` rows; not under jit."""
        ...

    def state_at(self, qpos: ArrayLike, qvel: ArrayLike) -> tuple[Any, Readings]:
        """Goes on from float64 [..., nq] and [..., nv] as if just reset; not under jit."""
        ...

    def qpos(self, state: Any) -> np.ndarray:
        """Joint positions float64 [..., nq] of states, metres and radians; not under jit."""
        ...
