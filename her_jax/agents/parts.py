"""What the agents share: ensembles of critics, clipped targets, Adam steps, following targets.

References:
  Andrychowicz et al. 2017 (arXiv:1707.01495), appendix A: clipped targets, no terminal mask;
  Chen et al. 2021, "Randomized Ensembled Double Q-Learning" (arXiv:2101.05982), algorithm 1.
"""

from __future__ import annotations

import dataclasses
from typing import Any, cast

import chex
import jax
import jax.numpy as jnp
import optax

from her_jax.config import DDPGConfig, SACConfig, TD3Config
from her_jax.networks import Actor, Critic
from her_jax.types import Batch, Key, OnlineTarget

HasCritics = DDPGConfig | TD3Config | SACConfig
"""Settings of agents with an actor and an ensemble of critics."""


def paired(params: Any) -> OnlineTarget:
    """Fresh parameters and an equal target; a copy, because donated buffers must not be shared."""
    return OnlineTarget(params, jax.tree.map(jnp.copy, params))


def bare(learner: Any, **kept: Any) -> Any:
    """A learner of nothing but some of its fields, None in place of the others."""
    return type(learner)(**{f.name: kept.get(f.name) for f in dataclasses.fields(learner)})


def init_critics(config: HasCritics, key: Key, input_size: int, action_size: int) -> Any:
    """Parameters of M independent critics; consumes `key`.

    They are a tuple and not one batched tree, because a batched matrix product is slower on CPU.
    """
    network = Critic(config.hidden, config.layer_norm)
    keys = jax.random.split(key, config.critics) if config.critics > 1 else [key]
    return tuple(network.init(one, jnp.zeros(input_size), jnp.zeros(action_size)) for one in keys)


def values(config: HasCritics, critics: Any, inputs: jax.Array, action: jax.Array) -> jax.Array:
    """Q of every critic: [..., O+G], [..., A] -> [M, ...]."""
    network = Critic(config.hidden, config.layer_norm)
    return jnp.stack([jnp.asarray(network.apply(c, inputs, action)) for c in critics])


def policy(config: HasCritics, actor: Any, inputs: jax.Array, action_size: int) -> jax.Array:
    """The deterministic pi: [..., O+G] -> [..., A]."""
    return cast(jax.Array, Actor(config.hidden, action_size).apply(actor, inputs))


def lowest(values: jax.Array, count: int, key: Key) -> jax.Array:
    """The minimum [B] over `count` of the M values [M, B], chosen at random; consumes `key`."""
    if count == len(values):
        return jnp.min(values, axis=0)
    return jnp.min(jax.random.permutation(key, values, axis=0)[:count], axis=0)


def lowest_value(
    config: HasCritics, critics: Any, inputs: jax.Array, action: jax.Array, key: Key
) -> jax.Array:
    """`lowest` of the critics' values, over as many as the settings say, [B]; consumes `key`."""
    return lowest(values(config, critics, inputs, action), config.target_critics, key)


def clipped(value: jax.Array, discount: float) -> jax.Array:
    """Clips returns to what rewards in [-1, 0] can add up to: [-1 / (1 - gamma), 0]."""
    return jnp.clip(value, -1.0 / (1.0 - discount), 0.0)


def critic_loss(critics: Any, config: HasCritics, targets: jax.Array, batch: Batch) -> jax.Array:
    """Squared error of the action values, mean over the batch [B], summed over the critics; []."""
    value = values(config, critics, batch.inputs, batch.action)
    chex.assert_equal_shape([value[0], targets])
    return jnp.sum(jnp.mean(jnp.square(value - targets), axis=-1))


def learn_critics(
    config: HasCritics, critics: Any, optimizer: Any, targets: jax.Array, batch: Batch
) -> tuple[jax.Array, Any, Any]:
    """Loss [] of the critics, and critics and optimizer after a step down its gradient."""
    loss, grads = jax.value_and_grad(critic_loss)(critics, config, targets, batch)
    return loss, *descend(config.critic_learning_rate, critics, grads, optimizer)


def descend(learning_rate: float, params: Any, grads: Any, optimizer: Any) -> tuple[Any, Any]:
    """One step of Adam (beta 0.9 and 0.999, epsilon 1e-8: optax's and Baselines' defaults)."""
    steps, optimizer = optax.adam(learning_rate).update(grads, optimizer, params)
    return optax.apply_updates(params, steps), optimizer


def follow(online: Any, target: Any, rate: float, due: jax.Array | bool) -> OnlineTarget:
    """Moves the target by a share `rate` towards the online parameters, where it is due."""
    return OnlineTarget(online, optax.incremental_update(online, target, jnp.where(due, rate, 0.0)))


def perturbed(
    action: jax.Array, noise_std: float, random_action_probability: float, key: Key
) -> jax.Array:
    """Gaussian noise on an action [A], clipped, or a whole uniform action; consumes `key`."""
    noise_key, choice_key, uniform_key = jax.random.split(key, 3)
    noise = noise_std * jax.random.normal(noise_key, action.shape)
    uniform = jax.random.uniform(uniform_key, action.shape, minval=-1.0, maxval=1.0)
    is_random = jax.random.bernoulli(choice_key, random_action_probability)
    return jnp.where(is_random, uniform, jnp.clip(action + noise, -1.0, 1.0))
