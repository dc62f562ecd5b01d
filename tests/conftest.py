"""Shared fixtures: environments and compiled functions are made once a session."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import os
import runpy
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

import her_envs
import launch
from her_envs.fetch.tasks import TASKS
from her_jax import buffer, train
from her_jax.agents.ddpg import DDPG
from her_jax.config import Config, DDPGConfig, EnvConfig, ReplayConfig, TrainConfig
from her_jax.runner import Run
from her_jax.types import Batch, Episode, GoalEnv
from toy import PointEnv

REPO = Path(__file__).resolve().parent.parent

# XLA reads its flags when it starts, at the first array. No module imported above may make one: JAX
# refuses to change its number of CPU devices, which is 1 anyway, after that.
jax.config.update("jax_num_cpu_devices", 1)
launch.set_xla_flags()
# Most programs run once or twice: they are compiled fast, and run slowly.
jax.config.update("jax_disable_most_optimizations", True)
# Equal programs of different tests, and of the next session, are compiled once.
COMPILED, WORTH_KEEPING_S = REPO / ".pytest_cache" / "jax", 0.2
jax.config.update("jax_compilation_cache_dir", str(COMPILED))
jax.config.update("jax_persistent_cache_min_compile_time_secs", WORTH_KEEPING_S)


SILENT = Console(quiet=True)

LONG = {
    *("test_agents", "test_fetch", "test_group", "test_labels", "test_mjx"),
    *("test_requirements", "test_runner", "test_train"),
}
"""Files below this folder that take longest."""

SCRIPT_ENVIRONMENT = os.environ | {
    "COLUMNS": "200",
    "JAX_COMPILATION_CACHE_DIR": str(COMPILED),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": str(WORTH_KEEPING_S),
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    "MPLBACKEND": "Agg",
}
"""Environment of scripts."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """This folder's files, most of them whole programs, and long ones first: workers then end
    together."""
    items.sort(key=lambda item: item.path.parent != REPO / "tests" and item.path.stem not in LONG)


@contextlib.contextmanager
def optimised():
    """Programs compiled within are what users get."""
    jax.config.update("jax_disable_most_optimizations", False)
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", True)


@functools.cache
def fetch(name: str) -> her_envs.FetchEnv:
    env = her_envs.make(name)
    assert isinstance(env, her_envs.FetchEnv)
    return env


@functools.cache
def fetch_step(name: str):
    return jax.jit(jax.vmap(fetch(name).step))


@functools.cache
def fetch_reset(name: str):
    return jax.jit(jax.vmap(fetch(name).reset))


@pytest.fixture(params=TASKS)
def env(request) -> her_envs.FetchEnv:
    """Each of the four tasks."""
    return fetch(request.param)


@pytest.fixture(scope="session")
def toy() -> PointEnv:
    """One for all tests, so that equal audits are compiled once; no test may change it."""
    return PointEnv()


@pytest.fixture
def config() -> Config:
    """A run of the toy that takes a second."""
    return tiny_config()


@pytest.fixture(scope="session")
def finished(toy, tmp_path_factory):
    """Final state, summary and folder of one run of the toy that tests only copy or read."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    return *Run(toy, tiny_config(), folder, SILENT).start(), folder


@pytest.fixture
def point(tmp_path) -> Iterator[Path]:
    """A file that registers the toy; what it registers is forgotten afterwards."""
    path = tmp_path / "point.py"
    toy = (REPO / "tests" / "toy.py").read_text()
    path.write_text(f"{toy}\nimport her_envs\nher_envs.register('Point', PointEnv)\n")
    yield path
    her_envs.forget()


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of its folder."""
    shutil.copytree(finished[2], tmp_path / "r")
    return tmp_path / "r"


def tiny_config() -> Config:
    return Config(
        env=EnvConfig(task=PointEnv.name),
        train=TrainConfig(
            env_steps=960,
            num_envs=4,
            updates_per_cycle=3,
            cycles_per_epoch=4,
            eval_episodes=8,
            checkpoint_period=2,
        ),
        replay=ReplayConfig(capacity=24, batch_size=16),
        agent=DDPGConfig(hidden=(16, 16), target_rate=0.05, target_period=2),
    )


# Enough for the toy: success of 0.9 and more within one epoch of some seconds.
LEARNING = Config(
    env=EnvConfig(task=PointEnv.name),
    train=TrainConfig(
        env_steps=1, num_envs=8, updates_per_cycle=40, cycles_per_epoch=40, eval_episodes=100
    ),
    replay=ReplayConfig(capacity=800, batch_size=64),
    agent=DDPGConfig(
        hidden=(64, 64), discount=0.9, target_rate=0.05, target_period=1, action_l2=0.01
    ),
)


def with_(config: Config, **changes) -> Config:
    """A config with nested fields replaced: with_(config, k=0.0, hidden=(8,))."""
    parts = {}
    for part in ("env", "train", "replay", "agent", "normalizer"):
        current = getattr(config, part)
        names = {field.name for field in dataclasses.fields(current)}
        parts[part] = dataclasses.replace(
            current, **{name: changes.pop(name) for name in names & set(changes)}
        )
    return dataclasses.replace(config, **parts, **changes)


def ddpg(config: Config) -> DDPGConfig:
    """The agent's settings of a run that has DDPG."""
    assert isinstance(config.agent, DDPGConfig)
    return config.agent


def learn(
    env: GoalEnv, config: Config, learner: Any, statistics: Any, replay: buffer.BufferState
) -> tuple[Any, list[Batch]]:
    """What `train.learn` returns with DDPG, and the batches that DDPG was given."""
    agent, kept = keeping(config, env.action_size)
    learned = jax.jit(functools.partial(train.learn, env, agent, config))(
        learner, statistics, replay, jax.random.key(7)
    )
    jax.effects_barrier()
    return learned, kept


def keeping(config: Config, action_size: int) -> tuple[DDPG, list[Batch]]:
    """DDPG, and a list that gets the batches that it is given."""
    kept = []

    class Keeping(DDPG):
        def update(self, learner, batch, key):
            jax.debug.callback(kept.append, batch)
            return super().update(learner, batch, key)

    return Keeping(ddpg(config), action_size), kept


def script(name: str, *words: str, folder: Path, rc: int = 0, output: bool = False) -> str:
    """Runs experiments/NAME.py, or a benchmark, within this process, which saves starting one.

    Args:
      name: of an experiment, or "benchmarks/NAME".
      words: its arguments.
      folder: where it runs.
      rc: the exit status that it must have.
      output: whether to return what a failing one printed instead of its error.

    Returns:
      Its output; after a failure its error, unless `output`.
    """
    parent = REPO if name.startswith("benchmarks/") else REPO / "experiments"
    path = parent / f"{name}.py"
    out, err = io.StringIO(), io.StringIO()
    code = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", [str(path), *words])
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                runpy.run_path(str(path), run_name="__main__")
            except SystemExit as stop:
                code = stop.code or 0
    assert code == rc, out.getvalue() + err.getvalue()
    return out.getvalue() if rc == 0 or output else err.getvalue()


def same(a: Any, b: Any) -> bool:
    """Whether two pytrees are equal, bit for bit."""

    def plain(x):
        return jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x

    leaves = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.array_equal(plain(x), plain(y)) for x, y in leaves)


def p_value(result: Any) -> float:
    """Of a SciPy test, whose result types are not public."""
    return float(result.pvalue)


def naming_episodes(count: int, horizon: int, first: int = 0) -> Episode:
    """Episodes in which every element says whose and when it is.

    Goals are (episode, time), observations (episode, time, 0.5), actions (episode, time), costs
    (episode); the requested goal is (episode, -1), a time that no state has.
    """
    episode = np.broadcast_to(
        np.arange(first, first + count, dtype=np.float32)[:, None], (count, horizon + 1)
    )
    time = np.broadcast_to(np.arange(horizon + 1, dtype=np.float32), (count, horizon + 1))
    goal = np.stack([episode, time], axis=-1)
    observation = np.concatenate([goal, np.full((count, horizon + 1, 1), 0.5, np.float32)], -1)
    requested = np.stack([episode[:, 0], np.full(count, -1, np.float32)], axis=-1)
    return Episode(
        *map(jnp.asarray, (observation, goal, requested, goal[:, :-1], goal[:, :-1, :1]))
    )
