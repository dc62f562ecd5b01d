from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from conftest import SILENT, ddpg, fetch, fetch_reset, with_
from her_jax import evaluate, goal_set, train
from her_jax.agents.ddpg import DDPG
from her_jax.runner import Run


def straight(key, obs):
    """Solves the toy: walks towards the goal at full speed."""
    del key
    return jnp.clip((obs.desired_goal - obs.achieved_goal) / 0.1, -1, 1)


def test_perfect_and_idle_policies(toy):
    keys = goal_set.draw(toy, 50).starts
    solved = evaluate.evaluate(toy, straight, keys)
    assert solved.success.all() and solved.success_any.all()
    assert float(solved.distance.max()) < toy.tolerance
    idle = evaluate.evaluate(toy, evaluate.no_action(toy), keys)
    assert not idle.success_any.any()
    assert float(idle.distance.min()) >= 0.8


def test_success_by_quarters_of_the_goals(toy):
    goals = np.stack([np.arange(8.0)[::-1], np.zeros(8)], axis=-1)
    success = np.array([0, 0, 0, 1, 1, 1, 1, 1], bool)  # fails where the first number is high
    assert evaluate.quarters(toy.goal_spec, goals, success) == {
        "x": [
            {"low": low, "high": low + 1, "requested_goal_success": share}
            for low, share in ((0.0, 1.0), (2.0, 1.0), (4.0, 0.5), (6.0, 0.0))
        ]
    }
    counted = dataclasses.replace(toy.goal_spec, count=4)
    assert evaluate.quarters(counted, goals, success) == {}


def test_success_is_at_the_last_step_and_any_step_apart(toy):
    """A policy that passes through the goal and walks on is successful only on the way."""

    def through(key, obs):
        del key
        return obs.desired_goal / jnp.linalg.norm(obs.desired_goal)

    outcome = evaluate.evaluate(toy, through, goal_set.draw(toy, 50).starts)
    assert outcome.success_any.all()
    assert not outcome.success.any()


def test_relabelling_cannot_change_an_evaluation(toy, config, tmp_path):
    """Metamorphic: the same parameters score the same under every replay setting."""
    starts = goal_set.draw(toy, 20).starts
    state = train.init(toy, DDPG(ddpg(config), 2), config, jax.random.key(0))

    def distances(changed):
        outcome = Run(toy, changed, tmp_path / "never", SILENT).evaluate(state, starts)
        return np.asarray(outcome.distance)

    reference = distances(config)
    for changes in ({"strategy": "random"}, {"k": 0.0}, {"strategy": "none", "batch_size": 2}):
        np.testing.assert_array_equal(distances(with_(config, **changes)), reference)
    other = train.init(toy, DDPG(ddpg(config), 2), config, jax.random.key(1))
    state = state.replace(learner=other.learner)
    assert not np.array_equal(distances(config), reference)


@pytest.mark.parametrize(
    ("name", "floor"),
    [("FetchReach", 0.019), ("FetchPush", 0.069), ("FetchSlide", 0.0028),
     ("FetchPickAndPlace", 0.037)],
)  # fmt: skip
def test_share_of_goals_reached_at_the_start_is_the_known_one(name, floor):
    """Monte Carlo of the original's reset, within four standard deviations."""
    env, count = fetch(name), 4000
    first = fetch_reset(name)(goal_set.held_out_keys(count)).obs
    solved = np.mean(env.success(first.achieved_goal, first.desired_goal))
    assert solved > 0 and abs(solved - floor) < 4 * np.sqrt(floor * (1 - floor) / count)


def test_doing_nothing_on_push_scores_the_goals_reached_at_the_start():
    env, starts = fetch("FetchPush"), goal_set.standard(fetch("FetchPush"), 100).starts
    idle = jax.jit(lambda starts: evaluate.evaluate(env, evaluate.no_action(env), starts))(starts)
    first = jax.jit(jax.vmap(env.begin))(starts).obs
    at_start = env.success(first.achieved_goal, first.desired_goal)
    np.testing.assert_array_equal(idle.success, at_start)
    assert evaluate.costs(env, idle)["object_off_table"]["episode_sum"] == 0


def test_costs_are_sums_and_worst_steps(toy):
    """The straight walker makes full steps until it is there; none leads beyond the circle."""
    result = evaluate.evaluate(toy, straight, goal_set.draw(toy, 10).starts)
    costs = evaluate.costs(toy, result)
    assert set(costs) == {"speed", "outside"} and costs["speed"]["units"] == "m"
    assert 0.8 <= costs["speed"]["episode_sum"] <= 1.5
    assert 0.1 <= costs["speed"]["worst_step"] <= 0.1 * np.sqrt(2) + 1e-6
    assert costs["outside"]["episode_sum"] < 1e-6


def test_an_episode_whose_simulation_broke_fails_and_spoils_no_mean(toy):
    """Even one that ends at the goal."""
    starts = goal_set.draw(toy, 4).starts
    played, dropped = evaluate.episodes(toy, straight, starts)
    broken = played._replace(action=played.action.at[1, 3].set(jnp.nan))
    assert dropped.tolist() == [0, 0, 0, 0]
    whole = evaluate.outcome(toy, played, jnp.array([0, 2, 0, 1]))
    outcome = evaluate.outcome(toy, broken)
    assert whole.dropped.tolist() == [0, 2, 0, 1] and outcome.dropped.tolist() == [0, 0, 0, 0]
    assert whole.success.all() and not whole.broken.any()
    assert outcome.success.tolist() == outcome.success_any.tolist() == [True, False, True, True]
    assert outcome.broken.tolist() == [False, True, False, False]
    kept = np.array([0, 2, 3])
    assert evaluate.mean(outcome.distance) == evaluate.mean(whole.distance[kept])
    assert evaluate.mean(outcome.reward_sum) == evaluate.mean(whole.reward_sum[kept])
    for name, cost in evaluate.costs(toy, outcome).items():
        i = [spec.name for spec in toy.cost_specs].index(name)
        assert cost["episode_sum"] == evaluate.mean(whole.cost_sum[kept, i])
        assert cost["worst_step"] == whole.cost_max[kept, i].max()
    assert np.isnan(evaluate.mean([np.nan, np.nan]))  # nothing is left to be reported
