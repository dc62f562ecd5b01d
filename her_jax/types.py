"""The map of the library: the axes of all arrays, and the types that several modules share.

Axes, always in this order and written in brackets after a field:

    N environments, T horizon (steps of an episode), C capacity of the buffer in episodes,
    B batch, E held-out goals of an evaluation, O observation size, G goal size, A action size,
    K cost channels.

Three modules have axes of their own before these: `group` S agents, `agents.parts` M critics, and
`statistics` S seeds, M tasks and V evaluations.

Units: metres, seconds, radians unless a field says otherwise; actions lie in [-1, 1].
Functions are written for one element ("unbatched") and lifted with `jax.vmap` by the caller.
"""

from __future__ import annotations

import abc
import dataclasses
import math
import pathlib
from typing import Any, NamedTuple, Protocol

import jax

from her_jax.errors import UserError

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
      cost: float32 [..., T, K], of every step, in the units of the environment's channels. Costs
        do not depend on the goal, and relabelling never touches them.
    """

    observation: jax.Array
    achieved_goal: jax.Array
    desired_goal: jax.Array
    action: jax.Array
    cost: jax.Array


REQUEST = -1
"""The time of an episode's request: before its first state."""


class Moment(NamedTuple):
    """A point in stored time.

    Attributes:
      episode: int32 [...], row of the buffer.
      time: int32 [...], in 0..T for a state, in 0..T-1 for a transition; as the source of a goal
        also `REQUEST`, for the goal that the episode was asked for.
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
      hindsight: bool [...], whether it was achieved; a strategy may also draw what was requested
        of another episode.
    """

    observation: jax.Array
    action: jax.Array
    next_observation: jax.Array
    next_achieved_goal: jax.Array
    desired_goal: jax.Array
    relabelled: jax.Array
    hindsight: jax.Array


class Batch(NamedTuple):
    """What an agent learns from: normalised inputs, goal already appended.

    Attributes:
      inputs: float32 [B, O+G], the normalised (s, g).
      action: float32 [B, A].
      reward: float32 [B], discounted sum of the rewards between s and s', all under g.
      discount: float32 [B], gamma to the number of steps between s and s'.
      next_inputs: float32 [B, O+G], the normalised (s', g) with the same g.
    """

    inputs: jax.Array
    action: jax.Array
    reward: jax.Array
    discount: jax.Array
    next_inputs: jax.Array


class OnlineTarget(NamedTuple):
    """Parameters that are trained, and their slowly following copy."""

    online: Any
    target: Any


class Box(NamedTuple):
    """An axis-aligned box: lowest and highest corner, G numbers each, ends included."""

    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class GoalSpec:
    """What a goal is, what may be asked for, and when it is reached.

    Attributes:
      name: what the goal describes, e.g. "object position".
      coordinates: name of each of the G numbers, e.g. ("x", "y", "z").
      units: of every coordinate, e.g. "m"; pixels are no physical unit and are refused.
      tolerance: success if the distance is below it, in `units`.
      measured: how simulator state becomes an achieved goal.
      region: where requested goals are drawn from.
      bounds: where every achieved goal must lie, or the simulation is broken.
      any_step: whether an episode succeeds if any of its steps reaches the goal; by default only
        the last step counts.
      count: how many goals there are; None for a continuum.
    """

    name: str
    coordinates: tuple[str, ...]
    units: str
    tolerance: float
    measured: str
    region: Box
    bounds: Box
    any_step: bool = False
    count: int | None = None

    def __post_init__(self) -> None:
        """Refuses a goal that could not be checked.

        Raises:
          UserError: names the field and what it lacks.
        """
        _require(len(self.coordinates) > 0, "coordinates: none named; name each number of a goal")
        _require(
            self.units.lower() not in ("", "px", "pixel", "pixels"),
            f"units: {self.units!r} is no physical unit; measure the goal in simulator state",
        )
        _require(
            0 < self.tolerance < math.inf,
            f"tolerance: {self.tolerance!r} is not positive; give a distance in {self.units}",
        )
        _require(self.measured != "", "measured: empty; say how simulator state becomes a goal")
        for field, box in (("region", self.region), ("bounds", self.bounds)):
            fits = len(box.low) == len(box.high) == self.size
            fits = fits and all(a <= b for a, b in zip(box.low, box.high, strict=True))
            _require(fits, f"{field}: {box} is no box of {self.size} coordinates, low before high")
            finite = all(map(math.isfinite, (*box.low, *box.high)))
            _require(finite, f"{field}: {box} is not finite; say within what goals lie")

    @property
    def size(self) -> int:
        """G, number of coordinates."""
        return len(self.coordinates)

    @property
    def scored_at(self) -> str:
        """When success is measured: "last step" or "any step"."""
        return "any step" if self.any_step else "last step"

    @property
    def origin(self) -> str:
        """Of the goals that success is measured on, in a sentence."""
        return "held-out" if self.can_be_held_out else "fresh (there are too few to hold any out)"

    @property
    def when(self) -> str:
        """`scored_at` in a sentence."""
        return "at any step" if self.any_step else "at the last step"

    @property
    def can_be_held_out(self) -> bool:
        """Whether there are so many goals that training meets none of a held-out set by chance.

        A float32 coordinate has some 2^23 values, so a continuum of one is too small.
        """
        if self.count is not None:
            return self.count >= 2**48
        return sum(a < b for a, b in zip(*self.region, strict=True)) > 1


def _require(holds: bool, complaint: str) -> None:
    if not holds:
        raise UserError(complaint)


class CostSpec(NamedTuple):
    """One safety cost, measured after every step; none of them enters the reward.

    Attributes:
      name: e.g. "table_contact_force".
      units: e.g. "N".
      meaning: one sentence.
    """

    name: str
    units: str
    meaning: str


class RewardPair(NamedTuple):
    """A hand-written example of what a reward must say.

    Attributes:
      name: "hit", "miss" or "threshold".
      achieved_goal: G numbers.
      desired_goal: G numbers.
      reward: what the environment must pay.
      success: whether it must call the goal reached.
    """

    name: str
    achieved_goal: tuple[float, ...]
    desired_goal: tuple[float, ...]
    reward: float
    success: bool


class Start(Protocol):
    """The random part of a reset: a NamedTuple of float32 arrays."""

    @property
    def desired_goal(self) -> jax.Array:
        """The requested goal [..., G]."""
        ...

    def _replace(self, **fields: Any) -> Any:
        """A copy with other values."""
        ...


class EnvState(Protocol):
    """Any pytree with the current observation."""

    @property
    def obs(self) -> GoalObs:
        """What the agent sees."""
        ...

    @property
    def cost(self) -> jax.Array:
        """Costs [K] of the step that led here; zeros after a reset."""
        ...

    @property
    def dropped(self) -> jax.Array:
        """Whether physics dropped contacts in that step for lack of room, bool []."""
        ...


class GoalEnv(Protocol):
    """A goal-conditioned environment of fixed episode length, as unbatched pure functions.

    A simulation that breaks shows it by an observation that is not finite; see `rollout.broken`.

    Episodes last exactly `horizon` steps and never terminate early; the environment never
    resets itself, so that no terminal observation is lost and no goal is reused.

    Whoever inherits from this class needs to define only what is abstract.
    """

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """Public name."""
        ...

    @property
    @abc.abstractmethod
    def horizon(self) -> int:
        """T, steps of every episode."""
        ...

    @property
    def steps_per_action(self) -> int:
        """Environment steps that one action lasts; 1 unless actions are held."""
        return 1

    @property
    def seconds_per_action(self) -> float | None:
        """Time from one state of an episode to the next; None where time has no unit."""
        return None

    @property
    def simulator(self) -> str | None:
        """The MuJoCo backend that simulates it, e.g. "native"; None where none does."""
        return None

    @property
    @abc.abstractmethod
    def observation_size(self) -> int:
        """O."""
        ...

    @property
    @abc.abstractmethod
    def action_size(self) -> int:
        """A."""
        ...

    @property
    def discrete(self) -> bool:
        """Whether an action is one choice among A, given as a one-hot vector."""
        return False

    @property
    def bytes_per_env(self) -> int:
        """Device memory that an environment takes while it steps, its observations apart."""
        return 0

    @property
    @abc.abstractmethod
    def goal_spec(self) -> GoalSpec:
        """What a goal is, and when it is reached."""
        ...

    @property
    def cost_specs(self) -> tuple[CostSpec, ...]:
        """The K safety costs."""
        return ()

    @property
    @abc.abstractmethod
    def reward_pairs(self) -> tuple[RewardPair, ...]:
        """Hand-written examples that the reward must satisfy: hit, miss and threshold."""
        ...

    @property
    def held_out_file(self) -> pathlib.Path | None:
        """CSV of held-out starts (`goal_set.load`); None to draw them from a reserved key."""
        return None

    @abc.abstractmethod
    def draw(self, key: Key) -> Start:
        """The random part of a reset; consumes `key`."""
        ...

    @abc.abstractmethod
    def begin(self, start: Any) -> EnvState:
        """The initial state of an episode from a drawn `Start`."""
        ...

    def reset(self, key: Key) -> EnvState:
        """The initial state of a random episode; consumes `key`."""
        return self.begin(self.draw(key))

    @abc.abstractmethod
    def step(self, state: Any, action: jax.Array) -> EnvState:
        """Advances by one action [A], clipped to [-1, 1] or, if discrete, one-hot.

        Zeros mean to do nothing, which is what the success of policies is compared with.
        """
        ...

    @abc.abstractmethod
    def reward(self, achieved_goal: jax.Array, desired_goal: jax.Array) -> jax.Array:
        """The only definition of the reward: [..., G], [..., G] -> [...], in [-1, 0].

        Agents clip targets to what such rewards can add up to. Before training a reward above 0 is
        refused, and a sparse one below -1; from a dense one below -1, as beyond 1 m, agents learn
        as far as the clip allows.
        """
        ...

    @abc.abstractmethod
    def success(self, achieved_goal: jax.Array, desired_goal: jax.Array) -> jax.Array:
        """Whether the goal is reached: [..., G], [..., G] -> bool [...]."""
        ...


class Agent(Protocol):
    """An off-policy algorithm, apart from environments, replay and normalisation.

    Its settings have a `discount`, by which n-step returns are summed before it sees them.
    """

    def init(self, key: Key, input_size: int) -> Any:
        """Fresh learner state for inputs of size O+G; consumes `key`.

        A pytree with an attribute `updates`, int32 [], the number of updates so far, which agents
        that train in lockstep have in common (`her_jax.group`).
        """
        ...

    def act(self, learner: Any, inputs: jax.Array) -> jax.Array:
        """The deterministic policy: inputs [..., O+G] -> actions [..., A]."""
        ...

    def acting(self, learner: Any) -> Any:
        """The learner with None in place of all that `act` does not read."""
        ...

    def explore(self, learner: Any, inputs: jax.Array, key: Key) -> jax.Array:
        """The behaviour policy, unbatched: inputs [O+G] -> action [A]; consumes `key`."""
        ...

    def update(self, learner: Any, batch: Batch, key: Key) -> tuple[Any, dict[str, jax.Array]]:
        """One step of learning; returns the new state and scalar metrics; consumes `key`."""
        ...
