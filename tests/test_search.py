"""The search of settings: its study, its goals, and what it makes of them. Nothing is trained."""

from __future__ import annotations

import csv
import dataclasses
import itertools

import jax
import numpy as np
import pytest

import her_envs
import presets
import search
from conftest import REPO, fetch, with_
from her_jax import goal_set, lock, memory
from her_jax.errors import UserError

pytest.importorskip("optuna")

PUSH = search.Origin("FetchPush", "tuned", "native", "stock", 0, 160_000, 0.0, 100)
SLIDE = PUSH._replace(task="FetchSlide", budget=40_000)
FAST = PUSH._replace(budget=0, budget_s=80.0)


@pytest.fixture
def quick(monkeypatch):
    """Learning curves that depend on the settings, without training."""
    seen = []

    def curve(env, config, episodes, budget_s):
        seen.append(config)
        best = 0.9 if config.agent.layer_norm else 0.3
        for i in range(1, 9):
            yield search.Point(20_000 * i, 10.0 * i, best * i / 8)

    monkeypatch.setattr(search, "learning_curve", curve)
    monkeypatch.setattr(jax, "clear_caches", lambda: None)  # other tests go on with theirs
    return seen


def test_a_study_is_written_as_it_goes_and_continued(quick, tmp_path):
    out = tmp_path / "study.csv"
    search.main("fetch-push", trials=3, out=out)
    first = search.read(out, PUSH)
    assert len(first) == 3 and len(quick) == 3
    preset = presets.load("tuned", "fetch-push")
    assert first[0].values["agent.discount"] == preset.agent.discount  # the first is the preset
    assert first[0].values["agent.layer_norm"] is preset.agent.layer_norm
    search.main("fetch-push", trials=2, out=out)
    again = search.read(out, PUSH)
    assert again[:3] == first and len(again) == 5
    for trial in again:
        top = 0.9 if trial.values["agent.layer_norm"] else 0.3
        assert trial.final == top and trial.env_steps == 160_000


def test_a_trial_that_was_cut_short_is_left_out(quick, tmp_path):
    out = tmp_path / "study.csv"
    search.main("fetch-push", trials=2, out=out)
    whole, first = out.read_bytes(), search.read(out, PUSH)[0]
    out.write_bytes(whole[:-1])  # as an editor may leave it
    assert len(search.read(out, PUSH)) == 2 and out.read_bytes() == whole
    for lost in (5, 30):
        out.write_bytes(whole[:-lost])
        assert search.read(out, PUSH) == [first]
        assert out.read_bytes() == whole[: whole[:-1].rfind(b"\n") + 1]
    search.main("fetch-push", trials=1, out=out)
    assert len(search.read(out, PUSH)) == 2
    out.write_bytes(whole[:-60])
    with pytest.raises(UserError, match="study with task FetchPush"):
        search.read(out, SLIDE)
    assert out.read_bytes() == whole[:-60]
    out.write_bytes(whole.partition(b"\n")[0])  # a header alone
    assert search.read(out, PUSH) == [] and out.read_bytes() == b""


def test_one_process_at_a_time_writes_a_study(quick, tmp_path):
    out = tmp_path / "study.csv"
    out.touch()
    with lock.alone(out), pytest.raises(UserError, match="out: another process writes to"):
        search.main("fetch-push", trials=1, out=out)
    assert not quick


def test_a_task_of_a_plugin_is_searched(quick, point, tmp_path):
    out = tmp_path / "study.csv"
    search.main("Point", trials=2, plugin=str(point), out=out)
    assert {config.env.task for config in quick} == {"Point"}
    search.main("Point", trials=1, plugin=str(point), out=out)
    assert len(out.read_text().splitlines()) == 4
    point.write_text(point.read_text() + "\n# another task, perhaps\n")
    with pytest.raises(UserError, match="is a study with task Point of plugin"):
        search.main("Point", trials=1, plugin=str(point), out=out)
    assert all(config.replay.priority == "uniform" for config in quick)
    with pytest.raises(UserError, match=r"point\.py registers Point, not fetch-push; leave it out"):
        search.main("fetch-push", plugin=str(point), out=out)
    with pytest.raises(UserError, match=r"task: 'Line' is unknown; .* by --plugin"):
        search.main("Line", plugin=str(point), out=out)


def test_a_preset_without_memory_scores_nothing(quick, tmp_path, monkeypatch):
    def full(*_):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")

    monkeypatch.setattr(search, "learning_curve", full)
    search.main("fetch-push", trials=1, train_s=80.0, out=tmp_path / "study.csv")
    assert [trial.score for trial in search.read(tmp_path / "study.csv", FAST)] == [0.0]


def test_other_errors_of_a_trial_end_the_search(quick, tmp_path, monkeypatch):
    def refused(*_):
        raise UserError("episodes: too many")

    monkeypatch.setattr(search, "learning_curve", refused)
    with pytest.raises(UserError, match="episodes: too many"):
        search.main("fetch-push", trials=1, train_s=80.0, out=tmp_path / "study.csv")
    assert (tmp_path / "study.csv").read_text() == ""


def test_a_budget_without_an_epoch_is_refused(quick, tmp_path, monkeypatch):
    monkeypatch.setattr(search, "learning_curve", lambda *_: iter(()))
    with pytest.raises(UserError, match="train_s: the preset ended no epoch within 2 s"):
        search.main("fetch-push", trials=3, train_s=2.0, out=tmp_path / "study.csv")
    assert (tmp_path / "study.csv").read_text() == ""


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "fetch-slide"}, "study with task FetchPush, not FetchSlide"),
        ({"env_steps": 80_000}, "study with env_steps 160000, not 80000"),
        ({"seed": 1}, "study with seed 0, not 1"),
        ({"episodes": 10}, "study with episodes 100, not 10"),
        ({"physics": "warp"}, "study with physics native, not warp"),
        ({"train_s": 60.0}, "is no study of this space"),
    ],
)
def test_a_study_of_something_else_is_not_continued(quick, tmp_path, changes, message):
    out = tmp_path / "study.csv"
    search.main("fetch-push", trials=1, out=out)
    before = out.read_text()
    with pytest.raises(UserError, match=message):
        search.main(**{"task": "fetch-push", "trials": 1, "out": out} | changes)
    assert out.read_text() == before and len(quick) == 1


def test_the_first_trials_are_neighbours_of_the_preset(quick, tmp_path):
    search.main("fetch-push", trials=2, out=tmp_path / "study.csv")
    search.main("fetch-push", trials=search.FIRST_TRIALS - 2, out=tmp_path / "study.csv")
    preset, *others = (trial.values for trial in search.read(tmp_path / "study.csv", PUSH))
    changes = [{n: v for n, v in values.items() if v != preset[n]} for values in others]
    assert [len(change) for change in changes] == [1] * len(changes)
    assert len({name for change in changes for name in change}) == len(changes)


def test_proposals_are_settings(quick, tmp_path):
    search.main("fetch-slide", trials=2, env_steps=40_000, out=tmp_path / "s.csv")
    for config, trial in zip(quick, search.read(tmp_path / "s.csv", SLIDE), strict=True):
        assert config.replay.priority == "energy" and config.train.env_steps == 40_000
        for name, value in trial.values.items():
            part, field = name.split(".")
            assert getattr(getattr(config, part), field) == value


@pytest.mark.parametrize(
    ("origin", "score"), [(PUSH, 0.4), (FAST, (10 * 0.2 + 20 * 0.7 + 50 * 0.3) / 80)]
)
def test_the_score_is_the_mean_over_the_budget_and_the_best_the_highest(monkeypatch, origin, score):
    curve = [search.Point(10, 0.0, 0.2), search.Point(20, 10.0, 0.7), search.Point(30, 30.0, 0.3)]
    monkeypatch.setattr(search, "learning_curve", lambda *_: curve)
    values = {name: choices[0] for name, choices in origin.space.items()}
    trial = search.run_trial(
        fetch("FetchPush"), presets.load("tuned", "fetch-push"), values, origin
    )
    assert trial.score == pytest.approx(score) and trial.final == 0.3 and trial.env_steps == 30
    done = [dataclasses.replace(trial, score=score) for score in (0.3, 0.9, 0.5)]
    assert search._study(done, origin, values)[0].best_value == 0.9


def test_a_trial_that_is_never_scored_in_time_scores_nothing(monkeypatch):
    monkeypatch.setattr(search, "learning_curve", lambda *_: [])
    trial = search.run_trial(fetch("FetchPush"), presets.load("tuned", "fetch-push"), {}, FAST)
    assert (trial.score, trial.final, trial.env_steps) == (0.0, 0.0, 0)


def work(config):
    """Environments and replayed transitions of a cycle."""
    plan = config.train
    return np.array([plan.num_envs, plan.updates_per_cycle * config.replay.batch_size])


@pytest.mark.parametrize("origin", [FAST, PUSH])
def test_a_trial_that_does_not_fit_into_memory_scores_nothing(monkeypatch, origin, capsys):
    def full(*_):
        yield search.Point(20_000, 10.0, 0.5)
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory [/device:GPU:0]")

    monkeypatch.setattr(search, "learning_curve", full)
    monkeypatch.setattr(memory, "free_bytes", lambda: 8e9)
    preset = presets.load("tuned", "fetch-push")
    assert search.run_trial(fetch("FetchPush"), preset, {}, origin).score == 0.0
    assert "not trained to the end: memory: the device ran out (RESOURCE" in capsys.readouterr().out
    huge = dataclasses.replace(
        preset, replay=dataclasses.replace(preset.replay, capacity=10**9)
    )  # refused before anything compiles
    trial = search.run_trial(fetch("FetchPush"), huge, {}, origin)
    assert (trial.score, trial.final, trial.env_steps) == (0.0, 0.0, 0)
    assert "not trained: capacity" in capsys.readouterr().out

    def broken(*_):
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")

    monkeypatch.setattr(search, "learning_curve", broken)
    with pytest.raises(jax.errors.JaxRuntimeError, match="something else"):
        search.run_trial(fetch("FetchPush"), preset, {}, origin)


def test_a_preset_that_does_not_fit_into_memory_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "free_bytes", lambda: 1e6)
    with pytest.raises(UserError, match="capacity: "):
        search.main("fetch-push", out=tmp_path / "study.csv")
    assert not list(tmp_path.iterdir())


def test_a_budget_of_seconds_searches_the_pace_too(quick, tmp_path):
    out = tmp_path / "study.csv"
    search.main("fetch-push", trials=8, train_s=80, out=out)
    tuned = presets.load("tuned", "fetch-push")
    trials = search.read(out, FAST)
    assert trials[0].values == {name: search.look_up(tuned, name) for name in FAST.space}
    assert {name for t in trials for name in t.values} == {*search.SPACE, *search.PACE}
    assert len({(c.train.num_envs, c.train.updates_per_cycle) for c in quick}) > 1
    for config in quick:
        cycles = config.train.cycles_per_epoch
        assert cycles == 1 or (work(config) * cycles <= 25 * work(tuned)).all()


def test_curves_are_of_validation_goals(monkeypatch, toy, config):
    """The held-out goals of published figures are never seen."""
    drawn = []
    draw = goal_set.draw
    monkeypatch.setattr(goal_set, "draw", lambda *words: drawn.append(words[1:]) or draw(*words))
    monkeypatch.setattr(goal_set, "standard", None)
    config = with_(config, env_steps=240, updates_per_cycle=1)
    ((steps, seconds, success),) = search.learning_curve(toy, config, 8)
    assert steps == 240 and seconds > 0 and 0 <= success <= 1
    assert drawn == [(8, search.VALIDATION_SEED)]
    points = list(search.learning_curve(toy, config, 8, 2 * seconds))
    assert all(point.train_s <= 2 * seconds for point in points)  # and not until 240 steps
    assert not list(search.learning_curve(toy, config, 8, 1e-9))


def test_settings_of_a_users_task_are_trained(point, tmp_path, monkeypatch):
    out = tmp_path / "study.csv"
    small = with_(
        presets.load("tuned", "fetch-push"),
        task="Point",
        cycles_per_epoch=1,
        updates_per_cycle=1,
        priority="uniform",
    )
    monkeypatch.setattr(presets, "load", lambda preset, task: small)
    search.main("Point", plugin=str(point), out=out, trials=1, env_steps=1, episodes=4)
    (trial,) = csv.DictReader(out.read_text().splitlines())
    assert "replay.priority_share" not in trial and 0 <= float(trial["score"]) <= 1


def test_settings_are_judged_on_goals_of_their_own():
    env = her_envs.make("FetchPush")
    validation = goal_set.draw(env, 100, search.VALIDATION_SEED)
    goal_set.require_disjoint(validation, np.asarray(goal_set.standard(env).starts.desired_goal))


def test_the_space_is_of_real_settings_and_holds_the_presets():
    for task, preset in itertools.product(presets.PRESETS["accelerator"], ("tuned", "accelerator")):
        base = presets.load(preset, task)
        start = {name: search.look_up(base, name) for name in FAST.space}
        for name, choices in FAST.space.items():
            assert start[name] in choices
            for value in choices:
                search.configured(base, start | {name: value})  # refuses what is no setting


def test_another_file_is_no_study(tmp_path):
    for content in ("a,b\n1,2\n", "a,b\n", "just text\n"):
        (tmp_path / "other.csv").write_text(content)
        with pytest.raises(UserError, match="is no study of this space"):
            search.read(tmp_path / "other.csv", PUSH)


def test_an_empty_file_is_a_new_study(tmp_path):
    (tmp_path / "study.csv").touch()
    values = {name: choices[0] for name, choices in search.SPACE.items()}
    trial = search.Trial(values, score=0.5, final=0.5, env_steps=1, seconds=2.0, commit="c")
    for count in (1, 2):
        search.append(tmp_path / "study.csv", PUSH, trial)
        assert search.read(tmp_path / "study.csv", PUSH) == [trial] * count


@pytest.mark.parametrize(
    ("task", "budget", "count"),
    [("push", 140_000, 10), ("pick-and-place", 240_000, 5), ("slide", 240_000, 4)],
)
def test_committed_studies_say_what_they_are_of(task, budget, count):
    origin = PUSH._replace(task=presets.environment(f"fetch-{task}"), budget=budget)
    path = REPO / "experiments" / "reference" / "searches" / f"fetch-{task}.csv"
    trials = search.read(path, origin)
    assert len(trials) == count and {trial.env_steps for trial in trials} == {budget}


@pytest.mark.parametrize(
    ("task", "given", "message"),
    [
        ("bit-flip", {}, "preset: 'tuned' of bit-flip trains dqn"),
        ("fetch-push", {"preset": "efficient"}, "preset: 'efficient' of fetch-push trains sac"),
        (
            "fetch-push",
            {"preset": "plappert2018", "train_s": 9.0},
            "preset: 'plappert2018' has train.num_envs",
        ),
        ("fetch-push", {"trials": 0}, "trials: 0 is not positive"),
        ("fetch-push", {"train_s": -1.0}, "train_s: -1.0 is no number of seconds"),
        ("fetch-push", {"train_s": 9.0, "env_steps": 100}, "env_steps, train_s: both given"),
        ("fetch-push", {"threads": -1}, "threads: -1 is negative"),
    ],
)
def test_bad_input_gets_one_line(task, given, message, tmp_path):
    with pytest.raises(UserError, match=message):
        search.main(task, out=tmp_path / "study.csv", **given)
    assert not list(tmp_path.iterdir())
