"""The search of settings: its study, its goals, and what it makes of them. Nothing is trained."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import her_envs
import launch
import presets
import search
from conftest import REPO, with_
from her_jax import goal_set
from her_jax.errors import UserError

pytest.importorskip("optuna")

PUSH = search.Origin("FetchPush", 0, 160_000, 100)
SLIDE = search.Origin("FetchSlide", 0, 40_000, 100)


@pytest.fixture
def quick(monkeypatch):
    """Learning curves that depend on the settings, without training."""
    seen = []

    def curve(config, episodes):
        seen.append(config)
        best = 0.9 if config.agent.layer_norm else 0.3
        for i in range(1, 9):
            yield 20_000 * i, best * i / 8

    monkeypatch.setattr(search, "learning_curve", curve)
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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "fetch-slide"}, "study with task FetchPush, not FetchSlide"),
        ({"env_steps": 80_000}, "study with env_steps 160000, not 80000"),
        ({"seed": 1}, "study with seed 0, not 1"),
        ({"episodes": 10}, "study with episodes 100, not 10"),
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


def test_the_score_is_the_mean_and_the_best_the_highest(monkeypatch):
    curve = [(10, 0.2), (20, 0.7), (30, 0.3)]
    monkeypatch.setattr(search, "learning_curve", lambda config, episodes: curve)
    values = {name: choices[0] for name, choices in search.SPACE.items()}
    trial = search.run_trial(presets.load("tuned", "fetch-push"), values, 8)
    assert trial.score == pytest.approx(0.4) and trial.final == 0.3 and trial.env_steps == 30
    done = [dataclasses.replace(trial, score=score) for score in (0.3, 0.9, 0.5)]
    assert search._study(done, 0, values)[0].best_value == 0.9


def test_curves_are_of_validation_goals(monkeypatch, toy, config):
    """The held-out goals of published figures are never seen."""
    drawn = []
    draw = goal_set.draw
    monkeypatch.setattr(launch, "make_env", lambda settings: toy)
    monkeypatch.setattr(goal_set, "draw", lambda *words: drawn.append(words[1:]) or draw(*words))
    monkeypatch.setattr(goal_set, "standard", None)
    config = with_(config, env_steps=240, updates_per_cycle=1)
    ((steps, success),) = search.learning_curve(config, 8)
    assert steps == 240 and 0 <= success <= 1
    assert drawn == [(8, search.VALIDATION_SEED)]


def test_settings_are_judged_on_goals_of_their_own():
    env = her_envs.make("FetchPush")
    validation = goal_set.draw(env, 100, search.VALIDATION_SEED)
    goal_set.require_disjoint(validation, np.asarray(goal_set.standard(env).starts.desired_goal))


def test_the_space_is_of_real_settings_and_holds_the_presets():
    for task in ("fetch-reach", "fetch-push", "fetch-slide", "fetch-pick-and-place"):
        base = presets.load("tuned", task)
        for name, choices in search.SPACE.items():
            assert search.look_up(base, name) in choices
            for value in choices:
                search.configured(base, {name: value})  # refuses what is no setting


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
    origin = search.Origin(presets.environment(f"fetch-{task}"), 0, budget, 100)
    path = REPO / "experiments" / "reference" / "searches" / f"fetch-{task}.csv"
    trials = search.read(path, origin)
    assert len(trials) == count and {trial.env_steps for trial in trials} == {budget}


@pytest.mark.parametrize(
    ("task", "trials", "message"),
    [
        ("bit-flip", 1, "task: 'bit-flip' has discrete actions"),
        ("fetch-push", 0, "trials: 0 is not positive"),
    ],
)
def test_bad_input_gets_one_line(task, trials, message, tmp_path):
    with pytest.raises(UserError, match=message):
        search.main(task, trials=trials, out=tmp_path / "study.csv")
