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
from samplers import (
    CONSEQUENCES,
    DEFECTS,
    EPISODES,
    HORIZON,
    ROWS,
    episodes,
    honest,
    relabel_with,
    reward,
    success,
)
from toy import PointEnv


def broken(report: audit.Report) -> set[str]:
    rules = {rule for rule, rows in report.violations.items() if rows.any()}
    return rules if report.share_holds else rules | {"share"}


CHECK = functools.partial(
    audit.check,
    reward=reward,
    strategy="future",
    probability=0.8,
    bounds=(np.full(2, -10.0), np.full(2, 10.0)),
    success=success,
)


def test_an_honest_sampler_is_clean():
    stored = episodes()
    report = CHECK(stored, EPISODES, honest(stored))
    assert report.clean and broken(report) == set()


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.__name__)
def test_each_defect_is_caught_and_named(defect):
    stored, expected = episodes(), DEFECTS[defect]
    claim = defect(stored, honest(stored, pay=expected.pay))
    report = CHECK(stored, EPISODES, claim, reward=expected.pay, strategy=expected.strategy)
    assert not report.clean
    named = broken(report)
    follows = set().union(*(CONSEQUENCES.get(rule, set()) for rule in expected.rules))
    assert expected.rules <= named <= expected.rules | follows, named
    assert len(report.reasons()) == len(named)
    causes = audit.causes(stored, claim, report, reward=expected.pay)
    if expected.cause:
        (rule,) = expected.rules
        assert causes[rule] == expected.cause


def test_an_unknown_mistake_is_not_given_a_name():
    stored = episodes()
    claim = honest(stored)
    claim = claim._replace(reward=np.random.default_rng(0).normal(size=ROWS))
    report = CHECK(stored, EPISODES, claim)
    assert audit.causes(stored, claim, report, reward=reward) == {"reward": "unknown"}


@pytest.mark.parametrize(
    ("time", "allowed"),
    [
        (HORIZON, {"future", "final", "episode", "random", "future_actual"}),
        (HORIZON - 1, {"future", "episode", "random", "future_actual"}),  # final, off by one
        (0, {"episode", "random"}),
    ],
)
def test_where_each_strategy_may_take_goals_from(time, allowed):
    stored = episodes()
    claim = relabel_with(
        stored, row_at_time_two(stored), stored.achieved_goal[np.zeros(ROWS, int), time]
    )
    for strategy in relabel.STRATEGIES:
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
