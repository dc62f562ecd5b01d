"""Loads the Fetch models of the installed gymnasium-robotics package and settles the arm.

The project ships no asset: MJCF and meshes are read where pip put them.
"""

# pyright: reportAttributeAccessIssue=false
# MuJoCo's bindings are compiled and come without type stubs.

from __future__ import annotations

import dataclasses
import importlib.util
import pathlib
from collections.abc import Iterable
from typing import Any

import mujoco
import numpy as np

from her_envs.fetch import prune
from her_envs.fetch.tasks import SUBSTEPS, FetchTask
from her_envs.physics.base import Scene
from her_jax.errors import UserError, reason

VARIANTS = ("stock", "fast", "portable")
"""The original's model, and the smaller ones of `prune`."""

_GRIPPER_SITE = "robot0:grip"
_GRIPPER_BODY = "robot0:gripper_link"
_OBJECT_SITE = "object0"
_OBJECT_JOINT = "object0:joint"
_FINGER_JOINTS = ("robot0:r_gripper_finger_joint", "robot0:l_gripper_finger_joint")
_TABLE_BODY = "table0"
_OBJECT_BODY = "object0"
_FORCE_SENSOR = "table_force"
_GRIPPER_DISTANCE, _OBJECT_DISTANCE = "gripper_contact", "object_contact"
_FORCE = mujoco.mjtConDataField.mjCONDATA_FORCE
_DISTANCE = mujoco.mjtConDataField.mjCONDATA_DIST
_MINIMAL_DISTANCE, _LARGEST_FORCES, _NET_FORCE = 1, 2, 3  # reductions of MJCF's sensor/contact
_PAIR_CONTACTS = 4  # most contacts of a pair of boxes in pure JAX
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
    """Compiles the stock model of `task` with contact sensors, its mocap weld the identity pose.

    Sensors read the simulation and do not change it: the joint positions stay the stock model's.
    The weld is overwritten as `reset_mocap_welds` of Gymnasium-Robotics does: all relative
    poses become the identity. A model recompiled by `mj_setConst` would lose this.

    Raises:
      UserError: if the file or one of its meshes is missing.
    """
    spec = _spec(task)
    _add_contact_sensors(spec, task)
    return _compiled(spec, task)


def _spec(task: FetchTask) -> mujoco.MjSpec:
    path = asset_folder() / task.xml
    try:
        return mujoco.MjSpec.from_file(str(path))
    except (ValueError, FileNotFoundError) as error:
        raise _unloadable(task, error) from error


def _compiled(spec: mujoco.MjSpec, task: FetchTask) -> mujoco.MjModel:
    try:
        model = spec.compile()
    except (ValueError, FileNotFoundError) as error:
        raise _unloadable(task, error) from error
    welds = model.eq_type == int(mujoco.mjtEq.mjEQ_WELD)
    model.eq_data[welds, :7] = _IDENTITY_WELD
    return model


def _unloadable(task: FetchTask, error: Exception) -> UserError:
    return UserError(
        f"Fetch meshes: {asset_folder() / task.xml} does not load ({reason(error)}); "
        "reinstall with: pip install --force-reinstall gymnasium-robotics==1.4.2"
    )


def _add_contact_sensors(spec: mujoco.MjSpec, task: FetchTask) -> None:
    """Force between gripper and table, and the deepest contact of gripper and object."""
    gripper = {"objtype": mujoco.mjtObj.mjOBJ_XBODY, "objname": _GRIPPER_BODY}  # with its fingers
    table = {"reftype": mujoco.mjtObj.mjOBJ_BODY, "refname": _TABLE_BODY}
    target = {"objtype": mujoco.mjtObj.mjOBJ_BODY, "objname": _OBJECT_BODY}
    _add_sensor(spec, _FORCE_SENSOR, _FORCE, _NET_FORCE, **gripper, **table)
    _add_sensor(spec, _GRIPPER_DISTANCE, _DISTANCE, _MINIMAL_DISTANCE, **gripper)
    if task.has_object:
        _add_sensor(spec, _OBJECT_DISTANCE, _DISTANCE, _MINIMAL_DISTANCE, **target)


def _add_pair_sensors(
    spec: mujoco.MjSpec, pairs: Iterable[tuple[str, str]]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The same of a pruned model's pairs, one by one.

    Pure JAX knows neither bodies nor net forces here: forces are those of each contact, in the
    contact's frame, which is the same for all that lie on the table. Not sorted, MJX gives those of
    the first contacts that there are, whatever touches.

    Returns:
      Names of the sensors of force and of distance.
    """
    forces, distances = [], []
    for one, other in pairs:
        geoms = {
            "objtype": mujoco.mjtObj.mjOBJ_GEOM,
            "objname": one,
            "reftype": mujoco.mjtObj.mjOBJ_GEOM,
            "refname": other,
        }
        distances.append(f"{one}-{other} distance")
        _add_sensor(spec, distances[-1], _DISTANCE, _MINIMAL_DISTANCE, **geoms)
        if other == prune.TABLE and one in prune.HAND:
            forces.append(f"{one}-{other} force")
            _add_sensor(spec, forces[-1], _FORCE, _LARGEST_FORCES, contacts=_PAIR_CONTACTS, **geoms)
    return tuple(forces), tuple(distances)


def _add_sensor(
    spec: mujoco.MjSpec, name: str, data: int, reduce: int, *, contacts: int = 1, **between: Any
) -> None:
    spec.add_sensor(
        name=name,
        type=mujoco.mjtSensor.mjSENS_CONTACT,
        intprm=[1 << int(data), reduce, contacts],
        **between,
    )


def scene(task: FetchTask, variant: str = "stock") -> Scene:
    """Loads a model and moves the arm to its starting pose: `_env_setup` of Fetch v4.

    The snapshot keeps the joint velocities of the moving arm, as the original does: an episode
    starts with a small velocity. Pruned models start in the pose that the stock model settled in,
    so that all have the same starts and goals.

    Args:
      task: constants of the task.
      variant: one of `VARIANTS`.

    Raises:
      UserError: if the model's files are missing.
    """
    stock = _stock_scene(task)
    if variant == "stock":
        return stock
    spec = _spec(task)
    nq, nv = stock.model.nq, stock.model.nv
    qpos, qvel = stock.row[1 : 1 + nq], stock.row[1 + nq : 1 + nq + nv]
    larger = prune.prune(spec, task, stock.model, qpos, portable=variant == "portable")
    forces, distances, skins = stock.force_sensors, stock.distance_sensors, stock.skins
    if variant == "portable":
        forces, distances = _add_pair_sensors(spec, larger)
        skins = tuple(larger.values())
    else:
        _add_contact_sensors(spec, task)
    model = _compiled(spec, task)
    data = mujoco.MjData(model)
    data.time = stock.row[0]
    data.qpos[:], data.qvel[:] = carried_over(stock.model, model, qpos, qvel)
    return dataclasses.replace(
        stock,
        model=model,
        row=_reset_row(model, data),
        force_sensors=forces,
        distance_sensors=distances,
        skins=skins,
    )


def carried_over(
    stock: mujoco.MjModel, other: mujoco.MjModel, qpos: np.ndarray, qvel: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Positions [..., nq] and velocities [..., nv] of the joints that a pruned model has left."""
    kept = [stock.joint(other.joint(i).name) for i in range(other.njnt)]
    positions = [qpos[..., _all_of(joint.qposadr, joint.qpos0)] for joint in kept]
    velocities = [qvel[..., _all_of(joint.dofadr, joint.armature)] for joint in kept]
    return np.concatenate(positions, axis=-1), np.concatenate(velocities, axis=-1)


def _all_of(address: np.ndarray, values: np.ndarray) -> slice:
    return slice(int(address[0]), int(address[0]) + np.size(values))


def _stock_scene(task: FetchTask) -> Scene:
    model = load(task)
    data = mujoco.MjData(model)
    for joint, position in task.initial_joints.items():
        data.joint(joint).qpos[:] = position
    mujoco.mj_forward(model, data)
    mujoco.mj_forward(model, data)  # twice, as the original; MuJoCo 3.17 gives the same once
    offset = np.array([-0.498, 0.005, -0.431 + task.gripper_extra_height])
    data.mocap_pos[0] = data.site(_GRIPPER_SITE).xpos + offset
    data.mocap_quat[0] = _MOCAP_ROTATION
    for _ in range(_SETTLE_STEPS):
        mujoco.mj_step(model, data, nstep=SUBSTEPS)
    distances = (_GRIPPER_DISTANCE, *([_OBJECT_DISTANCE] if task.has_object else []))
    return Scene(
        model=model,
        gripper_pos=data.site(_GRIPPER_SITE).xpos.copy(),
        object_height=float(data.site(_OBJECT_SITE).xpos[2]) if task.has_object else 0.0,
        table_top=_table_top(model, data),
        row=_reset_row(model, data),
        substeps=SUBSTEPS,
        block_gripper=task.block_gripper,
        mocap_rotation=_MOCAP_ROTATION,
        gripper_body=_GRIPPER_BODY,
        gripper_site=_GRIPPER_SITE,
        object_site=_OBJECT_SITE if task.has_object else None,
        object_joint=_OBJECT_JOINT if task.has_object else None,
        finger_joints=_FINGER_JOINTS,
        force_sensors=(_FORCE_SENSOR,),
        distance_sensors=distances,
        skins=(0.0,) * len(distances),
    )


def _table_top(model: mujoco.MjModel, data: mujoco.MjData) -> float:
    """Height of the table's box, metres."""
    geom = int(model.body(_TABLE_BODY).geomadr[0])
    return float(data.geom_xpos[geom, 2] + model.geom_size[geom, 2])


def _reset_row(model: mujoco.MjModel, data: mujoco.MjData) -> np.ndarray:
    """`mjSTATE_INTEGRATION` [n] of a reset that keeps only time, positions and velocities."""
    time, qpos, qvel = data.time, data.qpos.copy(), data.qvel.copy()
    mujoco.mj_resetData(model, data)
    data.time, data.qpos[:], data.qvel[:] = time, qpos, qvel
    row = np.empty(mujoco.mj_stateSize(model, mujoco.mjtState.mjSTATE_INTEGRATION))
    mujoco.mj_getState(model, data, row, mujoco.mjtState.mjSTATE_INTEGRATION)
    return row
