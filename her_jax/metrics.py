"""The run folder's plain files: `config.json`, `metrics.jsonl`, `summary.json`, `audit.json`.

And the names of those that scripts make of its policy, a film and a function for JAX alone.

No name that contains "success" is written unless it is one of `SUCCESSES`: figures on requested
goals. What hindsight goals show must be called something else.
"""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from her_jax.errors import UserError

CONFIG = "config.json"
METRICS = "metrics.jsonl"
SUMMARY = "summary.json"
VIDEO = "rollout.mp4"
EXPORTED = "policy.jax"

SUCCESSES = frozenset(
    {
        "requested_goal_success",
        "requested_goal_success_any_step",
        "requested_goal_success_best",
        "exploring_requested_goal_success",
        "no_action_success",
    }
)
"""Every name of a figure that may contain "success"."""


def require_honest_names(values: Any) -> None:
    """Refuses names that call something success that is not on requested goals; looks inside.

    Raises:
      ValueError: names the offender; such a name is a mistake in the program.
    """
    if isinstance(values, dict):
        for name, value in values.items():
            if "success" in name.lower() and name not in SUCCESSES:
                raise ValueError(f"{name}: only figures on requested goals are called success")
            require_honest_names(value)
    elif isinstance(values, list | tuple):
        for value in values:
            require_honest_names(value)


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Writes a file whole or not at all."""
    require_honest_names(values)
    write_text(path, json.dumps(values, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes a file whole or not at all."""
    write_whole(path, lambda partial: partial.write_text(text, encoding="utf-8", newline="\n"))


def write_whole(path: Path, write: Callable[[Path], Any]) -> None:
    """Has `write` fill a file beside `path` that then takes its place."""
    partial = path.with_name(path.name + ".partial")
    try:
        write(partial)
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def read_json(path: Path) -> dict[str, Any]:
    """Reads a file of a run folder.

    Raises:
      UserError: if it is missing, cannot be read or is not JSON.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise UserError(f"run: {path} holds no settings or figures; restore it or retrain")
        return values
    except FileNotFoundError:
        raise UserError(
            f"run: {path.parent} holds no {path.name}; give a folder that train.py made"
        ) from None
    except OSError as error:
        raise UserError(f"run: {path} cannot be read ({error.strerror}); restore it") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"run: {path} is not valid JSON ({error}); restore or retrain") from None


DAMAGE = (
    *(OSError, EOFError, ValueError, TypeError, zipfile.BadZipFile, zlib.error),
    RuntimeError,  # of a compression or encryption that zipfile does not know
)
"""What `read_arrays` may raise."""


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz file, by name.

    Raises:
      DAMAGE: if it is missing, damaged or holds other things than plain arrays.
    """
    with np.load(path) as file:
        return dict(file)


def append(folder: Path, record: dict[str, Any]) -> None:
    """Adds one epoch's line."""
    require_honest_names(record)
    with (folder / METRICS).open("a", encoding="utf-8", newline="\n") as file:
        file.write(json.dumps(record) + "\n")
        file.flush()
        os.fsync(file.fileno())  # before a checkpoint that counts on it


def read(folder: Path) -> list[dict[str, Any]]:
    """All epochs' lines, oldest first.

    Raises:
      UserError: if there are none, or one is damaged.
    """
    records = _records(folder)
    if not records:
        raise UserError(f"run: {folder} holds no {METRICS} with an epoch; train it first")
    return records


def rewind(folder: Path, epoch: int) -> None:
    """Drops the lines after `epoch`, which a resumed run will write again.

    Raises:
      UserError: if a line is damaged or missing; none is dropped then.
    """
    kept = [record for record in _records(folder) if record["epoch"] <= epoch]
    if len(kept) < epoch:
        raise UserError(
            f"run: {folder / METRICS} lacks the lines of epochs {len(kept) + 1} to {epoch}, which "
            "the checkpoint has; restore it"
        )
    write_text(folder / METRICS, "".join(json.dumps(record) + "\n" for record in kept))


def _records(folder: Path) -> list[dict[str, Any]]:
    """The complete lines; the last one may have been cut short by a crash."""
    path = folder / METRICS
    if not path.exists():
        return []
    try:
        text = path.read_bytes()
    except OSError as error:
        raise UserError(f"run: {path} cannot be read ({error.strerror}); restore it") from None
    lines, whole = text.splitlines(), text.endswith(b"\n")
    records = []
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            if not isinstance(record, dict) or not isinstance(record.get("epoch"), int):
                raise ValueError("no figures of an epoch")
            if record["epoch"] != len(records) + 1:
                raise ValueError(
                    f"epoch {record['epoch']} in place of {len(records) + 1}, as if lines were "
                    "lost, or two processes had trained here"
                )
        except ValueError as error:  # of JSON and of UTF-8 too
            if number == len(lines) and not whole:
                break
            raise UserError(f"run: {path}, line {number}: {error}; restore it") from None
        records.append(record)
    return records
