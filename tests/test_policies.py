"""The trained policies in experiments/policies: they play as their files say."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import jax
import pytest

import grouping
import launch
from conftest import REPO
from her_jax import evaluate, goal_set, metrics, policy, statistics
from her_jax.audit import record

FOLDERS = sorted(path.parent for path in (REPO / "experiments" / "policies").glob("*/config.json"))
TABLE = (
    "| folder | steps | minutes | success on 200 goals | on 1,000, `native` | 95 % interval "
    "| on 1,000, `warp` | doing nothing |",
    "|---|---|---|---|---|---|---|---|",
)


def evaluated(run: Path, physics: str) -> dict[str, Any]:
    """What evaluate.py printed of 1,000 goals."""
    name = "evaluation.json" if physics == "native" else f"evaluation-{physics}.json"
    found = metrics.read_json(run / name)
    about = found["evaluation"]
    assert about["physics"] == physics and about["episodes"] == 1000 and about["tolerance"] == 0.05
    assert found["broken_episodes"] == found["dropped_contact_steps"] == 0
    interval = statistics.success_interval(round(1000 * found["requested_goal_success"]), 1000)
    assert found["requested_goal_success_interval"] == pytest.approx(interval[1:])
    return found


def rates(run: Path) -> list[float]:
    """Success on 1,000 goals on `native` and on `warp`."""
    return [evaluated(run, physics)["requested_goal_success"] for physics in ("native", "warp")]


def pages(*names: str) -> list[str]:
    return [" ".join((REPO / name).read_text().split()) for name in names]


def test_each_task_has_one():
    tasks = [folder.name for folder in FOLDERS]
    assert tasks == ["fetch-pick-and-place", "fetch-push", "fetch-reach", "fetch-slide"]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_it_is_a_run_without_its_checkpoint(folder):
    names = {path.name for path in folder.iterdir()}
    assert names - {metrics.VIDEO, metrics.EXPORTED, "curve.png"} == {
        *("config.json", "metrics.jsonl", "summary.json", "audit.json", "audit.md", policy.FILE),
        *("evaluation.json", "evaluation-warp.json"),
    }
    summary, audit = metrics.read_json(folder / metrics.SUMMARY), record.read(folder)
    assert summary["run_id"] == audit.run_id and audit.clean and not audit.failure_labels
    assert summary["requested_goal_success"] == audit.report_metrics["requested_goal_success"]
    assert (summary["physics"], summary["scored_on"]) == ("native", "native")
    epoch, acting = launch.open_run(folder).restore_policy()
    assert epoch == metrics.read(folder)[-1]["epoch"]
    assert int(acting.env_steps) == summary["env_steps"]


def test_the_page_says_what_the_files_do():
    rows = []
    for folder in FOLDERS:
        summary, native = metrics.read_json(folder / metrics.SUMMARY), evaluated(folder, "native")
        low, high = native["requested_goal_success_interval"]
        own, warp = rates(folder)
        cells = (
            folder.name,
            f"{summary['env_steps']:,}",
            f"{summary['wall_s'] / 60:.0f}",
            f"{summary['requested_goal_success']:.3f}",
            f"{own:.3f}",
            f"{low:.3f} to {high:.3f}",
            f"{warp:.3f}",
            f"{native['no_action_success']:.3f}",
        )
        rows.append(f"| {' | '.join(cells)} |")
    assert "\n".join((*TABLE, *rows)) in (FOLDERS[0].parent / "README.md").read_text()


def test_the_pages_say_how_policies_transfer():
    """From `native` to `warp`, and one of FetchPush back."""
    lost = {folder.name: native - warp for folder in FOLDERS for native, warp in [rates(folder)]}
    worst = max(lost, key=lambda name: abs(lost[name]))
    readme, physics = pages("README.md", "docs/physics.md")
    assert worst == "fetch-slide" and 0 < lost[worst] <= 0.03
    assert f"differ on `warp` by at most {100 * lost[worst]:.1f} points" in readme
    assert f"differ on `warp` by at most {100 * lost[worst]:.1f} points" in physics
    back = REPO / "experiments" / "reference" / "sweeps" / "fetch-push-warp" / "seed0"
    summary, (native, warp) = metrics.read_json(back / metrics.SUMMARY), rates(back)
    assert (summary["physics"], summary["scored_on"]) == ("warp", "native")
    both = f"on `native` and at {warp:.3f} on"
    assert f"succeeds at {native:.3f} of 1,000 held-out goals {both}" in readme
    assert f"succeeds at {native:.3f} of them {both}" in physics
    assert f"at {summary['train_steps_per_s']:.0f} steps a second, for 70 minutes" in physics
    assert round(summary["wall_s"] / 60) == 70


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_it_plays_as_well_as_it_did(folder):
    """Whatever has changed since in observations, normalisation, networks or physics."""
    run = launch.open_run(folder)
    _, acting = run.restore_policy()
    goals = goal_set.standard(run.judge, 30)
    outcome = jax.jit(functools.partial(run.evaluate, acting))(goals.starts)
    before = evaluated(folder, "native")["requested_goal_success"]
    assert evaluate.mean(outcome.success) >= before - 0.15


def test_runs_that_differ_in_nothing_are_named(capsys):
    """A user's own run of seed 0 beside the one that is there."""
    theirs = REPO / "experiments" / "reference" / "fetch-reach-seed0"
    groups = grouping.alike([FOLDERS[2], theirs, theirs.with_name("fetch-reach-seed1")])
    grouping.note_twins(groups)
    told = " ".join(capsys.readouterr().err.split())
    assert told.count("equal settings") == 1
    assert "fetch-reach-seed0 have equal settings and seed 0, and count as two" in told
