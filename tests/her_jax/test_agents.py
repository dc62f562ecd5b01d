"""TD3, SAC and DQN against NumPy transcriptions with hand-written gradients, and their options."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from conftest import same
from her_jax import agents, train
from her_jax.agents import parts, sac
from her_jax.config import AGENTS, DDPGConfig, DQNConfig, SACConfig, TD3Config
from her_jax.errors import UserError
from her_jax.types import Batch
from oracles import Adam, TwoLayer
from toy import PointEnv

INPUTS, ACTIONS, BATCH, DISCOUNT = 5, 2, 12, 0.9
SMALL = {"hidden": (6,), "discount": DISCOUNT, "target_rate": 0.1, "critic_learning_rate": 2e-3}


def layers(tree) -> TwoLayer:
    inner = tree["params"]
    dense = inner.get("MLP_0", inner)
    return TwoLayer(
        dense["Dense_0"]["kernel"],
        dense["Dense_0"]["bias"],
        dense["Dense_1"]["kernel"],
        dense["Dense_1"]["bias"],
    )


def batches(count, one_hot=False):
    rng = np.random.default_rng(0)
    for _ in range(count):
        action = rng.uniform(-1, 1, (BATCH, ACTIONS))
        if one_hot:
            action = np.eye(ACTIONS)[rng.integers(ACTIONS, size=BATCH)]
        yield Batch(
            inputs=jnp.asarray(rng.normal(size=(BATCH, INPUTS)), jnp.float32),
            action=jnp.asarray(action, jnp.float32),
            reward=-jnp.asarray(rng.uniform(size=BATCH) > 0.5, jnp.float32),
            # Some rows bootstrap after two steps, as n-step returns do.
            discount=jnp.asarray(rng.choice([DISCOUNT, DISCOUNT**2], BATCH), jnp.float32),
            next_inputs=jnp.asarray(rng.normal(size=(BATCH, INPUTS)), jnp.float32),
        )


def require_close(tree, expected: TwoLayer):
    for a, b in zip(layers(tree).params, expected.params, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-6)


def mixed(target: TwoLayer, online: TwoLayer):
    pairs = zip(target.params, online.params, strict=True)
    return [0.9 * old + 0.1 * new for old, new in pairs]


def critic_steps(critics, adams, batch, y):
    """A gradient step of every critic towards y; returns the summed loss."""
    total = 0.0
    for critic, adam in zip(critics, adams, strict=True):
        value, cache = critic.forward(np.hstack([batch.inputs, batch.action]))
        error = value[:, 0] - y
        total += np.mean(error**2)
        grads, _ = critic.backward(cache, 2 * error[:, None] / BATCH)
        critic.params = adam.step(critic.params, grads)
    return total


def clipped(y):
    return np.clip(y, -1 / (1 - DISCOUNT), 0)


def test_td3_equals_the_hand_computed_updates():
    config = TD3Config(
        **SMALL,
        actor_learning_rate=3e-3,
        actor_period=2,
        target_noise_std=0.6,
        target_noise_clip=0.5,
        action_l2=0.3,
    )
    agent = agents.TD3(config, ACTIONS)
    learner = agent.init(jax.random.key(0), INPUTS)
    actor, actor_target = layers(learner.actor.online), layers(learner.actor.target)
    critics = [layers(tree) for tree in learner.critics.online]
    targets = [layers(tree) for tree in learner.critics.target]
    assert len(critics) == 2 and not np.allclose(critics[0].params[0], critics[1].params[0])
    actor_adam = Adam(actor.params, 3e-3)
    adams = [Adam(critic.params, 2e-3) for critic in critics]
    for number, batch in enumerate(batches(4), start=1):
        key = jax.random.key(number)
        learner, metrics = agent.update(learner, batch, key)

        drawn = np.asarray(jax.random.normal(jax.random.split(key)[0], (BATCH, ACTIONS)))
        noise = np.clip(0.6 * drawn, -0.5, 0.5)
        action = np.clip(np.tanh(actor_target.forward(batch.next_inputs)[0]) + noise, -1, 1)
        after = np.hstack([batch.next_inputs, action])
        lowest = np.minimum(*(target.forward(after)[0][:, 0] for target in targets))
        y = clipped(batch.reward + batch.discount * lowest)
        loss = critic_steps(critics, adams, batch, y)
        np.testing.assert_allclose(metrics["critic_loss"], loss, rtol=1e-4)
        if number % 2 == 0:
            raw, cache = actor.forward(batch.inputs)
            action = np.tanh(raw)
            _, value_cache = critics[0].forward(np.hstack([batch.inputs, action]))
            _, d_inputs = critics[0].backward(value_cache, np.full((BATCH, 1), -1 / BATCH))
            d_action = d_inputs[:, INPUTS:] + 0.3 * 2 * action / action.size
            grads, _ = actor.backward(cache, d_action * (1 - action**2))
            actor.params = actor_adam.step(actor.params, grads)
            actor_target.params = mixed(actor_target, actor)
            for target, critic in zip(targets, critics, strict=True):
                target.params = mixed(target, critic)
        require_close(learner.actor.online, actor)
        require_close(learner.actor.target, actor_target)
        for i in range(2):
            require_close(learner.critics.online[i], critics[i])
            require_close(learner.critics.target[i], targets[i])


def squashed(actor: TwoLayer, inputs, noise):
    """Raw action, its mean's cache, standard deviation and log density of tanh(raw)."""
    out, cache = actor.forward(inputs)
    mean, log_std = out[:, :ACTIONS], np.clip(out[:, ACTIONS:], -20, 2)
    raw = mean + np.exp(log_std) * noise
    normal = -0.5 * noise**2 - log_std - 0.5 * np.log(2 * np.pi)
    return raw, cache, np.exp(log_std), (normal - np.log(1 - np.tanh(raw) ** 2)).sum(1)


@pytest.mark.parametrize("tuned", [True, False])
def test_sac_equals_the_hand_computed_updates(tuned):
    config = SACConfig(
        **SMALL,
        actor_learning_rate=3e-3,
        temperature=0.3,
        tune_temperature=tuned,
        temperature_learning_rate=5e-3,
        target_entropy_per_action=0.25,
        action_l2=0.3,
        target_period=2,
    )
    agent = agents.SAC(config, ACTIONS)
    learner = agent.init(jax.random.key(0), INPUTS)
    actor = layers(learner.actor)
    critics = [layers(tree) for tree in learner.critics.online]
    targets = [layers(tree) for tree in learner.critics.target]
    actor_adam = Adam(actor.params, 3e-3)
    adams = [Adam(critic.params, 2e-3) for critic in critics]
    log_alpha = [np.log(0.3)]
    alpha_adam = Adam(log_alpha, 5e-3)
    for number, batch in enumerate(batches(4), start=1):
        key = jax.random.key(number)
        learner, metrics = agent.update(learner, batch, key)

        target_key, actor_key = jax.random.split(key)
        noise = np.asarray(jax.random.normal(jax.random.split(target_key)[0], (BATCH, ACTIONS)))
        raw, _, _, log_pi = squashed(actor, batch.next_inputs, noise)
        after = np.hstack([batch.next_inputs, np.tanh(raw)])
        lowest = np.minimum(*(target.forward(after)[0][:, 0] for target in targets))
        alpha = np.exp(log_alpha[0])
        y = batch.reward + batch.discount * (clipped(lowest) - alpha * log_pi)

        noise = np.asarray(jax.random.normal(actor_key, (BATCH, ACTIONS)))
        raw, cache, std, log_pi = squashed(actor, batch.inputs, noise)
        action = np.tanh(raw)
        forwards = [critic.forward(np.hstack([batch.inputs, action])) for critic in critics]
        values = np.stack([value[:, 0] for value, _ in forwards])
        d_action = np.zeros((BATCH, ACTIONS))
        for i, critic in enumerate(critics):
            upstream = np.where(values.argmin(0) == i, -1 / BATCH, 0.0)[:, None]
            d_action += critic.backward(forwards[i][1], upstream)[1][:, INPUTS:]
        # d log pi / d raw = 2 tanh(raw), and d log pi / d log std = -1 besides.
        d_raw = d_action * (1 - action**2) + alpha / BATCH * 2 * action
        greedy = np.tanh(actor.forward(batch.inputs)[0][:, :ACTIONS])
        d_penalty = 0.3 * 2 * greedy / greedy.size * (1 - greedy**2)
        d_out = np.hstack([d_raw + d_penalty, d_raw * std * noise - alpha / BATCH])
        actor_grads, _ = actor.backward(cache, d_out)
        loss = alpha * log_pi.mean() - values.min(0).mean() + 0.3 * np.mean(greedy**2)

        np.testing.assert_allclose(metrics["actor_loss"], loss, rtol=1e-4)
        np.testing.assert_allclose(
            metrics["critic_loss"], critic_steps(critics, adams, batch, y), rtol=1e-4
        )
        actor.params = actor_adam.step(actor.params, actor_grads)
        if tuned:
            log_alpha = alpha_adam.step(log_alpha, [-(log_pi.mean() + 0.25 * ACTIONS)])
        if number % 2 == 0:
            for target, critic in zip(targets, critics, strict=True):
                target.params = mixed(target, critic)
        require_close(learner.actor, actor)
        np.testing.assert_allclose(learner.log_temperature, log_alpha[0], rtol=1e-5)
        for i in range(2):
            require_close(learner.critics.online[i], critics[i])
            require_close(learner.critics.target[i], targets[i])


def test_squashed_density_integrates_to_one():
    mean, log_std = jnp.asarray([0.4]), jnp.asarray([-0.3])
    action = np.linspace(-1 + 1e-6, 1 - 1e-6, 200_001)
    raw = jnp.arctanh(jnp.asarray(action, jnp.float32))[:, None]
    density = np.exp(np.asarray(sac.log_density(raw, mean, log_std), np.float64))
    assert np.trapezoid(density, action) == pytest.approx(1.0, abs=2e-3)
    assert np.isfinite(sac.log_density(jnp.asarray([40.0]), mean, log_std))  # tanh is 1 there


@pytest.mark.parametrize("double", [False, True])
def test_dqn_equals_the_hand_computed_updates(double):
    agent = agents.DQN(DQNConfig(**SMALL, target_period=2, double=double), ACTIONS)
    learner = agent.init(jax.random.key(0), INPUTS)
    online, target = layers(learner.critic.online), layers(learner.critic.target)
    adam = Adam(online.params, 2e-3)
    for number, batch in enumerate(batches(4, one_hot=True), start=1):
        learner, metrics = agent.update(learner, batch, jax.random.key(number))

        chooser = online if double else target
        best = chooser.forward(batch.next_inputs)[0].argmax(1)
        after = target.forward(batch.next_inputs)[0][np.arange(BATCH), best]
        y = clipped(batch.reward + batch.discount * after)
        values, cache = online.forward(batch.inputs)
        error = (values * batch.action).sum(1) - y
        np.testing.assert_allclose(metrics["critic_loss"], np.mean(error**2), rtol=1e-4)
        grads, _ = online.backward(cache, 2 * error[:, None] * batch.action / BATCH)
        online.params = adam.step(online.params, grads)
        if number % 2 == 0:
            target.params = mixed(target, online)
        require_close(learner.critic.online, online)
        require_close(learner.critic.target, target)


def test_dqn_acts_by_one_hot_choices():
    agent = agents.DQN(DQNConfig(hidden=(8,), random_action_probability=0.5), 4)
    learner = agent.init(jax.random.key(0), 3)
    inputs = jnp.ones(3)
    best = int(jnp.argmax(agent.values(learner.critic.online, inputs)))
    np.testing.assert_array_equal(agent.act(learner, inputs), np.eye(4)[best])
    keys = jax.random.split(jax.random.key(1), 4000)
    drawn = np.asarray(jax.vmap(agent.explore, (None, None, 0))(learner, inputs, keys))
    np.testing.assert_array_equal(drawn.sum(1), 1)
    shares = drawn.mean(0)
    assert abs(shares[best] - (0.5 + 0.5 / 4)) < 0.03
    assert np.abs(np.delete(shares, best) - 0.5 / 4).max() < 0.03


def test_sac_explores_with_its_own_noise():
    agent = agents.SAC(SACConfig(hidden=(8,), random_action_probability=0.0), 4)
    learner = agent.init(jax.random.key(0), 3)
    keys = jax.random.split(jax.random.key(1), 4000)
    drawn = np.asarray(jax.vmap(agent.explore, (None, None, 0))(learner, jnp.ones(3), keys))
    raw = np.arctanh(np.clip(drawn, -1 + 1e-6, 1 - 1e-6))
    mean, log_std = agent.distribution(learner.actor, jnp.ones(3))
    np.testing.assert_allclose(raw.mean(0), mean, atol=0.1)
    np.testing.assert_allclose(raw.std(0), np.exp(log_std), rtol=0.1)
    np.testing.assert_allclose(agent.act(learner, jnp.ones(3)), np.tanh(mean), rtol=1e-5)
    # With whole random actions every coordinate is uniform.
    agent = agents.SAC(SACConfig(hidden=(8,), random_action_probability=1.0), 4)
    drawn = np.asarray(jax.vmap(agent.explore, (None, None, 0))(learner, jnp.ones(3), keys))
    np.testing.assert_allclose(drawn.std(0), 1 / np.sqrt(3), atol=0.02)
    np.testing.assert_allclose(drawn.mean(0), 0, atol=0.05)


def test_the_minimum_is_over_a_random_subset():
    values = jnp.asarray([[1.0, -1.0], [2.0, -2.0], [3.0, -3.0]])
    np.testing.assert_array_equal(parts.lowest(values, 3, jax.random.key(0)), [1, -3])
    keys = jax.random.split(jax.random.key(0), 300)
    drawn = np.asarray(jax.vmap(lambda key: parts.lowest(values, 2, key))(keys))
    # Pairs {0, 1}, {0, 2}, {1, 2}: the same pair for the whole batch.
    assert {tuple(row) for row in drawn.tolist()} == {(1, -2), (1, -3), (2, -3)}
    assert abs((drawn[:, 0] == 1).mean() - 2 / 3) < 0.1


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("config", [DDPGConfig, TD3Config, SACConfig])
def test_targets_take_the_minimum_of_as_many_critics_as_asked_for(config, count):
    settings = config(hidden=(6,), discount=DISCOUNT, critics=3, target_critics=count)
    agent: Any = agents.make(settings, PointEnv())
    learner = agent.init(jax.random.key(0), INPUTS)
    constant = [  # the output's bias alone is left: -1, -2 and -3 whatever is put in
        jax.tree_util.tree_map_with_path(
            lambda path, x, value=-i: (
                jnp.full_like(x, value)
                if "'Dense_1'" in jax.tree_util.keystr(path)
                and "bias" in jax.tree_util.keystr(path)
                else jnp.zeros_like(x)
            ),
            critic,
        )
        for i, critic in enumerate(learner.critics.target, start=1)
    ]
    learner = learner.replace(critics=learner.critics._replace(target=tuple(constant)))
    if config is SACConfig:
        learner = learner.replace(log_temperature=jnp.float32(-30))  # no entropy
    batch = next(batches(1))
    keys = jax.random.split(jax.random.key(0), 200)
    targets = jax.vmap(lambda key: agent.targets(learner, batch, key))(keys)
    lowest = np.round((np.asarray(targets) - batch.reward) / batch.discount, 4)
    assert (lowest == lowest[:, :1]).all()  # the same critics for the whole batch
    assert set(lowest[:, 0].tolist()) == {1: {-1, -2, -3}, 2: {-2, -3}, 3: {-3}}[count]


def climbed(agent, learner, batch):
    """Which critics move the actor."""
    rest: tuple[Any, ...] = (batch,)
    actor = learner.actor.online if hasattr(learner.actor, "online") else learner.actor
    if isinstance(agent, agents.SAC):
        rest = (jnp.float32(0.0), batch, jax.random.key(0))

    def loss(critics):
        return jax.tree.leaves(agent.actor_loss(actor, critics, *rest))[0]

    grads = jax.grad(loss)(learner.critics.online)
    return [any(bool(jnp.any(x)) for x in jax.tree.leaves(one)) for one in grads]


def test_the_actor_climbs_what_its_agent_says():
    """DDPG and REDQ's SAC the mean of all critics, TD3 the first, SAC the lowest."""
    settings = {"hidden": (6,), "critics": 3}
    for config, expected in (
        (DDPGConfig(**settings, target_critics=1), [True, True, True]),
        (TD3Config(**settings, target_critics=1), [True, False, False]),
        (SACConfig(**settings, target_critics=1), [True, True, True]),
        (SACConfig(**settings, target_critics=3), [False, False, True]),
    ):
        agent = agents.make(config, PointEnv())
        learner = agent.init(jax.random.key(0), INPUTS)
        online = learner.critics.online
        lower = jax.tree_util.tree_map_with_path(  # the third is the lowest everywhere
            lambda path, x: x - 100 if "Dense_1']['bias" in jax.tree_util.keystr(path) else x,
            online[2],
        )
        critics = learner.critics._replace(online=(*online[:2], lower))
        learner = learner.replace(critics=critics)
        assert climbed(agent, learner, next(batches(1))) == expected, config


@pytest.mark.parametrize("config", [DDPGConfig, TD3Config, SACConfig])
def test_critics_are_normalised_and_many(config):
    settings = config(hidden=(8, 8), layer_norm=True, critics=3, target_critics=2)
    agent = agents.make(settings, PointEnv())
    learner = agent.init(jax.random.key(0), INPUTS)
    assert len(learner.critics.online) == 3
    assert "LayerNorm_1" in learner.critics.online[0]["params"]["MLP_0"]
    learner, metrics = jax.jit(agent.update)(learner, next(batches(1)), jax.random.key(1))
    assert all(np.isfinite(value) for value in metrics.values())
    assert int(learner.updates) == 1


@pytest.mark.parametrize("name", ["td3", "sac"])
def test_a_cycle_of_training(config, name):
    """The relabeller, the buffer and the normaliser do not know which agent learns."""
    config = dataclasses.replace(config, agent=AGENTS[name](hidden=(8,)))
    agent = agents.make(config.agent, PointEnv())
    state = train.init(PointEnv(), agent, config, jax.random.key(0))
    before = jax.tree.map(jnp.copy, state.learner)
    state, metrics, _ = jax.jit(functools.partial(train.cycle, PointEnv(), agent, config))(state)
    assert all(np.isfinite(value) for value in metrics.values())
    assert int(state.learner.updates) == config.train.updates_per_cycle
    assert not same(before.critics.online, state.learner.critics.online)


@pytest.mark.parametrize("name", AGENTS)
def test_agents_fit_their_actions(name):
    fits, other = (
        (PointEnv(discrete=True), PointEnv())
        if name == "dqn"
        else (PointEnv(), PointEnv(discrete=True))
    )
    agents.make(AGENTS[name](), fits)
    with pytest.raises(UserError, match=f"agent: '{name}' does not fit"):
        agents.make(AGENTS[name](), other)


@pytest.mark.parametrize("name", AGENTS)
def test_settings_of_agents_are_checked(name):
    for field, value in (
        ("discount", 1.0),
        ("target_rate", 0.0),
        ("critic_learning_rate", -1.0),
        ("critics", 0),
        ("target_critics", 5),
        ("temperature", 0.0),
        ("target_noise_clip", -1.0),
        ("actor_period", 0),
    ):
        if field in {f.name for f in dataclasses.fields(AGENTS[name])}:
            with pytest.raises(UserError, match=f"{field}: "):
                dataclasses.replace(AGENTS[name](), **{field: value})
