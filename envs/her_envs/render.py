"""Pictures of a Fetch scene by MuJoCo's own ray caster.

It needs no OpenGL, display or GPU driver, so a video can be made wherever the simulation runs.
Rays give the nearest surface and its normal; a head light and a lamp shade it. The requested goal
is a red ball of 2 cm. Rays that end on what stands still in all pictures, as the robot's base with
its fine meshes, are cast once.
"""

# pyright: reportAttributeAccessIssue=false
# MuJoCo's bindings are compiled and come without type stubs.

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import mujoco
import numpy as np

from her_envs.fetch.env import FetchEnv, FetchState

# Where Gymnasium-Robotics' default camera of the Fetch tasks stands. Its field of view is the
# model's, 45 degrees; this one shows more of the table.
_LOOK_AT = np.array([1.3, 0.75, 0.55])
_DISTANCE = 2.5
_AZIMUTH, _ELEVATION = np.deg2rad(132.0), np.deg2rad(-14.0)
_FIELD_OF_VIEW = np.deg2rad(36.0)

_LAMP = np.array([0.3, -0.5, 0.8]) / np.linalg.norm([0.3, -0.5, 0.8])
_GOAL_RADIUS, _GOAL_COLOUR = 0.02, np.array([0.9, 0.1, 0.1])
_SKY = np.array([0.75, 0.82, 0.9])

_STILL, _MOVING, _HIDDEN = range(3)
"""Groups of geoms."""

_LAST_SHOWN = 2
"""Group of geoms up to which MuJoCo's viewers show them unless told otherwise."""

_UNSEEN_SHIFT = 1e-5
"""In m; a pixel is millimetres wide. Forces move the robot's base, which is on joints, by 1e-6."""


def frames(
    env: FetchEnv, states: FetchState, *, width: int = 320, height: int = 240
) -> Iterator[np.ndarray]:
    """Pictures of consecutive states.

    Args:
      env: the environment that the states are of.
      states: state with one leading axis, time.
      width: pixels.
      height: pixels.

    Yields:
      uint8 [height, width, 3] for each state.
    """
    eye, rays = _camera(width, height)
    poses = env.physics.qpos(states.physics)
    goals = np.asarray(states.obs.desired_goal, np.float64)
    model = _grouped(env.physics.scene.model, poses)
    colours = _geom_colours(model)
    backdrop = _cast(model, poses[0], eye, rays, _STILL)

    def draw(pose_and_goal: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        pose, goal = pose_and_goal
        hits = _nearest(backdrop, _cast(model, pose, eye, rays, _MOVING))
        picture = _shade(hits, colours, eye, rays, goal)
        return (255 * picture.clip(0, 1)).astype(np.uint8).reshape(height, width, 3)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield from pool.map(draw, zip(poses, goals, strict=True))


class _Hits(NamedTuple):
    """What n rays meet first: distance [n] in m, inf for nothing; normal [n, 3]; geom [n] or -1."""

    distance: np.ndarray
    normal: np.ndarray
    geom: np.ndarray


def _grouped(model: mujoco.MjModel, poses: np.ndarray) -> mujoco.MjModel:
    """A copy whose groups of geoms say which stand still in all poses [T, nq], and which move."""

    def places(pose: np.ndarray) -> np.ndarray:
        data = _posed(model, pose)
        # How far a turn moves what is farthest from the centre.
        turn = data.geom_xmat * model.geom_rbound[:, None]
        return np.concatenate([data.geom_xpos, turn], axis=-1)

    first = places(poses[0])
    shifts = np.max([np.abs(places(pose) - first).max(axis=-1) for pose in poses], axis=0)
    moving = shifts > _UNSEEN_SHIFT
    grouped = copy.copy(model)
    grouped.geom_group[:] = np.where(moving, _MOVING, _STILL)
    # Neither what viewers hide nor the mocap target's boxes are part of the scene.
    grouped.geom_group[model.geom_group > _LAST_SHOWN] = _HIDDEN
    grouped.geom_group[model.geom_bodyid == model.body("robot0:mocap").id] = _HIDDEN
    return grouped


def _camera(width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Position [3] and unit ray directions [height * width, 3], top row first."""
    forward = np.array(
        [
            np.cos(_ELEVATION) * np.cos(_AZIMUTH),
            np.cos(_ELEVATION) * np.sin(_AZIMUTH),
            np.sin(_ELEVATION),
        ]
    )
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    up = np.cross(right, forward)
    half = np.tan(_FIELD_OF_VIEW / 2)
    y, x = np.meshgrid(
        np.linspace(half, -half, height),
        np.linspace(-half, half, width) * width / height,
        indexing="ij",
    )
    rays = forward + x[..., None] * right + y[..., None] * up
    rays = rays.reshape(-1, 3)
    return _LOOK_AT - _DISTANCE * forward, rays / np.linalg.norm(rays, axis=-1, keepdims=True)


def _posed(model: mujoco.MjModel, pose: np.ndarray) -> mujoco.MjData:
    """Data with the bodies where joint positions [nq] put them."""
    data = mujoco.MjData(model)
    data.qpos[:] = pose
    mujoco.mj_kinematics(model, data)
    return data


def _cast(
    model: mujoco.MjModel, pose: np.ndarray, eye: np.ndarray, rays: np.ndarray, group: int
) -> _Hits:
    """The nearest geoms of one group."""
    data = _posed(model, pose)
    count = len(rays)
    geom = np.zeros(count, np.int32)
    distance, normal = np.zeros(count), np.zeros(3 * count)
    wanted = (np.arange(mujoco.mjNGROUP) == group).astype(np.uint8)
    nobody, far = -1, 1e3
    mujoco.mj_multiRay(
        model, data, eye, rays.ravel(), wanted, True, nobody, geom, distance, normal, count, far
    )
    return _Hits(np.where(geom < 0, np.inf, distance), normal.reshape(-1, 3), geom)


def _nearest(a: _Hits, b: _Hits) -> _Hits:
    """The nearer of two for each ray."""
    first = a.distance <= b.distance
    return _Hits(
        np.where(first, a.distance, b.distance),
        np.where(first[:, None], a.normal, b.normal),
        np.where(first, a.geom, b.geom),
    )


def _shade(
    hits: _Hits, colours: np.ndarray, eye: np.ndarray, rays: np.ndarray, goal: np.ndarray
) -> np.ndarray:
    """Colours [n, 3] in 0..1 of what is met, the goal's ball included."""
    nothing = hits.geom < 0
    surface = np.where(nothing[:, None], _SKY, colours[hits.geom])
    light = np.where(nothing, 1.0, _light(rays, hits.normal))
    ball, ball_normal = _ball(eye, rays, goal)
    hit = (ball > 0) & (ball < hits.distance)
    surface[hit] = _GOAL_COLOUR
    light[hit] = _light(rays[hit], ball_normal[hit])
    return surface * light[:, None]


def _light(rays: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """Brightness [n] of surfaces with outward normals [n, 3]."""
    head = np.abs(np.sum(rays * normal, axis=-1))
    return 0.25 + 0.4 * head + 0.45 * (normal @ _LAMP).clip(0)


def _ball(eye: np.ndarray, rays: np.ndarray, centre: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance [n] to the goal's ball, -1 for a miss, and its normals [n, 3]."""
    towards = centre - eye
    along = rays @ towards
    inside = _GOAL_RADIUS**2 - (towards @ towards - along**2)
    distance = np.where(inside > 0, along - np.sqrt(inside.clip(0)), -1.0)
    return distance, (eye + distance[:, None] * rays - centre) / _GOAL_RADIUS


def _geom_colours(model: mujoco.MjModel) -> np.ndarray:
    """Colours [ngeom, 3] from material or geom."""
    material = model.geom_matid
    colours = np.where(
        (material >= 0)[:, None],
        model.mat_rgba[np.maximum(material, 0)],
        model.geom_rgba,
    )
    return colours[:, :3].astype(np.float64)
