"""The notebooks run, as scripts and cell by cell; published figures say where they come from."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import cells
import presets
import published
import table
from conftest import REPO, SCRIPT_ENVIRONMENT, script, with_
from her_envs import bitflip
from her_jax import metrics
from her_jax.audit import record
from her_jax.runner import Run

NOTEBOOKS = REPO / "experiments" / "notebooks"
FIGURES = {
    "learning_curves": {"learning_curves.png"},
    "inside_the_buffer": {"goals.png", "rewards.png", "drift.png"},
    "throughput": {"throughput.png"},
}
LIVE_ON_TINY = ("--task", "FetchReach", "--num-envs", "1", "2", "--steps", "2")


@pytest.fixture(scope="module")
def live(tmp_path_factory) -> Path:
    """Folder of the run that a notebook trains, made small.

    Its audit, which has tests of its own and takes longest to compile, is that of a committed run.
    """
    tiny = with_(
        presets.load("tuned", "fetch-reach"),
        num_envs=2, cycles_per_epoch=2, updates_per_cycle=2, eval_episodes=4, capacity=8,
        batch_size=8, hidden=(8,),
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("notebooks") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(presets, "load", lambda preset, task: tiny)
        patch.setattr(Run, "audit", lambda *_: record.read(table.committed()[0]))
        run = cells.trained(cells.Options(env_steps=600, seed=1, out=folder))
    assert run.folder == folder and run.config.seed == 1
    assert metrics.read(folder)[-1]["env_steps"] == 600
    return folder


def notebook(name: str, *words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs a notebook as a script in `folder`."""
    return subprocess.run(
        [sys.executable, str(NOTEBOOKS / f"{name}.py"), *words],
        cwd=folder,
        env=SCRIPT_ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_every_notebook_is_tested():
    assert {path.stem for path in NOTEBOOKS.glob("*.py")} == set(FIGURES)


@pytest.mark.parametrize("name", FIGURES)
def test_notebooks_run_as_scripts(name, live, tmp_path):
    small = LIVE_ON_TINY if name == "throughput" else ("--run", str(live))
    done = notebook(name, *small, "--figures", "figures", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / "figures").iterdir()} == FIGURES[name]
    for path in (tmp_path / "figures").iterdir():
        assert path.read_bytes().startswith(b"\x89PNG")
    assert "Warning" not in done.stderr, done.stderr


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("learning_curves", "--run nowhere", "run: nowhere is no folder"),
        ("learning_curves", "--run nowhere --seed 3", "seed: without effect on a run"),
        ("learning_curves", "--figures file", "figures: file cannot be made"),
        ("inside_the_buffer", "--k -1", "k: -1.0 must be finite and at least 0"),
        ("throughput", "--contestants me", "contestants: 'me' is unknown"),
    ],
)
def test_bad_options_get_one_line(name, words, message, tmp_path):
    (tmp_path / "file").touch()
    (line,) = script(f"notebooks/{name}", *words.split(), folder=tmp_path, rc=2).splitlines()
    assert line.startswith(f"error: {message}")


@pytest.mark.parametrize("name", FIGURES)
def test_notebooks_are_in_the_percent_format(name):
    jupytext = pytest.importorskip("jupytext")
    source = (NOTEBOOKS / f"{name}.py").read_text()
    read = jupytext.reads(source, fmt="py:percent")
    kinds = [cell.cell_type for cell in read.cells]
    assert kinds[0] == "markdown" and {"markdown", "code"} == set(kinds)
    assert sum("parameters" in cell.metadata.get("tags", []) for cell in read.cells) == 1
    assert read.metadata["kernelspec"]["name"] == "python3"
    again = jupytext.reads(jupytext.writes(read, fmt="py:percent"), fmt="py:percent")
    assert [cell.source for cell in again.cells] == [cell.source for cell in read.cells]


def test_published_figures_say_where_they_come_from():
    figures = published.figures()
    assert len(figures) > 20
    for figure in figures:
        assert figure.read in published.READ and figure.source and figure.env_steps > 0
        assert figure.success is None or 0 < figure.success <= 1
    assert {figure.task for figure in figures} == set(presets.TASKS.values()) - {bitflip.NAME}
