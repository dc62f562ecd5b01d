"""The audit record: what is in it, that it can be recomputed, and that edits show."""

from __future__ import annotations

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import compare
from conftest import SILENT, with_
from her_jax import evaluate, goal_set, metrics
from her_jax.audit import log, record
from her_jax.errors import UserError
from her_jax.runner import Run


def rebuilt(toy, config, folder) -> record.AuditRecord:
    opened = Run(toy, config, folder, SILENT)
    _, state, about = opened.restore()
    return opened.measure(state, about, goal_set.standard(toy, config.train.eval_episodes))[0]


def test_the_same_pieces_give_the_same_record(toy, config, finished):
    saved = record.read(finished[2])
    again = rebuilt(toy, config, finished[2])
    assert record.differences(saved.claims(), again.claims()) == []


def test_differences_are_named_with_both_values():
    saved = {"a": 1, "b": {"c": [1, 2]}, "only": 3}
    again = {"a": 1, "b": {"c": [1, 5]}, "new": None}
    assert record.differences(saved, again) == [
        "b.c.1: 2 saved, 5 recomputed",
        "new: absent saved, None recomputed",
        "only: 3 saved, absent recomputed",
    ]


def test_every_piece_has_its_own_hash(toy, config, finished):
    """Changing one piece changes its hash and no other."""
    state, _, folder = finished
    opened = Run(toy, config, folder, SILENT)
    _, _, about = opened.restore()
    goals = goal_set.standard(toy, 8)
    measured = record.compute(toy, opened.agent, config, state, goals)

    def hashes(config=config, state=state, about=about, goals=goals):
        return record.build(toy, config, state, about, goals, measured).hashes

    reference = hashes()
    actions = state.buffer.episodes.action.at[0, 0, 0].add(1e-3)
    episodes = state.buffer.episodes._replace(action=actions)
    statistics = state.normalizer.replace(mean={**state.normalizer.mean, "goal": jnp.ones(2)})
    changed = {
        "config": hashes(config=dataclasses.replace(config, seed=1)),
        "replay": hashes(state=state.replace(buffer=state.buffer.replace(episodes=episodes))),
        "parameters": hashes(state=state.replace(normalizer=statistics)),
        "goal_set": hashes(goals=goal_set.draw(toy, 8, seed=3)),
        "code": hashes(about=about | {"commits": ["other"]}),
    }
    assert set(changed) == set(reference)
    for name, found in changed.items():
        assert {k for k in reference if found[k] != reference[k]} == {name}


def test_a_broken_episode_has_failed_in_the_log_too(toy, config, finished, tmp_path):
    """Even one that ends at the goal, as one that passes it has; the log is equal to itself."""
    state = finished[0]
    starts = goal_set.draw(toy, 4).starts
    played, _ = evaluate.episodes(toy, evaluate.no_action(toy), starts)
    there = jnp.broadcast_to(played.desired_goal[:, None], played.achieved_goal.shape)
    gone = there.at[1, 5].set(jnp.nan).at[2, -1].add(1.0)
    played = played._replace(achieved_goal=gone)
    table = log.build(toy, config, played, state, jax.random.key(0), {"failure_labels": ()})
    assert log.success(table) == 0.5 == evaluate.mean(evaluate.outcome(toy, played).success)
    log.write(tmp_path / "log.parquet", table)
    again = log.read(tmp_path / "log.parquet")
    assert log.equal(again, table) and not again.equals(table)
    assert not log.equal(again.slice(1), table)


def columns(table: pa.Table, *names: str) -> list[np.ndarray]:
    """Columns of vectors or numbers as arrays."""
    return [np.array(table[name].to_pylist()) for name in names]


def test_a_row_of_the_log_is_one_step(toy, config, finished):
    """States follow each other, rewards are those of the state that a step led to."""

    def walk(key, obs):
        return 10 * (obs.desired_goal - obs.achieved_goal)

    played, _ = evaluate.episodes(toy, walk, goal_set.draw(toy, 4).starts)
    key, about = jax.random.key(0), {"failure_labels": ()}
    table = log.build(toy, config, played, finished[0], key, about)
    source, episode, step = columns(table, "source", "episode", "step")
    before, after, goal = columns(table, "achieved_goal", "next_achieved_goal", "desired_goal")
    action, cost, reward = columns(table, "action", "cost", "reward")
    first = step == 0
    assert (step.reshape(-1, 15) == np.arange(15)).all()  # whole episodes, one after another
    assert (before[first] == 0).all()  # where the toy starts
    follows = ~first[1:]
    assert (before[1:][follows] == after[:-1][follows]).all()
    for column in (episode, source):
        assert (column[1:] == column[:-1])[follows].all()
    np.testing.assert_allclose(after - before, 0.1 * np.clip(action, -1, 1), atol=1e-6)
    np.testing.assert_allclose(cost[:, 0], np.linalg.norm(after - before, axis=-1), atol=1e-6)
    distance = np.linalg.norm(after - goal, axis=-1)
    clear = abs(distance - 0.1) > 1e-5
    assert set(reward) == {-1.0, 0.0}
    np.testing.assert_array_equal(reward[clear], -(distance > 0.1)[clear].astype(np.float32))


@pytest.mark.parametrize(
    "fault",
    [
        {"pairs": {"hit": "paid -1.0"}},
        {"identity_mismatches": 1},
        {"violations": {"reward": 1}},
        {"share_within_three_sigma": False},
    ],
)
def test_any_fault_makes_a_record_unclean(finished, fault):
    sound = record.read(finished[2])
    test = sound.reward_recompute_test
    assert sound.clean and fault.keys() <= test.keys()
    assert not dataclasses.replace(sound, reward_recompute_test=test | fault).clean


def test_a_compared_run_shows_its_interval_and_its_costs(finished):
    saved = record.read(finished[2])
    figures = saved.report_metrics | {"requested_goal_success": 0.975}
    channel = {"units": "m", "episode_sum": 12.5, "worst_step": 3.25}
    shown = dataclasses.replace(
        saved,
        report_metrics=figures,
        evaluation=saved.evaluation | {"episodes": 200},
        costs=dict.fromkeys(saved.costs, channel),
    )
    header, _, line = compare.table({"a": shown}, {"a": ("k=8", "1,000")}).splitlines()
    assert "speed (m)" in header and line.startswith("| a | k=8 | 1,000 | 0.975 |")
    assert "| 0.975 | 0.943 to 0.989 |" in line and line.endswith("| 12.5 | 12.5 |")


def test_rows_beyond_the_filled_ones_do_not_count():
    array = np.arange(12.0).reshape(6, 2)
    longer = np.concatenate([array, np.ones((3, 2))])
    assert record.hash_of_arrays({"a": longer}, 6) == record.hash_of_arrays({"a": array})
    assert record.hash_of_arrays({"b": array}) != record.hash_of_arrays({"a": array})
    assert record.hash_of_arrays({"a": array.astype(np.float32)}) != record.hash_of_arrays(
        {"a": array}
    )


def test_figures_that_are_not_numbers_are_none():
    """JSON has no NaN, and a record that held one could not be verified."""
    assert record._finite({"a": float("nan"), "b": {"c": float("inf")}, "d": 1.5, "e": 3}) == {
        "a": None, "b": {"c": None}, "d": 1.5, "e": 3,
    }  # fmt: skip


def test_a_broken_simulation_is_audited_and_not_a_traceback(toy, config, finished):
    """Achieved goals that are not numbers: warnings and violations, no exception."""
    state, _, folder = finished
    opened = Run(toy, config, folder, SILENT)
    _, _, about = opened.restore()
    goals = goal_set.standard(toy, 8)
    broken = state.buffer.episodes._replace(
        achieved_goal=state.buffer.episodes.achieved_goal.at[:, 3:].set(jnp.nan)
    )
    state = state.replace(buffer=state.buffer.replace(episodes=broken))
    measured = record.compute(toy, opened.agent, config, state, goals)
    outcome = measured.outcome._replace(broken=jnp.arange(8) < 2, dropped=jnp.arange(8) % 2 * 9)
    built = record.build(toy, config, state, about, goals, measured._replace(outcome=outcome))
    assert "25.00% of the evaluation's episodes broke; they count as failed" in built.warnings
    assert "50.00% of the evaluation's episodes lacked room for contacts" in built.warnings
    assert not built.clean and built.reward_recompute_test["violations"]["finite"] > 0
    assert any("out of bounds" in warning for warning in built.warnings)
    assert "NaN" not in json.dumps(built.to_dict())
    assert record.markdown(built)


def test_edits_of_a_record_show(toy, config, copied):
    again = rebuilt(toy, config, copied)
    text = (copied / record.JSON).read_text()
    for old, new, named in (
        ('"requested_goal_success": 0.0', '"requested_goal_success": 0.5', "success"),
        ('"requested_goal_success": 0.0', '"requested_goal_success": false', "success"),
        ('"failure_labels": {', '"failure_labels": {"new": [], ', "failure_labels.new"),
        ('"k": 4.0', '"k": 3.0', "relabel_strategy.k"),
    ):
        assert old in text
        (copied / record.JSON).write_text(text.replace(old, new, 1))
        found = record.differences(record.read(copied).claims(), again.claims())
        assert any(named in line for line in found), (new, found)


def test_incomplete_records_are_refused_in_one_line(copied):
    values = json.loads((copied / record.JSON).read_text())
    del values["costs"]
    (copied / record.JSON).write_text(json.dumps(values))
    with pytest.raises(UserError, match=r"is not a whole record .*costs"):
        record.read(copied)
    for whole in ("[]", "null"):
        (copied / record.JSON).write_text(whole)
        with pytest.raises(UserError, match="holds no settings or figures"):
            record.read(copied)
    (copied / record.JSON).write_text(json.dumps(values | {"costs": [1]}))
    with pytest.raises(UserError, match=r"is not a whole record .*costs"):
        record.read(copied)
    (copied / record.JSON).write_text('{"section": ')
    with pytest.raises(UserError, match="is not valid JSON"):
        record.read(copied)
    (copied / record.JSON).unlink()
    with pytest.raises(UserError, match=r"holds no audit.json; run experiments/audit.py"):
        record.read(copied)


def test_damaged_logs_are_refused_in_one_line(copied):
    path = copied / record.LOG
    whole = path.read_bytes()
    for content in (whole[:2000], b"", b"PAR1" + whole[4:40]):
        path.write_bytes(content)
        with pytest.raises(UserError, match="is no episode log") as error:
            log.read(path)
        assert "\n" not in str(error.value)
    pq.write_table(pa.table({"a": [1]}), path)
    with pytest.raises(UserError, match="other columns"):
        log.read(path)


def test_a_lost_checkpoint_writes_nothing(toy, config, copied):
    import shutil

    shutil.rmtree(copied / "checkpoints")
    before = {path: path.stat().st_mtime_ns for path in copied.rglob("*")}
    with pytest.raises(UserError, match="holds none"):
        rebuilt(toy, config, copied)
    assert {path: path.stat().st_mtime_ns for path in copied.rglob("*")} == before


def test_training_stops_when_relabelling_breaks_a_rule(toy, config, tmp_path, monkeypatch):
    """The rows that the learner was given are the rows that are checked."""
    from her_jax import train

    honest = train.replayed

    def overpaying(*arguments):
        drawn, reward = honest(*arguments)
        return drawn, reward + drawn.relabelled

    monkeypatch.setattr(train, "replayed", overpaying)
    found = r"audit: strategy 'future': row \d+ .* in all\): reward: .* has stopped"
    with pytest.raises(UserError, match=found):
        Run(toy, config, tmp_path / "r", SILENT).start()
    assert not (tmp_path / "r" / "summary.json").exists()


@pytest.mark.parametrize(
    "strategy", ["random", *(pytest.param(s, marks=pytest.mark.slow) for s in ("final", "none"))]
)
def test_runs_of_other_strategies_are_audited(toy, config, tmp_path, strategy):
    run = Run(toy, with_(config, strategy=strategy, env_steps=480), tmp_path / "r", SILENT)
    _, summary = run.start()
    assert summary["audited_rows"] > 0
    test = record.read(tmp_path / "r").reward_recompute_test
    assert not any(test["violations"].values()) and test["share_within_three_sigma"]


def test_the_audit_can_be_switched_off_while_training(toy, config, tmp_path):
    run = Run(toy, with_(config, audited_rows=0, env_steps=240), tmp_path / "r", SILENT)
    assert run.start()[1]["audited_rows"] == 0


def test_only_requested_goals_are_called_success(tmp_path):
    metrics.write_json(tmp_path / "a.json", {"requested_goal_success": 1.0})
    for bad in (
        {"hindsight_success": 1.0},
        {"a": {"success_rate": 1.0}},
        {"success": 1.0},
        {"Hindsight_Success": 1.0},
        {"runs": [{"hindsight_success": 1.0}]},
    ):
        with pytest.raises(ValueError, match="only figures on requested goals"):
            metrics.write_json(tmp_path / "b.json", bad)
        with pytest.raises(ValueError, match="only figures on requested goals"):
            metrics.append(tmp_path, bad)
    assert not (tmp_path / "b.json").exists() and not (tmp_path / metrics.METRICS).exists()
