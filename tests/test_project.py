"""Presets, benchmarks and the shape of the project."""

from __future__ import annotations

import ast
import csv
import functools
import itertools
import json
import statistics
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import ahead_of_time
import end_to_end
import env_throughput
import export
import fidelity
import harness
import her_envs
import launch
import plot
import presets
import replay
import sweeping
import table
import versus_sb3
from conftest import REPO, SCRIPT_ENVIRONMENT, SILENT, ddpg, script, tiny_config, with_
from her_jax import agents, checkpoint, metrics, relabel, train
from her_jax.audit import record
from her_jax.config import Config
from her_jax.errors import UserError
from her_jax.runner import Run
from toy import PointEnv

SWEEPS = sorted((REPO / "experiments" / "reference" / "sweeps").iterdir())


@pytest.mark.parametrize("task", presets.TASKS)
@pytest.mark.parametrize("preset", presets.PRESETS)
def test_presets_are_valid_for_every_task(preset, task):
    if task not in presets.PRESETS[preset]:
        with pytest.raises(UserError, match=f"has no settings for {task}; use tuned"):
            presets.load(preset, task)
        return
    config = presets.load(preset, task)
    assert config.env.task == presets.TASKS[task]
    assert config.env.task in her_envs.names()
    assert config.env.tolerance == "v4" and config.env.reward == "sparse"


@pytest.mark.parametrize(
    ("preset", "task"),
    [
        # Fast tests train bit flipping, Reach and Push too, and Slide by `end_to_end` below;
        # PickAndPlace has Push's settings.
        *(pytest.param("tuned", task, marks=pytest.mark.slow) for task in presets.TASKS),
        pytest.param("plappert2018", "fetch-push", marks=pytest.mark.slow),
        pytest.param("efficient", "fetch-push", marks=pytest.mark.slow),
    ],
)
def test_presets_run(preset, task, tmp_path, monkeypatch):
    """One round of the preset's environments and networks, with fewer updates; not audited, which
    takes longest to compile and has tests of its own.
    """
    config = with_(
        presets.load(preset, task),
        env_steps=1, cycles_per_epoch=1, updates_per_cycle=2, eval_episodes=4,
    )  # fmt: skip
    run = launch.bind(config, tmp_path / "run")
    run.console = SILENT
    monkeypatch.setattr(run, "audit", lambda *_: record.read(table.committed()[0]))
    _, summary = run.start()
    assert summary["env_steps"] == run.env.horizon * config.train.num_envs


@pytest.mark.slow
def test_reach_is_learned(tmp_path):
    """The README's first promise, one seed."""
    run = launch.bind(presets.load("tuned", "fetch-reach"), tmp_path / "run")
    _, summary = run.start()
    assert summary["requested_goal_success"] >= 0.98


def test_python_examples_of_the_pages(tmp_path, monkeypatch):
    """One after the other, as a reader types them; training stops before it begins."""
    known = set(relabel.STRATEGIES)
    pages = "".join((REPO / name).read_text() for name in ("README.md", "docs/python.md"))
    examples = [part.split("```")[0] for part in pages.split("```python")[1:]]
    assert len(examples) == 10
    monkeypatch.chdir(tmp_path)
    Path("experiments").symlink_to(REPO / "experiments")
    audited: list[int] = []

    def start(run):
        run.prepare()
        state = jax.jit(run._init)(jax.random.key(0))
        checkpoint.save(run.folder, run.epochs, state, run.create())
        return state, {}

    monkeypatch.setattr(Run, "start", start)
    monkeypatch.setattr(Run, "audit", lambda *given: audited.append(given[-1].episodes))
    export.main(Path("experiments/policies/fetch-push"), out=Path("policy.jax"))
    names: dict[str, Any] = {}
    for example in examples:
        exec(example, names)
        if "launch.open_run" in example:
            assert int(names["trained"].env_steps) == 260_000
        if "def act" in example:
            obs = names["state"].obs
            by_hand = names["act"](np.asarray(obs.observation), np.asarray(obs.desired_goal))
            acted = names["run"].act(names["trained"], obs)
            np.testing.assert_allclose(by_hand, acted, atol=1e-4)
    assert names["actions"].shape == (5, 4)
    assert metrics.read_json(Path("runs/point/config.json"))["env"]["task"] == "Point"
    assert audited == [200] and Path("runs/point/policy.jax").is_file()
    assert int(names["state"].env_steps) == 2 * 2400 and names["reward"].shape == (256,)
    assert 0.7 < float(names["batch"].relabelled.mean()) < 0.9
    assert set(relabel.STRATEGIES) - known == {"soon"} and agents.registered() == ("calm",)
    calm: Any = agents.make(names["CalmConfig"](hidden=(8,), half_life=1), PointEnv())
    learner, seen = calm.init(jax.random.key(0), 4), jax.numpy.ones(4)
    old = learner.replace(updates=learner.updates + 3)
    apart, less = (
        calm.explore(one, seen, jax.random.key(7)) - calm.act(one, seen) for one in (learner, old)
    )
    np.testing.assert_allclose(less, apart / 8, atol=1e-6)
    relabel.forget()
    agents.forget()


def test_settings_that_came_later_default_to_what_was_done_before():
    """A configuration of a run from before means today what it meant then."""
    values = presets.load("tuned", "fetch-reach").to_dict()
    old = {
        "env": ("goal", "action_repeat", "n"),
        "train": ("observation_noise", "matmul_precision"),
    }
    old["replay"] = ("plugin", "priority", "priority_share", "n_step", "late_batch_size")
    old["replay"] += ("min_displacement",)
    old["agent"] = ("name", "layer_norm", "critics", "target_critics", "average_rate")
    for part, names in old.items():
        for name in names:
            del values[part][name]
    config = Config.from_dict(values)
    assert config.env.goal == "many" and config.env.action_repeat == 1
    assert config.train.observation_noise == 0 and config.train.matmul_precision == "default"
    assert config.replay.priority == "uniform" and config.replay.n_step == 1
    assert config.replay.late_batch_size == 0 and config.replay.plugin == ""
    assert config.replay.min_displacement == 0
    agent = ddpg(config)
    assert not agent.layer_norm and agent.critics == 1 and agent.average_rate == 1


def test_plappert2018_is_what_was_published():
    config = presets.load("plappert2018", "fetch-push")
    assert config.train.env_steps == 4_750_000
    assert config.train.num_envs == 38 and config.replay.batch_size == 4864
    assert config.train.cycles_per_epoch == 50 and config.train.updates_per_cycle == 40
    assert config.replay.k == 4 and config.replay.strategy == "future"
    agent = ddpg(config)
    assert agent.hidden == (256, 256, 256)
    assert agent.actor_learning_rate == agent.critic_learning_rate == 1e-3
    assert agent.discount == 0.98 and agent.action_l2 == 1.0
    assert (agent.target_rate, agent.target_period) == (0.05, 40)
    assert (agent.noise_std, agent.random_action_probability) == (0.2, 0.3)
    # Baselines never evicts within its budget.
    assert config.replay.capacity * 50 >= config.train.env_steps


def test_unknown_presets_and_tasks():
    with pytest.raises(UserError, match="preset"):
        presets.load("best", "fetch-push")
    with pytest.raises(UserError, match="task"):
        presets.load("tuned", "push")


@pytest.mark.parametrize(
    "words",
    [
        "replay",
        "env_throughput --contestants native batch gymnasium-sync",
        "end_to_end fetch-slide --transfer native",
        "ahead_of_time",
        "fidelity --physics native --model fast",
        pytest.param("env_throughput", marks=pytest.mark.slow),  # which starts processes
        # An episode on Warp takes half a minute on a CPU.
        pytest.param("end_to_end fetch-reach --physics warp", marks=pytest.mark.slow),
        pytest.param("fidelity --physics warp", marks=pytest.mark.slow),
        pytest.param("env_throughput --contestants warp mujoco-warp", marks=pytest.mark.slow),
        pytest.param("accelerator", marks=pytest.mark.slow),
        pytest.param("auditing", marks=pytest.mark.slow),
    ],
)
def test_benchmarks_run(words, tmp_path):
    name, *options = words.split()
    out = tmp_path / "out.json"
    options += ["--smoke", "--out", str(out)]
    if name in ("replay", "fidelity", "end_to_end"):
        script(f"benchmarks/{name}", *options, folder=tmp_path)
    else:  # which start processes, or set up JAX before it has made an array
        done = subprocess.run(
            [sys.executable, str(REPO / "benchmarks" / f"{name}.py"), *options],
            env=SCRIPT_ENVIRONMENT,
            timeout=1800,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())
    assert result["rows"] and {"device", "versions", "commit"} <= set(result)
    failed = [row for row in result["rows"] if "error" in row]
    assert not failed


def test_committed_results_say_where_they_come_from():
    paths = list((REPO / "benchmarks" / "results").glob("*.json"))
    assert len(paths) > 10
    for path in paths:
        result = json.loads(path.read_text())
        assert {"device", "versions", "commit", "rows"} <= set(result), path


def test_tables_of_the_pages_are_the_measured_ones():
    """Each table equals what its command prints from the committed files."""
    readme, details, physics = (
        (REPO / page).read_text() for page in ("README.md", "docs/results.md", "docs/physics.md")
    )
    results = REPO / "benchmarks" / "results"
    throughput = json.loads((results / "env_throughput.json").read_text())["rows"]
    replayed = json.loads((results / "replay.json").read_text())["rows"]
    assert table.table(table.committed()) in readme
    assert env_throughput.table(throughput) in details
    fidelities = fidelity.committed()
    assert fidelity.markdown(fidelities) in physics
    peaks = [row["stages"] for row in fidelities if row["physics"] == "warp" and "stages" in row]
    contacts, rows = (
        max(peak[name] for peak in peaks) for name in ("peak_contacts_in_c", "peak_constraint_rows")
    )
    words = " ".join(physics.split())
    assert (
        f"up to {contacts} contacts, fewer than 5 such pairs on average, and up to {rows} rows"
        in words
    )
    assert max(peak["candidate_pairs_a_state"] for peak in peaks) < 5
    assert replay.ring_table(replayed) in details
    assert replay.update_table(replayed) in details
    assert fidelity.stages_markdown(fidelities) in physics
    slide = {
        row["states"]: row
        for row in fidelities
        if (row["task"], row["physics"], row["model"]) == ("FetchSlide", "warp", "stock")
    }
    lost, kept = slide["reference"], slide["recorded"]
    assert f"of the {lost['stages']['fewer_contacts']} `reference` states with fewer" in words
    assert f"of the {kept['stages']['fewer_contacts']} `recorded` ones, all contacts" in words
    a, b = lost["coasting"], kept["coasting"]
    assert f"from {a['states']} `reference` and {b['states']} `recorded` states in" in words
    for who, name in (("other", "on Warp"), ("native", "in C")):
        far = " and ".join(f"{100 * each[f'{who}_mean']:.2f}" for each in (a, b))
        assert f"{far} cm {'in a second ' if who == 'other' else ''}{name}" in words
    together = json.loads((results / "sweeping.json").read_text())["rows"]
    assert sweeping.table(together) in details
    raced = json.loads((results / "versus_sb3.json").read_text())["rows"]
    assert versus_sb3.table(raced) in readme
    raced = json.loads((results / "versus_sb3-zoo.json").read_text())["rows"]
    assert versus_sb3.table(raced) in details
    assert ahead_of_time.table(ahead_of_time.committed()) in physics


@pytest.mark.parametrize(
    ("runs", "task", "success"),
    [
        ("fetch-reach", "FetchReach", 0.98),
        ("fetch-push", "FetchPush", 0.90),
        ("fetch-push-efficient", "FetchPush", 0.90),
        ("fetch-pick-and-place", "FetchPickAndPlace", 0.90),
        ("fetch-pick-and-place", "FetchPickAndPlace", 0.98),
        ("fetch-slide", "FetchSlide", 0.80),
        ("fetch-slide", "FetchSlide", 0.88),
    ],
)
def test_steps_beside_published_ones_are_those_of_the_curves(runs, task, success):
    steps = []
    for seed in range(5):
        lines = metrics.read(table.REFERENCE / f"{runs}-seed{seed}")
        curve = [(line["env_steps"], line["requested_goal_success"]) for line in lines]
        steps.append(min(taken for taken, reached in curve if reached >= success))
    low, _, median, _, high = sorted(steps)
    (row,) = (row for row in beside_published() if (row["task"], row["success"]) == (task, success))
    column = "here, `efficient`" if "efficient" in runs else "here, the task's own preset"
    assert row[column] == f"{median:,} ({low:,} to {high:,})"


def beside_published() -> list[dict[str, Any]]:
    """The README's table of steps to a success, a dictionary a row."""
    lines = (REPO / "README.md").read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("| task | success | here"))
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in itertools.takewhile(lambda line: line.startswith("|"), lines[start:])
    ]
    rows = [dict(zip(cells[0], row, strict=True)) for row in cells[2:]]
    return [row | {"success": float(row["success"])} for row in rows]


def test_published_steps_are_those_of_the_file():
    with (table.REFERENCE / "published.csv").open(newline="") as file:
        published = list(csv.DictReader(file))
    for row in beside_published():
        for column, code in (("mrl", "mrl"), ("OpenAI Baselines", "Baselines"), ("RHER", "RHER")):
            number = row[column].split(", ")[0]
            known = {
                (f"{int(one['env_steps']):,}", float(one["success"] or 0))
                for one in published
                if one["task"] == row["task"] and one["code"].startswith(code)
            }
            success = 1.0 if "to 1.0" in row[column] else row["success"]
            assert number == "-" or (number, success) in known, (row["task"], column)


def test_transfer_scores_a_policy_on_both_physics(monkeypatch, toy):
    """A policy that walks to the goal, where steps have the other sign on the other physics."""

    class Mirrored(PointEnv):
        def step(self, state, action):
            return super().step(state, -action)

    class Walker:
        config = tiny_config()

        def restore_policy(self):
            agent = agents.make(self.config.agent, toy)
            return 1, train.init(toy, agent, self.config, jax.random.key(0))

        def act(self, state, obs):
            return 10 * (obs.desired_goal - obs.achieved_goal)

    monkeypatch.setattr(her_envs, "make", lambda task: toy)
    other: Any = Mirrored()
    found = fidelity.transfer(Path("walker"), Walker(), other, 8)
    assert found["native"]["requested_goal_success"] == 1.0
    assert found["other"]["requested_goal_success"] == 0.0
    assert found["episodes"] == 8 and found["run"] == "walker" and found["trained_on"] == "native"


def test_fidelity_keeps_the_transfers_that_it_does_not_measure_anew(tmp_path, monkeypatch):
    run: Any = types.SimpleNamespace(config=with_(tiny_config(), task="FetchPush"))
    monkeypatch.setattr(launch, "open_run", lambda folder: run)
    for name in ("played", "one_step", "scripted_episodes"):
        monkeypatch.setattr(fidelity, name, lambda *_: {})
    score = {"requested_goal_success": 0.5}
    scores = {"trained_on": "native", "native": score, "other": score}
    monkeypatch.setattr(
        fidelity, "transfer", lambda folder, *_: scores | {"run": folder.name, "count": next(calls)}
    )
    monkeypatch.setattr(harness, "commit", lambda: "a" * 40)
    calls, out = itertools.count(), tmp_path / "fidelity.json"

    def measured(*runs: str) -> dict[str, int]:
        fidelity.main("native", "fast", ("fetch-push",), runs=tuple(map(Path, runs)), out=out)
        (row,) = metrics.read_json(out)["rows"]
        return {found["run"]: found["count"] for found in row["transfer"]}

    assert measured("a", "b") == {"a": 0, "b": 1}
    assert measured() == {"a": 0, "b": 1}
    assert measured("a") == {"b": 1, "a": 2}


def test_tasks_have_two_names():
    for word, name in presets.TASKS.items():
        assert presets.environment(word) == presets.environment(name) == name
        assert presets.load("tuned", word) == presets.load("tuned", name)
    assert harness.fetch_tasks(("fetch-push", "FetchPush", "FetchReach")) == (
        "FetchPush",
        "FetchReach",
    )


def test_throughput_is_steps_of_all_environments_over_seconds(monkeypatch):
    nothing = env_throughput.Contestant(lambda: None)
    seconds = {"batch": 2.0, "envpool": 4.0}
    monkeypatch.setattr(env_throughput, "_open", lambda *_: nothing)
    monkeypatch.setattr(harness, "timed", lambda call: (None, 5.0))
    monkeypatch.setattr(harness, "side_by_side", lambda calls, rounds, before: seconds)
    batch, envpool = env_throughput.measure("FetchReach", tuple(seconds), 3, 10, 1)
    assert (batch["env_steps_per_s"], envpool["env_steps_per_s"]) == (15.0, 7.5)
    assert (batch["physics_steps_per_s"], envpool["physics_steps_per_s"]) == (300.0, 150.0)
    assert (batch["first_call_extra_s"], envpool["first_call_extra_s"]) == (3.0, 1.0)
    assert batch["first_contestant_is_times_faster"] == 1.0
    assert envpool["first_contestant_is_times_faster"] == 2.0


def test_two_files_of_the_same_fidelity_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    row = {"task": "FetchPush", "physics": "warp", "model": "fast", "states": "played"}
    other, recorded = row | {"task": "FetchReach"}, row | {"states": "recorded"}
    metrics.write_json(tmp_path / "fidelity-a.json", {"rows": [row]})
    metrics.write_json(tmp_path / "fidelity-b.json", {"rows": [recorded, other]})
    assert fidelity.committed() == [other, row, recorded]
    metrics.write_json(tmp_path / "fidelity-b.json", {"rows": [other, row]})
    with pytest.raises(UserError, match="FetchPush on warp with fast, played, has"):
        fidelity.committed()


def test_the_table_says_where_a_policy_was_trained():
    success = "requested_goal_success"
    here = {"native": {success: 0.5}, "other": {success: 0.25}}
    row = {"task": "FetchPush", "physics": "warp", "model": "fast", "states": "played"}
    transfer = [{"trained_on": name, **here} for name in ("native", "warp")]
    assert fidelity.markdown([row]).endswith(
        "| FetchPush | warp | fast | played " + 8 * "| - " + "|"
    )
    shown = fidelity.markdown([row | {"transfer": transfer}])
    assert shown.endswith("| 0.250, 0.500; 0.250, 0.500 (trained on warp) |")


def test_the_committed_tables_of_some_tasks_are_printed(capsys):
    fidelity.main(tasks=("fetch-slide",), table=True)
    first, second = capsys.readouterr().out.strip().split("\n\n")
    for rows in (first, second):
        tasks = {line.split()[1] for line in rows.splitlines()[2:]}
        assert tasks == {"FetchSlide"}


def test_what_was_measured_before_is_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = harness.results_file("replay", None)
    harness.write("replay", [{"figure": 1}], path, quiet=True)
    assert harness.results_file("replay", None, smoke=True).name == "replay-smoke.json"
    assert harness.results_file("replay", path) == path and path.exists()  # asked for
    assert harness.results_file("replay", None, continues=True) == path and path.exists()
    assert harness.results_file("replay", None) == path and not path.exists()
    (kept,) = path.parent.iterdir()
    assert kept.name == "replay.json.1" and metrics.read_json(kept)["rows"] == [{"figure": 1}]


def test_calls_are_prepared_untimed_and_take_turns(monkeypatch):
    heard = []
    calls = {name: functools.partial(heard.append, name) for name in "ab"}
    monkeypatch.setattr(harness, "timed", lambda call: (call(), float(len(heard))))
    before = {"b": lambda: heard.append("reset")}
    taken = harness.side_by_side(calls, 3, before)
    assert heard == ["a", "reset", "b"] * 4
    assert taken == {"a": 7.0, "b": 9.0}  # medians of 4, 7, 10 and of 6, 9, 12: the first warms up


@pytest.mark.parametrize(
    ("main", "options", "message"),
    [
        (env_throughput.main, {"tasks": ("FetchPsh",)}, "tasks: 'FetchPsh' is unknown"),
        (env_throughput.main, {"contestants": ("me",)}, "contestants: 'me' is unknown"),
        (env_throughput.main, {"num_envs": ()}, "num_envs: 0 is not positive"),
        (replay.main, {"rounds": 0}, "rounds: 0 is not positive"),
        (replay.main, {"out": Path(".")}, "out: . cannot be written; name a file"),
        (sweeping.main, {"agents": 0}, "agents: 0 is not positive"),
        (env_throughput.main, {"steps": 51}, "steps: 51 are more than the 50 of an episode"),
        (end_to_end.main, {"physics": ("native", "wrap")}, "physics: 'wrap' is unknown"),
        (end_to_end.main, {"physics": ("native", "jax")}, "physics: 'jax' cannot simulate"),
        (end_to_end.main, {"targets": ()}, "targets: none given"),
        (end_to_end.main, {"out": Path(__file__, "a.json")}, "out: .*a.json cannot be written"),
        (fidelity.main, {"episodes": 0}, "episodes: 0 is not positive"),
        (
            fidelity.main,
            {"recorded": Path("a"), "runs": (Path("b"),)},
            "runs: policies play no recorded",
        ),
        (fidelity.main, {"tasks": ()}, "tasks: none named"),
        (fidelity.main, {"table": True, "out": Path("x")}, "out: --table measures nothing"),
        (end_to_end.main, {"num_envs": 0}, "num_envs: 0 is not positive"),
        (end_to_end.main, {"transfer_goals": 5}, "transfer_goals: without effect"),
        (fidelity.main, {"runs": (Path("nowhere"),)}, "run: nowhere is no folder"),
    ],
)
def test_benchmarks_refuse_before_they_measure(main, options, message):
    with pytest.raises(UserError, match=message):
        main(**options)


@pytest.mark.parametrize("changed", ["action_repeat", "tolerance", "task"])
def test_policies_of_other_tasks_are_not_scored_for_fidelity(changed):
    other = {"action_repeat": 2, "tolerance": "her2017", "task": "FetchReach"}[changed]
    config = with_(with_(tiny_config(), task="FetchPush"), **{changed: other})
    run: Any = types.SimpleNamespace(config=config)
    with pytest.raises(UserError, match=r"runs: a .*(FetchReach|action_repeat 2|her2017)"):
        fidelity.require_plain(Path("a"), run, ("FetchPush",))


@pytest.mark.parametrize("folder", SWEEPS, ids=lambda folder: folder.name)
def test_tables_of_sweeps_are_those_of_their_curves(folder):
    """Medians are computed anew from the numbers; each line of both says where it comes from."""
    with (folder / "curves.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert all(len(line["commit"]) == 40 and line["device"] for line in lines)
    final: dict[str, dict[str, float]] = {}
    for line in lines:  # the last evaluation of a seed stays
        success = float(line["requested_goal_success"])
        final.setdefault(line["setting"], {})[line["seed"]] = success
    table = (folder / "table.md").read_text().splitlines()
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in table[2:]]
    assert [row[1] for row in cells] == [setting or "-" for setting in final]
    for row, seeds in zip(cells, final.values(), strict=True):
        assert row[2] == ", ".join(seeds)
        assert row[4] == f"{statistics.median(seeds.values()):.3f}"
    for path in folder.glob("*.json"):
        about = json.loads(path.read_text())
        assert all({"command", "commit", "device"} <= set(s) for s in about["sittings"])


def test_committed_curves_are_those_of_the_runs(tmp_path):
    runs = sorted(table.REFERENCE.glob("fetch*-seed?"))
    plot.write_csv(runs, tmp_path / "curves.csv")
    written = (tmp_path / "curves.csv").read_text()
    assert written == (table.REFERENCE / "curves.csv").read_text()


def test_the_pages_show_tables_of_sweeps():
    names = ("README.md", "docs/results.md", "docs/physics.md")
    pages = "".join((REPO / name).read_text() for name in names)
    for folder in SWEEPS:
        assert (folder / "table.md").read_text().strip() in pages


def test_what_the_pages_say_of_slide_is_in_its_runs():
    curves = [
        [(line["env_steps"], line["requested_goal_success"]) for line in metrics.read(run)]
        for run in table.committed()
        if run.name.startswith("fetch-slide-seed")
    ]
    first = [next(steps for steps, success in curve if success >= 0.8) for curve in curves]
    last_ten = [sum(success for _, success in curve[-10:]) / 10 for curve in curves]
    best = [max(success for _, success in curve) for curve in curves]
    million = [dict(curve)[1_000_000] for curve in curves]
    pages = (REPO / "README.md").read_text() + (REPO / "docs" / "results.md").read_text()
    pages = " ".join(pages.split())
    assert f"the seeds stand at {listed(million, '.3f')}, because" in pages
    assert f"first at 0.80 after {listed(first, ',')} steps" in pages
    assert f"last ten evaluations are {listed(last_ten, '.3f')}" in pages
    assert f"the best ones {listed(best, '.3f')}." in pages
    measured = [
        json.loads(path.read_text())
        for path in sorted(table.REFERENCE.glob("fetch-slide-seed*/evaluation.json"))
    ]
    parts = [[part["requested_goal_success"] for part in m["by_goal"]["x"]] for m in measured]
    for seed, (one, part) in enumerate(zip(measured, parts, strict=True)):
        figures = (one["requested_goal_success"], part[-1], sum(part[:-1]) / 3)
        cells = [f"{figure + 1e-9:.3f}" for figure in figures]
        assert f"| {seed} | {' | '.join(cells)} |" in pages
    unseen = [
        (1000 * m["requested_goal_success"] - 200 * curve[-1][1]) / 800
        for m, curve in zip(measured, curves, strict=True)
    ]
    efficient = []
    for run in sorted(table.REFERENCE.glob("fetch-push-efficient-seed*")):
        many = metrics.read_json(run / "evaluation.json")["requested_goal_success"]
        few = metrics.read_json(run / "summary.json")["requested_goal_success"]
        efficient.append((1000 * many - 200 * few) / 800)
    assert f"FetchSlide's five policies reach {listed(unseen, '.3f')}, and" in pages
    slide, push = map(statistics.median, (unseen, efficient))
    assert f"FetchSlide's policies have a median of {slide:.3f}, those" in pages
    assert f"those of `efficient` on FetchPush one of {push:.3f} (" in pages
    assert f"those of `efficient` on FetchPush {listed(efficient, '.3f')}. FetchPick" in pages
    reached = [[success >= 0.9 for _, success in curve] for curve in curves]
    since = [hit for hits in reached for hit in hits[hits.index(True) :]]
    assert f"those included, the seeds are there in {sum(since)} of {len(since)}." in pages
    old = json.loads((table.REFERENCE / "fetch-slide-random02-seed1/evaluation.json").read_text())
    assert (
        f"With a fifth of random actions, seed 1 reaches {old['requested_goal_success']:.3f}."
        in pages
    )


def listed(values, spec):
    """E.g. "1, 2 and 3"; halves are rounded up."""
    *words, last = [format(value + 1e-9 if spec == ".3f" else value, spec) for value in values]
    return f"{', '.join(words)} and {last}"


def test_committed_runs_are_complete_and_of_a_known_commit():
    runs = table.committed()
    assert len(runs) >= 8
    for run in runs:
        summary = json.loads((run / "summary.json").read_text())
        assert len(summary["commit"]) == 40, run  # no "+changes"
        records = metrics.read(run)
        assert summary["env_steps"] == records[-1]["env_steps"]
        assert summary["requested_goal_success"] == records[-1]["requested_goal_success"]
        assert launch.read_config(run).seed == summary["seed"]


def test_the_algorithm_never_imports_the_environments():
    for path in (REPO / "her_jax").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            assert not any(name.split(".")[0] == "her_envs" for name in names), path


def test_every_folder_and_module_in_the_readme_exists():
    readme = (REPO / "README.md").read_text()
    block = readme.split("## The map")[1].split("```")[1]
    folder = ""
    entries = 0
    for line in block.strip().splitlines():
        entry = line.split()[0]
        if not line.startswith(" "):
            folder = entry if entry.endswith("/") else ""
            path = REPO / entry
        else:
            path = REPO / folder / entry
        assert path.exists(), line
        entries += 1
    assert entries > 25
