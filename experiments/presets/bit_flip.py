"""Bit flipping, the HER paper's first experiment.

Command:   python experiments/train.py bit-flip --env.n 50
Hardware:  two CPU cores, no accelerator
Time:      2 minutes for 50 bits, seconds for 15
Expected:  success 1.0 at any step on 200 held-out strings; 0.95 after 17,000 episodes of 50 bits.
           With `--strategy none` nothing is learned beyond a dozen bits

DQN with one hidden layer of 256, 16 episodes and 40 updates of batch 128 a cycle, as in section 3.1
and appendix A of the paper. Against it: the hidden layer is normalised and the target network
follows every 10 instead of every 40 updates; each alone halves the episodes that 30 bits take.
"""

from __future__ import annotations

from her_jax.config import Config, DQNConfig, EnvConfig, ReplayConfig, TrainConfig


def config(task: str) -> Config:
    """Settings for any number of bits; --n gives it."""
    return Config(
        env=EnvConfig(task=task),
        train=TrainConfig(
            env_steps=1_250_000, num_envs=16, updates_per_cycle=40, cycles_per_epoch=50
        ),
        replay=ReplayConfig(capacity=20_000, batch_size=128),
        agent=DQNConfig(layer_norm=True, target_period=10),
    )
