"""The comparison with Stable-Baselines3; parts that train it are skipped where it is missing."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import versus_sb3
from conftest import REPO, fetch
from her_jax import goal_set
from her_jax.errors import UserError
from her_jax.types import GoalObs
from toy import PointEnv
from versus_sb3 import Limits, Point

INSTALLED = all(map(importlib.util.find_spec, ("torch", "stable_baselines3", "sb3_contrib")))
needs_sb3 = pytest.mark.skipif(not INSTALLED, reason="the extra sb3 is not installed")

LIMITS = Limits(env_steps=100, seconds=60.0, target=0.9, eval_period=10)
FIELDS = {
    *("task", "contender", "seed", "threads", "load_before", "device", "settings", "packages"),
    *("env_steps", "train_s", "setup_s", "eval_s", "env_steps_per_s", "stopped", "points"),
    *("requested_goal_success", "requested_goal_success_best", "no_action_success", "limits"),
    *("env_steps_to_target", "seconds_to_target", "time_against_ours"),
    *("held_out_goals", "goal_set"),
}


@dataclasses.dataclass(frozen=True)
class Scripted:
    """Walks to the goal of the toy from its third evaluation on; a run is the steps played."""

    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    learns_after: int = 30

    def start(self) -> int:
        return 0

    def advance(self, run: int, env_steps: int, seconds: float) -> int:
        del seconds
        return run + env_steps

    def played(self, run: int) -> int:
        return run

    def device(self, run: int) -> str:
        return "none"

    def actor(self, run: int) -> np.ndarray:
        return np.asarray(run >= self.learns_after, np.float32)

    def act(self, actor: Any, obs: GoalObs) -> jax.Array:
        return 10 * actor * (obs.desired_goal - obs.achieved_goal)


def script(*words: str, rc: int = 0) -> subprocess.CompletedProcess[str]:
    """Runs the benchmark as a user does."""
    done = subprocess.run(
        [sys.executable, str(REPO / "benchmarks" / "versus_sb3.py"), *words],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == rc, done.stdout + done.stderr
    return done


def race(limits: Limits, **changes: Any) -> dict[str, Any]:
    env = PointEnv()
    return versus_sb3.race(env, Scripted(**changes), limits, goal_set.draw(env, 8), "toy")


def row(stopped: str, train_s: float, contender: str = "sac") -> dict[str, Any]:
    points = [Point(500, train_s / 2, 0.25), Point(1000, train_s, 0.125)]
    about = {"task": "FetchPush", "contender": contender, "setup_s": 1.0}
    return about | versus_sb3.summary(points, stopped)


@pytest.mark.parametrize(
    ("point", "stopped"),
    [
        (Point(10, 1.0, 0.895), None),
        (Point(10, 1.0, 0.9), "target"),
        (Point(100, 60.0, 0.9), "target"),
        (Point(100, 60.0, 0.0), "time"),
        (Point(100, 59.9, 0.0), "steps"),
        (Point(104, 59.9, 0.0), "steps"),
    ],
)
def test_a_contender_stops_at_the_target_or_when_its_budget_is_spent(point, stopped):
    assert versus_sb3.verdict(point, LIMITS) == stopped


@pytest.mark.parametrize("field", ["env_steps", "seconds", "eval_period", "target"])
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_limits_are_checked(field, value):
    with pytest.raises(UserError, match="limit_s" if field == "seconds" else field):
        dataclasses.replace(LIMITS, **{field: value})


def test_a_race_ends_at_the_first_evaluation_that_reaches_the_target():
    result = race(LIMITS)
    assert result["stopped"] == "target"
    assert [point["env_steps"] for point in result["points"]] == [10, 20, 30]
    successes = [point["requested_goal_success"] for point in result["points"]]
    assert successes == [0.0, 0.0, 1.0] and result["no_action_success"] == 0.0
    assert result["env_steps_to_target"] == result["env_steps"] == 30
    assert result["seconds_to_target"] == result["train_s"]
    assert 0 < result["setup_s"] < result["train_s"] and result["eval_s"] > 0
    assert result["held_out_goals"] == 8


def test_a_race_that_fails_uses_its_whole_budget():
    result = race(dataclasses.replace(LIMITS, env_steps=25), learns_after=1000)
    assert result["stopped"] == "steps"
    assert [point["env_steps"] for point in result["points"]] == [10, 20, 25]
    assert result["seconds_to_target"] is None and result["env_steps_to_target"] is None


def test_a_race_without_time_is_evaluated_once():
    result = race(dataclasses.replace(LIMITS, seconds=1e-9), learns_after=1000)
    assert result["stopped"] == "time" and len(result["points"]) == 1


def test_the_time_of_a_race_that_failed_is_a_bound():
    against = versus_sb3.against
    ours, late = row("target", 100.0, "ours"), row("time", 300.0, "ours")
    assert against(row("target", 250.0), ours) == {"is": "=", "ratio": 2.5}
    assert against(row("time", 3600.0), ours) == {"is": ">=", "ratio": 36.0}
    assert against(row("steps", 50.0), ours) == {"is": ">=", "ratio": 0.5}
    assert against(row("target", 150.0), late) == {"is": "<=", "ratio": 0.5}
    assert against(row("time", 300.0), late) is None


def test_the_table_says_what_was_not_reached():
    rows = versus_sb3.compared([row("target", 100.0, "ours"), row("time", 3600.0)])
    rows.append(row("target", 9.0) | {"task": "FetchReach", "time_against_ours": None})
    _, _, ours, sac, alone = versus_sb3.table(rows).splitlines()
    assert ours == "| FetchPush | ours | 1,000 | 100 | 1.0 | 0.125 | 1,000 | 100 | 10 | 1.0 |"
    assert "| not reached | not reached in 3,600 s |" in sac and sac.endswith("| >= 36.0 |")
    assert alone.endswith("|  |")


def test_only_the_same_task_is_compared():
    rows = [row("target", 100.0, "ours"), row("target", 9.0) | {"task": "FetchReach"}]
    assert versus_sb3.compared(rows)[1]["time_against_ours"] is None
    assert rows[1].keys() == row("target", 9.0).keys()  # the argument is left alone


def test_settings_are_the_published_ones():
    push = versus_sb3.peer_settings("tqc", "FetchPush")
    assert push["batch_size"] == 2048 and push["gamma"] == 0.95 and push["tau"] == 0.05
    assert push["learning_rate"] == 1e-3 and push["buffer_size"] == 1_000_000
    assert push["policy_kwargs"] == {"net_arch": [512, 512, 512], "n_critics": 2}
    assert push["replay_buffer_kwargs"] == {
        "goal_selection_strategy": "future",
        "n_sampled_goal": 4,
    }
    assert versus_sb3.peer_settings("sac", "FetchPickAndPlace") == push
    reach = versus_sb3.peer_settings("sac", "FetchReach")
    assert reach["normalize"] and reach["learning_starts"] == 1000 and "tau" not in reach
    assert reach["policy_kwargs"] == {"net_arch": [64, 64]}
    assert versus_sb3.peer_settings("tqc", "FetchReach")["policy_kwargs"]["n_critics"] == 1
    docs = versus_sb3.peer_settings("sac-docs", "FetchReach")
    assert docs["batch_size"] == 256 and docs["policy_kwargs"] == {"net_arch": [256, 256, 256]}
    assert docs["gamma"] == 0.95 and "tau" not in docs and "normalize" not in docs


def test_our_preset_changes_only_in_how_often_it_is_evaluated():
    limits = dataclasses.replace(LIMITS, eval_period=4_100)
    config = versus_sb3.our_settings("ours", "FetchPush", 3, 2, limits)
    assert config.train.cycles_per_epoch * config.train.num_envs * 50 == 4_000
    assert config.train.updates_per_cycle == 100 and config.replay.batch_size == 512
    assert (config.seed, config.env.num_threads, config.train.env_steps) == (3, 2, 100)
    assert config.agent.NAME == "ddpg"
    efficient = versus_sb3.our_settings("ours-efficient", "FetchPush", 3, 2, LIMITS)
    assert efficient.train.cycles_per_epoch == 1 and efficient.agent.NAME == "sac"


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"tasks": ("FetchPsh",)}, "tasks: 'FetchPsh' is unknown"),
        ({"tasks": ()}, "tasks: none named"),
        ({"contenders": ("ours", "ppo")}, "contenders: 'ppo' is unknown"),
        (
            {"contenders": ("ours-efficient",), "tasks": ("FetchReach",)},
            "'efficient' has no settings for fetch-reach",
        ),
        ({"target": 90.0}, "target: 90.0"),
        ({"seed": -1}, "seed: -1"),
        ({"threads": 10**6}, "threads: 1000000"),
        ({"limit_s": 0.0}, "limit_s: 0.0"),
        ({"out": REPO}, "out: "),
        ({"out": REPO / "LICENSE" / "file.json"}, "out: "),
    ],
)
def test_bad_input_is_refused_in_one_line(options, line):
    with pytest.raises(UserError, match=line) as refusal:
        versus_sb3.main(**{"contenders": ("ours",)} | options)
    assert "\n" not in str(refusal.value)


def test_a_missing_extra_is_named(monkeypatch):
    for name in ("torch", "stable_baselines3", "sb3_contrib"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match=r"pip install -e '\.\[sb3\]'") as refusal:
        versus_sb3.main(contenders=("sac",))
    assert "\n" not in str(refusal.value)


def test_the_script_ends_bad_input_with_one_line(tmp_path):
    out = tmp_path / "out.json"
    done = script("--tasks", "FetchPsh", "--out", str(out), rc=2)
    assert done.stdout == "" and not out.exists()
    assert done.stderr.splitlines()[-1].startswith("error: tasks: 'FetchPsh' is unknown")


def smoke_rows(out: Path, *contenders: str) -> list[dict[str, Any]]:
    """What a smoke run of these contenders wrote, checked."""
    result = json.loads(out.read_text())
    assert result["benchmark"] == "versus_sb3"
    assert {"device", "versions", "commit"} <= set(result)
    assert [row["contender"] for row in result["rows"]] == list(contenders)
    for row in result["rows"]:
        assert set(row) == FIELDS
        assert row["task"] == "FetchPush" and row["stopped"] == "steps"
        assert [point["env_steps"] for point in row["points"]] == [100, 200]
    return result["rows"]


def test_ours_alone_needs_no_extra(tmp_path, capsys):
    versus_sb3.main(contenders=("ours",), smoke=True, out=tmp_path / "out.json")
    (row,) = smoke_rows(tmp_path / "out.json", "ours")
    assert row["settings"]["env"]["task"] == "FetchPush"
    assert row["goal_set"] == goal_set.standard(fetch("FetchPush"), 4).sha256
    assert "| FetchPush | ours | 200 |" in capsys.readouterr().out


@needs_sb3
def test_the_peers_train_and_are_scored(tmp_path):
    out, names = tmp_path / "out.json", ("sac", "tqc", "sac-docs")
    printed = script("--smoke", "--contenders", *names, "--threads", "1", "--out", str(out))
    assert "| FetchPush | tqc | 200 |" in printed.stdout
    rows = smoke_rows(out, *names)
    assert all(row["threads"] == 1 for row in rows)
    assert all(row["packages"]["torch"] != "not installed" for row in rows)
    assert all("use_sde" not in row["settings"]["policy_kwargs"] for row in rows)
    assert all(row["time_against_ours"] is None for row in rows)


def tiny_settings(name: str, task: str) -> dict[str, Any]:
    tiny = {"batch_size": 8, "buffer_size": 1_000, "learning_starts": 60}
    return versus_sb3.peer_settings(name, task) | tiny | {"policy_kwargs": {"net_arch": [8]}}


@needs_sb3
@pytest.mark.parametrize(("name", "task"), [("sac", "FetchPush"), ("tqc", "FetchReach")])
def test_the_transcribed_actor_is_the_library_s(name, task):
    """After some training, for FetchReach with the statistics of `VecNormalize`."""
    env = fetch(task)
    settings = tiny_settings(name, task) | {"policy_kwargs": {"net_arch": [16, 12]}}
    peer = versus_sb3.Peer(env, versus_sb3.PEERS[name], settings, seed=0, threads=1)
    run = peer.advance(peer.start(), 150, 60.0)
    assert peer.played(run) == 150
    starts = goal_set.standard(env, 64).starts
    obs = jax.vmap(lambda start: env.begin(start).obs)(starts)
    noise = np.random.default_rng(0).normal(size=obs.observation.shape)  # some beyond the clip
    obs = obs._replace(observation=np.asarray(obs.observation + 3 * noise, np.float32))
    seen = {key: np.array(getattr(obs, key)) for key in versus_sb3.KEYS}
    vector = run.get_vec_normalize_env()
    assert (vector is not None) == (task == "FetchReach")
    if vector is not None:
        seen = vector.normalize_obs(seen)
        assert np.abs(seen["observation"]).max() == vector.clip_obs
    expected, _ = run.predict(seen, deterministic=True)
    np.testing.assert_allclose(peer.act(peer.actor(run), obs), expected, atol=1e-5)
    assert expected.std(axis=0).min() > 0.0


@needs_sb3
def test_the_peers_stop_when_their_time_is_up():
    peer = versus_sb3.Peer(fetch("FetchPush"), "SAC", tiny_settings("sac", "FetchPush"), 0, 1)
    run = peer.advance(peer.start(), 10**6, 0.05)
    assert 0 < peer.played(run) < 10**4


@needs_sb3
def test_the_transcription_survives_more_training():
    """Its arrays are copies."""
    peer = versus_sb3.Peer(fetch("FetchPush"), "SAC", tiny_settings("sac", "FetchPush"), 0, 1)
    run = peer.advance(peer.start(), 60, 60.0)
    before = peer.actor(run)
    kept = jax.tree.map(np.array, before)
    peer.advance(run, 100, 60.0)
    assert jax.tree.all(jax.tree.map(np.array_equal, before, kept))
    assert not np.array_equal(peer.actor(run).layers[0][0], kept.layers[0][0])
