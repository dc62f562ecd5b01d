"""DQN, deep Q-network, goal-conditioned, for one choice among A actions.

    for each batch (s, a, r, s', g), inputs normalised and goal-conditioned:
        y  <- clip(r + gamma * max_a' Q'(s', g, a'), -1 / (1 - gamma), 0)
              (double: Q'(s', g, argmax_a' Q(s', g, a')))
        Q: minimise mean (Q(s, g, a) - y)^2
        every `target_period` updates: Q' <- (1 - tau) Q' + tau Q
    behaviour: argmax_a Q(s, g, a), or with probability eps a uniform action

Actions are one-hot vectors. There is no terminal mask (HER paper, appendix A).

References:
  Mnih et al. 2015, "Human-level control through deep reinforcement learning", algorithm 1;
  van Hasselt et al. 2016 (arXiv:1509.06461), equation 4;
  Andrychowicz et al. 2017 (arXiv:1707.01495), sections 2.2 and 3.1, appendix A.
"""

from __future__ import annotations

import dataclasses
from typing import Any, cast

import chex
import jax
import jax.numpy as jnp
import optax
from flax import struct

from her_jax.agents import parts
from her_jax.config import DQNConfig
from her_jax.networks import MLP
from her_jax.types import Batch, Key, OnlineTarget


class LearnerState(struct.PyTreeNode):
    """Everything DQN learns.

    Attributes:
      critic: parameters of Q and its target.
      optimizer: Adam's moments.
      updates: int32 [], updates made.
    """

    critic: OnlineTarget
    optimizer: Any
    updates: jax.Array


@dataclasses.dataclass(frozen=True)
class DQN:
    """The agent; satisfies `her_jax.types.Agent`.

    Attributes:
      config: hyperparameters.
      action_size: A, the number of choices.
    """

    config: DQNConfig
    action_size: int

    @property
    def _network(self) -> MLP:
        return MLP(self.config.hidden, self.action_size, self.config.layer_norm)

    def values(self, critic: Any, inputs: jax.Array) -> jax.Array:
        """Q of every choice, [..., O+G] -> [..., A]."""
        return cast(jax.Array, self._network.apply(critic, inputs))

    def init(self, key: Key, input_size: int) -> LearnerState:
        """A fresh network, its target equal to it; consumes `key`."""
        critic = self._network.init(key, jnp.zeros(input_size))
        return LearnerState(
            critic=parts.paired(critic),
            optimizer=optax.adam(self.config.critic_learning_rate).init(critic),
            updates=jnp.zeros((), jnp.int32),
        )

    def act(self, learner: LearnerState, inputs: jax.Array) -> jax.Array:
        """The best choice, [..., O+G] -> one-hot [..., A]."""
        best = jnp.argmax(self.values(learner.critic.online, inputs), axis=-1)
        return jax.nn.one_hot(best, self.action_size)

    def acting(self, learner: LearnerState) -> LearnerState:
        """The online critic alone."""
        return parts.bare(learner, critic=learner.critic._replace(target=None))

    def explore(self, learner: LearnerState, inputs: jax.Array, key: Key) -> jax.Array:
        """The best choice or a uniform one; unbatched, consumes `key`."""
        choice_key, uniform_key = jax.random.split(key)
        uniform = jax.random.randint(uniform_key, (), 0, self.action_size)
        is_random = jax.random.bernoulli(choice_key, self.config.random_action_probability)
        return jnp.where(
            is_random, jax.nn.one_hot(uniform, self.action_size), self.act(learner, inputs)
        )

    def targets(self, learner: LearnerState, batch: Batch) -> jax.Array:
        """Clipped returns y [B]."""
        next_values = self.values(learner.critic.target, batch.next_inputs)
        if self.config.double:
            best = jnp.argmax(self.values(learner.critic.online, batch.next_inputs), axis=-1)
            next_value = jnp.take_along_axis(next_values, best[:, None], axis=-1)[:, 0]
        else:
            next_value = jnp.max(next_values, axis=-1)
        return parts.clipped(batch.reward + batch.discount * next_value, self.config.discount)

    def critic_loss(self, critic: Any, targets: jax.Array, batch: Batch) -> jax.Array:
        """Mean squared error of the action value, []."""
        value = jnp.sum(self.values(critic, batch.inputs) * batch.action, axis=-1)
        chex.assert_equal_shape([value, targets])
        return jnp.mean(jnp.square(value - targets))

    def update(
        self, learner: LearnerState, batch: Batch, key: Key
    ) -> tuple[LearnerState, dict[str, jax.Array]]:
        """One update of Q and, when due, of its target; DQN needs no randomness."""
        del key
        chex.assert_rank([batch.inputs, batch.action, batch.reward], [2, 2, 1])
        config = self.config
        targets = self.targets(learner, batch)
        loss, grads = jax.value_and_grad(self.critic_loss)(learner.critic.online, targets, batch)
        critic, optimizer = parts.descend(
            config.critic_learning_rate, learner.critic.online, grads, learner.optimizer
        )
        updates = learner.updates + 1
        due = updates % config.target_period == 0
        learner = LearnerState(
            critic=parts.follow(critic, learner.critic.target, config.target_rate, due),
            optimizer=optimizer,
            updates=updates,
        )
        return learner, {"critic_loss": loss, "target_mean": jnp.mean(targets)}
