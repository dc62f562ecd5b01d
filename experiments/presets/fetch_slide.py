"""FetchSlide on two CPU cores.

Command:   python experiments/train.py fetch-slide
Hardware:  two CPU cores, no accelerator
Time:      two and a half hours on a slow core
Expected:  success 0.80 on 200 held-out goals within 5 cm by 0.42 to 0.68 M environment steps, 0.89
           to 0.94 after 1.26 M (five seeds); 0.87 to 0.90 on 1,000 goals

Against Baselines: episodes in which the puck gained energy are replayed more often, two goals in
five are what other episodes were asked for (`future_actual`), the critic is normalised, targets
follow slowly after every update, a running average of the actor is evaluated, the action penalty is
a hundredth and exploration is calmer: mrl's values, but for random actions, a tenth here and a
fifth in mrl. 64 transitions are replayed for each environment step. The puck slides on after it is
struck, so the discount of FetchPush is too low here.
"""

from __future__ import annotations

from her_jax.config import Config, DDPGConfig, EnvConfig, ReplayConfig, TrainConfig


def config(task: str) -> Config:
    """Settings for FetchSlide."""
    return Config(
        env=EnvConfig(task=task),
        train=TrainConfig(
            env_steps=1_250_000, num_envs=16, updates_per_cycle=100, cycles_per_epoch=25
        ),
        replay=ReplayConfig(
            capacity=20_000, batch_size=512, strategy="future_actual", priority="energy"
        ),
        agent=DDPGConfig(
            layer_norm=True,
            discount=0.98,
            target_rate=0.02,
            target_period=1,
            average_rate=0.0005,
            action_l2=0.01,
            noise_std=0.1,
            random_action_probability=0.1,
        ),
    )
