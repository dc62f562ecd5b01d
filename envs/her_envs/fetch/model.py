"""Loads the Fetch models of the installed gymnasium-robotics package and settles the arm.

The project ships no asset: MJCF and meshes are read where pip put them.
"""

# pyright: reportAttributeAccessIssue=false
# MuJoCo's bindings are compiled and come without type stubs.

from __future__ import annotations

import importlib.util
import pathlib

import mujoco
import numpy as np

from her_envs.fetch.tasks import SUBSTEPS, FetchTask
from her_envs.physics.base import Scene
from her_jax.errors import UserError

_GRIPPER_SITE = "robot0:grip"
_GRIPPER_BODY = "robot0:gripper_link"
_OBJECT_SITE = "object0"
_OBJECT_JOINT = "object0:joint"
_FINGER_JOINTS = ("robot0:r_gripper_finger_joint", "robot0:l_gripper_finger_joint")
_MOCAP_ROTATION = (1.0, 0.0, 1.0, 0.0)
_IDENTITY_WELD = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0)
_SETTLE_STEPS = 10


def asset_folder() -> pathlib.Path:
    """Folder of the Fetch MJCF files in the installed gymnasium-robotics.

    Raises:
      UserError: if the package, or its Fetch folder, is not there.
    """
    remedy = "install it with: pip install gymnasium-robotics==1.4.2"
    spec = importlib.util.find_spec("gymnasium_robotics")
    if spec is None or spec.origin is None:
        raise UserError(f"Fetch meshes: package gymnasium-robotics is not installed; {remedy}")
    folder = pathlib.Path(spec.origin).parent / "envs" / "assets" / "fetch"
    if not folder.is_dir():
        raise UserError(f"Fetch meshes: {folder} does not exist; {remedy}")
    return folder


def load(task: FetchTask) -> mujoco.MjModel:
    """Compiles the stock model of `task`, its mocap weld set to the identity pose.

    The weld is overwritten as `reset_mocap_welds` of Gymnasium-Robotics does: all relative
    poses become the identity. A model recompiled by `mj_setConst` would lose this.

    Raises:
      UserError: if the file or one of its meshes is missing.
    """
    path = asset_folder() / task.xml
    try:
        model = mujoco.MjSpec.from_file(str(path)).compile()
    except (ValueError, FileNotFoundError) as error:
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"Fetch meshes: {path} does not load ({first_line}); "
            "reinstall with: pip install --force-reinstall gymnasium-robotics==1.4.2"
        ) from error
    welds = model.eq_type == int(mujoco.mjtEq.mjEQ_WELD)
    model.eq_data[welds, :7] = _IDENTITY_WELD
    return model


def scene(task: FetchTask) -> Scene:
    """Loads the model and moves the arm to its starting pose: `_env_setup` of Fetch v4.

    The snapshot keeps the joint velocities of the moving arm, as the original does: an episode
    starts with a small velocity.

    Raises:
      UserError: if the model's files are missing.
    """
    model = load(task)
    data = mujoco.MjData(model)
    for joint, position in task.initial_joints.items():
        data.joint(joint).qpos[:] = position
    mujoco.mj_forward(model, data)
    mujoco.mj_forward(model, data)  # twice, as the original: the second warm-starts differently
    offset = np.array([-0.498, 0.005, -0.431 + task.gripper_extra_height])
    data.mocap_pos[0] = data.site(_GRIPPER_SITE).xpos + offset
    data.mocap_quat[0] = _MOCAP_ROTATION
    for _ in range(_SETTLE_STEPS):
        mujoco.mj_step(model, data, nstep=SUBSTEPS)
    return Scene(
        model=model,
        gripper_pos=data.site(_GRIPPER_SITE).xpos.copy(),
        object_height=float(data.site(_OBJECT_SITE).xpos[2]) if task.has_object else 0.0,
        row=_reset_row(model, data),
        substeps=SUBSTEPS,
        block_gripper=task.block_gripper,
        mocap_rotation=_MOCAP_ROTATION,
        gripper_body=_GRIPPER_BODY,
        gripper_site=_GRIPPER_SITE,
        object_site=_OBJECT_SITE if task.has_object else None,
        object_joint=_OBJECT_JOINT if task.has_object else None,
        finger_joints=_FINGER_JOINTS,
    )


def _reset_row(model: mujoco.MjModel, data: mujoco.MjData) -> np.ndarray:
    """`mjSTATE_INTEGRATION` [n] of a reset that keeps only time, positions and velocities."""
    time, qpos, qvel = data.time, data.qpos.copy(), data.qvel.copy()
    mujoco.mj_resetData(model, data)
    data.time, data.qpos[:], data.qvel[:] = time, qpos, qvel
    row = np.empty(mujoco.mj_stateSize(model, mujoco.mjtState.mjSTATE_INTEGRATION))
    mujoco.mj_getState(model, data, row, mujoco.mjtState.mjSTATE_INTEGRATION)
    return row
