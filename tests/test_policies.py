"""The trained policies in experiments/policies: they play as their files say."""

from __future__ import annotations

import functools
from pathlib import Path

import jax
import pytest

import launch
from conftest import REPO
from her_jax import evaluate, goal_set, metrics, policy
from her_jax.audit import record

FOLDERS = sorted(path.parent for path in (REPO / "experiments" / "policies").glob("*/config.json"))
TABLE = (
    "| folder | trained for | success on 200 | on 1,000, `native` | on 1,000, `warp` "
    "| doing nothing |",
    "|---|---|---|---|---|---|",
)


def evaluated(folder: Path, physics: str) -> dict:
    found = metrics.read_json(
        folder / ("evaluation.json" if physics == "native" else f"evaluation-{physics}.json")
    )
    about = found["evaluation"]
    assert about["physics"] == physics and about["episodes"] == 1000 and about["tolerance"] == 0.05
    assert found["broken_episodes"] == found["dropped_contact_steps"] == 0
    return found


def test_each_task_has_one():
    tasks = [folder.name for folder in FOLDERS]
    assert tasks == ["fetch-pick-and-place", "fetch-push", "fetch-reach", "fetch-slide"]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_it_is_a_run_without_its_checkpoint(folder):
    names = {path.name for path in folder.iterdir()}
    assert names - {launch.VIDEO, launch.EXPORTED, "curve.png"} == {
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
        summary = metrics.read_json(folder / metrics.SUMMARY)
        native, warp = (evaluated(folder, physics) for physics in ("native", "warp"))
        rates = [found["requested_goal_success"] for found in (summary, native, warp)]
        assert abs(rates[1] - rates[2]) <= 0.03
        idle = native["no_action_success"]
        cells = (
            folder.name,
            f"{summary['env_steps']:,}",
            *(f"{rate:.3f}" for rate in (*rates, idle)),
        )
        rows.append(f"| {' | '.join(cells)} |")
    assert "\n".join((*TABLE, *rows)) in (FOLDERS[0].parent / "README.md").read_text()


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_it_plays_as_well_as_it_did(folder):
    """Whatever has changed since in observations, normalisation, networks or physics."""
    run = launch.open_run(folder)
    _, acting = run.restore_policy()
    goals = goal_set.standard(run.judge, 30)
    outcome = jax.jit(functools.partial(run.evaluate, acting))(goals.starts)
    before = evaluated(folder, "native")["requested_goal_success"]
    assert evaluate.mean(outcome.success) >= before - 0.15
