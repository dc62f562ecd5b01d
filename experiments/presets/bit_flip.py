"""Bit flipping, the HER paper's first experiment.

Command:   python experiments/train.py bit-flip --env.n 50
Hardware:  two CPU cores, no accelerator
Time:      64 s for 50 bits, 31 to 38 s to 0.95
Expected:  success 1.0 at any step on 200 strings; 0.95 by 16,800 episodes of 50 bits (three seeds).
           With `--strategy none` at most 1 string of 200 in 50,000 episodes of 15 bits

DQN with one hidden layer of 256, 16 episodes and 40 updates of batch 128 a cycle, as in section 3.1
and appendix A of the paper. Against it: goals are relabelled by `future` with k = 4 instead of by
`final`, the hidden layer is normalised, and the target network follows every 10 instead of every 40
updates. The budget is 25,000 episodes.
"""

from __future__ import annotations

from her_jax.config import Config, DQNConfig, EnvConfig, ReplayConfig, TrainConfig

EPISODES = 25_000


def config(task: str, bits: int = 10) -> Config:
    """Settings for a number of bits."""
    return Config(
        env=EnvConfig(task=task, n=bits),
        train=TrainConfig(
            env_steps=min(EPISODES * max(bits, 1), 2**30),  # or it could not be counted
            num_envs=16,
            updates_per_cycle=40,
            cycles_per_epoch=50,
            checkpoint_period=10,
        ),
        replay=ReplayConfig(capacity=20_000, batch_size=128),
        agent=DQNConfig(layer_norm=True, target_period=10),
    )
