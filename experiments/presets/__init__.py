"""Settings, one Python file each.

Each docstring states the command, the hardware, the time and the expected result.
"""

from __future__ import annotations

import dataclasses
import importlib

import her_envs
from her_jax.config import AGENTS, Config, EnvConfig
from her_jax.errors import UserError

TASKS = {
    "fetch-reach": "FetchReach",
    "fetch-push": "FetchPush",
    "fetch-slide": "FetchSlide",
    "fetch-pick-and-place": "FetchPickAndPlace",
    "bit-flip": "BitFlip",
}
"""Command-line names of the environments."""

_FETCH = tuple(task for task in TASKS if task != "bit-flip")

PRESETS = {
    "tuned": tuple(TASKS),
    "efficient": ("fetch-push", "fetch-pick-and-place"),
    "plappert2018": _FETCH,
    "accelerator": _FETCH,
}
"""Preset -> the tasks that it has settings for."""


def load(preset: str, task: str, bits: int = 10) -> Config:
    """The settings of `preset` for `task`.

    Args:
      preset: one of `PRESETS`; "tuned" is the task's own file.
      task: one of `TASKS`, by either name, or a registered environment, which "tuned" gives the
        defaults of every setting.
      bits: size of bit-flip, whose budget grows with it; without effect on other tasks.

    Raises:
      UserError: if either is unknown, or the preset has no settings for the task.
    """
    env = environment(task)
    task = word(env)
    if preset == "tuned" and env in her_envs.registered():
        return Config(env=EnvConfig(task=env))
    if preset not in PRESETS:
        known = ", ".join(PRESETS)
        raise UserError(f"preset: {preset!r} is unknown; choose one of {known}, or a run's folder")
    if task not in PRESETS[preset]:
        raise UserError(f"preset: {preset!r} has no settings for {task}; use tuned")
    name = task.replace("-", "_") if preset == "tuned" else preset
    module = importlib.import_module(f"{__name__}.{name}")
    return module.config(env, bits) if env == "BitFlip" else module.config(env)


_COMMON = (
    "hidden",
    "layer_norm",
    "actor_learning_rate",
    "critic_learning_rate",
    "discount",
    "target_rate",
    "target_period",
)


def with_agent(config: Config, name: str) -> Config:
    """The same settings for another agent: its own defaults, but for what both agents have.

    Args:
      config: settings whose agent's network sizes, learning rates, discount and targets are kept,
        as far as the other has them.
      name: one of `her_jax.config.AGENTS`.

    Raises:
      UserError: if the agent is unknown.
    """
    if name not in AGENTS:
        raise UserError(
            f"algorithm: {name!r} is unknown; choose one of {', '.join(AGENTS)}, or give the file "
            "that registers it by --plugin"
        )
    if name == config.agent.NAME:
        return config
    fields = {field.name for field in dataclasses.fields(AGENTS[name])}
    kept = {
        field: getattr(config.agent, field)
        for field in _COMMON
        if field in fields and hasattr(config.agent, field)
    }
    return dataclasses.replace(config, agent=AGENTS[name](**kept))


def word(environment: str) -> str:
    """The command-line name of an environment; a registered one has no other."""
    return {name: word for word, name in TASKS.items()}.get(environment, environment)


def environment(task: str) -> str:
    """The environment of a command-line name, or of its own.

    Raises:
      UserError: if it is unknown.
    """
    if task not in (*TASKS, *her_envs.names()):
        known = ", ".join((*TASKS, *her_envs.registered()))
        raise UserError(
            f"task: {task!r} is unknown; choose one of {known}, or give the file that registers it "
            "by --plugin"
        )
    return TASKS.get(task, task)


def with_envs(config: Config, num_envs: int) -> Config:
    """The same with another number of environments, and a buffer that it divides."""
    capacity = max(1, round(config.replay.capacity / num_envs)) * num_envs
    return dataclasses.replace(
        config,
        train=dataclasses.replace(config.train, num_envs=num_envs),
        replay=dataclasses.replace(config.replay, capacity=capacity),
    )
