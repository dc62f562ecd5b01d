"""An honest sampler of hindsight goals in NumPy, and dishonest ones.

Each defect is a change to honest rows: mistakes that published code has, or had, re-expressed, and
other ways to fool oneself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from her_jax.audit.relabelling import Claim, Scorer
from her_jax.types import Episode

HORIZON, EPISODES, ROWS = 6, 10, 4000


def reward(achieved, desired):
    """Asymmetric, so that swapped arguments show; not only a distance."""
    return -(np.abs(achieved - desired).max(-1) > 0.5).astype(np.float32) + 0.01 * achieved[..., 0]


def sparse(achieved, desired):
    """-1 or 0 by distance, as in Fetch."""
    return -(np.linalg.norm(achieved - desired, axis=-1) > 0.5).astype(np.float32)


def success(achieved, desired):
    return sparse(achieved, desired) == 0


def episodes() -> Episode:
    """Random walks: no two states achieve the same goal."""
    rng = np.random.default_rng(0)
    goals = rng.normal(size=(EPISODES, HORIZON + 1, 2)).astype(np.float32)
    return Episode(
        observation=rng.normal(size=(EPISODES, HORIZON + 1, 3)).astype(np.float32),  # type: ignore
        achieved_goal=goals,  # type: ignore
        desired_goal=rng.normal(size=(EPISODES, 2)).astype(np.float32),  # type: ignore
        action=rng.normal(size=(EPISODES, HORIZON, 2)).astype(np.float32),  # type: ignore
        cost=np.zeros((EPISODES, HORIZON, 0), np.float32),  # type: ignore
    )


def honest(stored: Episode, p: float = 0.8, pay: Scorer = reward) -> Claim:
    """A plain `future` sampler."""
    rng = np.random.default_rng(1)
    e, t = rng.integers(EPISODES, size=ROWS), rng.integers(HORIZON, size=ROWS)
    chosen = rng.uniform(size=ROWS) < p
    later = t + 1 + (rng.uniform(size=ROWS) * (HORIZON - t)).astype(int)
    goal = np.where(chosen[:, None], stored.achieved_goal[e, later], stored.desired_goal[e])
    return Claim(
        episode=e,
        time=t,
        observation=np.asarray(stored.observation[e, t]),
        action=np.asarray(stored.action[e, t]),
        next_observation=np.asarray(stored.observation[e, t + 1]),
        desired_goal=np.asarray(goal),
        reward=pay(np.asarray(stored.achieved_goal[e, t + 1]), goal),
        relabelled=chosen,
    )


def relabel_with(stored: Episode, claim: Claim, goals) -> Claim:
    """The claim with other hindsight goals, rewards recomputed."""
    goal = np.where(claim.relabelled[:, None], goals, claim.desired_goal)
    after = stored.achieved_goal[claim.episode, claim.time + 1]
    return claim._replace(desired_goal=goal, reward=reward(after, goal))


class Expected(NamedTuple):
    """What the auditor must say.

    Attributes:
      rules: every rule that breaks by itself.
      cause: the mistake that `causes` names, if it names one.
      seen_in: where such a mistake was published, if it was.
      strategy: what the sampler says it does.
      pay: the reward of the task.
    """

    rules: set[str]
    cause: str = ""
    seen_in: str = ""
    strategy: str = "future"
    pay: Scorer = reward


def reward_of_the_current_state(s, c):
    return c._replace(reward=reward(s.achieved_goal[c.episode, c.time], c.desired_goal))


def reward_with_swapped_arguments(s, c):
    return c._replace(reward=reward(c.desired_goal, s.achieved_goal[c.episode, c.time + 1]))


def reward_not_recomputed(s, c):
    after = s.achieved_goal[c.episode, c.time + 1]
    return c._replace(reward=reward(after, s.desired_goal[c.episode]))


def reward_with_a_wider_tolerance(s, c):
    after = s.achieved_goal[c.episode, c.time + 1]
    far = np.linalg.norm(after - c.desired_goal, axis=-1) > 1.0
    return c._replace(reward=-far.astype(np.float32))


def goal_of_the_current_state(s, c):
    return relabel_with(s, c, s.achieved_goal[c.episode, c.time])


def goal_of_an_earlier_state(s, c):
    return relabel_with(s, c, s.achieved_goal[c.episode, c.time // 2])


def goal_of_another_episode(s, c):
    return relabel_with(s, c, s.achieved_goal[(c.episode + 1) % EPISODES, -1])


def goal_from_nowhere(s, c):
    return relabel_with(s, c, s.achieved_goal[c.episode, -1] + np.float32(1e-3))


def goal_swapped_without_saying_so(s, c):
    return relabel_with(s, c, c.desired_goal)._replace(relabelled=c.relabelled & (c.time % 2 == 0))


def next_observation_after_an_automatic_reset(s, c):
    last = (c.time == HORIZON - 1)[:, None]
    reset = np.where(last, s.observation[c.episode, 0], c.next_observation)
    return c._replace(next_observation=reset)


def observation_rounded_in_storage(s, c):
    return c._replace(observation=c.observation.astype(np.float16).astype(np.float32))


def step_across_the_end_of_an_episode(s, c):
    return c._replace(time=np.where(c.time == 0, HORIZON, c.time))


def row_not_yet_written(s, c):
    return c._replace(episode=np.where(c.episode == 3, EPISODES + 3, c.episode))


def every_row_relabelled(s, c):
    return relabel_with(
        s, c._replace(relabelled=np.ones(ROWS, bool)), s.achieved_goal[c.episode, -1]
    )


def share_of_one_minus_one_over_k(s, c):
    return honest(s, p=1 - 1 / 4)


def goal_not_a_number(s, c):
    goals = c.desired_goal.copy()
    goals[::100] = np.nan
    return c._replace(desired_goal=goals)


def goal_outside_the_workspace(s, c):
    return relabel_with(s, c, np.full_like(c.desired_goal, 50.0))


def goal_of_the_last_state_but_one(s, c):
    return relabel_with(s, c, s.achieved_goal[c.episode, -2])


def row_overwritten_since(s, c):
    """Row 0 still shows the steps of the episode that it held before."""
    old, gone = s.observation[-1], (c.episode == 0)[:, None]
    return c._replace(
        observation=np.where(gone, old[c.time], c.observation),
        next_observation=np.where(gone, old[c.time + 1], c.next_observation),
    )


def done_flag_not_recomputed(s, c):
    after = s.achieved_goal[c.episode, c.time + 1]
    return c._replace(terminated=success(after, s.desired_goal[c.episode]))


def reward_of_another_convention(s, c):
    return c._replace(reward=c.reward + 1)


DEFECTS: dict[Callable[[Episode, Claim], Claim], Expected] = {
    reward_of_the_current_state: Expected(
        {"reward"},
        "computed from the current achieved goal, not the next",
        "JaxGCRL, `flatten_batch`",
    ),
    reward_with_swapped_arguments: Expected(
        {"reward"},
        "arguments swapped",
        "Stable-Baselines, issue 728; Stable-Baselines3, issue 1569",
    ),
    reward_not_recomputed: Expected({"reward"}, "not recomputed after relabelling"),
    reward_with_a_wider_tolerance: Expected({"reward"}, "tolerance changed", pay=sparse),
    reward_of_another_convention: Expected({"reward"}, "other reward values", pay=sparse),
    goal_of_the_current_state: Expected({"provenance"}, "goal of the current state"),
    goal_of_an_earlier_state: Expected({"provenance"}, "goal of an earlier state"),
    goal_of_the_last_state_but_one: Expected(
        {"provenance"},
        "goal of the last state but one",
        "JaxGCRL, `flatten_batch`; Stable-Baselines3, issue 847",
        strategy="final",
    ),
    goal_of_another_episode: Expected(
        {"provenance"}, "goal of another episode", "Tianshou, issue 811"
    ),
    goal_from_nowhere: Expected({"provenance"}, "goal that was never achieved"),
    goal_swapped_without_saying_so: Expected({"requested", "share"}),
    next_observation_after_an_automatic_reset: Expected(
        {"physics"}, "terminal observation lost", "Baselines before commit 6c44fb2"
    ),
    observation_rounded_in_storage: Expected({"physics"}, "observation changed"),
    row_overwritten_since: Expected(
        {"physics"}, "observation changed", "flashbax before pull request 50"
    ),
    step_across_the_end_of_an_episode: Expected({"stored"}),
    row_not_yet_written: Expected({"stored"}),
    every_row_relabelled: Expected({"share"}),
    share_of_one_minus_one_over_k: Expected({"share"}),
    done_flag_not_recomputed: Expected(
        {"terminated"}, "", "rlkit, issue 96; FastTD3 before June 2025"
    ),
    goal_not_a_number: Expected({"finite"}),
    goal_outside_the_workspace: Expected({"workspace"}),
}

CONSEQUENCES = {
    # A step that is not there cannot agree with storage either.
    "stored": {"physics", "requested", "provenance", "reward", "terminated"},
    "finite": {"workspace", "requested", "provenance", "reward", "terminated"},
    "workspace": {"provenance"},
}


def mutation_table() -> str:
    """Markdown: defect, the rule that catches it, the cause that is named, where it was seen."""
    lines = ["| defect | caught by | named as | seen in |", "|---|---|---|---|"]
    for defect, expected in DEFECTS.items():
        name = defect.__name__.replace("_", " ")
        caught = ", ".join(f"`{rule}`" for rule in sorted(expected.rules))
        lines.append(f"| {name} | {caught} | {expected.cause or '-'} | {expected.seen_in or '-'} |")
    return "\n".join(lines)
