"""Smaller Fetch models for accelerators: fewer joints, bodies and contact pairs.

Two variants of the stock model, made by editing its `MjSpec`:

    fast      for MuJoCo Warp
    portable  for pure JAX, which has no box against cylinder and no margins of meshes: the same,
              with a prism for FetchSlide's puck; its contact sensors are others too (`model.py`)

What they change is measured by `benchmarks/fidelity.py`; whatever it says, only `stock` is the
original's model.
"""

# pyright: reportAttributeAccessIssue=false
# MuJoCo's bindings are compiled and come without type stubs.

from __future__ import annotations

import mujoco
import numpy as np

from her_envs.fetch.tasks import FetchTask

WELDED = ("slide0", "slide1", "slide2", "torso_lift_joint", "head_pan_joint", "head_tilt_joint")
"""Joints that are removed, `robot0:` before each. The base's are damped with 1e11 N s/m and do not
move; nothing depends on the head's. The torso's, damped with 1e7, rises by 3 mm/s in the stock
model, because it starts below its range, and the arm makes up for it; here it stays."""

PALM, FINGERS = "palm", ("robot0:r_gripper_finger_link", "robot0:l_gripper_finger_link")
TABLE, FLOOR, OBJECT = "table", "floor0", "object0"

PUCK_SIDES = 16
"""Of the prism that stands for FetchSlide's cylinder where box against cylinder does not exist."""

_PALM_MESH = "robot0:gripper_link"
_TABLE_BODY = "table0"


def pairs(task: FetchTask) -> tuple[tuple[str, str], ...]:
    """Pairs of geoms that may touch; all others of the stock model never do, or hardly ever."""
    hand = (PALM, *FINGERS)
    on_table = tuple((geom, TABLE) for geom in hand)
    if not task.has_object:
        return on_table
    return (*on_table, *((geom, OBJECT) for geom in hand), (OBJECT, TABLE), (OBJECT, FLOOR))


def prune(
    spec: mujoco.MjSpec,
    task: FetchTask,
    stock: mujoco.MjModel,
    settled: np.ndarray,
    portable: bool,
) -> None:
    """Edits the stock `spec` in place.

    Args:
      spec: of the stock model.
      task: constants of the task.
      stock: the compiled stock model.
      settled: float64 [nq], its joint positions after a reset.
      portable: whether pure JAX must be able to simulate it.
    """
    _weld(spec, stock, settled)
    _palm_as_box(spec, stock)
    _table(spec).name = TABLE
    if portable and task.has_object and spec.geom(OBJECT).type == mujoco.mjtGeom.mjGEOM_CYLINDER:
        _puck_as_prism(spec)
    _allow_pairs(spec, task, stock)
    # Fixed children, cameras among them, become part of their parents: a shallower tree.
    spec.compiler.fusestatic = True


def _weld(spec: mujoco.MjSpec, stock: mujoco.MjModel, settled: np.ndarray) -> None:
    """Removes the joints `WELDED`; slides leave their bodies where they had moved them."""
    for name in WELDED:
        joint = spec.joint(f"robot0:{name}")
        if int(joint.type) == int(mujoco.mjtJoint.mjJNT_SLIDE):
            position = settled[int(stock.joint(joint.name).qposadr[0])]
            offset = np.zeros(3)
            mujoco.mju_rotVecQuat(offset, np.asarray(joint.axis), np.asarray(joint.parent.quat))
            joint.parent.pos = joint.parent.pos + offset * position
        spec.delete(joint)


def _palm_as_box(spec: mujoco.MjSpec, stock: mujoco.MjModel) -> None:
    """A box around the palm's mesh, whose hull fills nine tenths of it; the mesh is only seen."""
    mesh = spec.geom(_PALM_MESH)
    geom = stock.geom(_PALM_MESH).id
    first = stock.mesh_vertadr[stock.geom_dataid[geom]]
    count = stock.mesh_vertnum[stock.geom_dataid[geom]]
    rotation = np.zeros(9)
    mujoco.mju_quat2Mat(rotation, stock.geom_quat[geom])
    vertices = stock.mesh_vert[first : first + count] @ rotation.reshape(3, 3).T
    vertices = vertices + stock.geom_pos[geom]
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    mesh.parent.add_geom(
        name=PALM,
        type=mujoco.mjtGeom.mjGEOM_BOX,
        pos=(low + high) / 2,
        size=(high - low) / 2,
        solref=mesh.solref,
        solimp=mesh.solimp,
        margin=mesh.margin,
        condim=mesh.condim,
        friction=mesh.friction,
        group=4,  # not drawn
        mass=0.0,  # the mesh has it
    )


def _puck_as_prism(spec: mujoco.MjSpec) -> None:
    """The puck as a convex prism of the cylinder's height, its corners on the cylinder."""
    puck = spec.geom(OBJECT)
    radius, half_height, _ = puck.size
    angle = 2 * np.pi * np.arange(PUCK_SIDES) / PUCK_SIDES
    ring = radius * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    rings = [np.c_[ring, np.full(PUCK_SIDES, side * half_height)] for side in (-1, 1)]
    spec.add_mesh(name="puck", uservert=np.concatenate(rings).ravel())
    mass = float(puck.mass)
    puck.type, puck.meshname = mujoco.mjtGeom.mjGEOM_MESH, "puck"
    puck.mass = mass


def _allow_pairs(spec: mujoco.MjSpec, task: FetchTask, stock: mujoco.MjModel) -> None:
    """Collisions only between `pairs`, with the parameters that MuJoCo mixes from the stock geoms.

    A pair does not take them from its geoms by itself. The stock geoms have equal priorities and
    weights: dimension, friction and margin are the larger ones, solver parameters the means.
    """
    for geom in spec.geoms:
        geom.contype = geom.conaffinity = 0
    for exclude in list(spec.excludes):
        spec.delete(exclude)
    for names in pairs(task):
        one, other = (_stock_geom(stock, name) for name in names)
        pair = spec.add_pair(geomname1=names[0], geomname2=names[1])
        pair.condim = max(stock.geom_condim[one], stock.geom_condim[other])
        slide, spin, roll = np.maximum(stock.geom_friction[one], stock.geom_friction[other])
        pair.friction = [slide, slide, spin, roll, roll]
        pair.solref = (stock.geom_solref[one] + stock.geom_solref[other]) / 2
        pair.solimp = (stock.geom_solimp[one] + stock.geom_solimp[other]) / 2
        if not any(spec.geom(name).type == mujoco.mjtGeom.mjGEOM_MESH for name in names):
            # Pure JAX knows no margins of meshes, and FetchSlide's prism is one.
            pair.margin = max(stock.geom_margin[one], stock.geom_margin[other])


def _stock_geom(stock: mujoco.MjModel, name: str) -> int:
    """The geom of the stock model that a name of `pairs` stands for."""
    if name == TABLE:
        return int(stock.body(_TABLE_BODY).geomadr[0])
    return stock.geom(_PALM_MESH if name == PALM else name).id


def _table(spec: mujoco.MjSpec) -> mujoco.MjsGeom:
    return spec.body(_TABLE_BODY).geoms[0]
