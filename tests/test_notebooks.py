"""The notebooks run, as scripts and cell by cell; their helpers group and sum up rightly."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import cells
import curves
import presets
import published
import table
from conftest import REPO, with_
from her_jax.audit import record
from her_jax.errors import UserError
from her_jax.runner import Run

NOTEBOOKS = REPO / "experiments" / "notebooks"
FIGURES = {
    "learning_curves": {"learning_curves.png"},
    "inside_the_buffer": {"goals.png", "rewards.png", "drift.png"},
}


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
        run, state = cells.trained(cells.Options(env_steps=600, seed=1, out=folder))
    assert run.folder == folder and int(state.env_steps) == 600
    assert run.config.seed == 1
    return folder


def notebook(name: str, *words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs a notebook as a script in `folder`."""
    return subprocess.run(
        [sys.executable, str(NOTEBOOKS / f"{name}.py"), *words],
        cwd=folder,
        env=os.environ | {"MPLBACKEND": "Agg", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_every_notebook_is_tested():
    assert {path.stem for path in NOTEBOOKS.glob("*.py")} == set(FIGURES)


@pytest.mark.parametrize("name", FIGURES)
def test_notebooks_run_as_scripts(name, live, tmp_path):
    done = notebook(name, "--run", str(live), "--figures", "figures", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / "figures").iterdir()} == FIGURES[name]
    for path in (tmp_path / "figures").iterdir():
        assert path.read_bytes().startswith(b"\x89PNG")
    assert "Warning" not in done.stderr, done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--run nowhere", "run: nowhere is no folder"),
        ("--figures file", "figures: file cannot be made"),
    ],
)
def test_bad_options_get_one_line(words, message, tmp_path):
    (tmp_path / "file").touch()
    done = notebook("learning_curves", *words.split(), folder=tmp_path)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
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
    assert {figure.task for figure in figures} == set(presets.TASKS.values())


def write(folder: Path, success: list[float], **settings) -> Path:
    """A run folder with an evaluation after each 10 steps."""
    folder.mkdir()
    env = {"task": settings.pop("task", "Point"), "reward": "sparse", "tolerance": "v4"}
    config = {"seed": settings.pop("seed", 0), "env": env, "replay": {"k": 4.0}}
    config["agent"] = settings
    (folder / "config.json").write_text(json.dumps(config))
    lines = (
        {"epoch": i + 1, "env_steps": 10 * (i + 1), "requested_goal_success": value}
        for i, value in enumerate(success)
    )
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_runs_are_grouped_by_all_settings_but_the_seed(tmp_path):
    write(tmp_path / "a", [0.1, 0.2], seed=0, kind="one", rate=1)
    write(tmp_path / "b", [0.3, 0.4], seed=1, kind="one", rate=1)
    write(tmp_path / "c", [0.5, 0.6], seed=0, kind="two", temperature=2)
    write(tmp_path / "d", [0.7], task="Line", rate=1)
    (tmp_path / "no run").mkdir()
    panels = curves.read(curves.folders(tmp_path))
    assert [panel.task for panel in panels] == ["Point", "Line"]
    one, two = panels[curves.Panel("Point", "sparse", "v4")]
    assert [curve.folder.name for curve in one.curves] == ["a", "b"]
    # What all groups have comes first, whatever the order of the file.
    assert one.label == "kind one, rate 1" and two.label == "kind two, temperature 2"
    (line,) = panels[curves.Panel("Line", "sparse", "v4")]
    assert line.label == "this project"


def test_labels_count_what_they_do_not_name(tmp_path):
    write(tmp_path / "a", [0.1], a=1, b=1, c=1, d=1, e=1)
    write(tmp_path / "b", [0.1], a=2, b=2, c=2, d=2, e=1)
    first, second = next(iter(curves.read(curves.folders(tmp_path)).values()))
    assert first.label == "a 1, b 1, c 1, and 1 more"
    assert second.label == "a 2, b 2, c 2, and 1 more"


def test_quartiles_are_those_of_the_shared_steps(tmp_path):
    folders = [
        write(tmp_path / str(seed), [value, 0.5, 1.0][: 3 - (seed == 2)], seed=seed)
        for seed, value in enumerate((0.0, 0.1, 0.4))
    ]
    (group,) = next(iter(curves.read(folders).values()))
    found = curves.quartiles(group.curves)
    assert found.env_steps.tolist() == [10, 20]
    np.testing.assert_allclose(found.median, [0.1, 0.5])
    np.testing.assert_allclose(found.lower, [0.05, 0.5])
    np.testing.assert_allclose(found.upper, [0.25, 0.5])
    assert curves.steps_to(group.curves[0], 0.9) == 30
    assert curves.steps_to(group.curves[2], 0.9) == float("inf")


def test_runs_without_an_epoch_are_refused(tmp_path):
    with pytest.raises(UserError, match="with an epoch"):
        curves.read([write(tmp_path / "a", [])])
