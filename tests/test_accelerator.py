"""The report of benchmarks/accelerator.py: what a time-out leaves, and how it goes on."""

from __future__ import annotations

import types
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import accelerator
import end_to_end
import env_throughput
import harness
from conftest import same
from her_jax import metrics, policy, provenance
from her_jax.errors import UserError


def test_a_report_goes_on_where_it_was_cut_off(tmp_path, monkeypatch):
    path, ran, here = tmp_path / "report.json", [], {"device": provenance.device()}
    monkeypatch.setattr(harness, "commit", lambda: "abc")

    def measure(name: str):
        ran.append(name)
        return {"figure": len(ran)}

    def killed():
        report.keep("c", {"figure": 7})
        raise KeyboardInterrupt

    report = accelerator.Report(path, budget_s=90.0)
    report.part("a", lambda: measure("a"))
    report.part("b", lambda: 1 / 0)
    with pytest.raises(KeyboardInterrupt):
        report.part("c", killed)
    rows = {row["part"]: row for row in metrics.read_json(path)["rows"]}
    assert rows["a"]["result"] == {"figure": 1} and "ZeroDivisionError" in rows["b"]["error"]
    assert rows["c"]["so_far"] == {"figure": 7, **here}

    report = accelerator.Report(path, budget_s=90.0)  # is cut off before it comes to "c"
    report.part("c", lambda: measure("c"))
    report.part("d", lambda: measure("d"))
    (row,) = (row for row in metrics.read_json(path)["rows"] if row["part"] == "b")
    assert "ZeroDivisionError" in row["error"]  # until it has been tried again
    report = accelerator.Report(path, budget_s=59.0)
    report.part("c", lambda: measure("c"))
    report.postponed()
    (row,) = (row for row in metrics.read_json(path)["rows"] if row["part"] == "c")
    assert "skipped" in row and row["so_far"] == {"figure": 7, **here}
    report = accelerator.Report(path, budget_s=90.0)
    report.part("c", killed)
    with pytest.raises(KeyboardInterrupt):
        report.postponed()
    (row,) = (row for row in metrics.read_json(path)["rows"] if row["part"] == "c")
    assert row["so_far"] == {"figure": 7, **here, "earlier": [{"figure": 7, **here}]}

    report = accelerator.Report(path, budget_s=90.0)
    for name in "abcde":
        report.part(name, lambda name=name: measure(name))
    report.postponed()
    assert ran == ["a", "d", "e", "b", "c"]  # what may hang comes last
    rows = metrics.read_json(path)["rows"]
    assert sorted(row["part"] for row in rows) == list("abcde")
    assert all("result" in row and "so_far" not in row for row in rows)


def test_results_of_another_benchmark_are_set_aside(tmp_path, monkeypatch):
    path = tmp_path / "report.json"
    monkeypatch.setattr(harness, "commit", lambda: "abc")
    harness.write("env_throughput", [{"task": "FetchPush"}], path)
    assert accelerator.Report(path, budget_s=90.0).rows == [] and not path.exists()
    (row,) = metrics.read_json(tmp_path / "report.json.1")["rows"]
    assert row == {"task": "FetchPush"}


def test_worlds_are_numbers_of_environments():
    with pytest.raises(UserError, match="worlds: 0 is not positive"):
        accelerator.main(smoke=True, worlds=())


def test_rows_of_another_or_of_an_unknown_commit_are_measured_anew(tmp_path, monkeypatch):
    path = tmp_path / "report.json"
    for before, now, kept in (
        ("abc", "abc+changes", 1),  # perhaps by this very file
        ("abc+changes", "abc", 0),
        ("abc", "abd", 0),
        (provenance.UNKNOWN, provenance.UNKNOWN, 0),
    ):
        monkeypatch.setattr(harness, "commit", lambda before=before: before)
        harness.write("accelerator", [{"part": "a", "result": 1}], path)
        monkeypatch.setattr(harness, "commit", lambda now=now: now)
        assert len(accelerator.Report(path, budget_s=90.0).rows) == kept
        assert path.exists() == bool(kept)
    older = [metrics.read_json(tmp_path / f"report.json.{number}") for number in (1, 2, 3)]
    assert [results["commit"] for results in older] == ["abc+changes", "abc", provenance.UNKNOWN]
    assert all(results["rows"] == [{"part": "a", "result": 1}] for results in older)


def test_rows_of_another_host_stay_and_name_it(tmp_path, monkeypatch):
    path, names = tmp_path / "report.json", ("gpu: H200; host: A", "gpu: H200; host: B", "gpu: T4")
    monkeypatch.setattr(harness, "commit", lambda: "abc")
    for name, rows in zip(names, (0, 1, 0), strict=True):
        monkeypatch.setattr(provenance, "device", lambda name=name: name)
        report = accelerator.Report(path, budget_s=90.0)
        assert [row["device"] for row in report.rows] == [names[0]] * rows
        report.part("a", lambda: 1)


@pytest.mark.parametrize(
    ("left_s", "reached", "finished"),
    [(100.0, {}, False), (100.0, {"0.90": 30.0}, True), (400.0, {}, True)],
)
def test_a_training_that_the_budget_cut_short_is_tried_again(
    monkeypatch, left_s, reached, finished
):
    def trained(config, targets, limit_s, keep):
        assert targets == (0.5, 0.9, 0.95) and config.env.task == "FetchSlide"
        return {"limit_s": limit_s(), "seconds_to": reached}, "learned"

    monkeypatch.setattr(end_to_end, "trained", trained)
    kept = []
    config = accelerator.preset("FetchSlide", "native", smoke=False)
    if finished:
        row, returned = accelerator.training(config, False, lambda: left_s, kept.append)
        assert row["limit_s"] == min(left_s - 60.0, 150.0) and kept == []
        assert returned == "learned"
        return
    with pytest.raises(TimeoutError):
        accelerator.training(config, False, lambda: left_s, kept.append)
    assert kept == [{"limit_s": 40.0, "seconds_to": {}}]


def test_what_a_step_costs_is_read_off_the_rows():
    """Two parts of 2 ms and 1 us a world, whoever was measured at one number only left out."""

    def row(worlds: int, contestant: str) -> dict:
        rate = worlds / (2e-3 + 1e-6 * worlds)
        one = {"task": "FetchPush", "contestant": contestant, "num_envs": worlds}
        return {"part": "throughput of FetchPush", "result": [{**one, "env_steps_per_s": rate}]}

    rows = [row(worlds, "warp") for worlds in (512, 8192, 32768)] + [row(512, "native")]
    rows += [{"part": "throughput of FetchReach", "error": "no room"}, {"part": "a", "result": 1}]
    ((name, found),) = accelerator.costs(rows).items()
    assert name == "FetchPush warp"
    assert found == pytest.approx(
        {
            "fixed_s": 2e-3,
            "s_per_world": 1e-6,
            "env_steps_per_s_of_ever_more_worlds": 1e6,
            "largest_measured_env_steps_per_s": 32768 / (2e-3 + 32768e-6),
        }
    )
    assert accelerator.costs(rows[:1]) == {}


def test_what_was_trained_is_scored_and_no_older_policy(tmp_path, monkeypatch):
    """A policy file of another commit is gone before training, which here fails."""
    path, scored = tmp_path / "report.json", []
    old = tmp_path / "report-FetchPush-warp-policy.npz"
    old.write_bytes(b"of another commit")
    monkeypatch.setattr(harness, "commit", lambda: "abc")
    monkeypatch.setattr(end_to_end, "transferred", lambda *words: scored.append(words[1]))
    agent = types.SimpleNamespace(acting=lambda learner: learner)
    mean: Any = jnp.full(2, 7.0)
    learned = policy.Acting(jnp.ones(3), mean, jnp.full(1, 5.0))
    state = types.SimpleNamespace(**learned._asdict())
    monkeypatch.setattr(accelerator, "untrained", lambda config: (None, agent, state))

    def main(training) -> list[str]:
        monkeypatch.setattr(accelerator, "training", training)
        other = ("memory", "first_step", "compiling_twice", "short_fidelity", "seeds_at_once")
        for name in other:
            monkeypatch.setattr(accelerator, name, lambda *_: {})
        monkeypatch.setattr(end_to_end, "parts", lambda *_, **__: {})
        monkeypatch.setattr(env_throughput, "measure", lambda *_, **__: [])
        accelerator.main(smoke=True, out=path)
        rows = metrics.read_json(path)["rows"]
        return [row["part"] for row in rows if "error" in row]

    failed = main(lambda *_: 1 / 0)
    assert failed == ["training of FetchPush on warp"] and not old.exists() and scored == []
    assert main(lambda *_: ({}, learned)) == []  # both, though it comes last of all
    assert len(scored) == 1
    assert main(lambda *_: 1 / 0) == []  # neither again
    (read,) = scored
    assert same(read, learned)


def test_a_device_that_no_longer_answers_ends_the_program(tmp_path, monkeypatch):
    """Parts that cannot work any more must not be left as failed."""
    path = tmp_path / "report.json"
    monkeypatch.setattr(harness, "commit", lambda: "abc")
    report = accelerator.Report(path, budget_s=90.0)
    report.part("a", lambda: 1 / 0)  # the device is well
    monkeypatch.setattr(jax, "block_until_ready", lambda _: 1 / 0)
    with pytest.raises(UserError, match="no longer answers after the part 'b'"):
        report.part("b", lambda: 1 / 0)
    assert [row["part"] for row in metrics.read_json(path)["rows"]] == ["a", "b"]
