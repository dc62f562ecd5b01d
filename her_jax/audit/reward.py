"""Tests a reward before anything is trained with it.

A goal-conditioned reward is a pure function of (achieved, desired): it can score any pair, in any
order and any batch, without peeking at history, and it pays what the hand-written examples say.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np

from her_jax.errors import UserError, is_out_of_memory, reason
from her_jax.types import GoalEnv, RewardPair

_NAMES = {"hit", "miss", "threshold"}


def examine(env: GoalEnv) -> dict[str, str]:
    """Runs the reward test of an environment.

    Returns:
      Part of the test -> "pass", or what is wrong: the three hand-written pairs; `pure`, the reward
      is a function of (achieved, desired) alone; `grounded`, so is success; `agrees`, a sparse
      reward is highest exactly where the goal is reached; `range`, no reward is above 0, and no
      sparse one below -1.
    """
    pairs = env.reward_pairs
    results = dict.fromkeys(_NAMES - {pair.name for pair in pairs}, "no such pair")
    for pair in pairs:
        results[pair.name] = _pair(env, pair)
    results["pure"] = _pure(env, env.reward)
    results["grounded"] = _pure(env, env.success)
    results["agrees"] = _agrees(env)
    results["range"] = _range(env)
    return dict(sorted(results.items()))


def require(env: GoalEnv) -> None:
    """Refuses an environment whose reward fails its test.

    Raises:
      UserError: if a part fails, or cannot be run.
    """
    try:
        results = examine(env)
    except UserError:
        raise
    except Exception as error:  # whatever a user's reward may raise
        if is_out_of_memory(error):  # which is no fault of the reward's
            raise
        raise UserError(
            f"reward: {env.name} fails its reward test: {reason(error)}; reward and success take "
            "JAX arrays [..., G] and give [...]"
        ) from error
    for name, result in results.items():
        if result != "pass":
            raise UserError(f"reward: {env.name} fails its reward test {name!r}: {result}; mend it")


def _pair(env: GoalEnv, pair: RewardPair) -> str:
    achieved, desired = jnp.asarray(pair.achieved_goal), jnp.asarray(pair.desired_goal)
    paid = float(env.reward(achieved, desired))
    reached = bool(env.success(achieved, desired))
    if not np.isclose(paid, pair.reward, rtol=1e-5, atol=1e-7):
        return f"pays {paid:g} instead of {pair.reward:g}"
    if reached != pair.success:
        return f"success is {reached} instead of {pair.success}"
    return "pass"


def _pure(env: GoalEnv, function: Callable[..., jax.Array]) -> str:
    """Two arguments, no side channel, the same value in any order, batch and repetition."""
    required = [
        parameter
        for parameter in inspect.signature(function).parameters.values()
        if parameter.default is inspect.Parameter.empty
    ]
    if len(required) != 2:
        return f"takes {len(required)} arguments; it may see (achieved, desired) and nothing else"
    achieved, desired = _pairs(env)
    if _calls_out(jax.make_jaxpr(function)(achieved, desired)):
        return "calls back to the host, where it could see history"
    batched = np.asarray(function(jnp.asarray(achieved), jnp.asarray(desired)))
    if batched.shape != (64,) or not np.isfinite(batched).all():
        return "does not score every pair"
    order = np.random.default_rng(1).permutation(64)
    single = [float(function(jnp.asarray(achieved[i]), jnp.asarray(desired[i]))) for i in order]
    if not np.allclose(single, batched[order], rtol=1e-5, atol=1e-6):
        return "depends on order, batch or earlier calls"
    return "pass"


def _agrees(env: GoalEnv) -> str:
    """Random pairs, some within and some beyond the tolerance."""
    achieved, desired = map(jnp.asarray, _pairs(env))
    paid, reached = np.asarray(env.reward(achieved, desired)), env.success(achieved, desired)
    if not _is_sparse(paid):
        return "pass"
    hit = max(pair.reward for pair in env.reward_pairs)
    differ = int(((paid == hit) != np.asarray(reached)).sum())
    return f"reward and success disagree on {differ} of 64 random pairs" if differ else "pass"


def _range(env: GoalEnv) -> str:
    """What the agents' clipping of targets leaves whole (`agents.parts.clipped`), near and far."""
    far = np.random.default_rng(2).uniform(*env.goal_spec.bounds, (2, 64, env.goal_spec.size))
    paid = [
        np.asarray(env.reward(*map(jnp.asarray, pairs)))
        for pairs in (_pairs(env), far.astype(np.float32))
    ]
    examples = np.asarray([pair.reward for pair in env.reward_pairs], np.float32)
    paid = np.concatenate([*paid, examples])
    if not np.isfinite(paid).all():
        return "pays what is not finite for goals that are far apart"
    highest, lowest = paid.max(), paid.min()
    if highest > 0:
        return f"pays up to {highest:g}; targets are clipped at 0, so pay at most 0, e.g. -1 or 0"
    if lowest < -1 and _is_sparse(paid):
        return (
            f"pays {lowest:g} where the goal is missed; targets are clipped to what -1 a step adds "
            "up to, so pay -1"
        )
    return "pass"


def _is_sparse(paid: np.ndarray) -> bool:
    """Whether rewards [N] take two values at most."""
    return len(np.unique(paid)) <= 2


def _pairs(env: GoalEnv) -> tuple[np.ndarray, np.ndarray]:
    """64 random pairs of goals [64, G], up to two tolerances apart."""
    rng = np.random.default_rng(0)
    low, high = map(np.asarray, env.goal_spec.bounds)
    achieved = rng.uniform(low, high, (64, env.goal_spec.size)).astype(np.float32)
    apart = rng.normal(size=achieved.shape)
    apart *= rng.uniform(0, 2, (64, 1)) / np.linalg.norm(apart, axis=-1, keepdims=True)
    apart *= env.goal_spec.tolerance
    return achieved, (achieved + apart).astype(np.float32)


def _calls_out(jaxpr: Any) -> bool:
    """Whether a program has effects or callbacks, at any depth."""
    inner = jaxpr.jaxpr if hasattr(jaxpr, "jaxpr") else jaxpr
    if inner.effects:
        return True
    return any(
        "callback" in equation.primitive.name
        or any(_calls_out(sub) for sub in jax.extend.core.jaxprs_in_params(equation.params))
        for equation in inner.eqns
    )
