"""Forward dynamics in pure JAX: MJX's, with three things as C has them.

A weld pulls two bodies together: it aims at an acceleration of its residual r, the reference

    a = -b J v - k r - dJ/dt v

whose last term is what r accelerates by where no joint does. C has it, MuJoCo Warp too, MJX leaves
it out; it is a part of what moves the gripper here.

Where two boxes, or a box and a convex mesh, overlap, MJX picks four points of the overlap, some of
them twice where it has fewer corners, and each copy is a contact of its own. Here one is enough.

MJX's solver ends where it no longer sees the cost fall, in float32. Beside the kilonewtons of a
hand that presses on the table it does not see what moves a puck at rest, and kicks it about. Here
a few more steps of Newton's method follow, at full length.

docs/physics.md has what they cost.

References:
  MuJoCo documentation, "Computation", on constraints, their reference and the solvers.
"""

# pyright: reportAttributeAccessIssue=false
# MuJoCo's bindings are compiled and come without type stubs.

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from mujoco import mjx

from her_jax.errors import UserError

_WELD_ROWS = 6
"""Constraint rows of a weld; those of all welds come first."""

_SAME, _APART = 1e-5, 1.0
"""Metres: how near contacts of a pair are one, and the distance of those that are none."""

_NEWTON_STEPS = 3
"""Beyond the solver's own; after one, a puck beside a hand that presses still left the table."""


def require(model: mujoco.MjModel) -> None:
    """Refuses models that this does not know how to step.

    Raises:
      UserError: names what is unknown.
    """
    weld = int(mujoco.mjtEq.mjEQ_WELD)
    off = int(mujoco.mjtDisableBit.mjDSBL_CONSTRAINT) | int(mujoco.mjtDisableBit.mjDSBL_EQUALITY)
    known = {
        "integrators other than Euler's": model.opt.integrator == mujoco.mjtIntegrator.mjINT_EULER,
        "elliptic cones": model.opt.cone == mujoco.mjtCone.mjCONE_PYRAMIDAL,
        "equalities other than welds": (model.eq_type == weld).all(),
        "welds of sites": (model.eq_objtype == int(mujoco.mjtObj.mjOBJ_BODY)).all(),
        "equalities that are turned off": not model.opt.disableflags & off,
    }
    for what, fits in known.items():
        if not fits:
            raise UserError(f"physics: 'jax' knows no {what}; use 'warp' or 'native'")


def forward(model: Any, data: Any) -> Any:
    """Forward dynamics of a model that `require` lets pass."""
    for stage in (mjx.kinematics, mjx.com_pos, mjx.camlight, mjx.tendon, mjx.crb):
        data = stage(model, data)
    for stage in (mjx.tendon_armature, mjx.factor_m, mjx.collision, _once, mjx.make_constraint):
        data = stage(model, data)
    for stage in (mjx.transmission, mjx.sensor_pos, mjx.fwd_velocity, mjx.sensor_vel):
        data = stage(model, data)
    for stage in (mjx.fwd_actuation, mjx.fwd_acceleration, _aimed, mjx.solve, _polished):
        data = stage(model, data)
    return mjx.sensor_acc(model, data)


def step(model: Any, data: Any) -> Any:
    """A MuJoCo step of the same, by Euler's integrator."""
    return mjx.euler(model, forward(model, data))


def _once(model: Any, data: Any) -> Any:
    """Data with each contact once."""
    del model
    contact = data._impl.contact
    near = (jnp.abs(contact.pos[:, None] - contact.pos) < _SAME).all(axis=-1)
    same_pair = (contact.geom[:, None] == contact.geom).all(axis=-1)
    touches = contact.dist < contact.includemargin
    again = jnp.tril(near & same_pair & touches, -1).any(axis=1)
    dist = jnp.where(again, _APART, contact.dist)
    return data.tree_replace({"_impl.contact.dist": dist})


def _aimed(model: Any, data: Any) -> Any:
    """Data whose welds aim at all of their reference."""
    aim = data._impl.efc_aref
    for weld in range(len(model.eq_type)):
        rows = slice(_WELD_ROWS * weld, _WELD_ROWS * (weld + 1))
        aim = aim.at[rows].add(-acceleration(model, data, weld) * data.eq_active[weld])
    return data.tree_replace({"_impl.efc_aref": aim})


def _polished(model: Any, data: Any) -> Any:
    """Data after as many steps of Newton's method as leave the smallest gradient."""
    rows, stiffness = data._impl.efc_J, data._impl.efc_D
    most, mass = data._impl.efc_frictionloss, mjx.full_m(model, data)
    equalities, frictions = data._impl.ne, data._impl.nf  # rows in this order, then one-sided ones
    row = np.arange(data._impl.nefc)
    kept = row < equalities
    rubs = ~kept & (row < equalities + frictions)

    def at(acceleration: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Which rows act as springs, forces of all rows, and the cost's gradient."""
        missed = rows @ acceleration - data._impl.efc_aref
        spring = -stiffness * missed
        springs = kept | jnp.where(rubs, jnp.abs(spring) < most, missed < 0)
        rest = jnp.where(rubs, jnp.clip(spring, -most, most), 0.0)
        force = jnp.where(springs, spring, rest)
        return springs, force, mass @ acceleration - data.qfrc_smooth - rows.T @ force

    def further(acceleration: jax.Array, _: Any) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        """The next acceleration; this one, and how large its gradient is."""
        springs, _, gradient = at(acceleration)
        hessian = mass + (rows.T * (stiffness * springs)) @ rows
        factor = jax.scipy.linalg.cho_factor(hessian)
        later = acceleration - jax.scipy.linalg.cho_solve(factor, gradient)
        return later, (acceleration, jnp.linalg.norm(gradient))

    tried, slopes = jax.lax.scan(further, data.qacc, length=_NEWTON_STEPS + 1)[1]
    qacc = tried[jnp.argmin(jnp.where(jnp.isnan(slopes), jnp.inf, slopes))]
    force = at(qacc)[1]
    return data.tree_replace(
        {"qacc": qacc, "qfrc_constraint": rows.T @ force, "_impl.efc_force": force}
    )


def acceleration(model: Any, data: Any, weld: int) -> jax.Array:
    """What a weld's residual accelerates by at the joints' velocities, no joint accelerated.

    The residual is the place of the first body's anchor less that of the second's, and the vector
    part of the quaternion that turns the second body to the first and its relative pose, scaled.
    The bodies are moved by hinges and slides.

    Args:
      model: MJX's, in pure JAX.
      data: with velocities of bodies (`mjx.fwd_velocity`).
      weld: equality constraint.

    Returns:
      [6], m/s^2 and 1/s^2.
    """
    anchors = model.eq_data[weld]
    one = _motion(model, data, int(model.eq_obj1id[weld]), anchors[3:6])
    other = _motion(model, data, int(model.eq_obj2id[weld]), anchors[:3])
    to, to_1, to_2 = (_times(turn, anchors[6:10]) for turn in one.turning)
    back, back_1, back_2 = (turn * jnp.array([1.0, -1.0, -1.0, -1.0]) for turn in other.turning)
    turned = _times(back_2, to) + 2 * _times(back_1, to_1) + _times(back, to_2)
    return jnp.concatenate([one.point - other.point, turned[1:] * anchors[10]])


class _Motion(NamedTuple):
    """How a body moves while no joint is accelerated.

    Attributes:
      point: [3], acceleration of a point of the body, m/s^2.
      turning: quaternion [4] of the body, its first and its second derivative.
    """

    point: jax.Array
    turning: tuple[jax.Array, jax.Array, jax.Array]


def _motion(model: Any, data: Any, body: int, anchor: jax.Array) -> _Motion:
    """Of a body, and of the point of it that `anchor` [3] says in its frame."""
    moved_by = _dofs(model, body)
    spin, drift = jnp.split(data.cvel[body], 2)
    spinning, drifting = jnp.split(data.qvel[moved_by] @ data.cdof_dot[moved_by], 2)
    # Spatial vectors are of the body's point at the centre of mass of its tree.
    arm = data.xmat[body] @ anchor + data.xpos[body] - data.subtree_com[model.body_rootid[body]]
    velocity = drift + jnp.cross(spin, arm)
    point = drifting + jnp.cross(spinning, arm) + jnp.cross(spin, velocity)
    spin, spinning = (jnp.concatenate([jnp.zeros(1), x]) for x in (spin, spinning))
    turn = data.xquat[body]
    first = _times(spin, turn) / 2
    second = (_times(spinning, turn) + _times(spin, first)) / 2
    return _Motion(point, (turn, first, second))


def _dofs(model: Any, body: int) -> np.ndarray:
    """Degrees of freedom that move a body."""
    found: list[int] = []
    while body:
        first = int(model.body_dofadr[body])
        found += range(first, first + int(model.body_dofnum[body]))
        body = int(model.body_parentid[body])
    return np.array(found, int)


def _times(one: jax.Array, other: jax.Array) -> jax.Array:
    """Product of two quaternions [4]."""
    scalar = one[0] * other[0] - one[1:] @ other[1:]
    vector = one[0] * other[1:] + other[0] * one[1:] + jnp.cross(one[1:], other[1:])
    return jnp.concatenate([scalar[None], vector])
