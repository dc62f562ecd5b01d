"""Time to a success rate: this project against Stable-Baselines3 on the same tasks.

Command:   python benchmarks/versus_sb3.py [--tasks FetchPush] [--limit-s 3600] [--smoke]
Needs:     pip install -e '.[sb3]'
Time:      up to an hour of training (--limit-s) for each contender and task that does not get
           there, ours some minutes; evaluations come on top

The contenders take turns in one process on the same cores. `ours` is the tuned preset of a task,
and `ours-efficient`, raced only if named, the preset `efficient` (Push and PickAndPlace);
`sac` and `tqc` are Stable-Baselines3's SAC and sb3-contrib's TQC with `HerReplayBuffer` on
Gymnasium-Robotics v4, one environment, as RL-Baselines3-Zoo trains them. Settings are those of
rl_zoo3 2.9.2: `hyperparams/tqc.yml` for TQC, where Slide and PickAndPlace share Push's, and
`hyperparams/sac.yml` for SAC on FetchReach. It has none for SAC on the other tasks, where SAC gets
TQC's numbers. Those networks and batches are large for a CPU; `sac-docs`, raced only if named, is
SAC as in the HER example of Stable-Baselines3's documentation (`docs/guide/examples.rst`): a batch
of 256 and three layers of 256. What these sources leave out is the library's default.

All are scored by `her_jax.evaluate` on the same held-out starts in the `native` environment, whose
physics is the original's; an actor of Stable-Baselines3 is transcribed to JAX for that. A contender
stops at the first evaluation that reaches the target, or when its seconds or steps are spent.
Seconds are those of training, with compiling (ours) or making the model (theirs), which is also
reported apart; evaluations are timed apart. Checkpoints, logs and audits are left out of all.

The machine must be idle: other work slows PyTorch's threads, which wait for each other, out of all
proportion. Each row holds the load average from before the start.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import importlib
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np

import harness
import her_envs
import original
import presets
from her_jax import agents, evaluate, goal_set, provenance, train
from her_jax.config import Config
from her_jax.errors import UserError
from her_jax.types import Agent, GoalEnv, GoalObs

PEERS = {"sac": "SAC", "tqc": "TQC", "sac-docs": "SAC"}
"""Contender -> class of Stable-Baselines3 or sb3-contrib."""

OURS = {"ours": "tuned", "ours-efficient": "efficient"}
"""Contender -> preset of this project."""

CONTENDERS = (*OURS, *PEERS)
PACKAGES = ("stable-baselines3", "sb3-contrib", "torch", "gymnasium")
KEYS = ("achieved_goal", "desired_goal", "observation")
"""Parts of an observation in the order in which MultiInputPolicy concatenates them."""

HER = {
    "policy": "MultiInputPolicy",
    "buffer_size": 1_000_000,
    "gamma": 0.95,
    "learning_rate": 1e-3,
    "replay_buffer_kwargs": {"goal_selection_strategy": "future", "n_sampled_goal": 4},
}
OBJECT = HER | {
    "batch_size": 2048,
    "tau": 0.05,
    "policy_kwargs": {"net_arch": [512, 512, 512], "n_critics": 2},
}
DOCS = HER | {"batch_size": 256, "policy_kwargs": {"net_arch": [256, 256, 256]}}
REACH = HER | {"batch_size": 256, "ent_coef": "auto", "learning_starts": 1000}


@dataclasses.dataclass(frozen=True)
class Limits:
    """When a contender is evaluated, and when it stops."""

    env_steps: int
    """Environment steps of each contender; ours rounds up to whole epochs."""
    seconds: float
    """Training seconds of each contender."""
    target: float
    """Share of held-out goals."""
    eval_period: int
    """Environment steps between evaluations; ours rounds to whole rounds of episodes."""

    def __post_init__(self) -> None:
        """Refuses limits that no run could keep.

        Raises:
          UserError: names the option.
        """
        for option, value in (
            ("env_steps", self.env_steps),
            ("limit_s", self.seconds),
            ("eval_period", self.eval_period),
        ):
            if not 0 < value < math.inf:
                raise UserError(f"{option}: {value!r} is not positive and finite")
        if not 0 < self.target <= 1:
            raise UserError(f"target: {self.target!r} is no share of goals; give one in (0, 1]")


class Point(NamedTuple):
    """One evaluation.

    Attributes:
      env_steps: played so far.
      train_s: seconds of training so far.
      requested_goal_success: share of held-out goals reached at the last step.
    """

    env_steps: int
    train_s: float
    requested_goal_success: float


def verdict(point: Point, limits: Limits) -> str | None:
    """Why a contender stops after an evaluation: "target", "time" or "steps"; None to go on."""
    if point.requested_goal_success >= limits.target:
        return "target"
    if point.train_s >= limits.seconds:
        return "time"
    return "steps" if point.env_steps >= limits.env_steps else None


class Contender(Protocol):
    """What is raced; a run is whatever `start` returns."""

    @property
    def settings(self) -> dict[str, Any]:
        """Plain values, for the results file."""
        ...

    def start(self) -> Any:
        """A run before its first step."""
        ...

    def advance(self, run: Any, env_steps: int, seconds: float) -> Any:
        """Trains on for about `env_steps` steps, or for `seconds` where it can stop earlier."""
        ...

    def played(self, run: Any) -> int:
        """Environment steps since the start."""
        ...

    def device(self, run: Any) -> str:
        """Where its networks live."""
        ...

    def actor(self, run: Any) -> Any:
        """The trained policy as a pytree."""
        ...

    def act(self, actor: Any, obs: GoalObs) -> jax.Array:
        """The deterministic action for one observation; pure."""
        ...


@dataclasses.dataclass(frozen=True)
class Ours:
    """This project; a run is the compiled epoch and the `TrainState`."""

    env: GoalEnv
    config: Config

    @property
    def settings(self) -> dict[str, Any]:
        """The whole configuration."""
        return self.config.to_dict()

    @property
    def _agent(self) -> Agent:
        return agents.make(self.config.agent, self.env)

    def start(self) -> tuple[Callable[..., Any], train.TrainState]:
        """Compiles."""
        parts = self.env, self._agent, self.config
        state = jax.jit(functools.partial(train.init, *parts))(jax.random.key(self.config.seed))
        epoch = jax.jit(functools.partial(train.epoch, *parts), donate_argnums=0)
        return epoch.lower(state).compile(), state

    def advance(self, run: Any, env_steps: int, seconds: float) -> Any:
        """One epoch."""
        del env_steps, seconds
        epoch, state = run
        return epoch, epoch(state)[0]

    def played(self, run: Any) -> int:
        """Environment steps since the start."""
        return int(run[1].env_steps)

    def device(self, run: Any) -> str:
        """JAX's."""
        del run
        return jax.devices()[0].platform

    def actor(self, run: Any) -> Any:
        """Learner and statistics."""
        return run[1].learner, run[1].normalizer

    def act(self, actor: Any, obs: GoalObs) -> jax.Array:
        """The greedy action."""
        learner, statistics = actor
        return train.greedy(self._agent, self.config, learner, statistics, obs)


class Actor(NamedTuple):
    """An actor of Stable-Baselines3, with the statistics of its `VecNormalize`, if it has one.

    Attributes:
      layers: weight [inputs, outputs] and bias [outputs] of each; ReLU between them.
      mean: float32 [G+G+O], subtracted from the inputs.
      std: float32 [G+G+O], what they are divided by.
      clip: float32 [], bound of the normalised inputs.
    """

    layers: tuple[tuple[jax.Array, jax.Array], ...]
    mean: jax.Array
    std: jax.Array
    clip: jax.Array


@dataclasses.dataclass(frozen=True)
class Peer:
    """An algorithm of Stable-Baselines3 with HER; a run is its model."""

    env: GoalEnv
    algorithm: str
    settings: dict[str, Any]
    seed: int
    threads: int

    def start(self) -> Any:
        """Makes the model."""
        torch, sb3, contrib = library()
        torch.set_num_threads(self.threads)
        settings = copy.deepcopy(self.settings)  # the library writes into what it is given
        normalize = settings.pop("normalize", False)
        vector = sb3.common.vec_env.DummyVecEnv([self._environment])
        if normalize:
            vector = sb3.common.vec_env.VecNormalize(vector, gamma=settings["gamma"])
        kind = getattr(contrib if self.algorithm == "TQC" else sb3, self.algorithm)
        return kind(env=vector, replay_buffer_class=sb3.HerReplayBuffer, seed=self.seed, **settings)

    def _environment(self) -> Any:
        return gymnasium.wrappers.TimeLimit(original.make(self.env.name), self.env.horizon)

    def advance(self, run: Any, env_steps: int, seconds: float) -> Any:
        """Goes on with `learn`, which a callback ends when the time is up."""
        deadline = time.perf_counter() + seconds
        return run.learn(
            env_steps,
            callback=lambda *_: time.perf_counter() < deadline,
            log_interval=None,
            reset_num_timesteps=False,
        )

    def played(self, run: Any) -> int:
        """Environment steps since the start."""
        return run.num_timesteps

    def device(self, run: Any) -> str:
        """PyTorch's."""
        return str(run.device)

    def actor(self, run: Any) -> Actor:
        """The weights of its actor."""
        return transcribe(run)

    def act(self, actor: Actor, obs: GoalObs) -> jax.Array:
        """What `predict(deterministic=True)` returns; unbatched or batched."""
        x = jnp.concatenate([getattr(obs, key) for key in KEYS], axis=-1)
        x = jnp.clip((x - actor.mean) / actor.std, -actor.clip, actor.clip)
        *hidden, (weight, bias) = actor.layers
        for hidden_weight, hidden_bias in hidden:
            x = jax.nn.relu(x @ hidden_weight + hidden_bias)
        return jnp.tanh(x @ weight + bias)


def transcribe(model: Any) -> Actor:
    """The actor of an SAC or TQC model, which must read `KEYS` and act in [-1, 1]."""
    spaces = model.observation_space.spaces
    assert tuple(spaces) == KEYS, f"observations in another order: {tuple(spaces)}"
    assert np.all(model.action_space.low == -1) and np.all(model.action_space.high == 1)
    linear = [layer for layer in model.actor.latent_pi if hasattr(layer, "weight")]
    size = sum(space.shape[0] for space in spaces.values())
    mean, std, clip = np.zeros(size), np.ones(size), math.inf
    vector = model.get_vec_normalize_env()
    if vector is not None:
        mean = np.concatenate([vector.obs_rms[key].mean for key in KEYS])
        variance = np.concatenate([vector.obs_rms[key].var for key in KEYS])
        std, clip = np.sqrt(variance + vector.epsilon), vector.clip_obs
    return Actor(
        tuple((_array(layer.weight).T, _array(layer.bias)) for layer in [*linear, model.actor.mu]),
        *(jnp.asarray(x, jnp.float32) for x in (mean, std, clip)),
    )


def _array(tensor: Any) -> jax.Array:
    """A copy, which later training does not write to."""
    return jnp.array(tensor.detach().cpu().numpy(), copy=True)


def library() -> tuple[Any, Any, Any]:
    """torch, stable_baselines3 and sb3_contrib.

    Raises:
      UserError: if they cannot be imported.
    """
    try:
        names = ("torch", "stable_baselines3", "sb3_contrib")
        torch, sb3, contrib = map(importlib.import_module, names)
    except ImportError as error:
        raise UserError(
            f"contenders: Stable-Baselines3 is not installed ({error}); "
            "run: pip install -e '.[sb3]', or take --contenders ours"
        ) from None
    return torch, sb3, contrib


def peer_settings(name: str, task: str) -> dict[str, Any]:
    """Published settings of one of `PEERS`; "normalize" asks for `VecNormalize`."""
    if name == "sac-docs":
        return {**DOCS}
    if task != "FetchReach":
        return {**OBJECT}
    critics = {"n_critics": 1} if name == "tqc" else {}
    return REACH | {"normalize": True, "policy_kwargs": {"net_arch": [64, 64], **critics}}


def our_settings(name: str, task: str, seed: int, threads: int, limits: Limits) -> Config:
    """A preset; its epochs last about `limits.eval_period` steps, which changes no update.

    Args:
      name: one of `OURS`.
      task: name of an environment.
      seed: of the run.
      threads: of the physics.
      limits: when it is evaluated.

    Raises:
      UserError: if the preset has no settings for the task.
    """
    config = presets.load(OURS[name], task)
    round_steps = config.train.num_envs * her_envs.make(task).horizon
    cycles = max(1, round(limits.eval_period / round_steps))
    return dataclasses.replace(
        config,
        seed=seed,
        env=dataclasses.replace(config.env, num_threads=threads),
        train=dataclasses.replace(
            config.train, cycles_per_epoch=cycles, env_steps=limits.env_steps
        ),
    )


def main(
    tasks: tuple[str, ...] = ("FetchPush",),
    contenders: tuple[str, ...] = ("ours", "sac", "tqc"),
    env_steps: int = 1_000_000,
    limit_s: float = 3600.0,
    target: float = 0.9,
    eval_period: int = 4_000,
    seed: int = 0,
    threads: int = 0,
    smoke: bool = False,
    out: Path | None = None,
) -> None:
    """Race this project against Stable-Baselines3 to a success rate on held-out goals.

    Args:
      tasks: Environments.
      contenders: Of ours, ours-efficient, sac, tqc and sac-docs.
      env_steps: Environment steps after which a contender stops.
      limit_s: Training seconds after which a contender stops.
      target: Success on 200 held-out goals at which a contender stops.
      eval_period: Environment steps between two evaluations.
      seed: Of every contender.
      threads: CPU cores that all contenders run on; 0 for all cores.
      smoke: A tiny run that only shows that everything works.
      out: Results file; default runs/benchmarks/versus_sb3.json.
    """
    if smoke:
        tasks, env_steps, eval_period, target = tasks[:1], 200, 100, 1.0
    limits = Limits(env_steps, limit_s, target, eval_period)
    tasks = harness.fetch_tasks(tasks)
    contenders = harness.known("contenders", contenders, CONTENDERS)
    if not OURS.keys() >= set(contenders):
        library()
    if not 0 <= seed < 2**31:
        raise UserError(f"seed: {seed} must lie in [0, 2**31)")
    cores = pin(threads)
    load = os.getloadavg()[0]
    rows: list[dict[str, Any]] = []
    envs = [her_envs.make(task, num_threads=cores) for task in tasks]
    racing = [
        (env, name, make(name, env, seed, cores, limits, smoke))
        for env in envs
        for name in contenders
    ]  # all at once, so that none is refused after hours
    path = harness.results_file("versus_sb3", out, smoke)
    for env, name, contender in racing:
        goals = goal_set.standard(env, 4 if smoke else 200)
        about = {"task": env.name, "contender": name, "seed": seed, "threads": cores}
        about["load_before"] = load
        rows.append(about | race(env, contender, limits, goals, f"{env.name} {name}"))
        rows = compared(rows)
        harness.write("versus_sb3", rows, path)  # an interrupted run keeps what it has
    print(table(rows))


def make(
    name: str, env: her_envs.FetchEnv, seed: int, threads: int, limits: Limits, smoke: bool
) -> Contender:
    """A contender by name; tiny for a smoke test."""
    if name in OURS:
        config = our_settings(name, env.name, seed, threads, limits)
        return Ours(env, _tiny(config) if smoke else config)
    settings = peer_settings(name, env.name)
    if smoke:
        settings |= {"batch_size": 8, "buffer_size": 1_000, "policy_kwargs": {"net_arch": [8]}}
    return Peer(env, PEERS[name], settings, seed, threads)


def _tiny(config: Config) -> Config:
    return dataclasses.replace(
        config,
        train=dataclasses.replace(
            config.train, num_envs=2, cycles_per_epoch=1, updates_per_cycle=2
        ),
        replay=dataclasses.replace(config.replay, capacity=4, batch_size=8),
        agent=dataclasses.replace(config.agent, hidden=(8,)),
    )


def race(
    env: GoalEnv,
    contender: Contender,
    limits: Limits,
    goals: goal_set.GoalSet,
    title: str,
) -> dict[str, Any]:
    """Trains one contender until it stops; returns its row.

    Args:
      env: where it is scored.
      contender: trains elsewhere, or in the same environment.
      limits: when it is scored and stops.
      goals: held-out.
      title: of the lines printed.
    """

    @jax.jit
    def score(actor: Any, starts: Any) -> jax.Array:
        played = evaluate.evaluate(env, lambda _, obs: contender.act(actor, obs), starts)
        return played.success

    nothing = jax.jit(functools.partial(evaluate.evaluate, env, evaluate.no_action(env)))
    floor = evaluate.mean(nothing(goals.starts).success)
    run, setup_s = harness.timed(contender.start)
    points = [Point(0, setup_s, 0.0)]
    eval_s = 0.0
    stopped = None
    while stopped is None:
        before = points[-1]
        steps = min(limits.eval_period, limits.env_steps - before.env_steps)
        left = limits.seconds - before.train_s
        run, took = harness.timed(contender.advance, run, steps, left)
        reached, scoring = harness.timed(score, contender.actor(run), goals.starts)
        eval_s += scoring
        points.append(Point(contender.played(run), before.train_s + took, evaluate.mean(reached)))
        stopped = verdict(points[-1], limits)
        print(f"{title}: {_line(points[-1])} (nothing {floor:.3f})", flush=True)
    return summary(points[1:], stopped) | {
        "setup_s": setup_s,
        "eval_s": eval_s,
        "no_action_success": floor,
        "held_out_goals": goals.episodes,
        "goal_set": goals.sha256,
        "limits": dataclasses.asdict(limits),
        "device": contender.device(run),
        "settings": contender.settings,
        "packages": provenance.installed(PACKAGES),
    }


def summary(points: list[Point], stopped: str) -> dict[str, Any]:
    """Figures of a contender from its evaluations, the last of which stopped it."""
    last = points[-1]
    hit = stopped == "target"
    return {
        "stopped": stopped,
        "env_steps": last.env_steps,
        "train_s": last.train_s,
        "env_steps_per_s": last.env_steps / last.train_s,
        "requested_goal_success": last.requested_goal_success,
        "requested_goal_success_best": max(p.requested_goal_success for p in points),
        "env_steps_to_target": last.env_steps if hit else None,
        "seconds_to_target": last.train_s if hit else None,
        "points": [point._asdict() for point in points],
    }


def compared(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows, each with its time to the target against that of `ours` on the same task."""
    ours = {row["task"]: row for row in rows if row["contender"] == "ours"}
    return [
        row
        | {"time_against_ours": against(row, ours[row["task"]]) if row["task"] in ours else None}
        for row in rows
    ]


def against(row: dict[str, Any], ours: dict[str, Any]) -> dict[str, Any] | None:
    """Ratio of the times to the target, with "is": "=" or, if one did not reach it, a bound.

    ">=" says that `row` trained so long in vain; "<=" that ours did. None if neither reached it.
    """
    bounds = {(True, True): "=", (False, True): ">=", (True, False): "<=", (False, False): None}
    is_ = bounds[row["stopped"] == "target", ours["stopped"] == "target"]
    return None if is_ is None else {"is": is_, "ratio": row["train_s"] / ours["train_s"]}


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: a line a contender."""
    return harness.markdown(
        [
            *("task", "contender", "env steps", "training, s", "of it setup, s", "success"),
            *("steps to target", "seconds to target", "env steps/s", "time against ours"),
        ],
        [_cells(row) for row in rows],
    )


def _cells(row: dict[str, Any]) -> list[str]:
    hit = row["stopped"] == "target"
    not_reached = f"not reached in {row['train_s']:,.0f} s"
    ratio = row["time_against_ours"]
    return [
        row["task"],
        row["contender"],
        f"{row['env_steps']:,}",
        f"{row['train_s']:,.0f}",
        f"{row['setup_s']:.1f}",
        f"{row['requested_goal_success']:.3f}",
        f"{row['env_steps_to_target']:,}" if hit else "not reached",
        f"{row['seconds_to_target']:,.0f}" if hit else not_reached,
        f"{row['env_steps_per_s']:,.0f}",
        "" if ratio is None else f"{ratio['is']} {ratio['ratio']:.1f}".removeprefix("= "),
    ]


def _line(point: Point) -> str:
    return (
        f"{point.env_steps:>9,} steps  {point.train_s:>6.0f} s  "
        f"success {point.requested_goal_success:.3f}"
    )


def pin(threads: int) -> int:
    """Keeps this thread, and those that it makes from now on, on some cores; returns how many.

    JAX, PyTorch and MuJoCo size their pools by the cores that they see when they are first used.

    Args:
      threads: cores; 0 for all.

    Raises:
      UserError: if there are not so many, or the system cannot do it.
    """
    if not hasattr(os, "sched_setaffinity"):
        if threads:
            raise UserError("threads: this system cannot confine a process; leave it at 0")
        return os.cpu_count() or 1
    cores = sorted(os.sched_getaffinity(0))
    if not 0 <= threads <= len(cores):
        raise UserError(f"threads: {threads} asked for; give 1 to {len(cores)}, or 0 for all")
    if threads:
        os.sched_setaffinity(0, cores[:threads])
    return threads or len(cores)


if __name__ == "__main__":
    harness.run(main)
