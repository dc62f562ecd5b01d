"""experiments/sweep.py, plots and tables of several seeds, on the toy; the programs' bits are in
her_jax/test_group.py."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import grouping
import launch
import plot
import presets
import sweep
import table
import train
from conftest import REPO, SCRIPT_ENVIRONMENT, SILENT, ddpg, script, with_
from her_jax import group, lock, memory, metrics, provenance, relabel
from her_jax.audit import record
from her_jax.errors import UserError
from her_jax.runner import Run
from toy import PointEnv

TINY = [
    *("--env-steps", "60", "--num-envs", "2", "--cycles-per-epoch", "1"),
    *("--updates-per-cycle", "2", "--batch-size", "8", "--capacity", "4"),
    *("--eval-episodes", "4", "--checkpoint-period", "1", "--hidden", "8"),
]
GRID = ["--seeds", "0", "1", "--grid", "strategy=future,none"]


def bind_toy(config, folder):
    return Run(PointEnv(name=config.env.task), config, folder, SILENT)


def audit(run: Run, *_: Any) -> record.AuditRecord:
    """In the place of a run's own, which has tests of its own and takes longest to compile."""
    committed = record.read(table.committed()[0])
    metrics.write_text(run.folder / record.MARKDOWN, record.markdown(committed))
    return committed


def command(monkeypatch, *words: str) -> None:
    """Runs sweep.py with the toy in the place of every task, and without audits."""
    monkeypatch.setattr(Run, "audit", audit)
    monkeypatch.setattr(launch, "bind", bind_toy)
    monkeypatch.setattr(launch, "make_envs", lambda settings: (PointEnv(name=settings.task), None))
    monkeypatch.setattr(launch, "console", SILENT)
    monkeypatch.setattr(sys, "argv", ["sweep.py", *words])
    sweep.main()


@pytest.fixture(scope="module")
def swept(tmp_path_factory) -> Path:
    """Two settings of two seeds."""
    folder = tmp_path_factory.mktemp("sweep") / "s"
    with pytest.MonkeyPatch.context() as monkeypatch:
        command(monkeypatch, "fetch-reach", *TINY, *GRID, "--out", str(folder))
    return folder


def test_a_sweep_leaves_run_folders_and_says_what_it_was(swept):
    names = {path.name for path in swept.iterdir()}
    runs = {f"strategy={s}-seed{i}" for s in ("future", "none") for i in (0, 1)}
    assert names == runs | {"sweep.json", "curves.png", "curves.csv", "table.md"}
    for name in runs:
        summary = metrics.read_json(swept / name / metrics.SUMMARY)
        config = launch.read_config(swept / name)
        assert summary["env_steps"] == 60 and summary["agents_in_program"] == 2
        assert name == f"strategy={config.replay.strategy}-seed{config.seed}"
        assert (swept / name / "audit.md").is_file() and (swept / name / "checkpoints").is_dir()
    about = json.loads((swept / "sweep.json").read_text())
    (sitting,) = about["sittings"]
    assert sitting["command"] == provenance.command() and sitting["batch"] in ("map", "vmap")
    assert {"commit", "device", "versions"} <= set(sitting) and sitting["wall_s"] > 0
    assert about["seeds"] == [0, 1] and sitting["stopped"] == {}
    assert [entry["changes"]["strategy"] for entry in about["settings"]] == ["future", "none"]
    assert "| strategy=future | 0, 1 | 60 |" in (swept / "table.md").read_text()


def test_its_picture_is_drawn_anew_in_its_folder(swept, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (swept / plot.CURVES).unlink()
    plot.main((swept,))
    assert (swept / plot.CURVES).is_file()
    before = (swept / plot.CURVES).read_bytes()
    plot.main((swept,), against="k")
    assert (swept / plot.CURVES).read_bytes() == before and not list(tmp_path.iterdir())
    (swept / plot.FIGURE).unlink()


def test_the_folder_of_a_sweep_stands_for_its_runs(swept, tmp_path):
    assert grouping.members(swept) == sorted(swept.glob("strategy=*"))
    alone = swept / "strategy=none-seed0"
    assert grouping.members(alone) == [alone]
    (tmp_path / grouping.SWEEP).touch()
    with pytest.raises(UserError, match="is a sweep without an epoch"):
        grouping.members(tmp_path)


def test_of_several_folders_those_without_an_epoch_are_left_out(swept, tmp_path, capfd):
    """As a shell gives them for `runs/*`, with what benchmarks and notebooks have written there."""
    run = next(swept.glob("strategy=*"))
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "curves.png").touch()
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / grouping.SWEEP).touch()
    others = [tmp_path / "benchmarks", tmp_path / "curves.png", tmp_path / "begun"]
    assert grouping.named([*others, run]) == [run]
    assert "benchmarks holds no epoch of a run; left out" in capfd.readouterr().err
    with pytest.raises(UserError, match="runs: none holds an epoch"):
        grouping.named(others)
    assert grouping.named([tmp_path / "nowhere", run])[0] == tmp_path / "nowhere"  # refused later


def test_resume_makes_what_is_missing_and_touches_nothing_else(swept, tmp_path, monkeypatch):
    folder = tmp_path / "s"
    shutil.copytree(swept, folder)
    audited, begun = folder / "strategy=none-seed0", folder / "strategy=none-seed1"
    (audited / metrics.SUMMARY).unlink()
    shutil.rmtree(begun / "checkpoints")
    (begun / metrics.SUMMARY).unlink()
    shutil.rmtree(folder / "strategy=future-seed1" / "checkpoints")  # of a run that is finished
    whole = sorted(folder.glob("strategy=future*/*"))
    before = {path: path.stat().st_mtime_ns for path in whole}
    command(monkeypatch, "--resume", str(folder))
    assert {path: path.stat().st_mtime_ns for path in whole} == before
    for run in (audited, begun):
        ours, theirs = (metrics.read(parent / run.name) for parent in (folder, swept))
        assert [line["requested_goal_success"] for line in ours] == [
            line["requested_goal_success"] for line in theirs
        ]
        assert (run / metrics.SUMMARY).is_file()
    assert len(sweep.read(folder)["sittings"]) == 2


SOON = """
import jax
from her_jax import relabel
from her_jax.types import Moment

def soon(key, step, stored, horizon):
    return Moment(step.episode, step.time + 1)

relabel.register("soon", soon, audited_as="future")
"""


def test_a_sweep_keeps_its_plugin_and_goes_on_from_anywhere(tmp_path, monkeypatch):
    (tmp_path / "soon.py").write_text(SOON)
    words = ["fetch-reach", *TINY, "--seeds", "0", "--plugin", "soon.py"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(group, "fit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        command(monkeypatch, *words, "--grid", "strategy=soon", "--out", "s")
    (tmp_path / "soon.py").unlink()
    relabel.forget()
    monkeypatch.chdir("/")
    monkeypatch.setattr(group, "fit", created)
    with pytest.raises(UserError, match="1 runs have stopped; the first: not trained"):
        command(monkeypatch, "--resume", str(tmp_path / "s"))
    assert relabel.AUDITED_AS["soon"] == "future"
    run = tmp_path / "s" / "strategy=soon-seed0"
    assert (run / "plugin.py").read_text() == SOON
    (tmp_path / "s" / "plugin.py").write_text(SOON.replace("+ 1", "+ 1 * 1"))
    with pytest.raises(UserError, match="is not that of strategy=soon-seed0; restore it"):
        command(monkeypatch, "--resume", str(tmp_path / "s"))
    other = shutil.copytree(run, tmp_path / "other")
    (other / "plugin.py").write_text(SOON + "# another version")
    assert len(grouping.alike([run, other])) == 2
    relabel.forget()
    assert set(relabel.AUDITED_AS) == set(relabel.STRATEGIES) >= {"future", "none"}


def test_what_could_not_begin_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    (tmp_path / "soon.py").write_text(SOON)
    monkeypatch.chdir(tmp_path)
    words = ["fetch-reach", *TINY, "--out", "s"]
    for more, free, message in (
        (["--eval-episodes", "1000000000"], 10**9, "episodes: 1000000000 are more than memory"),
        (["--grid", "k=4,8"], 10, "capacity: 4 episodes need"),
        (["--plugin", "soon.py", "--grid", "k=4,8"], 10**9, "plugin: soon.py registers soon, and"),
    ):
        monkeypatch.setattr(memory, "free_bytes", lambda free=free: free)
        with pytest.raises(UserError, match=message):
            command(monkeypatch, *words, *more)
        assert not (tmp_path / "s").exists()
    relabel.forget()


def test_a_setting_that_cannot_run_leaves_the_others(swept, tmp_path, monkeypatch):
    """One that memory holds no more when its turn has come, say."""
    folder = shutil.copytree(swept, tmp_path / "s")
    groups, asked = sweep.reopen(folder)[1], []
    for runs in groups:
        (runs[0].folder / metrics.SUMMARY).unlink()

    def fit(runs, _):
        asked.append(runs)
        if len(asked) == 1:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory\nand much more")
        raise UserError(f"capacity: {len(asked)}")

    monkeypatch.setattr(group, "fit", fit)
    first = rf"{len(groups)} runs have stopped; the first: memory: the device ran out \(RES\S+ Out"
    with pytest.raises(UserError, match=first):
        command(monkeypatch, "--resume", str(folder))
    assert len(asked) == len(groups) > 1


def test_an_interrupted_sweep_says_how_to_go_on(tmp_path, monkeypatch):
    said: list[str] = []
    monkeypatch.setattr(launch.status, "print", lambda text, **_: said.append(text))
    monkeypatch.setattr(group, "fit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        command(monkeypatch, "fetch-reach", *GRID, *TINY, "--out", str(tmp_path / "s"))
    assert said[-1] == f"go on with sweep.py --resume {tmp_path / 's'}"


def interrupted(*_):
    """In the place of `group.fit`."""
    raise KeyboardInterrupt


def created(runs, _):
    """In the place of `group.fit`: only makes the folders."""
    return {run.folder: "not trained" for run in runs if run.create()}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "task: none given; name one of fetch-reach"),
        ("fetch-pull", "task: 'fetch-pull' is unknown"),
        ("fetch-push --grid kk=1,2", "grid: 'kk' is no setting; choose some of"),
        ("fetch-push --grid agent=ddpg,sac", "grid: 'agent' is the same in a whole sweep"),
        ("fetch-push --grid env_steps=1,2", "grid: 'env_steps' is no setting; choose some of"),
        ("fetch-push --grid k", "grid: 'k' is no setting with values; give e.g. k=4,8"),
        ("fetch-push --grid k=4,", "grid: 'k=4,' is no setting with values"),
        ("fetch-push --grid k=4,abc", "options: Error parsing --k: could not convert"),
        ("fetch-push --grid k=4,-1", "k: -1.0 must be finite"),
        ("fetch-push --grid k=4,4.0", "grid: k=4 and k=4.0 are one setting"),
        ("fetch-push --grid layer_norm=true,1", "grid: layer_norm: '1' is neither true nor false"),
        ("fetch-push --no_video", "video: a sweep records none"),
        ("fetch-push --grid k=4 k=8", "grid: 'k' is named twice"),
        ("fetch-push --grid strategy=best", "strategy: 'best' is unknown"),
        ("fetch-push --grid seed=0,1", "give --seeds 0 1 2"),
        ("fetch-push --seed 3", "seed: a sweep has several; give --seeds"),
        ("fetch-push --seeds 0 0", "seeds: (0, 0) are not different ones"),
        ("fetch-push --seeds -1", "seeds: -1 must lie in"),
        ("fetch-push --batch pmap", "batch: 'pmap' is unknown; choose one of auto, map, vmap"),
        ("fetch-push --figure 7", "figure: '7' is unknown; choose one of strategies, bits"),
        ("fetch-push --figure updates --grid k=1", "figure, grid: both given"),
        ("fetch-push --num-envs 7", "capacity: "),
        ("fetch-push --nconmax 64", "nconmax: without effect on native physics"),
        ("fetch-push --grid nconmax=64,128", "nconmax: without effect on native physics"),
        ("fetch-push --priority uniform --priority-share 1", "priority_share: without effect with"),
        ("fetch-push --k 8 --grid k=4,16", "k: the sweep sets it; leave the option out"),
        ("fetch-push --replay.k=8 --figure strategies", "k: the sweep sets it"),
        (
            "fetch-push --no-layer-norm --grid layer_norm=true,false",
            "layer_norm: the sweep sets it",
        ),
        ("bit-flip --figure updates", "figure: 'updates' is not of bit-flip; give a Fetch task"),
    ],
)
def test_bad_input_gets_one_line(words, message):
    with pytest.raises(UserError) as error:
        sweep.parse(words.split())
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("settings", [[], [{"changes": {}}], {}, None])
def test_a_damaged_sweep_is_refused(tmp_path, settings):
    whole = {"seeds": [0], "batch": "map", "against": None, "sittings": [], "settings": settings}
    (tmp_path / "sweep.json").write_text(json.dumps(whole))
    with pytest.raises(UserError, match="names no whole settings; restore it"):
        sweep.read(tmp_path)


def test_bad_folders_get_one_line_and_are_untouched(swept, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in swept.rglob("*")}
    for words, message in (
        (("fetch-reach", *TINY, *GRID, "--out", str(swept)), "already exists; name a new folder, "),
        (("--resume", str(tmp_path)), "holds no sweep.json"),
        (("fetch-reach", "--resume", str(swept)), "task: the folder knows it"),
        (("--resume", str(swept)), f"another process writes to {swept}"),
    ):
        with lock.alone(swept):
            (line,) = script("sweep", *words, folder=tmp_path, rc=2).splitlines()
        assert message in line
    assert {path: path.stat().st_mtime_ns for path in swept.rglob("*")} == before


def test_settings_are_what_train_would_make_of_them():
    found, out = sweep.parse(
        ["fetch-push", "--noise-std", "0.1", "--seeds", "5", "--grid", "hidden=64 64,8", "k=2"]
    )
    assert out is None and found.seeds == (5,) and found.by == ("hidden", "k")
    assert [setting.label for setting in found.settings] == ["hidden=64x64,k=2", "hidden=8,k=2"]
    base = train.parse(["fetch-push", "--noise-std", "0.1"]).config
    assert found.settings[0].config == with_(base, hidden=(64, 64), k=2.0)
    assert found.settings[1].config == with_(base, hidden=(8,), k=2.0)
    flags = sweep.parse(["fetch-push", "--grid", "layer_norm=true,False"])[0].settings
    assert [ddpg(setting.config).layer_norm for setting in flags] == [True, False]
    (alone,) = sweep.parse(["fetch-push"])[0].settings
    assert alone.label == "fetch-push"
    assert sweep.Sweep.from_dict(json.loads(json.dumps(found.to_dict()))) == found


@pytest.mark.parametrize(
    ("grid", "left"),
    [
        ("strategy=none,future k=4,8", ["none,4", "future,4", "future,8"]),
        ("k=0,4 min_displacement=0,0.01", ["0,0", "4,0", "4,0.01"]),
        ("priority=uniform,energy priority_share=0,1", ["uniform,0", "energy,0", "energy,1"]),
        ("physics=native,warp nconmax=32,64", ["native,32", "warp,32", "warp,64"]),
    ],
)
def test_what_has_no_effect_in_a_training_makes_no_second_one(grid, left, capsys):
    settings = sweep.parse(["fetch-push", "--grid", *grid.split()])[0].settings
    assert [",".join(setting.changes.values()) for setting in settings] == left
    assert "is the same training as" in capsys.readouterr().out


def test_a_fixed_temperature_follows_no_target():
    words = ["fetch-push", "--algorithm", "sac", "--no-tune-temperature"]
    words += ["--target-entropy-per-action", "-2"]
    config = train.parse(words).config
    with pytest.raises(UserError, match="entropy_per_action: without effect with a fixed temp"):
        train.require_effect(train.named(words), [config])
    assert grouping.settings(config)["target_entropy_per_action"] == -1


def test_figures_are_those_of_the_papers():
    def configs(name):
        return [s.config for s in sweep.parse(["fetch-push", "--figure", name])[0].settings]

    strategies = [(c.replay.strategy, c.replay.k) for c in configs("strategies")]
    assert len(strategies) == len(set(strategies)) == 1 + 4 * 5
    assert {k for name, k in strategies if name == "episode"} == {1, 2, 4, 8, 16}
    rewards = {(c.env.reward, c.replay.strategy) for c in configs("rewards")}
    assert rewards == {(r, s) for r in ("sparse", "dense") for s in ("future", "none")}
    assert [c.train.updates_per_cycle for c in configs("updates")] == [25, 50, 100, 200]
    goals = {(c.env.goal, c.replay.strategy) for c in configs("goals")}
    assert goals == {(g, s) for g in ("single", "many") for s in ("future", "none")}


def test_every_setting_trains_in_the_environment_that_it_names(tmp_path, monkeypatch):
    made = []

    def make(settings):
        made.append((settings, PointEnv(name=settings.task)))
        return made[-1][1], None

    monkeypatch.setattr(launch, "make_envs", make)
    words = ["fetch-push", "--figure", "rewards", "--seeds", "0", "1", "--priority", "uniform"]
    groups = sweep.bind(sweep.parse(words)[0], tmp_path)
    runs = [run for members in groups for run in members]
    assert len(runs) == 8 and len(made) == 2  # sparse and dense; strategies share them
    for settings, env in made:
        served = [run for run in runs if run.env is env]
        assert len(served) == 4 and all(run.config.env == settings for run in served)


def test_every_size_of_the_bit_figure_gets_as_many_episodes():
    found = sweep.parse(["bit-flip", "--figure", "bits"])[0]
    assert found.against == "n" and found.by == ("n", "strategy")
    budgets = {(s.config.env.n, s.config.train.env_steps) for s in found.settings}
    assert (15, 750_000) in budgets and (50, 2_500_000) in budgets
    short = sweep.parse(["bit-flip", "--figure", "bits", "--env-steps", "640"])[0]
    assert {s.config.train.env_steps for s in short.settings} == {640}
    usual = str(presets.load("tuned", "bit-flip", 10).train.env_steps)
    same = sweep.parse(["bit-flip", "--figure", "bits", f"--train.env-steps={usual}"])[0]
    assert {str(s.config.train.env_steps) for s in same.settings} == {usual}
    with pytest.raises(UserError, match="figure: 'bits' is not of fetch-push; give bit-flip"):
        sweep.parse(["fetch-push", "--figure", "bits"])


def write_run(folder: Path, success: list[float], words: tuple[str, ...] = (), **changes) -> Path:
    """A finished run with these successes, of which only what plots read is written."""
    config = with_(train.parse(["fetch-push", *words]).config, **changes)
    folder.mkdir(parents=True)
    metrics.write_json(folder / metrics.CONFIG, config.to_dict())
    for i, share in enumerate(success, 1):
        line = {"epoch": i, "env_steps": 100 * i, "requested_goal_success": share}
        metrics.append(folder, line)
    summary = {
        "seed": config.seed,
        "env_steps": 100 * len(success),
        "requested_goal_success": success[-1] if success else 0.0,
        "no_action_success": 0.25,
    }
    metrics.write_json(folder / metrics.SUMMARY, summary)
    return folder


@pytest.fixture
def runs(tmp_path) -> list[Path]:
    """Two settings of three seeds, one seed of the second not finished."""
    made = [
        write_run(tmp_path / f"{strategy}{seed}", success, strategy=strategy, seed=seed)
        for strategy, curves in {
            "future": ([0.0, 0.9], [0.5, 1.0], [0.9, 0.8]),
            "none": ([0.1, 0.2], [0.3, 0.4], [0.5]),
        }.items()
        for seed, success in enumerate(curves)
    ]
    (made[-1] / metrics.SUMMARY).unlink()
    return made


def test_runs_that_differ_in_the_seed_only_are_one_curve(runs, tmp_path):
    longer = write_run(
        tmp_path / "longer", [0.0, 0.1, 0.2], strategy="none", seed=7, audited_rows=0
    )
    future, none = grouping.alike([*runs, longer])
    assert (future.label, none.label) == ("strategy=future", "strategy=none")
    assert future.runs == tuple(runs[:3]) and none.runs == (*runs[3:], longer)
    assert grouping.alike(runs[:3])[0].label == ""


def test_panels_say_what_is_trained_and_what_counts_as_success(tmp_path):
    """Of an environment of one's own no tolerance is known here."""
    runs = [
        write_run(tmp_path / "push", [0.5]),
        write_run(tmp_path / "dense", [0.5], reward="dense", goal="single"),
        write_run(tmp_path / "own", [0.5], task="Point"),
        write_run(tmp_path / "bits", [0.5], task="BitFlip", n=12),
    ]
    assert [seeds.title for seeds in grouping.alike(runs)] == [
        "FetchPush, sparse reward, within 5 cm",
        "FetchPush, dense reward, single goal, within 5 cm",
        "Point",
        "BitFlip, 12 bits",
    ]


def test_labels_say_what_was_not_trained_or_scored_on_the_original(tmp_path):
    """Even where all curves of a picture have it."""
    warp = write_run(tmp_path / "warp", [0.5], physics="warp")
    assert labels([warp]) == ["physics=warp"]
    fast = write_run(tmp_path / "fast", [0.5], physics="warp", model="fast", scored_on="warp")
    assert all("physics=warp" in one for one in labels([warp, fast]))
    plot.write_csv([warp], tmp_path / "curves.csv")
    assert (tmp_path / "curves.csv").read_text().endswith(",warp,stock,native\n")


def labels(runs: list[Path]) -> list[str]:
    return [seeds.label for seeds in grouping.alike(runs)]


def test_settings_of_other_agents_are_folded_to_their_name(tmp_path):
    ddpg = write_run(tmp_path / "ddpg", [0.1])
    sac = write_run(tmp_path / "sac", [0.1], ("--algorithm", "sac"))
    assert labels([ddpg, sac]) == ["agent=ddpg", "agent=sac"]
    fast = write_run(
        tmp_path / "fast", [0.1], ("--algorithm", "sac"), temperature=0.5, strategy="none"
    )
    assert labels([ddpg, sac, fast]) == [
        "agent=ddpg, strategy=future",
        "agent=sac, strategy=future, temperature=0.1",
        "agent=sac, strategy=none, temperature=0.5",
    ]


def test_labels_name_what_tells_runs_apart_and_count_the_rest(tmp_path):
    """What the second changed at once, the third shares with it: only `k` tells these apart."""
    other: dict[str, Any] = {
        "num_envs": 8, "updates_per_cycle": 7, "capacity": 80, "batch_size": 3, "hidden": (8, 8)
    }  # fmt: skip
    runs = [
        write_run(tmp_path / "a", [0.1]),
        write_run(tmp_path / "b", [0.1], **other),
        write_run(tmp_path / "c", [0.1], k=2.0, **other),
    ]
    assert labels(runs)[1:] == [
        "num_envs=8, k=4, updates_per_cycle=7, +3 more",
        "num_envs=8, k=2, updates_per_cycle=7, +3 more",
    ]
    by = grouping.alike(runs, ("capacity", "batch_size", "hidden", "k"))
    assert by[2].label == "capacity=80, batch_size=3, hidden=8 8, k=2"
    plot.over_setting(runs, tmp_path / "over.png", "k")


def write_trained(folder: Path, mujoco: str = "3.17.0", **changes) -> Path:
    """A run as `write_run` makes it, with all that the README's tables read."""
    run = write_run(folder, [], **changes)
    for i, share in enumerate((0.5, 1.0), 1):
        line = {"epoch": i, "env_steps": 100 * i, "wall_s": 7 * i, "requested_goal_success": share}
        metrics.append(run, line)
    channel = {"speed": {"units": "m", "episode_sum": 2.0, "worst_step": 1.0}}
    floor = {"speed": {"units": "m", "episode_sum": 2.0, "worst_step": 3.0}}
    metrics.write_json(
        run / metrics.SUMMARY,
        {
            "seed": changes.get("seed", 0), "physics": "native", "distance_threshold": 0.05,
            "env_steps": 200, "wall_s": 14.0, "requested_goal_success": 1.0,
            "no_action_success": 0.25,
            "costs": channel, "no_action_costs": floor, "versions": {"mujoco": mujoco},
        },
    )  # fmt: skip
    return run


def test_tables_of_the_readme_tell_the_settings_of_a_task_apart(tmp_path):
    runs = [write_trained(tmp_path / str(seed), seed=seed) for seed in (0, 1)]
    (line,) = table.table(runs).splitlines()[2:]
    assert line == (
        "| FetchPush | - | 5 cm | native | 0, 1 | 200 | 14 | 1.000 | 200 | 14 | 0.250 |"
    )
    with pytest.raises(UserError, match=r"runs: .*0 is named twice"):
        table.main((runs[0], runs[0]))
    runs += [
        write_trained(tmp_path / "none", strategy="none"),
        write_trained(tmp_path / "dense", reward="dense"),
        write_trained(tmp_path / "long", env_steps=900),
        write_trained(tmp_path / "new", "3.18.0"),
    ]
    costs = table.cost_table(runs).splitlines()
    assert costs[0] == "| task | setting | speed, m |"
    assert [line.split(" | ")[2] for line in costs[2:]] == ["2 (1) |"] * 5 + ["2 (3) |"]
    assert costs[-1].startswith("| FetchPush | doing nothing |")
    for other, label in zip(
        runs[2:], ("strategy=", "reward=", "env_steps=", "mujoco="), strict=True
    ):
        lines = table.table([*runs[:2], other]).splitlines()[2:]
        assert [line.split(" | ")[1].startswith(label) for line in lines] == [True, True]
    (runs[0] / metrics.SUMMARY).unlink()
    with pytest.raises(UserError, match="0 is not finished; leave it out"):
        table.table(runs)
    (tmp_path / "sweep.json").touch()
    with pytest.raises(UserError, match=f"finished; go on with sweep.py --resume {tmp_path}"):
        table.table(runs)
    with pytest.raises(UserError, match=r"holds no config\.json"):
        grouping.require_finished(REPO)


@pytest.mark.parametrize(
    ("steps", "shown"),
    [
        ([3_000, None, 1_000], "3,000 (1,000 to not reached)"),
        ([None, 2, None], "not reached (2 to not reached)"),
        ([2, 2, 2], "2"),
        ([None, None], "not reached"),
    ],
)
def test_medians_stand_beside_the_range_of_the_seeds(steps, shown):
    assert table._spread(steps, grouping.amount) == shown


def test_table_of_the_success_at_the_end(runs):
    future, none = plot.summary_table(runs).splitlines()[2:]
    assert future.startswith(
        "| FetchPush | strategy=future | 0, 1, 2 | 200 | 0.900 | 0.900 [0.800, 1.000] | 200 | 0.250"
    )
    assert "| 0, 1 (unfinished: 2) | 200 | 0.300 |" in none and "not reached" in none


def test_rows_of_a_table_are_told_apart_by_all_but_their_task(tmp_path):
    kinds: list[dict[str, Any]] = [{}, {"reward": "dense"}, {"tolerance": "her2017"}]
    made = [write_run(tmp_path / f"{i}", [0.5], (), **kind) for i, kind in enumerate(kinds)]
    lines = plot.summary_table(made).splitlines()[2:]
    assert [line.split(" | ")[1] for line in lines] == [
        "tolerance=v4, reward=sparse",
        "tolerance=v4, reward=dense",
        "tolerance=her2017, reward=sparse",
    ]


def test_labels_name_as_many_settings_as_tell_all_apart(tmp_path):
    kinds = ({}, {"reward": "dense"}, {"tolerance": "her2017"}, {"k": 8.0}, {"discount": 0.5})
    made = [write_run(tmp_path / f"{i}", [0.5], (), **kind) for i, kind in enumerate(kinds)]
    lines = plot.summary_table(made).splitlines()[2:]
    assert len({line.split(" | ")[1] for line in lines}) == len(kinds)


def test_rows_by_a_setting_say_of_which_panel_they_are(tmp_path):
    kinds: list[dict[str, Any]] = [
        {"tolerance": tolerance, "k": k} for tolerance in ("v4", "her2017") for k in (4.0, 8.0)
    ]
    made = [write_run(tmp_path / f"{i}", [0.5], (), **kind) for i, kind in enumerate(kinds)]
    cells = [line.split(" | ")[:2] for line in plot.summary_table(made, ("k",)).splitlines()[2:]]
    assert cells == [
        ["| FetchPush, sparse reward, within 5 cm", "k=4"],
        ["| FetchPush, sparse reward, within 5 cm", "k=8"],
        ["| FetchPush, sparse reward, within 7 cm", "k=4"],
        ["| FetchPush, sparse reward, within 7 cm", "k=8"],
    ]
    assert plot.summary_table(made[:2], ("k",)).splitlines()[2].startswith("| FetchPush | k=4 |")


@pytest.fixture
def lopsided(tmp_path) -> list[Path]:
    """Three seeds whose median is not their mean."""
    curves = ([0.1, 0.1], [0.9, 0.2], [0.2, 0.9])
    return [
        write_run(tmp_path / f"{k}{seed}", success, k=k, seed=seed)
        for k in (1.0, 2.0)
        for seed, success in enumerate(curves)
    ]


def test_the_table_has_the_median_and_the_interquartile_mean(lopsided):
    (line,) = plot.summary_table(lopsided[:3]).splitlines()[2:]
    assert "| 200 | 0.200 | 0.400 [0.100, 0.900] |" in line


def test_pictures_show_medians_best_and_mean_where_they_say(lopsided, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(plot, "_save", lambda figure, out: drawn.append(figure))
    plot.curves(lopsided[:3], tmp_path / "x.png")
    (panel,) = drawn.pop().axes
    (median,) = [line for line in panel.lines if line.get_linewidth() == 2]
    assert median.get_xydata().tolist() == [[100, 0.2], [200, 0.2]]
    (floor,) = [line for line in panel.lines if line.get_linestyle() == ":"]
    assert floor.get_ydata()[0] == 0.25
    plot.over_setting(lopsided, tmp_path / "x.png", "k")
    best, mean = drawn.pop().axes
    for axes, word, value in ((best, "best", 0.9), (mean, "mean", 0.55)):
        assert axes.get_ylabel().startswith(word)
        (points,) = [line for line in axes.lines if line.get_marker() == "o"]
        np.testing.assert_allclose(points.get_xydata(), [[1, value], [2, value]])


def test_a_setting_that_titles_name_is_drawn_over(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(plot, "_save", lambda figure, out: drawn.append(figure))
    runs = [tmp_path / str(n) for n in (8, 12)]
    for n, run in zip((8, 12), runs, strict=True):
        write_run(run, [n / 20])
        config = train.parse(["bit-flip", "--n", str(n)]).config
        metrics.write_json(run / metrics.CONFIG, config.to_dict())
    plot.over_setting(runs, tmp_path / "x.png", "n")
    best, _ = drawn.pop().axes
    (points,) = [line for line in best.lines if line.get_marker() == "o"]
    np.testing.assert_allclose(points.get_xydata(), [[8, 0.4], [12, 0.6]])


def test_numbers_of_several_panels_are_read(tmp_path):
    first = write_run(tmp_path / "a", [0.1])
    later = write_run(tmp_path / "b", [0.2], tolerance="her2017")
    metrics.rewind(later, 0)
    line = {"epoch": 1, "env_steps": 5000, "requested_goal_success": 0.2}
    metrics.append(later, line)
    for run in (first, later):
        (run / metrics.SUMMARY).unlink()
    plot.write_csv([first, later], tmp_path / "curves.csv")
    read = plot.read_csv(tmp_path / "curves.csv")
    assert {title: [c.success for c in curves] for title, curves in read.items()} == {
        "FetchPush, within 5 cm": [[[0.1]]],
        "FetchPush, within 7 cm": [[[0.2]]],
    }


def test_curves_as_numbers(runs, tmp_path):
    plot.write_csv(runs, tmp_path / "curves.csv")
    with (tmp_path / "curves.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 11
    second = lines[1]
    assert second["setting"] == "strategy=future" and second["agent"] == "ddpg"
    assert second["seed"] == "0" and second["env_steps"] == "200"
    assert second["requested_goal_success"] == "0.9" and second["no_action_success"] == "0.25"
    assert lines[-1]["seed"] == "2" and lines[-1]["no_action_success"] == ""  # not finished


def test_numbers_are_drawn_as_their_runs_are(runs, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(plot, "_save", lambda figure, out: drawn.append(figure))
    monkeypatch.setattr(plot.launch.console, "print", lambda *_, **__: None)
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "folder" / "numbers.csv"
    plot.write_csv(runs, file)
    plot.main(tuple(runs))
    plot.main((file,))
    plot.main((file, *runs))
    (of_runs,), (of_file,), (both,) = (figure.axes for figure in drawn)
    assert of_runs.get_title() == "FetchPush, sparse reward, within 5 cm"
    assert of_file.get_title() == both.get_title() == "FetchPush, within 5 cm"
    lines = [
        [(line.get_label(), line.get_xydata().tolist()) for line in panel.lines]
        for panel in (of_runs, of_file)
    ]
    assert lines[0] == lines[1] and len(lines[0]) > 4
    labels = [text for text in both.get_legend_handles_labels()[1] if text.startswith("folder: ")]
    assert len(labels) == 2 and len(both.lines) == 2 * len(of_runs.lines) - 1  # one floor
    twin = write_run(tmp_path / "twin", [0.2, 0.3, 0.4], seed=0)
    dense = write_run(tmp_path / "dense", [0.6, 0.6], reward="dense")
    plot.write_csv([runs[0], twin, dense], file)
    ((sparse, other),) = plot.read_csv(file).values()
    assert (sparse.label, other.label) == ("reward=sparse", "reward=dense")
    assert sparse.success == [[0.0, 0.9], [0.2, 0.3, 0.4]] and other.success == [[0.6, 0.6]]
    many = [
        write_run(
            tmp_path / f"m{i}",
            [i / 10],
            k=i % 2,
            n_step=1 + i // 2 % 2,
            batch_size=8 << i // 4 % 2,
            discount=0.5 + i // 8 / 4,
        )
        for i in range(16)
    ]
    plot.write_csv(many, file)
    ((*curves,),) = plot.read_csv(file).values()
    assert len({curve.label for curve in curves}) == 16
    plot.write_csv(runs, file)
    more: list[dict[str, Any]] = [{"by": ("k",)}, {"table": True}, {"against": "k"}]
    for words in (*more, {"csv": tmp_path / "x.csv"}):
        with pytest.raises(UserError, match=r"numbers\.csv has curves and no settings"):
            plot.main((file,), **words)
    file.write_text(file.read_text().replace("0.9", "much"))
    with pytest.raises(UserError, match=r"run: .*csv holds no curves \(could not convert string"):
        plot.main((file,))
    file.write_text(file.read_text().splitlines()[0])
    with pytest.raises(UserError, match="it has no line"):
        plot.main((file,))
    with pytest.raises(UserError, match="it has other columns"):
        plot.main((REPO / "experiments" / "reference" / "published.csv",))


def test_pictures_by_settings(runs, tmp_path):
    more = [
        write_run(tmp_path / f"k{k}{seed}", [0.3], k=k, seed=seed)
        for k in (1.0, 2.0)
        for seed in (0, 1)
    ]
    dense = write_run(tmp_path / "dense", [0.6], reward="dense")
    for by in ((), ("k", "strategy"), ("reward", "k", "strategy")):
        plot.curves([*runs, *more, dense], tmp_path / "curves.png", by)
    plot.over_setting([*runs, *more], tmp_path / "over.png", "k", ("strategy",))
    for name in ("curves.png", "over.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    one = {seeds.title for seeds in grouping.alike([*runs, dense], ("reward", "strategy"))}
    two = {seeds.title for seeds in grouping.alike([*runs, dense])}
    assert len(one) == 1 and len(two) == 2


def test_settings_that_do_not_tell_runs_apart_are_refused(runs, tmp_path):
    with pytest.raises(UserError, match="by: 'kk' is no setting; name some of task"):
        plot.curves(runs, tmp_path / "x.png", ("kk",))
    with pytest.raises(UserError, match=r"by: runs with k=4 differ in strategy too; add that"):
        plot.curves(runs, tmp_path / "x.png", ("k",))
    with pytest.raises(UserError, match="against: 'strategy' is no setting with numbers"):
        plot.over_setting(runs, tmp_path / "x.png", "strategy")
    assert not (tmp_path / "x.png").exists()


def test_the_committed_runs_are_drawn(tmp_path):
    committed = sorted(REPO.glob("experiments/reference/*-seed*"))
    plot.curves(committed, tmp_path / "curves.png")
    named = {path.name.rpartition("-")[0] for path in committed}
    assert len(grouping.alike(committed)) == len(named)


@pytest.mark.slow
def test_benchmark_runs(tmp_path):
    out = tmp_path / "out.json"
    subprocess.run(
        [sys.executable, str(REPO / "benchmarks/sweeping.py"), "--smoke", "--out", str(out)],
        env=SCRIPT_ENVIRONMENT,
        check=True,
        timeout=300,
        capture_output=True,
    )
    result = json.loads(out.read_text())
    assert [row["program"] for row in result["rows"]] == ["single", "map", "vmap"]
    assert {"device", "versions", "commit"} <= set(result)


@pytest.mark.slow
def test_a_seed_of_a_fetch_sweep_is_its_single_run_bit_for_bit(tmp_path):
    """Through MuJoCo's callback too: losses, successes and costs of every epoch."""
    words = ["fetch-reach", *TINY, "--algorithm", "sac"]
    for name, more in (
        ("sweep", ["--seeds", "0", "1", "--out", str(tmp_path / "both")]),
        ("train", ["--seed", "1", "--no-video", "--out", str(tmp_path / "alone")]),
    ):
        subprocess.run(
            [sys.executable, str(REPO / "experiments" / f"{name}.py"), *words, *more],
            check=True,
            capture_output=True,
            timeout=900,
        )
    together, alone = tmp_path / "both" / "fetch-reach-seed1", tmp_path / "alone"
    for one, other in zip(metrics.read(together), metrics.read(alone), strict=True):
        differ = {name for name in one if one[name] != other[name]}
        assert differ <= {
            *("wall_s", "train_s", "eval_s", "audit_s"),
            *("train_steps_per_s", "sim_steps_per_s"),
        }
