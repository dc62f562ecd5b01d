"""From readings to what the agent sees."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from her_envs.physics.base import Readings
from her_jax.types import GoalObs


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
