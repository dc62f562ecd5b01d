"""Bit flipping as in the HER paper.

Command:   python experiments/train.py bit-flip --env.n 50
Hardware:  two CPU cores, no accelerator
Time:      to be measured
Expected:  to be measured

DQN with one hidden layer of 256, 16 episodes and 40 updates a cycle, as in section 3.1 and
appendix A.
"""

from __future__ import annotations

from her_jax.config import Config, DQNConfig, EnvConfig, ReplayConfig, TrainConfig


def config(task: str) -> Config:
    """Settings for any number of bits; --n gives it."""
    return Config(
        env=EnvConfig(task=task, n=10),
        train=TrainConfig(
            env_steps=2_500_000, num_envs=16, updates_per_cycle=40, cycles_per_epoch=50
        ),
        replay=ReplayConfig(capacity=20_000, batch_size=128),
        agent=DQNConfig(),
    )
