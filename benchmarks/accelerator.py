"""Everything that only an accelerator can show, for a machine of which one has ten minutes.

    python benchmarks/accelerator.py [--budget-s 540] [--smoke] [--out FILE]

Every result is written to one JSON file as soon as it is there, so that a time-out loses nothing.
In this order, each part only while there is time left:

    memory
    a first step, in which Warp compiles its kernels into the folder that WARP_CACHE_PATH names
    throughput of as many worlds as the preset has
    FetchPush from scratch to 0.9
    throughput of MuJoCo's C engine, and up to 8,192 worlds
    the short fidelity report
    throughput of more worlds, of Warp alone and of the pruned model
    the same training on native physics, and where the time of a cycle goes on both
    throughput of the other tasks, and with other graph modes

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
import importlib.util
import math
import shutil
import subprocess
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import psutil

import end_to_end
import env_throughput
import fidelity
import harness
import her_envs
import presets
from her_jax import provenance
from her_jax.config import Config
from her_jax.errors import UserError

WORLDS = (512, 1024, 4096, 8192, 16384, 32768)
"""Numbers of environments whose throughput is measured; the first is the preset's."""

MANY = 8192
"""More worlds than these are measured after the fidelity report."""

OTHER_GRAPHS = ("warp-staged", "warp-staged-ex", "warp-nograph")
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
        for row in harness.continued(self.path):
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
            result = {"result": measure(), "memory_used_mib": memory_used()}
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
      task: Task of the parts that measure one.
      smoke: A tiny run that only shows that everything works.
      out: Results file; default runs/benchmarks/accelerator.json.
    """
    if not smoke and jax.default_backend() == "cpu":
        raise UserError("device: JAX sees no accelerator; install it for one, or give --smoke")
    if task not in her_envs.TASKS:
        raise UserError(f"task: {task!r} is unknown; choose one of {', '.join(her_envs.TASKS)}")
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

    def train(physics: str) -> None:
        name = f"training to 0.9 on {physics}"
        report.part(
            name,
            lambda: training(physics, smoke, report.left_s, lambda row: report.keep(name, row)),
            needs_s=TRAINING_S + PART_S,
        )

    def parts(physics: str) -> None:
        name = f"parts of a cycle on {physics}"
        report.part(name, lambda: end_to_end.parts(preset(physics, smoke), rounds=2), KERNELS_S)

    report.part(f"memory of {task}", lambda: memory(task))
    report.part(f"first step of Warp for {task}", lambda: first_step(task), KERNELS_S)
    throughput(task, few[0], "warp")
    train("warp")
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
    if not smoke:
        train("native")
    parts("warp")
    if not smoke:
        parts("native")
        for name in her_envs.TASKS:
            if name != task:
                throughput(name, few[-1], "warp", needs_s=KERNELS_S)
    for count in dict.fromkeys((few[-1], few[0])):
        for contestant in OTHER_GRAPHS:  # whose graphs Warp does not let go of
            throughput(task, count, contestant)
    report.postponed()


def memory_used() -> int | None:
    """MiB in use on the first GPU, None without one.

    XLA's pool is in it as a whole, and what Warp takes beside that; neither gives back what earlier
    parts needed, so it says what has been reserved so far and not what a part needed.
    """
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
    return int(first[0]) if first and first[0].isdigit() else None


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


def preset(physics: str, smoke: bool) -> Config:
    """The settings of a training of FetchPush."""
    config = presets.load("accelerator", "fetch-push")
    config = dataclasses.replace(config, env=dataclasses.replace(config.env, physics=physics))
    return end_to_end.tiny(config) if smoke else config


def training(
    physics: str,
    smoke: bool,
    left_s: Callable[[], float],
    keep: Callable[[dict[str, Any]], None],
) -> dict[str, Any]:
    """FetchPush from scratch to 0.9, or for `TRAINING_S`.

    Args:
      physics: that it trains on.
      smoke: whether it is a tiny run instead.
      left_s: says how much of the budget is left.
      keep: is given what there is after every epoch.

    Raises:
      TimeoutError: if the budget ended it; what there is has been kept.
    """

    def limit_s() -> float:
        return 0.0 if smoke else min(TRAINING_S, left_s() - PART_S)

    row = end_to_end.trained(preset(physics, smoke), (0.5, 0.9), limit_s, keep)
    if "0.90" not in row["seconds_to"] and not smoke and row["limit_s"] < TRAINING_S:
        keep(row)
        raise TimeoutError("the budget ended before the target or the training's time did")
    return row


if __name__ == "__main__":
    harness.run(main)
