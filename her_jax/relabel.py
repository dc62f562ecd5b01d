"""Hindsight: which goal a stored step is replayed with.

A strategy says where in the buffer the substitute goal was achieved, or asked for. It is a pure,
unbatched function of a key, the step's moment, the number of stored episodes and the horizon.
Relabelling changes a label; observation, action and next observation are read as stored.

References:
  Andrychowicz et al. 2017, "Hindsight Experience Replay" (arXiv:1707.01495), algorithm 1 and
  section 4.5; OpenAI Baselines, `baselines/her/her_sampler.py`.
  Manela and Biess 2021, "Bias-reduced hindsight experience replay with virtual goal prioritization"
  (arXiv:1905.05498), which leaves out samples that mislead.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection

import chex
import jax
import jax.numpy as jnp

from her_jax.errors import UserError, reason
from her_jax.types import REQUEST, Episode, Key, Moment, Transition

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
    """Any state of any stored episode: the one strategy whose achieved goals cross episodes."""
    del step
    episode_key, time_key = jax.random.split(key)
    return Moment(
        jax.random.randint(episode_key, (), 0, stored),
        jax.random.randint(time_key, (), 0, horizon + 1),
    )


def future_actual(key: Key, step: Moment, stored: jax.Array, horizon: int) -> Moment:
    """By halves `future`, and the goal that a random stored episode was asked for.

    With k = 4 that is 40 % future, 40 % requested goals, 20 % unchanged: the mixture of mrl, which
    keeps the policy's eye on the goals that it will be asked for. mrl relabels by `future` alone
    for its first 25,000 steps; here the mixture is used from the start.

    References:
      Pitis et al. 2020, "Maximum Entropy Gain Exploration for Long Horizon Multi-goal Reinforcement
      Learning" (arXiv:2007.02832); "futureactual_2_2" of their code, mrl.
    """
    choice_key, future_key, episode_key = jax.random.split(key, 3)
    later = future(future_key, step, stored, horizon)
    episode = jax.random.randint(episode_key, (), 0, stored)
    asked = Moment(episode, jnp.full_like(later.time, REQUEST))
    achieved = jax.random.bernoulli(choice_key)
    return jax.tree.map(functools.partial(jnp.where, achieved), later, asked)


def none(key: Key, step: Moment, stored: jax.Array, horizon: int) -> Moment:
    """No hindsight; the configuration makes its share 0, so the moment is never used."""
    del key, stored, horizon
    return step


STRATEGIES: dict[str, Strategy] = {
    "future": future,
    "final": final,
    "episode": episode,
    "random": random,
    "future_actual": future_actual,
    "none": none,
}
"""By name; `register` adds to them."""

_BUILT_IN = frozenset(STRATEGIES)

AUDITED_AS = {name: name for name in STRATEGIES}
"""Strategy -> the built-in one whose places the auditor holds it to."""


_TRIED = ((50, 3), (7, 1))
"""Horizons and numbers of stored episodes with which a new strategy is tried."""


def register(name: str, strategy: Strategy, *, audited_as: str) -> None:
    """Adds a strategy under a name that configurations may use, after a look at where it points.

    It is tried with two horizons here, and with the environment's own by `require`.

    Args:
      name: a new one, or one registered before, which this strategy replaces.
      strategy: pure and unbatched; see `Strategy`.
      audited_as: the built-in strategy that may take goals from the same places: "future" for later
        states of the episode, "episode" for any of its states, "random" for any stored state, and
        so on; or a registered one, which stands for its own. The auditor stops a run whose goals
        come from anywhere else.

    Raises:
      UserError: if the name is a built-in one, there is no strategy `audited_as`, or it is `none`,
        or the strategy fails or points outside of what is stored.
    """
    if name in _BUILT_IN:
        raise UserError(f"strategy: {name!r} is a built-in one; choose another name")
    if audited_as not in AUDITED_AS or audited_as == "none":
        known = ", ".join(known for known in AUDITED_AS if known != "none")
        raise UserError(f"audited_as: {audited_as!r} is unknown; choose one of {known}")
    for horizon, stored in _TRIED:
        _try(name, strategy, horizon, stored)
    STRATEGIES[name] = strategy
    AUDITED_AS[name] = AUDITED_AS[audited_as]


def require(name: str, horizon: int) -> None:
    """Refuses a registered strategy that points outside of what episodes of this length store.

    Raises:
      UserError: as `register`.
    """
    if name in registered():
        for _, stored in _TRIED:
            _try(name, STRATEGIES[name], horizon, stored)


def _try(name: str, strategy: Strategy, horizon: int, stored: int) -> None:
    """Refuses a strategy that does not run, or names moments that are not stored.

    JAX takes the nearest element for an index outside of an array, so that a replayed goal would be
    a real one, and only too often the last.
    """
    episodes, times = jnp.divmod(jnp.arange(20 * horizon), horizon)
    episodes %= stored
    keys = jax.random.split(jax.random.key(0), len(times))

    def point(key: Key, step: Moment) -> tuple[jax.Array, jax.Array]:
        at = strategy(key, step, jnp.asarray(stored), horizon)
        if not isinstance(at, Moment):
            raise UserError(f"strategy: {name!r} returns no Moment(episode, time); mend it")
        return jnp.asarray(at.episode), jnp.asarray(at.time)

    try:
        episode, time = jax.jit(jax.vmap(point))(keys, Moment(episodes, times))
    except UserError:
        raise
    except Exception as error:  # whatever a user's function may raise
        raise UserError(f"strategy: {name!r} fails: {reason(error)}; mend it") from error
    for what, found, low, high in (
        ("time", time, REQUEST, horizon),
        ("episode", episode, 0, stored - 1),
    ):
        if found.ndim != 1 or not jnp.issubdtype(found.dtype, jnp.integer):
            raise UserError(f"strategy: {name!r} gives no whole number for the {what} of a goal")
        outside = (found < low) | (found > high)
        if outside.any():
            i = int(jnp.argmax(outside))
            raise UserError(
                f"strategy: {name!r} points to {what} {found[i]} from episode {episodes[i]}, time "
                f"{times[i]}, which of {stored} episodes of {horizon} steps is not in "
                f"{low}..{high}; mend it"
            )


def registered() -> tuple[str, ...]:
    """Names that `register` added."""
    return tuple(name for name in STRATEGIES if name not in _BUILT_IN)


def forget(names: Collection[str] | None = None) -> None:
    """Removes what `register` added, or what of it has one of these names."""
    for name in registered():
        if names is None or name in names:
            del STRATEGIES[name], AUDITED_AS[name]


def transition(
    episodes: Episode,
    stored: jax.Array,
    step: Moment,
    key: Key,
    *,
    strategy: Strategy,
    probability: float,
    min_displacement: float = 0.0,
) -> Transition:
    """Reads one step and, with the given probability, relabels its goal; unbatched.

    A goal that was achieved from the start of an episode, as where an object lay that nobody
    touched, teaches that any action reaches it. With a minimum displacement such a goal is not
    given: the step keeps the requested one.

    Args:
      episodes: the buffer's storage, [C, ...].
      stored: int32 [], how many leading rows of it are filled.
      step: which step, time in 0..T-1.
      key: consumed.
      strategy: where the substitute goal comes from.
      probability: share of relabelled steps, p = 1 - 1/(1+k), before goals are left out.
      min_displacement: least Euclidean distance, in the goal's units, of an achieved goal from what
        its episode had achieved at time 0; 0 leaves none out. Goals that were asked for are given
        wherever they lie.
    """
    chex.assert_rank([step.episode, step.time, stored], 0)
    choice_key, goal_key = jax.random.split(key)
    horizon = episodes.action.shape[-2]
    at = strategy(goal_key, step, stored, horizon)
    relabelled = jax.random.bernoulli(choice_key, probability)
    requested = episodes.desired_goal[step.episode]
    substitute = jnp.where(
        at.time == REQUEST,
        episodes.desired_goal[at.episode],
        episodes.achieved_goal[at.episode, jnp.maximum(at.time, 0)],
    )
    if min_displacement > 0:
        moved = jnp.linalg.norm(substitute - episodes.achieved_goal[at.episode, 0])
        relabelled &= (at.time == REQUEST) | (moved >= min_displacement)
    return Transition(
        observation=episodes.observation[step.episode, step.time],
        action=episodes.action[step.episode, step.time],
        next_observation=episodes.observation[step.episode, step.time + 1],
        next_achieved_goal=episodes.achieved_goal[step.episode, step.time + 1],
        desired_goal=jnp.where(relabelled, substitute, requested),
        relabelled=relabelled,
        hindsight=relabelled & (at.time != REQUEST),
    )
