"""DDPG, deep deterministic policy gradient, as Baselines' HER uses it.

    for each batch (s, a, r, s', g), inputs normalised and goal-conditioned:
        y     <- clip(r + gamma * Q'(s', g, pi'(s', g)), -1 / (1 - gamma), 0)
        critic: minimise mean (Q(s, g, a) - y)^2
        actor:  minimise mean -Q(s, g, pi(s, g)) + c * mean pi(s, g)^2
        both gradients are taken at the old parameters, then both Adam steps
        every `target_period` updates: (Q', pi') <- (1 - tau) (Q', pi') + tau (Q, pi)
    behaviour: pi + N(0, sigma^2), clipped; with probability eps a uniform action instead

There is no terminal mask: nothing in a fixed-length episode is terminal (HER paper, appendix A).
The penalty acts on the action after tanh, as in Baselines' code; the paper's appendix A names
the pre-activations.

References:
  Lillicrap et al. 2016 (arXiv:1509.02971), algorithm 1;
  Andrychowicz et al. 2017 (arXiv:1707.01495), appendix A;
  OpenAI Baselines, `baselines/her/ddpg.py`.
"""

from __future__ import annotations

import dataclasses
from typing import Any, cast

import chex
import jax
import jax.numpy as jnp
import optax
from flax import struct

from her_jax.config import DDPGConfig
from her_jax.networks import Actor, Critic
from her_jax.types import Batch, Key, OnlineTarget


class LearnerState(struct.PyTreeNode):
    """Everything DDPG learns.

    Attributes:
      actor, critic: parameters and their targets.
      actor_optimizer, critic_optimizer: Adam's moments.
      updates: int32 [], updates made.
    """

    actor: OnlineTarget
    critic: OnlineTarget
    actor_optimizer: Any
    critic_optimizer: Any
    updates: jax.Array


@dataclasses.dataclass(frozen=True)
class DDPG:
    """The agent; satisfies `her_jax.types.Agent`.

    Attributes:
      config: hyperparameters.
      action_size: A.
    """

    config: DDPGConfig
    action_size: int

    @property
    def _actor(self) -> Actor:
        return Actor(self.config.hidden, self.action_size)

    @property
    def _critic(self) -> Critic:
        return Critic(self.config.hidden)

    def _policy(self, actor: Any, inputs: jax.Array) -> jax.Array:
        return cast(jax.Array, self._actor.apply(actor, inputs))

    def _value(self, critic: Any, inputs: jax.Array, action: jax.Array) -> jax.Array:
        return cast(jax.Array, self._critic.apply(critic, inputs, action))

    def init(self, key: Key, input_size: int) -> LearnerState:
        """Fresh networks, targets equal to them; consumes `key`."""
        actor_key, critic_key = jax.random.split(key)
        inputs, action = jnp.zeros(input_size), jnp.zeros(self.action_size)
        actor = self._actor.init(actor_key, inputs)
        critic = self._critic.init(critic_key, inputs, action)
        return LearnerState(
            # Copies, because donated buffers must not be shared.
            actor=OnlineTarget(actor, jax.tree.map(jnp.copy, actor)),
            critic=OnlineTarget(critic, jax.tree.map(jnp.copy, critic)),
            actor_optimizer=optax.adam(self.config.actor_learning_rate).init(actor),
            critic_optimizer=optax.adam(self.config.critic_learning_rate).init(critic),
            updates=jnp.zeros((), jnp.int32),
        )

    def act(self, learner: LearnerState, inputs: jax.Array) -> jax.Array:
        """The deterministic policy of the online actor, [..., O+G] -> [..., A]."""
        return self._policy(learner.actor.online, inputs)

    def explore(self, learner: LearnerState, inputs: jax.Array, key: Key) -> jax.Array:
        """Gaussian noise, clipped, or a whole uniform action; unbatched, consumes `key`."""
        action = self.act(learner, inputs)
        noise_key, choice_key, uniform_key = jax.random.split(key, 3)
        noise = self.config.noise_std * jax.random.normal(noise_key, action.shape)
        uniform = jax.random.uniform(uniform_key, action.shape, minval=-1.0, maxval=1.0)
        is_random = jax.random.bernoulli(choice_key, self.config.random_action_probability)
        return jnp.where(is_random, uniform, jnp.clip(action + noise, -1.0, 1.0))

    def targets(self, learner: LearnerState, batch: Batch) -> jax.Array:
        """Clipped one-step returns y [B]."""
        next_action = self._policy(learner.actor.target, batch.next_inputs)
        next_value = self._value(learner.critic.target, batch.next_inputs, next_action)
        lowest = -1.0 / (1.0 - self.config.discount)
        return jnp.clip(batch.reward + self.config.discount * next_value, lowest, 0.0)

    def critic_loss(self, critic: Any, targets: jax.Array, batch: Batch) -> jax.Array:
        """Mean squared error of the action value, []."""
        value = self._value(critic, batch.inputs, batch.action)
        chex.assert_equal_shape([value, targets])
        return jnp.mean(jnp.square(value - targets))

    def actor_loss(self, actor: Any, critic: Any, batch: Batch) -> tuple[jax.Array, jax.Array]:
        """Negative value of the policy's actions plus their penalty, []; also the mean value."""
        action = self._policy(actor, batch.inputs)
        value = jnp.mean(self._value(critic, batch.inputs, action))
        return -value + self.config.action_l2 * jnp.mean(jnp.square(action)), value

    def update(
        self, learner: LearnerState, batch: Batch, key: Key
    ) -> tuple[LearnerState, dict[str, jax.Array]]:
        """One update of critic, actor and, when due, targets; DDPG needs no randomness."""
        del key
        chex.assert_rank([batch.inputs, batch.action, batch.reward], [2, 2, 1])
        targets = self.targets(learner, batch)
        critic_loss, critic_grads = jax.value_and_grad(self.critic_loss)(
            learner.critic.online, targets, batch
        )
        (actor_loss, value), actor_grads = jax.value_and_grad(self.actor_loss, has_aux=True)(
            learner.actor.online, learner.critic.online, batch
        )
        critic, critic_optimizer = _descend(
            self.config.critic_learning_rate,
            learner.critic.online,
            critic_grads,
            learner.critic_optimizer,
        )
        actor, actor_optimizer = _descend(
            self.config.actor_learning_rate,
            learner.actor.online,
            actor_grads,
            learner.actor_optimizer,
        )
        updates = learner.updates + 1
        due = updates % self.config.target_period == 0
        learner = LearnerState(
            actor=OnlineTarget(actor, self._follow(actor, learner.actor.target, due)),
            critic=OnlineTarget(critic, self._follow(critic, learner.critic.target, due)),
            actor_optimizer=actor_optimizer,
            critic_optimizer=critic_optimizer,
            updates=updates,
        )
        return learner, {
            "critic_loss": critic_loss,
            "actor_loss": actor_loss,
            "policy_value": value,
            "target_mean": jnp.mean(targets),
        }

    def _follow(self, online: Any, target: Any, due: jax.Array) -> Any:
        rate = jnp.where(due, self.config.target_rate, 0.0)
        return optax.incremental_update(online, target, rate)


def _descend(learning_rate: float, params: Any, grads: Any, optimizer: Any) -> tuple[Any, Any]:
    """One step of Adam (beta 0.9 and 0.999, epsilon 1e-8: optax's and Baselines' defaults)."""
    steps, optimizer = optax.adam(learning_rate).update(grads, optimizer, params)
    return optax.apply_updates(params, steps), optimizer
