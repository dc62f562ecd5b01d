from __future__ import annotations

import collections
import dataclasses
import functools
import re
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from conftest import LEARNING, ddpg, keeping, learn, same, with_
from her_jax import evaluate, goal_set, normalizer, train
from her_jax.agents.ddpg import DDPG
from toy import PointEnv


@functools.cache
def compiled(env, config):
    """(init, epoch) of a configuration, jitted once."""
    agent = DDPG(ddpg(config), env.action_size)
    init = jax.jit(functools.partial(train.init, env, agent, config))
    return init, jax.jit(functools.partial(train.epoch, env, agent, config))


def test_one_trace_serves_every_epoch(config):
    """Environment, agent and epoch are traced once, however many epochs run."""
    traces = {"step": 0, "update": 0}

    class CountingEnv(PointEnv):
        def step(self, state, action):
            traces["step"] += 1
            return super().step(state, action)

    class CountingAgent(DDPG):
        def update(self, learner, batch, key):
            traces["update"] += 1
            return super().update(learner, batch, key)

    env, agent = CountingEnv(), CountingAgent(ddpg(config), 2)
    run_epoch = jax.jit(functools.partial(train.epoch, env, agent, config), donate_argnums=0)
    state = jax.jit(functools.partial(train.init, env, agent, config))(jax.random.key(0))
    state, *_ = run_epoch(state)
    after_first = dict(traces)
    for _ in range(3):
        state, *_ = run_epoch(state)
    assert traces == after_first
    assert traces["step"] <= 2 and traces["update"] <= 2


def products_by_precision(env, config):
    """Matrix products in the program of an epoch, by their precision."""
    init, epoch = compiled(env, config)
    program = epoch.lower(jax.eval_shape(init, jax.random.key(0))).as_text()
    return collections.Counter(
        re.findall(r"precision = \[(\w+)", line)[0]
        for line in program.splitlines()
        if "dot_general" in line
    )


def test_updates_have_the_precision_asked_for_and_nothing_else_has(toy, config):
    before = products_by_precision(toy, config)
    after = products_by_precision(toy, with_(config, matmul_precision="float32"))
    assert set(before) == {"DEFAULT"}
    assert after["HIGHEST"] > 0 and after.total() == before.total()
    assert after["DEFAULT"] > 0  # the policy that explores
    with jax.default_matmul_precision("float32"):  # what a user set for everything stays
        assert set(products_by_precision(toy, config)) == {"HIGHEST"}


def test_counts(toy, config):
    init, epoch = compiled(toy, config)
    state, metrics, _ = epoch(init(jax.random.key(0)))
    played = config.train.cycles_per_epoch * config.train.num_envs
    assert int(state.env_steps) == played * toy.horizon
    assert int(state.buffer.size) == min(played, config.replay.capacity)
    updates = config.train.cycles_per_epoch * config.train.updates_per_cycle
    assert int(state.learner.updates) == updates
    assert int(state.normalizer.count.lo) == played * toy.horizon
    assert all(np.isfinite(value) for value in metrics.values())


def test_seeds_differ_and_repeat(toy, config):
    init, epoch = compiled(toy, config)
    one, *_ = epoch(init(jax.random.key(1)))
    again, *_ = epoch(init(jax.random.key(1)))
    other, *_ = epoch(init(jax.random.key(2)))
    assert same(one, again)
    for part in ("learner", "buffer", "key"):
        assert not same(getattr(one, part), getattr(other, part)), part


def test_batches_drawn_together_are_those_drawn_one_by_one(toy, config, monkeypatch):
    results = []
    for most, at_once in ((25, 3), (1, 1)):
        monkeypatch.setattr(train, "MAX_BATCHES_AT_ONCE", most)
        assert train.batches_at_once(config.train.updates_per_cycle) == at_once
        usual = most == 25  # or a program of its own
        init, epoch = (compiled if usual else compiled.__wrapped__)(toy, config)
        state, _, drawn = epoch(init(jax.random.key(1)))
        results.append((drawn, state.learner))
    (drawn, learner), (one_by_one, learner_of_those) = results
    chex.assert_trees_all_equal(drawn.steps, one_by_one.steps)
    chex.assert_trees_all_close((drawn, learner), (one_by_one, learner_of_those), rtol=1e-4)


@pytest.mark.parametrize(
    ("updates", "at_once"), [(1000, 25), (100, 25), (40, 20), (26, 13), (97, 1)]
)
def test_batches_go_into_the_updates_evenly(updates, at_once):
    assert train.batches_at_once(updates) == at_once


@pytest.mark.slow
def test_a_vmapped_seed_equals_its_single_run(toy, config):
    init, epoch = compiled(toy, config)
    keys = jnp.stack([jax.random.key(seed) for seed in range(3)])
    many, *_ = jax.jit(jax.vmap(epoch))(jax.vmap(init)(keys))
    for seed in range(3):
        single, *_ = epoch(init(jax.random.key(seed)))
        mine = jax.tree.map(lambda x, seed=seed: x[seed], many)
        # Played with the initial policy, so exact; later values pass through batched products.
        np.testing.assert_array_equal(
            mine.buffer.episodes.desired_goal, single.buffer.episodes.desired_goal
        )
        assert same(mine.key, single.key)
        for a, b in zip(
            jax.tree.leaves(mine.learner), jax.tree.leaves(single.learner), strict=True
        ):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


def test_environments_and_episodes_differ(toy, config):
    """No key is used twice: every stored episode has its own goal and its own actions."""
    init, epoch = compiled(toy, config)
    state, *_ = epoch(init(jax.random.key(0)))
    stored = int(state.buffer.size)
    goals = np.asarray(state.buffer.episodes.desired_goal[:stored])
    actions = np.asarray(state.buffer.episodes.action[:stored]).reshape(stored, -1)
    assert len(np.unique(goals, axis=0)) == stored
    assert len(np.unique(actions, axis=0)) == stored


def test_stored_episodes_are_what_the_environment_does(toy, config):
    """Replaying stored actions from the start gives the stored states; nothing is lost at T."""
    init, epoch = compiled(toy, config)
    state, *_ = epoch(init(jax.random.key(0)))
    stored = int(state.buffer.size)
    episodes = jax.tree.map(lambda x: np.asarray(x[:stored]), state.buffer.episodes)
    walked = np.cumsum(0.1 * np.clip(episodes.action, -1, 1), axis=1)
    np.testing.assert_allclose(episodes.observation[:, 1:], walked, atol=1e-5)
    np.testing.assert_array_equal(episodes.observation, episodes.achieved_goal)
    assert episodes.observation.shape[1] == toy.horizon + 1


@pytest.mark.parametrize("strategy", ["future", "random", "none"])
def test_what_the_agent_is_given(toy, config, strategy):
    """An agent that keeps its batch: rewards, goals and normalised inputs against NumPy.

    The reward is asymmetric and tells the current from the next achieved goal, so a swapped
    argument, a stale goal or a reward of the wrong state shows.
    """

    class AsymmetricEnv(PointEnv):
        def reward(self, achieved_goal, desired_goal):
            return achieved_goal[..., 0] - 2 * desired_goal[..., 1]

    init, epoch = compiled(toy, config)
    state, *_ = epoch(init(jax.random.key(0)))
    config = with_(config, strategy=strategy, batch_size=64, updates_per_cycle=1)
    statistics: Any = state.normalizer
    (_, metrics, _), (batch,) = learn(
        AsymmetricEnv(), config, state.learner, statistics, state.buffer
    )

    def unnormalised(inputs):
        mean = np.concatenate([statistics.mean["observation"], statistics.mean["goal"]])
        std = np.concatenate([statistics.std["observation"], statistics.std["goal"]])
        return np.asarray(inputs) * std + mean

    now, later = unnormalised(batch.inputs), unnormalised(batch.next_inputs)
    np.testing.assert_allclose(now[:, 2:], later[:, 2:], atol=1e-5)  # one goal for both states
    np.testing.assert_allclose(
        later[:, :2] - now[:, :2], 0.1 * np.clip(batch.action, -1, 1), atol=1e-5
    )
    # On the toy the next achieved goal is the next observation.
    np.testing.assert_allclose(batch.reward, later[:, 0] - 2 * now[:, 3], atol=1e-5)
    goals = now[:, 2:]
    stored = jax.tree.map(np.asarray, state.buffer.episodes)
    requested = stored.desired_goal[: int(state.buffer.size)]
    achieved = stored.achieved_goal[: int(state.buffer.size)].reshape(-1, 2)
    from_request = np.abs(goals[:, None] - requested).max(-1).min(-1) < 1e-4
    from_achieved = np.abs(goals[:, None] - achieved).max(-1).min(-1) < 1e-4
    assert (from_request ^ from_achieved).all()
    assert abs(from_achieved.mean() - config.replay.relabel_probability) < 0.2
    assert abs(float(metrics["hindsight_ratio"]) - from_achieved.mean()) < 1e-6


def test_noise_is_on_what_training_observes_and_on_nothing_else(toy, config):
    config = with_(
        config,
        observation_noise=0.05,
        batch_size=512,
        updates_per_cycle=1,
        random_action_probability=0.0,
    )
    agent = DDPG(ddpg(config), 2)
    state = train.init(toy, agent, config, jax.random.key(0))
    state, *_ = jax.jit(functools.partial(train.cycle, toy, agent, config))(state)
    episodes = jax.tree.map(
        lambda x: np.asarray(x[: int(state.buffer.size)]), state.buffer.episodes
    )
    np.testing.assert_array_equal(episodes.observation, episodes.achieved_goal)  # stored without
    learner, statistics = state.learner, state.normalizer
    _, (batch,) = learn(toy, config, learner, statistics, state.buffer)
    std: Any = statistics.std
    step = (np.asarray(batch.next_inputs - batch.inputs)[:, :2]) * np.asarray(std["observation"])
    residue = step - 0.1 * np.clip(batch.action, -1, 1)
    assert residue.std() == pytest.approx(0.05 * np.sqrt(2), rel=0.1)
    np.testing.assert_array_equal(batch.next_inputs[:, 2:], batch.inputs[:, 2:])
    obs = toy.begin(toy.draw(jax.random.key(0))).obs

    def explored(config, key):
        noise_free = dataclasses.replace(ddpg(config), noise_std=0.0)
        return train.exploring(DDPG(noise_free, 2), config, learner, statistics, obs, key)

    quiet = with_(config, observation_noise=0.0)
    keys = jax.random.split(jax.random.key(1), 2)
    assert not np.allclose(explored(config, keys[0]), explored(config, keys[1]))
    greedy = train.greedy(agent, config, learner, statistics, obs)
    np.testing.assert_allclose(explored(quiet, keys[0]), greedy, rtol=1e-5)


def test_the_batch_grows_when_it_should(toy, config):
    class SayingAgent(DDPG):
        def update(self, learner, batch, key):
            learner, metrics = super().update(learner, batch, key)
            return learner, metrics | {"rows": jax.numpy.asarray(batch.reward.size, float)}

    played = config.train.num_envs * toy.horizon
    config = with_(config, batch_size=8, late_batch_size=24, late_batch_env_steps=2 * played)
    agent = SayingAgent(ddpg(config), 2)
    run = jax.jit(functools.partial(train.cycle, toy, agent, config))
    state, rows = train.init(toy, agent, config, jax.random.key(0)), []
    for _ in range(4):
        state, metrics, _ = run(state)
        rows.append(float(metrics["rows"]))
    assert rows == [8, 8, 24, 24]


def test_a_cycle_learns_with_the_statistics_of_what_it_played(toy, config):
    """Of the states that steps begin in, and not of those in which the last one ends."""
    config = with_(config, updates_per_cycle=1, batch_size=32, std_floor=1e-6, k=1e6)
    agent, kept = keeping(config, 2)
    state = train.init(toy, agent, config, jax.random.key(0))
    state, *_ = jax.jit(functools.partial(train.cycle, toy, agent, config))(state)
    jax.effects_barrier()
    held = np.asarray(state.buffer.episodes.observation[: int(state.buffer.size)])
    mean: Any = state.normalizer.mean
    std: Any = state.normalizer.std
    np.testing.assert_allclose(mean["observation"], held[:, :-1].mean((0, 1)), atol=1e-6)
    np.testing.assert_allclose(std["observation"], held[:, :-1].std((0, 1)), rtol=1e-3)
    assert float(std["goal"].max()) < 0.35  # of relabelled goals; see the next test
    (batch,) = kept
    seen = np.asarray(batch.inputs)[:, :2] * np.asarray(std["observation"]) + mean["observation"]
    away = np.abs(seen[:, None] - held[:, :-1].reshape(-1, 2)).max(-1).min(-1)
    assert away.max() < 1e-5


def test_dropped_contacts_are_counted_wherever_episodes_are_played(toy, config):
    class Dropping(PointEnv):
        """In the steps of a whole episode but the first five."""

        def step(self, state, action):
            reached = super().step(state, action)
            late = jnp.abs(reached.obs.observation).sum() > 0.55
            return reached.replace(dropped=late)

    env = Dropping()
    played, dropped = evaluate.episodes(
        env, lambda key, obs: jnp.asarray([1.0, 0.0]), goal_set.draw(env, 3).starts
    )
    assert dropped.tolist() == [env.horizon - 5] * 3
    assert evaluate.outcome(env, played, dropped).dropped.tolist() == [env.horizon - 5] * 3

    class Always(PointEnv):
        def step(self, state, action):
            return super().step(state, action).replace(dropped=jnp.ones((), bool))

    agent = DDPG(ddpg(config), 2)
    state = train.init(Always(), agent, config, jax.random.key(0))
    _, metrics, _ = jax.jit(functools.partial(train.cycle, Always(), agent, config))(state)
    assert float(metrics["dropped_contact_steps"]) == 1


def test_normaliser_sees_relabelled_goals(toy, config):
    """The requested goals lie on a ring of radius >= 0.8; the statistics must know smaller ones."""
    init, epoch = compiled(toy, config)
    state, *_ = epoch(init(jax.random.key(0)))
    played = jax.tree.map(lambda x: x[: int(state.buffer.size)], state.buffer.episodes)
    stds: list[Any] = [
        train.observe(with_(config, k=k), normalizer.init(2, 2), played, jax.random.key(1)).std
        for k in (1e6, 0.0)
    ]
    relabelling, requested = stds
    assert float(relabelling["goal"].max()) < 0.35
    assert float(requested["goal"].min()) > 0.45


def test_without_hindsight_nothing_is_learned(toy):
    """With it, equal training reaches 0.9: the healthy run of test_labels.py."""
    config = with_(LEARNING, strategy="none")
    init, epoch = compiled(toy, config)
    state, *_ = epoch(init(jax.random.key(0)))
    agent = DDPG(ddpg(config), toy.action_size)

    def policy(key, obs):
        del key
        return train.greedy(agent, config, state.learner, state.normalizer, obs)

    goals = goal_set.draw(toy, config.train.eval_episodes)
    assert float(jnp.mean(evaluate.evaluate(toy, policy, goals.starts).success)) <= 0.1
