"""What others have published: experiments/reference/published.csv.

These are figures of other codes, MuJoCo versions and evaluations. Each says whether it is quoted
from a text, computed from the authors' data (csv) or read off a plot, and where it stands.
"""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

TABLE = Path(__file__).resolve().parent / "reference" / "published.csv"

READ = ("text", "csv", "read off a plot")
"""How a figure can have been read."""


@dataclasses.dataclass(frozen=True)
class Figure:
    """One published figure.

    Attributes:
      task: environment name, e.g. "FetchPush".
      code: who published it, with the algorithm.
      env_steps: steps of all environments together.
      success: share of requested goals reached by then; None where only words were published.
      read: one of `READ`.
      task_knowledge: whether the code was told how to go about the task, beyond its goals.
      note: what to know before comparing.
      source: repository and file, or paper and section.
    """

    task: str
    code: str
    env_steps: int
    success: float | None
    read: str
    task_knowledge: bool
    note: str
    source: str


def figures(path: Path = TABLE) -> list[Figure]:
    """All figures, in the order of the file."""
    with path.open(newline="") as file:
        return [_figure(row) for row in csv.DictReader(file)]


def _figure(row: dict[str, str]) -> Figure:
    """One line of the file."""
    return Figure(
        task=row["task"],
        code=row["code"],
        env_steps=int(row["env_steps"]),
        success=float(row["success"]) if row["success"] else None,
        read=row["read"],
        task_knowledge=row["task_knowledge"] == "yes",
        note=row["note"],
        source=row["source"],
    )
