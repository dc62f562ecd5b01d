"""The four Fetch tasks, and the only place where they differ.

References:
  Plappert et al. 2018, "Multi-Goal Reinforcement Learning" (arXiv:1802.09464), section 1.1;
  Gymnasium-Robotics 1.4.2, `envs/fetch/{reach,push,slide,pick_and_place}.py` (Fetch v4).
"""

from __future__ import annotations

import dataclasses

HORIZON = 50
"""Steps of an episode; the time limit of every Fetch task."""

SUBSTEPS = 20
"""MuJoCo steps of 2 ms in one environment step: 25 Hz control."""

DISTANCE_THRESHOLD = 0.05
"""Success tolerance in metres of all four tasks since Gym 0.10 (Plappert et al. 2018)."""


@dataclasses.dataclass(frozen=True)
class FetchTask:
    """Constants of one task; lengths in metres.

    Attributes:
      name: public name, as in `her_envs.make`.
      xml: file in the Fetch asset folder of gymnasium-robotics.
      has_object: whether there is an object; then its position is the achieved goal.
      block_gripper: whether the fingers are held shut and the fourth action ignored.
      gripper_extra_height: added to the height of the gripper's starting pose.
      target_in_the_air: whether half of an object's goals are lifted by U(0, 0.45) m; a gripper's
        goals lie in the whole box.
      target_offset: added to the goal.
      object_range: half side of the square around the gripper in which objects start.
      target_range: half side of the box around the gripper from which goals are drawn.
      initial_joints: joint name -> position before the arm is moved to its starting pose.
    """

    name: str
    xml: str
    has_object: bool
    block_gripper: bool
    gripper_extra_height: float
    target_in_the_air: bool
    target_offset: tuple[float, float, float]
    object_range: float
    target_range: float
    initial_joints: dict[str, tuple[float, ...]]


def _joints(x: float, *object_pose: float) -> dict[str, tuple[float, ...]]:
    base = {"robot0:slide0": (x,), "robot0:slide1": (0.48,), "robot0:slide2": (0.0,)}
    return base | ({"object0:joint": object_pose} if object_pose else {})


_BLOCK = (1.25, 0.53, 0.4, 1.0, 0.0, 0.0, 0.0)
_PUCK = (1.7, 1.1, 0.41, 1.0, 0.0, 0.0, 0.0)

TASKS = {
    task.name: task
    for task in (
        FetchTask(
            name="FetchReach",
            xml="reach.xml",
            has_object=False,
            block_gripper=True,
            gripper_extra_height=0.2,
            target_in_the_air=True,
            target_offset=(0.0, 0.0, 0.0),
            object_range=0.15,
            target_range=0.15,
            initial_joints=_joints(0.4049),
        ),
        FetchTask(
            name="FetchPush",
            xml="push.xml",
            has_object=True,
            block_gripper=True,
            gripper_extra_height=0.0,
            target_in_the_air=False,
            target_offset=(0.0, 0.0, 0.0),
            object_range=0.15,
            target_range=0.15,
            initial_joints=_joints(0.405, *_BLOCK),
        ),
        FetchTask(
            name="FetchSlide",
            xml="slide.xml",
            has_object=True,
            block_gripper=True,
            gripper_extra_height=-0.02,
            target_in_the_air=False,
            target_offset=(0.4, 0.0, 0.0),
            object_range=0.1,
            target_range=0.3,
            initial_joints=_joints(0.05, *_PUCK),
        ),
        FetchTask(
            name="FetchPickAndPlace",
            xml="pick_and_place.xml",
            has_object=True,
            block_gripper=False,
            gripper_extra_height=0.2,
            target_in_the_air=True,
            target_offset=(0.0, 0.0, 0.0),
            object_range=0.15,
            target_range=0.15,
            initial_joints=_joints(0.405, *_BLOCK),
        ),
    )
}
