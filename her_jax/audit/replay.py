"""Audits this project's own replay: a few rows while training, every stored step afterwards."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from her_jax import buffer, relabel, train
from her_jax.audit import programs, relabelling
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
    """Checks rows that the learner has just learned from.

    Needs their episodes on the host, and for goals of other episodes all goals of that kind: of
    `random` what the buffer's episodes achieved, of `future_actual` what they were asked for. Of
    strategies audited as `random` only the first 16 rows are checked.

    Args:
      env: the environment.
      config: settings of the run.
      reward: `scorer(env.reward)`, made once.
      replay: the buffer that the rows were drawn from.
      drawn: the rows, [B, ...].
    """
    if relabel.AUDITED_AS[config.replay.strategy] == "random":
        drawn = jax.tree.map(lambda x: x[:_RANDOM_ROWS], drawn)
    claim = relabelling.claim(drawn.steps, drawn.transitions, drawn.reward)
    rows = len(claim.reward)
    held = jax.tree.map(np.asarray, _pick(replay.episodes, drawn.steps.episode))
    stored = int(replay.size)
    strategy, least = config.replay.strategy, config.replay.min_displacement
    report = relabelling.check(
        held,
        rows,
        claim._replace(episode=np.arange(rows)),
        reward=reward,
        strategy=strategy,
        probability=config.replay.relabel_probability,
        min_displacement=least,
        bounds=env.goal_spec.bounds,
        elsewhere=relabelling.goals_elsewhere(
            replay.episodes, stored, strategy, least, among=claim.desired_goal
        ),
    )
    report.violations["stored"] |= (claim.episode < 0) | (claim.episode >= stored)
    if config.replay.n_step > 1:
        report.violations["return"] = ~_right_returns(config, reward, held, claim, drawn.window)
    return report


def _right_returns(
    config: Config,
    reward: relabelling.Scorer,
    held: Any,
    claim: relabelling.Claim,
    window: train.Returns,
) -> np.ndarray:
    """Rows [B] whose n-step return, discount and last observation are those of the stored episode.

    Every reward in the window is computed anew under the goal of the row, as far as numbers of that
    precision can tell.
    """
    horizon, gamma = held.action.shape[1], config.agent.discount
    row = np.arange(len(claim.reward))
    least, most, factor = np.zeros(len(row)), np.zeros(len(row)), np.ones(len(row))
    end = np.clip(claim.time, 0, horizon)  # the rule `stored` is about others
    for _ in range(config.replay.n_step):
        going = end < horizon
        after = held.achieved_goal[row, np.minimum(end + 1, horizon)]
        paid = np.where(going, factor * relabelling.rounded(reward, after, claim.desired_goal), 0.0)
        least, most = least + paid.min(0), most + paid.max(0)
        factor *= np.where(going, gamma, 1.0)
        end += going
    return (
        np.isclose(window.reward, np.clip(window.reward, least, most), rtol=1e-4, atol=1e-5)
        & np.isclose(window.discount, factor, rtol=1e-4)
        & (np.asarray(window.next_observation) == held.observation[row, end]).all(-1)
    )


def check_stored(
    env: GoalEnv, config: Config, replay: buffer.BufferState, key: Key
) -> relabelling.Report:
    """Relabels every stored step as training does, and checks each result.

    Raises:
      UserError: if nothing is stored.
    """
    size, horizon = int(replay.size), env.horizon
    episodes = jax.tree.map(np.asarray, replay.episodes)
    check = functools.partial(
        relabelling.check,
        episodes,
        size,
        reward=scorer(env.reward),
        strategy=config.replay.strategy,
        probability=config.replay.relabel_probability,
        min_displacement=config.replay.min_displacement,
        bounds=env.goal_spec.bounds,
        elsewhere=relabelling.goals_elsewhere(
            episodes, size, config.replay.strategy, config.replay.min_displacement
        ),
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
        drawn = programs.replayed(env, config, replay, steps, chunk_key)
        claim = relabelling.claim(steps, *drawn)
        rows = count - i * chunk
        reports.append(check(jax.tree.map(lambda x, rows=rows: x[:rows], claim)))
    return relabelling.merge(reports)


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
