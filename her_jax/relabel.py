"""Hindsight: which goal a stored step is replayed with.

A strategy says where in the buffer the substitute goal was achieved. It is a pure, unbatched
function of a key, the step's moment, the number of stored episodes and the horizon. Relabelling
changes a label; observation, action and next observation are read as stored.

References:
  Andrychowicz et al. 2017, "Hindsight Experience Replay" (arXiv:1707.01495), algorithm 1 and
  section 4.5; OpenAI Baselines, `baselines/her/her_sampler.py`.
"""

from __future__ import annotations

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp

from her_jax.types import Episode, Key, Moment, Transition

Strategy = Callable[[Key, Moment, jax.Array, int], Moment]
"""(key, moment of the step, stored episodes int32 [], horizon T) -> moment of the goal."""


def future(key: Key, step: Moment, stored: jax.Array, horizon: int) -> Moment:
    """A state of the same episode strictly after the step's own: time uniform on {t+1..T}."""
    del stored
    return Moment(step.episode, jax.random.randint(key, (), step.time + 1, horizon + 1))


def final(key: Key, step: Moment, stored: jax.Array, horizon: int) -> Moment:
    """The last state of the same episode.

    The paper replays every step once with the requested and once with this goal: k = 1.
    """
    del key, stored
    return Moment(step.episode, jnp.full_like(step.time, horizon))


def episode(key: Key, step: Moment, stored: jax.Array, horizon: int) -> Moment:
    """Any state of the same episode: time uniform on {0..T}."""
    del stored
    return Moment(step.episode, jax.random.randint(key, (), 0, horizon + 1))


def random(key: Key, step: Moment, stored: jax.Array, horizon: int) -> Moment:
    """Any state of any stored episode: the one strategy that crosses episodes."""
    del step
    episode_key, time_key = jax.random.split(key)
    return Moment(
        jax.random.randint(episode_key, (), 0, stored),
        jax.random.randint(time_key, (), 0, horizon + 1),
    )


def none(key: Key, step: Moment, stored: jax.Array, horizon: int) -> Moment:
    """No hindsight; the configuration makes its share 0, so the moment is never used."""
    del key, stored, horizon
    return step


STRATEGIES: dict[str, Strategy] = {
    "future": future,
    "final": final,
    "episode": episode,
    "random": random,
    "none": none,
}


def transition(
    episodes: Episode,
    stored: jax.Array,
    step: Moment,
    key: Key,
    *,
    strategy: Strategy,
    probability: float,
) -> Transition:
    """Reads one step and, with the given probability, relabels its goal; unbatched.

    Args:
      episodes: the buffer's storage, [C, ...].
      stored: int32 [], how many leading rows of it are filled.
      step: which step, time in 0..T-1.
      key: consumed.
      strategy: where the substitute goal comes from.
      probability: share of relabelled steps, p = 1 - 1/(1+k).
    """
    chex.assert_rank([step.episode, step.time, stored], 0)
    choice_key, goal_key = jax.random.split(key)
    horizon = episodes.action.shape[-2]
    at = strategy(goal_key, step, stored, horizon)
    relabelled = jax.random.bernoulli(choice_key, probability)
    requested = episodes.desired_goal[step.episode]
    substitute = episodes.achieved_goal[at.episode, at.time]
    return Transition(
        observation=episodes.observation[step.episode, step.time],
        action=episodes.action[step.episode, step.time],
        next_observation=episodes.observation[step.episode, step.time + 1],
        next_achieved_goal=episodes.achieved_goal[step.episode, step.time + 1],
        desired_goal=jnp.where(relabelled, substitute, requested),
        relabelled=relabelled,
    )
