"""Plays whole episodes, and tells those in which the simulation failed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp

from her_jax.types import Episode, GoalEnv, GoalObs, Key

Policy = Callable[[Key, GoalObs], jax.Array]
"""(key, unbatched observation) -> action [A]; consumes the key."""


def play(env: GoalEnv, policy: Policy, start: Any, policy_key: Key) -> tuple[Episode, jax.Array]:
    """Exactly `horizon` steps of one environment; unbatched.

    Args:
      env: never resets itself.
      policy: chooses actions.
      start: initial state and goal, from `env.draw` or a held-out set.
      policy_key: split into one key a step.

    Returns:
      The episode, and in how many steps contacts were dropped for lack of room, int32 [].
    """
    first = env.begin(start)
    chex.assert_shape(first.obs.observation, (env.observation_size,))
    chex.assert_shape([first.obs.achieved_goal, first.obs.desired_goal], (env.goal_spec.size,))
    chex.assert_shape(first.cost, (len(env.cost_specs),))

    def step(state, key):
        action = policy(key, state.obs)
        chex.assert_shape(action, (env.action_size,))
        next_state = env.step(state, action)
        return next_state, (next_state.obs, action, next_state.cost, next_state.dropped)

    _, (later, actions, costs, dropped) = jax.lax.scan(
        step, first, jax.random.split(policy_key, env.horizon)
    )
    episode = Episode(
        observation=jnp.concatenate([first.obs.observation[None], later.observation]),
        achieved_goal=jnp.concatenate([first.obs.achieved_goal[None], later.achieved_goal]),
        desired_goal=first.obs.desired_goal,
        action=actions,
        cost=costs,
    )
    return episode, jnp.sum(dropped)


def broken(episodes: Episode) -> jax.Array:
    """Whether something in an episode, its actions included, is not finite; bool [...]."""
    leading = episodes.desired_goal.ndim - 1
    finite = [
        jnp.isfinite(leaf).all(axis=tuple(range(leading, leaf.ndim)))
        for leaf in jax.tree.leaves(episodes)
    ]
    return ~jnp.all(jnp.stack(finite), axis=0)


def without_broken(episodes: Episode, is_broken: jax.Array) -> Episode:
    """Episodes [N, ...] with copies of the first whole one in place of those that are broken [N].

    Their number must not change inside a compiled program. If all are broken, they stay, and
    whoever learns from them sees figures that are not finite, which ends a run.
    """
    chex.assert_shape(is_broken, episodes.desired_goal.shape[:1])
    source = jnp.where(is_broken, jnp.argmin(is_broken), jnp.arange(is_broken.size))
    return jax.tree.map(lambda x: x[source], episodes)
