"""The settings of Plappert et al. 2018 and OpenAI Baselines, with one shared buffer.

Command:   python experiments/train.py fetch-push --preset plappert2018
Hardware:  19 MPI workers in the original; here one process on any device
Time:      4.75 M environment steps and 100,000 updates; an hour for each 0.54 M steps on one CPU
           core with other work beside
Expected:  curves like figure 3 of arXiv:1802.09464; success 0.9 on 200 held-out goals of FetchPush
           by 0.86 M steps and 0.99 after 1.05 M (one seed), the other tasks not tried; with the
           share of one worker (`--num-envs 2 --batch-size 256`) one seed by 0.55 M, one not by 0.6

Nineteen workers with two environments and a batch of 256 each become 38 environments and one
batch of 4,864. Their private buffers of 20,000 episodes, which a run of 50 epochs never fills,
become one ring that holds the whole run. Gradients are averaged instead of summed, which Adam
does not see. Episodes keep all 50 steps, as in the first release of the code.
"""

from __future__ import annotations

from her_jax.config import Config, EnvConfig, ReplayConfig, TrainConfig

_WORKERS = 19
_ENVS_EACH = 2
_EPOCHS = 50
_CYCLES = 50
_HORIZON = 50


def config(task: str) -> Config:
    """Settings for any Fetch task; Reach has shorter epochs, Baselines' only exception."""
    num_envs = _WORKERS * _ENVS_EACH
    cycles = 10 if task == "FetchReach" else _CYCLES
    episodes = num_envs * cycles * _EPOCHS
    return Config(
        env=EnvConfig(task=task),
        train=TrainConfig(
            env_steps=episodes * _HORIZON,
            num_envs=num_envs,
            updates_per_cycle=40,
            cycles_per_epoch=cycles,
        ),
        replay=ReplayConfig(capacity=episodes, batch_size=256 * _WORKERS),
    )
