"""Hundreds of environments on an accelerator.

Command:   python experiments/train.py fetch-push --preset accelerator --physics warp
Hardware:  one GPU; made for it and not yet run on one
Time:      unknown
Expected:  unknown; a start for tuning

The task's own preset, with 512 environments for its 16, ten times its updates a cycle, a ring of
20,480 episodes, and a budget of 3 M steps, scored every two cycles. There simulations are cheap and
updates wait for kernel launches, so a third of the updates an environment step buys seconds with
steps.
"""

from __future__ import annotations

import dataclasses

from her_jax.config import Config
from presets import fetch_pick_and_place, fetch_push, fetch_reach, fetch_slide

_TUNED = {
    "FetchReach": fetch_reach,
    "FetchPush": fetch_push,
    "FetchSlide": fetch_slide,
    "FetchPickAndPlace": fetch_pick_and_place,
}
_ENVS = 512
_MORE_UPDATES = 10
_EPOCHS = 60


def config(task: str) -> Config:
    """Settings for any Fetch task."""
    tuned = _TUNED[task].config(task)
    updates = _MORE_UPDATES * tuned.train.updates_per_cycle
    cycles = 2
    train = dataclasses.replace(
        tuned.train,
        num_envs=_ENVS,
        updates_per_cycle=updates,
        cycles_per_epoch=cycles,
        checkpoint_period=10,
        env_steps=_EPOCHS * cycles * _ENVS * 50,
    )
    replay = dataclasses.replace(tuned.replay, capacity=40 * _ENVS)
    return dataclasses.replace(tuned, train=train, replay=replay)
