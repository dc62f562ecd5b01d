"""docs/audit.md is run, and its tables are those of the tests."""

from __future__ import annotations

import doctest
import json
import re

import auditing
import samplers
from conftest import REPO
from her_jax.audit import labels, record

AUDIT = REPO / "docs" / "audit.md"


def test_the_worked_example_runs():
    result = doctest.testfile(str(AUDIT), module_relative=False)
    assert result.failed == 0 and result.attempted >= 30


def test_the_mutation_table_is_that_of_the_samplers():
    assert samplers.mutation_table() in AUDIT.read_text()


def test_every_requirement_is_linked_to_a_test_that_exists():
    text = AUDIT.read_text()
    rows = dict(re.findall(r"^\| R-(\d+) \|.*?\| (.*) \|$", text, re.M))
    assert list(map(int, rows)) == list(range(1, 41))
    linked = set()
    for number, cell in rows.items():
        links = re.findall(r"\[`(test_r(\d\d)_\w+)`\]\(\.\./([\w/.]+)\)", cell)
        assert links, number
        for name, of, path in links:
            assert int(of) == int(number)
            assert f"def {name}(" in (REPO / path).read_text(), name
            linked.add(name)
    existing = {
        name
        for path in (REPO / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_r\d\d_\w+)", path.read_text(), re.M)
    }
    assert linked == existing


def test_every_label_is_explained():
    text = AUDIT.read_text()
    for name in labels.LABELS:
        assert f"| `{name}` |" in text


def test_the_cost_of_the_audit_is_the_measured_one():
    results = REPO / "benchmarks" / "results" / "auditing.json"
    assert auditing.table(json.loads(results.read_text())["rows"]) in AUDIT.read_text()


def test_success_is_recomputed_from_the_log_as_shown(finished):
    """The page's snippet, on the toy's run."""
    snippet = AUDIT.read_text().split("## The episode log")[1].split("```")[1]
    for old, new in (
        ("runs/RUN/episodes.parquet", str(finished[2] / record.LOG)),
        ("print(", "found.append("),
    ):
        assert old in snippet
        snippet = snippet.replace(old, new)
    found: list[float] = []
    exec(snippet, {"found": found})
    assert found == [finished[1]["requested_goal_success"]]


def test_committed_runs_have_their_audits():
    runs = sorted(path.parent for path in (REPO / "experiments/reference").glob("*/summary.json"))
    for run in runs:
        audited = record.read(run)
        assert (run / record.MARKDOWN).read_text() == record.markdown(audited)
        summary = json.loads((run / "summary.json").read_text())
        repeated = record.for_summary(audited)
        assert record.differences({k: summary[k] for k in repeated}, repeated) == []
        expected = {"exploration_failure"} if "-none-" in run.name else set()
        assert {*audited.failure_labels} <= expected
        assert not any(audited.reward_recompute_test["violations"].values())
