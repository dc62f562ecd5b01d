from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from conftest import with_
from her_jax import evaluate, relabel, train
from her_jax.agents.ddpg import DDPG
from her_jax.config import Config, DDPGConfig, ReplayConfig, TrainConfig
from her_jax.types import Moment
from toy import PointEnv


def compiled(env, config):
    """(init, epoch) of a configuration, jitted."""
    agent = DDPG(config.agent, env.action_size)
    init = jax.jit(functools.partial(train.init, env, agent, config))
    return init, jax.jit(functools.partial(train.epoch, env, agent, config))


def same(a, b) -> bool:
    leaves = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.array_equal(_plain(x), _plain(y)) for x, y in leaves)


def _plain(x):
    return jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x


def test_one_trace_serves_every_epoch(config):
    """Environment, agent and epoch are traced once, however many epochs run."""
    traces = {"step": 0, "update": 0}

    class CountingEnv(PointEnv):
        def step(self, state, action):
            traces["step"] += 1
            return super().step(state, action)

    class CountingAgent(DDPG):
        def update(self, learner, batch):
            traces["update"] += 1
            return super().update(learner, batch)

    env, agent = CountingEnv(), CountingAgent(config.agent, 2)
    run_epoch = jax.jit(functools.partial(train.epoch, env, agent, config), donate_argnums=0)
    state = jax.jit(functools.partial(train.init, env, agent, config))(jax.random.key(0))
    state, _ = run_epoch(state)
    after_first = dict(traces)
    for _ in range(3):
        state, _ = run_epoch(state)
    assert traces == after_first
    assert traces["step"] <= 2 and traces["update"] <= 2


def test_counts(toy, config):
    init, epoch = compiled(toy, config)
    state, metrics = epoch(init(jax.random.key(0)))
    played = config.train.cycles_per_epoch * config.train.num_envs
    assert int(state.env_steps) == played * toy.horizon
    assert int(state.buffer.size) == min(played, config.replay.capacity)
    updates = config.train.cycles_per_epoch * config.train.updates_per_cycle
    assert int(state.learner.updates) == updates
    assert int(state.normalizer.count.lo) == played * toy.horizon
    assert all(np.isfinite(value) for value in metrics.values())


def test_seeds_differ_and_repeat(toy, config):
    init, epoch = compiled(toy, config)
    one, _ = epoch(init(jax.random.key(1)))
    again, _ = epoch(init(jax.random.key(1)))
    other, _ = epoch(init(jax.random.key(2)))
    assert same(one, again)
    for part in ("learner", "buffer", "key"):
        assert not same(getattr(one, part), getattr(other, part)), part


def test_a_vmapped_seed_equals_its_single_run(toy, config):
    init, epoch = compiled(toy, config)
    keys = jnp.stack([jax.random.key(seed) for seed in range(3)])
    many, _ = jax.jit(jax.vmap(epoch))(jax.vmap(init)(keys))
    for seed in range(3):
        single, _ = epoch(init(jax.random.key(seed)))
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
    state, _ = epoch(init(jax.random.key(0)))
    stored = int(state.buffer.size)
    goals = np.asarray(state.buffer.episodes.desired_goal[:stored])
    actions = np.asarray(state.buffer.episodes.action[:stored]).reshape(stored, -1)
    assert len(np.unique(goals, axis=0)) == stored
    assert len(np.unique(actions, axis=0)) == stored


def test_stored_episodes_are_what_the_environment_does(toy, config):
    """Replaying stored actions from the start gives the stored states; nothing is lost at T."""
    init, epoch = compiled(toy, config)
    state, _ = epoch(init(jax.random.key(0)))
    stored = int(state.buffer.size)
    episodes = jax.tree.map(lambda x: np.asarray(x[:stored]), state.buffer.episodes)
    walked = np.cumsum(0.1 * np.clip(episodes.action, -1, 1), axis=1)
    np.testing.assert_allclose(episodes.observation[:, 1:], walked, atol=1e-5)
    np.testing.assert_array_equal(episodes.observation, episodes.achieved_goal)
    assert episodes.observation.shape[1] == toy.horizon + 1


@pytest.mark.parametrize("strategy", relabel.STRATEGIES)
def test_reward_is_recomputed_for_the_goal_that_is_replayed(toy, config, strategy):
    """With hindsight the share of rewarded samples rises; without it the stored goals decide."""
    config = with_(config, strategy=strategy, k=4.0)
    init, epoch = compiled(toy, config)
    state, metrics = epoch(init(jax.random.key(0)))
    expected = 0.0 if strategy == "none" else 0.8
    assert abs(float(metrics["hindsight_ratio"]) - expected) < 0.12
    steps = Moment(jnp.arange(8) % int(state.buffer.size), jnp.arange(8) % toy.horizon)
    seen = train.relabelled(
        config, state.buffer.episodes, state.buffer.size, steps, jax.random.key(3)
    )
    reward = toy.reward(seen.next_achieved_goal, seen.desired_goal)
    distance = np.linalg.norm(seen.next_achieved_goal - seen.desired_goal, axis=-1)
    np.testing.assert_array_equal(reward, -(distance > toy.tolerance).astype(np.float32))
    if strategy == "none":
        np.testing.assert_array_equal(
            seen.desired_goal, state.buffer.episodes.desired_goal[steps.episode]
        )


def test_normaliser_sees_relabelled_goals(toy, config):
    """The requested goals lie on a ring of radius >= 0.8; the statistics must know smaller ones."""
    relabelling, requested = (
        compiled(toy, with_(config, k=k))[1](
            compiled(toy, with_(config, k=k))[0](jax.random.key(0))
        )
        for k in (1e6, 0.0)
    )
    assert float(relabelling[0].normalizer.std["goal"].max()) < 0.35
    assert float(requested[0].normalizer.std["goal"].min()) > 0.45


LEARNING = Config(
    train=TrainConfig(
        env_steps=1, num_envs=8, updates_per_cycle=40, cycles_per_epoch=40, eval_episodes=100
    ),
    replay=ReplayConfig(capacity=800, batch_size=64),
    agent=DDPGConfig(
        hidden=(64, 64), discount=0.9, target_rate=0.05, target_period=1, action_l2=0.01
    ),
)


def success_after_training(config: Config) -> float:
    env = PointEnv()
    init, epoch = compiled(env, config)
    state, _ = epoch(init(jax.random.key(0)))
    agent = DDPG(config.agent, env.action_size)

    def policy(key, obs):
        del key
        return train.greedy(agent, config, state.learner, state.normalizer, obs)

    keys = evaluate.held_out(config.train.eval_episodes)
    return float(jnp.mean(evaluate.evaluate(env, policy, keys).success))


def test_her_learns_what_no_her_cannot():
    with_hindsight = success_after_training(LEARNING)
    without = success_after_training(
        dataclasses.replace(LEARNING, replay=dataclasses.replace(LEARNING.replay, strategy="none"))
    )
    assert with_hindsight >= 0.9, (with_hindsight, without)
    assert without <= 0.1, (with_hindsight, without)
