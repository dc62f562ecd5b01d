"""The audit's compiled programs: one for all runs of an environment that differ in the seed only.

The seeds of a sweep are audited one after the other, and compiling takes longer than measuring.
Programs stay, and with them their environments, until the process ends; an environment must not
change meanwhile.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax

from her_jax import buffer, relabel, train
from her_jax.audit import measure
from her_jax.config import Config
from her_jax.types import Agent, GoalEnv, Key, Moment, Transition


def measured(
    env: GoalEnv, agent: Agent, config: Config, state: train.TrainState, starts: Any, key: Key
) -> measure.Measured:
    """`measure.measure`."""
    return _measured(_Itself(env), agent, *_settings(config), state, starts, key)


def replayed(
    env: GoalEnv, config: Config, replay: buffer.BufferState, steps: Moment, key: Key
) -> tuple[Transition, jax.Array]:
    """`train.replayed`."""
    return _replayed(_Itself(env), *_settings(config), replay, steps, key)


class _Itself:
    """A static argument that is equal to itself alone, whether or not it can be hashed."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Itself) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)


def _settings(config: Config) -> tuple[Config, relabel.Strategy]:
    """What tells programs apart: settings but the seed, and the strategy that their name means."""
    return dataclasses.replace(config, seed=0), relabel.STRATEGIES[config.replay.strategy]


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _measured(env, agent, config, strategy, state, starts, key):
    del strategy  # found by its name
    return measure.measure(env.value, agent, config, state, starts, key)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _replayed(env, config, strategy, replay, steps, key):
    del strategy  # found by its name
    return train.replayed(env.value, config, replay, steps, key)
