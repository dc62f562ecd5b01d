"""Environment steps a second: this project against what it is built on and what it replaces.

    python benchmarks/env_throughput.py [--smoke] [--out FILE]

`native` is `jax.vmap(env.step)` in a jitted scan, observations and goals included. `batch` is a
bare Python loop over `mujoco.batch` with the same control, and no observations. `gymnasium-sync`
and `gymnasium-async` are Gymnasium's vector environments over Gymnasium-Robotics' Fetch v4. All
take turns in one process on one machine; figures are medians over the rounds.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import mujoco
import mujoco.batch
import numpy as np
import tyro

import harness
import her_envs
import original
from her_envs.fetch.tasks import SUBSTEPS, TASKS
from her_envs.physics.native import floats


def main(
    tasks: tuple[str, ...] = tuple(TASKS),
    num_envs: tuple[int, ...] = (64,),
    steps: int = 50,
    rounds: int = 5,
    smoke: bool = False,
    out: Path | None = None,
) -> None:
    """Measure environment steps a second.

    Args:
      tasks: Environments.
      num_envs: Numbers of environments.
      steps: Steps in one timed call.
      rounds: Timed calls of each contestant, in turn.
      smoke: A tiny run that only shows that everything works.
      out: Results file; default benchmarks/results/env_throughput.json.
    """
    if smoke:
        tasks, num_envs, steps, rounds = tasks[:1], (2,), 2, 1
    rows = []
    for task in tasks:
        for count in num_envs:
            rows += measure(task, count, steps, rounds)
    print(table(rows))
    harness.write("env_throughput", rows, out)


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


def measure(task: str, count: int, steps: int, rounds: int) -> list[dict[str, Any]]:
    """One row a contestant."""
    env = her_envs.make(task)
    actions = np.random.default_rng(0).uniform(-1, 1, (steps, count, 4)).astype(np.float32)
    vectors = {
        "gymnasium-sync": gymnasium.vector.SyncVectorEnv,
        "gymnasium-async": functools.partial(gymnasium.vector.AsyncVectorEnv, context="spawn"),
    }
    open_vectors = {
        name: make([functools.partial(original.make, task)] * count)
        for name, make in vectors.items()
    }
    calls = {"native": native(env, count, actions), "batch": bare_batch(env, count, actions)}
    calls |= {name: gym_loop(vector, actions) for name, vector in open_vectors.items()}
    taken = harness.side_by_side(calls, rounds)
    for vector in open_vectors.values():
        vector.close()
    rows = []
    for name, duration in taken.items():
        rate = steps * count / duration
        ratio = taken[name] / taken["native"]
        rows.append(
            {
                "task": task,
                "contestant": name,
                "num_envs": count,
                "env_steps_per_s": rate,
                "physics_steps_per_s": rate * SUBSTEPS,
                "native_is_times_faster": ratio,
            }
        )
    return rows


def native(env: her_envs.FetchEnv, count: int, actions: np.ndarray) -> Callable[[], Any]:
    """This project: one jitted call for all steps."""

    @jax.jit
    def run(state: Any, actions: jax.Array) -> Any:
        def step(state: Any, action: jax.Array) -> Any:
            state = jax.vmap(env.step)(state, action)
            return state, state.obs

        return jax.lax.scan(step, state, actions)

    start = jax.jit(jax.vmap(env.reset))(jax.random.split(jax.random.key(0), count))
    return functools.partial(run, start, jnp.asarray(actions))


def bare_batch(env: her_envs.FetchEnv, count: int, actions: np.ndarray) -> Callable[[], Any]:
    """MuJoCo's thread-pooled batch, driven from Python with the same control law."""
    start = jax.jit(jax.vmap(env.reset))(jax.random.split(jax.random.key(0), count))
    model = env.physics.scene.model
    batch = mujoco.batch.Batch(model, count)
    gripper = model.body("robot0:gripper_link").id
    fingers = [int(model.joint(f"robot0:{side}_gripper_finger_joint").qposadr[0]) for side in "lr"]
    actuated = model.jnt_qposadr[model.actuator_trnid[:, 0]]
    xpos, xquat, qpos, ctrl = (batch.bind(name) for name in ("xpos", "xquat", "qpos", "ctrl"))
    mocap_pos, mocap_quat = batch.bind("mocap_pos"), batch.bind("mocap_quat")
    rows = floats(np.asarray(start.physics.row))

    def run() -> None:
        batch.state[:] = rows
        batch.forward()
        for action in actions:
            if model.nu:
                ctrl[:] = qpos[:, actuated] + action[:, 3:]
            mocap_pos[:, 0] = xpos[:, gripper] + action[:, :3] * 0.05
            mocap_quat[:, 0] = xquat[:, gripper] + (1.0, 0.0, 1.0, 0.0)
            batch.step(nstep=SUBSTEPS)
            if not model.nu:
                qpos[:, fingers] = 0.0
                batch.forward()

    return run


def gym_loop(vector: Any, actions: np.ndarray) -> Callable[[], Any]:
    """A Gymnasium vector environment; its resets are not timed."""
    vector.reset(seed=0)

    def run() -> None:
        for action in actions:
            vector.step(action)

    return run


if __name__ == "__main__":
    tyro.cli(main)
