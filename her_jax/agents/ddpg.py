"""DDPG, deep deterministic policy gradient, as Baselines' HER uses it.

    for each batch (s, a, r, s', g), inputs normalised and goal-conditioned:
        y     <- clip(r + gamma * Q'(s', g, pi'(s', g)), -1 / (1 - gamma), 0)
                 (of several critics, Q' is the minimum of some; see `DDPGConfig`)
        critic: minimise mean (Q(s, g, a) - y)^2
        actor:  minimise mean -Q(s, g, pi(s, g)) + c * mean pi(s, g)^2
        both gradients are taken at the old parameters, then both Adam steps
        every `target_period` updates: (Q', pi') <- (1 - tau) (Q', pi') + tau (Q, pi)
        (rho < 1: the policy that is evaluated averages the parameters of pi)
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
from typing import Any

import chex
import jax
import jax.numpy as jnp
import optax
from flax import struct

from her_jax.agents import parts
from her_jax.config import DDPGConfig
from her_jax.networks import Actor
from her_jax.types import Batch, Key, OnlineTarget


class LearnerState(struct.PyTreeNode):
    """Everything DDPG learns.

    Attributes:
      actor, critics: parameters and their targets; the critics are a tuple.
      average: running average of the actor's online parameters.
      actor_optimizer, critic_optimizer: Adam's moments.
      updates: int32 [], updates made.
    """

    actor: OnlineTarget
    critics: OnlineTarget
    average: Any
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

    def policy(self, actor: Any, inputs: jax.Array) -> jax.Array:
        """pi: inputs [..., O+G] -> actions [..., A]."""
        return parts.policy(self.config, actor, inputs, self.action_size)

    def init(self, key: Key, input_size: int) -> LearnerState:
        """Fresh networks, targets equal to them; consumes `key`."""
        actor_key, critic_key = jax.random.split(key)
        actor = Actor(self.config.hidden, self.action_size).init(actor_key, jnp.zeros(input_size))
        critics = parts.init_critics(self.config, critic_key, input_size, self.action_size)
        return LearnerState(
            actor=parts.paired(actor),
            critics=parts.paired(critics),
            average=jax.tree.map(jnp.copy, actor),
            actor_optimizer=optax.adam(self.config.actor_learning_rate).init(actor),
            critic_optimizer=optax.adam(self.config.critic_learning_rate).init(critics),
            updates=jnp.zeros((), jnp.int32),
        )

    def act(self, learner: LearnerState, inputs: jax.Array) -> jax.Array:
        """The deterministic policy of the averaged actor, [..., O+G] -> [..., A]."""
        return self.policy(learner.average, inputs)

    def acting(self, learner: LearnerState) -> LearnerState:
        """The averaged actor alone."""
        return parts.bare(learner, average=learner.average)

    def explore(self, learner: LearnerState, inputs: jax.Array, key: Key) -> jax.Array:
        """Gaussian noise, clipped, or a whole uniform action; unbatched, consumes `key`."""
        config = self.config
        action = self.policy(learner.actor.online, inputs)
        return parts.perturbed(action, config.noise_std, config.random_action_probability, key)

    def targets(self, learner: LearnerState, batch: Batch, key: Key) -> jax.Array:
        """Clipped returns y [B]; `key` chooses among several critics."""
        next_action = self.policy(learner.actor.target, batch.next_inputs)
        next_value = parts.lowest_value(
            self.config, learner.critics.target, batch.next_inputs, next_action, key
        )
        return parts.clipped(batch.reward + batch.discount * next_value, self.config.discount)

    def actor_loss(self, actor: Any, critics: Any, batch: Batch) -> tuple[jax.Array, jax.Array]:
        """Negative value of the policy's actions plus their penalty, []; also the mean value."""
        action = self.policy(actor, batch.inputs)
        value = jnp.mean(parts.values(self.config, critics, batch.inputs, action))
        return -value + self.config.action_l2 * jnp.mean(jnp.square(action)), value

    def update(
        self, learner: LearnerState, batch: Batch, key: Key
    ) -> tuple[LearnerState, dict[str, jax.Array]]:
        """One update of critics, actor and, when due, targets; consumes `key`."""
        chex.assert_rank([batch.inputs, batch.action, batch.reward], [2, 2, 1])
        config = self.config
        targets = self.targets(learner, batch, key)
        critic_loss, critics, critic_optimizer = parts.learn_critics(
            config, learner.critics.online, learner.critic_optimizer, targets, batch
        )
        (actor_loss, value), actor_grads = jax.value_and_grad(self.actor_loss, has_aux=True)(
            learner.actor.online, learner.critics.online, batch
        )
        actor, actor_optimizer = parts.descend(
            config.actor_learning_rate, learner.actor.online, actor_grads, learner.actor_optimizer
        )
        updates = learner.updates + 1
        due = updates % config.target_period == 0
        learner = LearnerState(
            actor=parts.follow(actor, learner.actor.target, config.target_rate, due),
            critics=parts.follow(critics, learner.critics.target, config.target_rate, due),
            average=optax.incremental_update(actor, learner.average, config.average_rate),
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
