"""Fewest environment steps, by SAC with twice the updates.

Command:   python experiments/train.py fetch-push --preset efficient
Hardware:  one CPU core, no accelerator
Time:      about 12 minutes for FetchPush and 21 for FetchPickAndPlace, a third of three seeds'
Expected:  success 0.9 on 200 held-out goals within 5 cm by 0.14 M environment steps of FetchPush
           and 0.2 M of FetchPickAndPlace (medians of three seeds; one of each task does not get
           there)

The task's own preset with SAC for DDPG, which explores by its entropy and with a fifth of random
actions, with 128 replayed transitions for each environment step instead of 64, and with hindsight
goals wherever they lie. A step costs more than twice the seconds, so by the clock the task's own
preset is sooner.
"""

from __future__ import annotations

import dataclasses

import presets
from her_jax.config import Config
from presets import fetch_pick_and_place, fetch_push

_TUNED = {
    "FetchPush": (fetch_push, 140_000),
    "FetchPickAndPlace": (fetch_pick_and_place, 260_000),
}
"""The task's own preset, and environment steps."""


def config(task: str) -> Config:
    """Settings for FetchPush or FetchPickAndPlace."""
    module, env_steps = _TUNED[task]
    tuned = module.config(task)
    train = dataclasses.replace(tuned.train, updates_per_cycle=200, env_steps=env_steps)
    replay = dataclasses.replace(tuned.replay, min_displacement=0.0)
    return presets.with_agent(dataclasses.replace(tuned, train=train, replay=replay), "sac")
