"""Pictures of a Fetch scene by MuJoCo's own ray caster.

It needs no OpenGL, display or GPU driver, so a video can be made wherever the simulation runs.
Rays give the nearest surface and its normal; a head light and a lamp shade it. The requested goal
is a red ball of 2 cm.
"""

# pyright: reportAttributeAccessIssue=false
# MuJoCo's bindings are compiled and come without type stubs.

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import mujoco
import numpy as np

from her_envs.fetch.env import FetchEnv, FetchState

# Gymnasium-Robotics' default camera of the Fetch tasks.
_LOOK_AT = np.array([1.3, 0.75, 0.55])
_DISTANCE = 2.5
_AZIMUTH, _ELEVATION = np.deg2rad(132.0), np.deg2rad(-14.0)
_FIELD_OF_VIEW = np.deg2rad(36.0)

_LAMP = np.array([0.3, -0.5, 0.8]) / np.linalg.norm([0.3, -0.5, 0.8])
_GOAL_RADIUS, _GOAL_COLOUR = 0.02, np.array([0.9, 0.1, 0.1])
_SKY = np.array([0.75, 0.82, 0.9])


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

    def draw(pose_and_goal: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        pose, goal = pose_and_goal
        colours = _cast(env.physics.scene.model, pose, eye, rays, goal)
        return (255 * colours.clip(0, 1)).astype(np.uint8).reshape(height, width, 3)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield from pool.map(draw, zip(poses, goals, strict=True))


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


def _cast(
    model: mujoco.MjModel,
    pose: np.ndarray,
    eye: np.ndarray,
    rays: np.ndarray,
    goal: np.ndarray,
) -> np.ndarray:
    """Colours [rays, 3] in 0..1 of what each ray meets first."""
    data = mujoco.MjData(model)
    data.qpos[:] = pose
    mujoco.mj_kinematics(model, data)
    count = len(rays)
    geom = np.zeros(count, np.int32)
    distance, normal = np.zeros(count), np.zeros(3 * count)
    markers = model.body("robot0:mocap").id  # the mocap target's boxes are not part of the scene
    mujoco.mj_multiRay(
        model,
        data,
        eye,
        rays.ravel(),
        None,
        True,
        markers,
        geom,
        distance,
        normal,
        count,
        1e3,
    )
    surface = _geom_colours(model)[geom]
    surface[geom < 0] = _SKY
    light = _light(rays, normal.reshape(-1, 3))
    light[geom < 0] = 1.0
    ball, ball_normal = _ball(eye, rays, goal)
    hit = (ball > 0) & ((ball < distance) | (geom < 0))
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
