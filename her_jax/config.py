"""Every setting of a run, its default, and its check (`her_envs.make` has the environment's).

Defaults are those of OpenAI Baselines' HER (`baselines/her/experiment/config.py`), which
Plappert et al. 2018 (arXiv:1802.09464, appendix B) report, as one of its nineteen workers has them,
unless the setting says otherwise. Presets in `experiments/presets` change them for a task.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

from her_jax.errors import UserError
from her_jax.prioritization import PRIORITIES
from her_jax.relabel import STRATEGIES


def _require(holds: bool, field: str, value: Any, remedy: str) -> None:
    if not holds:
        raise UserError(f"{field}: {value!r} {remedy}")


_TYPES = {bool: "truth value", int: "whole number", float: "number", str: "text", tuple: "list"}
"""Type of a setting -> what its values are called."""


def _require_types(settings: Any) -> None:
    """Refuses values of another type than a setting's default; whole numbers are numbers too.

    Numbers of NumPy become plain ones, which JSON can hold.
    """
    for field in dataclasses.fields(settings):
        wanted, value = type(field.default), getattr(settings, field.name)
        if isinstance(value, np.integer | np.floating):
            value = value.item()
            object.__setattr__(settings, field.name, value)
        if wanted in _TYPES and (wanted, type(value)) != (float, int):
            _require(type(value) is wanted, field.name, value, f"is no {_TYPES[wanted]}")


@dataclasses.dataclass(frozen=True)
class EnvConfig:
    """Which environment; `her_envs.make`, which knows the names, checks them."""

    task: str = "FetchReach"
    """Environment name."""
    physics: str = "native"
    """Physics backend of training: "native" (MuJoCo's C engine), "warp" (MuJoCo Warp) or "jax"
    (MJX)."""
    model: str = "stock"
    """Model of training: "stock", or the smaller "fast" (for "warp") and "portable" (for "jax")."""
    scored_on: str = "native"
    """Physics backend on which success is measured, always with the stock model."""
    nconmax: int = 32
    """Contacts that "warp" has room for, an environment; all share the room of all."""
    njmax: int = 192
    """Constraint rows that "warp" has room for, in each environment."""
    graph_mode: str = "warp"
    """How "warp" captures CUDA graphs: "warp", "warp_staged", "warp_staged_ex", "jax" (XLA does)
    or "none"."""
    num_threads: int = 0
    """Host threads of the native physics; 0 for all cores."""
    tolerance: str = "v4"
    """Success distance: "v4" (5 cm) or "her2017" (7 cm, Slide 20 cm; not comparable)."""
    reward: str = "sparse"
    """Reward: "sparse" or "dense" (not comparable)."""
    goal: str = "many"
    """Requested goals: "many", or "single", the same in every episode (HER paper, section 4.3; not
    comparable)."""
    action_repeat: int = 1
    """Environment steps for which an action is held, a divisor of the horizon; all of them
    count."""
    n: int = 10
    """Bits of BitFlip; other environments have none."""

    def __post_init__(self) -> None:
        _require_types(self)


@dataclasses.dataclass(frozen=True)
class ReplayConfig:
    """The goal buffer and what is drawn from it."""

    capacity: int = 20_000
    """Size of the ring in episodes (20,000 x 50 steps: the paper's 1e6 transitions)."""
    strategy: str = "future"
    """Which goals replace the requested one: "future", "final", "episode", "random" or "none" (HER
    paper, section 4.5), "future_actual" (mrl), or one that `plugin` registers."""
    plugin: str = ""
    """Python file that the scripts run first (from Python you do), to register strategies by
    `her_jax.relabel`, agents by `her_jax.agents` or environments by `her_envs`. The run folder
    keeps a copy, which every script that opens the run executes."""
    k: float = 4.0
    """Relabelled samples for each unchanged one: a share of 1 - 1/(1+k), before
    `min_displacement` leaves goals out; 0 for no HER."""
    min_displacement: float = 0.0
    """Least distance, in the goal's units, of a hindsight goal from what its episode had achieved
    at the start; nearer ones are not given, and the step keeps the requested goal (after Manela
    and Biess 2021, arXiv:1905.05498). 0 gives every goal."""
    batch_size: int = 256
    """Transitions in one update (Baselines: in each of its workers)."""
    late_batch_size: int = 0
    """Transitions in one update later on; 0 for `batch_size` throughout."""
    late_batch_env_steps: int = 0
    """Environment steps from which on a round of episodes is followed by such updates; only given
    with `late_batch_size`."""
    priority: str = "uniform"
    """Which episodes are replayed: "uniform", or "energy" (Zhao and Tresp 2018,
    arXiv:1810.01363)."""
    priority_share: float = 0.5
    """Share of replayed steps whose episode is chosen by priority, the others uniformly; the paper
    has 1. Without effect on uniform replay."""
    n_step: int = 1
    """Steps whose rewards, all under the row's goal, are summed before the target bootstraps; fewer
    at the end of an episode. With more than 1 the targets are off-policy."""
    audited_rows: int = 4
    """Leading rows of each batch of an epoch's last round that the auditor checks, of `random`
    and strategies audited as it 16 in all; 0 for none."""

    def __post_init__(self) -> None:
        _require_types(self)
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
            f"is unknown; choose one of {', '.join(STRATEGIES)}, or give the file that registers "
            "it as plugin",
        )
        _require(
            self.k >= 0 and math.isfinite(self.k),
            "k",
            self.k,
            "must be finite and at least 0; the paper uses 4",
        )
        _require(
            self.min_displacement >= 0 and math.isfinite(self.min_displacement),
            "min_displacement",
            self.min_displacement,
            "must be finite and at least 0; try 0.01, or 0 to give every goal",
        )
        _require(
            self.batch_size > 0,
            "batch_size",
            self.batch_size,
            "is not positive; try 256",
        )
        for name in ("late_batch_size", "late_batch_env_steps"):
            value = getattr(self, name)
            _require(0 <= value < 2**31, name, value, "is not in 0..2**31 - 1; 0 switches it off")
        _require(
            self.late_batch_size > 0 or self.late_batch_env_steps == 0,
            "late_batch_env_steps",
            self.late_batch_env_steps,
            "has no effect without late_batch_size; give both",
        )
        _require(
            self.late_batch_env_steps > 0 or self.late_batch_size == 0,
            "late_batch_size",
            self.late_batch_size,
            "needs late_batch_env_steps, from which it counts; give both",
        )
        _require(
            self.priority in PRIORITIES,
            "priority",
            self.priority,
            f"is unknown; choose one of {', '.join(PRIORITIES)}",
        )
        _require(
            0 <= self.priority_share <= 1,
            "priority_share",
            self.priority_share,
            "must lie in [0, 1]; the paper has 1",
        )
        _require(self.n_step > 0, "n_step", self.n_step, "is not positive; try 1")
        _require(self.audited_rows >= 0, "audited_rows", self.audited_rows, "is negative; try 4")
        smaller = min(self.batch_size, self.late_batch_size)
        _require(
            self.late_batch_size == 0 or self.audited_rows <= smaller,
            "audited_rows",
            self.audited_rows,
            f"is more than the smaller batch of a run that has two; at most {smaller}",
        )

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
        _require_types(self)
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            _require(
                value > 0,
                field.name,
                value,
                "is not positive; --help shows its default",
            )
        _require(
            math.isfinite(self.std_floor), "std_floor", self.std_floor, "is not finite; try 0.01"
        )


@dataclasses.dataclass(frozen=True)
class DDPGConfig:
    """Deep deterministic policy gradient (Lillicrap et al. 2016, arXiv:1509.02971)."""

    NAME: ClassVar[str] = "ddpg"
    DISCRETE: ClassVar[bool] = False

    hidden: tuple[int, ...] = (256, 256, 256)
    """Widths of the hidden layers of actor and critic."""
    layer_norm: bool = False
    """Layer normalisation in the critic's hidden layers (Ba et al. 2016, arXiv:1607.06450; of mrl
    and DroQ)."""
    critics: int = 1
    """Critics, trained on the same targets from different initial parameters."""
    target_critics: int = 1
    """How many of them, drawn anew for every update, the target takes the minimum of (REDQ, Chen et
    al. 2021, arXiv:2101.05982); the actor climbs the mean of all."""
    actor_learning_rate: float = 1e-3
    """Adam step size of the actor."""
    critic_learning_rate: float = 1e-3
    """Adam step size of the critic."""
    discount: float = 0.98
    """gamma; 1 - 1/T in Baselines."""
    target_rate: float = 0.05
    """tau, the share of the online parameters that a move of the target networks mixes in."""
    target_period: int = 40
    """Updates between two moves of the target networks; 40 is Baselines' once a cycle."""
    average_rate: float = 1.0
    """Rate of the exponential moving average of the actor's parameters that acts where nothing is
    explored; 1 for the actor itself. An average over many updates steadies what is evaluated
    (Polyak and Juditsky 1992), and lags by about 1 / rate of them."""
    action_l2: float = 1.0
    """Weight of the mean squared action in the actor's loss."""
    noise_std: float = 0.2
    """Standard deviation of the exploration noise, in units of the largest action."""
    random_action_probability: float = 0.3
    """Share of exploratory actions that are replaced, whole, by a uniform one."""

    def __post_init__(self) -> None:
        _check_agent(self)


@dataclasses.dataclass(frozen=True)
class TD3Config:
    """Twin delayed DDPG (Fujimoto et al. 2018, arXiv:1802.09477).

    Defaults of the three additions are the paper's; all others are those of DDPG here, but for
    target networks that follow every update of the actor and no penalty on actions.
    """

    NAME: ClassVar[str] = "td3"
    DISCRETE: ClassVar[bool] = False

    hidden: tuple[int, ...] = (256, 256, 256)
    """Widths of the hidden layers of actor and critics."""
    layer_norm: bool = False
    """Layer normalisation in the critics' hidden layers."""
    critics: int = 2
    """Critics; the actor climbs the first."""
    target_critics: int = 2
    """How many of them, drawn anew for every update, the target takes the minimum of."""
    actor_learning_rate: float = 1e-3
    """Adam step size of the actor."""
    critic_learning_rate: float = 1e-3
    """Adam step size of the critics."""
    discount: float = 0.98
    """gamma."""
    target_rate: float = 0.05
    """tau, the share of the online parameters that a move of the target networks mixes in."""
    actor_period: int = 2
    """Updates of the critics between two updates of the actor and moves of the targets (d)."""
    target_noise_std: float = 0.2
    """Standard deviation of the noise on the target action, in units of the largest action."""
    target_noise_clip: float = 0.5
    """Largest size of that noise (c)."""
    action_l2: float = 0.0
    """Weight of the mean squared action in the actor's loss; the paper has none."""
    noise_std: float = 0.2
    """Standard deviation of the exploration noise, in units of the largest action."""
    random_action_probability: float = 0.3
    """Share of exploratory actions that are replaced, whole, by a uniform one."""

    def __post_init__(self) -> None:
        _check_agent(self)


@dataclasses.dataclass(frozen=True)
class SACConfig:
    """Soft actor-critic (Haarnoja et al. 2018, arXiv:1812.05905), temperature tuned or fixed.

    With `--critics 10 --target-critics 2` it has the critics of REDQ (arXiv:2101.05982), whose code
    updates actor and temperature only at every twentieth update of the critics; here all follow.
    """

    NAME: ClassVar[str] = "sac"
    DISCRETE: ClassVar[bool] = False

    hidden: tuple[int, ...] = (256, 256, 256)
    """Widths of the hidden layers of actor and critics."""
    layer_norm: bool = False
    """Layer normalisation in the critics' hidden layers."""
    critics: int = 2
    """Critics."""
    target_critics: int = 2
    """How many of them, drawn anew for every update, the target takes the minimum of. The actor
    climbs their minimum if these are all (SAC) and the mean of all otherwise (REDQ)."""
    actor_learning_rate: float = 1e-3
    """Adam step size of the actor."""
    critic_learning_rate: float = 1e-3
    """Adam step size of the critics."""
    discount: float = 0.98
    """gamma."""
    target_rate: float = 0.05
    """tau, the share of the online parameters that a move of the target networks mixes in."""
    target_period: int = 1
    """Updates between two moves of the target networks."""
    temperature: float = 0.1
    """Weight alpha of the entropy; where it is tuned, only its start."""
    tune_temperature: bool = True
    """Whether alpha follows the target entropy (section 5 of the paper)."""
    temperature_learning_rate: float = 1e-3
    """Adam step size of log alpha."""
    target_entropy_per_action: float = -1.0
    """Target entropy in nats, divided by A; the paper's is -1. A Gaussian of -1 nat has a standard
    deviation of 0.09, one of 0 nats 0.24; actions reach from -1 to 1."""
    action_l2: float = 0.0
    """Weight of the mean squared greedy action in the actor's loss; the paper has none."""
    random_action_probability: float = 0.2
    """Share of exploratory actions that are replaced, whole, by a uniform one; the paper has
    none, but without it one seed in three hardly left the floor of FetchPush."""

    def __post_init__(self) -> None:
        _check_agent(self)


@dataclasses.dataclass(frozen=True)
class DQNConfig:
    """Deep Q-network for discrete actions (Mnih et al. 2015), as the HER paper uses it."""

    NAME: ClassVar[str] = "dqn"
    DISCRETE: ClassVar[bool] = True

    hidden: tuple[int, ...] = (256,)
    """Widths of the hidden layers; one of 256 in the HER paper's section 3.1."""
    layer_norm: bool = False
    """Layer normalisation in the hidden layers."""
    critic_learning_rate: float = 1e-3
    """Adam step size."""
    discount: float = 0.98
    """gamma."""
    target_rate: float = 0.05
    """tau, the share of the online parameters that a move of the target network mixes in."""
    target_period: int = 40
    """Updates between two moves of the target network; 40 is once a cycle in the HER paper."""
    double: bool = False
    """Whether the online network chooses the action that the target network values (double
    Q-learning, van Hasselt et al. 2016, arXiv:1509.06461)."""
    random_action_probability: float = 0.2
    """Share of exploratory actions that are uniform."""

    def __post_init__(self) -> None:
        _check_agent(self)


AgentConfig = DDPGConfig | TD3Config | SACConfig | DQNConfig

AGENTS: dict[str, type[AgentConfig]] = {
    kind.NAME: kind for kind in (DDPGConfig, TD3Config, SACConfig, DQNConfig)
}
"""Settings of the agents by name."""

_POSITIVE = ("actor_learning_rate", "critic_learning_rate", "temperature_learning_rate")
_AT_LEAST_ONE = ("critics", "target_critics", "target_period", "actor_period")
_NOT_NEGATIVE = ("action_l2", "noise_std", "target_noise_std", "target_noise_clip")


def _check_agent(agent: Any) -> None:
    """The rules of every agent's settings, by name of the setting; `hidden` may be a list.

    Raises:
      UserError: names the setting, its value and what it should be.
    """
    if isinstance(agent.hidden, list | tuple):  # as in JSON; what JAX compiles for is hashable
        widths = (int(x) if isinstance(x, np.integer) else x for x in agent.hidden)
        object.__setattr__(agent, "hidden", tuple(widths))
    _require_types(agent)
    values = vars(agent)
    _require(
        len(agent.hidden) > 0 and all(type(width) is int and width > 0 for width in agent.hidden),
        "hidden",
        agent.hidden,
        "needs at least one positive width, e.g. 256 256 256",
    )
    for name in _POSITIVE:
        value = values.get(name, 1.0)
        _require(value > 0 and math.isfinite(value), name, value, "is not positive; try 1e-3")
    for name in _AT_LEAST_ONE:
        _require(values.get(name, 1) > 0, name, values.get(name), "is not positive; try 1")
    for name in _NOT_NEGATIVE:
        value = values.get(name, 0.0)
        _require(
            value >= 0 and math.isfinite(value), name, value, "is negative or infinite; try 0.1"
        )
    _require(
        0 <= agent.discount < 1,
        "discount",
        agent.discount,
        "must lie in [0, 1): targets are clipped to -1 / (1 - discount)",
    )
    for name in ("target_rate", "average_rate"):
        value = values.get(name, 1.0)
        _require(0 < value <= 1, name, value, "must lie in (0, 1]; try 0.05")
    _require(
        0 <= agent.random_action_probability <= 1,
        "random_action_probability",
        agent.random_action_probability,
        "must lie in [0, 1]; try 0.3",
    )
    _require(
        values.get("target_critics", 1) <= values.get("critics", 1),
        "target_critics",
        values.get("target_critics"),
        f"is more than there are critics ({values.get('critics')})",
    )
    _require(
        0 < values.get("temperature", 1.0) < math.inf,
        "temperature",
        values.get("temperature"),
        "is not positive and finite; try 0.1",
    )
    _require(
        math.isfinite(values.get("target_entropy_per_action", -1.0)),
        "target_entropy_per_action",
        values.get("target_entropy_per_action"),
        "is not finite; try -1",
    )


MATMUL_PRECISIONS = ("default", "float32")


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
    observation_noise: float = 0.0
    """Standard deviation of the noise on observations in training, the same number in the units of
    each coordinate: on what the exploring policy sees, and drawn anew on what is replayed. Goals,
    stored episodes, statistics and evaluation have none. 0.01 m made the HER paper's policy work on
    a robot (section 4.6)."""
    matmul_precision: str = "default"
    """Of the matrix products in an update: "default" (JAX's, which is TF32 on recent NVIDIA GPUs,
    bfloat16 on TPUs and float32 on CPUs) or "float32". Physics and the policy's actions do not
    change with it."""
    eval_episodes: int = 200
    """Held-out goals on which success is measured after every epoch (Baselines: 10 rounds of 2
    episodes in each of its workers, with goals drawn anew)."""
    checkpoint_period: int = 1
    """Epochs between two checkpoints; one is always written at the end."""

    def __post_init__(self) -> None:
        _require_types(self)
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            _require(
                isinstance(value, str) or value > 0 or field.name == "observation_noise",
                field.name,
                value,
                "is not positive; --help shows its default",
            )
        _require(
            self.matmul_precision in MATMUL_PRECISIONS,
            "matmul_precision",
            self.matmul_precision,
            f"is unknown; choose one of {', '.join(MATMUL_PRECISIONS)}",
        )
        noise = self.observation_noise
        _require(
            0 <= noise < math.inf, "observation_noise", noise, "is negative or infinite; try 0.01"
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
    agent: AgentConfig = DDPGConfig()
    normalizer: NormalizerConfig = NormalizerConfig()

    def __post_init__(self) -> None:
        _require_types(self)
        for part in dataclasses.fields(self)[1:]:
            kinds = tuple(AGENTS.values()) if part.name == "agent" else (type(part.default),)
            of = " or ".join(kind.__name__ for kind in kinds)
            value = getattr(self, part.name)
            _require(isinstance(value, kinds), part.name, value, f"is no {of}; give one")
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
        """Nested plain values, for `config.json`; the agent's begin with its name."""
        values = dataclasses.asdict(self)
        return values | {"agent": {"name": self.agent.NAME, **values["agent"]}}

    def lasting(self) -> dict[str, Any]:
        """The settings that a run keeps for life, by "part.name"; it may be read with others."""
        return {"seed": self.seed} | {
            f"{part}.{name}": list(value) if isinstance(value, tuple) else value
            for part, values in self.to_dict().items()
            if isinstance(values, dict)
            for name, value in values.items()
            if name not in _CHANGEABLE
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Config:
        """Inverse of `to_dict`.

        Fields that a part lacks take their defaults, so that a setting which is added must default
        to what the code did before.

        Raises:
          UserError: if a part is missing, a field is unknown, or a value is not allowed.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        for part in sorted(known - {"seed"}):
            if not isinstance(values.get(part), dict):
                raise UserError(f"config: it holds no settings of {part}; restore it")
        for part in values.keys() - known:
            raise UserError(f"config: {part} is no part of it; restore it")
        try:
            agent: dict[str, Any] = {
                name: tuple(value) if isinstance(value, list) else value  # JSON knows no tuples
                for name, value in dict(values["agent"]).items()
            }
            name = agent.pop("name", "ddpg")  # the first runs had only one
            if name not in AGENTS:
                raise UserError(
                    f"config: agent {name!r} is unknown; restore the run's plugin.py, or "
                    "register it"
                )
            parts = {
                "env": EnvConfig,
                "train": TrainConfig,
                "replay": ReplayConfig,
                "agent": AGENTS[name],
                "normalizer": NormalizerConfig,
            }
            values = values | {"agent": agent}
            nested = {}
            for name, part in parts.items():
                with _in_file(f"{name}."):
                    nested[name] = part(**values[name])
            with _in_file(""):
                return cls(seed=values["seed"], **nested)
        except (KeyError, TypeError) as error:
            raise UserError(
                f"config: {error} does not fit this version; retrain, or check out the run's commit"
            ) from error


@contextlib.contextmanager
def _in_file(part: str) -> Iterator[None]:
    """Says of a refused setting which part of a file it stands in."""
    try:
        yield
    except UserError as error:
        raise UserError(f"config: {part}{error}; restore it") from None


_CHANGEABLE = (
    *("env_steps", "eval_episodes", "checkpoint_period", "audited_rows"),
    *("scored_on", "num_threads", "nconmax", "njmax", "graph_mode"),
    "plugin",
)
"""Settings that do not change what a checkpoint is: it may be read with others. Of a plugin the
checkpoint knows the hash, which counts, and not the place."""
