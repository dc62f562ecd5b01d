"""Loads the Fetch models of the installed gymnasium-robotics package and settles the arm.

The project ships no asset: MJCF and meshes are read where pip put them.
"""

# pyright: reportAttributeAccessIssue=false
# MuJoCo's bindings are compiled and come without type stubs.

from __future__ import annotations

import dataclasses
import importlib.util
import pathlib

import mujoco
import numpy as np

from her_envs.fetch.tasks import SUBSTEPS, FetchTask
from her_jax.errors import UserError

GRIPPER_SITE = "robot0:grip"
GRIPPER_BODY = "robot0:gripper_link"
OBJECT = "object0"
TARGET_SITE = "target0"
FINGER_JOINTS = ("robot0:r_gripper_finger_joint", "robot0:l_gripper_finger_joint")

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
        first_line = str(error).strip().splitlines()[0]
        raise UserError(
            f"Fetch meshes: {path} does not load ({first_line}); "
            "reinstall with: pip install --force-reinstall gymnasium-robotics==1.4.2"
        ) from error
    welds = model.eq_type == int(mujoco.mjtEq.mjEQ_WELD)
    model.eq_data[welds, :7] = _IDENTITY_WELD
    return model


@dataclasses.dataclass(frozen=True)
class Settled:
    """The starting pose of a task, computed once by simulation.

    Attributes:
      row: float64 [n], `mjSTATE_INTEGRATION` after a reset, before `mj_forward`; the object is
        where it settled, and mocap, controls and warm start are the model's defaults.
      gripper_pos: float64 [3], metres; objects and goals are drawn around it.
      object_height: z of the resting object in metres; 0 without an object.
    """

    row: np.ndarray
    gripper_pos: np.ndarray
    object_height: float


def settle(model: mujoco.MjModel, task: FetchTask) -> Settled:
    """Moves the arm to its starting pose: `_env_setup` of Gymnasium-Robotics' Fetch v4.

    The snapshot keeps the joint velocities of the moving arm, as the original does: an episode
    starts with a small velocity.
    """
    data = mujoco.MjData(model)
    for joint, position in task.initial_joints.items():
        data.joint(joint).qpos[:] = position
    mujoco.mj_forward(model, data)
    mujoco.mj_forward(model, data)  # twice, as the original: the second warm-starts differently
    offset = np.array([-0.498, 0.005, -0.431 + task.gripper_extra_height])
    data.mocap_pos[0] = data.site(GRIPPER_SITE).xpos + offset
    data.mocap_quat[0] = _MOCAP_ROTATION
    for _ in range(_SETTLE_STEPS):
        mujoco.mj_step(model, data, nstep=SUBSTEPS)
    gripper_pos = data.site(GRIPPER_SITE).xpos.copy()
    object_height = float(data.site(OBJECT).xpos[2]) if task.has_object else 0.0
    time, qpos, qvel = data.time, data.qpos.copy(), data.qvel.copy()
    mujoco.mj_resetData(model, data)
    data.time, data.qpos[:], data.qvel[:] = time, qpos, qvel
    row = np.empty(mujoco.mj_stateSize(model, mujoco.mjtState.mjSTATE_INTEGRATION))
    mujoco.mj_getState(model, data, row, mujoco.mjtState.mjSTATE_INTEGRATION)
    return Settled(row, gripper_pos, object_height)
