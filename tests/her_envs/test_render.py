from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

import her_envs
from conftest import fetch, fetch_reset, fetch_step
from her_envs import render
from her_envs.fetch import prune


def pictures(env, keys):
    return np.stack(list(render.frames(env, fetch_reset(env.name)(keys), width=160, height=120)))


def red(picture):
    """Mask of the goal's colour: red and little else."""
    r, g, b = (picture[..., i].astype(int) for i in range(3))
    return (r > 60) & (r > 4 * g) & (r > 4 * b)


def test_shows_the_goal_and_moves_with_it(env):
    frames = pictures(env, jax.random.split(jax.random.key(0), 8))
    assert frames.shape == (8, 120, 160, 3) and frames.dtype == np.uint8
    centres = [np.argwhere(red(frame)).mean(0) for frame in frames if red(frame).sum() > 3]
    assert len(centres) >= 4
    assert np.ptp(np.stack(centres), axis=0).max() > 3
    # Sky, floor, table and robot give a picture with some contrast.
    assert frames.std() > 30


def test_the_box_in_the_palm_of_a_pruned_model_is_not_drawn():
    env = her_envs.make("FetchReach", model="fast")
    model, pose = env.physics.scene.model, env.physics.scene.row[1:][None]
    grouped = render._grouped(model, pose[:, : model.nq])
    hidden = {model.geom(i).name for i in np.flatnonzero(grouped.geom_group == render._HIDDEN)}
    assert prune.PALM in hidden
    assert not {"table0", "robot0:r_gripper_finger_link"} & hidden


def test_shows_the_object_where_it_is():
    env = fetch("FetchPush")
    keys = jax.random.split(jax.random.key(1), 2)
    state = fetch_reset(env.name)(keys)
    same_goal = state.replace(
        obs=state.obs._replace(desired_goal=np.tile(state.obs.desired_goal[:1], (2, 1)))
    )
    first, second = render.frames(env, same_goal, width=160, height=120)
    assert (first != second).any(axis=-1).sum() > 20


def test_what_stands_still_is_drawn_once_and_alike():
    env = fetch("FetchPush")
    first = fetch_reset(env.name)(jax.random.split(jax.random.key(2), 2))
    later = fetch_step(env.name)(first, jnp.array([[1.0, 0.0, -1.0, 0.0], [0.0, -1.0, 0.0, 0.0]]))
    states = jax.tree.map(lambda *pair: jnp.concatenate(pair), first, later)
    size = {"width": 64, "height": 48}
    together = list(render.frames(env, states, **size))
    singles = (jax.tree.map(lambda x, i=i: x[i : i + 1], states) for i in range(4))
    alone = [next(render.frames(env, single, **size)) for single in singles]
    assert (together[0] != together[2]).any(), "the arm has moved"
    poses = env.physics.qpos(states.physics)
    assert np.ptp(poses[:, :3], axis=0).all(), "and the base, too little to be seen"
    group = render._grouped(env.physics.scene.model, poses).geom_group
    assert group[env.physics.scene.model.geom("robot0:base_link").id] == render._STILL
    np.testing.assert_array_equal(together, alone)
