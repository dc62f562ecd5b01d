"""What an environment asks of a physics backend, and what every backend shares.

`readings` works on NumPy and on JAX arrays alike, so that all backends share one definition and
each computes it in its own precision.

References:
  Gymnasium-Robotics 1.4.2, `envs/fetch/fetch_env.py` (`generate_mujoco_observations`) and
  `utils/rotations.py` (`mat2euler`).
"""

# pyright: reportAttributeAccessIssue=false
# MuJoCo's bindings are compiled and come without type stubs.

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple, Protocol

import jax
import mujoco
import numpy as np
from jax.typing import ArrayLike

_DEGENERATE = 4 * 2.220446049250313e-16


@dataclasses.dataclass(frozen=True, eq=False)
class Scene:
    """A compiled model and what a backend must know to drive it.

    Attributes:
      model: the compiled model; its mocap body pulls `gripper_body` through a weld.
      row: float64 [n], `mjSTATE_INTEGRATION` after a reset and before `mj_forward`; the object is
        where it settled, and mocap, controls and warm start are the model's defaults.
      gripper_pos: float64 [3], the gripper's starting position in metres.
      object_height: z of the resting object in metres; 0 without an object.
      table_top: z of the table's surface in metres.
      substeps: MuJoCo steps in one environment step.
      block_gripper: whether the finger joints are put back to 0 after every step.
      mocap_rotation: quaternion added to the gripper's to give the mocap's.
      gripper_body, gripper_site: names.
      object_site, object_joint: names, or None without an object.
      finger_joints: names, right then left.
      force_sensors: sensors of forces [3k] in newtons, whose sum is that between gripper and table.
      distance_sensors: sensors of the nearest contact [1] in metres, negative where bodies overlap.
      skins: of each of these, in metres, by how much what touches is larger than the original's.
    """

    model: mujoco.MjModel
    row: np.ndarray
    gripper_pos: np.ndarray
    object_height: float
    table_top: float
    substeps: int
    block_gripper: bool
    mocap_rotation: tuple[float, float, float, float]
    gripper_body: str
    gripper_site: str
    object_site: str | None
    object_joint: str | None
    finger_joints: tuple[str, str]
    force_sensors: tuple[str, ...]
    distance_sensors: tuple[str, ...]
    skins: tuple[float, ...]

    @property
    def dt(self) -> float:
        """Seconds of an environment step."""
        return self.model.opt.timestep * self.substeps


class Readings(NamedTuple):
    """Sensor values after a step, float32, in world coordinates.

    Positions in metres, angles in radians, velocities times the 0.04 s of an environment step
    (so metres and radians per step). Object fields have size 0 where a task has no object.

    Attributes:
      grip_pos: [..., 3].
      grip_velp: [..., 3].
      finger_pos: [..., 2], right then left.
      finger_vel: [..., 2].
      object_pos: [..., 3].
      object_rel_pos: [..., 3], relative to the gripper.
      object_rot: [..., 3], Euler angles.
      object_velp: [..., 3], relative to the gripper's.
      object_velr: [..., 3].
      table_force: [..., 1], newtons between gripper and table.
      penetration: [..., 1], metres of the deepest contact of gripper or object.
      overflow: [..., 1], 1 if the backend dropped contacts or constraints in a substep of the step
        or in the forward dynamics after them, else 0; of size 0 on `native`, whose room for them is
        hundreds of times what these tasks need.
    """

    grip_pos: jax.Array
    grip_velp: jax.Array
    finger_pos: jax.Array
    finger_vel: jax.Array
    object_pos: jax.Array
    object_rel_pos: jax.Array
    object_rot: jax.Array
    object_velp: jax.Array
    object_velr: jax.Array
    table_force: jax.Array
    penetration: jax.Array
    overflow: jax.Array


@dataclasses.dataclass(frozen=True)
class Site:
    """Where to find a site and which joints move it.

    Attributes:
      id: of the site.
      root: root body of its kinematic tree.
      dofs: bool [nv], the degrees of freedom that move it.
    """

    id: int
    root: int
    dofs: np.ndarray

    @classmethod
    def of(cls, model: mujoco.MjModel, name: str) -> Site:
        """The site of that name."""
        site = model.site(name).id
        body = int(model.site_bodyid[site])
        dofs = np.zeros(model.nv, bool)
        while body:
            first, count = model.body_dofadr[body], model.body_dofnum[body]
            dofs[first : first + count] = True
            body = int(model.body_parentid[body])
        return cls(site, int(model.body_rootid[model.site_bodyid[site]]), dofs)


@dataclasses.dataclass(frozen=True, eq=False)
class Handles:
    """Where in a simulation's arrays lies what a scene names.

    Attributes:
      dt: seconds of an environment step.
      grip, object: sites; the latter None without an object.
      gripper_body: id.
      finger_qpos, finger_dof: int [2], right then left.
      forces, distances: int [n], of the sensors' values in `sensordata`.
      skins: [n], of the scene, of each distance.
      actuated_qpos: int [nu], of the joints that actuators move.
    """

    dt: float
    grip: Site
    object: Site | None
    gripper_body: int
    finger_qpos: np.ndarray
    finger_dof: np.ndarray
    forces: np.ndarray
    distances: np.ndarray
    skins: np.ndarray
    actuated_qpos: np.ndarray

    @classmethod
    def of(cls, scene: Scene) -> Handles:
        """Those of a scene."""
        model = scene.model
        joints = [model.joint(name) for name in scene.finger_joints]
        return cls(
            dt=scene.dt,
            grip=Site.of(model, scene.gripper_site),
            object=Site.of(model, scene.object_site) if scene.object_site else None,
            gripper_body=model.body(scene.gripper_body).id,
            finger_qpos=np.array([int(joint.qposadr[0]) for joint in joints]),
            finger_dof=np.array([int(joint.dofadr[0]) for joint in joints]),
            forces=_addresses(model, scene.force_sensors),
            distances=_addresses(model, scene.distance_sensors),
            skins=np.array(scene.skins),
            actuated_qpos=model.jnt_qposadr[model.actuator_trnid[:, 0]],
        )


def _addresses(model: mujoco.MjModel, sensors: tuple[str, ...]) -> np.ndarray:
    """Where the values of sensors lie in `sensordata`, int [n]."""
    found = [model.sensor(name) for name in sensors]
    return np.concatenate([np.arange(s.adr[0], s.adr[0] + s.dim[0]) for s in found])


class Physics(Protocol):
    """Advances one simulation by one environment step; unbatched, for `jax.vmap`."""

    @property
    def name(self) -> str:
        """As given to `her_envs.make`."""
        ...

    @property
    def scene(self) -> Scene:
        """What is simulated."""
        ...

    def reset(self, object_xy: jax.Array) -> tuple[Any, Readings]:
        """Starting pose with the object at `object_xy` [2] in metres (ignored without one)."""
        ...

    def step(
        self, state: Any, gripper_delta: jax.Array, finger_delta: jax.Array
    ) -> tuple[Any, Readings]:
        """Moves the mocap target by `gripper_delta` [3] and the fingers by `finger_delta` []."""
        ...

    def restore(self, row: ArrayLike) -> tuple[Any, Readings]:
        """Goes on from float64 [..., n] `mjSTATE_INTEGRATION` rows; not under jit."""
        ...

    def state_at(self, qpos: ArrayLike, qvel: ArrayLike) -> tuple[Any, Readings]:
        """Goes on from float64 [..., nq] and [..., nv] as if just reset; not under jit."""
        ...

    @property
    def bytes_per_simulation(self) -> int:
        """Device memory that a simulation takes while it steps."""
        ...

    def qpos(self, state: Any) -> np.ndarray:
        """Joint positions float64 [..., nq] of states, metres and radians; not under jit."""
        ...


def _velocity(data: Any, site: Site) -> tuple[Any, Any]:
    """Linear and angular velocity [..., 3] of a site: mj_jacSite times qvel.

    The Jacobian is that of the last kinematics call and the velocities are the state's, a
    difference of one substep that the original shares.

    Args:
      data: simulations with `qvel` [..., nv], `cdof` [..., nv, 6], `site_xpos` [..., nsite, 3] and
        `subtree_com` [..., nbody, 3].
      site: which one.
    """
    xp = data.qvel.__array_namespace__()
    spatial = xp.einsum("...v,...vk->...k", data.qvel * site.dofs, data.cdof)
    angular, linear = spatial[..., :3], spatial[..., 3:]
    offset = data.site_xpos[..., site.id, :] - data.subtree_com[..., site.root, :]
    return linear + xp.cross(angular, offset), angular


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


def readings(data: Any, at: Handles) -> Readings:
    """Readings of one or many simulations, where `overflow` has size 0.

    Args:
      data: arrays of any leading shape under MuJoCo's names for them.
      at: of their scene.
    """
    xp = data.qpos.__array_namespace__()
    grip_pos = data.site_xpos[..., at.grip.id, :]
    grip_velp = _velocity(data, at.grip)[0] * at.dt
    force = data.sensordata[..., at.forces].reshape(*data.qpos.shape[:-1], -1, 3).sum(axis=-2)
    distance = data.sensordata[..., at.distances] + at.skins
    nearest = distance.min(axis=-1, keepdims=True)
    object_pos, relative, rotation, velp, velr = _of_object(data, at, grip_pos, grip_velp)
    return Readings(
        grip_pos=grip_pos,
        grip_velp=grip_velp,
        finger_pos=data.qpos[..., at.finger_qpos],
        finger_vel=data.qvel[..., at.finger_dof] * at.dt,
        object_pos=object_pos,
        object_rel_pos=relative,
        object_rot=rotation,
        object_velp=velp,
        object_velr=velr,
        table_force=xp.sqrt((force**2).sum(axis=-1, keepdims=True)),
        penetration=xp.maximum(-nearest, 0.0),
        overflow=grip_pos[..., :0],
    )


def _of_object(data: Any, at: Handles, grip_pos: Any, grip_velp: Any) -> tuple[Any, ...]:
    """The five readings of the object, of size 0 without one."""
    if at.object is None:
        return (grip_pos[..., :0],) * 5
    position = data.site_xpos[..., at.object.id, :]
    matrix = data.site_xmat.reshape(*data.site_xpos.shape, 3)[..., at.object.id, :, :]
    linear, angular = _velocity(data, at.object)
    return (
        position,
        position - grip_pos,
        euler(matrix),
        linear * at.dt - grip_velp,
        angular * at.dt,
    )
