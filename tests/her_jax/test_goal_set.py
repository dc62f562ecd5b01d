from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from conftest import ddpg, fetch, optimised, same
from her_envs.fetch.tasks import TASKS
from her_jax import goal_set, train
from her_jax.agents.ddpg import DDPG
from her_jax.errors import UserError
from her_jax.types import Box
from toy import PointEnv


class TurnedStart(NamedTuple):
    angle: jax.Array
    pose: jax.Array
    desired_goal: jax.Array


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("FetchReach", "d935f212f5369cd603e34786337f1b5997be11fb1259d64c32bd704693801c91"),
        ("FetchPush", "a6fec4fe9ef878ef258f382066674fb930350dba9b104abdb1916371001e5ca0"),
        ("FetchSlide", "278328a51a7d29c63d839af523d2f1a4b70584b04efaa60cf3c1964e9eadd980"),
        ("FetchPickAndPlace", "9213f34fa40f7d810388e52a12f9ed2c587b2b535e1e620d2900f77315a5bdbb"),
    ],
)
def test_the_held_out_sets_stay_what_they_are(name, digest):
    """Every published figure is on these 200 goals."""
    env = fetch(name)
    goals = goal_set.standard(env, 200)
    assert goals.sha256 == digest and goals.episodes == 200
    assert goal_set.standard(env, 1000).episodes == 1000
    low, high = map(np.asarray, env.goal_spec.region)
    assert (goals.starts.desired_goal >= low - 1e-6).all()
    assert (goals.starts.desired_goal <= high + 1e-6).all()


def test_the_files_hold_what_the_reserved_keys_lead_to():
    """Nobody chose the goals: drawing them again gives the file."""
    env = fetch("FetchPush")
    with optimised():  # bits depend on how draws are compiled
        drawn = goal_set.draw(env, 1000)
    assert drawn.sha256 == goal_set.standard(env, 1000).sha256


def test_a_file_restores_every_bit(toy, tmp_path):
    goals = goal_set.draw(toy, 30, seed=5)
    goal_set.save(toy, goals, tmp_path / "set.csv")
    loaded = goal_set.load(toy, tmp_path / "set.csv")
    assert same(goals.starts, loaded.starts) and loaded.sha256 == goals.sha256
    few = goal_set.load(toy, tmp_path / "set.csv", 10)
    assert few.episodes == 10 and few.sha256 == goal_set.draw(toy, 10, seed=5).sha256
    assert few.sha256 != goals.sha256


def test_a_start_may_hold_numbers_and_matrices(tmp_path):
    class Turned(PointEnv):
        def draw(self, key) -> Any:
            goal = super().draw(key).desired_goal
            return TurnedStart(goal[0], jnp.outer(goal, goal), goal)

    env = Turned()
    goals = goal_set.draw(env, 6)
    goal_set.save(env, goals, tmp_path / "set.csv")
    loaded = goal_set.load(env, tmp_path / "set.csv")
    assert same(goals.starts, loaded.starts) and loaded.sha256 == goals.sha256
    assert loaded.starts.angle.shape == (6,) and loaded.starts.pose.shape == (6, 2, 2)


def test_goals_of_one_number_are_too_few_to_hold_any_out(toy):
    """Training of 20,000 episodes would meet one of 200 by chance in a third of all runs."""
    line = Box((-1.0, 0.5), (1.0, 0.5))
    assert toy.goal_spec.can_be_held_out
    assert not dataclasses.replace(toy.goal_spec, region=line).can_be_held_out
    assert all(fetch(name).goal_spec.can_be_held_out for name in TASKS)


def test_sets_are_nested_and_differ_by_seed(toy):
    few, many = goal_set.held_out_keys(5), goal_set.held_out_keys(9)
    np.testing.assert_array_equal(jax.random.key_data(few), jax.random.key_data(many)[:5])
    assert goal_set.draw(toy, 9).sha256 == goal_set.draw(toy, 9).sha256
    assert goal_set.draw(toy, 9).sha256 != goal_set.draw(toy, 9, seed=1).sha256


def edited(text: str) -> str:
    *lines, last = text.splitlines()
    return "\n".join([*lines, last.replace("0.", "0.1", 1)])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (edited, "it was edited or is of another task"),
        (lambda text: text.replace("Point", "FetchPush"), "it was edited or is of another task"),
        (lambda text: "\n".join(text.splitlines()[:-1]), "it was edited"),
        (lambda text: text.replace("0.", "nan,0.", 1), "no held-out set"),
        (lambda text: "\n".join(line + ",1" for line in text.splitlines()), "finite numbers"),
        (lambda text: "", "no held-out set"),
    ],
)
def test_damaged_files_are_refused_in_one_line(toy, tmp_path, damage, message):
    path = tmp_path / "set.csv"
    goal_set.save(toy, goal_set.draw(toy, 4), path)
    path.write_text(damage(path.read_text()))
    with pytest.raises(UserError, match=message) as error:
        goal_set.load(toy, path)
    assert "\n" not in str(error.value)


def test_existing_files_and_long_wishes_are_refused(toy, tmp_path):
    goals = goal_set.draw(toy, 4)
    goal_set.save(toy, goals, tmp_path / "set.csv")
    with pytest.raises(UserError, match="cannot be written"):
        goal_set.save(toy, goals, tmp_path / "set.csv")
    with pytest.raises(UserError, match="5 asked for"):
        goal_set.load(toy, tmp_path / "set.csv", 5)
    for few in (0, -3):
        for read in (goal_set.draw, goal_set.standard):
            with pytest.raises(UserError, match=f"episodes: {few} is not positive"):
                read(toy, few)
        with pytest.raises(UserError, match=f"episodes: {few} is not positive"):
            goal_set.load(toy, tmp_path / "set.csv", few)


def test_training_never_draws_a_held_out_goal(toy, config):
    goals = goal_set.draw(toy, 200)
    agent = DDPG(ddpg(config), toy.action_size)
    epoch = jax.jit(functools.partial(train.epoch, toy, agent, config))
    trained = np.zeros((0, 2))
    for seed in range(3):
        state, *_ = epoch(train.init(toy, agent, config, jax.random.key(seed)))
        trained = np.asarray(state.buffer.episodes.desired_goal)
        goal_set.require_disjoint(goals, trained)
    with pytest.raises(UserError, match="1 of 200 held-out goals were requested in training"):
        goal_set.require_disjoint(goals, np.concatenate([trained, goals.starts.desired_goal[7:8]]))


def test_held_out_files_belong_to_the_environments():
    for name in TASKS:
        path = fetch(name).held_out_file
        assert path is not None and path.is_file()
