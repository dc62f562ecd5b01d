"""Everything that only an accelerator can show, for a machine of which one has ten minutes.

    python benchmarks/accelerator.py [--budget-s 540] [--smoke] [--out FILE]

Every result is written to one JSON file as soon as it is there, so that a time-out loses nothing.
In this order, each part only while there is time left:

    memory
    a first step, in which Warp compiles its kernels into the folder that WARP_CACHE_PATH names
    throughput of as many worlds as the preset has
    the task (FetchPush unless --task names another) from scratch to 0.9 and 0.95, and the success
    of its policy on native physics and on warp, on 1,000 goals
    how long the training's program takes to compile, and to be read by a later process
    throughput of MuJoCo's C engine, and up to 8,192 worlds
    the short fidelity report
    throughput of more worlds, of Warp alone and of the pruned model; FetchPickAndPlace's
    the same training on native physics, with its policy's success on both
    where the time of a cycle goes on both
    eight seeds as one program beside eight single ones
    throughput of few worlds beside Gymnasium-Robotics and, if it is installed, EnvPool
    throughput and training of the other tasks, throughput with other graph modes

In the end stands what a step costs however many worlds there are, and what each world adds.

No part begins with less than a minute of the budget left, none that compiles kernels of its own or
several programs with less than two and a half, and no training with less than three and a half. A
training takes two and a half minutes beside compiling, or ends, unfinished, a minute before the
budget does.

A part that fails, because it does not fit or otherwise, leaves its error in the file and the next
one runs; one that does not end within 500 s ends the program with a traceback; one after which the
device no longer answers ends it with a line. The same command again, at the same commit and with
the same file, measures what is missing, last of all what has failed, was unfinished, or was under
way when the program ended, and keeps what there was of it until it has a result; a file of another
commit or kind of device is kept under another name.

A copy of the code without its repository is told the commit by the environment variable
HER_JAX_COMMIT, or begins anew every time. XLA reserves three quarters of a GPU's memory and Warp
needs some beside it: on less than 40 GB set XLA_CLIENT_MEM_FRACTION=0.5.
"""

from __future__ import annotations

import contextlib
import dataclasses
import faulthandler
import functools
import importlib.util
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import psutil

import end_to_end
import env_throughput
import fidelity
import harness
import her_envs
import launch
import presets
import sweeping
from her_jax import agents, policy, provenance, train
from her_jax.config import Config
from her_jax.errors import UserError
from her_jax.types import Agent, GoalEnv

WORLDS = (512, 1024, 4096, 8192, 16384, 32768)
"""Numbers of environments whose throughput is measured; the first is the preset's."""

MANY = 8192
"""More worlds than these are measured after the fidelity report."""

OTHERS = ("FetchPickAndPlace", "FetchReach", "FetchSlide", "FetchPush")
"""Tasks beside the one that most parts measure, in the order of their parts."""

PEERS = 64
"""Worlds beside Gymnasium-Robotics, which takes a process for each."""

AGENTS = 8
"""Seeds that train as one program."""

OTHER_GRAPHS = ("warp-xla-graph", "warp-staged", "warp-staged-ex", "warp-nograph")
"""Contestants with other graph modes than the default."""

PART_S = 60.0
"""No part begins with less of the budget left."""

KERNELS_S = 150.0
"""Nor one with less than this that may have to compile kernels of its own, or several programs."""

TRAINING_S = 150.0
"""Seconds of a training, compiling not included."""

HANGS_S = 500.0
"""A part that takes longer has hung."""


@dataclasses.dataclass
class Report:
    """What has been measured so far, in a file.

    Attributes:
      path: the file; what the same commit has measured before on this kind of device stays.
      budget_s: seconds from now on in which parts should end.
      rows: one of each part that has ended, in this or an earlier run of the program.
      so_far: what there is of parts that have not, because the program ended or they failed.
    """

    path: Path
    budget_s: float
    rows: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    so_far: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    _began: float = dataclasses.field(default_factory=time.perf_counter)
    _postponed: dict[str, Callable[[], None]] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        for row in harness.continued("accelerator", self.path):
            if "so_far" in row:
                self.so_far[row["part"]] = row.pop("so_far")
            if row.keys() & {"result", "error"}:
                self.rows.append(row)
        self._last = set(self.so_far)

    def part(self, name: str, measure: Callable[[], Any], needs_s: float = PART_S) -> None:
        """Measures and writes, unless it has been measured before or the budget is spent.

        What has failed before, or did not end, waits for `postponed`.

        Args:
          name: of the part.
          measure: returns plain values.
          needs_s: seconds of the budget without which it does not begin.
        """
        if any(row["part"] == name and "result" in row for row in self.rows):
            return
        if name in self._last:
            self._postponed[name] = lambda: self.part(name, measure, needs_s)
            return
        began = time.perf_counter()
        elapsed = began - self._began
        if self.left_s() < needs_s:
            if not any(row["part"] == name for row in self.rows):  # or it has failed before
                self._add(name, 0.0, {"skipped": f"{elapsed:.0f} s had passed"})
            return
        print(f"{elapsed:6.0f} s  {name} ...", flush=True)
        before = self.so_far.get(name, {})
        earlier = before.pop("earlier", [])
        left = [before] if before.keys() - {"device"} else []
        self.so_far[name] = {"earlier": [*earlier, *left]}
        self.keep(name, {})
        if jax.default_backend() != "cpu":  # which takes its time
            faulthandler.dump_traceback_later(HANGS_S, exit=True)
        try:
            result = {"result": measure(), "memory": memory_used()}
            del self.so_far[name]
        except Exception as error:  # whatever a driver may raise; the next part may work
            traceback.print_exc()
            result = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
        self._add(name, time.perf_counter() - began, result)
        try:
            with contextlib.suppress(Exception):  # a failed part may leave nothing to forget
                forget_graphs()
            if "error" in result:
                require_device(name)
        finally:
            faulthandler.cancel_dump_traceback_later()

    def derive(self, name: str, result: Any) -> None:
        """Writes what follows from the rows, in place of what followed from earlier ones."""
        self._add(name, 0.0, {"result": result})

    def left_s(self) -> float:
        """Seconds of the budget."""
        return self.budget_s - (time.perf_counter() - self._began)

    def keep(self, name: str, so_far: dict[str, Any]) -> None:
        """Writes what there is of a part that is under way, beside what earlier attempts left."""
        earlier = self.so_far[name].get("earlier")
        about = {"device": provenance.device()} | ({"earlier": earlier} if earlier else {})
        self.so_far[name] = so_far | about
        self._write(quiet=True)

    def postponed(self) -> None:
        """Measures what has failed before, or did not end."""
        self._last = set()
        for measure in self._postponed.values():
            measure()

    def _add(self, name: str, seconds: float, result: dict[str, Any]) -> None:
        self.rows = [row for row in self.rows if row["part"] != name]
        about = {"part": name, "seconds": seconds, "device": provenance.device()}
        self.rows.append(about | result)
        self._write()

    def _write(self, quiet: bool = False) -> None:
        """All rows, with what there is of parts without a result."""
        ended = {row["part"] for row in self.rows}
        under_way = [{"part": name} for name in self.so_far if name not in ended]
        rows = [
            row | {"so_far": self.so_far[row["part"]]} if row["part"] in self.so_far else row
            for row in [*self.rows, *under_way]
        ]
        harness.write("accelerator", rows, self.path, quiet)


def main(
    budget_s: float = 540.0,
    worlds: tuple[int, ...] = WORLDS,
    task: str = "FetchPush",
    smoke: bool = False,
    out: Path | None = None,
) -> None:
    """Measure what an accelerator shows.

    Args:
      budget_s: Seconds from the program's start on in which parts should end; without effect on a
        CPU.
      worlds: Numbers of environments.
      task: Task of the parts that measure one, training included.
      smoke: A tiny run that only shows that everything works.
      out: Results file; default runs/benchmarks/accelerator.json.
    """
    if not smoke and jax.default_backend() != "gpu":
        raise UserError("device: JAX sees no NVIDIA GPU; install it for one, or give --smoke")
    (task,) = harness.fetch_tasks((task,))
    harness.require_positive(worlds=min(worlds, default=0))
    if smoke:
        worlds = (2,)
        if jax.default_backend() == "cpu":  # which takes its time
            budget_s = math.inf
    path = harness.results_file("accelerator", out, smoke, continues=True)
    spent_s = time.time() - psutil.Process().create_time()  # by a clock that may have been set
    report = Report(path, budget_s - min(max(spent_s, 0.0), 2 * PART_S))
    few = [count for count in worlds if count <= MANY] or [worlds[0]]

    def throughput(name: str, count: int, *contestants: str, needs_s: float = PART_S) -> None:
        steps = 2 if smoke else 50
        slow = count > MANY or "warp-nograph" in contestants  # which waits for the host
        report.part(
            f"throughput of {name}, {count} worlds, {', '.join(contestants)}",
            lambda: env_throughput.measure(
                name, contestants, count, steps, rounds=1 if smoke or slow else 3
            ),
            needs_s,
        )

    def train_on(physics: str, name: str = task) -> None:
        part = f"training of {name} on {physics}"

        def measure() -> dict[str, Any]:
            file_of(name, physics).unlink(missing_ok=True)  # of another commit
            config, keep = preset(name, physics, smoke), lambda row: report.keep(part, row)
            row, learned = training(config, smoke, report.left_s, keep)
            policy.save(file_of(name, physics), 0, learned, {})
            return row

        report.part(part, measure, needs_s=TRAINING_S + PART_S)

    def file_of(name: str, physics: str) -> Path:
        return path.with_name(f"{path.stem}-{name}-{physics}-{policy.FILE}")

    def success_on(physics: str) -> str:
        return f"success of the policy of {task} trained on {physics}"

    def transfer(physics: str) -> None:
        def measure() -> dict[str, Any]:
            config, goals = preset(task, physics, smoke), 2 if smoke else end_to_end.GOALS
            _, agent, state = untrained(config)
            like = policy.acting(agent, state)
            _, learned = policy.load(file_of(task, physics), like, lambda about: None)
            return end_to_end.transferred(config, learned, ("native", "warp"), goals)

        trained = f"training of {task} on {physics}"
        if any(row["part"] == trained and "result" in row for row in report.rows):
            report.part(success_on(physics), measure, KERNELS_S)

    def parts(physics: str) -> None:
        config = preset(task, physics, smoke)
        name = f"parts of a cycle of {task} on {physics}"
        report.part(name, lambda: end_to_end.parts(config, rounds=2), KERNELS_S)

    report.part(f"memory of {task}", lambda: memory(task))
    report.part(f"first step of Warp for {task}", lambda: first_step(task), KERNELS_S)
    throughput(task, few[0], "warp")
    train_on("warp")
    transfer("warp")
    report.part(
        f"compiling training of {task} twice", lambda: compiling_twice(task, smoke), KERNELS_S
    )
    throughput(task, few[0], "native", "batch")
    for count in few[1:]:
        throughput(task, count, "warp")
    report.part(f"fidelity of {task}, short", lambda: short_fidelity(task, smoke), KERNELS_S)
    for count in worlds:
        if count not in few:
            throughput(task, count, "warp")
    for count in dict.fromkeys((few[0], few[-1])):
        throughput(task, count, "mujoco-warp")
    for count in dict.fromkeys((few[-1], worlds[-1])):
        throughput(task, count, "warp-fast", needs_s=KERNELS_S)
    others = [] if smoke else [name for name in OTHERS if name != task]
    for name in others[:1]:
        for contestant in ("warp", "warp-fast"):
            for count in dict.fromkeys((few[-1], worlds[-1])):
                throughput(name, count, contestant, needs_s=KERNELS_S)
    if not smoke:
        train_on("native")
        transfer("native")
    parts("warp")
    if not smoke:
        parts("native")
    name = f"{2 if smoke else AGENTS} seeds of {task} as one program"
    report.part(name, lambda: seeds_at_once(preset(task, "warp", smoke), smoke), KERNELS_S)
    if not smoke:
        throughput(task, PEERS, "native", "warp", *peers(), needs_s=KERNELS_S)
    for name in others[1:]:
        throughput(name, few[-1], "warp", needs_s=KERNELS_S)
    for name in others:
        train_on("warp", name)
    for count in dict.fromkeys((few[-1], few[0])):
        for contestant in OTHER_GRAPHS:  # whose graphs Warp does not let go of
            throughput(task, count, contestant)
    report.postponed()
    for physics in ("warp", "native"):  # of which a training may only now have ended
        part = success_on(physics)
        if not any(row["part"] == part and "error" in row for row in report.rows):
            transfer(physics)
    report.derive("what a step costs", costs(report.rows))


def peers() -> tuple[str, ...]:
    """Contestants that are installed and take environment steps one after the other."""
    return ("gymnasium-async", *(["envpool"] if importlib.util.find_spec("envpool") else []))


def costs(rows: list[dict[str, Any]]) -> dict[str, dict[str, float | None]]:
    """A straight line through the seconds of a step against the number of worlds.

    Args:
      rows: parts of the report.

    Returns:
      "TASK CONTESTANT", where two or more numbers of worlds were measured -> seconds of a step of
      no worlds, which launches and the host take; seconds that each world adds; and the steps a
      second that follow for ever more worlds, to which the largest measured rate is to be held, or
      None if by these measurements a world adds nothing.
    """
    points: dict[str, dict[int, float]] = {}
    for row in rows:
        if row["part"].startswith("throughput of ") and "result" in row:
            for one in row["result"]:
                name = f"{one['task']} {one['contestant']}"
                step_s = one["num_envs"] / one["env_steps_per_s"]
                points.setdefault(name, {})[one["num_envs"]] = step_s
    found = {}
    for name, taken in points.items():
        if len(taken) < 2:
            continue
        worlds, seconds = map(np.asarray, zip(*sorted(taken.items()), strict=True))
        # Least squares of relative errors: the few worlds count as much as the many.
        design = np.stack([1 / seconds, worlds / seconds], axis=-1)
        (fixed, each), *_ = np.linalg.lstsq(design, np.ones(len(worlds)), rcond=None)
        found[name] = {
            "fixed_s": float(fixed),
            "s_per_world": float(each),
            "env_steps_per_s_of_ever_more_worlds": float(1 / each) if each > 0 else None,
            "largest_measured_env_steps_per_s": float((worlds / seconds).max()),
        }
    return found


def compiling_twice(task: str, smoke: bool) -> dict[str, dict[str, float]]:
    """`compile_s` of two processes, of which the second finds what the first has compiled.

    Processes, because Warp numbers its functions: traced again in one, they are other programs.
    """
    code = (
        f"import sys; sys.path[:] = {sys.path}; import json, accelerator, launch; "
        f"launch.set_xla_flags(); config = accelerator.preset({task!r}, 'warp', {smoke}); "
        "print(json.dumps(accelerator.compile_s(config)))"
    )
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        kept = {"JAX_COMPILATION_CACHE_DIR": folder, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        for name in ("first", "later"):
            done = subprocess.run(
                [sys.executable, "-c", code],
                env=os.environ | kept,
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            found[name] = json.loads(done.stdout.splitlines()[-1])
    return found


def compile_s(config: Config) -> dict[str, float]:
    """Seconds to trace the training's epoch, and to compile it or read it where it is kept."""
    env, agent, state = untrained(config)
    epoch = jax.jit(functools.partial(train.epoch, env, agent, config), donate_argnums=0)
    lowered, trace_s = harness.timed(lambda: epoch.lower(state))
    return {"trace_s": trace_s, "compile_s": harness.timed(lowered.compile)[1]}


def seeds_at_once(config: Config, smoke: bool) -> list[dict[str, Any]]:
    """Rows of `sweeping.measure`: a round of episodes and its updates of `AGENTS` agents."""
    config = dataclasses.replace(
        config, train=dataclasses.replace(config.train, cycles_per_epoch=1)
    )
    return sweeping.measure(config, agents=2 if smoke else AGENTS, rounds=1 if smoke else 2)


def memory_used() -> dict[str, int]:
    """Bytes so far on the first device, as far as they can be told.

    `gpu`, all in use, with XLA's pool as a whole; `xla_peak`, the most that was used of that pool;
    `warp_peak`, the most that Warp took beside it. None of them says what one part needed, but what
    all parts up to it did.
    """
    stats = jax.devices()[0].memory_stats() or {}
    found = {"xla_peak": stats["peak_bytes_in_use"]} if "peak_bytes_in_use" in stats else {}
    if (used := gpu_memory()) is not None:
        found["gpu"] = used
    if jax.default_backend() == "gpu" and importlib.util.find_spec("warp"):
        import warp

        with contextlib.suppress(Exception):  # a driver without pools
            found["warp_peak"] = int(warp.get_mempool_used_mem_high(warp.get_cuda_device(0)))
    return found


def gpu_memory() -> int | None:
    """Bytes in use on the first GPU, None without one."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    words = [program, "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, check=False, close_fds=False, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    first = done.stdout.split()[:1]
    return int(first[0]) * 2**20 if first and first[0].isdigit() else None


def require_device(part: str) -> None:
    """Ends the program if the first device does not compute any more.

    Raises:
      UserError: names the part; in this process whatever follows would fail, too.
    """
    try:
        jax.block_until_ready(jax.numpy.zeros(()) + 1)
    except Exception as error:  # whatever a driver may raise
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise UserError(
            f"device: it no longer answers after the part {part!r} ({reason}); give the command "
            "again, which leaves that part for the end"
        ) from error


def forget_graphs() -> None:
    """Lets go of the CUDA graphs that Warp has captured; the driver may keep their memory."""
    if importlib.util.find_spec("warp") is None:  # as on a TPU
        return
    import warp

    warp.clear_jax_callable_graph_cache()


def memory(task: str) -> dict[str, Any]:
    """What the device has, and what a simulation takes."""
    stats = jax.devices()[0].memory_stats() or {}
    models = ("stock", "fast")
    return {
        "xla_pool_bytes": stats.get("bytes_limit"),
        "bytes_per_world": {model: _warp(task, model).bytes_per_env for model in models},
    }


def first_step(task: str) -> dict[str, float]:
    """Seconds until two worlds have made a step: Warp's kernels, and XLA's programs around them.

    A second environment has the first one's kernels, but programs of its own.
    """
    names = ("first_step_s", "with_kernels_there_s")
    return {name: env_throughput.first_step_s(_warp(task)) for name in names}


def _warp(task: str, model: str = "stock") -> her_envs.FetchEnv:
    env = her_envs.make(task, physics="warp", model=model)
    assert isinstance(env, her_envs.FetchEnv)
    return env


def short_fidelity(task: str, smoke: bool) -> dict[str, Any]:
    """One step from native states, and scripted episodes, on `warp`."""
    native, other = her_envs.make(task), _warp(task)
    steps = fidelity.played(native, 2 if smoke else 20)
    return fidelity.one_step(native, other, steps) | {
        "episodes": fidelity.scripted_episodes(native, other, 2 if smoke else 100),
    }


def preset(task: str, physics: str, smoke: bool) -> Config:
    """The settings of a training."""
    config = presets.load("accelerator", task)
    config = dataclasses.replace(config, env=dataclasses.replace(config.env, physics=physics))
    return end_to_end.tiny(config) if smoke else config


def training(
    config: Config,
    smoke: bool,
    left_s: Callable[[], float],
    keep: Callable[[dict[str, Any]], None],
) -> tuple[dict[str, Any], policy.Acting]:
    """From scratch to the highest of `end_to_end.TARGETS`, or for `TRAINING_S`.

    Args:
      config: of the training.
      smoke: whether it is a tiny run instead.
      left_s: says how much of the budget is left.
      keep: is given what there is after every epoch.

    Raises:
      TimeoutError: if the budget ended it before 0.9; what there is has been kept.
    """

    def limit_s() -> float:
        return 0.0 if smoke else min(TRAINING_S, left_s() - PART_S)

    row, learned = end_to_end.trained(config, end_to_end.TARGETS, limit_s, keep)
    if "0.90" not in row["seconds_to"] and not smoke and row["limit_s"] < TRAINING_S:
        keep(row)
        raise TimeoutError("the budget ended before the target or the training's time did")
    return row, learned


def untrained(config: Config) -> tuple[GoalEnv, Agent, train.TrainState]:
    """A training's environment and agent, and the shapes of its state."""
    env = launch.make_env(config.env)
    agent = agents.make(config.agent, env)
    state = jax.eval_shape(functools.partial(train.init, env, agent, config), jax.random.key(0))
    return env, agent, state


if __name__ == "__main__":
    harness.run(main)
