"""Where a number comes from."""

from __future__ import annotations

import pytest

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
