"""MuJoCo XLA: thousands of simulations on an accelerator, by MuJoCo Warp or in pure JAX.

A state holds what the next step starts from and nothing else; what the simulator derives from it is
rebuilt at every environment step, so that a state is small, a reset is a few assignments, and no
contact of another simulation or of an earlier episode can leak into it.

MuJoCo Warp keeps the contacts of all simulations in one array, whose size must be known when a
program is compiled. Here capacities are stated per simulation, and the array's size follows from
the number of simulations that `jax.vmap` asks for. What does not fit is dropped, and `Readings.
overflow` says so.

References:
  MuJoCo documentation, "MuJoCo XLA (MJX)"; MuJoCo Warp, `OverflowType`.
"""

# pyright: reportAttributeAccessIssue=false
# MuJoCo's bindings are compiled and come without type stubs.

from __future__ import annotations

import contextlib
import copy
import functools
import importlib.util
import io
import os
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import jaxlib.version
import mujoco
import numpy as np
from flax import struct
from jax.custom_batching import custom_vmap
from jax.typing import ArrayLike

from her_envs.physics.base import Handles, Readings, Scene, readings
from her_jax import provenance
from her_jax.errors import UserError

IMPLEMENTATIONS = ("warp", "jax")

GRAPH_MODES = ("warp", "warp_staged", "warp_staged_ex", "jax", "none")
"""How CUDA graphs of a step are captured, as in `warp.JaxCallableGraphMode`; without effect on a
CPU. "warp" captures once for each set of buffers, which stays the same inside a scan; "jax" leaves
it to XLA, whose graphs, if it makes any, need no Python for each launch."""

NCONMAX, NJMAX = 32, 192
"""Capacities of a simulation, well above the peaks that `benchmarks/fidelity.py` measures."""

COMPARED = (
    *("xpos", "xquat", "site_xpos", "qfrc_bias", "qfrc_passive", "qacc_smooth"),
    *("qfrc_constraint", "qacc"),
)
"""Fields of MuJoCo's data that `Mjx.substep` returns, in the order in which they are derived."""

RATES = ("cvel", "cdof_dot")
"""Fields of MuJoCo's data that MuJoCo Warp reads in a step before it derives them anew."""

_CONTACTS_PER_CONVEX, _MIN_CONVEX = 4, 16
"""Contacts for each collision by GJK of one pair of kinds of geoms, whose scratch memory is large
(most contacts are of boxes and planes); and for how many of those there is room however few the
simulations are."""

_WORKING_MEMORY = {"gpu": 1.35, "tpu": 145.0}
"""Platform -> what a compiled epoch works in for each byte of its simulations' data.

By `benchmarks/ahead_of_time.py` 1.08 to 1.32 on an H100, and 133 on a TPU v5e, whose tiles pad
small arrays (one program, of 512 environments). Others were not measured."""

_SOLVER_LIMITS = ("ITERATIONS", "LS_ITERATIONS")
"""Overflows that drop nothing."""


class MjxState(struct.PyTreeNode):
    """A simulation, float32.

    Attributes:
      qpos: [..., nq], metres and radians.
      qvel: [..., nv], per second.
      warmstart: [..., nv], accelerations from which the solver starts: those of the last MuJoCo
        step, 0 after a reset.
      gripper_pose: [..., 7], position and quaternion of the gripper body at the last kinematics
        call, which the next mocap target starts from (in PickAndPlace one substep ago, as in the
        original).
      rates: of MuJoCo Warp `RATES`, `cvel` [..., nbody, 6] and `cdof_dot` [..., nv, 6], as the last
        forward dynamics left them: how fast the Jacobian of the weld changes, which is part of what
        the weld aims at, follows from those of the step before. Empty in pure JAX, where it follows
        from those of the same step (`pure.py`).
    """

    qpos: jax.Array
    qvel: jax.Array
    warmstart: jax.Array
    gripper_pose: jax.Array
    rates: dict[str, jax.Array]


class Mjx:
    """The `warp` and `jax` backends: parity in distribution, measured by `benchmarks/fidelity.py`.

    A simulation that breaks (a position, velocity or acceleration is not finite, or so large that C
    takes it for unstable) reports readings that are not finite once and goes on from the starting
    pose, so that whoever plays it can tell.

    Attributes:
      name: one of `IMPLEMENTATIONS`, "warp" or "jax".
      scene: what is simulated.
      nconmax, njmax: what MuJoCo Warp holds for each simulation.
    """

    def __init__(
        self,
        scene: Scene,
        implementation: str,
        nconmax: int = NCONMAX,
        njmax: int = NJMAX,
        graph_mode: str = GRAPH_MODES[0],
    ):
        """Puts the model on the device.

        Args:
          scene: model, starting pose and names.
          implementation: one of `IMPLEMENTATIONS`.
          nconmax: contacts of a simulation in MuJoCo Warp, and pairs of geoms that may touch; of
            each pair of kinds of geoms a quarter as many may collide by GJK. All simulations share
            as many times their number, so one may have more while others have fewer.
          njmax: constraint rows of a simulation in MuJoCo Warp, each for itself.
          graph_mode: one of `GRAPH_MODES`, for MuJoCo Warp.

        Raises:
          UserError: if Warp is not installed, a size is not positive, or the implementation cannot
            simulate the model.
        """
        require_options(nconmax, njmax, graph_mode)
        if implementation == "jax" and _may_hang():
            warnings.warn(
                "physics: 'jax' can hang on a CPU with this jaxlib, from some 250 environments at "
                "a time; give it one thread with NPROC=1, or install jaxlib 0.11.1",
                RuntimeWarning,
                stacklevel=2,
            )
        self.scene, self.name = scene, implementation
        self.nconmax, self.njmax = nconmax, njmax
        model = scene.model
        self._mjx = _library(implementation)
        self._dynamics = self._mjx if implementation == "warp" else _pure_dynamics(model)
        self._model = self._put(model, graph_mode)
        flags = self._model.opt.disableflags | int(mujoco.mjtDisableBit.mjDSBL_SENSOR)
        self._without_sensors = self._model.tree_replace({"opt.disableflags": flags})
        self._at = Handles.of(scene)
        self._rates = RATES if implementation == "warp" else ()
        self._start = self._starting_state()
        lifted = over_any_batch if implementation == "warp" else _unbatched
        self._forward = lifted(_precise(self._forward_many))
        self._advance = lifted(_precise(self._advance_many))
        self._forward_over = functools.cache(self._compiled_forward)

    # The pure face: unbatched, traceable.

    def reset(self, object_xy: jax.Array) -> tuple[MjxState, Readings]:
        """See `Physics.reset`."""
        qpos = self._start.qpos
        if self.scene.object_joint:
            first = int(self.scene.model.joint(self.scene.object_joint).qposadr[0])
            qpos = qpos.at[first : first + 2].set(object_xy)
        return self._forward(self._start.replace(qpos=qpos))

    def step(
        self, state: MjxState, gripper_delta: jax.Array, finger_delta: jax.Array
    ) -> tuple[MjxState, Readings]:
        """See `Physics.step`."""
        # A policy that saw a broken simulation answers with what is no number; the next one is new.
        return self._advance(state, jnp.nan_to_num(gripper_delta), jnp.nan_to_num(finger_delta))

    # Entries for given states, outside jit.

    def restore(self, row: ArrayLike) -> tuple[MjxState, Readings]:
        """See `Physics.restore`; only positions and velocities are kept, rounded to float32.

        The solver then starts cold. Controls and mocap are set anew by the next step.
        """
        rows = np.asarray(row)
        nq, nv = self.scene.model.nq, self.scene.model.nv
        if rows.shape[-1:] != self.scene.row.shape:
            raise UserError(
                f"row: array of shape {rows.shape}; give [..., {self.scene.row.size}] values"
            )
        return self.state_at(rows[..., 1 : 1 + nq], rows[..., 1 + nq : 1 + nq + nv])

    def state_at(self, qpos: ArrayLike, qvel: ArrayLike) -> tuple[MjxState, Readings]:
        """See `Physics.state_at`; what float32 cannot hold is rounded off."""
        positions, velocities = jnp.asarray(qpos, jnp.float32), jnp.asarray(qvel, jnp.float32)
        nq, nv, shape = self.scene.model.nq, self.scene.model.nv, positions.shape[:-1]
        if positions.shape[-1:] != (nq,) or velocities.shape != (*shape, nv):
            raise UserError(
                f"qpos, qvel: shapes {positions.shape}, {velocities.shape}; give [..., {nq}] and "
                f"[..., {nv}]"
            )
        states = jax.tree.map(lambda x: jnp.broadcast_to(x, (*shape, *x.shape)), self._start)
        forward = self._forward_over(len(shape))
        return forward(states.replace(qpos=positions, qvel=velocities))

    def _compiled_forward(self, axes: int) -> Callable[[MjxState], tuple[MjxState, Readings]]:
        """`_forward` of states with so many leading axes, jitted."""
        forward = self._forward
        for _ in range(axes):
            forward = jax.vmap(forward)
        return jax.jit(forward)

    def qpos(self, state: MjxState) -> np.ndarray:
        """See `Physics.qpos`."""
        return np.asarray(state.qpos, np.float64)

    def substep(self, rows: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
        """One MuJoCo step of 2 ms from whole states, to be compared with C; not under jit.

        `RATES` are those of the states themselves, as in C; a simulation under way has those of the
        MuJoCo step before.

        Args:
          rows: float64 [N, n] `mjSTATE_INTEGRATION` of the scene's model.

        Returns:
          The fields `COMPARED` [N, ...] derived from the states, and `ncon` [N], contacts; in
          MuJoCo Warp also `nefc` [N], constraint rows, and `ncollision` [N], pairs of geoms that
          may touch, in every row of all states together; then qpos [N, nq] and qvel [N, nv] after
          the step.
        """
        model = self.scene.model
        given = _fields_of(model, rows)

        def many(given: dict[str, jax.Array]) -> Any:
            blank = self._blank(len(rows))

            def one(world: jax.Array, given: dict[str, jax.Array]) -> Any:
                ready = blank.replace(**given)
                if self._rates:
                    ready = self._dynamics.forward(self._model, ready)
                data = self._dynamics.forward(self._model, ready)
                found = {name: getattr(data, name) for name in COMPARED}
                if self.name == "warp":
                    worlds = data._impl.contact__worldid  # of the contacts of all states
                    written = jnp.arange(len(worlds)) < data._impl.nacon
                    found["ncon"] = ((worlds == world) & written).sum()
                    found["nefc"] = data._impl.nefc.reshape(())
                    found["ncollision"] = data._impl.ncollision.reshape(())
                else:
                    contact = data._impl.contact
                    found["ncon"] = (contact.dist < contact.includemargin).sum()
                later = self._dynamics.step(self._model, ready)
                return found, later.qpos, later.qvel

            return jax.vmap(one)(jnp.arange(len(rows)), given)

        found = jax.jit(_precise(many))(given)
        return jax.tree.map(np.asarray, found)

    # N simulations [N, ...] at once.

    def _forward_many(self, states: MjxState) -> tuple[MjxState, Readings]:
        """Derives everything from positions and velocities, as after a reset.

        The mocap body is where the model has it.
        """
        blank = self._blank(len(states.qpos))

        def one(state: MjxState) -> tuple[MjxState, Readings]:
            data = blank.replace(
                qpos=state.qpos, qvel=state.qvel, qacc_warmstart=jnp.zeros_like(state.qvel)
            )
            return self._collect(self._dynamics.forward(self._model, data))

        return jax.vmap(one)(states)

    def _advance_many(
        self, states: MjxState, gripper_delta: jax.Array, finger_delta: jax.Array
    ) -> tuple[MjxState, Readings]:
        """One environment step of N simulations."""
        scene, blank = self.scene, self._blank(len(states.qpos))

        def begun(state: MjxState, gripper_delta: jax.Array, finger_delta: jax.Array) -> Any:
            rotation = jnp.asarray(scene.mocap_rotation)
            return blank.replace(
                qpos=state.qpos,
                qvel=state.qvel,
                **state.rates,
                qacc_warmstart=state.warmstart,
                ctrl=state.qpos[self._at.actuated_qpos] + finger_delta,
                mocap_pos=(state.gripper_pose[:3] + gripper_delta)[None],
                mocap_quat=(state.gripper_pose[3:] + rotation)[None],
            )

        def ended(data: Any) -> tuple[MjxState, Readings]:
            if scene.block_gripper:
                data = data.replace(qpos=data.qpos.at[self._at.finger_qpos].set(0.0))
                data = self._dynamics.forward(self._model, data)
            return self._collect(data)

        def passed(data: Any, model: Any, count: int) -> Any:
            substep = jax.vmap(functools.partial(self._dynamics.step, model))
            if self.name == "warp":  # in pure JAX, XLA makes use of what is constant
                substep = hoisted(substep, data)
            return jax.lax.scan(lambda x, _: (substep(x), None), data, length=count)[0]

        data = jax.vmap(begun)(states, gripper_delta, finger_delta)
        # Sensors cost kernels and are read once: after `ended`'s pass, or, where it makes none,
        # after the last MuJoCo step. Pure JAX would take minutes to compile that as a program.
        if self.name == "jax":
            data = passed(data, self._model, scene.substeps)
        elif scene.block_gripper:
            data = passed(data, self._without_sensors, scene.substeps)
        else:
            data = passed(data, self._without_sensors, scene.substeps - 1)
            data = jax.vmap(functools.partial(self._dynamics.step, self._model))(data)
        return jax.vmap(ended)(data)

    def _collect(self, data: Any) -> tuple[MjxState, Readings]:
        """State and readings of one simulation; a broken one starts anew and says so."""
        pose = jnp.concatenate(
            [data.xpos[self._at.gripper_body], data.xquat[self._at.gripper_body]]
        )
        rates = {name: getattr(data, name) for name in self._rates}
        state = MjxState(data.qpos, data.qvel, data.qacc_warmstart, pose, rates)
        values = readings(data, self._at)
        moving = (state.qpos, state.qvel, state.warmstart, pose)
        intact = jnp.all(jnp.stack([(jnp.abs(x) < mujoco.mjMAXVAL).all() for x in moving]))
        values = jax.tree.map(lambda x: jnp.where(intact, x, jnp.nan), values)
        return (
            jax.tree.map(lambda now, start: jnp.where(intact, now, start), state, self._start),
            values._replace(overflow=self._overflow(data).astype(jnp.float32)[None]),
        )

    @property
    def bytes_per_simulation(self) -> int:
        """See `Physics.bytes_per_simulation`; Warp's scratch of collisions comes on top.

        Its data, and what XLA is known to take besides on the default backend.
        """
        data = self._make_data(1)
        stated = sum(leaf.nbytes for leaf in jax.tree.leaves(data) if isinstance(leaf, jax.Array))
        return int(stated * _WORKING_MEMORY.get(jax.default_backend(), 1.0))

    def _make_data(self, count: int) -> Any:
        """MJX's data with room for `count` simulations; also while a program is traced."""
        sizes = capacities(count, self.nconmax, self.njmax) if self.name == "warp" else {}
        with jax.ensure_compile_time_eval():
            return self._mjx.make_data(self.scene.model, impl=self.name, **sizes)

    def _overflow(self, data: Any) -> jax.Array:
        """Whether contacts or constraints had no room, bool []; never in pure JAX.

        In any of the MuJoCo steps behind `data`, or in forward dynamics after them; see `drops`.
        """
        if self.name == "jax":
            return jnp.zeros((), bool)
        warp = data._impl
        contacts = jnp.maximum(warp.nacon.max(), warp.ncollision.max())
        now = (contacts > warp.naconmax) | (warp.nefc.max() > warp.njmax)
        return now | (drops(warp.overflow.max()) != 0)

    def _put(self, model: mujoco.MjModel, graph_mode: str) -> Any:
        """The model on the device."""
        options: dict[str, Any] = {}
        if self.name == "warp":
            device = jax.default_backend()
            if device not in ("cpu", "gpu"):
                raise UserError(
                    f"physics: 'warp' runs on CPUs and NVIDIA GPUs, not on {device}; "
                    "use 'jax' with the portable model"
                )
            # Two boxes then meet in up to 8 points, as in C, and not by GJK in up to 4, which makes
            # the errors of a push a hundred times smaller. Warp knows no other use of the flag.
            model = copy.copy(model)
            model.opt.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_NATIVECCD)
            if device == "gpu":
                import warp

                if not warp.is_cuda_available():
                    raise UserError(
                        "physics: 'warp' sees no GPU where JAX sees one; its wheel needs an NVIDIA "
                        "driver R580 or newer"
                    )
                options["graph_mode"] = warp.JaxCallableGraphMode[graph_mode.upper()]
        try:
            on_device = self._mjx.put_model(model, impl=self.name, **options)
        except NotImplementedError as error:
            raise UserError(
                f"physics: {self.name!r} cannot simulate this model ({error}); use model 'portable'"
            ) from None
        if self.name == "warp":  # what overflows is counted; its kernels need not print it
            on_device = on_device.tree_replace({"opt._impl.warn_overflow": 0})
        return on_device

    def _blank(self, count: int) -> Any:
        """Data for `count` simulations before anything is known of them; to be traced.

        Fields of one value become broadcasts of it, so that no program carries the arrays.
        """
        data = self._make_data(count)

        def field(value: Any) -> Any:
            if not isinstance(value, jax.Array):
                return value
            array = np.asarray(value)
            if array.size and (array == array.flat[0]).all():
                return jnp.full(array.shape, array.flat[0], array.dtype)
            return jnp.asarray(array)

        return jax.tree.map(field, data)

    def _starting_state(self) -> MjxState:
        """The state after a reset, the object where it settled, by MuJoCo's C engine."""
        model = self.scene.model
        data = mujoco.MjData(model)
        mujoco.mj_setState(model, data, self.scene.row, mujoco.mjtState.mjSTATE_INTEGRATION)
        mujoco.mj_forward(model, data)
        body = self._at.gripper_body
        pose = np.concatenate([data.xpos[body], data.xquat[body]])
        values = {"qpos": data.qpos, "qvel": data.qvel, "warmstart": np.zeros(model.nv)}
        values |= {"gripper_pose": pose, "rates": {x: getattr(data, x) for x in self._rates}}
        return MjxState(**jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), values))


def capacities(count: int, nconmax: int = NCONMAX, njmax: int = NJMAX) -> dict[str, int]:
    """Sizes of MuJoCo Warp's data for `count` simulations, by the names of its arguments."""
    contacts = count * nconmax
    convex = min(max(contacts // _CONTACTS_PER_CONVEX, _MIN_CONVEX), contacts)
    return {"naconmax": contacts, "naccdmax": convex, "njmax": njmax}


def drops(overflow: Any) -> Any:
    """Bits of MuJoCo Warp's `OverflowType` that say that something had no room.

    A step sets them for contacts and rows, forward dynamics alone do not.
    """
    from mujoco.mjx.third_party.mujoco_warp._src.types import OverflowType

    return overflow & ~sum(int(OverflowType[name]) for name in _SOLVER_LIMITS)


def require_options(nconmax: int, njmax: int, graph_mode: str) -> None:
    """Refuses options of MuJoCo Warp that mean nothing.

    Raises:
      UserError: names the option.
    """
    for name, value, usual in (("nconmax", nconmax, NCONMAX), ("njmax", njmax, NJMAX)):
        if value < 1:
            raise UserError(f"{name}: {value} is not positive; try {usual}")
    if graph_mode not in GRAPH_MODES:
        raise UserError(
            f"graph_mode: {graph_mode!r} is unknown; choose one of {', '.join(GRAPH_MODES)}"
        )


def _may_hang() -> bool:
    """Whether XLA has threads that may all wait for each other.

    jaxlib before 0.11.1 splits large batches of Cholesky factors among the threads that call for
    them, and each call waits for its parts: as many calls at a time as threads wait for ever. A
    program of rigid bodies makes such calls side by side.
    """
    threads = os.environ.get("NPROC") or str(provenance.cores())
    fixed = jaxlib.version.__version_info__ >= (0, 11, 1)
    return jax.default_backend() == "cpu" and threads != "1" and not fixed


def _fields_of(model: mujoco.MjModel, rows: np.ndarray) -> dict[str, jax.Array]:
    """What MJX starts from, float32 [N, ...], of `mjSTATE_INTEGRATION` rows [N, n]."""
    data = mujoco.MjData(model)
    names = ("qpos", "qvel", "qacc_warmstart", "ctrl", "mocap_pos", "mocap_quat")
    found: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for row in rows:
        mujoco.mj_setState(model, data, row, mujoco.mjtState.mjSTATE_INTEGRATION)
        for name in names:
            found[name].append(getattr(data, name).copy())
    return {name: jnp.asarray(np.stack(values), jnp.float32) for name, values in found.items()}


def _precise(many: Callable[..., Any]) -> Callable[..., Any]:
    """`many` with matrix products in full float32: TF32, some GPUs' default, is too coarse."""

    def precise(*args: Any) -> Any:
        with jax.default_matmul_precision("highest"):
            return many(*args)

    return precise


def hoisted(function: Callable[[Any], Any], example: Any) -> Callable[[Any], Any]:
    """`function`, a loop's body, with its constant arrays made once and outside of the loop.

    XLA would fill those that hold one value anew in each pass, by a kernel each, and a model has
    dozens (`benchmarks/ahead_of_time.py` counts kernels).

    Args:
      function: pure, from a pytree to one of the same structure.
      example: what it will be called with.
    """
    closed, result = jax.make_jaxpr(function, return_shape=True)(example)
    constants = jax.lax.optimization_barrier(closed.consts)
    structure = jax.tree.structure(result)

    def body(values: Any) -> Any:
        leaves = jax.core.eval_jaxpr(closed.jaxpr, constants, *jax.tree.leaves(values))
        return jax.tree.unflatten(structure, leaves)

    return body


def over_any_batch(many: Callable[..., Any]) -> Callable[..., Any]:
    """A function of arrays [N, ...] as one of unbatched arrays, to be lifted by `jax.vmap`.

    However many times it is lifted, `many` is called once, with all elements along one axis: it
    learns how many there are.
    """

    @custom_vmap
    def flat(*args: Any) -> Any:
        return many(*args)

    @flat.def_vmap
    def _(size: int, batched: Any, *args: Any) -> Any:
        args = _all_batched(size, batched, args)
        merged = jax.tree.map(lambda x: x.reshape(size * x.shape[1], *x.shape[2:]), args)
        results = flat(*merged)
        split = jax.tree.map(lambda x: x.reshape(size, x.shape[0] // size, *x.shape[1:]), results)
        return split, jax.tree.map(lambda _: True, split)

    @custom_vmap
    def one(*args: Any) -> Any:
        return jax.tree.map(lambda x: x[0], flat(*jax.tree.map(lambda x: x[None], args)))

    @one.def_vmap
    def _(size: int, batched: Any, *args: Any) -> Any:
        results = flat(*_all_batched(size, batched, args))
        return results, jax.tree.map(lambda _: True, results)

    return one


def _all_batched(size: int, batched: Any, args: Any) -> Any:
    """Arguments of a vmapped call, those that all elements share repeated."""
    return jax.tree.map(
        lambda x, is_batched: x if is_batched else jnp.broadcast_to(x, (size, *x.shape)),
        args,
        tuple(batched),
    )


def _unbatched(many: Callable[..., Any]) -> Callable[..., Any]:
    """A function of arrays [N, ...] as one of unbatched arrays, for JAX's own `vmap`."""

    def one(*args: Any) -> Any:
        return jax.tree.map(lambda x: x[0], many(*jax.tree.map(lambda x: x[None], args)))

    return one


def _pure_dynamics(model: mujoco.MjModel) -> Any:
    """The module whose `forward` and `step` stand for those of MJX in pure JAX.

    Raises:
      UserError: if it does not know how to step the model.
    """
    from her_envs.physics import pure  # imports MJX, which `_library` does quietly

    pure.require(model)
    return pure


def _library(implementation: str) -> Any:
    """The module `mujoco.mjx`, without what it prints when it is imported.

    Raises:
      UserError: if it, or Warp, is not installed.
    """
    if implementation == "warp" and importlib.util.find_spec("warp") is None:
        raise UserError(
            "physics: 'warp' needs warp-lang; run: pip install -c constraints.txt -e '.[warp]'"
        )
    with contextlib.redirect_stdout(io.StringIO()):
        from mujoco import mjx
    if implementation == "warp":
        import warp

        on_cpu = jax.default_backend() == "cpu"  # where it would warn that there is no CUDA
        warp.config.log_level = warp.LOG_ERROR if on_cpu else warp.LOG_WARNING
    return mjx
