"""The original environments, made to run on the pinned MuJoCo.

Gymnasium-Robotics 1.4.2 compares NumPy joint types with an enumeration, which fails since MuJoCo
3.12. Only its accessors of joint values are replaced; the physics is untouched.
"""

# pyright: reportAttributeAccessIssue=false
# MuJoCo's bindings are compiled and come without type stubs.

from __future__ import annotations

import contextlib
import io
from typing import Any

import gymnasium
import mujoco

with contextlib.redirect_stderr(io.StringIO()):  # where it speaks of other environments
    import gymnasium_robotics
    from gymnasium_robotics.utils import mujoco_utils


def make(name: str) -> Any:
    """The unwrapped Fetch v4 environment of that name, e.g. "FetchPush"."""
    mujoco_utils.set_joint_qpos = _set_joint_qpos
    mujoco_utils.get_joint_qpos = _joint_qpos
    mujoco_utils.get_joint_qvel = _joint_qvel
    gymnasium.register_envs(gymnasium_robotics)
    return gymnasium.make(f"{name}-v4").unwrapped


def _set_joint_qpos(model: mujoco.MjModel, data: mujoco.MjData, joint: str, value: Any) -> None:
    del model
    data.joint(joint).qpos[:] = value


def _joint_qpos(model: mujoco.MjModel, data: mujoco.MjData, joint: str) -> Any:
    del model
    return data.joint(joint).qpos.copy()


def _joint_qvel(model: mujoco.MjModel, data: mujoco.MjData, joint: str) -> Any:
    del model
    return data.joint(joint).qvel.copy()
