"""Holds every action for several environment steps.

Decisions become coarser and exploration reaches further; the physics of a step is untouched. What
is stored and scored is the state after every action, so success at any step, sums of rewards and
the worst step's cost are of actions, not of steps.
"""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import jax
import jax.numpy as jnp

from her_jax.errors import UserError
from her_jax.types import CostSpec, EnvState, GoalEnv, GoalSpec, Key, RewardPair, Start


@dataclasses.dataclass(frozen=True)
class Repeated(GoalEnv):
    """An environment whose step is `times` steps of another.

    Its costs are sums over those steps, so that an episode's sum stays what it was; if a simulation
    breaks in any of them, the observation of the last is not a number.

    Attributes:
      env: the environment; its states have `replace`, as those of `flax.struct` have.
      times: steps for which an action is held; they divide the environment's horizon.

    Raises:
      UserError: if they do not.
    """

    env: GoalEnv
    times: int

    def __post_init__(self) -> None:
        if self.times < 1 or self.env.horizon % self.times:
            raise UserError(
                f"action_repeat: {self.times} does not divide {self.env.horizon}; try 1"
            )

    @property
    def name(self) -> str:
        """That of the environment."""
        return self.env.name

    @property
    def horizon(self) -> int:
        """Decisions of an episode."""
        return self.env.horizon // self.times

    @property
    def steps_per_action(self) -> int:
        """Steps for which an action is held."""
        return self.env.steps_per_action * self.times

    @property
    def seconds_per_action(self) -> float | None:
        """Seconds for which an action is held."""
        seconds = self.env.seconds_per_action
        return None if seconds is None else seconds * self.times

    @property
    def simulator(self) -> str | None:
        """That of the environment."""
        return self.env.simulator

    @property
    def observation_size(self) -> int:
        """That of the environment."""
        return self.env.observation_size

    @property
    def action_size(self) -> int:
        """That of the environment."""
        return self.env.action_size

    @property
    def discrete(self) -> bool:
        """That of the environment."""
        return self.env.discrete

    @property
    def bytes_per_env(self) -> int:
        """That of the environment."""
        return self.env.bytes_per_env

    @property
    def goal_spec(self) -> GoalSpec:
        """That of the environment."""
        return self.env.goal_spec

    @property
    def cost_specs(self) -> tuple[CostSpec, ...]:
        """Those of the environment, summed."""
        suffix = f" Summed over the {self.times} steps of an action."
        return tuple(cost._replace(meaning=cost.meaning + suffix) for cost in self.env.cost_specs)

    @property
    def reward_pairs(self) -> tuple[RewardPair, ...]:
        """Those of the environment."""
        return self.env.reward_pairs

    @property
    def held_out_file(self) -> pathlib.Path | None:
        """That of the environment."""
        return self.env.held_out_file

    def draw(self, key: Key) -> Start:
        """As the environment; consumes `key`."""
        return self.env.draw(key)

    def begin(self, start: Any) -> EnvState:
        """As the environment."""
        return self.env.begin(start)

    def step(self, state: Any, action: jax.Array) -> EnvState:
        """Advances by `times` steps under one action [A]."""
        first = self.env.step(state, action)

        def again(_: Any, reached: Any) -> Any:
            later: Any = self.env.step(reached, action)
            seen, intact = later.obs.observation, jnp.isfinite(reached.obs.observation).all()
            return later.replace(
                obs=later.obs._replace(observation=jnp.where(intact, seen, jnp.nan)),
                cost=reached.cost + later.cost,
                dropped=reached.dropped | later.dropped,
            )

        return jax.lax.fori_loop(1, self.times, again, first)

    def reward(self, achieved_goal: jax.Array, desired_goal: jax.Array) -> jax.Array:
        """As the environment."""
        return self.env.reward(achieved_goal, desired_goal)

    def success(self, achieved_goal: jax.Array, desired_goal: jax.Array) -> jax.Array:
        """As the environment."""
        return self.env.success(achieved_goal, desired_goal)
