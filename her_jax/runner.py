"""The impure loop around `train.epoch`: compile, evaluate, log, save, resume.

A run lives in one folder: `config.json`, `metrics.jsonl` (a line an epoch), `summary.json`, and
`checkpoints/`. Interrupting it costs at most the epochs since the last checkpoint.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import psutil
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from her_jax import checkpoint, evaluate, metrics, provenance, train
from her_jax.agents.ddpg import DDPG
from her_jax.config import Config
from her_jax.errors import UserError
from her_jax.types import GoalEnv, GoalObs, Key

_CGROUP = Path("/sys/fs/cgroup")

MAX_MEMORY_SHARE = 0.8
"""Largest share of free memory that the buffer may take."""


class Run:
    """A configuration bound to an environment and a folder; nothing is written until `start`.

    Attributes:
      env, config, folder, console: as given.
      agent: the learner.
      epoch_steps: environment steps of an epoch.
      epochs: how many the run has.
    """

    def __init__(
        self, env: GoalEnv, config: Config, folder: Path, console: Console | None = None
    ) -> None:
        """Binds the parts.

        Args:
          env: the environment that `config.env` names.
          config: all settings.
          folder: where the run lives or will live.
          console: where progress is printed; standard output by default.

        Raises:
          UserError: if the goal buffer would not fit into free memory.
        """
        self.env, self.config, self.folder = env, config, folder
        self.console = console or Console(highlight=False)
        self.agent = DDPG(config.agent, env.action_size)
        self.epoch_steps = config.train.cycles_per_epoch * config.train.num_envs * env.horizon
        self.epochs = math.ceil(config.train.env_steps / self.epoch_steps)
        _require_memory(env, config)

    def start(self) -> tuple[train.TrainState, dict[str, Any]]:
        """Trains from scratch in a new folder; returns the final state and the summary.

        Raises:
          UserError: if the folder already exists.
        """
        if self.folder.exists():
            is_run = (self.folder / metrics.CONFIG).is_file()
            resume = f", or go on with --resume {self.folder}" if is_run else ""
            raise UserError(f"out: {self.folder} already exists; name a new folder{resume}")
        try:
            self.folder.mkdir(parents=True)
        except OSError as error:
            raise UserError(f"out: {self.folder} cannot be made ({error}); name another") from None
        metrics.write_json(self.folder / metrics.CONFIG, self.config.to_dict())
        about = {"task": self.config.env.task, "wall_s": 0.0, "compile_s": 0.0, "commits": []}
        clock = _Clock(0.0)
        with self._compiling("the initial state", about):
            state = jax.jit(self._init)(jax.random.key(self.config.seed))
        return self._loop(0, state, about, clock)

    def resume(self) -> tuple[train.TrainState, dict[str, Any]]:
        """Goes on from the latest checkpoint and ends as an uninterrupted run does.

        Raises:
          UserError: if there is no checkpoint, it does not fit, or nothing is left to train.
        """
        epoch, state, about = self.restore()
        finished = (self.folder / metrics.SUMMARY).exists() and epoch == self.epochs
        if epoch > self.epochs or finished:
            raise UserError(
                f"env_steps: {self.folder} has been trained for {int(state.env_steps)} steps; "
                "ask for more than that with --env-steps"
            )
        self.console.print(f"resuming {self.folder} after epoch {epoch} of {self.epochs}")
        metrics.write_json(self.folder / metrics.CONFIG, self.config.to_dict())  # a new budget
        (self.folder / metrics.SUMMARY).unlink(missing_ok=True)  # it is of the shorter run
        metrics.rewind(self.folder, epoch)
        return self._loop(epoch, state, about, _Clock(about["wall_s"]))

    def restore(self) -> tuple[int, train.TrainState, dict[str, Any]]:
        """Epoch, state and plain values of the latest checkpoint.

        Raises:
          UserError: if there is no checkpoint, or it does not fit.
        """
        like = jax.eval_shape(self._init, jax.random.key(0))
        return checkpoint.restore(self.folder, like, self.config.env.task)

    def evaluate(self, state: train.TrainState, keys: Key) -> evaluate.Evaluation:
        """Outcome of the greedy policy on held-out keys [E]."""
        return evaluate.evaluate(self.env, lambda _, obs: self.act(state, obs), keys)

    def act(self, state: train.TrainState, obs: GoalObs) -> jax.Array:
        """The greedy action for an observation of any leading shape."""
        return train.greedy(self.agent, self.config, state.learner, state.normalizer, obs)

    def floor(self, keys: Key) -> dict[str, Any]:
        """What doing nothing scores on held-out keys [E], and the hash of that set."""
        nothing = evaluate.no_action(self.env)
        outcome = jax.jit(functools.partial(evaluate.evaluate, self.env, nothing))(keys)
        first = jax.jit(functools.partial(evaluate.starts, self.env))(keys)
        return {
            "no_action_success": _mean(outcome.success),
            "eval_episodes": len(keys),
            "eval_set": evaluate.fingerprint(first),
        }

    def _init(self, key: Key) -> train.TrainState:
        return train.init(self.env, self.agent, self.config, key)

    def _epoch(self, state: train.TrainState) -> tuple[train.TrainState, dict[str, jax.Array]]:
        return train.epoch(self.env, self.agent, self.config, state)

    def _loop(
        self, done: int, state: train.TrainState, about: dict[str, Any], clock: _Clock
    ) -> tuple[train.TrainState, dict[str, Any]]:
        """Epochs after `done` until the last, each evaluated, logged and perhaps saved."""
        about["commits"] = list(dict.fromkeys([*about["commits"], provenance.commit()]))
        keys = evaluate.held_out(self.config.train.eval_episodes)
        run_epoch, run_evaluation = self._compile(state, keys, about)
        self.console.print("compiling and playing the no-action floor ...")
        floor = self.floor(keys)
        self._print_floor(floor)
        with self._progress(done, floor["no_action_success"]) as show:
            for epoch in range(done + 1, self.epochs + 1):
                (state, values), train_s = clock.timed(run_epoch, state)
                outcome, eval_s = clock.timed(run_evaluation, state, keys)
                about["wall_s"] = clock.total()
                record = self._record(epoch, state, values, outcome, train_s, eval_s)
                _require_finite(record, self.folder)
                record["wall_s"] = about["wall_s"]
                metrics.append(self.folder, record)
                show(record)
                if epoch % self.config.train.checkpoint_period == 0 or epoch == self.epochs:
                    checkpoint.save(self.folder, epoch, state, about)
        about["wall_s"] = clock.total()
        summary = self._summary(metrics.read(self.folder), about, floor)
        metrics.write_json(self.folder / metrics.SUMMARY, summary)
        return state, summary

    def _compile(
        self, state: train.TrainState, keys: Key, about: dict[str, Any]
    ) -> tuple[Callable[..., Any], Callable[..., Any]]:
        """The compiled epoch, its argument donated, and the compiled evaluation."""
        with self._compiling("training", about):
            run_epoch = jax.jit(self._epoch, donate_argnums=0).lower(state).compile()
        with self._compiling("evaluation", about):
            run_evaluation = jax.jit(self.evaluate).lower(state, keys).compile()
        return run_epoch, run_evaluation

    def _record(
        self,
        epoch: int,
        state: train.TrainState,
        values: dict[str, jax.Array],
        outcome: evaluate.Evaluation,
        train_s: float,
        eval_s: float,
    ) -> dict[str, Any]:
        """One line of `metrics.jsonl`.

        `sim_steps_per_s` is the speed of the evaluation: simulation and policy without learning.
        """
        settings = self.config.train
        return {
            "epoch": epoch,
            "env_steps": int(state.env_steps),
            "updates": epoch * settings.cycles_per_epoch * settings.updates_per_cycle,
            "requested_goal_success": _mean(outcome.success),
            "requested_goal_success_any_step": _mean(outcome.success_any),
            "final_distance": _mean(outcome.distance),
            **{name: float(value) for name, value in values.items()},
            "train_s": train_s,
            "eval_s": eval_s,
            "train_steps_per_s": self.epoch_steps / train_s,
            "sim_steps_per_s": settings.eval_episodes * self.env.horizon / eval_s,
        }

    def _summary(
        self,
        records: list[dict[str, Any]],
        about: dict[str, Any],
        floor: dict[str, Any],
    ) -> dict[str, Any]:
        last = records[-1]
        spec = self.env.goal_spec
        return {
            "task": self.config.env.task,
            "seed": self.config.seed,
            "physics": self.config.env.physics,
            "env_steps": last["env_steps"],
            "updates": last["updates"],
            "wall_s": about["wall_s"],
            "compile_s": about["compile_s"],
            "sim_steps_per_s": float(np.median([r["sim_steps_per_s"] for r in records])),
            "train_steps_per_s": float(np.median([r["train_steps_per_s"] for r in records])),
            "requested_goal_success": last["requested_goal_success"],
            "requested_goal_success_best": max(r["requested_goal_success"] for r in records),
            "requested_goal_success_any_step": last["requested_goal_success_any_step"],
            **floor,
            "distance_threshold": spec.tolerance,
            "reward": self.config.env.reward,
            "hindsight_ratio": last["hindsight_ratio"],
            "versions": provenance.versions(),
            "device": provenance.device(),
            "commit": ", ".join(about["commits"]),
        }

    @contextmanager
    def _compiling(self, what: str, about: dict[str, Any]) -> Iterator[None]:
        """Says that a compile starts and how long it took."""
        self.console.print(f"compiling {what} ...")
        start = time.perf_counter()
        yield
        seconds = time.perf_counter() - start
        about["compile_s"] += seconds
        self.console.print(f"... {seconds:.1f} s")

    def _print_floor(self, floor: dict[str, Any]) -> None:
        spec = self.env.goal_spec
        self.console.print(
            f"success: {spec.name} within {spec.tolerance} {spec.units} at the last step, on "
            f"{floor['eval_episodes']} held-out requested goals (set {floor['eval_set']}); "
            f"doing nothing scores {floor['no_action_success']:.3f}"
        )

    @contextmanager
    def _progress(self, epoch: int, floor: float) -> Iterator[Any]:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total} epochs"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self.console, transient=True) as progress:
            bar = progress.add_task(self.env.name, total=self.epochs, completed=epoch)

            def show(record: dict[str, Any]) -> None:
                left = (self.epochs - record["epoch"]) * (record["train_s"] + record["eval_s"])
                progress.console.print(
                    f"{record['env_steps']:>9,} steps  "
                    f"{record['train_steps_per_s']:>7,.0f} steps/s  "
                    f"success {record['requested_goal_success']:.3f} (nothing {floor:.3f})  "
                    f"{record['wall_s']:>6.0f} s  {left:>5.0f} s left"
                )
                progress.update(bar, completed=record["epoch"])

            yield show


class _Clock:
    """Wall-clock seconds, of single calls and since the run began."""

    def __init__(self, before: float) -> None:
        """Starts; `before` are the seconds of earlier sittings."""
        self._began = time.perf_counter() - before

    def total(self) -> float:
        return time.perf_counter() - self._began

    def timed(self, function: Callable[..., Any], *args: Any) -> tuple[Any, float]:
        """The result of a call, ready, and its duration."""
        start = time.perf_counter()
        result = jax.block_until_ready(function(*args))
        return result, time.perf_counter() - start


def _require_memory(env: GoalEnv, config: Config) -> None:
    """Refuses a goal buffer that free memory cannot hold, before anything is compiled."""
    example = jax.eval_shape(lambda: train.example_episode(env))
    episode = sum(leaf.size * jnp.dtype(leaf.dtype).itemsize for leaf in jax.tree.leaves(example))
    capacity, num_envs = config.replay.capacity, config.train.num_envs
    needed, free = episode * capacity, _free_bytes()
    if needed > MAX_MEMORY_SHARE * free:
        fits = int(MAX_MEMORY_SHARE * free / episode) // num_envs * num_envs
        raise UserError(
            f"capacity: {capacity} episodes need {needed / 1e9:.1f} GB for the goal buffer and "
            f"{free / 1e9:.1f} GB are free; at most {fits} episodes fit"
        )


def _free_bytes() -> int:
    """Free memory of the first device; the host's where the device does not say."""
    stats = jax.devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    free = psutil.virtual_memory().available
    try:  # a container's own limit, where it has one
        limit = int(_CGROUP.joinpath("memory.max").read_text())
        used = int(_CGROUP.joinpath("memory.current").read_text())
        details = dict(line.split() for line in _CGROUP.joinpath("memory.stat").open())
        return min(free, limit - used + int(details["inactive_file"]))  # reclaimable page cache
    except (OSError, ValueError, KeyError):
        return free


def _mean(values: jax.Array) -> float:
    """In float64, so that shares of a count print as such."""
    return float(np.mean(np.asarray(values), dtype=np.float64))


def _require_finite(record: dict[str, Any], folder: Path) -> None:
    """Stops a run that has diverged; the checkpoint before it stays."""
    bad = [name for name, value in record.items() if not math.isfinite(value)]
    if bad:
        raise UserError(
            f"training: {', '.join(bad)} not finite after {record['env_steps']} steps in {folder}; "
            "lower the learning rates or target_rate"
        )
