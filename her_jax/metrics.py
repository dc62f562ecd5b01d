"""The run folder's plain files: `config.json`, `metrics.jsonl`, `summary.json`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from her_jax.errors import UserError

CONFIG = "config.json"
METRICS = "metrics.jsonl"
SUMMARY = "summary.json"


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Writes a file whole or not at all."""
    _replace(path, json.dumps(values, indent=2) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Reads a file of a run folder.

    Raises:
      UserError: if it is missing or not JSON.
    """
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(
            f"run: {path.parent} holds no {path.name}; give a folder that train.py made"
        ) from None
    except json.JSONDecodeError as error:
        raise UserError(f"run: {path} is not valid JSON ({error}); restore or retrain") from None


def append(folder: Path, record: dict[str, Any]) -> None:
    """Adds one epoch's line."""
    with (folder / METRICS).open("a") as file:
        file.write(json.dumps(record) + "\n")


def read(folder: Path) -> list[dict[str, Any]]:
    """All epochs' lines, oldest first.

    Raises:
      UserError: if there are none.
    """
    records = _records(folder)
    if not records:
        raise UserError(f"run: {folder} holds no {METRICS} with an epoch; train it first")
    return records


def rewind(folder: Path, epoch: int) -> None:
    """Drops the lines after `epoch`, which a resumed run will write again."""
    kept = [record for record in _records(folder) if record["epoch"] <= epoch]
    _replace(folder / METRICS, "".join(json.dumps(record) + "\n" for record in kept))


def _records(folder: Path) -> list[dict[str, Any]]:
    """The complete lines; the last one may have been cut short by a crash."""
    path = folder / METRICS
    lines = path.read_text().splitlines() if path.is_file() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


def _replace(path: Path, text: str) -> None:
    """Writes a file whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text)
    partial.replace(path)
