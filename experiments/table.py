"""Prints the README's tables of results and costs: `python experiments/table.py [RUN ...]`.

Without arguments it reads the committed runs in experiments/reference. Success is on held-out
requested goals at the last step; steps and seconds to a success are those of the first evaluation
that reached it. Where there are several seeds, figures are medians over them.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import tyro

import launch
from her_jax import metrics
from her_jax.errors import UserError

REFERENCE = Path(__file__).resolve().parent / "reference"
_HEADER = (
    "| task | success within | physics | seeds | steps to 0.90 | seconds to 0.90 "
    "| success at the end | best | steps | seconds | doing nothing |",
    "|---|---|---|---|---|---|---|---|---|---|---|",
)

_COST_HEADER = (
    "| task | cost | units | sum of an episode | worst step | doing nothing: sum | worst step |",
    "|---|---|---|---|---|---|---|",
)

Members = list[tuple[dict[str, Any], list[dict[str, Any]]]]
"""Summary and epochs of runs that may be compared."""


def main(runs: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()) -> None:
    """Print Markdown tables of runs: success, and costs.

    Args:
      runs: Run folders; default the committed ones.
    """
    chosen = list(runs) or committed()
    launch.console.print(f"{table(chosen)}\n\n{cost_table(chosen)}", markup=False)


def committed() -> list[Path]:
    """Folders of the committed runs."""
    return sorted(path.parent for path in REFERENCE.glob(f"*/{metrics.SUMMARY}"))


def table(runs: list[Path]) -> str:
    """Markdown, a line for runs of one MuJoCo whose settings differ in nothing but the seed.

    Args:
      runs: folders of finished runs.

    Raises:
      UserError: if a folder holds no summary or no epoch.
    """
    return "\n".join([*_HEADER, *map(_row, _alike(runs))])


def _alike(runs: list[Path]) -> list[Members]:
    """Runs of one MuJoCo whose settings differ in nothing but the seed, together."""
    comparable: dict[str, Members] = {}
    for run in runs:
        if not (run / metrics.SUMMARY).is_file():
            raise UserError(f"run: {run} holds no {metrics.SUMMARY}; finish it with --resume")
        summary = metrics.read_json(run / metrics.SUMMARY)
        if "costs" not in summary:
            raise UserError(f"run: {run} is of an older version, without costs; train it again")
        settings = launch.read_config(run).to_dict()
        del settings["seed"], settings["env"]["num_threads"]
        del settings["train"]["checkpoint_period"]
        key = json.dumps([settings, summary["versions"]["mujoco"]])
        comparable.setdefault(key, []).append((summary, metrics.read(run)))
    return list(comparable.values())


def cost_table(runs: list[Path]) -> str:
    """Markdown, a line for each cost channel of each line of `table`."""
    lines = [*_COST_HEADER]
    for members in _alike(runs):
        summaries = [summary for summary, _ in members]
        for name, channel in summaries[0]["costs"].items():
            cells = [summaries[0]["task"], name, channel["units"]]
            for part in ("costs", "no_action_costs"):
                for field in ("episode_sum", "worst_step"):
                    values = [summary[part][name][field] for summary in summaries]
                    cells.append(f"{statistics.median(values):.3g}")
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _row(members: Members) -> str:
    """One line; the members may be compared."""
    first = members[0][0]

    def median(figure: Callable[[dict[str, Any]], float]) -> float:
        return statistics.median(figure(summary) for summary, _ in members)

    def to_success(field: str) -> str:
        middle = statistics.median(_first(records, field, 0.9) for _, records in members)
        return "not reached" if math.isinf(middle) else f"{middle:,.0f}"

    cells = [
        first["task"],
        f"{100 * first['distance_threshold']:.0f} cm",
        first["physics"],
        ", ".join(str(summary["seed"]) for summary, _ in members),
        to_success("env_steps"),
        to_success("wall_s"),
        f"{median(lambda s: s['requested_goal_success']):.3f}",
        f"{median(lambda s: s['requested_goal_success_best']):.3f}",
        f"{median(lambda s: s['env_steps']):,.0f}",
        f"{median(lambda s: s['wall_s']):,.0f}",
        f"{median(lambda s: s['no_action_success']):.3f}",
    ]
    return f"| {' | '.join(cells)} |"


def _first(records: list[dict[str, Any]], field: str, success: float) -> float:
    """Value of `field` at the first evaluation that reached `success`; infinity if none did."""
    reached = (r[field] for r in records if r["requested_goal_success"] >= success)
    return next(reached, math.inf)


if __name__ == "__main__":
    launch.guarded(lambda: tyro.cli(main))
