"""Every setting of a run, its default, and its check.

Defaults are those of OpenAI Baselines' HER (`baselines/her/experiment/config.py`), which
Plappert et al. 2018 (arXiv:1802.09464, appendix B) report, unless a comment says otherwise.
Presets in `experiments/presets` change them for a task.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from her_jax.errors import UserError
from her_jax.relabel import STRATEGIES


def _require(holds: bool, field: str, value: Any, remedy: str) -> None:
    if not holds:
        raise UserError(f"{field}: {value!r} {remedy}")


@dataclasses.dataclass(frozen=True)
class EnvConfig:
    """Which environment; `her_envs.make`, which knows the names, checks them."""

    task: str = "FetchReach"
    """Environment name."""
    physics: str = "native"
    """Physics backend: "native"."""
    num_threads: int = 0
    """Host threads of the native physics; 0 for all cores."""
    tolerance: str = "v4"
    """Success distance: "v4" (5 cm) or "her2017" (7 cm, Slide 20 cm; not comparable)."""
    reward: str = "sparse"
    """Reward: "sparse" or "dense" (not comparable)."""


@dataclasses.dataclass(frozen=True)
class ReplayConfig:
    """The goal buffer and what is drawn from it."""

    capacity: int = 20_000
    """Size of the ring in episodes (20,000 x 50 steps: the paper's 1e6 transitions)."""
    strategy: str = "future"
    """Which goals replace the requested one: "future", "final", "episode", "random" or "none" (HER
    paper, section 4.5), or "future_actual" (mrl)."""
    k: float = 4.0
    """Relabelled samples for each unchanged one: a share of 1 - 1/(1+k); 0 for no HER."""
    batch_size: int = 256
    """Transitions in one update."""
    audited_rows: int = 4
    """Leading rows of each batch of an epoch's last round that the auditor checks; 0 for none."""

    def __post_init__(self) -> None:
        _require(
            self.capacity > 0,
            "capacity",
            self.capacity,
            "is not positive; give episodes, e.g. 20000",
        )
        _require(
            self.strategy in STRATEGIES,
            "strategy",
            self.strategy,
            f"is unknown; choose one of {', '.join(STRATEGIES)}",
        )
        _require(
            self.k >= 0 and math.isfinite(self.k),
            "k",
            self.k,
            "must be finite and at least 0; the paper uses 4",
        )
        _require(
            self.batch_size > 0,
            "batch_size",
            self.batch_size,
            "is not positive; try 256",
        )
        _require(self.audited_rows >= 0, "audited_rows", self.audited_rows, "is negative; try 4")

    @property
    def relabel_probability(self) -> float:
        """P = 1 - 1/(1+k), and 0 for strategy `none`."""
        return 0.0 if self.strategy == "none" else 1.0 - 1.0 / (1.0 + self.k)


@dataclasses.dataclass(frozen=True)
class NormalizerConfig:
    """Running normalisation of observations and goals (Baselines' `normalizer.py`)."""

    input_clip: float = 200.0
    """Raw values are clipped to +- this before anything else."""
    std_floor: float = 0.01
    """Lower bound of the standard deviation, not an additive term."""
    output_clip: float = 5.0
    """Normalised values are clipped to +- this."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            _require(
                value > 0,
                field.name,
                value,
                f"is not positive; default {field.default}",
            )


@dataclasses.dataclass(frozen=True)
class DDPGConfig:
    """Deep deterministic policy gradient (Lillicrap et al. 2016, arXiv:1509.02971)."""

    hidden: tuple[int, ...] = (256, 256, 256)
    """Widths of the hidden layers of actor and critic."""
    actor_learning_rate: float = 1e-3
    """Adam step size of the actor."""
    critic_learning_rate: float = 1e-3
    """Adam step size of the critic."""
    discount: float = 0.98
    """gamma; 1 - 1/T in Baselines."""
    target_rate: float = 0.05
    """Share of the online parameters that a move of the target networks mixes in."""
    target_period: int = 40
    """Updates between two moves of the target networks; 40 is Baselines' once a cycle."""
    action_l2: float = 1.0
    """Weight of the mean squared action in the actor's loss."""
    noise_std: float = 0.2
    """Standard deviation of the exploration noise, in units of the action range."""
    random_action_probability: float = 0.3
    """Share of exploratory actions that are replaced, whole, by a uniform one."""

    def __post_init__(self) -> None:
        _require(
            len(self.hidden) > 0 and all(width > 0 for width in self.hidden),
            "hidden",
            self.hidden,
            "needs at least one positive width, e.g. 256 256 256",
        )
        for name in ("actor_learning_rate", "critic_learning_rate"):
            _require(
                getattr(self, name) > 0,
                name,
                getattr(self, name),
                "is not positive; try 1e-3",
            )
        _require(
            0 <= self.discount < 1,
            "discount",
            self.discount,
            "must lie in [0, 1): targets are clipped to -1 / (1 - discount)",
        )
        _require(
            0 < self.target_rate <= 1,
            "target_rate",
            self.target_rate,
            "must lie in (0, 1]; try 0.05",
        )
        _require(
            self.target_period > 0,
            "target_period",
            self.target_period,
            "is not positive; try 1",
        )
        _require(self.action_l2 >= 0, "action_l2", self.action_l2, "is negative; try 0.1")
        _require(self.noise_std >= 0, "noise_std", self.noise_std, "is negative; try 0.2")
        _require(
            0 <= self.random_action_probability <= 1,
            "random_action_probability",
            self.random_action_probability,
            "must lie in [0, 1]; try 0.3",
        )


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How much is played and learned, and when.

    A cycle plays one episode in every environment and then makes `updates_per_cycle` updates; an
    epoch is `cycles_per_epoch` cycles, one compiled call, and ends with an evaluation.
    """

    env_steps: int = 4_750_000
    """Environment steps of the run, all environments together; rounded up to whole epochs."""
    num_envs: int = 16
    """Environments that play at the same time (Baselines: 2 in each of 19 workers)."""
    updates_per_cycle: int = 40
    """Updates after each round of episodes."""
    cycles_per_epoch: int = 50
    """Rounds between two evaluations."""
    eval_episodes: int = 200
    """Held-out goals on which success is measured after every epoch."""
    checkpoint_period: int = 1
    """Epochs between two checkpoints; one is always written at the end."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            _require(
                value > 0,
                field.name,
                value,
                f"is not positive; default {field.default}",
            )
        _require(self.env_steps < 2**31, "env_steps", self.env_steps, "must be below 2**31")


@dataclasses.dataclass(frozen=True)
class Config:
    """A whole run."""

    seed: int = 0
    """Seed of everything random in training; never of the held-out goals."""
    env: EnvConfig = EnvConfig()
    train: TrainConfig = TrainConfig()
    replay: ReplayConfig = ReplayConfig()
    agent: DDPGConfig = DDPGConfig()
    normalizer: NormalizerConfig = NormalizerConfig()

    def __post_init__(self) -> None:
        _require(0 <= self.seed < 2**31, "seed", self.seed, "must lie in [0, 2**31)")
        capacity, num_envs = self.replay.capacity, self.train.num_envs
        _require(
            capacity % num_envs == 0,
            "capacity",
            capacity,
            f"is not a multiple of num_envs ({num_envs}); "
            f"try {max(1, round(capacity / num_envs)) * num_envs}",
        )

    def to_dict(self) -> dict[str, Any]:
        """Nested plain values, for `config.json`."""
        return dataclasses.asdict(self)

    def lasting(self) -> dict[str, Any]:
        """The settings that a run keeps for life, by "part.name"; it may be resumed with others."""
        return {"seed": self.seed} | {
            f"{part}.{name}": list(value) if isinstance(value, tuple) else value
            for part, values in self.to_dict().items()
            if isinstance(values, dict)
            for name, value in values.items()
            if name not in ("num_threads", "env_steps", "eval_episodes", "checkpoint_period")
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Config:
        """Inverse of `to_dict`.

        Raises:
          UserError: if a field is missing or unknown.
        """
        parts = {
            "env": EnvConfig,
            "train": TrainConfig,
            "replay": ReplayConfig,
            "agent": DDPGConfig,
            "normalizer": NormalizerConfig,
        }
        try:
            nested = {name: part(**_tuples(values[name])) for name, part in parts.items()}
            return cls(seed=values["seed"], **nested)
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"config: {error} does not fit this version; retrain, or check out the run's commit"
            ) from error


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    """JSON has no tuples."""
    return {
        name: tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
        for name, value in values.items()
    }
