"""The environments against Gymnasium-Robotics' Fetch v4: to the bit in the simulator's state.

The original runs beside ours, on the same MuJoCo; recorded episodes are replayed too where a
checkout has them.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import her_envs
import original as original_env
import record
from conftest import REPO, fetch_reset, fetch_step, p_value

RECORDED = Path(os.environ.get("HER_JAX_REFERENCE", REPO.parent / "shared" / "reference"))


original = functools.cache(original_env.make)


def replay(env: her_envs.FetchEnv, episodes: dict[str, np.ndarray]) -> None:
    """Restores the episodes' first states [E, ...], replays their actions, compares all."""
    state = env.restore(episodes["state0"], episodes["goal"])
    step = fetch_step(env.name)
    np.testing.assert_array_equal(
        state.obs.observation, episodes["observation"][:, 0].astype(np.float32)
    )
    np.testing.assert_array_equal(env.physics.qpos(state.physics), episodes["qpos"][:, 0])
    for t in range(episodes["action"].shape[1]):
        state = step(state, jnp.asarray(episodes["action"][:, t]))
        np.testing.assert_array_equal(
            env.physics.qpos(state.physics), episodes["qpos"][:, t + 1], err_msg=f"step {t + 1}"
        )
        for field in ("observation", "achieved_goal"):
            np.testing.assert_array_equal(
                getattr(state.obs, field), episodes[field][:, t + 1].astype(np.float32)
            )
        achieved, desired = state.obs.achieved_goal, state.obs.desired_goal
        np.testing.assert_array_equal(env.reward(achieved, desired), episodes["reward"][:, t])
        np.testing.assert_array_equal(env.success(achieved, desired), episodes["success"][:, t])


def test_recorded_episodes(env):
    path = record.recorded_file(RECORDED, env.name)
    if not path.is_file():
        pytest.skip(f"{path.name} is not in this checkout")
    with np.load(path) as file:
        replay(env, dict(file))


def test_episodes_beside_the_original(env, tmp_path, monkeypatch):
    """Random actions, some beyond [-1, 1], and a script that pushes or grasps."""
    monkeypatch.setattr(original_env, "make", original)
    record.main((env.name,), episodes=6, out=tmp_path)
    with np.load(record.recorded_file(tmp_path, env.name)) as file:
        episodes = dict(file)
    assert np.abs(episodes["action"][:3]).max() > 1
    moved = np.linalg.norm(episodes["achieved_goal"] - episodes["achieved_goal"][:, :1], axis=-1)
    assert (moved.max(axis=1) > 0.01)[3:].all(), "the script never touched the object"
    replay(env, episodes)


def test_reset_starts_where_the_original_does(env):
    """Given the original's object position, our reset state is the original's, bit for bit."""
    other = original(env.name)
    rows, positions = [], []
    for seed in range(5):
        other.reset(seed=seed)
        rows.append(record.integration_state(other))
        positions.append(other.data.qpos[15:17].copy() if env.task.has_object else np.zeros(2))
    # float32 positions on the way in: put the same rounded values into the original's qpos.
    positions = np.asarray(positions).astype(np.float32)
    state, _ = jax.vmap(env.physics.reset)(jnp.asarray(positions))
    qpos = env.physics.qpos(state)
    expected = np.stack(rows)[:, 1 : 1 + env.physics.scene.model.nq]
    if env.task.has_object:
        np.testing.assert_array_equal(qpos[:, 15:17], positions)
        np.testing.assert_allclose(qpos[:, 15:17], expected[:, 15:17], rtol=0, atol=1e-7)
        expected[:, 15:17] = positions
    np.testing.assert_array_equal(qpos, expected)


def test_restored_reset_state_is_our_reset_state(env):
    """`state_at` of the original's reset gives the original's whole state, warm start included."""
    other = original(env.name)
    obs, _ = other.reset(seed=3)
    row = record.integration_state(other)
    state = env.state_at(other.data.qpos.copy(), other.data.qvel.copy(), obs["desired_goal"])
    from her_envs.physics.native import floats

    np.testing.assert_array_equal(floats(np.asarray(state.physics.row)), row)


def test_distributions_of_resets_and_goals(env):
    """Kolmogorov-Smirnov on every coordinate of object position and goal."""
    count = 600
    other = original(env.name)
    theirs = {"start": [], "goal": []}
    for seed in range(count):
        obs, _ = other.reset(seed=seed)
        theirs["start"].append(obs["achieved_goal"])
        theirs["goal"].append(obs["desired_goal"])
    ours = fetch_reset(env.name)(jax.random.split(jax.random.key(0), count)).obs
    pairs = [(ours.desired_goal, np.stack(theirs["goal"]))]
    if env.task.has_object:
        pairs.append((ours.achieved_goal, np.stack(theirs["start"])))
    for got, expected in pairs:
        for axis in range(3):
            a, b = np.asarray(got, np.float64)[:, axis], expected[:, axis]
            if np.ptp(b) < 1e-6:  # a height that never varies
                np.testing.assert_allclose(a, b.mean(), atol=1e-6)
            else:
                # Rounded, because resting heights are equal only to float32.
                assert p_value(stats.ks_2samp(a.round(6), b.round(6))) > 1e-4, axis
