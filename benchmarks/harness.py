"""What the benchmarks share: fair timing and a results file that says where it comes from."""

from __future__ import annotations

import functools
import itertools
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import tyro

from her_jax import metrics, provenance

sys.path.append(str(Path(__file__).resolve().parents[1] / "experiments"))
import launch

RESULTS = Path(__file__).resolve().parent / "results"


def run(main: Callable[..., None]) -> None:
    """Runs a benchmark as the scripts run, its options from the command line."""
    commit()
    launch.guarded(lambda: tyro.cli(main))


@functools.cache
def commit() -> str:
    """What is measured: the checkout as it is when first asked, by `run`, and not at the end."""
    return provenance.commit()


def timed(call: Callable[..., Any], *args: Any) -> tuple[Any, float]:
    """The result of one call, ready, and its duration in seconds."""
    start = time.perf_counter()
    result = jax.block_until_ready(call(*args))
    return result, time.perf_counter() - start


def side_by_side(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median seconds of each call, taken in turn so that the machine's drift hits all alike.

    Args:
      calls: each does the same amount of work; called once before timing.
      rounds: how often each is timed.
    """
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        jax.block_until_ready(call())
    for _ in range(rounds):
        for name, call in calls.items():
            taken[name].append(timed(call)[1])
    return {name: statistics.median(values) for name, values in taken.items()}


def markdown(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def written(path: Path) -> list[dict[str, Any]]:
    """Rows that the same commit has written to the file on this device.

    There are none if the commit is not known, or without a file.

    The file itself may be what edits the checkout.
    """
    if not path.is_file():
        return []
    results = metrics.read_json(path)
    of_commit = (name.removesuffix("+changes") for name in (results["commit"], commit()))
    same = len(set(of_commit)) == 1 and commit() != provenance.UNKNOWN
    return results["rows"] if same and results["device"] == provenance.device() else []


def set_aside(path: Path) -> None:
    """Gives a results file another name, with the first free number."""
    names = (path.with_stem(f"{path.stem}.{number}") for number in itertools.count(1))
    kept = next(name for name in names if not name.exists())
    print(f"{path} is not of this commit and device; it is kept as {kept.name}")
    path.rename(kept)


def write(name: str, rows: list[dict[str, Any]], out: Path | None, quiet: bool = False) -> None:
    """Writes rows with device, versions and commit to `out` or benchmarks/results/NAME.json."""
    path = out or RESULTS / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    about = {
        "device": provenance.device(),
        "versions": provenance.versions(),
        "commit": commit(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }
    metrics.write_json(path, {"benchmark": name, **about, "rows": rows})
    if not quiet:
        print(f"wrote {path}")
