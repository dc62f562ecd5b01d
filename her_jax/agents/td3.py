"""TD3, twin delayed deep deterministic policy gradient, goal-conditioned.

    for each batch (s, a, r, s', g), inputs normalised and goal-conditioned:
        a'     <- clip(pi'(s', g) + clip(N(0, sigma~^2), -c, c), -1, 1)
        y      <- clip(r + gamma * min_i Q'_i(s', g, a'), -1 / (1 - gamma), 0)
                  (the minimum of all critics or of some; see `TD3Config`)
        critics: minimise sum_i mean (Q_i(s, g, a) - y)^2
        every `actor_period` updates:
            actor:   minimise mean -Q_1(s, g, pi(s, g)) + c * mean pi(s, g)^2, with the critics
                     just updated
            targets: (Q'_i, pi') <- (1 - tau) (Q'_i, pi') + tau (Q_i, pi)
    behaviour: as DDPG's

The clip of y to the range of returns and the penalty, c = 0 by default, are HER's, not TD3's; there
is no terminal mask.

References:
  Fujimoto et al. 2018 (arXiv:1802.09477), algorithm 1;
  Andrychowicz et al. 2017 (arXiv:1707.01495), appendix A.
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
from her_jax.config import TD3Config
from her_jax.networks import Actor
from her_jax.types import Batch, Key, OnlineTarget


class LearnerState(struct.PyTreeNode):
    """Everything TD3 learns.

    Attributes:
      actor, critics: parameters and their targets; the critics are a tuple.
      actor_optimizer, critic_optimizer: Adam's moments.
      updates: int32 [], updates of the critics made.
    """

    actor: OnlineTarget
    critics: OnlineTarget
    actor_optimizer: Any
    critic_optimizer: Any
    updates: jax.Array


@dataclasses.dataclass(frozen=True)
class TD3:
    """The agent; satisfies `her_jax.types.Agent`.

    Attributes:
      config: hyperparameters.
      action_size: A.
    """

    config: TD3Config
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
            actor_optimizer=optax.adam(self.config.actor_learning_rate).init(actor),
            critic_optimizer=optax.adam(self.config.critic_learning_rate).init(critics),
            updates=jnp.zeros((), jnp.int32),
        )

    def act(self, learner: LearnerState, inputs: jax.Array) -> jax.Array:
        """The deterministic policy of the online actor, [..., O+G] -> [..., A]."""
        return self.policy(learner.actor.online, inputs)

    def acting(self, learner: LearnerState) -> LearnerState:
        """The online actor alone."""
        return parts.bare(learner, actor=learner.actor._replace(target=None))

    def explore(self, learner: LearnerState, inputs: jax.Array, key: Key) -> jax.Array:
        """Gaussian noise, clipped, or a whole uniform action; unbatched, consumes `key`."""
        config = self.config
        action = self.act(learner, inputs)
        return parts.perturbed(action, config.noise_std, config.random_action_probability, key)

    def smoothed(self, actor: Any, inputs: jax.Array, key: Key) -> jax.Array:
        """The target policy with clipped noise (section 5.3), [B, O+G] -> [B, A]."""
        config = self.config
        action = self.policy(actor, inputs)
        noise = config.target_noise_std * jax.random.normal(key, action.shape)
        noise = jnp.clip(noise, -config.target_noise_clip, config.target_noise_clip)
        return jnp.clip(action + noise, -1.0, 1.0)

    def targets(self, learner: LearnerState, batch: Batch, key: Key) -> jax.Array:
        """Clipped returns y [B]; `key` smooths and chooses among several critics."""
        noise_key, critic_key = jax.random.split(key)
        next_action = self.smoothed(learner.actor.target, batch.next_inputs, noise_key)
        next_value = parts.lowest_value(
            self.config, learner.critics.target, batch.next_inputs, next_action, critic_key
        )
        return parts.clipped(batch.reward + batch.discount * next_value, self.config.discount)

    def actor_loss(self, actor: Any, critics: Any, batch: Batch) -> jax.Array:
        """Negative value of the first critic plus the penalty, []."""
        action = self.policy(actor, batch.inputs)
        value = jnp.mean(parts.values(self.config, critics[:1], batch.inputs, action))
        return -value + self.config.action_l2 * jnp.mean(jnp.square(action))

    def update(
        self, learner: LearnerState, batch: Batch, key: Key
    ) -> tuple[LearnerState, dict[str, jax.Array]]:
        """One update of the critics and, when due, of actor and targets; consumes `key`."""
        chex.assert_rank([batch.inputs, batch.action, batch.reward], [2, 2, 1])
        config = self.config
        targets = self.targets(learner, batch, key)
        critic_loss, critics, critic_optimizer = parts.learn_critics(
            config, learner.critics.online, learner.critic_optimizer, targets, batch
        )
        updates = learner.updates + 1
        due = updates % config.actor_period == 0
        actor, actor_optimizer = jax.lax.cond(
            due,
            lambda: self._climb(learner, critics, batch),
            lambda: (learner.actor.online, learner.actor_optimizer),
        )
        learner = LearnerState(
            actor=parts.follow(actor, learner.actor.target, config.target_rate, due),
            critics=parts.follow(critics, learner.critics.target, config.target_rate, due),
            actor_optimizer=actor_optimizer,
            critic_optimizer=critic_optimizer,
            updates=updates,
        )
        return learner, {"critic_loss": critic_loss, "target_mean": jnp.mean(targets)}

    def _climb(self, learner: LearnerState, critics: Any, batch: Batch) -> tuple[Any, Any]:
        """The actor after a step up the first critic, and its optimizer."""
        grads = jax.grad(self.actor_loss)(learner.actor.online, critics, batch)
        return parts.descend(
            self.config.actor_learning_rate, learner.actor.online, grads, learner.actor_optimizer
        )
