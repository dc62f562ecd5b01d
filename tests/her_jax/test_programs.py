"""Which runs share the audit's compiled programs, and which must not."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from conftest import same, with_
from her_jax import relabel, train
from her_jax.audit import programs
from her_jax.types import Moment
from toy import PointEnv


def test_seeds_share_a_program_and_nothing_else_does(config, finished, monkeypatch):
    traced, honest = [], train.replayed

    def counted(env, config, *arguments):
        traced.append(env)
        return honest(env, config, *arguments)

    monkeypatch.setattr(train, "replayed", counted)
    env, replay, key = PointEnv(), finished[0].buffer, jax.random.key(0)
    steps = Moment(jnp.zeros(8, int), jnp.arange(8))

    def replayed(env, config):
        return programs.replayed(env, config, replay, steps, key)

    first = replayed(env, config)
    assert same(first, replayed(env, with_(config, seed=7))) and traced == [env]
    replayed(PointEnv(), config)
    replayed(env, with_(config, k=0.0))
    assert len(traced) == 3

    def here(key, step, stored, horizon):
        return Moment(step.episode, step.time)

    monkeypatch.setitem(relabel.STRATEGIES, "future", here)  # as if a plugin were registered anew
    transitions, _ = replayed(env, config)
    assert len(traced) == 4 and not same(transitions, first[0])
