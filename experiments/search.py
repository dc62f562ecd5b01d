"""Searches settings: `python experiments/search.py TASK --trials 12 --out FILE.csv`.

Optuna proposes, a training scores: the objective is success averaged over all evaluations until the
budget is spent, so that what learns earlier wins. The first trial is the task's preset, the next
ones change one of its settings each, and from then on Optuna's tree-structured Parzen estimator
(Bergstra et al. 2011) proposes. Success is measured on a validation set of goals of its own, never
on the held-out goals of published figures. The study is the CSV, a line a trial, written as they
end; given again, it goes on.

It needs the extra `search`: `pip install -e '.[search]'`.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import importlib
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import tyro

import launch
import presets
from her_jax import agents, evaluate, goal_set, provenance, train
from her_jax.config import Config
from her_jax.errors import UserError

SPACE: dict[str, tuple[Any, ...]] = {
    "agent.discount": (0.85, 0.9, 0.93, 0.95, 0.97, 0.98),
    "agent.layer_norm": (False, True),
    "agent.target_rate": (0.01, 0.02, 0.05, 0.1),
    "agent.action_l2": (0.01, 0.1, 0.5),
    "agent.noise_std": (0.1, 0.2, 0.3),
    "agent.random_action_probability": (0.1, 0.2, 0.3),
    "replay.strategy": ("future", "future_actual"),
    "replay.priority_share": (0.0, 0.5, 0.9),
    "replay.k": (4.0, 8.0),
    "replay.n_step": (1, 3),
}
"""Settings that are searched, and their choices; priorities are energy."""

FIRST_TRIALS = 6
"""Trials that are the preset or neighbours of it: the estimator has nothing to go by yet."""

VALIDATION_SEED = 1
"""Seed of the validation goals; the held-out sets of published figures have 0."""


_OUTCOMES = ("score", "final", "env_steps", "seconds", "commit")
"""Columns of a study beside the settings and what it is of."""


class Origin(NamedTuple):
    """What a study is of; trials of others cannot be compared with its own.

    Attributes:
      task: environment.
      seed: of every training and of the proposals.
      budget: environment steps asked of a trial, `--env-steps`.
      episodes: validation goals of an evaluation.
    """

    task: str
    seed: int
    budget: int
    episodes: int


@dataclasses.dataclass(frozen=True)
class Trial:
    """One line of a study.

    Attributes:
      values: setting -> value.
      score: mean success of the evaluations made.
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
    env_steps: int = 160_000,
    seed: int = 0,
    episodes: int = 100,
    threads: int = 0,
    out: Path = Path("study.csv"),
) -> None:
    """Search the settings of a task, from its preset on.

    Args:
      task: One of train.py's tasks with continuous actions.
      trials: Trials to add.
      env_steps: Environment steps of a trial.
      seed: Seed of every training and of the proposals.
      episodes: Validation goals of an evaluation.
      threads: Host threads of the physics; 0 for all cores.
      out: CSV of the study, new or to be continued.
    """
    if trials < 1:
        raise UserError(f"trials: {trials} is not positive; try 12")
    if episodes < 1:
        raise UserError(f"episodes: {episodes} is not positive; try 100")
    base = presets.load("tuned", task)
    if base.agent.NAME != "ddpg":
        raise UserError(f"task: {task!r} has discrete actions, which this space is not made for")
    base = dataclasses.replace(
        base,
        seed=seed,
        env=dataclasses.replace(base.env, num_threads=threads),
        train=dataclasses.replace(base.train, env_steps=env_steps),
    )
    preset = {name: look_up(base, name) for name in SPACE}
    origin = Origin(base.env.task, seed, env_steps, episodes)
    done = read(out, origin)
    with launch.writing("out", out):  # before any trial is made
        out.parent.mkdir(parents=True, exist_ok=True)
        out.open("a").close()
    study, optuna = _study(done, seed, preset)
    for number in range(trials):
        asked = study.ask(distributions(optuna))
        trial = run_trial(configured(base, asked.params), asked.params, episodes)
        study.tell(asked, trial.score)
        append(out, origin, trial)
        launch.console.print(
            f"trial {number + 1} of {trials}: {trial.score:.3f}, last {trial.final:.3f} at "
            f"{trial.env_steps:,} steps; best so far {study.best_value:.3f}"
        )
    launch.report({"best": study.best_params, "score": study.best_value, "study": str(out)})


def run_trial(config: Config, values: dict[str, Any], episodes: int) -> Trial:
    """Trains once."""
    began = time.perf_counter()
    steps, success = zip(*learning_curve(config, episodes), strict=True)
    return Trial(
        values=values,
        score=sum(success) / len(success),
        final=success[-1],
        env_steps=steps[-1],
        seconds=time.perf_counter() - began,
        commit=provenance.commit(),
    )


def learning_curve(config: Config, episodes: int) -> Iterator[tuple[int, float]]:
    """Trains, and yields (environment steps, success on validation goals) after every epoch."""
    env = launch.make_env(config.env)
    agent = agents.make(config.agent, env)
    goals = goal_set.draw(env, episodes, VALIDATION_SEED)

    def score(state: train.TrainState, starts: Any) -> jax.Array:
        policy = functools.partial(train.greedy, agent, config, state.learner, state.normalizer)
        return evaluate.evaluate(env, lambda _, obs: policy(obs), starts).success

    run_epoch = jax.jit(functools.partial(train.epoch, env, agent, config), donate_argnums=0)
    init = jax.jit(functools.partial(train.init, env, agent, config))
    run_score = jax.jit(score)
    state = init(jax.random.key(config.seed))
    steps = 0
    while steps < config.train.env_steps:
        state, *_ = run_epoch(state)
        steps = int(state.env_steps)
        yield steps, evaluate.mean(run_score(state, goals.starts))


def configured(base: Config, values: dict[str, Any]) -> Config:
    """`base` with other values of the searched settings, and episodes replayed by energy."""
    parts: dict[str, dict[str, Any]] = {"replay": {"priority": "energy"}}
    for name, value in values.items():
        part, field = name.split(".")
        parts.setdefault(part, {})[field] = value
    changed = {
        part: dataclasses.replace(getattr(base, part), **fields) for part, fields in parts.items()
    }
    return dataclasses.replace(base, **changed)


def distributions(optuna: Any) -> dict[str, Any]:
    """The space as Optuna takes it."""
    return {
        name: optuna.distributions.CategoricalDistribution(choices)
        for name, choices in SPACE.items()
    }


def read(path: Path, origin: Origin) -> list[Trial]:
    """The trials of a study; none if the file does not exist or is empty.

    Raises:
      UserError: if the file is no study of this space, or one of something else.
    """
    if not path.exists():
        return []
    columns = [*Origin._fields, *SPACE, *_OUTCOMES]
    by_text = {name: {str(value): value for value in values} for name, values in SPACE.items()}
    try:
        with path.open(newline="") as file:
            lines = csv.DictReader(file)
            if lines.fieldnames is not None and list(lines.fieldnames) != columns:
                raise ValueError(f"its columns are not {', '.join(columns)}")
            rows = list(lines)
            trials = [
                Trial(
                    {name: by_text[name][row[name]] for name in SPACE},
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
    for row in rows:
        for name, value in origin._asdict().items():
            if row[name] != str(value):
                option = {"budget": "env_steps"}.get(name, name)
                raise UserError(
                    f"out: {path} is a study with {option} {row[name]}, not {value}; name another"
                )
    return trials


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


def _study(done: list[Trial], seed: int, preset: dict[str, Any]) -> tuple[Any, Any]:
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
            seed=seed + len(done), n_startup_trials=FIRST_TRIALS, multivariate=False
        ),
    )
    for trial in done:
        study.add_trial(
            optuna.trial.create_trial(
                params=trial.values, distributions=distributions(optuna), value=trial.score
            )
        )
    for values in first_proposals(preset, seed)[len(done) :]:
        study.enqueue_trial(values)
    return study, optuna


def first_proposals(preset: dict[str, Any], seed: int) -> list[dict[str, Any]]:
    """The preset, and neighbours of it that change one setting each, never the same one."""
    draw = random.Random(seed)
    proposals = [preset]
    for name in draw.sample(list(SPACE), FIRST_TRIALS - 1):
        others = [value for value in SPACE[name] if value != preset[name]]
        proposals.append(preset | {name: draw.choice(others)})
    return proposals


def look_up(config: Config, name: str) -> Any:
    """The value that a configuration has of a searched setting."""
    part, field = name.split(".")
    value = getattr(getattr(config, part), field)
    return 0.0 if name == "replay.priority_share" and config.replay.priority == "uniform" else value


if __name__ == "__main__":
    launch.command(main)
