"""Runs on disk: files, checkpoints, exact resume, refusals."""

from __future__ import annotations

import json
import shutil
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

import her_envs
from conftest import SILENT, same, tiny_config, with_
from her_jax import checkpoint, evaluate, goal_set, metrics, provenance, runner, train
from her_jax.audit import record
from her_jax.config import Config
from her_jax.errors import UserError
from her_jax.runner import Run
from her_jax.types import CostSpec, GoalEnv, GoalObs
from toy import PointEnv


def run(env, config, folder) -> Run:
    return Run(env, config, folder, SILENT)


@pytest.fixture(scope="module")
def half(toy, tmp_path_factory):
    """Folder of a finished run of half the steps."""
    folder = tmp_path_factory.mktemp("runs") / "half"
    run(toy, with_(tiny_config(), env_steps=480), folder).start()
    return folder


@pytest.fixture
def halfway(half, tmp_path):
    """A copy of it."""
    shutil.copytree(half, tmp_path / "half")
    return tmp_path / "half"


def test_files_of_a_run(finished, copied):
    _, summary, _ = finished
    files = {path.name for path in copied.iterdir()}
    assert files == {
        *("config.json", "metrics.jsonl", "summary.json", "checkpoints", "policy.npz"),
        *("audit.json", "audit.md", "episodes.parquet"),
    }
    records = metrics.read(copied)
    assert [record["epoch"] for record in records] == [1, 2, 3, 4]
    assert records[-1]["env_steps"] == 960 and records[-1]["updates"] == 48
    on_disk = json.loads((copied / "summary.json").read_text())
    assert on_disk == summary
    required = {
        "task", "seed", "physics", "env_steps", "updates", "wall_s", "compile_s",
        "sim_steps_per_s", "requested_goal_success", "requested_goal_success_best",
        "eval_episodes", "no_action_success", "distance_threshold", "hindsight_ratio",
        "versions", "device", "commit", "commands",
    }  # fmt: skip
    assert required <= set(on_disk)


def test_the_best_success_is_that_of_the_best_epoch(toy, config, copied):
    lines = metrics.read(copied)
    for line, success in zip(lines, (0.25, 0.75, 0.5, 0.5), strict=True):
        line["requested_goal_success"] = success
    run = Run(toy, config, copied, SILENT)
    summary = run._summary(lines, run.restore()[2], record.read(copied))
    assert summary["requested_goal_success_best"] == 0.75


def test_resume_ends_in_the_state_of_an_uninterrupted_run(toy, config, finished, halfway):
    whole, _, _ = finished
    before = metrics.read_json(halfway / metrics.SUMMARY)["commands"]
    resumed, summary = run(toy, config, halfway).resume()
    assert before == [provenance.command()] and summary["commands"] == 2 * before
    assert same(whole, resumed)
    assert summary["env_steps"] == 960
    assert [record["epoch"] for record in metrics.read(halfway)] == [1, 2, 3, 4]


def test_epochs_after_the_last_checkpoint_are_repeated_not_duplicated(
    toy, config, finished, halfway
):
    """As after a crash between two checkpoints: lines without a checkpoint are dropped."""
    whole, _, _ = finished
    record = metrics.read(halfway)[-1]
    metrics.append(halfway, {**record, "epoch": 3, "env_steps": -1})
    with (halfway / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 4, "env_st')  # a line that the crash cut short
    resumed, _ = run(toy, config, halfway).resume()
    records = metrics.read(halfway)
    assert [record["epoch"] for record in records] == [1, 2, 3, 4]
    assert records[2]["env_steps"] == 720
    assert same(whole, resumed)


def test_checkpoint_round_trip_is_exact(toy, config, finished):
    state, _, folder = finished
    epoch, restored, _ = run(toy, config, folder).restore()
    assert epoch == 4
    assert same(state, restored)


def test_lines_and_audit_score_the_restored_greedy_policy(toy, config, finished):
    """The toy has hardly learned, so what tells policies apart is the distance at the end."""
    _, summary, folder = finished
    opened = run(toy, config, folder)
    _, restored, _ = opened.restore()
    goals = goal_set.standard(toy, config.train.eval_episodes)

    def mean_distance(policy):
        return evaluate.mean(evaluate.evaluate(toy, policy, goals.starts).distance)

    greedy = mean_distance(lambda _, obs: opened.act(restored, obs))
    assert metrics.read(folder)[-1]["final_distance"] == pytest.approx(greedy, rel=1e-5)
    audited = record.read(folder).report_metrics
    assert audited["final_distance"] == pytest.approx(greedy, rel=1e-5)
    outcome = opened.evaluate(restored, goals.starts)
    assert float(np.mean(outcome.success)) == summary["requested_goal_success"]
    noisy = mean_distance(
        lambda key, obs: train.exploring(
            opened.agent, config, restored.learner, restored.normalizer, obs, key
        )
    )
    assert abs(noisy - greedy) > 1e-3


def test_finished_runs_are_not_touched_by_resume(toy, config, copied):
    """Neither with the old budget nor with a smaller one."""
    before = {path: path.stat().st_mtime_ns for path in copied.rglob("*")}
    for budget in (960, 240):
        with pytest.raises(UserError, match="has been trained for 960 steps"):
            run(toy, with_(config, env_steps=budget), copied).resume()
    assert {path: path.stat().st_mtime_ns for path in copied.rglob("*")} == before


def test_a_run_that_lost_its_summary_is_completed(toy, config, copied, finished, monkeypatch):
    """Without compiling what is not trained any more."""
    monkeypatch.delattr(Run, "_compile")
    (copied / "summary.json").unlink()
    state, summary = run(toy, config, copied).resume()
    assert same(state, finished[0])
    assert summary["requested_goal_success"] == finished[1]["requested_goal_success"]


def test_an_extended_run_drops_the_old_claims_first(toy, config, copied, monkeypatch):
    """Killed before it writes new ones, it must not look finished."""
    longer = run(toy, with_(config, env_steps=1200), copied)
    monkeypatch.setattr(Run, "audit", lambda *_: exec("raise KeyboardInterrupt"))
    with pytest.raises(KeyboardInterrupt):
        longer.resume()
    for name in ("summary.json", "audit.json", "audit.md", "episodes.parquet"):
        assert not (copied / name).exists()
    monkeypatch.undo()
    _, summary = run(toy, with_(config, env_steps=1200), copied).resume()
    assert summary["env_steps"] == 1200


def test_a_resume_that_fails_leaves_everything(toy, config, copied):
    path = copied / metrics.METRICS
    path.write_text(path.read_text().replace('"epoch": 2', '"epoch": two'))
    before = {file: file.read_bytes() for file in copied.rglob("*") if file.is_file()}
    with pytest.raises(UserError, match=r"metrics.jsonl, line 2: "):
        run(toy, with_(config, env_steps=1200), copied).resume()
    assert {file: file.read_bytes() for file in copied.rglob("*") if file.is_file()} == before


def test_damaged_checkpoints_are_refused_in_one_line(toy, config, copied):
    for path in (copied / "checkpoints").rglob("*"):
        if path.is_file() and path.stat().st_size > 200:
            data = bytearray(path.read_bytes())
            data[len(data) // 2] ^= 0xFF
            path.write_bytes(data)
    with pytest.raises(UserError, match="does not load") as error:
        run(toy, config, copied).restore()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("epoch", [3, 4])
def test_a_process_stops_whose_epochs_another_one_has_saved(finished, copied, epoch):
    with pytest.raises(UserError, match=f"already holds epoch 4, .* stops at epoch {epoch}"):
        checkpoint.save(copied, epoch, finished[0], {})
    assert checkpoint.latest(copied) == 4


def test_a_checkpoint_that_is_replaced_while_it_is_read(toy, config, finished, copied, monkeypatch):
    folder, read, asked = copied / checkpoint.FOLDER, checkpoint._read, []

    def late(run, epoch, *rest):
        if not asked:
            (folder / "4").rename(folder / "5")
        asked.append(epoch)
        return read(run, epoch, *rest)

    monkeypatch.setattr(checkpoint, "_read", late)
    epoch, state, _ = Run(toy, config, copied, SILENT).restore()
    assert asked == [4, 5] and epoch == 5 and same(state, finished[0])


def test_a_checkpoint_of_another_kind_of_device_is_read(toy, config, finished, copied):
    (path,) = (copied / "checkpoints").rglob("_sharding")
    written = path.read_text()
    assert "cpu:0" in written
    path.write_text(written.replace("cpu:0", "cuda:0"))
    assert same(run(toy, config, copied).restore()[1], finished[0])


def test_goals_that_training_has_seen_are_refused(toy, config, finished):
    state, _, folder = finished
    opened = run(toy, config, folder)
    seen = np.asarray(state.buffer.episodes.desired_goal[:8])
    goals = goal_set.standard(toy, 8)
    overlapping = goals._replace(starts=goals.starts._replace(desired_goal=seen))
    with pytest.raises(UserError, match="8 of 8 held-out goals were requested in training"):
        opened.measure(state, {"goal": {}, "commits": []}, overlapping)


def test_the_newest_goals_of_training_are_compared_with_the_held_out_ones(toy, config, finished):
    """The ring has wrapped: its newest episodes lie before the cursor, the oldest behind it."""
    state, _, folder = finished
    opened, cursor = run(toy, config, folder), int(state.buffer.cursor)
    assert 4 <= cursor < config.replay.capacity == int(state.buffer.size)
    requested = np.asarray(state.buffer.episodes.desired_goal)

    def asking(row):
        goals = goal_set.standard(toy, 1)
        return goals._replace(starts=goals.starts._replace(desired_goal=requested[[row]]))

    for row in (cursor - 1, cursor - 4):
        with pytest.raises(UserError, match="1 of 1 held-out goals"):
            opened.require_disjoint(asking(row), state, newest=4)
    for row in (cursor - 5, cursor):
        opened.require_disjoint(asking(row), state, newest=4)


def test_a_run_that_asks_for_a_held_out_goal_stops(toy, config, finished, tmp_path, monkeypatch):
    state, asked = finished[0], goal_set.standard(toy, config.train.eval_episodes)
    newest = np.asarray(state.buffer.episodes.desired_goal)[int(state.buffer.cursor) - 1]
    goals = np.concatenate([newest[None], asked.starts.desired_goal[1:]])
    asked = asked._replace(starts=asked.starts._replace(desired_goal=goals))
    monkeypatch.setattr(goal_set, "standard", lambda *_: asked)
    with pytest.raises(UserError, match="1 of 8 held-out goals were requested in training"):
        run(toy, config, tmp_path / "r").start()
    assert [line["epoch"] for line in metrics.read(tmp_path / "r")] == [1, 2, 3]


def test_seconds_go_on_after_an_interruption(toy, config, copied, monkeypatch):
    honest = Run.reopen

    def long_ago(self):
        epoch, state, about = honest(self)
        return epoch, state, about | {"wall_s": 1e6}

    monkeypatch.setattr(Run, "reopen", long_ago)
    _, summary = run(toy, with_(config, env_steps=1200), copied).resume()
    assert metrics.read(copied)[-1]["wall_s"] > 1e6 and summary["wall_s"] > 1e6


def test_existing_folder_is_refused_and_untouched(toy, config, tmp_path):
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "precious").write_text("data")
    with pytest.raises(UserError, match="already exists"):
        run(toy, config, tmp_path / "r").start()
    assert [path.name for path in (tmp_path / "r").iterdir()] == ["precious"]


def test_checkpoint_of_another_task_is_refused(toy, config, copied):
    before = sorted(path.name for path in copied.rglob("*"))
    with pytest.raises(UserError, match="is of task 'Point', not 'Line'"):
        run(PointEnv(name="Line"), with_(config, task="Line"), copied).resume()
    with pytest.raises(UserError, match="was trained in Point, not in Point3"):
        run(PointEnv(name="Point3"), config, copied).resume()
    assert sorted(path.name for path in copied.rglob("*")) == before


def test_checkpoint_of_another_shape_is_refused(toy, config, copied):
    with pytest.raises(UserError, match=r"agent.hidden: the checkpoint was trained with \["):
        run(toy, with_(config, hidden=(8, 8)), copied).resume()
    like = jax.eval_shape(run(toy, with_(config, hidden=(8, 8)), copied)._init, jax.random.key(0))
    with pytest.raises(UserError, match="does not load"):  # one without settings
        checkpoint.restore(copied, like, lambda about: None)


def test_missing_checkpoints_are_named(toy, config, tmp_path):
    with pytest.raises(UserError, match="holds none; train again"):
        run(toy, config, tmp_path).restore()
    (tmp_path / checkpoint.FOLDER).mkdir()
    with pytest.raises(UserError, match="is empty"):
        run(toy, config, tmp_path).restore()


def test_an_edited_configuration_is_refused(toy, config, copied):
    """Settings that a run keeps for life; a longer budget is no edit."""
    for changes in ({"strategy": "final"}, {"k": 1.0}, {"discount": 0.5}, {"seed": 3}):
        with pytest.raises(UserError, match="the checkpoint was trained with"):
            run(toy, with_(config, **changes), copied).resume()
        with pytest.raises(UserError, match="the checkpoint was trained with"):
            run(toy, with_(config, **changes), copied).restore()
    assert run(toy, with_(config, env_steps=1200), copied).restore()[0] == 4


def test_truncated_checkpoints_are_refused_in_one_line(toy, config, copied):
    data = max((copied / "checkpoints").rglob("d/*"), key=lambda path: path.stat().st_size)
    data.write_bytes(data.read_bytes()[:1000])
    with pytest.raises(UserError, match="does not load") as error:
        run(toy, config, copied).restore()
    assert "\n" not in str(error.value)


def test_divergence_stops_the_run_and_keeps_the_checkpoint(toy, config, halfway, monkeypatch):
    monkeypatch.setattr(runner, "_require_same_settings", lambda *_: None)
    diverging = run(toy, with_(config, actor_learning_rate=1e38), halfway)
    with pytest.raises(UserError, match="not finite"):
        diverging.resume()
    epoch, _, _ = run(toy, config, halfway).restore()
    assert epoch == 2


def test_progress_names_the_tolerance_and_the_floor(toy, config, tmp_path):
    console = Console(width=200, record=True, quiet=False, file=open("/dev/null", "w"))  # noqa: SIM115
    Run(toy, config, tmp_path / "r", console).start()
    text = console.export_text()
    assert "compiling the initial state" in text and "compiling training" in text
    assert "... " in text
    assert "position within 0.1 m" in text and "doing nothing scores 0.000" in text
    assert "960 steps" in text


def test_success_is_measured_where_the_judge_says(toy, config, tmp_path):
    """Training plays in one environment, evaluation, floor and audit in another."""

    class Still(PointEnv):
        """Nothing ever moves, and in every step contacts are dropped."""

        def step(self, state, action):
            state = super().step(state, jnp.zeros_like(action))
            return state.replace(dropped=jnp.ones((), bool))

    config = with_(config, env_steps=240)
    judged = Run(toy, config, tmp_path / "r", SILENT, Still())
    state, summary = judged.start()
    stored = np.asarray(state.buffer.episodes.achieved_goal)[: int(state.buffer.size)]
    assert np.abs(stored[:, -1]).max() > 0  # in training things move
    assert summary["costs"]["speed"]["episode_sum"] == 0  # where it is judged they do not
    line = metrics.read(tmp_path / "r")[-1]
    assert line["evaluation_dropped_contact_steps"] == 1 and line["dropped_contact_steps"] == 0
    goals = goal_set.standard(toy, config.train.eval_episodes)
    assert (judged.evaluate(state, goals.starts).distance > 0.79).all()


@pytest.mark.parametrize("taken", ["final_distance", "wall_s", "critic_loss", None])
def test_a_cost_hides_no_other_figure(config, tmp_path, taken):
    class Named(PointEnv):
        @property
        def cost_specs(self):
            return (CostSpec(taken or "speed", "m", "Length of a step."),)

    one, costs = jnp.zeros(1), jnp.zeros((1, 1))
    outcome = evaluate.Outcome(one, one, one, one, costs, costs, one, one)
    made = run(Named(), config, tmp_path / "r")
    state = jax.eval_shape(made._init, jax.random.key(0)).replace(env_steps=240)
    seconds = {"train_s": 1.0, "audit_s": 1.0, "eval_s": 1.0}
    arguments = (1, state, {"critic_loss": jnp.ones(())}, outcome, seconds)
    if taken is None:
        assert made._line(*arguments)["speed"] == 0
        return
    with pytest.raises(UserError, match=f"cost_specs: {taken} is another figure's name"):
        made._line(*arguments)


@pytest.mark.parametrize("names", [("force", "force"), ("unsuccessful_grasp",)])
def test_names_of_costs_are_checked_first(config, tmp_path, names):
    class Named(PointEnv):
        @property
        def cost_specs(self):
            return tuple(CostSpec(name, "m", "Length of a step.") for name in names)

    with pytest.raises(UserError, match=f"cost_specs: {', '.join(names)}: each needs a name"):
        run(Named(), config, tmp_path / "r")


def test_physics_are_those_of_the_settings(config, tmp_path):
    reach = her_envs.make("FetchReach")
    with pytest.raises(UserError, match="physics: FetchReach is simulated by 'native', not"):
        other = with_(config, task="FetchReach", physics="warp")
        Run(reach, other, tmp_path / "r", SILENT, judge=reach).start()
    assert not (tmp_path / "r").exists()
    other = with_(config, task="FetchReach", scored_on="warp")
    with pytest.raises(UserError, match="judge: FetchReach is simulated by 'native', and"):
        Run(reach, other, tmp_path / "r", SILENT, judge=reach)


def test_environments_are_of_the_task_of_the_settings(toy, tmp_path):
    """Or a run of one's own would say that it is FetchReach, the default."""
    for task in ("FetchReach", "Po", ""):
        with pytest.raises(UserError, match=f"task: the settings say '{task}' and .* is Point3; "):
            run(PointEnv(name="Point3"), with_(Config(), task=task), tmp_path / "r")


@pytest.mark.parametrize("change", [{"eval_episodes": 7}, {"scored_on": "warp"}])
def test_a_run_goes_on_scored_as_before(toy, config, copied, change):
    """Its lines would be of different goals or physics, and its best that of the easier ones."""
    (name,), before = change, (copied / metrics.CONFIG).read_text()
    with pytest.raises(UserError, match=f"{name}: success of .* was measured with .*; go on with"):
        Run(toy, with_(config, env_steps=1200, **change), copied, SILENT, judge=toy).resume()
    assert (copied / metrics.CONFIG).read_text() == before


class Lazy(GoalEnv):
    """Names nothing of its own."""


def test_who_inherits_the_protocol_lacks_nothing():
    with pytest.raises(TypeError, match="abstract"):
        Lazy()  # pyright: ignore[reportAbstractUsage]


def wrong(cost, *, at_the_start: bool = False):
    """The toy with other costs after a step."""

    class Wrong(PointEnv):
        def begin(self, start):
            first = super().begin(start)
            return first.replace(cost=cost(first)) if at_the_start else first

        def step(self, state, action):
            return super().step(state, action).replace(cost=cost(state))

    return Wrong()


@pytest.mark.parametrize(
    ("env", "complaint"),
    [
        (wrong(lambda state: jnp.zeros(3)), r"plays no episode: .* differ: .*cost.*float32\[2\]"),
        (wrong(lambda state: 1 if state.dropped else 0), "plays no episode: `if`, `and` and"),
        (PointEnv(observation_size=3), "env: Point plays no episode: .*shape"),
        (
            wrong(lambda state: jnp.zeros(2, int), at_the_start=True),
            r"env: Point plays episodes with cost int32 \(15, 2\), and float32 \(15, 2\) is",
        ),
    ],
)
def test_an_environment_that_plays_no_episode_is_refused_in_one_line(
    env, complaint, config, tmp_path
):
    with pytest.raises(UserError, match=complaint) as error:
        run(env, config, tmp_path / "r").start()
    assert "\n" not in str(error.value) and not (tmp_path / "r").exists()


def test_a_missing_plugin_is_refused_before_the_folder_is_made(toy, config, tmp_path):
    with pytest.raises(UserError, match=r"plugin: nope\.py is no file"):
        run(toy, with_(config, plugin="nope.py"), tmp_path / "r").start()
    assert not (tmp_path / "r").exists()


def test_what_does_not_score_itself_needs_a_judge(toy, config, tmp_path):
    """Or its settings would name physics that did not score it."""
    for change in ({"physics": "warp"}, {"model": "fast"}, {"scored_on": "warp"}):
        other = with_(config, **change)
        with pytest.raises(UserError, match="judge: none given, and success is measured on"):
            run(toy, other, tmp_path / "run")
        assert Run(toy, other, tmp_path / "run", SILENT, judge=toy).judge is toy


def test_steps_that_cannot_be_counted_are_refused(toy, config, tmp_path):
    """And budgets that only whole epochs carry beyond 32 bits."""
    with pytest.raises(UserError, match=r"env_steps: 2147483648 must be below 2\*\*31"):
        with_(config, env_steps=2**31)
    with pytest.raises(UserError, match=r"env_steps: \d+, in whole epochs, must be below"):
        run(toy, with_(config, env_steps=2**31 - 1), tmp_path / "run")


class Lacking:
    """Has nothing but a horizon, and a property that does not compute."""

    horizon = 3

    @property
    def reward_pairs(self):
        raise AttributeError("of something else")


def test_what_an_environment_lacks_is_listed(config, tmp_path):
    env: Any = Lacking()
    with pytest.raises(UserError, match="env: Lacking has no name, ") as caught:
        Run(env, config, tmp_path / "r", SILENT)
    assert "reward_pairs" not in str(caught.value) and "success" in str(caught.value)


@pytest.mark.parametrize("horizon", [0, -5, 2.5])
def test_an_environment_without_whole_steps_is_refused(config, tmp_path, horizon):
    env: Any = PointEnv
    with pytest.raises(UserError, match=f"env: horizon of Point is {horizon}, no whole number"):
        Run(env(horizon=horizon), config, tmp_path / "r", SILENT)
    with pytest.raises(UserError, match="env: PointEnv is a class; give an environment, PointEnv"):
        Run(env, config, tmp_path / "r", SILENT)


def test_double_precision_is_refused(toy, config, tmp_path):
    with jax.enable_x64(True), pytest.raises(UserError, match="JAX_ENABLE_X64: environments"):
        Run(toy, config, tmp_path / "r", SILENT)


def test_observations_and_goals_of_another_size_are_refused(toy, config, tmp_path):
    run = Run(toy, config, str(tmp_path / "r"), SILENT)
    state = run._init(jax.random.key(0))
    point = jnp.zeros((5, 2))
    assert run.act(state, GoalObs(point, point, point)).shape == (5, 2)
    for name in ("observation", "desired_goal"):
        obs = GoalObs(point, point, point)._replace(**{name: jnp.zeros((5, 3))})
        with pytest.raises(UserError, match=rf"{name}: shape \(5, 3\); those of Point end with 2"):
            run.act(state, obs)
