"""Agents that users write: registered by name, held to the protocol."""

from __future__ import annotations

import dataclasses
import json
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import pytest
from flax import struct

from conftest import SILENT, with_
from her_jax import agents, group, metrics
from her_jax.agents import DDPG
from her_jax.config import AGENTS, Config, DDPGConfig
from her_jax.errors import UserError
from her_jax.runner import Run
from toy import PointEnv


@dataclasses.dataclass(frozen=True)
class IdleConfig:
    """Of an agent that only knows how far it explores."""

    NAME: ClassVar[str] = "idle"
    DISCRETE: ClassVar[bool] = False
    discount: float = 0.9
    scales: tuple[float, ...] = (0.5,)


class IdleState(struct.PyTreeNode):
    updates: jax.Array


@dataclasses.dataclass(frozen=True)
class Idle:
    config: IdleConfig
    action_size: int

    def init(self, key, input_size):
        return IdleState(jnp.zeros((), jnp.int32))

    def act(self, learner, inputs):
        return jnp.zeros((*inputs.shape[:-1], self.action_size))

    def acting(self, learner):
        return learner

    def explore(self, learner, inputs, key):
        return self.config.scales[0] * jax.random.normal(key, (self.action_size,))

    def update(self, learner, batch, key):
        return learner.replace(updates=learner.updates + 1), {"loss": jnp.mean(batch.reward)}


@pytest.fixture
def registered():
    """`register`, undone after the test."""
    yield agents.register
    agents.forget()
    assert set(AGENTS) == {"ddpg", "td3", "sac", "dqn"}


def test_an_agent_that_cannot_be_made_is_refused(registered, config, tmp_path):
    registered(IdleConfig, lambda config, env: env.action_size)
    mine: Any = IdleConfig()
    with pytest.raises(UserError, match=r"'idle' cannot be made .* 'int' object has no attribute"):
        Run(PointEnv(), dataclasses.replace(config, agent=mine), tmp_path / "r", SILENT)


def test_an_agent_of_ones_own_trains_in_a_run_and_in_groups(registered, config, tmp_path):
    registered(IdleConfig, Idle)
    mine: Any = IdleConfig(scales=(0.2, 0.3))
    config = dataclasses.replace(config, agent=mine)
    again = Config.from_dict(json.loads(json.dumps(config.to_dict())))
    assert again == config and hash(again.agent) == hash(mine)  # a tuple is a list in JSON
    state, summary = Run(PointEnv(), config, tmp_path / "r", SILENT).start()
    assert int(state.learner.updates) == summary["updates"] > 0
    assert metrics.read(tmp_path / "r")[-1]["loss"] < 0
    config = with_(config, env_steps=240)
    for mode in ("map", "vmap"):
        names = [tmp_path / f"{mode}{seed}" for seed in (0, 1)]
        runs = [Run(PointEnv(), with_(config, seed=i), f, SILENT) for i, f in enumerate(names)]
        assert group.fit(runs, mode) == {}


def lazy(**changes):
    """An agent whose methods are these."""
    return dataclasses.dataclass(frozen=True)(type("Lazy", (Idle,), changes))


def test_a_state_that_knows_no_equality_is_one(registered, config, tmp_path):
    @jax.tree_util.register_pytree_node_class
    class Counted:
        def __init__(self, updates):
            self.updates = updates

        def tree_flatten(self):
            return (self.updates,), None

        @classmethod
        def tree_unflatten(cls, _, children):
            return cls(*children)

    agent = lazy(
        init=lambda *_: Counted(jnp.zeros((), jnp.int32)),
        update=lambda self, learner, batch, key: (Counted(learner.updates + 1), {}),
    )
    registered(IdleConfig, agent)
    registered(IdleConfig, agent)  # again, as a notebook does
    mine: Any = IdleConfig()
    Run(PointEnv(), dataclasses.replace(config, agent=mine), tmp_path / "r", SILENT).prepare()


@pytest.mark.parametrize(
    ("agent", "complaint"),
    [
        (lazy(init=lambda *_: {}), "fails: 'dict' object has no attribute 'updates'; mend it"),
        (lazy(init=lambda *_: IdleState(jnp.zeros(()))), "`updates` is no int32"),
        (lazy(act=lambda self, learner, inputs: inputs), "`act` gives no float32"),
        (
            lazy(act=lambda self, learner, inputs: jnp.zeros((inputs.shape[0], self.action_size))),
            "`act` gives no float32",  # for one observation
        ),
        (lazy(explore=lambda self, learner, inputs, key: inputs), "`explore` gives no float32"),
        (lazy(update=lambda self, learner, batch, key: (0, {})), "`update` gives a state of anoth"),
        (
            lazy(update=lambda self, learner, batch, key: (learner, {"loss": batch.reward})),
            "`update` gives metrics that are no scalars",
        ),
        (lazy(acting=lambda self, learner: learner.actor), "fails: .* no attribute 'actor'"),
    ],
)
def test_an_agent_that_keeps_no_promise_is_refused_in_one_line(
    registered, agent, complaint, config, tmp_path
):
    registered(IdleConfig, agent)
    mine: Any = IdleConfig()
    with pytest.raises(UserError, match=f"^agent: 'idle':? {complaint}") as caught:
        Run(PointEnv(), dataclasses.replace(config, agent=mine), tmp_path / "r", SILENT).start()
    assert "\n" not in str(caught.value) and not (tmp_path / "r").exists()


def test_what_cannot_be_registered(registered, config, tmp_path):
    with pytest.raises(UserError, match="agent: 'ddpg' is a built-in one"):
        registered(DDPGConfig, DDPG)
    with pytest.raises(UserError, match="agent: Idle is no frozen dataclass with NAME and DISCR"):
        registered(Idle, Idle)
    thawed = dataclasses.dataclass(type("Thawed", (), vars(IdleConfig) | {}))
    with pytest.raises(UserError, match="agent: Thawed is no frozen dataclass"):
        registered(thawed, Idle)

    class Mine(DDPGConfig):
        NAME: ClassVar[str] = "mine"

    with pytest.raises(UserError, match="agent: Mine is no frozen dataclass"):  # of its own
        registered(Mine, Idle)
    bare = dataclasses.make_dataclass(
        "Bare", [("far", float)], bases=(IdleConfig,), frozen=True, kw_only=True
    )
    with pytest.raises(UserError, match="agent: Bare has no default for far"):
        registered(bare, Idle)
    listed = dataclasses.make_dataclass(
        "Listed",
        [("sizes", list, dataclasses.field(default_factory=list))],
        bases=(IdleConfig,),
        frozen=True,
    )
    with pytest.raises(UserError, match="default of sizes in Listed is no number, text or tuple"):
        registered(listed, Idle)
    made = [("scales", tuple, dataclasses.field(default_factory=lambda: (0.5,)))]
    registered(
        dataclasses.make_dataclass("Slotted", made, bases=(IdleConfig,), frozen=True, slots=True),
        Idle,
    )
    taken = dataclasses.make_dataclass(
        "Taken", [("k", float, 3.0)], bases=(IdleConfig,), frozen=True
    )
    with pytest.raises(UserError, match="agent: k of Taken is another setting's name"):
        registered(taken, Idle)
    with pytest.raises(UserError, match="agent: Mine is unknown; register it first"):
        Run(PointEnv(), dataclasses.replace(config, agent=Mine()), tmp_path / "r", SILENT)
