"""Plays whole episodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp

from her_jax.types import Episode, GoalEnv, GoalObs, Key

Policy = Callable[[Key, GoalObs], jax.Array]
"""(key, unbatched observation) -> action [A]; consumes the key."""


def play(env: GoalEnv, policy: Policy, start: Any, policy_key: Key) -> Episode:
    """Exactly `horizon` steps of one environment; unbatched.

    Args:
      env: never resets itself.
      policy: chooses actions.
      start: initial state and goal, from `env.draw` or a held-out set.
      policy_key: split into one key a step.
    """
    first = env.begin(start)
    chex.assert_shape(first.obs.observation, (env.observation_size,))
    chex.assert_shape([first.obs.achieved_goal, first.obs.desired_goal], (env.goal_spec.size,))
    chex.assert_shape(first.cost, (len(env.cost_specs),))

    def step(state, key):
        action = policy(key, state.obs)
        chex.assert_shape(action, (env.action_size,))
        next_state = env.step(state, action)
        return next_state, (next_state.obs, action, next_state.cost)

    _, (later, actions, costs) = jax.lax.scan(
        step, first, jax.random.split(policy_key, env.horizon)
    )
    return Episode(
        observation=jnp.concatenate([first.obs.observation[None], later.observation]),
        achieved_goal=jnp.concatenate([first.obs.achieved_goal[None], later.achieved_goal]),
        desired_goal=first.obs.desired_goal,
        action=actions,
        cost=costs,
    )
