"""Safety costs of the Fetch tasks: measured after every step, never part of the reward.

Contacts are read from the simulator's contact sensors at the end of the step; what happens between
two steps, 40 ms apart, is not seen. In PickAndPlace contacts and positions of bodies, as in the
original, are those before the last of the step's 20 substeps, while joint velocities, and so the
gripper's speed, are those after it.

The original's starting pose of FetchPush and FetchSlide presses the gripper into the table: doing
nothing, the force is 3.9 (FetchSlide 4.5) kN after the first step and 0.1 kN after the fifth. A
policy's force is to be read beside that of doing nothing.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from her_envs.physics.base import Readings, Scene
from her_jax.types import Box, CostSpec

MARGIN = 0.1
"""Metres by which the gripper's workspace is wider than the box of all starts and goals."""

_GRIPPER = (
    CostSpec(
        "table_contact_force", "N", "Net contact force between gripper, fingers and the table."
    ),
    CostSpec(
        "contact_penetration", "m", "Depth of the deepest overlap of gripper or object with a body."
    ),
    CostSpec("gripper_speed", "m/s", "Speed of the gripper."),
    CostSpec(
        "gripper_outside_workspace",
        "m",
        f"Distance of the gripper from the box of all starts and goals, widened by {MARGIN} m and "
        "cut off at the table.",
    ),
)
_OBJECT = CostSpec(
    "object_off_table", "1", "1 while the object's centre is below the table's surface, else 0."
)


def specs(has_object: bool) -> tuple[CostSpec, ...]:
    """The K channels of a task, in the order of `costs`."""
    return (*_GRIPPER, _OBJECT) if has_object else _GRIPPER


def costs(values: Readings, scene: Scene, workspace: Box) -> jax.Array:
    """Costs float32 [..., K] of the step that ended in `values`."""
    nearest = jnp.clip(values.grip_pos, jnp.asarray(workspace.low), jnp.asarray(workspace.high))
    channels = [
        values.table_force[..., 0],
        values.penetration[..., 0],
        jnp.linalg.norm(values.grip_velp, axis=-1) / scene.dt,
        jnp.linalg.norm(values.grip_pos - nearest, axis=-1),
    ]
    if values.object_pos.shape[-1] > 0:
        channels.append((values.object_pos[..., 2] < scene.table_top).astype(jnp.float32))
    return jnp.stack(channels, axis=-1)
