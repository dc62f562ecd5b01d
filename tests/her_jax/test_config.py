from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from her_jax.config import (
    Config,
    DDPGConfig,
    NormalizerConfig,
    ReplayConfig,
    SACConfig,
    TrainConfig,
)
from her_jax.errors import UserError


@pytest.mark.parametrize(
    ("part", "values", "named"),
    [
        (ReplayConfig, {"k": -1.0}, "k: -1.0"),
        (ReplayConfig, {"k": float("nan")}, "k: nan"),
        (ReplayConfig, {"min_displacement": -0.1}, "min_displacement: -0.1"),
        (ReplayConfig, {"min_displacement": float("inf")}, "min_displacement: inf"),
        (ReplayConfig, {"capacity": 0}, "capacity: 0"),
        (ReplayConfig, {"batch_size": 0}, "batch_size: 0"),
        (ReplayConfig, {"audited_rows": -1}, "audited_rows: -1"),
        (
            ReplayConfig,
            {"batch_size": 2, "late_batch_size": 8, "late_batch_env_steps": 9},
            "audited_rows: 4 is more than",
        ),
        (ReplayConfig, {"late_batch_size": -1}, "late_batch_size: -1"),
        (
            ReplayConfig,
            {"late_batch_env_steps": 9},
            "late_batch_env_steps: 9 has no effect without",
        ),
        (
            ReplayConfig,
            {"late_batch_size": 64, "late_batch_env_steps": 3_000_000_000},
            "late_batch_env_steps: 3000000000 is not in 0",
        ),
        (ReplayConfig, {"late_batch_size": 64}, "late_batch_size: 64 needs late_batch_env_steps"),
        (ReplayConfig, {"n_step": 0}, "n_step: 0"),
        (ReplayConfig, {"priority_share": 1.5}, "priority_share: 1.5"),
        (TrainConfig, {"observation_noise": -0.1}, "observation_noise: -0.1"),
        (ReplayConfig, {"strategy": "futur"}, "choose one of future, final"),
        (DDPGConfig, {"discount": 1.0}, "discount: 1.0"),
        (DDPGConfig, {"hidden": ()}, "hidden: ()"),
        (DDPGConfig, {"critic_learning_rate": 0.0}, "critic_learning_rate: 0.0"),
        (DDPGConfig, {"target_rate": 1.5}, "target_rate: 1.5"),
        (DDPGConfig, {"target_period": 0}, "target_period: 0"),
        (DDPGConfig, {"action_l2": -0.1}, "action_l2: -0.1"),
        (DDPGConfig, {"noise_std": -0.1}, "noise_std: -0.1"),
        (DDPGConfig, {"noise_std": float("inf")}, "noise_std: inf"),
        (DDPGConfig, {"random_action_probability": 2.0}, "random_action_probability: 2.0"),
        (NormalizerConfig, {"std_floor": 0.0}, "std_floor: 0.0"),
        (NormalizerConfig, {"std_floor": float("inf")}, "std_floor: inf"),
        (TrainConfig, {"observation_noise": float("inf")}, "observation_noise: inf"),
        (SACConfig, {"temperature": float("inf")}, "temperature: inf"),
        (SACConfig, {"target_entropy_per_action": float("nan")}, "target_entropy_per_action: nan"),
        (TrainConfig, {"num_envs": 0}, "num_envs: 0"),
        (Config, {"seed": -1}, "seed: -1"),
        (Config, {"seed": True}, "seed: True is no whole number"),
        (TrainConfig, {"env_steps": 480.0}, "env_steps: 480.0 is no whole number"),
        (TrainConfig, {"observation_noise": "a"}, "observation_noise: 'a' is no number"),
        (DDPGConfig, {"hidden": 64}, "hidden: 64 is no list"),
        (DDPGConfig, {"hidden": (64.0,)}, "hidden: (64.0,)"),
        (DDPGConfig, {"layer_norm": 1}, "layer_norm: 1 is no truth value"),
    ],
)
def test_bad_values_are_named_in_one_line(part, values, named):
    with pytest.raises(UserError) as error:
        part(**values)
    assert named in str(error.value)
    assert "\n" not in str(error.value)


def test_capacity_must_be_whole_rounds_and_the_remedy_works():
    with pytest.raises(UserError, match=r"capacity: 100 is not a multiple of num_envs \(16\)") as e:
        Config(train=TrainConfig(num_envs=16), replay=ReplayConfig(capacity=100))
    remedy = int(str(e.value).rsplit(" ", 1)[1])
    Config(train=TrainConfig(num_envs=16), replay=ReplayConfig(capacity=remedy))


def test_relabel_probability():
    assert ReplayConfig(k=4).relabel_probability == pytest.approx(0.8)
    assert ReplayConfig(k=0).relabel_probability == 0
    assert ReplayConfig(strategy="none").relabel_probability == 0


def test_survives_json():
    config = Config(seed=3, replay=ReplayConfig(k=8.0), agent=DDPGConfig(hidden=(8, 4)))
    again = Config.from_dict(json.loads(json.dumps(config.to_dict())))
    assert again == config == dataclasses.replace(config, agent=DDPGConfig(hidden=[8, 4]))  # type: ignore[arg-type]
    assert hash(again.agent) == hash(config.agent)  # which JAX compiles for


def test_numbers_of_numpy_become_plain_ones():
    config = Config(
        seed=np.int32(4),  # type: ignore[arg-type]
        train=TrainConfig(num_envs=np.int64(4)),  # type: ignore[arg-type]
        agent=DDPGConfig(noise_std=np.float64(0.1)),
    )
    assert Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_widths_of_numpy_become_plain_ones():
    agent = DDPGConfig(hidden=[np.int64(8), 4])  # type: ignore[arg-type]
    assert json.dumps(agent.hidden) == "[8, 4]" and agent == DDPGConfig(hidden=(8, 4))


@pytest.mark.parametrize(
    ("part", "value", "kind"),
    [
        ("train", {"num_envs": 4}, "TrainConfig"),
        ("agent", "sac", "DDPGConfig or TD3Config or SACConfig or DQNConfig"),
        ("agent", DDPGConfig, "DDPGConfig or"),
        ("env", ReplayConfig(), "EnvConfig"),
    ],
)
def test_parts_are_of_their_kind(part, value, kind):
    with pytest.raises(UserError, match=rf"^{part}: .* is no {kind}.*; give one$"):
        Config(**{part: value})


@pytest.mark.parametrize(
    ("part", "name", "value", "message"),
    [
        ("train", "env_steps", 480.0, "config: train.env_steps: 480.0 is no whole number; restore"),
        ("", "seed", True, "config: seed: True is no whole number; restore it"),
    ],
)
def test_damaged_values_are_named_by_their_part(part, name, value, message):
    values = Config().to_dict()
    (values[part] if part else values)[name] = value
    with pytest.raises(UserError, match=message):
        Config.from_dict(values)


def test_unknown_and_missing_fields_are_refused():
    values = Config().to_dict()
    with pytest.raises(UserError, match="config"):
        Config.from_dict({**values, "agent": {"hiden": 3}})
    with pytest.raises(UserError, match="config"):
        Config.from_dict({name: value for name, value in values.items() if name != "replay"})
    with pytest.raises(UserError, match="config: optimizer is no part of it"):
        Config.from_dict(values | {"optimizer": {"momentum": 0.9}})


def test_frozen():
    config = Config()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.seed = 1  # type: ignore[misc]
