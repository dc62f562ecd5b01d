"""Off-policy algorithms behind the `her_jax.types.Agent` protocol, by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection
from typing import Any

import jax
import jax.numpy as jnp

from her_jax.agents.ddpg import DDPG
from her_jax.agents.dqn import DQN
from her_jax.agents.sac import SAC
from her_jax.agents.td3 import TD3
from her_jax.config import (
    AGENTS,
    AgentConfig,
    DDPGConfig,
    DQNConfig,
    EnvConfig,
    NormalizerConfig,
    ReplayConfig,
    SACConfig,
    TD3Config,
    TrainConfig,
)
from her_jax.errors import UserError, reason
from her_jax.types import Agent, Batch, GoalEnv

_CLASSES: dict[type[Any], Callable[[Any, int], Agent]] = {
    DDPGConfig: DDPG,
    TD3Config: TD3,
    SACConfig: SAC,
    DQNConfig: DQN,
}
"""Settings -> what makes an agent of them and of the number of its actions A."""

_BUILT_IN = frozenset(AGENTS)

_OTHER_SETTINGS = {"seed", "preset", "algorithm", "out", "video"} | {
    field.name
    for part in (EnvConfig, TrainConfig, ReplayConfig, NormalizerConfig)
    for field in dataclasses.fields(part)
}
"""Names of options that are of no agent."""


def make(config: AgentConfig, env: GoalEnv) -> Agent:
    """The agent that a configuration describes, for the actions of an environment.

    Raises:
      UserError: if the agent and the environment's actions do not fit, nobody has registered it, or
        it cannot be made.
    """
    if type(config) not in _CLASSES:
        raise UserError(f"agent: {type(config).__name__} is unknown; register it first")
    if env.discrete != config.DISCRETE:
        kind = "discrete" if env.discrete else "continuous"
        fits = [name for name, one in AGENTS.items() if env.discrete == one.DISCRETE]
        raise UserError(
            f"agent: {config.NAME!r} does not fit the {kind} actions of {env.name}; "
            f"use {' or '.join(fits)}"
        )
    try:
        return _CLASSES[type(config)](config, env.action_size)
    except Exception as error:  # whatever a user's class may raise
        raise UserError(
            f"agent: {config.NAME!r} cannot be made of its settings and the number of actions: "
            f"{reason(error)}; mend it"
        ) from error


def register(settings: type[Any], agent: Callable[[Any, int], Agent]) -> None:
    """Adds an agent under the name of its settings, which a `Config` may then hold.

    Args:
      settings: a frozen dataclass of plain values with defaults, whose class has `NAME` and
        `DISCRETE`, e.g. a subclass of a built-in agent's; one of its fields is the `discount`, and
        none has the name of another setting of a run.
      agent: a class, or what else makes an agent of settings and the number of actions A.

    Raises:
      UserError: if the settings are no such class, or the name is a built-in agent's.
    """
    own = vars(settings).get("__dataclass_params__")  # a parent's says nothing of new fields
    if own is None or not own.frozen or not hasattr(settings, "DISCRETE"):
        raise UserError(
            f"agent: {settings.__name__} is no frozen dataclass with NAME and DISCRETE; see "
            "her_jax.agents.register"
        )
    fields = dataclasses.fields(settings)
    names = {field.name for field in fields}
    missing = dataclasses.MISSING
    bare = [x.name for x in fields if x.default is missing and x.default_factory is missing]
    if bare or "discount" not in names:
        what = f"no default for {', '.join(bare)}" if bare else "no discount"
        raise UserError(f"agent: {settings.__name__} has {what}; mend it")
    for field in fields:
        made = field.default_factory
        default = field.default if made is missing else made()
        if not isinstance(default, bool | int | float | str | tuple):
            raise UserError(
                f"agent: the default of {field.name} in {settings.__name__} is no number, text or "
                "tuple; make it one"
            )
    if taken := names & _OTHER_SETTINGS:
        raise UserError(
            f"agent: {', '.join(sorted(taken))} of {settings.__name__} is another setting's name; "
            "rename it"
        )
    if settings.NAME in _BUILT_IN:
        raise UserError(f"agent: {settings.NAME!r} is a built-in one; choose another NAME")
    _CLASSES.pop(AGENTS.get(settings.NAME, settings), None)
    AGENTS[settings.NAME] = settings
    _CLASSES[settings] = agent


def registered() -> tuple[str, ...]:
    """Names that `register` added."""
    return tuple(name for name in AGENTS if name not in _BUILT_IN)


def forget(names: Collection[str] | None = None) -> None:
    """Removes what `register` added, or what of it has one of these names."""
    for name in registered():
        if names is None or name in names:
            del _CLASSES[AGENTS.pop(name)]


def require(agent: Agent, config: AgentConfig, env: GoalEnv) -> None:
    """Refuses a registered agent that does not keep the protocol, before anything compiles.

    Raises:
      UserError: says what it lacks, or what it does instead.
    """
    if config.NAME in _BUILT_IN:
        return
    size, actions, rows = env.observation_size + env.goal_spec.size, env.action_size, 3
    of_state, of_row = jnp.zeros((rows, size)), jnp.zeros(rows)
    batch = Batch(of_state, jnp.zeros((rows, actions)), of_row, of_row, of_state)

    def use(key: jax.Array) -> Any:
        learner = agent.init(key, size)
        counter = learner.updates
        later, metrics = agent.update(learner, batch, key)
        acts = agent.act(learner, of_state), agent.act(agent.acting(learner), of_state)
        single = agent.act(learner, of_state[0]), agent.explore(learner, of_state[0], key)
        return counter, learner, later, metrics, *acts, *single

    try:
        updates, learner, later, metrics, *acts = jax.eval_shape(use, jax.random.key(0))
        found = list(map(_kind, (updates, *acts)))
        figures = [value.shape for value in metrics.values()]
    except Exception as error:  # whatever a user's agent may raise
        raise UserError(f"agent: {config.NAME!r} fails: {reason(error)}; mend it") from error
    many, one = ((rows, actions), jnp.float32), ((actions,), jnp.float32)
    for what, is_so in (
        ("`updates` is no int32 []", found[0] == ((), jnp.int32)),
        ("`act` gives no float32 [..., A]", found[1:4] == [many, many, one]),
        ("`explore` gives no float32 [A]", found[4] == one),
        ("`update` gives a state of another kind", _kinds(later) == _kinds(learner)),
        ("`update` gives metrics that are no scalars", set(figures) <= {()}),
    ):
        if not is_so:
            raise UserError(f"agent: {config.NAME!r}: {what}; see her_jax.types.Agent")


def _kind(x: Any) -> Any:
    return x.shape, x.dtype


def _kinds(tree: Any) -> Any:
    return jax.tree.structure(tree), list(map(_kind, jax.tree.leaves(tree)))


__all__ = ["DDPG", "DQN", "SAC", "TD3", "make", "register"]
