"""SAC, soft actor-critic, goal-conditioned, with a fixed or a tuned temperature.

    for each batch (s, a, r, s', g), inputs normalised and goal-conditioned:
        a'     ~  pi(. | s', g)
        y      <- r + gamma * (clip(min_i Q'_i(s', g, a'), -1 / (1 - gamma), 0)
                               - alpha * log pi(a' | s', g))
        critics: minimise sum_i mean (Q_i(s, g, a) - y)^2
        actor:   minimise mean alpha * log pi(a~ | s, g) - min_i Q_i(s, g, a~),  a~ ~ pi(. | s, g)
                 (of several critics some, and their mean; see `SACConfig`), plus c * mean of the
                 greedy action squared
        alpha:   minimise mean -log alpha * (log pi(a~ | s, g) + target entropy)
        all gradients are taken at the old parameters, then all Adam steps
        every `target_period` updates: Q'_i <- (1 - tau) Q'_i + tau Q_i
    behaviour: a sample of pi, or with probability eps a uniform action; greedy: tanh of the mean

The penalty, c = 0 by default, and the clip are HER's. Here the clip is a heuristic: its range is
that of returns without entropy, while Q' holds the entropy of all later steps, so soft values
beyond it are cut. The entropy of s' is added after the clip, as Hiraoka does. With n-step returns
only the entropy at their end counts. There is no terminal mask.

References:
  Haarnoja et al. 2018 (arXiv:1812.05905), algorithm 1, section 5: the temperature (with log
  alpha in place of alpha, as the authors' code has it), appendix C: the density after tanh;
  Andrychowicz et al. 2017 (arXiv:1707.01495), appendix A;
  Chen et al. 2021 (arXiv:2101.05982): more critics;
  Hiraoka 2023 (arXiv:2312.05787): bounded values with hindsight.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, cast

import chex
import jax
import jax.numpy as jnp
import optax
from flax import struct

from her_jax.agents import parts
from her_jax.config import SACConfig
from her_jax.networks import GaussianActor
from her_jax.types import Batch, Key, OnlineTarget


class LearnerState(struct.PyTreeNode):
    """Everything SAC learns.

    Attributes:
      actor: parameters; the policy has no target.
      critics: parameters, a tuple, and their targets.
      log_temperature: float32 [], log alpha.
      actor_optimizer, critic_optimizer, temperature_optimizer: Adam's moments.
      updates: int32 [], updates made.
    """

    actor: Any
    critics: OnlineTarget
    log_temperature: jax.Array
    actor_optimizer: Any
    critic_optimizer: Any
    temperature_optimizer: Any
    updates: jax.Array


@dataclasses.dataclass(frozen=True)
class SAC:
    """The agent; satisfies `her_jax.types.Agent`.

    Attributes:
      config: hyperparameters.
      action_size: A.
    """

    config: SACConfig
    action_size: int

    def distribution(self, actor: Any, inputs: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Mean and log standard deviation before tanh, [..., A] each."""
        network = GaussianActor(self.config.hidden, self.action_size)
        return cast(tuple[jax.Array, jax.Array], network.apply(actor, inputs))

    def sample(self, actor: Any, inputs: jax.Array, key: Key) -> tuple[jax.Array, jax.Array]:
        """Actions [..., A] of the stochastic policy and their log density [...]; consumes `key`."""
        return draw(*self.distribution(actor, inputs), key)

    def init(self, key: Key, input_size: int) -> LearnerState:
        """Fresh networks, targets equal to them; consumes `key`."""
        config = self.config
        actor_key, critic_key = jax.random.split(key)
        actor = GaussianActor(config.hidden, self.action_size).init(
            actor_key, jnp.zeros(input_size)
        )
        critics = parts.init_critics(config, critic_key, input_size, self.action_size)
        log_temperature = jnp.asarray(math.log(config.temperature), jnp.float32)
        return LearnerState(
            actor=actor,
            critics=parts.paired(critics),
            log_temperature=log_temperature,
            actor_optimizer=optax.adam(config.actor_learning_rate).init(actor),
            critic_optimizer=optax.adam(config.critic_learning_rate).init(critics),
            temperature_optimizer=optax.adam(config.temperature_learning_rate).init(
                log_temperature
            ),
            updates=jnp.zeros((), jnp.int32),
        )

    def act(self, learner: LearnerState, inputs: jax.Array) -> jax.Array:
        """The mean after tanh, [..., O+G] -> [..., A]."""
        return jnp.tanh(self.distribution(learner.actor, inputs)[0])

    def acting(self, learner: LearnerState) -> LearnerState:
        """The actor alone."""
        return parts.bare(learner, actor=learner.actor)

    def explore(self, learner: LearnerState, inputs: jax.Array, key: Key) -> jax.Array:
        """A sample of the policy, or a whole uniform action; unbatched, consumes `key`."""
        sample_key, random_key = jax.random.split(key)
        action, _ = self.sample(learner.actor, inputs, sample_key)
        return parts.perturbed(action, 0.0, self.config.random_action_probability, random_key)

    def targets(self, learner: LearnerState, batch: Batch, key: Key) -> jax.Array:
        """Soft returns y [B]; consumes `key`."""
        action_key, critic_key = jax.random.split(key)
        next_action, log_pi = self.sample(learner.actor, batch.next_inputs, action_key)
        next_value = parts.lowest_value(
            self.config, learner.critics.target, batch.next_inputs, next_action, critic_key
        )
        entropy = -jnp.exp(learner.log_temperature) * log_pi
        soft_value = parts.clipped(next_value, self.config.discount) + entropy
        return batch.reward + batch.discount * soft_value

    def actor_loss(
        self, actor: Any, critics: Any, temperature: jax.Array, batch: Batch, key: Key
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        """Entropy against value, []; also the mean value [] and log density []."""
        mean, log_std = self.distribution(actor, batch.inputs)
        action, log_pi = draw(mean, log_std, key)
        values = parts.values(self.config, critics, batch.inputs, action)
        all_of_them = self.config.target_critics == self.config.critics
        value = jnp.mean(jnp.min(values, axis=0) if all_of_them else jnp.mean(values, axis=0))
        penalty = self.config.action_l2 * jnp.mean(jnp.square(jnp.tanh(mean)))
        log_pi = jnp.mean(log_pi)
        return temperature * log_pi - value + penalty, (value, log_pi)

    def update(
        self, learner: LearnerState, batch: Batch, key: Key
    ) -> tuple[LearnerState, dict[str, jax.Array]]:
        """One update of critics, actor, temperature and, when due, targets; consumes `key`."""
        chex.assert_rank([batch.inputs, batch.action, batch.reward], [2, 2, 1])
        config = self.config
        target_key, actor_key = jax.random.split(key)
        targets = self.targets(learner, batch, target_key)
        critic_loss, critics, critic_optimizer = parts.learn_critics(
            config, learner.critics.online, learner.critic_optimizer, targets, batch
        )
        temperature = jnp.exp(learner.log_temperature)
        (actor_loss, (value, log_pi)), actor_grads = jax.value_and_grad(
            self.actor_loss, has_aux=True
        )(learner.actor, learner.critics.online, temperature, batch, actor_key)
        actor, actor_optimizer = parts.descend(
            config.actor_learning_rate, learner.actor, actor_grads, learner.actor_optimizer
        )
        log_temperature, temperature_optimizer = self._tuned(learner, log_pi)
        updates = learner.updates + 1
        due = updates % config.target_period == 0
        learner = LearnerState(
            actor=actor,
            critics=parts.follow(critics, learner.critics.target, config.target_rate, due),
            log_temperature=log_temperature,
            actor_optimizer=actor_optimizer,
            critic_optimizer=critic_optimizer,
            temperature_optimizer=temperature_optimizer,
            updates=updates,
        )
        return learner, {
            "critic_loss": critic_loss,
            "actor_loss": actor_loss,
            "policy_value": value,
            "target_mean": jnp.mean(targets),
            "policy_entropy": -log_pi,
            "temperature": temperature,
        }

    def _tuned(self, learner: LearnerState, log_pi: jax.Array) -> tuple[jax.Array, Any]:
        """The next log alpha, one step towards the target entropy, and its optimizer."""
        if not self.config.tune_temperature:
            return learner.log_temperature, learner.temperature_optimizer
        target_entropy = self.config.target_entropy_per_action * self.action_size
        return parts.descend(
            self.config.temperature_learning_rate,
            learner.log_temperature,
            -(log_pi + target_entropy),
            learner.temperature_optimizer,
        )


def draw(mean: jax.Array, log_std: jax.Array, key: Key) -> tuple[jax.Array, jax.Array]:
    """Actions [..., A] after tanh and their log density [...]; consumes `key`."""
    raw = mean + jnp.exp(log_std) * jax.random.normal(key, mean.shape)
    return jnp.tanh(raw), log_density(raw, mean, log_std)


def log_density(raw: jax.Array, mean: jax.Array, log_std: jax.Array) -> jax.Array:
    """Logarithm of pi at tanh(raw) (appendix C), [..., A] -> [...].

    log(1 - tanh(u)^2) = 2 (log 2 - u - softplus(-2 u)), which does not cancel for large u.
    """
    normal = -0.5 * jnp.square((raw - mean) / jnp.exp(log_std)) - log_std
    normal -= 0.5 * math.log(2 * math.pi)
    squash = 2 * (math.log(2) - raw - jax.nn.softplus(-2 * raw))
    return jnp.sum(normal - squash, axis=-1)
