"""Records episodes of the original environments, with the simulator's whole states.

Command:   python benchmarks/record.py [--tasks FetchPush] [--out FOLDER]
Time:      half a minute

Half of the episodes have random actions, half a clumsy script that ends in contact. `python
benchmarks/fidelity.py --recorded FOLDER` measures one step from each state of them. A file a task,
`public_fetch_TASK.npz`, holds

    state0                        [E, n]      mjSTATE_INTEGRATION after the reset, float64
    qpos                          [E, 51, q]  after the reset and after every step
    observation, achieved_goal    [E, 51, .]  likewise
    goal, action                  [E, 3], [E, 50, 4]
    reward, success               [E, 50]     of every step
"""

# pyright: reportAttributeAccessIssue=false
# MuJoCo's bindings are compiled and come without type stubs.

from __future__ import annotations

from pathlib import Path
from typing import Any

import mujoco
import numpy as np

import harness
import launch
import original
from her_envs.fetch.tasks import HORIZON, TASKS

Episode = dict[str, np.ndarray]


def main(
    tasks: tuple[str, ...] = tuple(TASKS),
    episodes: int = 20,
    seed: int = 0,
    smoke: bool = False,
    out: Path | None = None,
) -> None:
    """Record episodes of Gymnasium-Robotics' Fetch v4.

    Args:
      tasks: Environments.
      episodes: Episodes of each task, the second half scripted.
      seed: Of the first episode's reset and actions; the next ones count on from it.
      smoke: A tiny run that only shows that everything works.
      out: Folder of the files; those in it are replaced. Default runs/benchmarks/recorded.
    """
    tasks = harness.fetch_tasks(tasks)
    harness.require_positive(episodes=episodes)
    if smoke:
        tasks, episodes = tasks[:1], 2
    out = out or harness.MEASURED / f"recorded{'-smoke' if smoke else ''}"
    for task in tasks:
        path = recorded_file(out, task)
        arrays: Any = episodes_of(original.make(task), range(seed, seed + episodes))
        with launch.writing("out", path):
            out.mkdir(parents=True, exist_ok=True)
            np.savez_compressed(path, **arrays)
        print(f"wrote {path}", flush=True)


def recorded_file(folder: Path, task: str) -> Path:
    """Where the episodes of a task lie."""
    return folder / f"public_fetch_{task.removeprefix('Fetch').lower()}.npz"


def episodes_of(env: Any, seeds: range) -> Episode:
    """Episodes of some seeds, stacked: those of the first half random, the others scripted."""
    scripted = seeds[len(seeds) // 2 :]
    return stacked([(script if seed in scripted else random)(env, seed) for seed in seeds])


def stacked(episodes: list[Episode]) -> Episode:
    """Arrays of episodes [E, ...]."""
    return {name: np.stack([episode[name] for episode in episodes]) for name in episodes[0]}


def random(env: Any, seed: int) -> Episode:
    """An episode of random actions, some beyond [-1, 1], which the original clips."""
    actions = np.random.default_rng(seed).uniform(-1.3, 1.3, (HORIZON, 4)).astype(np.float32)
    return record(env, seed, actions)


def script(env: Any, seed: int) -> Episode:
    """An episode in which the gripper goes to the object and touches it."""
    rng = np.random.default_rng(seed)
    obs, _ = env.reset(seed=seed)
    actions = []
    for _ in range(HORIZON):
        actions.append(towards_object(obs, rng))
        obs, *_ = env.step(actions[-1])
    return record(env, seed, np.stack(actions))


def record(env: Any, seed: int, actions: np.ndarray) -> Episode:
    """One episode of given actions [50, 4]."""
    obs, _ = env.reset(seed=seed)
    state0, goal = integration_state(env), obs["desired_goal"].copy()
    rows = {"qpos": [env.data.qpos.copy()], "reward": [], "success": []}
    for field in ("observation", "achieved_goal"):
        rows[field] = [obs[field]]
    for action in actions:
        obs, reward, _, _, info = env.step(action)
        rows["qpos"].append(env.data.qpos.copy())
        rows["reward"].append(reward)
        rows["success"].append(info["is_success"])
        for field in ("observation", "achieved_goal"):
            rows[field].append(obs[field])
    arrays = {name: np.asarray(values) for name, values in rows.items()}
    return arrays | {"state0": state0, "goal": goal, "action": actions}


def integration_state(env: Any) -> np.ndarray:
    """The simulator's whole state, float64 [n]."""
    spec = mujoco.mjtState.mjSTATE_INTEGRATION
    row = np.empty(mujoco.mj_stateSize(env.model, spec))
    mujoco.mj_getState(env.model, env.data, row, spec)
    return row


def towards_object(obs: dict[str, np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """A clumsy scripted action [4] that ends in contact: over the object, down, closing."""
    grip, position = obs["observation"][:3], obs["achieved_goal"]
    offset = position - grip
    high = np.linalg.norm(offset[:2]) > 0.03
    offset[2] += 0.06 if high else 0.0
    move = np.clip(offset / 0.05 + rng.normal(0, 0.2, 3), -1, 1)
    return np.append(move, 1.0 if high else -1.0).astype(np.float32)


if __name__ == "__main__":
    harness.run(main)
