"""What acts of a run as one file: the same actions, and refusals of what does not suit."""

from __future__ import annotations

import dataclasses
import shutil

import jax
import numpy as np
import pytest

from conftest import SILENT, ddpg, same
from her_jax import agents, memory, policy
from her_jax.config import AGENTS
from her_jax.errors import UserError
from her_jax.runner import Run
from her_jax.types import GoalObs
from toy import PointEnv


@pytest.fixture
def alone(copied):
    """A finished run's folder without its checkpoint."""
    shutil.rmtree(copied / "checkpoints")
    return copied


@pytest.mark.parametrize("name", AGENTS)
def test_what_acts_is_all_that_acting_reads(name):
    settings = dataclasses.replace(AGENTS[name](), hidden=(6,))
    agent = agents.make(settings, PointEnv(discrete=settings.DISCRETE))
    learner = agent.init(jax.random.key(0), 5)
    acting = agent.acting(learner)
    inputs = jax.random.normal(jax.random.key(1), (7, 5))
    np.testing.assert_array_equal(agent.act(acting, inputs), agent.act(learner, inputs))
    assert len(jax.tree.leaves(acting)) == 4  # kernel and bias of two layers


def test_a_run_that_lost_its_checkpoint_acts_as_before(toy, config, finished, alone):
    state, _, _ = finished
    opened = Run(toy, config, alone, SILENT)
    with pytest.raises(UserError, match=r"holds none, only policy\.npz"):
        opened.restore()
    epoch, restored = opened.restore_policy()
    assert epoch == 4 and int(restored.env_steps) == 960
    assert same(restored.normalizer, state.normalizer)
    points = jax.random.normal(jax.random.key(0), (5, 2))
    obs = GoalObs(points, points, points + 1)
    np.testing.assert_array_equal(opened.act(restored, obs), opened.act(state, obs))


def test_playing_needs_no_room_for_what_training_stores(toy, config, alone, monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda: 10)
    assert Run(toy, config, alone, SILENT).restore_policy()[0] == 4


def test_numpy_reads_the_parameters(finished):
    state, _, folder = finished
    with np.load(folder / policy.FILE) as file:
        kernel = file["learner.average.params.MLP_0.Dense_0.kernel"]
        mean = file["normalizer.mean.goal"]
    np.testing.assert_array_equal(
        kernel, state.learner.average["params"]["MLP_0"]["Dense_0"]["kernel"]
    )
    np.testing.assert_array_equal(mean, state.normalizer.mean["goal"])


def test_a_damaged_policy_is_refused_in_one_line(toy, config, alone):
    path, opened = alone / policy.FILE, Run(toy, config, alone, SILENT)
    whole = path.read_bytes()
    flipped = whole[:200] + bytes([whole[200] ^ 0xFF]) + whole[201:]
    with np.load(path) as file:
        arrays = dict(file) | {"about": np.array('{"epoch": 4}')}
    np.savez(path, allow_pickle=False, **arrays)
    nothing_known = path.read_bytes()
    for damaged in (b"", whole[:100], whole[:-40], flipped, nothing_known):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match="does not load") as error:
            opened.restore_policy()
        assert "\n" not in str(error.value)
    path.unlink()
    with pytest.raises(UserError, match=r"checkpoint: .* holds none"):
        opened.restore_policy()


def test_a_policy_of_other_networks_or_settings_is_refused(toy, config, finished, alone):
    with np.load(alone / policy.FILE) as file:
        arrays = dict(file)
    del arrays["normalizer.mean.goal"]
    np.savez(alone / policy.FILE, allow_pickle=False, **arrays)
    with pytest.raises(UserError, match=r"has no normalizer\.mean\.goal of shape"):
        Run(toy, config, alone, SILENT).restore_policy()
    wider = dataclasses.replace(config, agent=dataclasses.replace(ddpg(config), hidden=(9,)))
    for folder in (alone, finished[2]):
        with pytest.raises(UserError, match="hidden: the checkpoint was trained with"):
            Run(toy, wider, folder, SILENT).restore_policy()
