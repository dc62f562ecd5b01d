"""Smaller Fetch models for accelerators: fewer joints, bodies and contact pairs.

Two variants of the stock model, made by editing its `MjSpec`:

    fast      for MuJoCo Warp
    portable  for pure JAX, whose boxes touch only where they overlap, and not a cylinder: the same,
              but geoms of the hand are larger by the margin in which they touch in the stock model,
              FetchSlide's puck touches by a prism and a box, and the contact sensors are others
              (`model.py`)

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

PALM = "palm"
HAND = (PALM, "robot0:r_gripper_finger_link", "robot0:l_gripper_finger_link")
TABLE, FLOOR, OBJECT = "table", "floor0", "object0"

RIM, FOOT, RIM_SIDES = "rim", "foot", 16
"""What FetchSlide's puck touches with where box against cylinder does not exist: the hand by a
prism with so many sides, table and floor by a box; the corners of both are on the cylinder, those
of the box `OVERLAP` beyond its ends.

One shape would not do. Where the faces of a convex mesh and a box lie on each other, MJX may take
the closest points of two edges for the place of contact, and those of puck and table are decimetres
apart. Boxes meet boxes by another collider. A puck at rest has four contacts on its rim in the
stock model too."""

OVERLAP = 2e-6
"""Metres by which `FOOT` is deeper than the puck, and by which what it touches lets it in.

Boxes touch from a depth of 1e-6 m on in pure JAX; FetchSlide's puck rests less deep, and would fall
and be thrown up without end."""

_PALM_MESH = "robot0:gripper_link"
_TABLE_BODY = "table0"


def pairs(task: FetchTask, side: str = OBJECT, bottom: str = OBJECT) -> tuple[tuple[str, str], ...]:
    """Pairs of geoms that may touch; all others of the stock model never do, or hardly ever.

    Args:
      task: constants of the task.
      side: the geom of the object that the hand touches.
      bottom: the one that touches table and floor.
    """
    on_table = tuple((geom, TABLE) for geom in HAND)
    if not task.has_object:
        return on_table
    return (*on_table, *((geom, side) for geom in HAND), (bottom, TABLE), (bottom, FLOOR))


def prune(
    spec: mujoco.MjSpec,
    task: FetchTask,
    stock: mujoco.MjModel,
    settled: np.ndarray,
    portable: bool,
) -> dict[tuple[str, str], float]:
    """Edits the stock `spec` in place.

    Args:
      spec: of the stock model.
      task: constants of the task.
      stock: the compiled stock model.
      settled: float64 [nq], its joint positions after a reset.
      portable: whether pure JAX must be able to simulate it.

    Returns:
      The pairs of geoms that may touch, and in metres by how much their geoms are larger together
      than the stock model's: face to face they overlap so much more.
    """
    _weld(spec, stock, settled)
    _palm_as_box(spec, stock)
    _table(spec).name = TABLE
    allowed, skins = pairs(task), dict[str, float]()
    if portable:
        skins = {name: _grown_by_its_margin(spec.geom(name)) for name in HAND}
        if task.has_object and spec.geom(OBJECT).type == mujoco.mjtGeom.mjGEOM_CYLINDER:
            _puck_as_prism_and_box(spec)
            skins[FOOT] = OVERLAP
            allowed = pairs(task, RIM, FOOT)
    larger = {pair: sum(skins.get(name, 0.0) for name in pair) for pair in allowed}
    _allow_pairs(spec, larger, stock)
    # Fixed children, cameras among them, become part of their parents: a shallower tree.
    spec.compiler.fusestatic = True
    return larger


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


def _grown_by_its_margin(box: mujoco.MjsGeom) -> float:
    """A box touches as from a margin once it is larger by it; returns metres.

    Masses stay: those of the fingers' bodies are given, and the palm's box has none.
    """
    margin = float(box.margin)
    box.size = box.size + margin
    return margin


def _puck_as_prism_and_box(spec: mujoco.MjSpec) -> None:
    """Adds `RIM` and `FOOT` to the puck, which has the mass and is seen."""
    puck = spec.geom(OBJECT)
    radius, half_height, _ = puck.size
    angle = 2 * np.pi * np.arange(RIM_SIDES) / RIM_SIDES
    ring = radius * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    rings = [np.c_[ring, np.full(RIM_SIDES, side * half_height)] for side in (-1, 1)]
    spec.add_mesh(name=RIM, uservert=np.concatenate(rings).ravel())
    unseen = {"pos": puck.pos, "group": 4, "mass": 0.0}
    puck.parent.add_geom(name=RIM, type=mujoco.mjtGeom.mjGEOM_MESH, meshname=RIM, **unseen)
    size = (radius / np.sqrt(2), radius / np.sqrt(2), half_height + OVERLAP)
    puck.parent.add_geom(name=FOOT, type=mujoco.mjtGeom.mjGEOM_BOX, size=size, **unseen)


def _allow_pairs(
    spec: mujoco.MjSpec, larger: dict[tuple[str, str], float], stock: mujoco.MjModel
) -> None:
    """Collisions only between some pairs, with the parameters of the stock model.

    A pair does not take them from its geoms by itself. The stock geoms have equal priorities and
    weights: dimension, friction and margin are the larger ones, solver parameters the means. By
    what the geoms are `larger` than the stock ones, the margin is smaller.
    """
    for geom in spec.geoms:
        geom.contype = geom.conaffinity = 0
    for exclude in list(spec.excludes):
        spec.delete(exclude)
    for names, skin in larger.items():
        one, other = (_stock_geom(stock, name) for name in names)
        pair = spec.add_pair(geomname1=names[0], geomname2=names[1])
        pair.condim = max(stock.geom_condim[one], stock.geom_condim[other])
        slide, spin, roll = np.maximum(stock.geom_friction[one], stock.geom_friction[other])
        pair.friction = [slide, slide, spin, roll, roll]
        pair.solref = (stock.geom_solref[one] + stock.geom_solref[other]) / 2
        pair.solimp = (stock.geom_solimp[one] + stock.geom_solimp[other]) / 2
        pair.margin = max(stock.geom_margin[one], stock.geom_margin[other]) - skin


def _stock_geom(stock: mujoco.MjModel, name: str) -> int:
    """The geom of the stock model that a name of `pairs` stands for."""
    if name == TABLE:
        return int(stock.body(_TABLE_BODY).geomadr[0])
    return stock.geom({PALM: _PALM_MESH, RIM: OBJECT, FOOT: OBJECT}.get(name, name)).id


def _table(spec: mujoco.MjSpec) -> mujoco.MjsGeom:
    return spec.body(_TABLE_BODY).geoms[0]
