"""Replay data of other libraries can be audited, in memory and from files."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from conftest import script
from foreign_buffers import HORIZON, HerBuffer, pay
from her_jax.audit import foreign, relabelling
from her_jax.errors import UserError
from samplers import DEFECTS, EPISODES, episodes, honest, sparse


def audit(replay: foreign.Foreign) -> relabelling.Report:
    return relabelling.check(
        replay.episodes,
        len(replay.episodes.desired_goal),
        replay.claim,
        reward=pay,
        strategy="future",
        probability=0.8,
    )


def test_a_right_buffer_is_clean_though_its_ring_has_wrapped():
    replay = foreign.stable_baselines3(HerBuffer(), 5000)
    assert replay.episodes.achieved_goal.shape == (10, HORIZON + 1, 2)
    report = audit(replay)
    assert report.clean, report.reasons()
    assert foreign.identity_mismatches(replay, pay) == 0


def test_a_wrong_buffer_is_caught_and_its_mistake_named():
    replay = foreign.stable_baselines3(HerBuffer(goal_at="current"), 5000)
    report = audit(replay)
    assert set(report.broken) == {"provenance"}
    stored = len(replay.episodes.desired_goal)
    causes = relabelling.causes(replay.episodes, stored, replay.claim, report, reward=pay)
    assert causes == {"provenance": "goal of the current state"}


def test_equal_steps_of_several_episodes_do_not_accuse_a_right_buffer():
    """Saturated actions from one start: the first steps of many episodes are the same."""
    buffer = HerBuffer(saturated=True)
    replay = foreign.stable_baselines3(buffer, 5000)
    first = np.asarray(replay.episodes.action)[:, 0]
    assert len(np.unique(first, axis=0)) < len(first)
    report = audit(replay)
    assert not report.broken, report.reasons()


def test_steps_that_are_not_in_storage_are_caught():
    buffer = HerBuffer()
    honest_sample = buffer.sample

    def stale(rows):
        drawn = honest_sample(rows)
        drawn.observations["observation"][::7] += 0.5
        return drawn

    buffer.sample = stale
    report = audit(foreign.stable_baselines3(buffer, 700))
    assert report.broken["stored"] == 100


def test_rewards_that_the_environment_did_not_pay_are_counted():
    buffer = HerBuffer()
    buffer.rewards[buffer.ep_length > 0] += np.eye(1, (buffer.ep_length > 0).sum(), 5)[0]
    assert foreign.identity_mismatches(foreign.stable_baselines3(buffer, 10), pay) == 1


@pytest.mark.parametrize(
    ("break_", "message"),
    [
        (lambda b: delattr(b, "ep_length"), "HerBuffer lacks ep_length"),
        (lambda b: b.ep_length.fill(0), "holds no whole episode"),
        (lambda b: b.ep_length.__setitem__((slice(None), 0), 4), "give them one length"),
    ],
)
def test_unusable_buffers_are_refused_in_one_line(break_, message):
    buffer = HerBuffer()
    break_(buffer)
    with pytest.raises(UserError, match=message) as error:
        foreign.stable_baselines3(buffer, 10)
    assert "\n" not in str(error.value)


def test_the_real_buffer_of_stable_baselines3():
    """Runs where the package is installed."""
    sb3 = pytest.importorskip("stable_baselines3")
    gymnasium = pytest.importorskip("gymnasium")

    class Walk(gymnasium.Env):
        def __init__(self):
            def box(n, dtype=np.float64):
                return gymnasium.spaces.Box(-5, 5, (n,), dtype)

            self.observation_space = gymnasium.spaces.Dict(
                observation=box(2), achieved_goal=box(2), desired_goal=box(2)
            )
            self.action_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed, options=options)
            self.position, self.time = np.zeros(2), 0
            self.goal = self.np_random.uniform(-1, 1, 2)
            return self.see(), {}

        def step(self, action):
            self.position, self.time = self.position + 0.1 * action, self.time + 1
            reward = float(self.compute_reward(self.position, self.goal, {}))
            return self.see(), reward, False, self.time >= HORIZON, {}

        def compute_reward(self, achieved, desired, info):
            return pay(achieved, desired)

        def see(self):
            return {
                "observation": self.position.copy(),
                "achieved_goal": self.position.copy(),
                "desired_goal": self.goal.copy(),
            }

    model = sb3.SAC(
        "MultiInputPolicy", Walk(), replay_buffer_class=sb3.HerReplayBuffer, buffer_size=333,
        replay_buffer_kwargs={"n_sampled_goal": 4}, learning_starts=100_000,
    )  # fmt: skip
    model.learn(1005)
    replay = foreign.stable_baselines3(model.replay_buffer, 4000)
    assert audit(replay).clean
    assert foreign.identity_mismatches(replay, pay) == 0


# The plain array format.


def arrays(claim=None) -> dict[str, Any]:
    stored = episodes()
    claim = claim or honest(stored, pay=sparse)
    after = np.asarray(stored.achieved_goal)[:, 1:]
    paid = sparse(after, np.asarray(stored.desired_goal)[:, None])
    held = {k: np.asarray(v) for k, v in stored._asdict().items() if k != "cost"}
    named = {f"claim_{k}": v for k, v in claim._asdict().items() if v is not None}
    return {**held, "reward": paid, **named}


def test_a_file_restores_what_was_written(tmp_path):
    np.savez(tmp_path / "replay.npz", **arrays())
    replay = foreign.load(tmp_path / "replay.npz")
    np.testing.assert_array_equal(replay.episodes.achieved_goal, episodes().achieved_goal)
    assert replay.claim.terminated is None
    assert foreign.identity_mismatches(replay, sparse) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.pop("claim_reward"), "lacks claim_reward; see docs/audit.md"),
        (lambda a: a.pop("achieved_goal"), "lacks achieved_goal"),
        (lambda a: a.update(achieved_goal=a["achieved_goal"][:0]), "empty"),
        (lambda a: a.update(claim_reward=a["claim_reward"][:0]), "empty"),
        (lambda a: a.update(action=a["action"][:, :-1]), "observation has shape"),
        (lambda a: a.update(action=a["action"][:, 0]), "action is a float32 array of 2 axes"),
        (lambda a: a.update(claim_reward=a["claim_reward"][:, None]), "claim_reward is a float32"),
        (lambda a: a.update(claim_episode=a["claim_episode"] + 0.5), "claim_episode holds float64"),
        (lambda a: a.update(claim_reward=np.array(1.0)), "claim_reward is a float64 array of 0"),
        (lambda a: a.update(reward=a["reward"][:, :-1]), "reward has shape"),
        (lambda a: a.update(reward=a["reward"].astype(str)), "reward is a <U"),
        (lambda a: a.update(claim_terminate=a["claim_reward"]), "unknown claim_terminate"),
        (lambda a: a.update(claim_relabelled=2 * a["claim_relabelled"]), "other values than 0"),
        (lambda a: a.update(claim_terminated=np.zeros(3, bool)), "claim_terminated has shape"),
        (lambda a: a.update(claim_action=a["claim_action"][:, :1]), "claim_action has shape"),
        (lambda a: a.update(claim_time=a["claim_time"][:-1]), "claim_time has shape"),
        (lambda a: a["desired_goal"].__setitem__((3, 0), np.nan), "desired_goal of episode 3 is"),
        (lambda a: a["achieved_goal"].__setitem__((2, 1), np.inf), "achieved_goal of episode 2"),
    ],
)
def test_unusable_files_are_refused_in_one_line(tmp_path, change, message):
    given = {name: array.copy() for name, array in arrays().items()}
    change(given)
    np.savez(tmp_path / "replay.npz", **given)
    with pytest.raises(UserError, match=message) as error:
        foreign.load(tmp_path / "replay.npz")
    assert "\n" not in str(error.value)


def test_rows_in_another_precision_than_storage_are_no_defect(tmp_path):
    given = arrays()
    for name in ("observation", "achieved_goal", "desired_goal", "action"):
        given[name] = given[name].astype(np.float64)
    np.savez(tmp_path / "replay.npz", **given)
    replay = foreign.load(tmp_path / "replay.npz")
    report = relabelling.check(
        replay.episodes, EPISODES, replay.claim, reward=sparse, strategy="future", probability=0.8
    )
    assert report.clean


def test_goals_that_a_sampler_cut_to_integers_are_caught(tmp_path):
    given = arrays()
    given["claim_desired_goal"] = given["claim_desired_goal"].astype(np.int32)
    np.savez(tmp_path / "replay.npz", **given)
    replay = foreign.load(tmp_path / "replay.npz")
    report = relabelling.check(
        replay.episodes, EPISODES, replay.claim, reward=sparse, strategy="future", probability=0.8
    )
    assert report.broken and report.violations["provenance"].any(), report.reasons()


def test_small_integers_are_counted_as_any_others(tmp_path):
    """A uint8 that is added to would start anew at 256."""
    given = arrays()
    long = {"observation": 300, "achieved_goal": 300, "action": 299, "reward": 299}
    for name, states in long.items():
        given[name] = np.resize(given[name], (EPISODES, states, *given[name].shape[2:]))
    time, episode = np.array([255, 10], np.uint8), np.array([0, 1], np.uint8)
    for name in ("observation", "action"):
        given[f"claim_{name}"] = given[name][episode, time]
    given["claim_next_observation"] = given["observation"][episode, time.astype(int) + 1]
    given["claim_desired_goal"] = given["desired_goal"][episode]
    given |= {"claim_relabelled": np.zeros(2), "claim_time": time, "claim_episode": episode}
    given["claim_reward"] = sparse(
        given["achieved_goal"][episode, time.astype(int) + 1], given["claim_desired_goal"]
    )
    np.savez(tmp_path / "replay.npz", **given)
    replay = foreign.load(tmp_path / "replay.npz")
    report = relabelling.check(
        replay.episodes, EPISODES, replay.claim, reward=sparse, strategy="none", probability=0.0
    )
    assert report.clean, report.reasons()


def test_rewards_that_are_right_but_for_rounding_are_no_defect():
    """Paid for goals in float64 that float32 rounds across the tolerance; much farther is wrong."""
    edge = np.float32(0.5)
    for units, wrong in ((1, 0), (9, 1)):
        beyond = edge
        for _ in range(units):
            beyond = np.nextafter(beyond, np.float32(1))
        stored = episodes()
        achieved, goals = np.array(stored.achieved_goal), np.array(stored.desired_goal)
        goals[0] = 0
        achieved[0, 1] = (beyond, 0)
        stored = stored._replace(achieved_goal=achieved, desired_goal=goals)
        paid = sparse(achieved[:, 1:], goals[:, None])
        assert paid[0, 0] == -1
        paid[0, 0] = 0
        replay = foreign.Foreign(stored, honest(stored, pay=sparse), paid)
        assert foreign.identity_mismatches(replay, sparse) == wrong


@pytest.mark.parametrize("content", ["empty", "npy", "text", "corrupt"])
def test_files_of_another_kind_are_refused_in_one_line(tmp_path, content):
    path = tmp_path / "replay.npz"
    if content == "npy":
        with path.open("wb") as file:
            np.save(file, np.zeros(3))
    elif content == "corrupt":
        np.savez_compressed(path, **arrays())
        whole = bytearray(path.read_bytes())
        whole[100:300] = 200 * b"\xff"  # which zlib cannot decode
        path.write_bytes(whole)
    else:
        path.write_text("" if content == "empty" else "hello")
    with pytest.raises(UserError, match=r"is no .npz file") as error:
        foreign.load(path)
    assert "\n" not in str(error.value)


def test_the_command_audits_files(tmp_path):
    words = ("--tolerance", "0.5")
    np.savez(tmp_path / "right.npz", **arrays())
    right = json.loads(script("audit", "right.npz", *words, folder=tmp_path))
    assert right["clean"] and right["rows"] == 4000 and right["identity_mismatches"] == 0
    stored = episodes()
    defect = next(d for d in DEFECTS if d.__name__ == "reward_with_a_wider_tolerance")
    np.savez(tmp_path / "wrong.npz", **arrays(defect(stored, honest(stored, pay=sparse))))
    printed = script("audit", "wrong.npz", *words, folder=tmp_path, rc=1, output=True)
    wrong = json.loads(printed)
    assert not wrong["clean"] and wrong["causes"] == {"reward": "tolerance changed"}
    assert wrong["violations"]["reward"] > 0 and EPISODES == 10
    (tmp_path / "cut.npz").write_bytes((tmp_path / "right.npz").read_bytes()[:5000])
    printed = script("audit", "cut.npz", *words, folder=tmp_path, rc=2)
    assert len(printed.splitlines()) == 1 and "cut.npz is no .npz file" in printed
    for flags in ("--k -1", "--tolerance 0", "--rewards 0 0", "--strategy Future"):
        printed = script("audit", "right.npz", *words, *flags.split(), folder=tmp_path, rc=2)
        assert printed.startswith("error: ") and len(printed.splitlines()) == 1, printed
    assert "tolerance: not given" in script("audit", "right.npz", folder=tmp_path, rc=2)
