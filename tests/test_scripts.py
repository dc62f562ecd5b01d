"""The commands of the README, as a user types them."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import time
import types
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow.parquet as pq
import pytest
from rich.console import Console

import draw_goals
import her_envs
import launch
import sweep
import train as train_script
from conftest import REPO, SCRIPT_ENVIRONMENT, SILENT, ddpg, same, script
from her_jax import agents, evaluate, metrics, policy, relabel, train
from her_jax.audit import record
from her_jax.config import Config, EnvConfig
from her_jax.errors import UserError
from her_jax.runner import Run
from her_jax.types import GoalObs

TINY = [
    *("--env-steps", "200", "--num-envs", "2", "--cycles-per-epoch", "1"),
    *("--updates-per-cycle", "2", "--batch-size", "8", "--capacity", "4"),
    *("--eval-episodes", "4", "--checkpoint-period", "1", "--hidden", "8"),
]


def shell(name: str, *words: str, folder: Path) -> str:
    """Runs experiments/NAME.py in `folder` as a process of its own; returns its output."""
    done = subprocess.run(
        [sys.executable, str(REPO / "experiments" / f"{name}.py"), *words],
        cwd=folder,
        env=SCRIPT_ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder with a tiny FetchPush run in it, named `run`."""
    folder = tmp_path_factory.mktemp("scripts")
    printed = shell("train", "fetch-push", "--out", "run", "--seed", "3", *TINY, folder=folder)
    assert "compiling training" in printed and "held-out" in printed
    assert "within 0.05 m" in printed
    warnings = record.read(folder / "run").warnings
    assert warnings
    assert all(f"warning: {warning}" in printed for warning in warnings)
    return folder


PLUGIN = """
import jax
import jax.numpy as jnp
from her_jax import relabel
from her_jax.types import Moment

def soon(key, step, stored, horizon):
    last = jnp.minimum(step.time + 3, horizon)
    return Moment(step.episode, jax.random.randint(key, (), step.time + 1, last + 1))

relabel.register("soon", soon, audited_as="future")
"""


(CALM,) = (
    part.split("```")[0]
    for part in (REPO / "docs" / "python.md").read_text().split("```python")
    if "agents.register" in part
)
"""The agent of docs/python.md."""


@pytest.mark.slow
def test_a_user_brings_a_strategy_in_a_file(trained):
    (trained / "mine.py").write_text(PLUGIN)
    words = ["fetch-push", "--plugin", "mine.py", "--strategy", "soon", "--out", "soon", *TINY]
    shell("train", *words, "--no-video", folder=trained)
    config = json.loads((trained / "soon" / "config.json").read_text())
    assert config["replay"]["strategy"] == "soon" and config["replay"]["plugin"] == "mine.py"
    try:
        assert json.loads(script("audit", "soon", folder=trained))["clean"]  # finds the file again
    finally:
        relabel.forget()


@pytest.fixture(scope="module")
def flipped(trained) -> Path:
    """A tiny bit-flip run, in the folder of `trained`."""
    tiny = ["--env-steps", "64", "--num-envs", "4", "--cycles-per-epoch", "2", "--capacity", "8"]
    tiny += ["--updates-per-cycle", "2", "--batch-size", "8", "--eval-episodes", "6"]
    words = ["bit-flip", "--env.n", "4", "--out", "flipped", *tiny]
    printed = script("train", *words, folder=trained)
    assert (
        "at any step on 6 fresh (there are too few to hold any out) goals within 0.5 bits"
        in printed
    )
    assert "training: 64 environment steps in 2 epochs, 0.125 updates a step" in printed
    assert "costs" not in printed
    return trained / "flipped"


def test_a_setting_may_be_named_with_its_section():
    words = ["fetch-slide", "--agent.no-layer-norm", "--replay.k", "2", "--env.scored_on=warp"]
    config = train_script.parse(words).config
    assert not ddpg(config).layer_norm and config.replay.k == 2 and config.env.scored_on == "warp"


def test_a_plugin_that_is_not_used_is_refused(tmp_path):
    (tmp_path / "mine.py").write_text(PLUGIN)
    for more in ([], ["--strategy", "final"]):
        words = ["train", "fetch-push", "--plugin", "mine.py", *more, "--out", "r"]
        try:
            printed = script(*words, folder=tmp_path, rc=2)
        finally:
            relabel.forget()
        assert "plugin: mine.py registers soon, and the strategy is 'f" in printed
        assert not (tmp_path / "r").exists()


def test_a_plugin_that_exits_is_refused(tmp_path):
    (tmp_path / "leaves.py").write_text("import sys; sys.exit()")
    printed = script("train", "fetch-push", "--plugin", "leaves.py", folder=tmp_path, rc=2)
    assert "plugin: leaves.py fails: SystemExit" in printed


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import her_jax\n\nimport nowhere_to_be_found\n", "No module named 'nowhere_to_be_found'"),
        (
            "from her_jax import relabel\ndef lost(key, step, stored, horizon):\n"
            "    return step.nowhere\n\nrelabel.register('lost', lost, audited_as='future')\n",
            "'Moment' object has no attribute 'nowhere'",
        ),
    ],
)
def test_the_line_of_a_plugin_that_fails_is_named(tmp_path, text, message):
    plugin = tmp_path / "lost.py"
    plugin.write_text(text)
    code = f"import launch; launch.guarded(lambda: launch.load_plugin({str(plugin)!r}))"
    ended = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=SCRIPT_ENVIRONMENT | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    (line,) = ended.stderr.splitlines()
    assert ended.returncode == 2 and re.match(rf"error: .* fails: .*{message}", line)
    assert line.endswith(f"mend it ({plugin}, line 3)")


def test_a_plugin_that_fails_half_way_fails_again(tmp_path):
    text = "from her_jax import relabel\n"
    text += "relabel.register('half', relabel.future, audited_as='future')\n1 / 0\n"
    (tmp_path / "half.py").write_text(text)
    for _ in range(2):
        with pytest.raises(UserError, match=r"half\.py fails: ZeroDivisionError: division by zero"):
            launch.load_plugin(str(tmp_path / "half.py"))
    launch.forget_plugin()
    assert "half" not in launch.registered()


def test_bits_are_flipped_from_the_command_line(flipped, tmp_path):
    summary = json.loads((flipped / "summary.json").read_text())
    assert summary["env_steps"] == 64 and summary["costs"] == {}
    assert summary["requested_goal_success"] == summary["requested_goal_success_any_step"]
    assert not (flipped / "rollout.mp4").exists()
    assert {summary[name] for name in ("physics", "model", "scored_on")} == {"none"}
    assert "Scored on no physics" in (flipped / "audit.md").read_text()
    copy_of(flipped, tmp_path, "summary.json", '"scored_on": "none"', '"scored_on": "native"')
    result = json.loads(script("audit", "run", folder=tmp_path))
    assert result["clean"] and result["audited_transitions"] == 8 * 4
    assert not any(result["violations"].values())
    assert metrics.read_json(tmp_path / "run" / "summary.json")["scored_on"] == "none"  # mended


@pytest.mark.slow
def test_what_one_physics_trained_another_scores(trained):
    """Trained on Warp, success is the native one unless another physics is asked for."""
    words = ["fetch-reach", "--physics", "warp", "--out", "warped", "--no-video", *TINY]
    printed = shell("train", *words, folder=trained)
    assert "memory: goal buffer" in printed and "2 simulations of" in printed
    summary = json.loads((trained / "warped" / "summary.json").read_text())
    assert (summary["physics"], summary["scored_on"]) == ("warp", "native")
    assert (
        json.loads((trained / "warped" / "audit.json").read_text())["evaluation"]["physics"]
        == "native"
    )
    (line, *_) = (trained / "warped" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(line)["broken_episodes"] == json.loads(line)["dropped_contact_steps"] == 0
    told = json.loads(
        script("evaluate", "warped", "--episodes", "4", "--physics", "warp", folder=trained)
    )
    assert told["evaluation"]["physics"] == "warp" and told["evaluation"]["episodes"] == 4


def test_a_run_trains_again_with_its_settings_by_its_folder(trained):
    """Whatever the presets have become."""
    settings = train_script.parse(["fetch-push", "--preset", str(trained / "run")]).config
    assert settings == launch.read_config(trained / "run")
    words = ["fetch-push", "--preset", str(trained / "run"), "--seed", "7", "--k", "8"]
    other = train_script.parse(words).config
    assert (other.seed, other.replay.k, ddpg(other).hidden) == (7, 8.0, (8,))
    for folder in sorted((REPO / "experiments" / "reference").glob("*-seed0")):
        kept = launch.read_config(folder)
        assert train_script.parse([kept.env.task, "--preset", str(folder)]).config == kept
    with pytest.raises(UserError, match=r"preset: .*run is of FetchPush; name that"):
        train_script.parse(["fetch-slide", "--preset", str(trained / "run")])
    with pytest.raises(UserError, match=r"preset: 'best' is unknown; .*, or a run's folder"):
        train_script.parse(["fetch-slide", "--preset", "best"])


def test_a_run_trains_again_with_its_plugin_while_that_is_used(trained, tmp_path):
    folder = tmp_path / "run"
    copy_of(trained / "run", tmp_path, "config.json", '"strategy": "future"', '"strategy": "soon"')
    edit(folder / "config.json", '"plugin": ""', '"plugin": "somewhere.py"')
    (folder / "plugin.py").write_text(PLUGIN)
    words = ["fetch-push", "--preset", str(folder)]
    try:
        again = train_script.parse(words).config.replay
        other = train_script.parse([*words, "--strategy", "final"]).config.replay
    finally:
        relabel.forget()
    assert not relabel.registered()
    assert (again.strategy, again.plugin) == ("soon", str(folder / "plugin.py"))
    assert (other.strategy, other.plugin) == ("final", "")


def test_what_a_run_registers_is_forgotten_with_the_next(trained, tmp_path):
    """And what a program registered itself is not."""
    copy_of(trained / "run", tmp_path, "config.json", '"strategy": "future"', '"strategy": "soon"')
    (tmp_path / "run" / "plugin.py").write_text(PLUGIN)
    relabel.register("later", relabel.future, audited_as="future")
    try:
        assert launch.read_config(tmp_path / "run").replay.strategy == "soon"
        assert relabel.registered() == ("later", "soon")
        launch.read_config(trained / "run")
        assert relabel.registered() == ("later",)
        launch.read_config(tmp_path / "run")
        (tmp_path / "run" / "plugin.py").unlink()
        with pytest.raises(UserError, match="strategy: 'soon' is unknown"):
            launch.read_config(tmp_path / "run")
    finally:
        relabel.forget()


def test_a_plugin_takes_the_place_of_that_of_the_run(trained, tmp_path):
    (tmp_path / "calm.py").write_text(CALM)
    words = ["fetch-push", "--plugin", str(tmp_path / "calm.py"), "--algorithm", "calm"]
    try:
        run = launch.bind(train_script.parse(words).config, tmp_path / "run")
        run.create()
        sections: Any = train_script.parse([*words, "--agent.half-life", "3"]).config
        assert sections.agent.half_life == 3
        with pytest.raises(UserError, match="plugin: named twice; put what both register into"):
            train_script.parse([*words, "--plugin", "soon.py", "--strategy", "soon"])
        with pytest.raises(UserError, match=r"--half-life is of calm, not of ddpg; .* by --algo"):
            train_script.parse([*words[:3], "--half-life", "3"])
        (tmp_path / "calm.py").write_text(CALM + "# edited\n")
        config = train_script.parse([*words[:3], "--preset", str(run.folder)]).config
        launch.bind(config, tmp_path / "other")  # its class is the one that is registered
        agents.forget()
        (run.folder / "plugin.py").write_text("")
        with pytest.raises(UserError, match="agent 'calm' is unknown; restore the run's plugin"):
            launch.read_config(run.folder)
    finally:
        agents.forget()


def test_an_agent_in_a_file_has_its_options(tmp_path, capsys):
    path = tmp_path / "calm.py"
    path.write_text(CALM)
    words = ["fetch-push", "--plugin", str(path), "--algorithm", "calm"]
    try:
        config: Any = train_script.parse([*words, "--half-life", "7"]).config
        assert (config.agent.NAME, config.agent.half_life, config.agent.discount) == (
            "calm",
            7,
            0.9,
        )
        assert Config.from_dict(config.to_dict()) == config
        swept, _ = sweep.parse([*words, "--grid", "half_life=1,2"])
        kept: list[Any] = [setting.config.agent for setting in swept.settings]
        assert [agent.half_life for agent in kept] == [1, 2]
        assert {type(agent) for agent in kept} == {type(config.agent)}  # the file ran once
        with pytest.raises(SystemExit):
            train_script.parse([*words, "--help"])
        assert "Updates after which exploration is half of what" in capsys.readouterr().out
        with pytest.raises(UserError, match=r"registers calm, and the strategy is 'future', the a"):
            train_script.require_used([train_script.parse(words[:3]).config])
    finally:
        agents.forget()
    with pytest.raises(UserError, match=r"algorithm: 'calm' is unknown; .* by --plugin"):
        train_script.parse(["fetch-push", "--algorithm", "calm"])


def test_an_interrupted_run_says_what_is_saved(trained, tmp_path, monkeypatch):
    said: list[str] = []
    monkeypatch.setattr(launch.status, "print", lambda text, **_: said.append(text))

    def interrupted(run):
        if not run.folder.exists():
            run.create()
        raise KeyboardInterrupt

    monkeypatch.setattr(Run, "start", interrupted)
    monkeypatch.setattr(Run, "resume", interrupted)
    shutil.copytree(trained / "run", tmp_path / "run")
    for words in (["bit-flip", "--out", str(tmp_path / "b")], ["--resume", str(tmp_path / "run")]):
        monkeypatch.setattr(sys, "argv", ["train.py", *words])
        with pytest.raises(KeyboardInterrupt):
            train_script.main()
    new, old = said
    assert new == "nothing was saved: the first checkpoint is that of epoch 10"
    assert old == f"saved until epoch 2 of 2; go on with train.py --resume {tmp_path / 'run'}"


def test_a_run_of_an_unknown_task_says_how_to_make_it_known(trained, tmp_path):
    copy_of(trained / "run", tmp_path, "config.json", '"task": "FetchPush"', '"task": "Mine"')
    with pytest.raises(UserError, match=r"environment: 'Mine' is unknown; .* from Python \(docs/"):
        launch.open_run(tmp_path / "run")


def test_a_task_in_a_file_is_known_to_scripts(point, tmp_path):
    words = ["Point", "--plugin", str(point)]
    config = train_script.parse([*words, "--env-steps", "6000"]).config
    assert config.env.task == "Point" and config.train.env_steps == 6000
    train_script.require_used([config])
    run = launch.bind(config, tmp_path / "run")
    assert type(run.env).__name__ == "PointEnv" and run.judge is not None
    run.create()
    assert launch.open_run(run.folder).env.name == "Point"
    assert train_script.reopen(["Point", "--resume", str(run.folder)])[0].config.env.task == "Point"
    again = train_script.parse(["Point", "--preset", str(run.folder), "--k", "8"]).config
    assert again.replay.k == 8 and again.replay.plugin == str(run.folder / "plugin.py")
    assert sweep.parse([*words, "--grid", "k=4,8"])[0].settings[0].config.env.task == "Point"
    for more, message in (
        (["--physics", "warp"], "physics: 'warp' has no meaning in Point"),
        (["--scored-on", "warp"], "scored_on: 'warp' has no meaning in Point"),
        (["--n", "3"], "n: 3 has no meaning in Point"),
    ):
        with pytest.raises(UserError, match=message):
            launch.bind(train_script.parse([*words, *more]).config, tmp_path / "x")
    with pytest.raises(UserError, match="preset: 'efficient' has no settings for Point"):
        train_script.parse([*words, "--preset", "efficient"])
    her_envs.forget()
    draw_goals.main("Point", tmp_path / "own.csv", episodes=4, plugin=str(point))
    assert len((tmp_path / "own.csv").read_text().splitlines()) == 2 + 4  # hash, header, goals
    her_envs.forget()
    with pytest.raises(UserError, match=r"task: 'Point' is unknown; .* by --plugin"):
        train_script.parse(["Point"])
    her_envs.register("Broken", lambda: her_envs.BitFlipEnv(len(3)))  # type: ignore[arg-type]
    with pytest.raises(
        UserError, match="environment: 'Broken' cannot be made: object of type 'int'"
    ):
        her_envs.make("Broken")
    with pytest.raises(UserError, match="environment: 3 makes none; give its class"):
        her_envs.register("Three", 3)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="environment: 'FetchPush' is a built-in one"):
        her_envs.register("FetchPush", lambda: her_envs.BitFlipEnv(3))


@pytest.mark.slow
def test_a_task_in_a_file_is_trained_evaluated_audited_and_drawn(point, tmp_path):
    words = ["Point", "--plugin", str(point), "--out", "r", *TINY]
    shell("train", *words, folder=tmp_path)
    script("train", "--resume", "r", "--env-steps", "240", folder=tmp_path)
    printed = script("evaluate", "r", "--episodes", "4", folder=tmp_path)
    assert json.loads(printed)["evaluation"]["task"] == "Point"
    assert json.loads(script("audit", "r", "--verify", folder=tmp_path))["verified"]
    assert "wrote r/policy.jax" in script("export", "r", folder=tmp_path)
    assert "| Point | - | 0 |" in script("plot", "r", "--table", folder=tmp_path)
    assert "| Point | - | 0.1 | - | 0 |" in script("table", "r", folder=tmp_path)
    printed = script("render", "r", folder=tmp_path, rc=2)
    assert "video: Point has no scene to film" in printed


def test_a_run_opens_where_the_physics_that_it_was_trained_on_is_missing(
    trained, tmp_path, monkeypatch
):
    """To be looked at; training it asks for what is missing."""
    copy_of(trained / "run", tmp_path, "config.json", '"physics": "native"', '"physics": "warp"')

    def missing(*_):
        raise UserError("physics: 'warp' is not installed")

    monkeypatch.setattr(her_envs, "Mjx", missing)
    opened = launch.open_run(tmp_path / "run")
    assert opened.config.env.physics == "warp" and opened.env.simulator == "native"
    with pytest.raises(UserError, match="physics: FetchPush is simulated by 'native', not"):
        opened.resume()
    with pytest.raises(UserError, match="not installed"):
        launch.bind(opened.config, tmp_path / "run")


def test_train_leaves_everything_in_the_run_folder(trained):
    run = trained / "run"
    names = {path.name for path in run.iterdir()}
    assert names == {
        "config.json",
        "metrics.jsonl",
        "summary.json",
        "checkpoints",
        "policy.npz",
        "curve.png",
        "rollout.mp4",
        "audit.json",
        "audit.md",
        "episodes.parquet",
    }
    assert (run / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert b"ftyp" in (run / "rollout.mp4").read_bytes()[:16]
    summary = json.loads((run / "summary.json").read_text())
    assert summary["task"] == "FetchPush" and summary["seed"] == 3
    assert summary["env_steps"] == 200 and summary["updates"] == 4
    assert json.loads((run / "config.json").read_text())["agent"]["hidden"] == [8]


def test_a_reader_that_has_seen_enough_gets_no_traceback(tmp_path):
    """Of a pipe, as `head` is."""
    words = [sys.executable, str(REPO / "experiments" / "train.py"), "fetch-push", "--help"]
    process = subprocess.Popen(
        words,
        cwd=tmp_path,
        env=SCRIPT_ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout and process.stderr
    process.stdout.close()
    assert b"Traceback" not in process.stderr.read()
    assert process.wait() == 1


@pytest.mark.parametrize("name", ["run", "flipped"])
def test_a_policy_is_exported(name, trained, flipped):
    """What JAX alone reads acts as the run does, on any number of observations."""
    printed = script("export", name, folder=trained)
    assert f"wrote {name}/policy.jax" in printed
    exported = jax.export.deserialize((trained / name / "policy.jax").read_bytes())
    run = launch.open_run(trained / name)
    _, state, _ = run.restore()
    for count in (1, 5):
        keys = jax.random.split(jax.random.key(count))
        observation = jax.random.normal(keys[0], (count, run.env.observation_size))
        goal = jax.random.normal(keys[1], (count, run.env.goal_spec.size))
        acted = run.act(state, GoalObs(observation, goal, goal))
        assert jnp.allclose(exported.call(observation, goal), acted, atol=1e-6)
    (trained / name / "policy.jax").unlink()


def test_resume_goes_on_to_a_longer_budget(flipped, tmp_path):
    shutil.copytree(flipped, tmp_path / "run")
    for name in (metrics.VIDEO, metrics.EXPORTED):  # of the shorter run
        (tmp_path / "run" / name).touch()
    script("train", "--resume=run", "--env-steps", "96", "--no-video", folder=tmp_path)
    assert not {metrics.VIDEO, metrics.EXPORTED} & {p.name for p in (tmp_path / "run").iterdir()}
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["env_steps"] for line in lines] == [32, 64, 96]


@pytest.mark.slow
def test_a_killed_run_ends_where_an_uninterrupted_one_does(tmp_path):
    """SIGKILL in the middle of training, then --resume: equal states, no line lost or doubled."""
    words = ["fetch-reach", *TINY, "--env-steps", "2000", "--no-video"]
    shell("train", *words, "--out", "whole", folder=tmp_path)
    process = subprocess.Popen(
        [sys.executable, str(REPO / "experiments" / "train.py"), *words, "--out", "cut"],
        cwd=tmp_path,
        env=SCRIPT_ENVIRONMENT,  # or other programs would be compiled, which round otherwise
        stdout=subprocess.DEVNULL,
    )
    lines = tmp_path / "cut" / "metrics.jsonl"
    while not lines.exists() or len(lines.read_text().splitlines()) < 5:
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.01)
    process.kill()
    process.wait()
    shell("train", "--resume", "cut", "--no-video", folder=tmp_path)
    epochs = [json.loads(line)["epoch"] for line in lines.read_text().splitlines()]
    assert epochs == list(range(1, 21))
    whole, cut = (launch.open_run(tmp_path / name).restore()[1] for name in ("whole", "cut"))
    assert same(whole, cut)


def test_evaluate_prints_success_floor_and_settings(trained):
    result = json.loads(script("evaluate", "run", "--episodes", "6", folder=trained))
    settings = result["evaluation"]
    assert settings["episodes"] == 6 and settings["tolerance"] == 0.05
    assert 0 <= result["requested_goal_success"] <= result["requested_goal_success_any_step"] <= 1
    assert set(result["costs"]) >= {"table_contact_force", "object_off_table"}
    script("draw_goals", "fetch-push", "--out", "own.csv", "--episodes", "8", folder=trained)
    own = script("evaluate", "run", "--episodes", "6", "--goals", "own.csv", folder=trained)
    assert json.loads(own)["evaluation"]["goal_set"] != settings["goal_set"]


def test_a_policy_alone_is_scored_as_its_run(trained, tmp_path):
    """What its training asked for is not known."""
    shutil.copytree(trained / "run", tmp_path / "alone", ignore=shutil.ignore_patterns("check*"))
    whole = json.loads(script("evaluate", "run", "--episodes", "6", folder=trained))
    alone = json.loads(script("evaluate", "alone", "--episodes", "6", folder=tmp_path))
    assert whole.pop("goals_of_stored_episodes") == 0
    assert alone.pop("goals_of_stored_episodes") is None
    assert alone == whole
    printed = script("audit", "alone", folder=tmp_path, rc=2)
    assert "checkpoint: alone holds none, only policy.npz" in printed


def test_evaluate_prints_the_last_step_first_on_the_physics_asked_for(monkeypatch, toy, config):
    """An opened run whose policy holds the goal in the first two episodes, and the first alone at
    the end."""
    opened, printed = [], []

    class Opened(Run):
        def restore_policy(self):
            state = train.init(toy, self.agent, config, jax.random.key(0))
            return 3, policy.acting(self.agent, state)

        def evaluate(self, state, starts):
            held, passed = jnp.arange(4) < 1, jnp.arange(4) < 2
            return evaluate.evaluate(toy, lambda _, obs: jnp.zeros(2), starts)._replace(
                success=held, success_any=passed
            )

    def open_run(folder, scored_on):
        opened.append((folder, scored_on))
        return Opened(toy, config, folder, SILENT)

    monkeypatch.setattr(launch, "open_run", open_run)
    monkeypatch.setattr(launch, "report", printed.append)
    said: list[str] = []
    monkeypatch.setattr(launch.status, "print", lambda text, **_: said.append(text))
    main = runpy.run_path(str(REPO / "experiments" / "evaluate.py"))["main"]
    main(Path("r"), episodes=4, physics="warp")
    assert "success 0.250 at the last step on 4" in said[-1]
    assert said[-1].endswith("95 % interval 0.046 to 0.699")
    assert opened == [(Path("r"), "warp")]
    assert printed[0]["requested_goal_success"] == 0.25
    assert printed[0]["requested_goal_success_interval"] == pytest.approx([0.046, 0.699], abs=1e-3)
    assert printed[0]["requested_goal_success_any_step"] == 0.5
    assert printed[0]["no_action_success"] == 0.0 and printed[0]["epoch"] == 3
    assert printed[0]["goals_of_stored_episodes"] is None  # without a checkpoint


def test_a_terminal_shows_a_clock_that_fits(monkeypatch, capsys):
    shown = io.StringIO()
    monkeypatch.setattr(launch, "status", Console(file=shown, force_terminal=True, width=80))
    with launch.waiting("compiling, then playing 1,000 goals twice"):
        print("a result")
    assert "twice ..." in shown.getvalue() and "0:00:00" in shown.getvalue()
    assert capsys.readouterr().out == "a result\n" and "a result" not in shown.getvalue()


def test_every_setting_reaches_the_environment(monkeypatch):
    """And success is judged on the stock model."""
    monkeypatch.setattr(her_envs, "names", lambda: ["task"])
    made: list[tuple[str, dict[str, Any]]] = []

    def make(name, **options):
        made.append((name, options))
        return types.SimpleNamespace(simulator="native")

    monkeypatch.setattr(her_envs, "make", make)
    other: dict[str, Any] = {
        field.name: {"str": field.name, "int": 7}[str(field.type)]
        for field in dataclasses.fields(EnvConfig)
    }
    other["scored_on"] = "native"
    launch.make_envs(EnvConfig(**other))
    task, judged_on = other.pop("task"), other.pop("scored_on")
    judge = other | {"physics": judged_on, "model": "stock"}
    assert made == [(task, other), (task, judge)]


def test_the_audit_of_a_run_is_recomputed_from_what_it_left(trained):
    audited = record.read(trained / "run")
    assert audited.clean and audited.reward_recompute_test["audited_rows"] == 4 * 50
    verified = json.loads(script("audit", "run", "--verify", folder=trained))
    assert verified["verified"] and verified["compared"] > 90


def copy_of(run: Path, folder: Path, file: str, old: str, new: str) -> None:
    """A copy named `run`, one of its files edited."""
    shutil.copytree(run, folder / "run")
    edit(folder / "run" / file, old, new)


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_verifying_an_edited_run_names_what_differs(flipped, tmp_path):
    copy_of(flipped, tmp_path, "summary.json", '"eval_episodes": 6', '"eval_episodes": 5')
    edit(tmp_path / "run" / "audit.md", "**Success", "**Great success")
    edit(tmp_path / "run" / "audit.json", '"k": 4.0', '"k": 3.0')
    with np.load(tmp_path / "run" / "policy.npz") as file:
        arrays = dict(file)
    arrays["normalizer.mean.goal"] += 1
    np.savez(tmp_path / "run" / "policy.npz", allow_pickle=False, **arrays)
    log = pq.read_table(tmp_path / "run" / "episodes.parquet")
    pq.write_table(log.slice(1), tmp_path / "run" / "episodes.parquet")
    printed = script("audit", "run", "--verify", folder=tmp_path, rc=1, output=True)
    lines = json.loads(printed)["differences"]
    assert {line.split(": ")[0] for line in lines} == {
        *("summary.json", "audit.json", "audit.md", "episodes.parquet", "policy.npz")
    }
    told = [line for line in lines if line.startswith("summary.json")]
    assert told == ["summary.json: eval_episodes: 5 saved, 6 recomputed"]
    assert "audit.md: the text is not the record's" in lines
    assert "audit.json: relabel_strategy.k: 3.0 saved, 4.0 recomputed" in lines
    assert any(line.startswith("episodes.parquet: rows: ") for line in lines)
    assert any(line.startswith("episodes.parquet: equal: False") for line in lines)


def test_another_tolerance_than_the_trained_one_is_refused(trained, tmp_path):
    copy_of(trained / "run", tmp_path, "config.json", '"tolerance": "v4"', '"tolerance": "her2017"')
    for name in ("evaluate", "audit"):
        printed = script(name, "run", folder=tmp_path, rc=2)
        assert "tolerance: trained with 0.05 and evaluated with 0.07" in printed
        assert len(printed.strip().splitlines()) == 1


def test_runs_are_compared_only_if_they_were_scored_alike(trained, tmp_path):
    copy_of(trained / "run", tmp_path, "audit.json", '"episodes": 4', '"episodes": 7')
    shutil.copytree(trained / "run", tmp_path / "same")
    same = script("compare", "same", str(trained / "run"), folder=tmp_path)
    assert "table_contact_force (N)" in same and "95 % interval" in same
    assert "| same | - | 200 | " in same
    edit(tmp_path / "same" / "audit.json", '"no_action_success"', '"nothing"')
    printed = script("compare", "same", str(trained / "run"), folder=tmp_path, rc=2)
    assert "run: same has an audit.json with figures that are no numbers" in printed
    (tmp_path / "same" / "summary.json").unlink()
    printed = script("compare", "same", str(trained / "run"), folder=tmp_path, rc=2)
    assert "run: same is not finished; go on with train.py --resume same" in printed
    printed = script("compare", "run", str(trained / "run"), folder=tmp_path, rc=2)
    assert "error: episodes: run was scored with 7 and" in printed


def test_a_truncated_run_folder_is_refused_in_one_line(trained, tmp_path):
    copy_of(trained / "run", tmp_path, "audit.json", "}", "")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    for words in (("audit", "run", "--verify"), ("compare", "run", str(trained / "run"))):
        printed = script(*words, folder=tmp_path, rc=2)
        assert "audit.json is not valid JSON" in printed
        assert len(printed.strip().splitlines()) == 1
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


@pytest.mark.parametrize("fails_at", [0, 1, 10**9], ids=["start", "frame", "end"])
def test_without_an_encoder_a_run_ends_all_the_same(trained, monkeypatch, capfd, fails_at):
    def write_frames(path, *_, **__):
        Path(path).touch()
        for _ in range(fails_at):
            yield
        raise OSError("No way")

    monkeypatch.setattr("imageio_ffmpeg.write_frames", write_frames)
    run, video = launch.open_run(trained / "run"), (trained / "run" / "rollout.mp4").read_bytes()
    train_script.finish(
        run, run.restore()[1], metrics.read_json(run.folder / metrics.SUMMARY), True
    )
    assert "no video: video: the encoder fails (" in capfd.readouterr().err
    assert (trained / "run" / "rollout.mp4").read_bytes() == video
    assert not list((trained / "run").glob("partial*"))


def test_render_and_plot(trained):
    small = ["--episodes", "1", "--width", "64", "--height", "48"]
    script("render", "run", *small, "--out", "film.mp4", folder=trained)
    assert b"ftyp" in (trained / "film.mp4").read_bytes()[:16]
    script("render", "run", *small, "--out", "film.gif", folder=trained)
    assert (trained / "film.gif").read_bytes().startswith(b"GIF89a")
    script("plot", "run", "--out", "curve.png", folder=trained)
    assert (trained / "curve.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "train fetch-pull",
            "task: 'fetch-pull' is unknown; choose one of fetch-reach",
        ),
        ("train", "task: none given; name one of fetch-reach"),
        ("train fetch-push --plugin nowhere.py", "plugin: nowhere.py is no file"),
        ("render flipped", "video: BitFlip4 has no scene to film"),
        ("search fetch-push --out run/config.json", "out: run/config.json is no study"),
        ("train fetch-push --k -1", "k: -1.0"),
        ("train fetch-push --num-envs 7", "capacity: "),
        (
            "train fetch-push --physics mujoco",
            "physics: 'mujoco' is unknown; choose one of native, warp",
        ),
        ("train fetch-push --task FetchReach", "task: 'fetch-push' and --task 'FetchReach'"),
        ("train fetch-push --graph-mode none", "graph_mode: without effect on native physics"),
        ("train fetch-push --strategy none --k 8", "k: without effect with the strategy none"),
        ("train fetch-push --k 0 --strategy final", "strategy: without effect with k 0"),
        (
            "train fetch-reach --replay.priority-share 0.9",
            "priority_share: without effect with the priority uniform",
        ),
        ("train fetch-push --env.k 4", "options: --env.k is no setting"),
        ("train bit-flip --n \u00b2", "options: Error parsing --n"),
        ("evaluate flipped --physics warp", "physics: 'warp' has no meaning in BitFlip"),
        ("compare run run", "runs: run is named twice"),
        ("train fetch-reach --tolerance her2017", "tolerance: 'her2017' is not defined"),
        ("train fetch-push --preset best", "preset: 'best' is unknown; choose one of tuned"),
        ("train fetch-push --out run", "out: run already exists; name a new folder, or go on"),
        ("train fetch-push --out .", "out: . already exists; name a new folder"),
        ("train fetch-push --eval-episodes 1001 --out new", "episodes: 1001 asked for"),
        ("draw_goals fetch-push --out x --seed 4294967296", "seed: 4294967296 does not lie"),
        ("train fetch-push --capacity 16000000000", "GB for the goal buffer"),
        ("train fetch-push --out run/config.json/x", "out: run/config.json/x cannot be made"),
        ("train --resume nowhere", "run: nowhere is no folder"),
        ("train fetch-slide --resume run", "is of task 'FetchPush', not 'FetchSlide'"),
        ("train fetch-push --resume run", "has been trained for"),
        ("render run --out film.avi", "out: film.avi is no .mp4 or .gif file"),
        ("plot run --out curve.txt", "out: curve.txt is no picture"),
        ("evaluate .", "run: . holds no config.json"),
        ("evaluate run --episodes 0", "episodes: 0 is not positive"),
        ("render run --width 100", "width: 100 is not a positive multiple of 16"),
        ("audit nowhere", "run: nowhere is no folder"),
        ("audit nowhere.npz --tolerance 0.05", "replay: nowhere.npz is no .npz file"),
        ("draw_goals fetch-push --out run/config.json", "out: run/config.json cannot be written"),
        ("evaluate run --episodes 1001", "episodes: 1001 asked for"),
        ("audit run --tolerance 0.07 --k 4", "k, tolerance: for .npz files only"),
        ("audit run.npz --verify --tolerance 1", "verify: run.npz is no run folder"),
        ("compare run", "runs: 1 given; name two or more"),
        ("compare run nowhere", "run: nowhere is no folder"),
        ("evaluate run --goals run/config.json", "goals: run/config.json is no held-out set"),
        ("compare run flipped", "task: run was scored with FetchPush and flipped with BitFlip4"),
        ("train fetch-push --env-steps -3", "env_steps: -3 is not positive; --help shows"),
        ("train fetch-push --sed 3", "Unrecognized options: --sed, 3; perhaps you meant --seed; t"),
        ("train fetch-push --seed x", "options: Error parsing --seed: invalid literal for int()"),
        ("train --resume", "options: Missing value for argument '--resume'. Expected 1 values; t"),
        ("evaluate run --episode 3", "Unrecognized options: --episode, 3; perhaps you meant --epi"),
        ("evaluate", "options: Missing from "),
        (f"train fetch-push {120 * 'x'}", f"options: Unrecognized options: {120 * 'x'}; train.py"),
        ("plot", "runs: none given"),
        ("plot nowhere", "run: nowhere is no folder"),
        ("plot run --out run/config.json/x.png", "out: run/config.json/x.png cannot be written"),
        ("plot run --csv run/config.json/x.csv", "csv: run/config.json/x.csv cannot be written"),
        ("evaluate run --physics cuda", "physics: 'cuda' cannot score; choose one of native, warp"),
        ("evaluate flipped --episodes 1000000000", "episodes: 1000000000 are more than memory"),
    ],
)
@pytest.mark.usefixtures("flipped")
def test_bad_input_gets_one_line_and_changes_nothing(trained, words, message):
    before = {path: path.stat().st_mtime_ns for path in trained.rglob("*")}
    name, *rest = words.split()
    printed = script(name, *rest, folder=trained, rc=2)
    assert message in printed
    assert len(printed.strip().splitlines()) == 1, printed
    assert {path: path.stat().st_mtime_ns for path in trained.rglob("*")} == before


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("metrics.jsonl", '"requested_goal_success": ', '"requested": ', "no number for req"),
        (
            "metrics.jsonl",
            '"env_steps": ',
            '"env_steps": "a", "b": ',
            "no number for env_steps",
        ),
        ("summary.json", '"no_action_success"', '"nothing"', "no number for no_action_success"),
        (
            "config.json",
            '"env_steps": 200',
            '"env_steps": "many"',
            "config: train.env_steps: 'many' is no whole number; restore it",
        ),
    ],
)
def test_damaged_files_are_refused_in_one_line(trained, tmp_path, file, old, new, message):
    copy_of(trained / "run", tmp_path, file, old, new)
    for words in (("plot", "run", "--table", "--out", "curve.png"), ("table", "run")):
        printed = script(*words, folder=tmp_path, rc=2)
        assert message in printed and len(printed.strip().splitlines()) == 1, printed


def test_an_audit_by_another_mujoco_is_refused(trained, tmp_path):
    """It would set new figures beside the old version in the summary."""
    copy_of(trained / "run", tmp_path, "summary.json", '"mujoco": "', '"mujoco": "1')
    before = (tmp_path / "run" / "summary.json").read_bytes()
    printed = script("audit", "run", folder=tmp_path, rc=2)
    assert "versions: run was scored with MuJoCo 1" in printed and len(printed.splitlines()) == 1
    assert (tmp_path / "run" / "summary.json").read_bytes() == before


def test_help_shows_every_setting(tmp_path):
    printed = script("train", "fetch-push", "--help", folder=tmp_path)
    for flag in ("--seed", "--out", "--physics", "--num-envs", "--env-steps", "--k", "--discount"):
        assert flag in printed


def test_xla_flags_of_the_user_stay_and_other_versions_get_none(monkeypatch):
    ours = "--xla_cpu_use_fusion_emitters=false"
    for version, given, expected in (
        ("0.10.2", "", ours),
        ("0.10.2", "--xla_dump_to=x", f"--xla_dump_to=x {ours}"),
        ("0.10.2", "--xla_cpu_use_fusion_emitters=true", "--xla_cpu_use_fusion_emitters=true"),
        ("0.11.0", "", ""),
    ):
        monkeypatch.setattr(launch.importlib.metadata, "version", lambda _, now=version: now)
        monkeypatch.setenv("XLA_FLAGS", given)
        launch.set_xla_flags()
        assert os.environ["XLA_FLAGS"] == expected
