"""Cost of several seeds in one program.

    python benchmarks/sweeping.py [--preset accelerator --physics warp] [--smoke] [--out FILE]

Rounds of episodes and updates of FetchPush, its preset's, are timed for S agents in one compiled
program, one after the other ("map") and all at once ("vmap"), beside S calls of the program of a
single run. Compiling is timed apart: S runs of train.py would each compile their own.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

import harness
import launch
import presets
from her_jax import group, train
from her_jax.config import Config, DDPGConfig, ReplayConfig, TrainConfig
from her_jax.runner import Run

MODES = ("map", "vmap")


def main(
    smoke: bool = False,
    preset: str = "tuned",
    physics: str = "native",
    agents: int = 8,
    cycles: int = 2,
    rounds: int = 3,
    out: Path | None = None,
) -> None:
    """Measure agents in one program beside as many single ones.

    Args:
      smoke: A tiny run that only shows that everything works.
      preset: Preset, as for train.py.
      physics: Backend.
      agents: How many.
      cycles: Rounds of episodes, each followed by updates, in one call.
      rounds: Timed calls of each.
      out: Results file; default runs/benchmarks/sweeping.json.
    """
    harness.require_positive(agents=agents, cycles=cycles, rounds=rounds)
    config = presets.load(preset, "fetch-push")
    config = dataclasses.replace(
        config,
        env=dataclasses.replace(config.env, physics=physics),
        train=dataclasses.replace(config.train, cycles_per_epoch=cycles),
    )
    if smoke:
        agents, rounds = 2, 1
        config = dataclasses.replace(
            config,
            train=TrainConfig(num_envs=2, updates_per_cycle=2, cycles_per_epoch=1),
            replay=ReplayConfig(capacity=4, batch_size=8),
            agent=DDPGConfig(hidden=(8,)),
        )
    path = harness.results_file("sweeping", out, smoke)
    rows = measure(config, agents, rounds)
    print(table(rows))
    harness.write("sweeping", rows, path)


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: speed of all agents together, its ratio to single runs, and compile seconds."""
    return harness.markdown(
        ["agents", "program", "steps/s of all", "against single runs", "to compile, s"],
        [
            [
                str(row["agents"]),
                row["program"],
                f"{row['env_steps_per_s']:,.0f}",
                f"{row['speed_against_single']:.2f}",
                f"{row['compile_s']:.1f}",
            ]
            for row in rows
        ],
    )


def measure(config: Config, agents: int, rounds: int) -> list[dict[str, Any]]:
    """A row for single runs, whose compile seconds are those of all, and one for each mode."""
    env, judge = launch.make_envs(config.env)
    runs = [
        Run(env, dataclasses.replace(config, seed=i), Path("unused"), judge=judge)
        for i in range(agents)
    ]
    states = group.start(runs)
    apart = [group.pick(states, i) for i in range(agents)]
    one, one_s = _compiled(functools.partial(train.epoch, env, runs[0].agent, config), apart[0])
    calls: dict[str, Callable[[], Any]] = {"single": lambda: [one(state)[1] for state in apart]}
    compile_s = {"single": agents * one_s}
    for mode in MODES:
        program, compile_s[mode] = _compiled(group.epoch(runs[0], mode), states)
        calls[mode] = functools.partial(program, states)
    seconds = harness.side_by_side(calls, rounds)
    return [
        {
            "physics": config.env.physics,
            "agents": agents,
            "program": name,
            "env_steps_per_s": agents * runs[0].epoch_steps / taken,
            "speed_against_single": seconds["single"] / taken,
            "compile_s": compile_s[name],
        }
        for name, taken in seconds.items()
    ]


def _compiled(function: Callable[..., Any], state: Any) -> tuple[Callable[..., Any], float]:
    """A program and the seconds that it took to compile."""
    return harness.timed(lambda: jax.jit(function).lower(state).compile())


if __name__ == "__main__":
    harness.run(main)
