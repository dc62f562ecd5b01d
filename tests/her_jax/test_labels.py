"""Four injected faults give exactly the four labels; a healthy run gives none."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from flax import struct

from conftest import LEARNING, ddpg
from her_jax import evaluate, goal_set, train
from her_jax.agents.ddpg import DDPG
from her_jax.audit import labels, record
from her_jax.config import Config
from her_jax.types import Box, GoalObs
from toy import PointEnv


def trained(env: Any, agent: Any, config: Config) -> Any:
    state = train.init(env, agent, config, jax.random.key(0))
    return jax.jit(functools.partial(train.epoch, env, agent, config))(state)[0]


def audited(env: Any, agent: Any, config: Config, state: Any, goals: Any = None, trained_for=None):
    """The audit record of a trained state."""
    goals = goals or goal_set.draw(env, 100)
    about = {"goal": trained_for or evaluate.goal_settings(env.goal_spec), "commits": ["test"]}
    measured = record.compute(env, agent, config, state, goals)
    return record.build(env, config, state, about, goals, measured)


@functools.cache
def healthy() -> Any:
    env, agent = PointEnv(), DDPG(ddpg(LEARNING), 2)
    return env, agent, LEARNING, trained(env, agent, LEARNING)


@functools.cache
def healthy_record() -> record.AuditRecord:
    return audited(*healthy())


class MutedAgent(DDPG):
    """Explores by standing still."""

    def explore(self, learner, inputs, key):
        del learner, key
        return jnp.zeros((*inputs.shape[:-1], 2))


class JitterState(struct.PyTreeNode):
    obs: GoalObs
    cost: jax.Array
    dropped: jax.Array
    key: jax.Array


class JitterEnv(PointEnv):
    """Measures the achieved goal with noise of twice the tolerance."""

    def begin(self, start):  # type: ignore
        first = super().begin(start)
        seed = jax.lax.bitcast_convert_type(first.obs.desired_goal[0], jnp.uint32)
        return self._measured(first, jax.random.fold_in(jax.random.key(0), seed))

    def step(self, state, action):  # type: ignore
        return self._measured(super().step(state, action), jax.random.split(state.key)[0])

    def _measured(self, state, key):
        noise = 0.2 * jax.random.normal(jax.random.split(key)[1], (2,))
        obs = state.obs._replace(achieved_goal=state.obs.observation + noise)
        return JitterState(obs, state.cost, state.dropped, key)


def muted() -> Any:
    agent = MutedAgent(ddpg(LEARNING), 2)
    return audited(PointEnv(), agent, LEARNING, trained(PointEnv(), agent, LEARNING))


def jittering() -> Any:
    env, agent = JitterEnv(), DDPG(ddpg(LEARNING), 2)
    return audited(env, agent, LEARNING, trained(env, agent, LEARNING))


def paid_for_the_current_state() -> Any:
    """A sampler that pays for the state before the action."""

    def replayed(env, config, replay, steps, key):
        drawn = train.relabelled(config, replay.episodes, replay.size, steps, key)
        before = replay.episodes.achieved_goal[steps.episode, steps.time]
        return drawn, env.reward(before, drawn.desired_goal)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "replayed", replayed)
        return audited(PointEnv(), *healthy()[1:])  # an environment of its own, audited anew


def nearer_goals() -> Any:
    """Held-out goals at half the distance of training's."""
    env, *rest = healthy()
    goals = goal_set.draw(env, 100)
    starts = goals.starts._replace(desired_goal=goals.starts.desired_goal / 2)
    return audited(env, *rest, goals=goals._replace(starts=starts))


class LowEnv(PointEnv):
    """Measures the achieved goal at the bottom of what is to be placed by its centre.

    The missing height is just below the tolerance, so that every cell of the requested region is
    met, and yet the requested goals are out of reach but for a lucky few.
    """

    @property
    def goal_spec(self):
        low, high = ((*edge, 0.099) for edge in ((-1.0, -1.0), (1.0, 1.0)))
        return dataclasses.replace(
            super().goal_spec,
            coordinates=("x", "y", "z"),
            region=Box(low, high),
            bounds=Box((-2.5, -2.5, -1.0), (2.5, 2.5, 1.0)),
        )

    @property
    def reward_pairs(self):
        return tuple(
            pair._replace(
                achieved_goal=(*pair.achieved_goal, 0.0), desired_goal=(*pair.desired_goal, 0.0)
            )
            for pair in super().reward_pairs
        )

    def draw(self, key):
        start = super().draw(key)
        return start._replace(desired_goal=jnp.append(start.desired_goal, 0.099))

    def begin(self, start):
        return self._low(super().begin(start))

    def step(self, state, action):
        return self._low(super().step(state, action))

    def _low(self, state):
        bottom = jnp.append(state.obs.observation, 0.0)
        return state.replace(obs=state.obs._replace(achieved_goal=bottom))


def measured_at_the_bottom() -> Any:
    env, agent = LowEnv(), DDPG(ddpg(LEARNING), 2)
    return audited(env, agent, LEARNING, trained(env, agent, LEARNING))


FAULTS = {
    muted: "exploration_failure",
    jittering: "goal_representation_failure",
    measured_at_the_bottom: "goal_representation_failure",
    paid_for_the_current_state: "reward_recompute_bug",
    nearer_goals: "evaluation_distribution_mismatch",
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_r33_each_fault_gets_its_label_and_no_other(fault):
    found = fault().failure_labels
    assert list(found) == [FAULTS[fault]], found
    assert all(evidence for evidence in found.values())


def test_every_label_has_its_fault():
    assert set(FAULTS.values()) == set(labels.LABELS)


def test_a_healthy_run_has_no_label():
    audit = healthy_record()
    assert audit.failure_labels == {}
    assert audit.report_metrics["requested_goal_success"] >= 0.9
    assert audit.report_metrics["recommanded_goal_reached"] >= 0.9
    assert not audit.warnings, audit.warnings


def test_policies_of_a_record_are_told_apart():
    """Of a run that learned: doing nothing, exploring and the greedy policy."""
    audit = healthy_record()
    figures = audit.report_metrics
    assert figures["no_action_success"] == 0 < figures["exploring_requested_goal_success"]
    assert figures["exploring_requested_goal_success"] < figures["requested_goal_success"]
    assert audit.reward_decomposition["exploration"] < 0
    assert audit.no_action_costs["speed"]["episode_sum"] == 0 < audit.costs["speed"]["episode_sum"]


def test_an_untrained_run_is_not_accused_but_warned_of():
    """Moves and covers, and has learned nothing: no label explains that."""
    env, agent, config, state = healthy()
    state = state.replace(learner=train.init(env, agent, config, jax.random.key(1)).learner)
    audit = audited(env, agent, config, state)
    assert audit.failure_labels == {}
    unexplained = "low success that no label explains; "
    assert unexplained + "perhaps it needs more training" in audit.warnings
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(record, "compute", without_hindsight)
        audit = audited(env, agent, config, state)
    assert unexplained + "no hindsight goal is replayed" in audit.warnings


def without_hindsight(*of_a_run: Any, compute=record.compute) -> Any:
    """What an audit measures, had no goal been relabelled."""
    measured = compute(*of_a_run)
    return measured._replace(numbers=measured.numbers | {"hindsight_ratio": jnp.zeros(())})


def test_another_tolerance_is_a_mismatch():
    env, *rest = healthy()
    wider = evaluate.goal_settings(PointEnv(tolerance=0.3).goal_spec)
    assert list(audited(env, *rest, trained_for=wider).failure_labels) == [
        "evaluation_distribution_mismatch"
    ]


METRICS = {
    "requested_goal_success": 0.1,
    "identity_mismatches": 0,
    "moved_rate": 0.9,
    "goal_coverage": 0.9,
    "static_goal_jitter": 0.0,
    "recommanded_goal_reached": 0.1,
    "relabelled_goal_distance_from_start": 0.6,
    "requested_goal_distance_from_start": 1.0,
}


def label(**changes) -> list[str]:
    arguments: dict[str, Any] = {
        "tolerance": 0.05,
        "reward_test": {"hit": "pass", "grounded": "pass"},
        "reward_violations": 0,
        "goals_agree": True,
        "goal_settings_agree": True,
    }
    given = {name: changes.pop(name) for name in set(arguments) & set(changes)}
    return list(labels.label(METRICS | changes, **(arguments | given)))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, []),
        ({"requested_goal_success": 0.9, "goal_coverage": 0.01}, []),
        ({"recommanded_goal_reached": 0.9, "relabelled_goal_distance_from_start": 0.49}, []),
        ({"goal_coverage": 0.1}, ["exploration_failure"]),
        ({"moved_rate": 0.1, "recommanded_goal_reached": 1.0}, ["exploration_failure"]),
        ({"recommanded_goal_reached": 0.8}, ["goal_representation_failure"]),
        ({"recommanded_goal_reached": None}, []),
        ({"moved_rate": None, "goal_coverage": None}, []),
        ({"static_goal_jitter": None}, ["goal_representation_failure"]),
        ({"static_goal_jitter": 0.03}, ["goal_representation_failure"]),
        ({"reward_test": {"hit": "pass", "grounded": "no"}}, ["goal_representation_failure"]),
        ({"reward_test": {"hit": "pays", "grounded": "pass"}}, ["reward_recompute_bug"]),
        ({"identity_mismatches": 3, "moved_rate": 0.0}, ["reward_recompute_bug"]),
        ({"reward_violations": 1}, ["reward_recompute_bug"]),
        ({"goals_agree": False}, ["evaluation_distribution_mismatch"]),
        ({"goal_settings_agree": False}, ["evaluation_distribution_mismatch"]),
    ],
)
def test_rules(changes, expected):
    assert label(**changes) == expected
