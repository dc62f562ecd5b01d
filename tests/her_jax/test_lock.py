"""One process at a time in a run's folder."""

from __future__ import annotations

import subprocess
import sys

import pytest

from conftest import SILENT, with_
from her_jax import group, lock
from her_jax.errors import UserError
from her_jax.runner import Run

HOLDER = """
import pathlib, sys, time
from her_jax import lock
with lock.alone(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def contents(folder) -> dict:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused():
    return pytest.raises(UserError, match=r"another process writes to .*; wait for it, or stop it")


def test_a_second_one_is_refused_until_the_first_has_left(tmp_path):
    with lock.alone(tmp_path), refused(), lock.alone(tmp_path):
        raise AssertionError
    with lock.alone(tmp_path):
        assert list(tmp_path.iterdir()) == []


def test_a_process_that_is_killed_lets_go(tmp_path):
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with refused(), lock.alone(tmp_path):
            raise AssertionError
        holder.kill()
    with lock.alone(tmp_path):
        pass


def test_a_missing_folder_is_not_made(tmp_path):
    with lock.alone(tmp_path / "missing"):
        assert not (tmp_path / "missing").exists()


def test_a_run_in_use_is_not_resumed_and_stays(toy, config, copied):
    longer = with_(config, env_steps=1200)
    before = contents(copied)
    with lock.alone(copied), refused():
        Run(toy, longer, copied, SILENT).resume()
    with lock.alone(copied), refused():
        group.fit([Run(toy, longer, copied, SILENT)])
    assert contents(copied) == before


def test_runs_are_kept_while_they_train(toy, config, copied, tmp_path, monkeypatch):
    kept = []

    def instead(self, *_):
        for run in getattr(self, "runs", [self]):
            with refused(), lock.alone(run.folder):
                raise AssertionError
            kept.append(run.folder.name)
        return {}

    monkeypatch.setattr(Run, "_loop", instead)
    monkeypatch.setattr(group._Group, "train", instead)
    Run(toy, config, tmp_path / "new", SILENT).start()
    Run(toy, with_(config, env_steps=1200), copied, SILENT).resume()
    several = [Run(toy, with_(config, seed=i), tmp_path / f"{i}", SILENT) for i in (0, 1)]
    assert group.fit(several) == {}
    assert kept == ["new", "r", "0", "1"]
    for name in kept:
        with lock.alone(tmp_path / name):
            pass
