"""The auditor finds nothing in honest samplers and names the defect of each dishonest one."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from conftest import ddpg, naming_episodes, tiny_config, with_
from her_jax import buffer, relabel, train
from her_jax.agents.ddpg import DDPG
from her_jax.audit import relabelling as audit
from her_jax.audit import replay
from her_jax.errors import UserError
from her_jax.types import Episode
from samplers import (
    CONSEQUENCES,
    DEFECTS,
    EPISODES,
    HORIZON,
    ROWS,
    episodes,
    goal_of_an_earlier_state,
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
    causes = audit.causes(stored, EPISODES, claim, report, reward=expected.pay)
    if expected.cause:
        (rule,) = expected.rules
        assert causes[rule] == expected.cause


def test_goals_that_should_have_been_left_out_are_caught():
    stored = episodes()
    claim = honest(stored)
    far = np.linalg.norm(stored.achieved_goal - stored.achieved_goal[:, :1], axis=-1)
    near = {tuple(goal) for goal in stored.achieved_goal[far < 1.5]}
    wrong = np.array([tuple(goal) in near for goal in claim.desired_goal]) & claim.relabelled
    assert wrong.sum() > 100
    for strategy in ("future", "random"):
        report = CHECK(stored, EPISODES, claim, strategy=strategy, min_displacement=1.5)
        np.testing.assert_array_equal(report.violations["provenance"], wrong)
        assert broken(report) == {"provenance", "share"}
        causes = audit.causes(stored, EPISODES, claim, report, reward=reward, min_displacement=1.5)
        (named,) = causes.values()
        assert "nearer to the start of its episode" in named


def test_a_goal_that_is_near_in_another_episode_only_is_not_called_near():
    """What its own episode says comes first; a goal that it never achieved is looked for in all."""
    ones = np.ones((2, 3, 1))
    places = np.array([[[0.0], [3.0], [6.0], [9.0]], [[3.0], [3.5], [8.0], [9.5]]])
    arrays: Any = (places, places, np.full((2, 1), 20.0), ones, np.zeros((2, 0)))
    stored = Episode(*arrays)

    def cause(goal: float) -> str:
        claim = audit.row(stored, time=2, goal=goal, reward=0.0)
        check = functools.partial(CHECK, bounds=None, success=None, reward=lambda a, _: 0 * a[:, 0])
        report = check(stored, 2, claim, min_displacement=1.0)
        assert set(report.broken) == {"provenance"}
        (named,) = audit.causes(
            stored, 2, claim, report, reward=reward, min_displacement=1.0
        ).values()
        return named

    assert cause(3.0) == "goal of an earlier state"  # where the other episode started
    near = "goal nearer to the start of its episode than the minimum displacement"
    assert cause(0.0) == near and cause(3.5) == near
    assert cause(8.0) == "goal of another episode"


def test_no_goal_is_left_out_unless_it_is_asked_for():
    """Whatever the goals are: truth values have no differences, and no number has no distance."""
    for goals in (np.array([[[True], [False]]]), np.array([[[np.nan], [1.0]]])):
        assert audit.displaced(goals, 0.0).all()


@pytest.fixture
def soon():
    relabel.register("soon", relabel.future, audited_as="future")
    yield "soon"
    relabel.forget()


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("least", [0.0, 1.5])
@pytest.mark.parametrize("share", [0.7, 0.8, 0.9])
def test_the_share_is_that_of_the_goals_that_may_be_given(share, least, own, soon):
    """Of a strategy of one's own it is only known to be no larger."""
    stored = episodes()
    claim = honest(stored, p=share)
    start = stored.achieved_goal[claim.episode, 0]
    near = np.linalg.norm(claim.desired_goal - start, axis=-1) < least
    kept = stored.desired_goal[claim.episode]
    goals = np.where((claim.relabelled & near)[:, None], kept, claim.desired_goal)
    claim = claim._replace(desired_goal=goals, relabelled=claim.relabelled & ~near)
    claim = claim._replace(
        reward=reward(stored.achieved_goal[claim.episode, claim.time + 1], goals), terminated=None
    )
    strategy = soon if own else "future"
    report = CHECK(stored, EPISODES, claim, strategy=strategy, min_displacement=least)
    assert not report.broken
    bound = own and least > 0
    assert report.share_holds == (bound or share == 0.8)
    assert (report.expected_share < 0.75) == (least > 0 and not own)
    assert audit.merge([report, report]).share_holds == report.share_holds


def test_an_unknown_mistake_is_not_given_a_name():
    stored = episodes()
    claim = honest(stored)
    claim = claim._replace(reward=np.random.default_rng(0).normal(size=ROWS))
    report = CHECK(stored, EPISODES, claim)
    assert audit.causes(stored, EPISODES, claim, report, reward=reward) == {"reward": "unknown"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"strategy": "Future"}, "strategy: 'Future' is unknown; choose one of future"),
        ({"probability": 1.2}, r"probability: 1.2 does not lie in \[0, 1\]"),
    ],
)
def test_questions_that_make_no_sense_are_refused(changes, message):
    stored = episodes()
    with pytest.raises(UserError, match=message):
        CHECK(stored, EPISODES, honest(stored), **changes)
    with pytest.raises(UserError, match="empty"):
        CHECK(stored, 0, honest(stored))


def test_goals_of_another_precision_are_compared_by_value():
    stored = episodes()
    claim = honest(stored)
    claim = claim._replace(desired_goal=claim.desired_goal.astype(np.float64))
    for strategy in ("future", "random"):
        assert CHECK(stored, EPISODES, claim, strategy=strategy).clean


@pytest.mark.parametrize(("units", "right"), [(1, True), (3, False)])
def test_a_reward_may_be_rounded_otherwise_at_the_boundary(units, right):
    """Paid as if on the boundary, and achieved some units in the last place beyond it."""
    edge = np.float32(1.05)
    beyond = edge
    for _ in range(units):
        beyond = np.nextafter(beyond, np.float32(2.0))
    achieved = jnp.asarray([[[0.0], [beyond]]])
    ones = jnp.ones((1, 1))
    stored = Episode(achieved, achieved, ones, ones[:, None], jnp.zeros((1, 1, 0)))
    stored = jax.tree.map(np.asarray, stored)

    def pays(achieved, desired):
        return -(np.abs(achieved - desired)[:, 0] > edge - np.float32(1)).astype(np.float32)

    claim = audit.row(stored, time=0, goal=1.0, reward=0.0, relabelled=False)
    report = audit.check(stored, 1, claim, reward=pays, strategy="future", probability=0.0)
    assert report.clean is right and set(report.broken) == (set() if right else {"reward"})


@pytest.mark.parametrize("stored", [np.float32, np.float64])
@pytest.mark.parametrize("centre", [0.0, 1.3])
def test_rewards_at_the_tolerance_are_right_in_any_precision(stored, centre):
    """Paid in float64, scored in float32; a ten-thousandth of the tolerance beyond it is wrong."""
    rng = np.random.default_rng(0)
    way = rng.normal(size=(20_000, 3))
    way *= 0.05 / np.linalg.norm(way, axis=-1, keepdims=True)
    scorer = replay.scorer(
        lambda a, g: jnp.where(jnp.sum(jnp.square(a - g), -1) > np.float32(0.05) ** 2, -1.0, 0.0)
    )
    for farther, right in ((1.0, 1.0), (1.0001, 0.0)):
        at = np.full_like(way, centre) + 1e-6 * rng.normal(size=way.shape)
        achieved, goals = (at.astype(stored), (at + farther * way).astype(stored))
        paid = -(np.linalg.norm(achieved.astype(float) - goals, axis=-1) > 0.05).astype(float)
        paid = paid if farther == 1 else np.zeros(len(paid))
        assert (scorer(achieved, goals) != paid).any()
        assert audit.scored(scorer, achieved, goals, paid).mean() == right


def test_many_rows_are_checked_in_parts(monkeypatch):
    stored = episodes()
    whole = CHECK(stored, EPISODES, goal_of_an_earlier_state(stored, honest(stored)))
    monkeypatch.setattr(audit, "_CHUNK", 300)
    parts = CHECK(stored, EPISODES, goal_of_an_earlier_state(stored, honest(stored)))
    for rule, rows in whole.violations.items():
        np.testing.assert_array_equal(rows, parts.violations[rule])


def test_the_requested_goal_called_relabelled_is_named():
    stored = episodes()
    claim = relabel_with(stored, honest(stored), stored.desired_goal[honest(stored).episode])
    causes = audit.causes(stored, EPISODES, claim, CHECK(stored, EPISODES, claim), reward=reward)
    assert causes == {"provenance": "the requested goal, called relabelled"}


def test_rows_that_were_overwritten_after_they_were_drawn_are_caught():
    """A ring that wraps: claims of its first round against what it holds after the third."""
    ring = buffer.init(jax.tree.map(lambda x: x[0], naming_episodes(1, HORIZON)), 4)
    ring = buffer.insert(ring, naming_episodes(2, HORIZON))
    steps = buffer.sample(ring, jax.random.key(0), 500)
    one = functools.partial(
        relabel.transition, ring.episodes, ring.size, strategy=relabel.future, probability=0.8
    )
    drawn = jax.vmap(one)(steps, jax.random.split(jax.random.key(1), 500))
    claim = audit.claim(steps, drawn, jnp.zeros(500))
    ring = buffer.insert(ring, naming_episodes(2, HORIZON, first=2))
    check = functools.partial(
        audit.check,
        claim=claim,
        reward=lambda achieved, _: np.zeros(len(achieved)),
        strategy="future",
        probability=0.8,
    )

    def held(state):
        return check(jax.tree.map(np.asarray, state.episodes), int(state.size))

    assert not held(ring).broken
    ring = buffer.insert(ring, naming_episodes(2, HORIZON, first=4))  # over the first round
    assert held(ring).broken["physics"] == 500


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


@functools.cache
def wrapped() -> buffer.BufferState:
    """A ring of 24 episodes that 32 were written into."""
    env, config = PointEnv(), tiny_config()
    agent = DDPG(ddpg(config), 2)
    state = train.init(env, agent, config, jax.random.key(0))
    play = jax.jit(functools.partial(train.explore, env, agent, config))
    for i in range(8):
        fresh, _ = play(state, jax.random.key(i))
        state = state.replace(buffer=buffer.insert(state.buffer, fresh))
    return state.buffer


@pytest.mark.parametrize("min_displacement", [0.0, 0.3])
@pytest.mark.parametrize("strategy", relabel.STRATEGIES)
def test_our_own_sampler_is_clean_after_the_ring_has_wrapped(config, strategy, min_displacement):
    env, ring = PointEnv(), wrapped()
    config = with_(config, strategy=strategy, min_displacement=min_displacement)
    steps = buffer.sample(ring, jax.random.key(1), 2000)
    drawn = train.relabelled(config, ring.episodes, ring.size, steps, jax.random.key(2))
    rewards = env.reward(drawn.next_achieved_goal, drawn.desired_goal)
    report = audit.check(
        jax.tree.map(np.asarray, ring.episodes),
        int(ring.size),
        audit.claim(steps, drawn, rewards),
        reward=lambda a, g: np.asarray(env.reward(jnp.asarray(a), jnp.asarray(g))),
        strategy=strategy,
        probability=config.replay.relabel_probability,
        min_displacement=min_displacement,
    )
    assert report.clean, broken(report)
    fewer = report.share < 0.9 * config.replay.relabel_probability
    assert fewer == (min_displacement > 0 and strategy != "none")
