from __future__ import annotations

import jax
import numpy as np

from conftest import fetch, fetch_reset
from her_envs import render


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


def test_shows_the_object_where_it_is():
    env = fetch("FetchPush")
    keys = jax.random.split(jax.random.key(1), 2)
    state = fetch_reset(env.name)(keys)
    same_goal = state.replace(
        obs=state.obs._replace(desired_goal=np.tile(state.obs.desired_goal[:1], (2, 1)))
    )
    first, second = render.frames(env, same_goal, width=160, height=120)
    assert (first != second).any(axis=-1).sum() > 20
