"""Success on requested goals that training never saw.

No goal here was ever relabelled, no exploration noise is added, and the environment's own
tolerance decides. Costs stand beside success.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from her_jax.errors import UserError
from her_jax.rollout import Policy, broken, play
from her_jax.types import Episode, GoalEnv, GoalObs, GoalSpec, Key


class Outcome(NamedTuple):
    """What came of E episodes.

    Attributes:
      success: bool [E], goal reached when it counts, at the last step unless the goal
        specification says any; its mean is the headline.
      success_any: bool [E], goal reached after at least one step.
      distance: float32 [E], from the goal at the last step, in the goal's units.
      reward_sum: float32 [E], the objective: rewards of the requested goal, summed over steps.
      cost_sum: float32 [E, K], costs summed over steps.
      cost_max: float32 [E, K], costs of the worst step.
      broken: bool [E], whether the simulation or the policy broke: something in the episode is not
        finite. Such an episode fails, and its distance, reward and costs are not a number.
      dropped: int32 [E], steps in which contacts were dropped for lack of room.
    """

    success: jax.Array
    success_any: jax.Array
    distance: jax.Array
    reward_sum: jax.Array
    cost_sum: jax.Array
    cost_max: jax.Array
    broken: jax.Array
    dropped: jax.Array


def episodes(
    env: GoalEnv, policy: Policy, starts: Any, key: Key | None = None
) -> tuple[Episode, jax.Array]:
    """Plays one episode [E, ...] from every held-out start [E, ...].

    Args:
      env: the environment.
      policy: chooses actions.
      starts: held-out starts.
      key: consumed by a policy that is not deterministic.

    Returns:
      The episodes, and in how many steps of each contacts were dropped, int32 [E].
    """
    keys = jax.random.split(jax.random.key(0) if key is None else key, len(starts.desired_goal))
    return jax.vmap(lambda start, key: play(env, policy, start, key))(starts, keys)


def outcome(env: GoalEnv, played: Episode, dropped: ArrayLike = 0) -> Outcome:
    """What came of episodes of any leading shape; `dropped` as `episodes` returns it."""
    achieved = played.achieved_goal[..., 1:, :]
    goal = jnp.broadcast_to(played.desired_goal[..., None, :], achieved.shape)
    is_broken = broken(played)
    reached = env.success(achieved, goal) & ~is_broken[..., None]
    any_step = jnp.any(reached, axis=-1)
    return Outcome(
        success=any_step if env.goal_spec.any_step else reached[..., -1],
        success_any=any_step,
        distance=_unless(
            is_broken, jnp.linalg.norm(achieved[..., -1, :] - played.desired_goal, axis=-1)
        ),
        reward_sum=_unless(is_broken, jnp.sum(env.reward(achieved, goal), axis=-1)),
        cost_sum=_unless(is_broken[..., None], jnp.sum(played.cost, axis=-2)),
        cost_max=_unless(is_broken[..., None], jnp.max(played.cost, axis=-2)),
        broken=is_broken,
        dropped=jnp.broadcast_to(dropped, is_broken.shape),
    )


def _unless(is_broken: jax.Array, values: jax.Array) -> jax.Array:
    return jnp.where(is_broken, jnp.nan, values)


def evaluate(env: GoalEnv, policy: Policy, starts: Any) -> Outcome:
    """Outcome of one episode from every held-out start [E, ...]."""
    return outcome(env, *episodes(env, policy, starts))


def no_action(env: GoalEnv) -> Policy:
    """The policy that does nothing: its success is the floor of every figure."""

    def policy(key: Any, obs: GoalObs) -> jax.Array:
        del key, obs
        return jnp.zeros(env.action_size)

    return policy


def costs(env: GoalEnv, result: Outcome) -> dict[str, dict[str, Any]]:
    """Channel -> its units, its sum over an episode (mean of episodes), and the worst step."""
    return {
        spec.name: {
            "units": spec.units,
            "episode_sum": mean(result.cost_sum[:, i]),
            "worst_step": float(np.fmax.reduce(result.cost_max[:, i])),  # NaN only if all are
        }
        for i, spec in enumerate(env.cost_specs)
    }


def quarters(spec: GoalSpec, goals: Any, success: Any) -> dict[str, list[dict[str, float]]]:
    """Where on the goal space a policy fails: success in each quarter of the goals.

    Args:
      spec: of the environment.
      goals: [E, G] requested goals.
      success: bool [E] of the episodes that were asked for them.

    Returns:
      For each coordinate in which the goals differ, its lowest quarter of the goals first: the
      quarter's lowest and highest goal, in the goal's units, and its success. Nothing if goals can
      be counted, as bit strings.
    """
    found = {}
    if spec.count is not None:
        return found
    for name, values in zip(spec.coordinates, np.asarray(goals, np.float64).T, strict=True):
        if np.ptp(values) > 0:
            parts = np.array_split(np.argsort(values, kind="stable"), 4)
            found[name] = [
                {
                    "low": float(values[part].min()),
                    "high": float(values[part].max()),
                    "requested_goal_success": mean(np.asarray(success)[part]),
                }
                for part in parts
                if part.size
            ]
    return found


def require_same_goal(trained: dict[str, Any], spec: GoalSpec) -> None:
    """Refuses to score a policy on another goal than it was trained on.

    Args:
      trained: `goal_settings` at the time of training.
      spec: of the environment that would score it.

    Raises:
      UserError: names what differs, e.g. the tolerance.
    """
    now = goal_settings(spec)
    for field, value in trained.items():
        if now.get(field) != value:
            raise UserError(
                f"{field}: trained with {value} and evaluated with {now.get(field)}; success would "
                "mean something else: evaluate with the original"
            )


def goal_settings(spec: GoalSpec) -> dict[str, Any]:
    """What decides whether a goal is reached."""
    return {
        "goal": spec.name,
        "units": spec.units,
        "tolerance": spec.tolerance,
        "scored_at": spec.scored_at,
    }


def mean(values: Any) -> float:
    """In float64, so that shares of a count print as such; of values that are a number, if any."""
    plain = np.asarray(values)
    missing = np.isnan(plain)
    kept = plain if missing.all() else plain[~missing]
    return float(np.mean(kept, dtype=np.float64))
