"""Audits this project's own replay: a few rows while training, every stored step afterwards."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from her_jax import buffer, relabel, train
from her_jax.audit import relabelling
from her_jax.config import Config
from her_jax.errors import UserError
from her_jax.types import Episode, GoalEnv, Key, Moment

_CHUNK = 20_000  # steps relabelled and checked at a time
_RANDOM_ROWS = 16  # "random" goals must be looked for in the whole buffer


def check_drawn(
    env: GoalEnv,
    config: Config,
    reward: relabelling.Scorer,
    replay: buffer.BufferState,
    drawn: train.Drawn,
) -> relabelling.Report:
    """Checks rows that the learner has just learned from; needs only their episodes on the host.

    Of the strategy `random` only the first 16 rows are checked.

    Args:
      env: the environment.
      config: settings of the run.
      reward: `scorer(env.reward)`, made once.
      replay: the buffer that the rows were drawn from.
      drawn: the rows, [B, ...].
    """
    if relabel.AUDITED_AS[config.replay.strategy] == "random":
        drawn = jax.tree.map(lambda x: x[:_RANDOM_ROWS], drawn)
    claim = relabelling.claim(*drawn)
    rows = len(claim.reward)
    held = jax.tree.map(np.asarray, _pick(replay.episodes, drawn.steps.episode))
    stored = int(replay.size)
    rule = relabel.AUDITED_AS[config.replay.strategy]
    everywhere = _anywhere(rule, replay, stored, claim.desired_goal)
    report = relabelling.check(
        held,
        rows,
        claim._replace(episode=np.arange(rows)),
        reward=reward,
        strategy=config.replay.strategy,
        probability=config.replay.relabel_probability,
        bounds=env.goal_spec.bounds,
        everywhere=everywhere,
    )
    report.violations["stored"] |= (claim.episode < 0) | (claim.episode >= stored)
    return report


def check_stored(
    env: GoalEnv, config: Config, replay: buffer.BufferState, key: Key
) -> relabelling.Report:
    """Relabels every stored step as training does, and checks each result.

    Raises:
      UserError: if nothing is stored.
    """
    size, horizon = int(replay.size), env.horizon
    draw = jax.jit(functools.partial(train.replayed, env, config))
    episodes = jax.tree.map(np.asarray, replay.episodes)
    check = functools.partial(
        relabelling.check,
        episodes,
        size,
        reward=scorer(env.reward),
        strategy=config.replay.strategy,
        probability=config.replay.relabel_probability,
        bounds=env.goal_spec.bounds,
        everywhere=relabelling.anywhere(episodes, size, config.replay.strategy),
    )
    count = size * horizon
    if count == 0:
        raise UserError("replay: empty; there is nothing to audit")
    chunk = min(_CHUNK, count)
    keys = jax.random.split(key, -(-count // chunk))
    reports = []
    for i, chunk_key in enumerate(keys):
        # The last chunk is padded by wrapping around, so that all share one compiled program.
        number = np.arange(i * chunk, (i + 1) * chunk) % (size * horizon)
        steps = Moment(jnp.asarray(number // horizon), jnp.asarray(number % horizon))
        claim = relabelling.claim(steps, *draw(replay, steps, chunk_key))
        rows = count - i * chunk
        reports.append(check(jax.tree.map(lambda x, rows=rows: x[:rows], claim)))
    return relabelling.merge(reports, config.replay.relabel_probability)


def _anywhere(
    strategy: str, replay: buffer.BufferState, stored: int, goals: np.ndarray
) -> frozenset[bytes]:
    """Of `relabelling.anywhere`, the goals that could be one of `goals` [B, G]."""
    if strategy == "future_actual":
        return relabelling.goals_of(np.asarray(replay.episodes.desired_goal)[:stored])
    if strategy != "random":
        return frozenset()
    achieved = np.asarray(replay.episodes.achieved_goal)[:stored].reshape(-1, goals.shape[1])
    return frozenset().union(
        *(relabelling.goals_of(achieved[achieved[:, 0] == goal[0]]) for goal in goals)
    )


@jax.jit
def _pick(episodes: Episode, rows: jax.Array) -> Episode:
    """The named rows of the buffer."""
    return jax.tree.map(lambda x: x[rows], episodes)


def scorer(function: Callable[..., jax.Array]) -> relabelling.Scorer:
    """An environment's `reward` or `success` as a compiled function of NumPy arrays."""
    compiled = jax.jit(function)
    return lambda achieved, desired: np.asarray(
        compiled(jnp.asarray(achieved), jnp.asarray(desired))
    )
