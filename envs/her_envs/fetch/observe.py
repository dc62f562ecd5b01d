"""From simulator quantities to readings, and from readings to what the agent sees.

`readings` works on NumPy and on JAX arrays alike, so that every physics backend shares one
definition and each computes it in its own precision.

References:
  Gymnasium-Robotics 1.4.2, `envs/fetch/fetch_env.py` (`generate_mujoco_observations`) and
  `utils/rotations.py` (`mat2euler`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp

from her_envs.physics.base import Readings
from her_jax.types import GoalObs

_DEGENERATE = 4 * 2.220446049250313e-16


class Sites(NamedTuple):
    """Raw simulator quantities, [..., size], metres, radians and seconds.

    Attributes:
      grip_pos, grip_velp: position and linear velocity of the gripper site.
      finger_pos, finger_vel: joint positions and velocities, right then left.
      object_pos, object_mat, object_velp, object_velr: pose [..., 3], [..., 3, 3] and
        velocities of the object site, or None without an object.
    """

    grip_pos: Any
    grip_velp: Any
    finger_pos: Any
    finger_vel: Any
    object_pos: Any
    object_mat: Any
    object_velp: Any
    object_velr: Any


def euler(mat: Any) -> Any:
    """Euler angles [..., 3] of rotation matrices [..., 3, 3], Mujoco-worldgen's convention."""
    xp = mat.__array_namespace__()
    cy = xp.sqrt(mat[..., 2, 2] ** 2 + mat[..., 1, 2] ** 2)
    regular = cy > _DEGENERATE
    z = xp.where(
        regular,
        -xp.atan2(mat[..., 0, 1], mat[..., 0, 0]),
        -xp.atan2(-mat[..., 1, 0], mat[..., 1, 1]),
    )
    y = -xp.atan2(-mat[..., 0, 2], cy)
    x = xp.where(regular, -xp.atan2(mat[..., 1, 2], mat[..., 2, 2]), 0.0)
    return xp.stack([x, y, z], axis=-1)


def readings(sites: Sites, dt: float) -> Readings:
    """Readings of one or many simulations; `dt` is the environment step in seconds."""
    grip_velp = sites.grip_velp * dt
    if sites.object_pos is None:
        nothing = sites.grip_pos[..., :0]
        return Readings(
            sites.grip_pos,
            grip_velp,
            sites.finger_pos,
            sites.finger_vel * dt,
            *([nothing] * 5),
        )
    return Readings(
        grip_pos=sites.grip_pos,
        grip_velp=grip_velp,
        finger_pos=sites.finger_pos,
        finger_vel=sites.finger_vel * dt,
        object_pos=sites.object_pos,
        object_rel_pos=sites.object_pos - sites.grip_pos,
        object_rot=euler(sites.object_mat),
        object_velp=sites.object_velp * dt - grip_velp,
        object_velr=sites.object_velr * dt,
    )


def goal_obs(r: Readings, desired_goal: Any) -> GoalObs:
    """The observation of Fetch v4, [..., 25] with an object and [..., 10] without."""
    observation = jnp.concatenate(
        [
            r.grip_pos,
            r.object_pos,
            r.object_rel_pos,
            r.finger_pos,
            r.object_rot,
            r.object_velp,
            r.object_velr,
            r.grip_velp,
            r.finger_vel,
        ],
        axis=-1,
    )
    has_object = r.object_pos.shape[-1] > 0
    return GoalObs(observation, r.object_pos if has_object else r.grip_pos, desired_goal)
