"""Environment steps a second: this project against what it is built on and what it replaces.

    python benchmarks/env_throughput.py [--contestants native warp ...] [--smoke] [--out FILE]

`native`, `warp` and `jax`, with the stock model or with `-fast` or `-portable` behind, are
`jax.vmap(env.step)` in a jitted scan on that physics, observations and goals included;
`warp-staged`, `warp-staged-ex`, `warp-xla-graph` and `warp-nograph` capture CUDA graphs otherwise,
or none. `batch` is a bare Python loop over `mujoco.batch` with the same control, and `mujoco-warp`
a bare loop over MuJoCo Warp's own step, both without observations. `gymnasium-sync` and
`gymnasium-async` are Gymnasium's vector environments over Gymnasium-Robotics' Fetch v4; `envpool`
is EnvPool's Fetch v4, if it is installed (its FetchSlide starts elsewhere). All take turns in one
process on one machine; figures are medians over the rounds, and what the first call takes longer,
compiling, stands apart. Every call begins where an episode does, and the resets are not timed. Of
this project's own a row also says which share of the observations was finite, and of the steps
dropped contacts; of `mujoco-warp` which share of the worlds was finite in the end, and whether one
dropped contacts in a MuJoCo step.
"""

# pyright: reportAttributeAccessIssue=false
# MuJoCo's bindings are compiled and come without type stubs.

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import mujoco.batch
import numpy as np

import harness
import her_envs
from her_envs.fetch import model as scenes
from her_envs.fetch.tasks import HORIZON, SUBSTEPS, TASKS
from her_envs.physics.mjx import RATES, capacities, drops
from her_envs.physics.native import floats
from her_jax import provenance
from her_jax.errors import UserError
from her_jax.types import GoalObs

PHYSICS: dict[str, dict[str, str]] = {
    "native": {},
    "native-fast": {"model": "fast"},
    "warp": {"physics": "warp"},
    "warp-staged": {"physics": "warp", "graph_mode": "warp_staged"},
    "warp-staged-ex": {"physics": "warp", "graph_mode": "warp_staged_ex"},
    "warp-xla-graph": {"physics": "warp", "graph_mode": "jax"},
    "warp-nograph": {"physics": "warp", "graph_mode": "none"},
    "warp-fast": {"physics": "warp", "model": "fast"},
    "jax-portable": {"physics": "jax", "model": "portable"},
}
"""This project's contestants, as options of `her_envs.make`."""

PACKAGES = ("gymnasium", "envpool")
PEERS = ("batch", "mujoco-warp", "gymnasium-sync", "gymnasium-async", "envpool")
CONTESTANTS = (*PHYSICS, *PEERS)

ON_CPU = ("native", "batch", "gymnasium-sync", "gymnasium-async")
ON_ACCELERATOR = ("native", "warp", "warp-fast", "mujoco-warp", "batch")


def main(
    tasks: tuple[str, ...] = tuple(TASKS),
    contestants: tuple[str, ...] = (),
    num_envs: tuple[int, ...] = (64,),
    steps: int = 50,
    rounds: int = 5,
    smoke: bool = False,
    out: Path | None = None,
) -> None:
    """Measure environment steps a second.

    Args:
      tasks: Environments.
      contestants: Who takes part; default what suits a CPU or an accelerator.
      num_envs: Numbers of environments.
      steps: Steps in one timed call.
      rounds: Timed calls of each contestant, in turn.
      smoke: A tiny run that only shows that everything works.
      out: Results file; default runs/benchmarks/env_throughput.json.
    """
    contestants = contestants or default_contestants()
    tasks = harness.fetch_tasks(tasks)
    harness.known("contestants", contestants, CONTESTANTS)
    require_measurable(num_envs, steps, rounds)
    path = harness.results_file("env_throughput", out, smoke)
    if smoke:
        tasks, num_envs, steps, rounds = tasks[:1], (2,), 2, 1
    rows = []
    for task in tasks:
        for count in num_envs:
            rows += measure(task, contestants, count, steps, rounds)
            harness.write("env_throughput", rows, path)
    print(table(rows))


def require_measurable(num_envs: Sequence[int], steps: int, rounds: int) -> None:
    """Refuses numbers with which nothing can be measured.

    Raises:
      UserError: names the first.
    """
    harness.require_positive(steps=steps, rounds=rounds, num_envs=min(num_envs, default=0))
    if steps > HORIZON:
        raise UserError(f"steps: {steps} are more than the {HORIZON} of an episode; try {HORIZON}")


def default_contestants() -> tuple[str, ...]:
    """What suits the machine."""
    return ON_CPU if jax.default_backend() == "cpu" else ON_ACCELERATOR


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: environment steps a second, a line for a task and number of environments."""
    contestants = list(dict.fromkeys(row["contestant"] for row in rows))
    rates: dict[tuple[str, int], dict[str, float]] = {}
    for row in rows:
        measured = rates.setdefault((row["task"], row["num_envs"]), {})
        measured[row["contestant"]] = row["env_steps_per_s"]
    return harness.markdown(
        ["task", "environments", *contestants],
        [
            [task, str(count), *(f"{measured[name]:,.0f}" for name in contestants)]
            for (task, count), measured in rates.items()
        ],
    )


def measure(
    task: str, contestants: tuple[str, ...], count: int, steps: int, rounds: int
) -> list[dict[str, Any]]:
    """One row a contestant.

    Raises:
      UserError: if a name is unknown, or what a contestant needs is not installed.
    """
    (task,) = harness.fetch_tasks((task,))
    harness.known("contestants", contestants, CONTESTANTS)
    actions = np.random.default_rng(0).uniform(-1, 1, (steps, count, 4)).astype(np.float32)
    opened = {name: _open(name, task, count, actions) for name in contestants}
    first = {name: harness.timed(one.run) for name, one in opened.items()}
    taken = harness.side_by_side(
        {name: one.run for name, one in opened.items()},
        rounds,
        before={name: one.reset for name, one in opened.items()},
    )
    healths = {name: one.health(first[name][0]) for name, one in opened.items()}
    for one in opened.values():
        one.close()
    return [
        {
            "task": task,
            "contestant": name,
            "num_envs": count,
            "steps": steps,
            "env_steps_per_s": steps * count / duration,
            "physics_steps_per_s": steps * count / duration * SUBSTEPS,
            "first_call_extra_s": max(first[name][1] - duration, 0.0),
            "first_contestant_is_times_faster": duration / taken[contestants[0]],
            "packages": provenance.installed(PACKAGES),
            **healths[name],
        }
        for name, duration in taken.items()
    ]


def _nothing() -> None:
    pass


def _unknown(_: Any) -> dict[str, Any]:
    return {}


class Contestant(NamedTuple):
    """What takes part.

    Attributes:
      run: the timed call: all steps, from the start of an episode.
      reset: begins an episode, untimed, if `run` does not.
      close: ends it.
      health: given what the first call returned, after all calls, says whether physics broke or
        lost contacts, which would be fast for nothing; empty where it cannot be told.
    """

    run: Callable[[], Any]
    reset: Callable[[], Any] = _nothing
    close: Callable[[], Any] = _nothing
    health: Callable[[Any], dict[str, Any]] = _unknown


def _open(name: str, task: str, count: int, actions: np.ndarray) -> Contestant:
    """A contestant by name."""
    if name in PHYSICS:
        options: Any = PHYSICS[name]
        return Contestant(jitted(her_envs.make(task, **options), count, actions), health=health)
    if name == "batch":
        return bare_batch(task, count, actions)
    if name == "mujoco-warp":
        _require_package(name, "warp", "warp-lang")
        return bare_warp(task, count, actions)
    if name == "envpool":
        _require_package(name, "envpool", "envpool")
        make = importlib.import_module("envpool").make_gymnasium
        return vector_loop(make(f"{task}-v4", num_envs=count), actions.astype(np.float64))
    _require_package(name, "gymnasium_robotics", "gymnasium-robotics")
    import gymnasium

    import original

    kinds: dict[str, Callable[..., Any]] = {
        "gymnasium-sync": gymnasium.vector.SyncVectorEnv,
        "gymnasium-async": functools.partial(gymnasium.vector.AsyncVectorEnv, context="spawn"),
    }
    vector = kinds[name]([functools.partial(original.make, task)] * count)
    return vector_loop(vector, actions)


def _require_package(contestant: str, module: str, package: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise UserError(f"contestants: {contestant!r} is not installed; run: pip install {package}")


def jitted(env: her_envs.FetchEnv, count: int, actions: np.ndarray) -> Callable[[], Any]:
    """This project: one jitted call for all steps."""

    @jax.jit
    def run(state: Any, actions: jax.Array) -> Any:
        def step(state: Any, action: jax.Array) -> Any:
            state = jax.vmap(env.step)(state, action)
            return state, (state.obs, state.dropped)

        return jax.lax.scan(step, state, actions)[1]

    start = jax.jit(jax.vmap(env.reset))(jax.random.split(jax.random.key(0), count))
    jax.block_until_ready(start)  # Warp crashes on a CPU if the bare loop is set up meanwhile
    return functools.partial(run, start, jnp.asarray(actions))


def first_step_s(env: her_envs.FetchEnv) -> float:
    """Seconds until two worlds have made a step; Warp's kernels are compiled or read in them."""
    actions = np.zeros((1, 2, env.action_size), np.float32)
    return harness.timed(lambda: jitted(env, 2, actions)())[1]


def health(readings: tuple[GoalObs, jax.Array]) -> dict[str, float]:
    """Of what `jitted` returns."""
    obs, dropped = readings
    return {
        "finite_share": float(jnp.mean(jnp.isfinite(obs.observation).all(-1))),
        "dropped_contact_steps": float(jnp.mean(dropped)),
    }


def bare_batch(task: str, count: int, actions: np.ndarray) -> Contestant:
    """MuJoCo's thread-pooled batch, driven from Python with the same control law."""
    env = her_envs.make(task)
    start = jax.jit(jax.vmap(env.reset))(jax.random.split(jax.random.key(0), count))
    model = env.physics.scene.model
    batch = mujoco.batch.Batch(model, count)
    gripper = model.body("robot0:gripper_link").id
    fingers = [int(model.joint(f"robot0:{side}_gripper_finger_joint").qposadr[0]) for side in "lr"]
    actuated = model.jnt_qposadr[model.actuator_trnid[:, 0]]
    xpos, xquat, qpos, ctrl = (batch.bind(name) for name in ("xpos", "xquat", "qpos", "ctrl"))
    mocap_pos, mocap_quat = batch.bind("mocap_pos"), batch.bind("mocap_quat")
    rows = floats(np.asarray(start.physics.row))

    def reset() -> None:
        batch.state[:] = rows
        batch.forward()

    def run() -> None:
        for action in actions:
            if model.nu:
                ctrl[:] = qpos[:, actuated] + action[:, 3:]
            mocap_pos[:, 0] = xpos[:, gripper] + action[:, :3] * 0.05
            mocap_quat[:, 0] = xquat[:, gripper] + (1.0, 0.0, 1.0, 0.0)
            batch.step(nstep=SUBSTEPS)
            if not model.nu:
                qpos[:, fingers] = 0.0
                batch.forward()

    reset()
    return Contestant(run, reset)


def bare_warp(task: str, count: int, actions: np.ndarray) -> Contestant:
    """MuJoCo Warp without JAX, on a GPU captured as one CUDA graph an environment step.

    The gripper is pulled to and fro about its start, a target for each world and step.
    """
    import warp
    from mujoco.mjx.third_party import mujoco_warp

    scene = scenes.scene(TASKS[task])
    data = mujoco.MjData(scene.model)
    mujoco.mj_setState(scene.model, data, scene.row, mujoco.mjtState.mjSTATE_INTEGRATION)
    mujoco.mj_forward(scene.model, data)
    gripper = scene.model.body(scene.gripper_body).id
    data.mocap_pos[0], data.mocap_quat[0] = data.xpos[gripper], data.xquat[gripper]
    scene.model.opt.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_NATIVECCD)  # as `warp` here
    model = mujoco_warp.put_model(scene.model)
    model.opt.warn_overflow = 0  # as `warp` here: kernels that print are other kernels
    worlds = mujoco_warp.put_data(scene.model, data, nworld=count, **capacities(count))
    moved = ("qpos", "qvel", "qacc_warmstart", *RATES)
    starts = {name: warp.clone(getattr(worlds, name)) for name in moved}
    pulls = (data.xpos[gripper] + 0.05 * actions[:, :, None, :3]).astype(np.float32)
    targets = [warp.array(pull, dtype=warp.vec3) for pull in pulls]

    fingers = [int(scene.model.joint(name).qposadr[0]) for name in scene.finger_joints]
    sensing = int(model.opt.disableflags)
    blind = sensing | int(mujoco.mjtDisableBit.mjDSBL_SENSOR)

    def env_step() -> None:
        """As `warp` here: contact sensors in the last pass only."""
        model.opt.disableflags = blind
        for _ in range(SUBSTEPS - 1):
            mujoco_warp.step(model, worlds)
        if scene.block_gripper:
            mujoco_warp.step(model, worlds)
            for finger in fingers:
                worlds.qpos[:, finger].zero_()
        model.opt.disableflags = sensing
        (mujoco_warp.forward if scene.block_gripper else mujoco_warp.step)(model, worlds)

    env_step()  # compiles
    launch = env_step
    if warp.get_device().is_cuda:
        with warp.ScopedCapture() as capture:
            env_step()
        graph: Any = capture.graph
        launch = functools.partial(warp.capture_launch, graph)

    def reset() -> None:
        for name, start in starts.items():
            warp.copy(getattr(worlds, name), start)
        warp.synchronize()

    def run() -> None:
        for target in targets:
            warp.copy(worlds.mocap_pos, target)
            launch()
        warp.synchronize()

    def health(_: None) -> dict[str, Any]:
        intact = np.isfinite(worlds.qpos.numpy()).all(-1)
        dropped = drops(worlds.overflow.numpy()).any()
        return {"finite_share": float(intact.mean()), "dropped_contacts": bool(dropped)}

    return Contestant(run, reset, health=health)


def vector_loop(vector: Any, actions: np.ndarray) -> Contestant:
    """A vector environment with Gymnasium's interface."""
    vector.reset(seed=0)

    def run() -> None:
        for action in actions:
            vector.step(action)

    return Contestant(run, vector.reset, vector.close)


if __name__ == "__main__":
    harness.run(main)
