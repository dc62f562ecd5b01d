"""Runs that differ in nothing but the seed, trained as one compiled program.

    states: the TrainState of every agent, stacked [S, ...] and donated
    epoch:  "map"   one agent after the other, each slice updated in place: on a CPU every number
                    is that of the agent's single run, bit for bit
            "vmap"  all agents at once: for accelerators, which one agent does not fill. Batched
                    matrix products round differently, so single runs are not repeated exactly

Each run keeps an ordinary folder of its own, with the lines, checkpoints, audits and summary that
it would have alone, so whatever reads a run reads these. Only seconds mean something else there:
`train_s` and `eval_s` of a line are the agent's equal share of the program's, `wall_s` and
`compile_s` are the program's, and `agents_in_program` says how many shared it.

Settings are not batched, only seeds. Agents and strategies branch on settings in Python, and XLA
folds settings into the program as constants; one that is traced instead would break some agents and
round differently in the others. A further setting costs a further compile, some seconds.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from her_jax import checkpoint, evaluate, goal_set, lock, memory, metrics, train
from her_jax.audit import replay
from her_jax.errors import UserError
from her_jax.goal_set import GoalSet
from her_jax.runner import Clock, Run, busy_s

BATCHES = ("auto", "map", "vmap")
"""Ways to run several agents; "auto" is "map" on a CPU and "vmap" elsewhere."""

_COUNTERS = {".env_steps", ".learner.updates", ".buffer.cursor", ".buffer.size"}
"""Parts of a state that are equal in all agents of a group, which train in lockstep."""


def resolve(batch: str) -> str:
    """The way to run several agents, "map" or "vmap".

    Raises:
      UserError: if `batch` is not one of `BATCHES`.
    """
    if batch not in BATCHES:
        raise UserError(f"batch: {batch!r} is unknown; choose one of {', '.join(BATCHES)}")
    if batch != "auto":
        return batch
    return "map" if jax.default_backend() == "cpu" else "vmap"


def finished(run: Run) -> bool:
    """Whether the run has its summary, which is written last, and no budget beyond it."""
    path = run.folder / metrics.SUMMARY
    budget = run.epochs * run.epoch_steps
    return path.is_file() and metrics.read_json(path).get("env_steps", budget) >= budget


def fit(runs: Sequence[Run], batch: str = "auto") -> dict[Path, str]:
    """Trains all runs that are not finished, each from its latest checkpoint if it has one.

    Runs at the same epoch share a program; after an interruption those may be two. A run that must
    stop, because it diverged or broke a rule of the audit, leaves the others to go on without it;
    its folder, like theirs, is kept from other processes until all are done.

    Args:
      runs: equal in all settings but the seed; a folder that exists must hold a checkpoint.
      batch: one of `BATCHES`.

    Returns:
      Folder of each run that stopped, and why.

    Raises:
      UserError: if the runs differ, do not fit into memory, or cannot be started, or another
        process trains one.
    """
    mode = resolve(batch)
    _require_alike(runs)
    waiting = [run for run in runs if not finished(run)]
    if not waiting:
        return {}
    goals = waiting[0].prepare(*_held(waiting, mode))
    for run in waiting:  # before any folder is made or changed
        if checkpoint.latest(run.folder) is None:
            run.require_new()
    stopped: dict[Path, str] = {}
    with contextlib.ExitStack() as locks:
        groups = [*_begun(waiting, mode, goals, locks), *_fresh(waiting, mode, goals, locks)]
        for group in groups:
            stopped |= group.train()
    return stopped


def require(runs: Sequence[Run], batch: str = "auto") -> None:
    """Refuses runs that memory or the held-out goals do not allow, before anything is written.

    Args:
      runs: equal in all settings but the seed, none of them begun.
      batch: one of `BATCHES`.

    Raises:
      UserError: if the runs differ or do not fit into memory, or there are too few held-out goals.
    """
    _require_alike(runs)
    first = runs[0]
    memory.require(first.env, first.config, *_held(runs, resolve(batch)))
    goal_set.standard(first.env, first.config.train.eval_episodes)


def _held(runs: Sequence[Run], mode: str) -> tuple[int, int]:
    """Goal buffers at a time, and agents that play at a time.

    Whatever is done for one agent, by "map" or by its run, is done on a copy of its state. When a
    run leaves the group, the others' states are there twice for a moment, which is not planned.
    """
    return len(runs) + 1, len(runs) if mode == "vmap" else 1


def start(runs: Sequence[Run]) -> train.TrainState:
    """States [S, ...] before the first step, each that of the run's own start."""
    one = functools.partial(train.init, runs[0].env, runs[0].agent, runs[0].config)
    keys = jnp.stack([jax.random.key(run.config.seed) for run in runs])
    return jax.jit(functools.partial(jax.lax.map, one))(keys)


@functools.partial(jax.jit, donate_argnums=0)
def place(stacked: Any, index: Any, one: Any) -> Any:
    """A stacked pytree [S, ...], which is donated, with `one` as its part at `index`."""
    return jax.tree.map(lambda x, new: x.at[index].set(new), stacked, one)


@jax.jit
def pick(stacked: Any, index: Any) -> Any:
    """One agent's part of a stacked pytree [S, ...], or, by an array of them, several agents'."""
    return jax.tree.map(lambda x: x[index], stacked)


def epoch(
    run: Run, mode: str
) -> Callable[[train.TrainState], tuple[train.TrainState, dict[str, jax.Array], train.Drawn]]:
    """`train.epoch` for states [S, ...]; all that it returns is stacked likewise.

    Args:
      run: any of the group.
      mode: "map" or "vmap".
    """
    one = functools.partial(train.epoch, run.env, run.agent, run.config)
    if mode == "vmap":
        return functools.partial(_in_lockstep, one)

    def body(states, index):
        state, values, drawn = one(jax.tree.map(lambda x: x[index], states))
        return jax.tree.map(lambda x, new: x.at[index].set(new), states, state), (values, drawn)

    def each(states):
        # `jax.lax.map` would hold every goal buffer twice: as its argument and as its result.
        states, (values, drawn) = jax.lax.scan(body, states, jnp.arange(states.env_steps.size))
        return states, values, drawn

    return each


def _in_lockstep(one: Callable[[train.TrainState], Any], states: train.TrainState) -> Any:
    """`one` for states [S, ...], vmapped but for counters, which all agents have in common.

    A branch on a batched counter would compute both sides, and a batched place in the ring would
    make of the write of a block one of scattered rows.
    """
    paths, tree = jax.tree_util.tree_flatten_with_path(states)
    counts = [jax.tree_util.keystr(path) in _COUNTERS for path, _ in paths]
    if sum(counts) < len(_COUNTERS):
        raise UserError(
            "agent: its state has no counter `updates`, int32 [], which all agents of a group have "
            "in common; see her_jax.types.Agent"
        )
    axes = [None if is_counter else 0 for is_counter in counts]

    def flat(leaves: list[jax.Array]) -> Any:
        state, *results = one(jax.tree.unflatten(tree, leaves))
        return jax.tree.leaves(state), results

    single = [x[0] if is_counter else x for (_, x), is_counter in zip(paths, counts, strict=True)]
    leaves, results = jax.vmap(flat, in_axes=(axes,), out_axes=(axes, 0))(single)
    each = [
        jnp.broadcast_to(x, states.env_steps.shape) if is_counter else x
        for x, is_counter in zip(leaves, counts, strict=True)
    ]
    return jax.tree.unflatten(tree, each), *results


def evaluation(run: Run, mode: str) -> Callable[[train.TrainState, Any], evaluate.Outcome]:
    """Outcomes [S, E] of states [S, ...] from held-out starts [E, ...]; see `epoch`."""

    def score(states: train.TrainState, starts: Any) -> evaluate.Outcome:
        one = functools.partial(run.evaluate, starts=starts)
        return jax.vmap(one)(states) if mode == "vmap" else jax.lax.map(one, states)

    return score


class _Group:
    """Runs in lockstep.

    Attributes:
      runs: those that have not stopped.
      abouts: the plain values of their checkpoints.
      states: their states, [S, ...].
      done: epochs trained.
      stopped: folders of those that stopped, and why.
    """

    def __init__(
        self,
        runs: list[Run],
        abouts: list[dict[str, Any]],
        states: train.TrainState,
        done: int,
        mode: str,
        goals: GoalSet,
    ) -> None:
        self.runs, self.abouts, self.states, self.done = runs, abouts, states, done
        self.stopped: dict[Path, str] = {}
        self._mode, self._goals = mode, goals
        self._console = runs[0].console
        self._pay = replay.scorer(runs[0].env.reward)
        self._compiled: tuple[Callable[..., Any], Callable[..., Any]] | None = None

    def train(self) -> dict[Path, str]:
        """The epochs that are left, each evaluated, checked and logged, and then the audits."""
        self._clock = Clock(max(about["wall_s"] for about in self.abouts))
        epochs = self.runs[0].epochs
        if self.done < epochs:  # or only the audits are missing
            floor = self.runs[0].announce(self._goals)
            while self.runs and self.done < epochs:
                lines = self._epoch()
                if lines:
                    self._show(lines, epochs, floor)
        self._each(
            lambda i: self.runs[i].finish(
                pick(self.states, i), self.abouts[i], self._goals, self._clock
            )
        )
        return self.stopped

    def _epoch(self) -> list[dict[str, Any]]:
        """Trains, evaluates and logs one epoch; returns the lines."""
        self._compiled = self._compiled or self._compile()
        run_epoch, run_evaluation = self._compiled
        (states, *learned), train_s = self._clock.timed(run_epoch, self.states)
        outcomes, eval_s = self._clock.timed(run_evaluation, states, self._goals.starts)
        self.states, self.done = states, self.done + 1
        share = {"train_s": train_s / len(self.runs), "eval_s": eval_s / len(self.runs)}

        def log(i: int) -> dict[str, Any]:
            run, about = self.runs[i], self.abouts[i]
            state, (values, drawn), outcome = pick((states, learned, outcomes), i)
            audited, audit_s = self._clock.timed(
                run.check, state, values, drawn, self._goals, self._pay
            )
            about["wall_s"] = self._clock.total()
            seconds = share | {"audit_s": audit_s}
            return run.log(self.done, state, values | audited, outcome, seconds, about)

        return self._each(log)

    def _each(self, call: Callable[[int], Any]) -> list[Any]:
        """`call` for every run, by number; those that it refuses leave the group."""
        results, kept = [], []
        for i, run in enumerate(self.runs):
            try:
                results.append(call(i))
                kept.append(i)
            except UserError as error:
                self.stopped[run.folder] = str(error)
                self._console.print(f"{run.folder} has stopped: {error}")
        if len(kept) < len(self.runs):
            self.runs = [self.runs[i] for i in kept]
            self.abouts = [self.abouts[i] for i in kept]
            self.states = pick(self.states, np.array(kept, np.int32))
            self._compiled = None  # the others need a smaller program
        return results

    def _compile(self) -> tuple[Callable[..., Any], Callable[..., Any]]:
        """The compiled epoch, its argument donated, and the compiled evaluation."""
        run, shared = self.runs[0], {"compile_s": 0.0}
        with run.compiling(f"training, {len(self.runs)} agents by {self._mode}", shared):
            run_epoch = jax.jit(epoch(run, self._mode), donate_argnums=0)
            run_epoch = run_epoch.lower(self.states).compile()
        with run.compiling("evaluation", shared):
            run_evaluation = jax.jit(evaluation(run, self._mode))
            run_evaluation = run_evaluation.lower(self.states, self._goals.starts).compile()
        for about in self.abouts:
            about["compile_s"] += shared["compile_s"]
            about["agents_in_program"] = len(self.runs)
        return run_epoch, run_evaluation

    def _show(self, lines: list[dict[str, Any]], epochs: int, floor: float) -> None:
        """One line for an epoch of all runs."""
        success = [line["requested_goal_success"] for line in lines]
        seconds = sum(map(busy_s, lines))
        speed = self.runs[0].epoch_steps * len(lines) / sum(line["train_s"] for line in lines)
        self._console.print(
            f"epoch {self.done}/{epochs}  {lines[0]['env_steps']:>9,} steps x {len(lines)}  "
            f"{speed:>7,.0f} steps/s  success {np.median(success):.3f} "
            f"({min(success):.3f} to {max(success):.3f}, nothing {floor:.3f})  "
            f"{lines[-1]['wall_s']:>6.0f} s  {(epochs - self.done) * seconds:>5.0f} s left"
        )


def _begun(
    runs: Sequence[Run], mode: str, goals: GoalSet, locks: contextlib.ExitStack
) -> list[_Group]:
    """Runs with a checkpoint, those at the same epoch together."""
    by_epoch: dict[int, list[Run]] = {}
    for run in runs:
        locks.enter_context(lock.alone(run.folder))
        epoch = checkpoint.latest(run.folder)
        if epoch is not None:
            by_epoch.setdefault(epoch, []).append(run)
    return [_reopened(members, epoch, mode, goals) for epoch, members in by_epoch.items()]


def _reopened(runs: list[Run], epoch: int, mode: str, goals: GoalSet) -> _Group:
    """Runs with a checkpoint of `epoch`; memory holds their states and one more."""
    states, abouts = start(runs), []
    for i, run in enumerate(runs):
        _, state, about = run.reopen()
        states = place(states, i, state)
        del state  # before the next one is read
        abouts.append(about)
    return _Group(runs, abouts, states, epoch, mode, goals)


def _fresh(
    runs: Sequence[Run], mode: str, goals: GoalSet, locks: contextlib.ExitStack
) -> list[_Group]:
    """Runs without a checkpoint, together."""
    fresh = [run for run in runs if checkpoint.latest(run.folder) is None]
    if not fresh:
        return []
    abouts = [run.create() for run in fresh]
    for run in fresh:
        locks.enter_context(lock.alone(run.folder))
    return [_Group(fresh, abouts, start(fresh), 0, mode, goals)]


def _require_alike(runs: Sequence[Run]) -> None:
    """Refuses runs that one program cannot train.

    Raises:
      UserError: names a setting in which they differ.
    """

    def shared(run: Run) -> dict[str, Any]:
        parts = run.config.to_dict()
        del parts["seed"]
        return parts

    for run in runs[1:]:
        if shared(run) != shared(runs[0]):
            raise UserError(
                f"settings: {run.folder} and {runs[0].folder} differ in more than the seed; "
                "only seeds share a program"
            )
