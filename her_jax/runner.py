"""The impure loop around `train.epoch`: compile, evaluate, log, save, resume.

A run lives in one folder: `config.json`, `metrics.jsonl` (a line an epoch), `checkpoints/`, and, at
the end, `policy.npz`, `summary.json` and the audit. Interrupting it costs at most the epochs since
the last checkpoint.
"""

from __future__ import annotations

import functools
import hashlib
import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from her_jax import (
    agents,
    checkpoint,
    evaluate,
    goal_set,
    lock,
    memory,
    metrics,
    policy,
    prioritization,
    provenance,
    relabel,
    rollout,
    train,
)
from her_jax.audit import record, relabelling, replay, reward
from her_jax.config import Config
from her_jax.errors import UserError, reason
from her_jax.goal_set import GoalSet
from her_jax.types import GoalEnv, GoalObs, Key

PLUGIN = "plugin.py"
"""Copy of the file that registered the run's own strategies, agents or environment."""


class Run:
    """A configuration bound to an environment and a folder, where making it writes nothing.

    Attributes:
      env, judge, config, folder, console: as given.
      agent: the learner.
      epoch_steps, eval_steps: environment steps of an epoch and of its evaluation.
      epochs: how many the run has.
    """

    def __init__(
        self,
        env: GoalEnv,
        config: Config,
        folder: Path | str,
        console: Console | None = None,
        judge: GoalEnv | None = None,
    ) -> None:
        """Binds the parts.

        Args:
          env: the environment that `config.env` names; task, model, reward, tolerance and
            repeated actions are believed. Only training asks for its physics: for all else the
            judge may stand in.
          config: all settings.
          folder: where the run lives or will live.
          console: where progress is printed; standard output by default.
          judge: the environment that success is measured on, which differs from `env` in its
            physics at most; `env` itself by default, if it has the physics that is scored on.

        Raises:
          UserError: if a judge is missing, the environment lacks something or is of another task
            than the settings, agent or priority do not fit it, or the steps of whole epochs cannot
            be counted.
        """
        if jax.config.jax_enable_x64:  # pyright: ignore[reportAttributeAccessIssue]
            raise UserError("JAX_ENABLE_X64: environments, buffer and agents are float32; unset it")
        _require_environment(env, config.env.task)
        self.env, self.config, self.folder = env, config, Path(folder)
        trained, scored = (config.env.physics, config.env.model), (config.env.scored_on, "stock")
        if judge is None and trained != scored:
            raise UserError(
                f"judge: none given, and success is measured on {' and '.join(scored)}, not on "
                f"{' and '.join(trained)}; give an environment that has them"
            )
        self.judge = judge or env
        if self.judge.simulator not in (None, scored[0]):
            raise UserError(
                f"judge: {env.name} is simulated by {self.judge.simulator!r}, and success is "
                f"measured on {scored[0]!r}; give an environment that has it"
            )
        self.console = console or Console(highlight=False, soft_wrap=True)
        self.agent = agents.make(config.agent, env)
        prioritization.require(config.replay.priority, env)
        episodes = config.train.cycles_per_epoch * config.train.num_envs
        episode_steps = env.horizon * env.steps_per_action
        self.epoch_steps = episodes * episode_steps
        self.eval_steps = config.train.eval_episodes * episode_steps
        self.epochs = math.ceil(config.train.env_steps / self.epoch_steps)
        steps = self.epochs * self.epoch_steps
        if steps >= 2**31:
            raise UserError(
                f"env_steps: {steps}, in whole epochs, must be below 2**31; ask for fewer"
            )

    def start(self) -> tuple[train.TrainState, dict[str, Any]]:
        """Trains from scratch in a new folder; returns the final state and the summary.

        Raises:
          UserError: if the folder already exists, something that training needs is amiss, see
            `prepare`, or training must stop, see `check`.
        """
        self.require_new()
        goals = self.prepare()
        about = self.create()
        clock = Clock(0.0)
        with lock.alone(self.folder):
            with self.compiling("the initial state", about):
                state = jax.jit(self._init)(jax.random.key(self.config.seed))
            return self._loop(0, state, about, goals, clock)

    def resume(self) -> tuple[train.TrainState, dict[str, Any]]:
        """Goes on from the latest checkpoint and ends as an uninterrupted run does.

        Raises:
          UserError: if there is no checkpoint to go on from, see `reopen`, another process trains
            it, or training cannot begin or must stop, see `prepare` and `check`.
        """
        goals = self.prepare()
        with lock.alone(self.folder):
            epoch, state, about = self.reopen()
            return self._loop(epoch, state, about, goals, Clock(about["wall_s"]))

    def prepare(self, buffers: int = 1, playing: int = 1) -> GoalSet:
        """Tests what a training needs, and reads the held-out goals, before a write or a compile.

        Args:
          buffers: goal buffers at a time.
          playing: agents that play at a time.

        Raises:
          UserError: if the environment is of other physics than the settings say, as many goal
            buffers or simulations would not fit into free memory, the reward fails its test, the
            environment plays no episode, an agent or a strategy of the user's own does not keep its
            promises, or there are too few held-out goals.
        """
        _require_physics(self.env, self.config.env.physics)
        memory.require(self.env, self.config, buffers, playing)
        reward.require(self.env)
        _require_episodes(self.env)
        agents.require(self.agent, self.config.agent, self.env)
        relabel.require(self.config.replay.strategy, self.env.horizon)
        self.console.print(memory.plan(self.env, self.config, buffers, playing))
        return goal_set.standard(self.env, self.config.train.eval_episodes)

    def create(self) -> dict[str, Any]:
        """Makes the folder; returns the plain values that every checkpoint carries.

        Raises:
          UserError: if the folder already exists or cannot be made, or there is no plugin.
        """
        self.require_new()
        plugin = self.config.replay.plugin
        if plugin and not Path(plugin).is_file():
            raise UserError(f"plugin: {plugin} is no file; name one that registers something")
        try:
            self.folder.mkdir(parents=True)
        except OSError as error:
            raise UserError(f"out: {self.folder} cannot be made ({error}); name another") from None
        metrics.write_json(self.folder / metrics.CONFIG, self.config.to_dict())
        if plugin:
            shutil.copyfile(plugin, self.folder / PLUGIN)
        return {
            "plugin_sha256": plugin_hash(self.folder / PLUGIN),
            "task": self.config.env.task,
            "environment": self.env.name,
            "evaluation": self._evaluation(),
            "goal": evaluate.goal_settings(self.env.goal_spec),
            "settings": self.config.lasting(),
            "wall_s": 0.0,
            "compile_s": 0.0,
            "commits": [provenance.commit()],
            "commands": [provenance.command()],
        }

    def _evaluation(self) -> dict[str, Any]:
        """What must stay as it is for the lines of a run to be comparable."""
        env, plan = self.config.env, self.config.train
        return {"scored_on": env.scored_on, "eval_episodes": plan.eval_episodes}

    def require_new(self) -> None:
        """Refuses to train from scratch in a folder that already exists.

        Raises:
          UserError: if it does.
        """
        if self.folder.exists():
            is_run = (self.folder / checkpoint.FOLDER).is_dir()
            resume = f", or go on with --resume {self.folder}" if is_run else ""
            raise UserError(f"out: {self.folder} already exists; name a new folder{resume}")

    def reopen(self) -> tuple[int, train.TrainState, dict[str, Any]]:
        """Epoch, state and plain values of the latest checkpoint; later lines are dropped.

        Raises:
          UserError: if there is no checkpoint, it does not fit, success would be measured otherwise
            than before, or nothing is left to train.
        """
        epoch, state, about = self.restore()
        evaluation = self._evaluation()
        for name, before in about.get("evaluation", evaluation).items():
            if evaluation[name] != before:
                raise UserError(
                    f"{name}: success of {self.folder} was measured with {before!r}, not "
                    f"{evaluation[name]!r}; go on with that"
                )
        about |= {"evaluation": evaluation, "environment": self.env.name}
        finished = (self.folder / metrics.SUMMARY).exists()
        if epoch > self.epochs or (finished and epoch == self.epochs):
            raise UserError(
                f"env_steps: {self.folder} has been trained for {int(state.env_steps)} steps; "
                f"ask for {'more than' if finished else 'at least'} that with --env-steps, in "
                "Python by train.env_steps"
            )
        self.console.print(f"resuming {self.folder} after epoch {epoch} of {self.epochs}")
        metrics.rewind(self.folder, epoch)  # first, because it refuses damaged lines
        metrics.write_json(self.folder / metrics.CONFIG, self.config.to_dict())  # a new budget
        of_the_policy = (policy.FILE, metrics.VIDEO, metrics.EXPORTED)
        for name in (metrics.SUMMARY, record.JSON, record.MARKDOWN, record.LOG, *of_the_policy):
            (self.folder / name).unlink(missing_ok=True)  # of the shorter run
        about["commits"] = list(dict.fromkeys([*about["commits"], provenance.commit()]))
        about["commands"] = [*about.get("commands", []), provenance.command()]
        return epoch, state, about

    def restore(self) -> tuple[int, train.TrainState, dict[str, Any]]:
        """Epoch, state and plain values of the latest checkpoint.

        Raises:
          UserError: if there is no checkpoint, it does not fit, also into free memory, or it was
            trained with other settings than the configuration's, or for another goal than the
            environment's.
        """
        if not self.has_checkpoint() and (self.folder / policy.FILE).is_file():
            raise UserError(
                f"checkpoint: {self.folder} holds none, only {policy.FILE}, with which evaluate, "
                "render and export make do; for more train again, in a new folder"
            )
        memory.require(self.env, self.config)
        like = jax.eval_shape(self._init, jax.random.key(0))
        return checkpoint.restore(self.folder, like, self._require_own)

    def has_checkpoint(self) -> bool:
        """Whether there is one, whole."""
        return checkpoint.latest(self.folder) is not None

    def restore_policy(self) -> tuple[int, policy.Acting]:
        """Epoch and policy of a finished run's policy.npz or, before, of the latest checkpoint.

        Raises:
          UserError: if there is neither, or what is there does not suit; see `restore`.
        """
        path = self.folder / policy.FILE
        if path.is_file():
            like = policy.acting(self.agent, jax.eval_shape(self._init, jax.random.key(0)))
            return policy.load(path, like, self._require_own)
        epoch, state, _ = self.restore()
        return epoch, policy.acting(self.agent, state)

    def _require_own(self, about: dict[str, Any]) -> None:
        """Refuses the plain values of a checkpoint that is not this run's."""
        trained, task = about["task"], self.config.env.task
        if trained != task:
            raise UserError(
                f"checkpoint: {self.folder} is of task {trained!r}, not {task!r}; "
                f"use a run of {task!r}"
            )
        if about.get("environment", self.env.name) != self.env.name:
            raise UserError(
                f"checkpoint: {self.folder} was trained in {about['environment']}, not in "
                f"{self.env.name}; give that environment"
            )
        evaluate.require_same_goal(about["goal"], self.env.goal_spec)
        _require_same_settings(about.get("settings", {}), self.config.lasting(), self.folder)
        if about.get("plugin_sha256", "") != plugin_hash(self.folder / PLUGIN):
            raise UserError(
                f"plugin: {self.folder / PLUGIN} is not the file that the checkpoint was trained "
                "with; restore it"
            )

    def evaluate(self, state: train.TrainState | policy.Acting, starts: Any) -> evaluate.Outcome:
        """Outcome of the greedy policy from held-out starts [E, ...]."""
        return evaluate.evaluate(self.judge, lambda _, obs: self.act(state, obs), starts)

    def audit(
        self, state: train.TrainState, about: dict[str, Any], goals: GoalSet
    ) -> record.AuditRecord:
        """Measures everything in one pass, and writes the audit record and the episode log.

        Raises:
          UserError: if a held-out goal was requested in training.
        """
        built, steps = self.measure(state, about, goals)
        record.write(self.folder, built, steps)
        return built

    def measure(
        self, state: train.TrainState, about: dict[str, Any], goals: GoalSet
    ) -> tuple[record.AuditRecord, pa.Table]:
        """The audit record and its episode log, not yet written.

        Raises:
          UserError: if a held-out goal was requested in training.
        """
        self.require_disjoint(goals, state)
        measured = record.compute(self.judge, self.agent, self.config, state, goals)
        built = record.build(self.judge, self.config, state, about, goals, measured)
        return built, record.episode_log(built, self.judge, self.config, state, measured)

    def act(self, state: train.TrainState | policy.Acting, obs: GoalObs) -> jax.Array:
        """The greedy action [..., A], one-hot if discrete, for observations [..., O].

        Raises:
          UserError: if they are of another environment's size.
        """
        sizes = {"observation": self.env.observation_size, "desired_goal": self.env.goal_spec.size}
        for name, size in sizes.items():
            shape = getattr(obs, name).shape
            if shape[-1:] != (size,):
                raise UserError(f"{name}: shape {shape}; those of {self.env.name} end with {size}")
        return train.greedy(self.agent, self.config, state.learner, state.normalizer, obs)

    def require_disjoint(
        self, goals: GoalSet, state: train.TrainState, newest: int | None = None
    ) -> None:
        """Refuses held-out goals that the buffer's episodes, or the newest of them, asked for.

        Where there are too few goals to hold any out, as with a short bit string, nothing is
        refused.

        Raises:
          UserError: says how many.
        """
        if not self.env.goal_spec.can_be_held_out:
            return
        size, capacity = int(state.buffer.size), self.config.replay.capacity
        age = np.arange(size if newest is None else min(newest, size))
        rows = (int(state.buffer.cursor) - 1 - age) % capacity
        goal_set.require_disjoint(goals, np.asarray(state.buffer.episodes.desired_goal)[rows])

    def floor(self, goals: GoalSet) -> float:
        """What doing nothing scores on a held-out set."""
        nothing = evaluate.no_action(self.judge)
        play = jax.jit(functools.partial(evaluate.evaluate, self.judge, nothing))
        return evaluate.mean(play(goals.starts).success)

    def _init(self, key: Key) -> train.TrainState:
        return train.init(self.env, self.agent, self.config, key)

    def _epoch(
        self, state: train.TrainState
    ) -> tuple[train.TrainState, dict[str, jax.Array], train.Drawn]:
        return train.epoch(self.env, self.agent, self.config, state)

    def _loop(
        self,
        done: int,
        state: train.TrainState,
        about: dict[str, Any],
        goals: GoalSet,
        clock: Clock,
    ) -> tuple[train.TrainState, dict[str, Any]]:
        """Epochs after `done` until the last, each evaluated, logged and perhaps saved."""
        if done == self.epochs:  # only the audit is missing
            return state, self.finish(state, about, goals, clock)
        pay = replay.scorer(self.env.reward)
        run_epoch, run_evaluation = self._compile(state, goals, about)
        floor = self.announce(goals)
        with self._progress(done, floor) as show:
            for epoch in range(done + 1, self.epochs + 1):
                (state, values, drawn), train_s = clock.timed(run_epoch, state)
                audited, audit_s = clock.timed(self.check, state, values, drawn, goals, pay)
                outcome, eval_s = clock.timed(run_evaluation, state, goals.starts)
                about["wall_s"] = clock.total()
                seconds = {"train_s": train_s, "audit_s": audit_s, "eval_s": eval_s}
                show(self.log(epoch, state, values | audited, outcome, seconds, about))
        return state, self.finish(state, about, goals, clock)

    def announce(self, goals: GoalSet) -> float:
        """Says what is trained and what success means; plays and returns the no-action floor."""
        plan = self.config.train
        updates = self.epochs * plan.cycles_per_epoch * plan.updates_per_cycle
        steps = self.epochs * self.epoch_steps
        self.console.print(
            f"training: {steps:,} environment steps in {self.epochs} epochs, "
            f"{updates / steps:.3g} updates a step"
        )
        self.console.print("compiling and playing the no-action floor ...")
        floor = self.floor(goals)
        spec = self.env.goal_spec
        self.console.print(
            f"success: {spec.name} within {spec.tolerance} {spec.units} {spec.when}, "
            f"on {goals.episodes} {spec.origin} requested goals (set {goals.sha256[:16]}); "
            f"doing nothing scores {floor:.3f}"
        )
        return floor

    def check(
        self,
        state: train.TrainState,
        values: dict[str, Any],
        drawn: train.Drawn,
        goals: GoalSet,
        pay: relabelling.Scorer,
    ) -> dict[str, float]:
        """The auditor's look at an epoch.

        Goals out of bounds are counted; they say that a simulation broke, not a sampler.

        Args:
          state: after the epoch.
          values: the epoch's metrics.
          drawn: rows that the learner has learned from.
          goals: the held-out set.
          pay: `replay.scorer` of the environment's reward.

        Raises:
          UserError: if training diverged, relabelling broke a rule, or an episode of the epoch
            that is still stored asked for a held-out goal.
        """
        _require_finite({"env_steps": state.env_steps, **values}, self.folder)
        train_config = self.config.train
        newest = train_config.cycles_per_epoch * train_config.num_envs
        self.require_disjoint(goals, state, newest)
        if self.config.replay.audited_rows == 0:
            return {"audited_rows": 0, "audited_rows_out_of_bounds": 0}
        report = replay.check_drawn(self.env, self.config, pay, state.buffer, drawn)
        outside = int(report.violations.pop("workspace").sum())
        if report.broken:
            strategy = self.config.replay.strategy
            known = relabel.AUDITED_AS[strategy]
            audited = "" if known == strategy else f", audited as {known!r}"
            raise UserError(
                f"audit: strategy {strategy!r}{audited}: {report.reasons()[0]}; training "
                f"has stopped in {self.folder}"
            )
        return {
            "audited_rows": len(report.violations["stored"]),
            "audited_rows_out_of_bounds": outside,
        }

    def log(
        self,
        epoch: int,
        state: train.TrainState,
        values: dict[str, Any],
        outcome: evaluate.Outcome,
        seconds: dict[str, float],
        about: dict[str, Any],
    ) -> dict[str, Any]:
        """Writes and returns the line of an epoch, and saves a checkpoint where one is due.

        Args:
          epoch: which one, from 1.
          state: after the epoch.
          values: the epoch's metrics, the audit's included.
          outcome: of the evaluation.
          seconds: what training, audit and evaluation took.
          about: plain values of a checkpoint, `wall_s` up to date.

        Raises:
          UserError: if a figure is not finite.
        """
        line = self._line(epoch, state, values, outcome, seconds)
        _require_finite(line, self.folder)
        line["wall_s"] = about["wall_s"]
        metrics.append(self.folder, line)
        if epoch % self.config.train.checkpoint_period == 0 or epoch == self.epochs:
            checkpoint.save(self.folder, epoch, state, about)
        return line

    def finish(
        self, state: train.TrainState, about: dict[str, Any], goals: GoalSet, clock: Clock
    ) -> dict[str, Any]:
        """Saves the policy, audits the final state, and writes and returns the summary.

        Raises:
          UserError: if a held-out goal was requested in training.
        """
        acting = policy.acting(self.agent, state)
        policy.save(self.folder / policy.FILE, self.epochs, acting, about)
        self.console.print("auditing ...")
        audit = self.audit(state, about, goals)
        about["wall_s"] = clock.total()
        summary = self._summary(metrics.read(self.folder), about, audit)
        metrics.write_json(self.folder / metrics.SUMMARY, summary)
        return summary

    def _compile(
        self, state: train.TrainState, goals: GoalSet, about: dict[str, Any]
    ) -> tuple[Callable[..., Any], Callable[..., Any]]:
        """The compiled epoch, its argument donated, and the compiled evaluation."""
        about["agents_in_program"] = 1
        with self.compiling("training", about):
            run_epoch = jax.jit(self._epoch, donate_argnums=0).lower(state).compile()
        with self.compiling("evaluation", about):
            run_evaluation = jax.jit(self.evaluate).lower(state, goals.starts).compile()
        return run_epoch, run_evaluation

    def _line(
        self,
        epoch: int,
        state: train.TrainState,
        values: dict[str, Any],
        outcome: evaluate.Outcome,
        seconds: dict[str, float],
    ) -> dict[str, Any]:
        """One line of `metrics.jsonl`.

        `sim_steps_per_s` is the speed of the evaluation: simulation, on the physics that scores,
        and policy without learning.

        Raises:
          UserError: if a cost is called like another figure.
        """
        settings = self.config.train
        costs = evaluate.costs(self.env, outcome)
        others = {
            "epoch": epoch,
            "env_steps": int(state.env_steps),
            "updates": epoch * settings.cycles_per_epoch * settings.updates_per_cycle,
            "requested_goal_success": evaluate.mean(outcome.success),
            "requested_goal_success_any_step": evaluate.mean(outcome.success_any),
            "evaluation_broken_episodes": evaluate.mean(outcome.broken),
            "evaluation_dropped_contact_steps": evaluate.mean(outcome.dropped) / self.env.horizon,
            "final_distance": evaluate.mean(outcome.distance),
            **{name: float(value) for name, value in values.items()},
            **seconds,
            "train_steps_per_s": self.epoch_steps / seconds["train_s"],
            "sim_steps_per_s": self.eval_steps / seconds["eval_s"],
        }
        if taken := costs.keys() & {*others, "wall_s"}:
            raise UserError(
                f"cost_specs: {', '.join(sorted(taken))} is another figure's name; rename it"
            )
        return others | {name: channel["episode_sum"] for name, channel in costs.items()}

    def _summary(
        self, lines: list[dict[str, Any]], about: dict[str, Any], audit: record.AuditRecord
    ) -> dict[str, Any]:
        """Headline, costs and failure labels are the audit record's; times are the run's."""
        last = lines[-1]
        return {
            "task": self.config.env.task,
            "seed": self.config.seed,
            **record.physics(self.judge, self.config),
            "env_steps": last["env_steps"],
            "updates": last["updates"],
            "wall_s": about["wall_s"],
            "compile_s": about["compile_s"],
            "agents_in_program": about.get("agents_in_program", 1),
            "sim_steps_per_s": float(np.median([line["sim_steps_per_s"] for line in lines])),
            "train_steps_per_s": float(np.median([line["train_steps_per_s"] for line in lines])),
            "requested_goal_success_best": max(line["requested_goal_success"] for line in lines),
            **record.for_summary(audit),
            "reward": self.config.env.reward,
            "audited_rows": int(sum(line["audited_rows"] for line in lines)),
            "audit_share_of_time": sum(line["audit_s"] for line in lines) / sum(map(busy_s, lines)),
            "versions": provenance.versions(),
            "device": provenance.device(),
            "commit": ", ".join(about["commits"]),
            "commands": about.get("commands", []),
        }

    @contextmanager
    def compiling(self, what: str, about: dict[str, Any]) -> Iterator[None]:
        """Says that a compile starts and how long it took."""
        self.console.print(f"compiling {what} ...")
        start = time.perf_counter()
        yield
        seconds = time.perf_counter() - start
        about["compile_s"] += seconds
        self.console.print(f"... {seconds:.1f} s")

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
                left = (self.epochs - record["epoch"]) * busy_s(record)
                progress.console.print(
                    f"{record['env_steps']:>9,} steps  "
                    f"{record['train_steps_per_s']:>7,.0f} steps/s  "
                    f"success {record['requested_goal_success']:.3f} (nothing {floor:.3f})  "
                    f"{record['wall_s']:>6.0f} s  {left:>5.0f} s left"
                )
                progress.update(bar, completed=record["epoch"])

            yield show


class Clock:
    """Wall-clock seconds, of single calls and since the run began."""

    def __init__(self, before: float) -> None:
        """Starts; `before` are the seconds of earlier sittings."""
        self._began = time.perf_counter() - before

    def total(self) -> float:
        """Seconds since the run began, earlier sittings included."""
        return time.perf_counter() - self._began

    def timed(self, function: Callable[..., Any], *args: Any) -> tuple[Any, float]:
        """The result of a call, ready, and its duration."""
        start = time.perf_counter()
        result = jax.block_until_ready(function(*args))
        return result, time.perf_counter() - start


def busy_s(line: Mapping[str, Any]) -> float:
    """Seconds of an epoch, by its line of `metrics.jsonl`: training, evaluation and audit."""
    return line["train_s"] + line["eval_s"] + line["audit_s"]


def _require_environment(env: GoalEnv, task: str) -> None:
    """Refuses an environment that lacks something, is of another task or misnames its costs."""
    if isinstance(env, type):
        raise UserError(f"env: {env.__name__} is a class; give an environment, {env.__name__}()")
    needed = [name for name in vars(GoalEnv) if name[0] != "_" and name != "reset"]
    lacking = [name for name in needed if not _has(env, name)]
    if lacking:
        raise UserError(
            f"env: {type(env).__name__} has no {', '.join(lacking)}; see her_jax.types.GoalEnv"
        )
    for name in ("horizon", "observation_size", "action_size"):
        value = getattr(env, name)
        if not isinstance(value, int | np.integer) or value < 1:
            raise UserError(
                f"env: {name} of {env.name} is {value!r}, no whole number above 0; mend it"
            )
    if task not in (env.name, env.name.rstrip("0123456789")):  # bit strings have their length
        raise UserError(
            f"task: the settings say {task!r} and the environment is {env.name}; give its name, "
            "without a size at the end, to EnvConfig(task=...) or her_envs.register"
        )
    names = [spec.name for spec in env.cost_specs]
    if len(set(names)) < len(names) or any("success" in name.lower() for name in names):
        raise UserError(
            f"cost_specs: {', '.join(names)}: each needs a name of its own, and only figures on "
            "requested goals are called success; rename them"
        )


def _require_physics(env: GoalEnv, physics: str) -> None:
    """Refuses to train in an environment of other physics."""
    if env.simulator not in (None, physics):
        raise UserError(
            f"physics: {env.name} is simulated by {env.simulator!r}, not, as the settings say, by "
            f"{physics!r}; give the environment that they name"
        )


def _require_episodes(env: GoalEnv) -> None:
    """Refuses an environment whose episodes are not what is stored; simulations are known ones."""
    if env.simulator is not None:
        return
    idle = evaluate.no_action(env)
    try:
        played, _ = jax.eval_shape(
            lambda key: rollout.play(env, idle, env.draw(key), key), jax.random.key(0)
        )
    except Exception as error:  # whatever a user's environment may raise
        raise UserError(f"env: {env.name} plays no episode: {reason(error)}; mend it") from error
    for name, given, stored in zip(played._fields, played, train.example_episode(env), strict=True):
        if (given.shape, given.dtype) != (stored.shape, stored.dtype):
            raise UserError(
                f"env: {env.name} plays episodes with {name} {given.dtype} {given.shape}, and "
                f"{stored.dtype} {stored.shape} is stored; mend it"
            )


def _has(env: GoalEnv, name: str) -> bool:
    """Whether an attribute is there, without computing what a property stands for."""
    return hasattr(type(env), name) or hasattr(env, name)


def plugin_hash(path: Path) -> str:
    """SHA-256 of a plugin, `PLUGIN` in a run's folder; empty without one."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def _require_same_settings(trained: dict[str, Any], now: dict[str, Any], folder: Path) -> None:
    """Refuses a configuration that is not the one that the checkpoint was trained with."""
    for name, value in trained.items():
        if now.get(name, value) != value:
            raise UserError(
                f"{name}: the checkpoint was trained with {value!r} and "
                f"{folder / metrics.CONFIG} says {now.get(name)!r}; restore that file"
            )


def _require_finite(line: Mapping[str, Any], folder: Path) -> None:
    """Stops a run that has diverged; the checkpoint before it stays."""
    bad = [name for name, value in line.items() if not math.isfinite(value)]
    if bad:
        broken = max(line[name] for name in line if name.endswith("broken_episodes"))
        raise UserError(
            f"training: {', '.join(bad)} not finite after {line['env_steps']} steps in {folder}, "
            f"where {broken:.0%} of the last episodes broke; lower the learning rates or "
            "target_rate, unless the environment itself gives what is no number"
        )
