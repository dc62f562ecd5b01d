"""Plays whole episodes."""

from __future__ import annotations

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp

from her_jax.types import Episode, GoalEnv, GoalObs, Key

Policy = Callable[[Key, GoalObs], jax.Array]
"""(key, unbatched observation) -> action [A]; consumes the key."""


def play(env: GoalEnv, policy: Policy, reset_key: Key, policy_key: Key) -> Episode:
    """Exactly `horizon` steps of one environment from a fresh reset; unbatched.

    Args:
      env: never resets itself.
      policy: chooses actions.
      reset_key: consumed by `env.reset`.
      policy_key: split into one key a step.
    """
    start = env.reset(reset_key)
    chex.assert_shape(start.obs.observation, (env.observation_size,))
    chex.assert_shape([start.obs.achieved_goal, start.obs.desired_goal], (env.goal_spec.size,))

    def step(state, key):
        action = policy(key, state.obs)
        chex.assert_shape(action, (env.action_size,))
        next_state = env.step(state, action)
        return next_state, (next_state.obs, action)

    _, (later, actions) = jax.lax.scan(step, start, jax.random.split(policy_key, env.horizon))
    observation, achieved_goal = (
        jnp.concatenate([first[None], rest])
        for first, rest in (
            (start.obs.observation, later.observation),
            (start.obs.achieved_goal, later.achieved_goal),
        )
    )
    return Episode(observation, achieved_goal, start.obs.desired_goal, actions)
