"""Where a number comes from."""

from __future__ import annotations

import re

from her_jax import provenance


def no_git(*_):
    raise FileNotFoundError("git")


def test_the_commit_is_the_checkouts_or_what_a_copy_is_told(monkeypatch):
    monkeypatch.setenv(provenance.COMMIT_VARIABLE, "abc")
    if provenance.commit() != "abc":  # a checkout knows better
        assert re.fullmatch("[0-9a-f]{40}(\\+changes)?", provenance.commit())
    monkeypatch.setattr(provenance, "_git", no_git)
    assert provenance.commit() == "abc"
    monkeypatch.delenv(provenance.COMMIT_VARIABLE)
    assert provenance.commit() == provenance.UNKNOWN
