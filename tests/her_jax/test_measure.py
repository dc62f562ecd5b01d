"""The figures of the one pass, against NumPy on a buffer that is written by hand."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from conftest import ddpg, with_
from her_jax import buffer, evaluate, goal_set, train
from her_jax.agents.ddpg import DDPG
from her_jax.audit import measure, programs
from her_jax.types import Box, Episode
from toy import PointEnv

STORED = 12


def episodes(seed: int = 0) -> Episode:
    """Random walks of the toy; the first four stand still."""
    env, rng = PointEnv(), np.random.default_rng(seed)
    moves = rng.uniform(-0.1, 0.1, (STORED, env.horizon, 2)).astype(np.float32)
    moves[:4] = 0
    walks = np.concatenate([np.zeros((STORED, 1, 2), np.float32), moves.cumsum(1)], axis=1)
    goals = rng.uniform(-0.3, 0.3, (STORED, 2)).astype(np.float32)
    cost = np.zeros((STORED, env.horizon, 2), np.float32)
    return Episode(*map(jnp.asarray, (walks, walks, goals, moves * 10, cost)))


def state_of(config: Any, stored: Episode) -> train.TrainState:
    env = PointEnv()
    state = train.init(env, DDPG(ddpg(config), 2), config, jax.random.key(0))
    for i in range(0, STORED, 4):
        part = jax.tree.map(lambda x, i=i: x[i : i + 4], stored)
        state = state.replace(buffer=buffer.insert(state.buffer, part))
    return state


@functools.cache
def measured() -> tuple[measure.Measured, Any]:
    from conftest import tiny_config

    config = tiny_config()
    state = state_of(config, episodes())
    starts = goal_set.draw(PointEnv(), 6).starts
    run = jax.jit(functools.partial(measure.measure, PointEnv(), DDPG(ddpg(config), 2), config))
    return run(state, starts, jax.random.key(1)), state


def number(name: str) -> float:
    return float(measured()[0].numbers[name])


def test_a_broken_episode_says_nothing_of_goals_at_rest():
    idle = episodes()
    moving = idle._replace(achieved_goal=idle.achieved_goal[4:])
    broken = moving._replace(achieved_goal=moving.achieved_goal.at[0, -1].set(jnp.nan))
    jitter = float(measure._jitter(broken))
    intact = jax.tree.map(lambda x: x[1:], moving)
    assert jitter == float(measure._jitter(intact)) > 0
    everywhere = moving._replace(achieved_goal=jnp.full_like(moving.achieved_goal, jnp.nan))
    assert math.isnan(float(measure._jitter(everywhere)))


def test_coverage_counts_cells_that_moved_goals_met():
    walks = np.asarray(episodes().achieved_goal, np.float64)
    moved = walks[np.linalg.norm(walks - walks[:, :1], axis=-1) >= 0.05]
    cells = {tuple(cell) for cell in np.floor((moved + 1) / 0.1 + 1e-9).astype(int)}
    inside = [cell for cell in cells if max(cell) < 20 and min(cell) >= 0]
    assert number("goal_coverage") == pytest.approx(len(inside) / 400, abs=2 / 400)


def coverage(goals, region: Box, counted=None, stored=50) -> float:
    spec = dataclasses.replace(
        PointEnv().goal_spec, region=region, tolerance=0.1, bounds=Box((-9.0, -9.0), (9.0, 9.0))
    )
    goals = jnp.asarray(goals, jnp.float32)
    counted = jnp.ones(len(goals), bool) if counted is None else jnp.asarray(counted)
    room = stored - len(goals)
    goals, counted = jnp.pad(goals, ((0, room), (0, 0))), jnp.pad(counted, (0, room))
    return float(measure._coverage(spec, goals[None], counted[None]))


def test_coverage_of_goals_at_the_edge_and_beyond():
    unit = Box((0.0, 0.0), (1.0, 1.0))
    assert coverage([[0.0, 0.0]], unit) == pytest.approx(1 / 100)
    assert coverage([[1.0, 1.0]], unit) == pytest.approx(1 / 100)  # ends are included
    assert coverage([[-0.0005, 1.0005]], unit) == pytest.approx(1 / 100)  # rounded over the edge
    assert coverage([[-0.05, 0.5], [0.5, 1.2], [np.nan, 0.5]], unit) == 0
    assert coverage([[0.5, 0.5]], unit, counted=[False]) == 0


def test_coverage_of_too_many_cells_is_not_measured():
    assert np.isnan(coverage([[0.0, 0.0]], Box((-9.0, -9.0), (9e4, 9e4))))


def test_coverage_that_the_stored_states_could_not_reach_is_not_measured():
    """Or a large goal space would look as if nothing had been explored."""
    unit = Box((0.0, 0.0), (1.0, 1.0))  # 100 cells
    assert np.isnan(coverage([[0.0, 0.0]], unit, stored=49))


def test_cells_of_a_flat_region_reach_a_tolerance_beyond_it():
    low, cells, width = measure._cells(Box((0.0, 0.4), (0.3, 0.4)), 0.05)
    np.testing.assert_allclose(low, [0.0, 0.35])
    np.testing.assert_array_equal(cells, [6, 1])
    np.testing.assert_allclose(width, [0.05, 0.1])


def test_moved_rate_is_the_share_of_episodes_that_left_their_start():
    walks = np.asarray(episodes().achieved_goal)
    far = np.linalg.norm(walks - walks[:, :1], axis=-1).max(1) >= 0.05
    assert number("moved_rate") == pytest.approx(far.mean())
    assert far[:4].sum() == 0 and far[4:].all()


def test_distances_and_shares_of_relabelled_rows_are_plausible():
    """Exact values depend on the rows drawn; their expectations do not."""
    walks, goals = np.asarray(episodes().achieved_goal), np.asarray(episodes().desired_goal)
    asked = np.linalg.norm(goals - walks[:, 0], axis=-1).mean()
    assert number("requested_goal_distance_from_start") == pytest.approx(asked, rel=0.1)
    later, reached, already = [], [], []
    for t in range(15):
        for goal in range(t + 1, 16):
            weight = 1 / (15 - t)
            later.append(weight * np.linalg.norm(walks[:, goal] - walks[:, 0], axis=-1))
            near = np.linalg.norm(walks[:, t + 1] - walks[:, goal], axis=-1) < 0.1
            reached.append(weight * near)
            already.append(weight * (np.linalg.norm(walks[:, t] - walks[:, goal], axis=-1) < 0.1))
    for name, values in (
        ("relabelled_goal_distance_from_start", later),
        ("hindsight_reached", reached),
        ("hindsight_already_reached", already),
    ):
        assert number(name) == pytest.approx(np.sum(values, 0).mean() / 15, rel=0.1), name
    assert abs(number("hindsight_ratio") - 0.8) < 3 * np.sqrt(0.16 / measure.SAMPLED_ROWS)


def test_goals_that_other_episodes_were_asked_for_are_no_hindsight(config):
    """Half of what `future_actual` draws: here nothing ever moves, and what is asked for is far."""
    config, env, stored = with_(config, strategy="future_actual"), PointEnv(), episodes()
    still = jnp.zeros_like(stored.achieved_goal)
    replay = state_of(
        config, stored._replace(achieved_goal=still, desired_goal=stored.desired_goal + 5)
    ).buffer

    @jax.jit
    def described(replay):
        steps = buffer.sample(replay, jax.random.key(0), 1000)
        drawn, _ = train.replayed(env, config, replay, steps, jax.random.key(1))
        policy, key = evaluate.no_action(env), jax.random.key(2)
        anew = measure._recommanded(env, policy, replay, steps, drawn, key)
        return drawn, measure._labels(env, replay, steps, drawn) | anew

    drawn, figures = described(replay)
    assert 0.35 < drawn.hindsight.mean() < 0.45 < 0.75 < drawn.relabelled.mean() < 0.85
    assert figures["requested_goal_distance_from_start"] > 5
    assert figures["relabelled_goal_distance_from_start"] == 0
    assert figures["hindsight_reached"] == figures["hindsight_already_reached"] == 1
    assert figures["recommanded_goals"] == 0


def test_figures_of_goals_out_of_bounds(config):
    stored = episodes()
    broken = stored.achieved_goal.at[0, 3, 0].set(9.0).at[5, 2, 1].set(jnp.nan)
    state = state_of(config, stored._replace(achieved_goal=broken))
    figures = measure._stored_goals(PointEnv().goal_spec, state.buffer)
    assert float(figures["invalid_goal_share"]) == pytest.approx(2 / (STORED * 16))
    assert number("invalid_goal_share") == 0


def test_wasserstein_is_the_shift_of_shifted_samples():
    a = jax.random.normal(jax.random.key(0), (500, 2))
    assert float(measure._wasserstein(a, a + jnp.array([0.3, 0.1]))) == pytest.approx(0.2, abs=1e-5)
    assert float(measure._wasserstein(a, a[::-1])) == pytest.approx(0, abs=1e-6)


def test_outcome_and_floor_are_those_of_an_evaluation():
    result, state = measured()
    assert not np.asarray(result.idle.success).any()
    assert np.asarray(result.idle.cost_sum).max() == 0
    again = evaluate.outcome(PointEnv(), result.played)
    np.testing.assert_array_equal(result.outcome.success, again.success)
    assert result.played.desired_goal.shape == (6, 2)
    assert int(state.buffer.size) == STORED


def test_identity_is_clean_and_goals_are_commanded_anew():
    assert number("identity_mismatches") == 0
    assert number("static_goal_jitter") == 0
    assert 0 <= number("recommanded_goal_reached") <= 1
    assert 0 < number("recommanded_goals") <= measure.RECOMMANDED_GOALS


def test_no_recommanded_goal_without_hindsight(config):
    config = with_(config, strategy="none")
    state = state_of(config, episodes())
    starts = goal_set.draw(PointEnv(), 4).starts
    agent, key = DDPG(ddpg(config), 2), jax.random.key(1)
    result = programs.measured(PointEnv(), agent, config, state, starts, key)
    assert int(result.numbers["recommanded_goals"]) == 0
    assert np.isnan(result.numbers["recommanded_goal_reached"])


def test_two_sample_test_has_its_level_for_all_coordinates_together():
    """Distances of distribution functions by hand, beside the limit of large samples."""
    n, size = 1000, 0.05

    def limit(level):
        return math.sqrt(-math.log(level / 2) / n)  # of two samples of n each

    def agree(distance, coordinates):
        moved = round(distance * n)
        ours = np.arange(n, dtype=np.float64)[:, None].repeat(coordinates, 1)
        theirs = ours.copy()
        theirs[:moved, 0] += 10 * n  # so many goals lie beyond all others
        return measure.requested_goals_agree(ours, theirs, size)

    for coordinates in (1, 3):
        edge = limit(1e-3 / coordinates)
        assert agree(0.97 * edge, coordinates) and not agree(1.03 * edge, coordinates)
    assert 1.03 * limit(1e-3) < 0.99 * limit(1e-3 / 3)


def test_two_sample_test_of_several_and_of_flat_coordinates():
    rng = np.random.default_rng(0)
    trained, held_out = rng.normal(size=(800, 3)), rng.normal(size=(200, 3))
    assert measure.requested_goals_agree(trained, held_out, 0.05)
    assert not measure.requested_goals_agree(trained, held_out + np.array([0, 0, 0.5]), 0.05)
    flat = np.full((300, 1), 0.42489222, np.float32)
    rounded_otherwise = np.nextafter(flat[:50], np.float32(1))
    assert measure.requested_goals_agree(flat, rounded_otherwise, 0.05)
    assert not measure.requested_goals_agree(flat, flat[:50] + 0.01, 0.05)
