"""Success on requested goals that training never saw.

The held-out set of a task is fixed: initial states and goals drawn from keys that no training
seed leads to. No goal here was ever relabelled, no exploration noise is added, and the
environment's own tolerance decides.
"""

from __future__ import annotations

import functools
import hashlib
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from her_jax.rollout import Policy, play
from her_jax.types import GoalEnv, GoalObs, Key

_HELD_OUT = 0x48_45_52  # folded into the key of seed 0; training only ever splits


class Evaluation(NamedTuple):
    """Outcome on E held-out goals.

    Attributes:
      success: bool [E], goal reached at the last step; its mean is the headline.
      success_any: bool [E], goal reached after at least one step.
      distance: float32 [E], from the goal at the last step, in the goal's units.
    """

    success: jax.Array
    success_any: jax.Array
    distance: jax.Array


def held_out(episodes: int, seed: int = 0) -> Key:
    """Reset keys [E] of the held-out set; a longer set begins with the shorter one.

    Args:
      episodes: E.
      seed: another seed gives another set, equally disjoint from training.
    """
    root = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), _HELD_OUT), seed)
    return jax.vmap(functools.partial(jax.random.fold_in, root))(jnp.arange(episodes))


def evaluate(env: GoalEnv, policy: Policy, keys: Key) -> Evaluation:
    """Plays one episode for every held-out key [E].

    The policy should be deterministic: the key it is handed is the same in every episode.
    """
    chex.assert_rank(keys, 1)

    def one(key: Key) -> Evaluation:
        episode = play(env, policy, reset_key=key, policy_key=jax.random.key(0))
        achieved = episode.achieved_goal[1:]
        reached = env.success(achieved, jnp.broadcast_to(episode.desired_goal, achieved.shape))
        distance = jnp.linalg.norm(achieved[-1] - episode.desired_goal)
        return Evaluation(reached[-1], jnp.any(reached), distance)

    return jax.vmap(one)(keys)


def no_action(env: GoalEnv) -> Policy:
    """The policy that does nothing: its success is the floor of every figure."""

    def policy(key: Key, obs: GoalObs) -> jax.Array:
        del key, obs
        return jnp.zeros(env.action_size)

    return policy


def starts(env: GoalEnv, keys: Key) -> GoalObs:
    """What the agent sees at the start of the held-out episodes, [E, ...]."""
    return jax.vmap(env.reset)(keys).obs


def fingerprint(first: GoalObs) -> str:
    """Hash of a set of starts: goals and initially achieved goals, in millionths of a unit."""
    digest = hashlib.sha256()
    for values in (first.desired_goal, first.achieved_goal):
        digest.update(np.rint(np.asarray(values, np.float64) * 1e6).astype("<i8").tobytes())
    return digest.hexdigest()[:16]
