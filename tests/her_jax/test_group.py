"""Several seeds as one program."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import shutil
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from conftest import SILENT, optimised, same, with_
from her_jax import group, metrics
from her_jax.config import Config, TD3Config
from her_jax.errors import UserError
from her_jax.runner import Run
from toy import PointEnv

SECONDS = {
    *("wall_s", "train_s", "eval_s", "audit_s", "compile_s"),
    *("train_steps_per_s", "sim_steps_per_s", "audit_share_of_time", "agents_in_program"),
}
"""What a run in a group may say otherwise than the same run alone."""


MODES = ("map", "vmap")
ENV = PointEnv()


def runs_of(config: Config, folder, seeds=(0, 1, 2)) -> list[Run]:
    """A folder for each seed."""
    return [
        Run(ENV, with_(config, seed=seed), folder / f"point-seed{seed}", SILENT) for seed in seeds
    ]


@pytest.fixture(scope="module")
def mapped(tmp_path_factory):
    """Three seeds of the toy, trained by one program, in the way of a CPU."""
    from conftest import tiny_config

    folder = tmp_path_factory.mktemp("group")
    with optimised():
        assert group.fit(runs_of(tiny_config(), folder), "map") == {}
    return folder


def without_seconds(values: dict) -> dict:
    return {name: value for name, value in values.items() if name not in SECONDS}


def test_a_seed_of_a_group_is_its_single_run_bit_for_bit(mapped, config, tmp_path):
    """Lines of every epoch, the whole final state, the summary and the audit."""
    with optimised():  # without, XLA rounds otherwise in one program than in another
        state, summary = Run(ENV, with_(config, seed=2), tmp_path / "r", SILENT).start()
    first, _, run = runs_of(config, mapped)
    epoch, together, about = run.restore()
    assert epoch == 4 and about["agents_in_program"] == 3
    assert same(together, state)
    lines = zip(metrics.read(run.folder), metrics.read(tmp_path / "r"), strict=True)
    for one, other in lines:
        assert without_seconds(one) == without_seconds(other)
    saved = json.loads((run.folder / "summary.json").read_text())
    assert without_seconds(saved) == without_seconds(summary)
    for name in ("audit.json", "audit.md", "config.json"):
        assert (run.folder / name).read_text() == (tmp_path / "r" / name).read_text()
    assert not same(first.restore()[1].learner, state.learner)


def test_every_seed_has_an_ordinary_folder(mapped, config, finished):
    for run in runs_of(config, mapped):
        names = {path.name for path in run.folder.iterdir()}
        assert names == {path.name for path in finished[2].iterdir()}
        assert [line["epoch"] for line in metrics.read(run.folder)] == [1, 2, 3, 4]
        assert sum(line["audited_rows"] for line in metrics.read(run.folder)) == 4 * 3 * 4
        summary = metrics.read_json(run.folder / metrics.SUMMARY)
        assert summary.keys() == finished[1].keys() and summary["agents_in_program"] == 3


def test_vmap_trains_the_same_agents_up_to_rounding(mapped, config, tmp_path):
    assert group.fit(runs_of(with_(config, env_steps=240), tmp_path), "vmap") == {}
    for run in runs_of(config, tmp_path):
        (line,) = metrics.read(run.folder)
        first = metrics.read(mapped / run.folder.name)[0]
        assert line["critic_loss"] == pytest.approx(first["critic_loss"], rel=1e-3)
        assert line["policy_value"] == pytest.approx(first["policy_value"], rel=1e-3)
        summary = metrics.read_json(run.folder / metrics.SUMMARY)
        assert summary["seed"] == run.config.seed and summary["env_steps"] == 240


def test_vmap_asks_agents_for_their_counter(config, tmp_path, monkeypatch):
    runs = runs_of(config, tmp_path)
    monkeypatch.setattr(group, "_COUNTERS", {".env_steps", ".learner.rounds"})
    with pytest.raises(UserError, match="agent: its state has no counter `updates`"):
        jax.eval_shape(group.epoch(runs[0], "vmap"), jax.eval_shape(lambda: group.start(runs)))


def test_counters_stay_scalars_under_vmap(config, tmp_path):
    """TD3's rare step of the actor and larger batches later on are branches; the ring is written
    where all agents do."""
    delayed = dataclasses.replace(config, agent=TD3Config(hidden=(8,), actor_period=2))
    staged = with_(delayed, late_batch_size=16, late_batch_env_steps=480)
    runs = runs_of(staged, tmp_path)
    states = jax.eval_shape(lambda: group.start(runs))
    traced = {mode: str(jax.make_jaxpr(group.epoch(runs[0], mode))(states)) for mode in MODES}
    assert traced["vmap"].count(" cond[") == traced["map"].count(" cond[") > 1
    written = re.findall(r"scatter\[.*?operand_batching_dims=(\(.*?\))", traced["vmap"], re.DOTALL)
    assert len(written) >= 4 and set(written) == {"()"}  # with a place for each: "(0,)"


def test_every_reopened_seed_has_its_own_state(mapped, config, tmp_path):
    shutil.copytree(mapped, tmp_path / "g")
    runs = runs_of(with_(config, env_steps=1200), tmp_path / "g")
    (reopened,) = group._begun(runs, "map", runs[0].prepare(3), contextlib.ExitStack())
    for i, run in enumerate(runs):
        assert same(group.pick(reopened.states, i), run.restore()[1])
        assert reopened.abouts[i]["commits"]


def test_seeds_that_lack_only_their_audit_compile_no_training(
    mapped, config, tmp_path, monkeypatch
):
    shutil.copytree(mapped, tmp_path / "g")
    runs = runs_of(config, tmp_path / "g")
    for run in runs:
        (run.folder / "summary.json").unlink()
    finished = []
    monkeypatch.delattr(Run, "announce")
    monkeypatch.delattr(group._Group, "_compile")
    monkeypatch.setattr(Run, "finish", lambda run, *_: finished.append(run.folder))
    assert group.fit(runs, "map") == {}
    assert finished == [run.folder for run in runs]


def test_seeds_with_a_larger_budget_are_not_finished(mapped, config, monkeypatch):
    begun = []
    monkeypatch.setattr(group, "_begun", lambda runs, *_: begun.extend(runs) or [])
    for env_steps, count in ((480, 0), (960, 0), (1200, 3)):
        runs = runs_of(with_(config, env_steps=env_steps), mapped)
        assert group.fit(runs, "map") == {} and len(begun) == count


def test_a_folder_that_is_in_the_way_leaves_no_other_behind(config, tmp_path):
    runs = runs_of(config, tmp_path, (0, 1))
    runs[1].folder.mkdir()
    with pytest.raises(UserError, match="point-seed1 already exists"):
        group.fit(runs, "map")
    assert [path.name for path in tmp_path.iterdir()] == [runs[1].folder.name]


def test_a_folder_that_is_in_the_way_leaves_finished_runs_as_they_are(mapped, config, tmp_path):
    runs = runs_of(with_(config, env_steps=1200), tmp_path, (0, 1))
    shutil.copytree(mapped / runs[0].folder.name, runs[0].folder)
    runs[1].folder.mkdir()
    with pytest.raises(UserError, match="point-seed1 already exists"):
        group.fit(runs, "map")
    assert (runs[0].folder / metrics.SUMMARY).is_file()


def test_a_refused_seed_takes_its_state_and_no_other_with_it(config, tmp_path):
    runs = runs_of(config, tmp_path)
    goals: Any = None
    states: Any = {"x": jnp.arange(3.0)}
    members = group._Group(runs, [{"seed": i} for i in range(3)], states, 0, "map", goals)
    members._compiled = (print, print)

    def call(i: int) -> int:
        if i == 1:
            raise UserError("training: critic_loss not finite")
        return 10 * i

    assert members._each(call) == [0, 20]
    assert [run.config.seed for run in members.runs] == [0, 2]
    assert [about["seed"] for about in members.abouts] == [0, 2]
    left: Any = members.states
    assert left["x"].tolist() == [0, 2] and members._compiled is None
    assert members.stopped == {runs[1].folder: "training: critic_loss not finite"}


@pytest.mark.slow
def test_interrupted_groups_end_where_uninterrupted_ones_do(mapped, config, tmp_path):
    """Killed between the checkpoints of two seeds, and before that of a third."""
    half, whole = with_(config, env_steps=480), runs_of(config, mapped)
    for run in runs_of(half, tmp_path, (0, 1)):
        shutil.copytree(mapped / run.folder.name, run.folder)
    (tmp_path / "point-seed0" / "summary.json").unlink()  # trained, not yet audited
    shutil.rmtree(tmp_path / "point-seed1")
    with optimised():
        group.fit(runs_of(half, tmp_path, (1,)), "map")
        assert group.fit(runs_of(config, tmp_path), "map") == {}
    for run, reference in zip(runs_of(config, tmp_path), whole, strict=True):
        assert same(run.restore()[1], reference.restore()[1])
        assert [line["epoch"] for line in metrics.read(run.folder)] == [1, 2, 3, 4]
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert group.fit(runs_of(config, tmp_path), "map") == {}  # nothing is left to do
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


@pytest.mark.slow
def test_a_seed_that_stops_leaves_the_others_to_go_on(mapped, config, tmp_path, monkeypatch):
    check = Run.check

    def refuse(run, state, *rest):
        if run.config.seed == 1 and int(state.env_steps) == 480:
            raise UserError("training: critic_loss not finite")
        return check(run, state, *rest)

    monkeypatch.setattr(Run, "check", refuse)
    with optimised():
        stopped = group.fit(runs_of(config, tmp_path), "map")
    assert stopped == {tmp_path / "point-seed1": "training: critic_loss not finite"}
    assert len(metrics.read(tmp_path / "point-seed1")) == 1
    assert not (tmp_path / "point-seed1" / "summary.json").exists()
    for seed in (0, 2):
        ours, theirs = (runs_of(config, folder)[seed] for folder in (tmp_path, mapped))
        assert same(ours.restore()[1], theirs.restore()[1])


def test_what_one_program_cannot_train_is_refused(config, tmp_path):
    runs = [*runs_of(config, tmp_path, (0,)), *runs_of(with_(config, k=1.0), tmp_path, (1,))]
    with pytest.raises(UserError, match="differ in more than the seed"):
        group.fit(runs)
    with pytest.raises(UserError, match="batch: 'pmap' is unknown; choose one of auto, map, vmap"):
        group.fit(runs_of(config, tmp_path), "pmap")
    with pytest.raises(UserError, match="GB for 4 goal buffers"):
        runs = runs_of(config, tmp_path)
        monstrous = with_(config, capacity=2**33)
        for run in runs:
            run.config = with_(monstrous, seed=run.config.seed)
        group.fit(runs)
    assert not list(tmp_path.iterdir())
