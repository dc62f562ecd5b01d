"""The map of the library: every array that crosses a module boundary is named here.

Axes, always in this order and written in brackets after a field:

    N environments, T horizon (steps of an episode), C capacity of the buffer in episodes,
    B batch, E held-out goals of an evaluation, O observation size, G goal size, A action size.

Units: metres, seconds, radians unless a field says otherwise; actions lie in [-1, 1].
Functions are written for one element ("unbatched") and lifted with `jax.vmap` by the caller.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple, Protocol

import jax

Key = jax.Array
"""One typed PRNG key, `jax.random.key`; consumed exactly once by whoever receives it."""


class GoalObs(NamedTuple):
    """What a goal-conditioned agent sees.

    Attributes:
      observation: float32 [..., O].
      achieved_goal: float32 [..., G], the goal that the current state satisfies.
      desired_goal: float32 [..., G], the goal that was requested.
    """

    observation: jax.Array
    achieved_goal: jax.Array
    desired_goal: jax.Array


class Episode(NamedTuple):
    """One whole episode. No reward is stored: it is a function of (next achieved, desired).

    Attributes:
      observation: float32 [..., T+1, O], the terminal observation included.
      achieved_goal: float32 [..., T+1, G].
      desired_goal: float32 [..., G], as requested; relabelling never writes here.
      action: float32 [..., T, A].
    """

    observation: jax.Array
    achieved_goal: jax.Array
    desired_goal: jax.Array
    action: jax.Array


class Moment(NamedTuple):
    """A point in stored time.

    Attributes:
      episode: int32 [...], row of the buffer.
      time: int32 [...], in 0..T for a state, in 0..T-1 for a transition.
    """

    episode: jax.Array
    time: jax.Array


class Transition(NamedTuple):
    """A stored step under a (possibly relabelled) goal.

    Attributes:
      observation: float32 [..., O], s.
      action: float32 [..., A], a.
      next_observation: float32 [..., O], s'.
      next_achieved_goal: float32 [..., G], the goal that s' satisfies.
      desired_goal: float32 [..., G], the goal that the reward is computed for.
      relabelled: bool [...], whether `desired_goal` differs in origin from the requested goal.
    """

    observation: jax.Array
    action: jax.Array
    next_observation: jax.Array
    next_achieved_goal: jax.Array
    desired_goal: jax.Array
    relabelled: jax.Array


class Batch(NamedTuple):
    """What an agent learns from: normalised inputs, goal already appended.

    Attributes:
      inputs: float32 [B, O+G], the normalised (s, g).
      action: float32 [B, A].
      reward: float32 [B].
      next_inputs: float32 [B, O+G], the normalised (s', g) with the same g.
    """

    inputs: jax.Array
    action: jax.Array
    reward: jax.Array
    next_inputs: jax.Array


class OnlineTarget(NamedTuple):
    """Parameters that are trained, and their slowly following copy."""

    online: Any
    target: Any


@dataclasses.dataclass(frozen=True)
class GoalSpec:
    """What a goal is.

    Attributes:
      name: what the goal describes, e.g. "object position".
      size: G, number of coordinates.
      units: of every coordinate, e.g. "m".
      tolerance: success if the distance is below it, in `units`.
    """

    name: str
    size: int
    units: str
    tolerance: float


class EnvState(Protocol):
    """Any pytree with the current observation."""

    @property
    def obs(self) -> GoalObs:
        """What the agent sees."""
        ...


class GoalEnv(Protocol):
    """A goal-conditioned environment of fixed episode length, as unbatched pure functions.

    Episodes last exactly `horizon` steps and never terminate early; the environment never
    resets itself, so that no terminal observation is lost and no goal is reused.
    """

    @property
    def name(self) -> str:
        """Public name."""
        ...

    @property
    def horizon(self) -> int:
        """T, steps of every episode."""
        ...

    @property
    def observation_size(self) -> int:
        """O."""
        ...

    @property
    def action_size(self) -> int:
        """A."""
        ...

    @property
    def goal_spec(self) -> GoalSpec:
        """What a goal is, and when it is reached."""
        ...

    def reset(self, key: Key) -> EnvState:
        """Draws a new initial state and a new goal; consumes `key`."""
        ...

    def step(self, state: Any, action: jax.Array) -> EnvState:
        """Advances by one action [A]; values outside [-1, 1] are clipped."""
        ...

    def reward(self, achieved_goal: jax.Array, desired_goal: jax.Array) -> jax.Array:
        """The only definition of the reward: [..., G], [..., G] -> [...]."""
        ...

    def success(self, achieved_goal: jax.Array, desired_goal: jax.Array) -> jax.Array:
        """Whether the goal is reached: [..., G], [..., G] -> bool [...]."""
        ...


class Agent(Protocol):
    """An off-policy algorithm, apart from environments, replay and normalisation."""

    def init(self, key: Key, input_size: int) -> Any:
        """Fresh learner state for inputs of size O+G; consumes `key`."""
        ...

    def act(self, learner: Any, inputs: jax.Array) -> jax.Array:
        """The deterministic policy: inputs [..., O+G] -> actions [..., A]."""
        ...

    def explore(self, learner: Any, inputs: jax.Array, key: Key) -> jax.Array:
        """The behaviour policy, unbatched: inputs [O+G] -> action [A]; consumes `key`."""
        ...

    def update(self, learner: Any, batch: Batch, key: Key) -> tuple[Any, dict[str, jax.Array]]:
        """One step of learning; returns the new state and scalar metrics; consumes `key`."""
        ...
