"""Off-policy algorithms behind the `her_jax.types.Agent` protocol, by name."""

from __future__ import annotations

from her_jax.agents.ddpg import DDPG
from her_jax.agents.dqn import DQN
from her_jax.agents.sac import SAC
from her_jax.agents.td3 import TD3
from her_jax.config import AGENTS, AgentConfig, DDPGConfig, DQNConfig, SACConfig, TD3Config
from her_jax.errors import UserError
from her_jax.types import Agent, GoalEnv


def make(config: AgentConfig, env: GoalEnv) -> Agent:
    """The agent that a configuration describes, for the actions of an environment.

    Raises:
      UserError: if the agent and the environment's actions do not fit.
    """
    if env.discrete != config.DISCRETE:
        kind = "discrete" if env.discrete else "continuous"
        fits = [name for name, one in AGENTS.items() if env.discrete == one.DISCRETE]
        raise UserError(
            f"agent: {config.NAME!r} does not fit the {kind} actions of {env.name}; "
            f"use {' or '.join(fits)}"
        )
    match config:
        case DDPGConfig():
            return DDPG(config, env.action_size)
        case TD3Config():
            return TD3(config, env.action_size)
        case SACConfig():
            return SAC(config, env.action_size)
        case DQNConfig():
            return DQN(config, env.action_size)


__all__ = ["DDPG", "DQN", "SAC", "TD3", "make"]
