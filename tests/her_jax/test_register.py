"""Strategies that users write: registered by name, held to the rules of a built-in one."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import pytest

from conftest import SILENT, with_
from her_jax import relabel
from her_jax.audit import record
from her_jax.errors import UserError
from her_jax.runner import Run
from her_jax.types import Moment
from toy import PointEnv


def soon(key, step, stored, horizon):
    """One of the next three states."""
    del stored
    last = jnp.minimum(step.time + 3, horizon)
    return Moment(step.episode, jax.random.randint(key, (), step.time + 1, last + 1))


def earlier(key, step, stored, horizon):
    """A state of the past, which `future` may not use."""
    del stored, horizon
    return Moment(step.episode, jax.random.randint(key, (), 0, step.time + 1))


@pytest.fixture
def registered():
    """`register`, undone after the test."""
    before = set(relabel.STRATEGIES)
    yield relabel.register
    for name in set(relabel.STRATEGIES) - before:
        del relabel.STRATEGIES[name], relabel.AUDITED_AS[name]


def test_a_user_strategy_trains_and_is_audited(registered, config, tmp_path):
    registered("soon", soon, audited_as="future")
    run = Run(PointEnv(), with_(config, strategy="soon"), tmp_path / "r", SILENT)
    state, summary = run.start()
    assert summary["audited_rows"] > 0
    assert record.read(run.folder).relabel_strategy["audited_as"] == "future"
    assert int(state.env_steps) == summary["env_steps"]


def test_the_auditor_stops_one_that_breaks_its_promise(registered, config, tmp_path):
    registered("earlier", earlier, audited_as="future")
    with pytest.raises(UserError, match="provenance: the goal was not achieved where"):
        Run(PointEnv(), with_(config, strategy="earlier"), tmp_path / "r", SILENT).start()


def beyond(*, episode: int = 0, time: Any = 0, moment: Any = Moment):
    """A strategy that points so much beyond the step's own moment."""
    return lambda key, step, stored, horizon: moment(step.episode + episode, step.time + time)


@pytest.mark.parametrize(
    ("strategy", "complaint"),
    [
        (
            beyond(time=2),
            "points to time 51 from episode 0, time 49, which of 3 episodes of 50 steps is not",
        ),
        (beyond(time=-2), "points to time -2 from episode 0, time 0"),
        (beyond(episode=1), "points to episode 3 from episode 2"),
        (beyond(episode=-1), "points to episode -1 from episode 0"),
        (lambda key, step: step, "fails: "),
        (beyond(moment=lambda *at: at), "returns no Moment"),
        (lambda key, step, *_: step if step.time else None, "fails: `if`, `and`"),
        (beyond(time=0.5), "gives no whole number for the time"),
    ],
)
def test_a_strategy_that_points_nowhere_is_refused(registered, strategy, complaint):
    """JAX would take the nearest element, and replay a goal that nobody meant."""
    with pytest.raises(UserError, match=complaint):
        registered("lost", strategy, audited_as="random")
    assert "lost" not in relabel.STRATEGIES


@pytest.mark.parametrize(
    "strategy",
    [
        lambda key, step, *_: Moment(step.episode, jax.random.randint(key, (), step.time + 1, 51)),
        lambda key, step, *_: Moment(jax.random.randint(key, (), 0, 3), step.time),
    ],
)
def test_numbers_of_one_task_are_no_strategy(registered, strategy):
    """Its horizon, or how many episodes there were when it was tried."""
    with pytest.raises(UserError, match="points to "):
        registered("lost", strategy, audited_as="random")


def test_a_strategy_is_tried_with_the_horizon_of_the_environment(registered, config, tmp_path):
    def shy(key, step, stored, horizon):
        return beyond(time=2 if horizon == 15 else 0)(key, step, stored, horizon)

    registered("shy", shy, audited_as="random")
    with pytest.raises(UserError, match="'shy' points to time 16 from episode 0, time 14"):
        Run(PointEnv(), with_(config, strategy="shy"), tmp_path / "r", SILENT).start()
    assert not (tmp_path / "r").exists()


def test_names_of_ones_own_may_be_given_again(registered):
    """As a notebook does, where a cell runs twice."""
    registered("soon", soon, audited_as="future")
    registered("soon", earlier, audited_as="episode")
    assert relabel.STRATEGIES["soon"] is earlier and relabel.AUDITED_AS["soon"] == "episode"


def test_built_in_names_are_taken(registered):
    with pytest.raises(UserError, match="strategy: 'future' is a built-in one"):
        registered("future", soon, audited_as="future")
    with pytest.raises(UserError, match="audited_as: 'futur' is unknown"):
        registered("soon", soon, audited_as="futur")
    registered("soon", soon, audited_as="episode")
    registered("sooner", soon, audited_as="soon")
    assert relabel.AUDITED_AS["sooner"] == "episode"
