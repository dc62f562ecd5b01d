"""DDPG's update against a NumPy transcription with hand-written gradients."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from her_jax.agents.ddpg import DDPG
from her_jax.config import DDPGConfig
from her_jax.types import Batch
from oracles import Adam, TwoLayer

INPUTS, ACTIONS, BATCH = 5, 2, 12
CONFIG = DDPGConfig(
    hidden=(6,),
    actor_learning_rate=3e-3,
    critic_learning_rate=2e-3,
    discount=0.9,
    target_rate=0.1,
    target_period=2,
    action_l2=0.7,
    average_rate=0.3,
)


def layers(tree) -> TwoLayer:
    dense = tree["params"]["MLP_0"]
    return TwoLayer(
        dense["Dense_0"]["kernel"],
        dense["Dense_0"]["bias"],
        dense["Dense_1"]["kernel"],
        dense["Dense_1"]["bias"],
    )


def batches(count):
    rng = np.random.default_rng(0)
    for _ in range(count):
        yield Batch(
            inputs=jnp.asarray(rng.normal(size=(BATCH, INPUTS)), jnp.float32),
            action=jnp.asarray(rng.uniform(-1, 1, (BATCH, ACTIONS)), jnp.float32),
            reward=-jnp.asarray(rng.uniform(size=BATCH) > 0.5, jnp.float32),
            # Some rows bootstrap after two steps, as n-step returns do.
            discount=jnp.asarray(rng.choice([0.9, 0.81], BATCH), jnp.float32),
            next_inputs=jnp.asarray(rng.normal(size=(BATCH, INPUTS)), jnp.float32),
        )


def test_updates_equal_the_hand_computed_ones():
    agent = DDPG(CONFIG, ACTIONS)
    learner = agent.init(jax.random.key(0), INPUTS)
    actor, critic = layers(learner.actor.online), layers(learner.critics.online[0])
    actor_target, critic_target = layers(learner.actor.target), layers(learner.critics.target[0])
    average = layers(learner.average)
    actor_adam = Adam(actor.params, CONFIG.actor_learning_rate)
    critic_adam = Adam(critic.params, CONFIG.critic_learning_rate)
    for number, batch in enumerate(batches(4), start=1):
        learner, metrics = agent.update(learner, batch, jax.random.key(number))

        next_action = np.tanh(actor_target.forward(batch.next_inputs)[0])
        next_value, _ = critic_target.forward(np.hstack([batch.next_inputs, next_action]))
        y = np.clip(batch.reward + batch.discount * next_value[:, 0], -10.0, 0.0)
        value, cache = critic.forward(np.hstack([batch.inputs, batch.action]))
        error = value[:, 0] - y
        critic_grads, _ = critic.backward(cache, 2 * error[:, None] / BATCH)

        raw, actor_cache = actor.forward(batch.inputs)
        action = np.tanh(raw)
        policy_value, cache = critic.forward(np.hstack([batch.inputs, action]))
        _, d_inputs = critic.backward(cache, np.full((BATCH, 1), -1 / BATCH))
        d_action = d_inputs[:, INPUTS:] + 0.7 * 2 * action / action.size
        actor_grads, _ = actor.backward(actor_cache, d_action * (1 - action**2))

        np.testing.assert_allclose(metrics["critic_loss"], np.mean(error**2), rtol=1e-4)
        loss = -policy_value.mean() + 0.7 * np.mean(action**2)
        np.testing.assert_allclose(metrics["actor_loss"], loss, rtol=1e-4, atol=1e-6)

        critic.params = critic_adam.step(critic.params, critic_grads)
        actor.params = actor_adam.step(actor.params, actor_grads)
        if number % 2 == 0:
            for online, target in ((actor, actor_target), (critic, critic_target)):
                target.params = [
                    0.9 * old + 0.1 * new
                    for old, new in zip(target.params, online.params, strict=True)
                ]
        average.params = [
            0.7 * old + 0.3 * new for old, new in zip(average.params, actor.params, strict=True)
        ]
        for got, expected in (
            (learner.average, average),
            (learner.actor.online, actor),
            (learner.actor.target, actor_target),
            (learner.critics.online[0], critic),
            (learner.critics.target[0], critic_target),
        ):
            for a, b in zip(layers(got).params, expected.params, strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-6)


def test_the_average_acts_and_the_online_actor_explores():
    quiet = dataclasses.replace(CONFIG, noise_std=0.0, random_action_probability=0.0)
    agent = DDPG(quiet, ACTIONS)
    learner = agent.init(jax.random.key(0), INPUTS)
    for number, batch in enumerate(batches(3)):
        learner, _ = agent.update(learner, batch, jax.random.key(number))
    inputs = jnp.ones(INPUTS)
    acts, explores = agent.act(learner, inputs), agent.explore(learner, inputs, jax.random.key(0))
    expected = [
        np.tanh(layers(actor).forward(np.ones((1, INPUTS)))[0][0])
        for actor in (learner.average, learner.actor.online, learner.actor.target)
    ]
    np.testing.assert_allclose(acts, expected[0], atol=1e-6)
    np.testing.assert_allclose(explores, expected[1], atol=1e-6)
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert np.abs(expected[i] - expected[j]).max() > 1e-4


@pytest.mark.parametrize(("scale", "bound"), [(-1e3, -10.0), (1e3, 0.0)])
def test_targets_stay_within_the_range_of_returns(scale, bound):
    agent = DDPG(CONFIG, ACTIONS)
    learner = agent.init(jax.random.key(0), INPUTS)
    blown_up = jax.tree.map(lambda x: scale * jnp.ones_like(x), learner.critics.target)
    learner = learner.replace(critics=learner.critics._replace(target=blown_up))
    targets = agent.targets(learner, next(batches(1)), jax.random.key(0))
    np.testing.assert_allclose(targets, bound, rtol=1e-6)


def test_exploration_statistics():
    config = DDPGConfig(noise_std=0.1, random_action_probability=0.25)
    agent = DDPG(config, 4)
    learner = agent.init(jax.random.key(1), 3)
    inputs = jnp.zeros(3)  # at which a fresh actor, without biases, does nothing
    np.testing.assert_array_equal(agent.act(learner, inputs), 0)
    keys = jax.random.split(jax.random.key(0), 20_000)
    drawn = np.asarray(jax.vmap(agent.explore, (None, None, 0))(learner, inputs, keys))
    assert np.abs(drawn).max() <= 1.0
    # A whole uniform vector exceeds 5 sigma in some coordinate with probability 1 - 0.5^4.
    is_random = (np.abs(drawn) > 0.5).any(axis=1).mean() / (1 - 0.5**4)
    assert abs(is_random - 0.25) < 0.01
    calm = drawn[(np.abs(drawn) < 0.5).all(axis=1)]
    assert abs(calm.std() - 0.1) < 0.04
    assert abs(np.corrcoef(drawn[:, 0], drawn[:, 1])[0, 1]) < 0.03


def test_greedy_actions_have_no_noise():
    agent = DDPG(CONFIG, ACTIONS)
    learner = agent.init(jax.random.key(0), INPUTS)
    inputs = jnp.ones((3, INPUTS))
    np.testing.assert_array_equal(agent.act(learner, inputs), agent.act(learner, inputs))
    different = agent.act(learner, inputs.at[:, -1].add(1.0))
    assert not np.allclose(different, agent.act(learner, inputs))
