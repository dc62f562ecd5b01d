"""MuJoCo's own C engine on a thread pool, inside jit through a callback.

The simulator's float64 state travels through JAX as uint32 bits, so nothing is rounded and a
step is a pure function of its arguments: any number of environments, in any leading batch
shape, gives the same bits as one environment stepped alone.
"""

# pyright: reportAttributeAccessIssue=false
# MuJoCo's bindings are compiled and come without type stubs.

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import mujoco
import mujoco.batch
import numpy as np
from flax import struct
from jax.experimental.buffer_callback import buffer_callback
from jax.typing import ArrayLike

from her_envs.physics.base import Handles, Readings, Scene, readings
from her_jax.errors import UserError


class NativeState(struct.PyTreeNode):
    """A simulation as bits; `bits(x)` of float64 arrays has twice their length.

    Attributes:
      row: uint32 [..., 2n], the `mjSTATE_INTEGRATION` row.
      gripper_pose: uint32 [..., 14], position and quaternion of the gripper body at the last
        kinematics call, which the next mocap target starts from. In PickAndPlace it lags the
        row by one substep, as in the original.
    """

    row: jax.Array | np.ndarray
    gripper_pose: jax.Array | np.ndarray


def bits(values: np.ndarray) -> np.ndarray:
    """float64 [..., n] as uint32 [..., 2n], losslessly."""
    return np.ascontiguousarray(values, np.float64).view(np.uint32)


def floats(values: ArrayLike) -> np.ndarray:
    """Inverse of `bits`."""
    return np.ascontiguousarray(values, np.uint32).view(np.float64)


def _copied(host: Callable[..., Any], shape: Any, batching: str, *args: Any) -> Any:
    """`host`, to which an accelerator's arrays are copied, and what it returns back.

    Arrays without elements, as of an object that is not there, are not sent: a callback is left
    nothing to copy from or to.
    """
    leaves, tree = jax.tree.flatten(shape)

    def filled(*args: Any) -> list[Any]:  # of NumPy, where JAX would make float64 float32
        results = jax.tree.leaves(host(*map(np.asarray, args)))
        return [result for result, leaf in zip(results, leaves, strict=True) if leaf.size]

    wanted = [leaf for leaf in leaves if leaf.size]
    found = iter(jax.pure_callback(filled, wanted, *args, vmap_method=batching))
    return tree.unflatten(
        [next(found) if leaf.size else jnp.zeros(leaf.shape, leaf.dtype) for leaf in leaves]
    )


_UNSTABLE = slice(int(mujoco.mjtWarning.mjWARN_BADQPOS), int(mujoco.mjtWarning.mjWARN_BADQACC) + 1)
"""The warnings with which MuJoCo resets a simulation: position, velocity or acceleration."""


class _Simulations:
    """A `mujoco.batch.Batch` with live views of what a step reads and writes."""

    def __init__(self, model: mujoco.MjModel, nsim: int, num_threads: int):
        self.batch = mujoco.batch.Batch(model, nsim, num_threads)
        bind = self.batch.bind
        self.rows = self.batch.state
        self.qpos, self.qvel = bind("qpos"), bind("qvel")
        self.ctrl, self.mocap_pos, self.mocap_quat = (
            bind("ctrl"),
            bind("mocap_pos"),
            bind("mocap_quat"),
        )
        self.xpos, self.xquat = bind("xpos"), bind("xquat")
        self.site_xpos, self.site_xmat = bind("site_xpos"), bind("site_xmat")
        self.cdof, self.subtree_com = bind("cdof"), bind("subtree_com")
        self.sensordata = bind("sensordata")
        self.warnings = self.batch.warning[:, _UNSTABLE, 1]  # how often in the last call


class Native:
    """The `native` backend: the same physics as Gymnasium-Robotics' Fetch v4, to the bit.

    A simulation that breaks (a position, velocity or acceleration is not finite, or huge) is reset
    by MuJoCo, which writes a line about it; the readings of that step are not a number, so that
    whoever plays it can tell.

    The thread pools are a cache, made on the first use of each number of simulations and kept for
    the life of the object; no simulation's state outlives a call in them.

    Attributes:
      name: "native".
      scene: what is simulated.
    """

    name = "native"

    def __init__(self, scene: Scene, num_threads: int = 0):
        """Binds a scene to a number of threads.

        Args:
          scene: model, starting pose and names.
          num_threads: threads that share the environments of a call; 0 for all cores.

        Raises:
          UserError: if `num_threads` is negative.
        """
        if num_threads < 0:
            raise UserError(f"num_threads: {num_threads} is negative; use 0 for all cores")
        self.scene = scene
        self._num_threads = num_threads
        self._at = Handles.of(scene)
        self._simulations: dict[int, _Simulations] = {}
        self._lock = threading.Lock()
        self._reset = self._traceable(self._host_reset)
        self._step = self._traceable(self._host_step)

    # The pure face: unbatched, traceable.

    def reset(self, object_xy: jax.Array) -> tuple[NativeState, Readings]:
        """See `Physics.reset`."""
        return self._reset(object_xy)

    def step(
        self, state: NativeState, gripper_delta: jax.Array, finger_delta: jax.Array
    ) -> tuple[NativeState, Readings]:
        """See `Physics.step`."""
        return self._step(state.row, state.gripper_pose, gripper_delta, finger_delta[None])

    def _traceable(self, host: Callable) -> Callable[..., Any]:
        """`host`, from NumPy to NumPy, as a function of JAX arrays with any leading batch shape.

        On CPU the callback reads and writes XLA's own buffers. `jax.pure_callback`, which serves
        the other platforms, would first put its arguments on the device, and wait for that
        forever where XLA has a single thread.
        """

        def in_place(context: Any, out: Any, *args: Any) -> None:
            del context
            results = host(*map(np.asarray, args))
            for buffer, result in zip(jax.tree.leaves(out), jax.tree.leaves(results), strict=True):
                np.asarray(buffer)[...] = result

        shape, batching = self._result_shape(), "broadcast_all"
        return functools.partial(
            jax.lax.platform_dependent,
            cpu=buffer_callback(in_place, shape, vmap_method=batching),
            default=functools.partial(_copied, host, shape, batching),
        )

    def _result_shape(self) -> tuple[NativeState, Readings]:
        def words(n: int) -> Any:
            return jax.ShapeDtypeStruct((n,), jnp.uint32)

        def reals(n: int) -> Any:
            return jax.ShapeDtypeStruct((n,), jnp.float32)

        size = 3 if self._at.object else 0
        return (
            NativeState(row=words(2 * self.scene.row.size), gripper_pose=words(14)),
            Readings(*map(reals, (3, 3, 2, 2, *[size] * 5, 1, 1, 0))),
        )

    # Entries for exact float64 states, outside jit.

    def restore(self, row: ArrayLike) -> tuple[NativeState, Readings]:
        """See `Physics.restore`.

        Exact for every state that a reset or a blocked-gripper step leaves behind. In the
        middle of a PickAndPlace episode the one-substep lag of the mocap pose is not part of
        the row, so there the first step differs from the original by that lag.
        """
        return self._on_device(*self._host_forward(self._float64("row", row, self.scene.row.size)))

    def state_at(self, qpos: ArrayLike, qvel: ArrayLike) -> tuple[NativeState, Readings]:
        """See `Physics.state_at`."""
        positions = self._float64("qpos", qpos, self.scene.model.nq)
        velocities = self._float64("qvel", qvel, self.scene.model.nv)
        if positions.shape[:-1] != velocities.shape[:-1]:
            raise UserError(
                f"qvel: leading shape {velocities.shape[:-1]} is not that of qpos, "
                f"{positions.shape[:-1]}"
            )
        rows = np.broadcast_to(self.scene.row, (*positions.shape[:-1], self.scene.row.size)).copy()
        nq, nv = self.scene.model.nq, self.scene.model.nv
        rows[..., 1 : 1 + nq] = positions  # row[0] is the time
        rows[..., 1 + nq : 1 + nq + nv] = velocities
        return self._on_device(*self._host_forward(rows))

    @property
    def bytes_per_simulation(self) -> int:
        """See `Physics.bytes_per_simulation`; the engine works in the host's memory."""
        return 0

    def qpos(self, state: NativeState) -> np.ndarray:
        """See `Physics.qpos`."""
        return floats(np.asarray(state.row))[..., 1 : 1 + self.scene.model.nq]

    def _float64(self, name: str, values: ArrayLike, size: int) -> np.ndarray:
        array = np.asarray(values)
        if array.dtype != np.float64 or array.shape[-1:] != (size,):
            raise UserError(
                f"{name}: {array.dtype} array of shape {array.shape}; "
                f"give float64 [..., {size}] NumPy values"
            )
        return array

    @staticmethod
    def _on_device(state: NativeState, values: Readings) -> tuple[NativeState, Readings]:
        return jax.tree.map(jnp.array, (state, values))

    # The host side: NumPy in, NumPy out, any leading batch shape.

    def _host_reset(self, object_xy: np.ndarray) -> tuple[NativeState, Readings]:
        rows = np.broadcast_to(self.scene.row, (*object_xy.shape[:-1], self.scene.row.size)).copy()
        if self.scene.object_joint:
            joint = self.scene.model.joint(self.scene.object_joint)
            first = 1 + int(joint.qposadr[0])  # row[0] is the time
            rows[..., first : first + 2] = object_xy
        return self._host_forward(rows)

    def _host_forward(self, rows: np.ndarray) -> tuple[NativeState, Readings]:
        batch_shape = rows.shape[:-1]
        with self._lock:
            sim = self._simulation(rows.reshape(-1, self.scene.row.size))
            sim.batch.forward()
            return self._collect(sim, batch_shape)

    def _host_step(
        self,
        row_bits: np.ndarray,
        pose_bits: np.ndarray,
        gripper_delta: np.ndarray,
        finger_delta: np.ndarray,
    ) -> tuple[NativeState, Readings]:
        batch_shape = row_bits.shape[:-1]
        pose = floats(pose_bits).reshape(-1, 7)
        # A policy that saw a broken simulation answers with what is no number, and is no target.
        gripper_delta, finger_delta = map(np.nan_to_num, (gripper_delta, finger_delta))
        with self._lock:
            sim = self._simulation(floats(row_bits).reshape(-1, self.scene.row.size))
            sim.ctrl[:] = sim.qpos[:, self._at.actuated_qpos] + finger_delta.reshape(-1, 1)
            sim.mocap_pos[:, 0] = pose[:, :3] + gripper_delta.reshape(-1, 3)
            sim.mocap_quat[:, 0] = pose[:, 3:] + self.scene.mocap_rotation
            sim.batch.step(nstep=self.scene.substeps)
            if self.scene.block_gripper:
                sim.qpos[:, self._at.finger_qpos] = 0.0
                sim.batch.forward()
            return self._collect(sim, batch_shape)

    def _simulation(self, rows: np.ndarray) -> _Simulations:
        """The simulations for as many rows, holding them; made on first use of that number."""
        nsim = len(rows)
        if nsim not in self._simulations:
            self._simulations[nsim] = _Simulations(self.scene.model, nsim, self._num_threads)
        sim = self._simulations[nsim]
        sim.rows[:] = rows
        sim.warnings[:] = 0
        return sim

    def _collect(
        self, sim: _Simulations, batch_shape: tuple[int, ...]
    ) -> tuple[NativeState, Readings]:
        pose = np.concatenate(
            [sim.xpos[:, self._at.gripper_body], sim.xquat[:, self._at.gripper_body]], axis=-1
        )
        state = NativeState(row=bits(sim.rows.copy()), gripper_pose=bits(pose))
        values = readings(sim, self._at)
        broken = sim.warnings.any(axis=-1, keepdims=True)
        values = jax.tree.map(lambda x: np.where(broken, np.nan, x).astype(np.float32), values)
        return jax.tree.map(lambda x: x.reshape(*batch_shape, x.shape[-1]), (state, values))
