"""Searches settings: `python experiments/search.py TASK --trials 12 --out FILE.csv`.

Optuna proposes, a training scores: the objective is success averaged over the budget, so that what
learns earlier wins. A budget of environment steps (`--env-steps`) asks for few of them, one of
seconds (`--train-s`) for little time on this machine, where numbers of environments and updates and
the size of batches are searched too. The first trial is the preset, the next ones change one of its
settings each, and from then on Optuna's tree-structured Parzen estimator (Bergstra et al. 2011)
proposes. Success is measured on a validation set of goals of its own, never on the held-out goals
of published figures; settings that memory cannot hold score 0. The study is the CSV, a line a
trial, written as they end; given again, it goes on. For seconds on a GPU:

    python experiments/search.py fetch-push --preset accelerator --physics warp --train-s 60

It needs the extra `search`: `pip install -e '.[search]'`.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import importlib
import math
import os
import random
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import tyro

import her_envs
import launch
import presets
from her_jax import agents, evaluate, goal_set, lock, memory, provenance, train
from her_jax.config import Config
from her_jax.errors import UserError
from her_jax.runner import Run, plugin_hash
from her_jax.types import GoalEnv

SPACE: dict[str, tuple[Any, ...]] = {
    "agent.discount": (0.85, 0.9, 0.93, 0.95, 0.97, 0.98),
    "agent.layer_norm": (False, True),
    "agent.target_rate": (0.01, 0.02, 0.05, 0.1),
    "agent.action_l2": (0.01, 0.1, 0.5, 1.0),
    "agent.noise_std": (0.1, 0.2, 0.3),
    "agent.random_action_probability": (0.1, 0.2, 0.3),
    "replay.strategy": ("future", "future_actual"),
    "replay.priority_share": (0.0, 0.5, 0.9),
    "replay.k": (4.0, 8.0),
    "replay.n_step": (1, 3),
}
"""Settings that are searched, and their choices; priorities are energy, of Fetch tasks alone."""

PACE: dict[str, tuple[Any, ...]] = {
    "train.num_envs": (4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096),
    "train.updates_per_cycle": (20, 40, 100, 200, 400, 1000, 2000),
    "replay.batch_size": (128, 256, 512, 1024, 2048, 4096),
}
"""What is searched besides if seconds count."""

ENV_STEPS = 160_000
"""Budget of a trial, unless another is asked for."""

FIRST_TRIALS = 6
"""Trials that are the preset or neighbours of it: the estimator has nothing to go by yet."""

VALIDATION_SEED = 1
"""Seed of the validation goals; the held-out sets of published figures have 0."""


_OUTCOMES = ("score", "final", "env_steps", "seconds", "commit")
"""Columns of a study beside the settings and what it is of."""

_COMMIT = re.compile(rf"[0-9a-f]{{40}}(\+changes)?|{provenance.UNKNOWN}")
"""A whole commit, the last figure of a line."""


class Origin(NamedTuple):
    """What a study is of; trials of others cannot be compared with its own.

    Attributes:
      task: environment; with the hash of its file if a plugin registers it.
      preset: the first trial.
      physics: of training and of validation.
      model: of the same.
      seed: of every training and of the proposals.
      budget: environment steps asked of a trial, `--env-steps`; 0 if `budget_s` counts.
      budget_s: seconds of training of a trial, `--train-s`; 0 if `budget` counts.
      episodes: validation goals of an evaluation.
    """

    task: str
    preset: str
    physics: str
    model: str
    seed: int
    budget: int
    budget_s: float
    episodes: int

    @property
    def space(self) -> dict[str, tuple[Any, ...]]:
        """Settings that are searched, and their choices."""
        space = SPACE | PACE if self.budget_s else SPACE
        by_energy = self.task in her_envs.TASKS
        return {name: space[name] for name in space if by_energy or name != "replay.priority_share"}


class Point(NamedTuple):
    """One evaluation.

    Attributes:
      env_steps: played so far.
      train_s: seconds of training so far, without compiling and evaluating.
      success: on the validation goals.
    """

    env_steps: int
    train_s: float
    success: float


@dataclasses.dataclass(frozen=True)
class Trial:
    """One line of a study.

    Attributes:
      values: setting -> value.
      score: success averaged over the budget; see `mean_success`.
      final: success of the last one.
      env_steps: steps trained.
      seconds: of training and evaluation, compiling included.
      commit: of the code.
    """

    values: dict[str, Any]
    score: float
    final: float
    env_steps: int
    seconds: float
    commit: str


def main(
    task: tyro.conf.Positional[str],
    trials: int = 12,
    preset: str = "tuned",
    physics: str = "native",
    model: str = "stock",
    env_steps: int | None = None,
    train_s: float = 0.0,
    seed: int = 0,
    episodes: int = 100,
    plugin: str = "",
    threads: int = 0,
    out: Path = Path("study.csv"),
) -> None:
    """Search the settings of a task, from a preset on.

    Args:
      task: One of train.py's tasks with continuous actions, or what `--plugin` registers.
      trials: Trials to add.
      preset: Where to begin: the name of one of train.py's that trains the task with DDPG.
      physics: Physics of training and validation; see train.py.
      model: Model of training and validation; see train.py.
      env_steps: Environment steps of a trial; default 160,000.
      train_s: Seconds of training of a trial instead, compiling and validation apart.
      seed: Seed of every training and of the proposals.
      episodes: Validation goals of an evaluation.
      plugin: Python file that registers the task.
      threads: Host threads of the physics; 0 for all cores.
      out: CSV of the study, new or to be continued.
    """
    if trials < 1:
        raise UserError(f"trials: {trials} is not positive; try 12")
    if episodes < 1:
        raise UserError(f"episodes: {episodes} is not positive; try 100")
    if not 0 <= train_s < math.inf:
        raise UserError(f"train_s: {train_s} is no number of seconds; try 60, or 0 for env_steps")
    if train_s and env_steps is not None:
        raise UserError("env_steps, train_s: both given; a trial ends after one of them")
    if threads < 0:
        raise UserError(f"threads: {threads} is negative; try 0, for all cores")
    steps = ENV_STEPS if env_steps is None else env_steps
    if plugin:
        launch.load_plugin(plugin)
    base = presets.load(preset, task)
    if base.agent.NAME != "ddpg":
        raise UserError(
            f"preset: {preset!r} of {task} trains {base.agent.NAME}; this space is DDPG's"
        )
    base = dataclasses.replace(
        base,
        seed=seed,
        env=dataclasses.replace(base.env, physics=physics, model=model, num_threads=threads),
        train=dataclasses.replace(base.train, env_steps=steps),
    )
    budget = 0 if train_s else steps
    studied = base.env.task + (f" of plugin {plugin_hash(Path(plugin))[:8]}" if plugin else "")
    origin = Origin(studied, preset, physics, model, seed, budget, float(train_s), episodes)
    start = {name: look_up(base, name) for name in origin.space}
    for name, choices in origin.space.items():
        if start[name] not in choices:
            raise UserError(f"preset: {preset!r} has {name} = {start[name]}, which is not searched")
    if plugin and base.env.task not in launch.registered():
        added = ", ".join(launch.registered()) or "nothing"
        raise UserError(f"plugin: {plugin} registers {added}, not {task}; leave it out")
    env = launch.make_env(base.env)
    if plugin:
        Run(env, base, out, launch.console).prepare()
    else:
        memory.require(env, base)
    with launch.writing("out", out):  # before any trial is made
        out.parent.mkdir(parents=True, exist_ok=True)
        out.open("a").close()
    launch.keep_programs()
    with lock.alone(out, "out"):
        done = read(out, origin)
        study, optuna = _study(done, origin, start)
        for number in range(trials):
            asked = study.ask(distributions(optuna, origin.space))
            is_preset = not (done or number)
            config = configured(base, asked.params)
            trial = run_trial(env, config, asked.params, origin, is_preset)
            study.tell(asked, trial.score)
            with launch.writing("out", out):
                append(out, origin, trial)
            launch.console.print(
                f"trial {number + 1} of {trials}: {trial.score:.3f}, last {trial.final:.3f} at "
                f"{trial.env_steps:,} steps; best so far {study.best_value:.3f}"
            )
            jax.clear_caches()  # of the trial's programs
    launch.report({"best": study.best_params, "score": study.best_value, "study": str(out)})


def run_trial(
    env: GoalEnv, config: Config, values: dict[str, Any], origin: Origin, is_preset: bool = False
) -> Trial:
    """Trains once; settings that memory cannot hold score 0.

    Raises:
      UserError: if the preset ends no epoch within the seconds.
    """
    began = time.perf_counter()
    points: list[Point] = []
    try:
        memory.require(env, config)
    except UserError as error:
        launch.console.print(f"not trained: {error}", markup=False)
    else:
        found = _points(env, config, origin)
        if is_preset and found == []:
            seconds = f"{origin.budget_s:g} s"
            raise UserError(
                f"train_s: the preset ended no epoch within {seconds}; give more seconds"
            )
        points = found or []
    last = points[-1] if points else Point(0, 0.0, 0.0)
    return Trial(
        values=values,
        score=mean_success(points, origin.budget_s),
        final=last.success,
        env_steps=last.env_steps,
        seconds=time.perf_counter() - began,
        commit=provenance.commit(),
    )


def _points(env: GoalEnv, config: Config, origin: Origin) -> list[Point] | None:
    """The learning curve; None if the device runs out of memory, even late."""
    try:
        with memory.exhaustible():
            return list(learning_curve(env, config, origin.episodes, origin.budget_s))
    except memory.OutOfMemoryError as error:
        launch.console.print(f"not trained to the end: {error}", markup=False)
        return None


def mean_success(points: Sequence[Point], budget_s: float) -> float:
    """Success averaged over the budget.

    Over steps, of which all evaluations are equally far apart, it is their mean. Over seconds the
    success of an evaluation counts until the next, and before the first it is 0.
    """
    if not budget_s:
        return sum(point.success for point in points) / max(len(points), 1)
    ends = [*(point.train_s for point in points[1:]), budget_s]
    held = zip(points, ends, strict=False)  # no evaluation, no end
    return sum(point.success * (end - point.train_s) for point, end in held) / budget_s


def learning_curve(
    env: GoalEnv, config: Config, episodes: int, budget_s: float = 0.0
) -> Iterator[Point]:
    """Trains, and scores on validation goals after every epoch that ends within the budget.

    Args:
      env: to train in.
      config: of the training; its environment steps are the budget unless seconds are given.
      episodes: validation goals.
      budget_s: seconds of training.
    """
    agent = agents.make(config.agent, env)
    goals = goal_set.draw(env, episodes, VALIDATION_SEED)

    def score(state: train.TrainState, starts: Any) -> jax.Array:
        policy = functools.partial(train.greedy, agent, config, state.learner, state.normalizer)
        return evaluate.evaluate(env, lambda _, obs: policy(obs), starts).success

    init = jax.jit(functools.partial(train.init, env, agent, config))
    state = init(jax.random.key(config.seed))
    epoch = functools.partial(train.epoch, env, agent, config)
    run_epoch = jax.jit(epoch, donate_argnums=0).lower(state).compile()
    run_score = jax.jit(score)
    jax.block_until_ready(run_score(state, goals.starts))  # compiles Warp's kernels too
    steps, spent = 0, 0.0
    while budget_s or steps < config.train.env_steps:
        began = time.perf_counter()
        state, *_ = jax.block_until_ready(run_epoch(state))
        steps, spent = int(state.env_steps), spent + time.perf_counter() - began
        if budget_s and spent > budget_s:
            return
        yield Point(steps, spent, evaluate.mean(run_score(state, goals.starts)))


def configured(base: Config, values: dict[str, Any]) -> Config:
    """`base` with other values of the searched settings; with a share, episodes by energy.

    With another pace an epoch of several cycles plays no more steps than before, and replays no
    more transitions: what ends after the budget is not scored.
    """
    by_energy = "replay.priority_share" in values
    parts: dict[str, dict[str, Any]] = {"replay": {"priority": "energy"} if by_energy else {}}
    for name, value in values.items():
        part, field = name.split(".")
        parts.setdefault(part, {})[field] = value
    if "train" in parts:
        before = base.train
        envs = values["train.num_envs"]
        replayed = values["train.updates_per_cycle"] * values["replay.batch_size"]
        replayed_before = before.updates_per_cycle * base.replay.batch_size
        shorter = min(before.num_envs / envs, replayed_before / replayed)
        parts["train"]["cycles_per_epoch"] = max(1, int(before.cycles_per_epoch * min(1, shorter)))
        base = presets.with_envs(base, envs)
    changed = {
        part: dataclasses.replace(getattr(base, part), **fields) for part, fields in parts.items()
    }
    return dataclasses.replace(base, **changed)


def distributions(optuna: Any, space: dict[str, tuple[Any, ...]]) -> dict[str, Any]:
    """The space as Optuna takes it."""
    return {
        name: optuna.distributions.CategoricalDistribution(choices)
        for name, choices in space.items()
    }


def read(path: Path, origin: Origin) -> list[Trial]:
    """The trials of a study; none if the file does not exist or is empty.

    A last line that was cut short, as a crash leaves it, is taken off the file.

    Raises:
      UserError: if the file is no study of this space, or one of something else.
    """
    if not path.exists():
        return []
    space = origin.space
    columns = [*Origin._fields, *space, *_OUTCOMES]
    by_text = {name: {str(value): value for value in values} for name, values in space.items()}
    try:
        with path.open(newline="") as file:
            lines = csv.DictReader(file)
            if lines.fieldnames is not None and list(lines.fieldnames) != columns:
                raise ValueError(f"its columns are not {', '.join(columns)}")
            rows = list(lines)
        _require_origin(rows, origin, path)
        if _was_cut_short(path) and rows:
            rows.pop()
        return [
            Trial(
                {name: by_text[name][row[name]] for name in space},
                float(row["score"]),
                float(row["final"]),
                int(row["env_steps"]),
                float(row["seconds"]),
                row["commit"],
            )
            for row in rows
        ]
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise UserError(f"out: {path} is no study of this space ({error}); name another") from None


def _require_origin(rows: list[dict[str, str]], origin: Origin, path: Path) -> None:
    """Refuses trials of another study; of one that was cut short, by what is there of it."""
    for row in rows:
        later = list(row.values())[1:]
        for (name, value), after in zip(origin._asdict().items(), later, strict=False):
            if after is not None and row[name] != str(value):
                option = {"budget": "env_steps", "budget_s": "train_s"}.get(name, name)
                raise UserError(
                    f"out: {path} is a study with {option} {row[name]}, not {value}; name another"
                )


def _was_cut_short(path: Path) -> bool:
    """Whether the last line was cut short and is off the file now; one whose end lacks gets it."""
    before, newline, last = path.read_text().rpartition("\n")
    if not last:
        return False
    if _COMMIT.fullmatch(last.rpartition(",")[2]):
        with path.open("a") as file:
            file.write("\n")
        return False
    os.truncate(path, len((before + newline).encode()))
    launch.status.print(f"{path}: a trial that was cut short is left out", markup=False)
    return True


def append(path: Path, origin: Origin, trial: Trial) -> None:
    """Adds a line, and a header to a new file."""
    row = (
        origin._asdict()
        | trial.values
        | {
            "score": f"{trial.score:.4f}",
            "final": f"{trial.final:.3f}",
            "env_steps": trial.env_steps,
            "seconds": f"{trial.seconds:.0f}",
            "commit": trial.commit,
        }
    )
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(row), lineterminator="\n")
        if not file.tell():
            writer.writeheader()
        writer.writerow(row)


def _study(done: list[Trial], origin: Origin, start: dict[str, Any]) -> tuple[Any, Any]:
    """An Optuna study that knows the trials already made, and the module.

    Raises:
      UserError: if Optuna is not installed.
    """
    try:
        optuna: Any = importlib.import_module("optuna")
    except ImportError:
        raise UserError("optuna: not installed; pip install -e '.[search]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.TPESampler(
            seed=origin.seed + len(done), n_startup_trials=FIRST_TRIALS, multivariate=False
        ),
    )
    for trial in done:
        study.add_trial(
            optuna.trial.create_trial(
                params=trial.values,
                distributions=distributions(optuna, origin.space),
                value=trial.score,
            )
        )
    for values in first_proposals(start, origin)[len(done) :]:
        study.enqueue_trial(values)
    return study, optuna


def first_proposals(start: dict[str, Any], origin: Origin) -> list[dict[str, Any]]:
    """The preset, and neighbours of it that change one setting each, never the same one."""
    draw = random.Random(origin.seed)
    proposals = [start]
    for name in draw.sample(list(origin.space), FIRST_TRIALS - 1):
        others = [value for value in origin.space[name] if value != start[name]]
        proposals.append(start | {name: draw.choice(others)})
    return proposals


def look_up(config: Config, name: str) -> Any:
    """The value that a configuration has of a searched setting."""
    part, field = name.split(".")
    value = getattr(getattr(config, part), field)
    return 0.0 if name == "replay.priority_share" and config.replay.priority == "uniform" else value


if __name__ == "__main__":
    launch.command(main)
