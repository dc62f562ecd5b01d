"""Options of train.py become settings: other agents, prefixes, plugins."""

from __future__ import annotations

import dataclasses

import pytest

import launch
import presets
import train
from her_jax.config import AGENTS, DDPGConfig, SACConfig, TD3Config
from her_jax.errors import UserError


def test_another_agent_keeps_what_all_agents_have():
    config = train.parse(["fetch-push", "--algorithm", "sac", "--temperature", "0.2"]).config
    tuned = presets.load("tuned", "fetch-push")
    assert isinstance(config.agent, SACConfig) and isinstance(tuned.agent, DDPGConfig)
    assert config.agent.temperature == 0.2 and config.agent.critics == 2
    for name in ("discount", "hidden", "layer_norm", "target_rate", "critic_learning_rate"):
        assert getattr(config.agent, name) == getattr(tuned.agent, name)
    assert dataclasses.replace(config, agent=tuned.agent) == tuned


@pytest.mark.parametrize("name", AGENTS)
def test_every_agent_can_be_asked_for(name):
    task = "bit-flip" if name == "dqn" else "fetch-reach"
    assert name == train.parse([task, "--algorithm", name]).config.agent.NAME


def test_prefixes_may_be_written_or_left_out():
    long = train.parse(["bit-flip", "--env.n", "50", "--train.num-envs=8", "--replay.k", "8"])
    assert (
        long.config == train.parse(["bit-flip", "--n", "50", "--num-envs", "8", "--k", "8"]).config
    )
    assert long.config.env.n == 50 and long.config.train.num_envs == 8
    repeated = train.parse(["bit-flip", "--n", "20", "--n", "8"]).config  # the last one holds
    assert repeated == train.parse(["bit-flip", "--n", "8"]).config
    td3 = train.parse(["fetch-push", "--algorithm=td3", "--agent.actor-period", "3"]).config.agent
    assert isinstance(td3, TD3Config) and td3.actor_period == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "fetch-push --algorithm ppo",
            "algorithm: 'ppo' is unknown; choose one of ddpg",
        ),
        ("fetch-push --algorithm dqn", "agent: 'dqn' does not fit the continuous actions"),
        ("bit-flip --algorithm sac", "agent: 'sac' does not fit the discrete actions"),
        ("bit-flip --env.n 0", "n: 0 is no positive whole number"),
        ("bit-flip --scored-on warp", "scored_on: 'warp' has no meaning in BitFlip"),
        ("bit-flip --reward dense", "reward: 'dense' has no meaning in BitFlip"),
        ("bit-flip --preset plappert2018", "preset: 'plappert2018' has no settings for"),
        ("bit-flip --priority energy", "priority: 'energy' needs goals that are positions"),
        (
            "fetch-push --priority speed",
            "priority: 'speed' is unknown; choose one of",
        ),
        ("fetch-push --action-repeat 3", "action_repeat: 3 does not divide 50; try 1"),
        ("fetch-push --goal two", "goal: 'two' is unknown; choose one of many, single"),
        ("fetch-push --n-step 0", "n_step: 0 is not positive"),
        ("fetch-push --strategy soon", "strategy: 'soon' is unknown; choose one of future"),
        (
            "fetch-push --algorithm td3 --average-rate 0.1",
            "options: --average-rate is of ddpg, not of td3; leave it out",
        ),
        ("fetch-push --temperature=0.2", "options: --temperature=0.2 is of sac, not of ddpg"),
    ],
)
def test_bad_settings_get_one_line(words, message, tmp_path):
    """Before anything is compiled; `launch.guarded` prints it."""
    with pytest.raises(UserError) as error:
        launch.bind(train.parse(words.split()).config, tmp_path / "run")
    assert message in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_the_efficient_preset_is_sac():
    """As its committed runs were made."""
    for words in (
        "fetch-push --env-steps 200000 --min-displacement 0.01 --target-entropy-per-action 0",
        "fetch-pick-and-place --env-steps 260000 --min-displacement 0 --updates-per-cycle 200",
    ):
        task, *options = words.split()
        options += ["--algorithm", "sac"]
        assert presets.load("efficient", task) == train.parse([task, *options]).config
