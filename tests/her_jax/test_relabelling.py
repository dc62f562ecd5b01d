"""The auditor finds nothing in honest samplers and names the defect of each dishonest one."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from conftest import with_
from her_jax import buffer, relabel, train
from her_jax.agents.ddpg import DDPG
from her_jax.audit import relabelling as audit
from her_jax.types import Episode
from toy import PointEnv

HORIZON, EPISODES, ROWS = 6, 10, 4000


def reward(achieved, desired):
    """Asymmetric, so that swapped arguments show; not only a distance."""
    return -(np.abs(achieved - desired).max(-1) > 0.5).astype(np.float32) + 0.01 * achieved[..., 0]


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


def honest(stored: Episode, p: float = 0.8) -> audit.Claim:
    """A plain `future` sampler."""
    rng = np.random.default_rng(1)
    e, t = rng.integers(EPISODES, size=ROWS), rng.integers(HORIZON, size=ROWS)
    chosen = rng.uniform(size=ROWS) < p
    later = t + 1 + (rng.uniform(size=ROWS) * (HORIZON - t)).astype(int)
    goal = np.where(chosen[:, None], stored.achieved_goal[e, later], stored.desired_goal[e])
    return audit.Claim(
        episode=e,
        time=t,
        observation=np.asarray(stored.observation[e, t]),
        action=np.asarray(stored.action[e, t]),
        next_observation=np.asarray(stored.observation[e, t + 1]),
        desired_goal=np.asarray(goal),
        reward=reward(stored.achieved_goal[e, t + 1], goal),
        relabelled=chosen,
    )


def relabel_with(stored: Episode, claim: audit.Claim, goals) -> audit.Claim:
    """The claim with other hindsight goals, rewards recomputed."""
    goal = np.where(claim.relabelled[:, None], goals, claim.desired_goal)
    after = stored.achieved_goal[claim.episode, claim.time + 1]
    return claim._replace(desired_goal=goal, reward=reward(after, goal))


# Defects of published code and other ways to fool oneself, each as a change to honest rows.


def reward_of_the_current_state(s, c):
    return c._replace(reward=reward(s.achieved_goal[c.episode, c.time], c.desired_goal))


def reward_with_swapped_arguments(s, c):
    return c._replace(reward=reward(c.desired_goal, s.achieved_goal[c.episode, c.time + 1]))


def reward_not_recomputed(s, c):
    after = s.achieved_goal[c.episode, c.time + 1]
    return c._replace(reward=reward(after, s.desired_goal[c.episode]))


def reward_with_a_wider_tolerance(s, c):
    after = s.achieved_goal[c.episode, c.time + 1]
    near = np.abs(after - c.desired_goal).max(-1) > 1.0
    return c._replace(reward=-near.astype(np.float32) + 0.01 * after[:, 0])


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


DEFECTS = {
    reward_of_the_current_state: {"reward"},
    reward_with_swapped_arguments: {"reward"},
    reward_not_recomputed: {"reward"},
    reward_with_a_wider_tolerance: {"reward"},
    goal_of_the_current_state: {"provenance"},
    goal_of_an_earlier_state: {"provenance"},
    goal_of_another_episode: {"provenance"},
    goal_from_nowhere: {"provenance"},
    goal_swapped_without_saying_so: {"requested", "share"},
    next_observation_after_an_automatic_reset: {"physics"},
    observation_rounded_in_storage: {"physics"},
    step_across_the_end_of_an_episode: {"stored"},
    row_not_yet_written: {"stored"},
    every_row_relabelled: {"share"},
    share_of_one_minus_one_over_k: {"share"},
    goal_not_a_number: {"finite"},
    goal_outside_the_workspace: {"workspace"},
}
CONSEQUENCES = {
    # A step that is not there cannot agree with storage either.
    "stored": {"physics", "requested", "provenance", "reward"},
    "finite": {"workspace", "requested", "provenance", "reward"},
    "workspace": {"provenance"},
}


def broken(report: audit.Report) -> set[str]:
    rules = {rule for rule, rows in report.violations.items() if rows.any()}
    return rules if report.share_holds else rules | {"share"}


CHECK = functools.partial(
    audit.check,
    reward=reward,
    strategy="future",
    probability=0.8,
    bounds=(np.full(2, -10.0), np.full(2, 10.0)),
)


def test_an_honest_sampler_is_clean():
    stored = episodes()
    report = CHECK(stored, EPISODES, honest(stored))
    assert report.clean and broken(report) == set()


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.__name__)
def test_each_defect_is_caught_and_named(defect):
    stored = episodes()
    report = CHECK(stored, EPISODES, defect(stored, honest(stored)))
    assert not report.clean
    named, expected = broken(report), DEFECTS[defect]
    follows = set().union(*(CONSEQUENCES.get(rule, set()) for rule in expected))
    assert expected <= named <= expected | follows, named


@pytest.mark.parametrize(
    ("time", "allowed"),
    [
        (HORIZON, {"future", "final", "episode", "random"}),
        (HORIZON - 1, {"future", "episode", "random"}),  # final, off by one
        (0, {"episode", "random"}),
    ],
)
def test_where_each_strategy_may_take_goals_from(time, allowed):
    stored = episodes()
    claim = relabel_with(
        stored, row_at_time_two(stored), stored.achieved_goal[np.zeros(ROWS, int), time]
    )
    for strategy in ("future", "final", "episode", "random", "none"):
        report = CHECK(stored, EPISODES, claim, strategy=strategy)
        assert (not report.violations["provenance"].any()) == (strategy in allowed), strategy


def row_at_time_two(stored: Episode) -> audit.Claim:
    """One step, repeated, always relabelled."""
    claim = honest(stored, p=1.0)
    zero, two = np.zeros(ROWS, int), np.full(ROWS, 2)
    return claim._replace(
        episode=zero,
        time=two,
        observation=np.asarray(stored.observation[zero, two]),
        action=np.asarray(stored.action[zero, two]),
        next_observation=np.asarray(stored.observation[zero, two + 1]),
    )


@pytest.mark.parametrize("strategy", relabel.STRATEGIES)
def test_our_own_sampler_is_clean_after_the_ring_has_wrapped(config, strategy):
    env, config = PointEnv(), with_(config, strategy=strategy, batch_size=2000)
    agent = DDPG(config.agent, 2)
    state = train.init(env, agent, config, jax.random.key(0))
    play = jax.jit(functools.partial(train.explore, env, agent, config))
    for i in range(8):  # 32 episodes into a ring of 24
        fresh = play(state, jax.random.key(i))
        state = state.replace(buffer=buffer.insert(state.buffer, fresh))
    steps = buffer.sample(state.buffer, jax.random.key(1), 2000)
    drawn = train.relabelled(
        config, state.buffer.episodes, state.buffer.size, steps, jax.random.key(2)
    )
    rewards = env.reward(drawn.next_achieved_goal, drawn.desired_goal)
    report = audit.check(
        jax.tree.map(np.asarray, state.buffer.episodes),
        int(state.buffer.size),
        audit.claim(steps, drawn, rewards),
        reward=lambda a, g: np.asarray(env.reward(jnp.asarray(a), jnp.asarray(g))),
        strategy=strategy,
        probability=config.replay.relabel_probability,
    )
    assert report.clean, broken(report)
