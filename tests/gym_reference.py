"""Episodes of the original environments, in the format of recorded reference files."""

# pyright: reportAttributeAccessIssue=false
# MuJoCo's bindings are compiled and come without type stubs.

from __future__ import annotations

import mujoco
import numpy as np


def integration_state(env) -> np.ndarray:
    """The simulator's whole state, float64 [n]."""
    spec = mujoco.mjtState.mjSTATE_INTEGRATION
    row = np.empty(mujoco.mj_stateSize(env.model, spec))
    mujoco.mj_getState(env.model, env.data, row, spec)
    return row


def record(env, seed: int, actions: np.ndarray) -> dict[str, np.ndarray]:
    """One episode of given actions, in the format of recorded reference files."""
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


def towards_object(obs: dict[str, np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """A clumsy scripted action that ends in contact: over the object, down, closing."""
    grip, position = obs["observation"][:3], obs["achieved_goal"]
    offset = position - grip
    high = np.linalg.norm(offset[:2]) > 0.03
    offset[2] += 0.06 if high else 0.0
    move = np.clip(offset / 0.05 + rng.normal(0, 0.2, 3), -1, 1)
    return np.append(move, 1.0 if high else -1.0).astype(np.float32)
