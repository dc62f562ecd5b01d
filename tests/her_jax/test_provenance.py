"""Where a number comes from."""

from __future__ import annotations

import subprocess

import pytest

from conftest import REPO
from her_jax import provenance


def no_git(*_):
    raise FileNotFoundError("git")


def test_the_commit_is_the_checkouts_or_what_a_copy_is_told(monkeypatch):
    monkeypatch.setenv(provenance.COMMIT_VARIABLE, "abc")
    monkeypatch.setattr(provenance, "_git", no_git)
    assert provenance.commit() == "abc"
    monkeypatch.delenv(provenance.COMMIT_VARIABLE)
    assert provenance.commit() == provenance.UNKNOWN


@pytest.mark.parametrize(("status", "suffix"), [("", ""), (" M her_jax/train.py", "+changes")])
def test_edits_are_admitted(monkeypatch, status, suffix):
    answers = {"ls-files": "provenance.py", "rev-parse": "a" * 40, "status": status}
    monkeypatch.setattr(provenance, "_git", lambda folder, command, *_: answers[command])
    monkeypatch.setenv(provenance.COMMIT_VARIABLE, "abc")  # a checkout knows better
    assert provenance.commit() == "a" * 40 + suffix


def test_edits_are_looked_for_in_what_results_depend_on():
    try:
        watched = provenance._git(REPO, "ls-files", "--", *provenance._CODE).splitlines()
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no git checkout")
    assert {
        *("her_jax/agents/ddpg.py", "experiments/presets/fetch_push.py", "benchmarks/fidelity.py"),
        *("envs/her_envs/fetch/held_out/FetchPush.csv", "constraints.txt"),
    } <= {*watched}
    assert "README.md" not in watched
