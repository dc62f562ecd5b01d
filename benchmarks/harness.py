"""What the benchmarks share: fair timing and a results file that says where it comes from."""

from __future__ import annotations

import functools
import itertools
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jax

from her_envs.fetch.tasks import TASKS
from her_jax import metrics, provenance
from her_jax.errors import UserError

sys.path.append(str(Path(__file__).resolve().parents[1] / "experiments"))
import launch
import presets

RESULTS = Path(__file__).resolve().parent / "results"
"""Committed results; written only by whoever names a file there."""

MEASURED = Path("runs") / "benchmarks"
"""Where a benchmark writes that is given no `--out`."""


def run(main: Callable[..., None]) -> None:
    """Runs a benchmark as the scripts run, its options from the command line."""
    commit()
    launch.command(main)


@functools.cache
def commit() -> str:
    """What is measured: the checkout as it is when first asked, by `run`, and not at the end."""
    return provenance.commit()


def timed(call: Callable[..., Any], *args: Any) -> tuple[Any, float]:
    """The result of one call, ready, and its duration in seconds."""
    start = time.perf_counter()
    result = jax.block_until_ready(call(*args))
    return result, time.perf_counter() - start


def side_by_side(
    calls: dict[str, Callable[[], Any]],
    rounds: int,
    before: dict[str, Callable[[], Any]] | None = None,
) -> dict[str, float]:
    """Median seconds of each call, taken in turn so that the machine's drift hits all alike.

    Args:
      calls: each does the same amount of work; called once before timing.
      rounds: how often each is timed.
      before: what is called before each call of that name, and not timed.
    """
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(1 + rounds):
        for name, call in calls.items():
            if before and name in before:
                before[name]()
            seconds = timed(call)[1]
            if number:  # the first warms up
                taken[name].append(seconds)
    return {name: statistics.median(values) for name, values in taken.items()}


def markdown(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def known(option: str, names: tuple[str, ...], choices: Iterable[str]) -> tuple[str, ...]:
    """The names, each once.

    Raises:
      UserError: if there is none, or one is unknown.
    """
    choice = f"choose from {', '.join(choices)}"
    if not names:
        raise UserError(f"{option}: none named; {choice}")
    for name in names:
        if name not in choices:
            raise UserError(f"{option}: {name!r} is unknown; {choice}")
    return tuple(dict.fromkeys(names))


def fetch_tasks(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names of Fetch tasks, each once; "fetch-push" is "FetchPush" too.

    Raises:
      UserError: if there is none, or one is unknown.
    """
    return known("tasks", tuple(presets.TASKS.get(name, name) for name in names), TASKS)


def require_positive(**counts: int) -> None:
    """Refuses a number of things to measure that is none.

    Raises:
      UserError: names the option.
    """
    for option, count in counts.items():
        if count < 1:
            raise UserError(f"{option}: {count} is not positive; leave it out for the usual number")


def results_file(name: str, out: Path | None, smoke: bool = False, continues: bool = False) -> Path:
    """`out`, or NAME.json in `MEASURED`, of a smoke run NAME-smoke.json.

    What lies there already gets another name, unless the benchmark goes on with it or the file was
    asked for.

    Raises:
      UserError: if it could not be written, before anything is measured.
    """
    path = out or MEASURED / f"{name}{'-smoke' if smoke else ''}.json"
    above = next(folder for folder in path.absolute().parents if folder.exists())
    if path.is_dir() or not above.is_dir() or not os.access(above, os.W_OK):
        raise UserError(f"out: {path} cannot be written; name a file")
    if path.is_file() and not (out or smoke or continues):
        _set_aside(path)
    return path


def continued(name: str, path: Path) -> list[dict[str, Any]]:
    """Rows of benchmark `name` that the same commit wrote on this kind of device, of any host.

    Another file gets another name, and so does one whose commit is not known or had uncommitted
    changes that are no more. Writing the file may be what changed the checkout since it was begun.
    """
    if not path.is_file():
        return []
    results, now = metrics.read_json(path), commit()
    known = {now, now.removesuffix("+changes")} - {provenance.UNKNOWN}
    here = _kind(provenance.device())
    of_the_same = results.get("benchmark") == name and results.get("commit") in known
    if of_the_same and _kind(results.get("device", "")) == here:
        return results["rows"]
    _set_aside(path)
    return []


def _kind(device: str) -> str:
    """A device without its host."""
    return device.partition("; host:")[0]


def _set_aside(path: Path) -> None:
    """Appends the first free number to a file's name, where nothing takes it for results."""
    names = (path.with_name(f"{path.name}.{number}") for number in itertools.count(1))
    kept = next(name for name in names if not name.exists())
    print(f"{path} was there before; it is kept as {kept.name}")
    path.rename(kept)


def write(name: str, rows: list[dict[str, Any]], path: Path, quiet: bool = False) -> None:
    """Writes rows of benchmark `name` with device, versions and commit to `path`."""
    about = {
        "device": provenance.device(),
        "versions": provenance.versions(),
        "commit": commit(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }
    with launch.writing("out", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        metrics.write_json(path, {"benchmark": name, **about, "rows": rows})
    if not quiet:
        print(f"wrote {path}")
