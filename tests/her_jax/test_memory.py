"""The memory plan: what does not fit is refused, with what would."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from conftest import SILENT, with_
from her_jax import group, memory
from her_jax.errors import UserError
from her_jax.runner import Run
from toy import PointEnv


def test_buffer_that_does_not_fit_is_refused_with_its_size(toy, config, tmp_path):
    huge = with_(config, capacity=4 * 10**12)
    with pytest.raises(UserError, match=r"capacity: 4000000000000 episodes need \d+\.\d GB"):
        Run(toy, huge, tmp_path / "r", SILENT).start()
    assert not (tmp_path / "r").exists()


def test_largest_buffer_that_fits_is_named(toy, config, monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda: 100_000)
    with pytest.raises(UserError, match="at most") as error:
        memory.require(toy, with_(config, capacity=40_000))
    fits = int(str(error.value).split("at most ")[1].split()[0])
    memory.require(toy, with_(config, capacity=fits))
    with pytest.raises(UserError, match="at most"):
        memory.require(toy, with_(config, capacity=fits + 4))


def test_simulations_that_do_not_fit_are_refused_before_anything_is_compiled(config, tmp_path):
    greedy = PointEnv(bytes_per_env=10**12)
    with pytest.raises(UserError, match="num_envs: 4 simulations of 1000000000 kB need"):
        Run(greedy, config, tmp_path / "r", SILENT).start()
    with pytest.raises(UserError, match="num_envs: 4 simulations for each of 3 agents of"):
        memory.require(greedy, config, playing=3)
    small = PointEnv(bytes_per_env=1000)
    assert "4 simulations of 1 kB: 0.00 GB" in memory.plan(small, config)
    assert "12 simulations of 1 kB: 0.00 GB" in memory.plan(small, config, playing=3)
    assert "simulations" not in memory.plan(PointEnv(), config)


def test_a_group_needs_room_for_a_copy_of_one_agents_buffer(config, tmp_path, monkeypatch):
    runs = [Run(PointEnv(), with_(config, seed=seed), tmp_path / str(seed)) for seed in (0, 1)]
    buffer = config.replay.capacity * memory.episode_bytes(PointEnv())
    monkeypatch.setattr(memory, "free_bytes", lambda: int(2.9 * buffer / memory.MAX_SHARE))
    with pytest.raises(UserError, match=r"capacity: 24 episodes need .* GB for 3 goal buffers"):
        group.fit(runs, "map")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("mode", "playing"), [("map", 1), ("vmap", 2)])
def test_agents_that_play_in_turn_share_room_for_simulations(
    mode, playing, config, tmp_path, monkeypatch
):
    asked = []
    monkeypatch.setattr(memory, "require", lambda env, config, *held: asked.append(held))
    monkeypatch.setattr(Run, "prepare", lambda run, *held: asked.append(held))
    monkeypatch.setattr(group, "_begun", lambda *_: [])
    monkeypatch.setattr(group, "_fresh", lambda *_: [])
    runs = [Run(PointEnv(), with_(config, seed=seed), tmp_path / str(seed)) for seed in (0, 1)]
    asked.clear()  # of single runs
    group.fit(runs, mode)
    assert asked == [(3, playing)]


def test_a_containers_memory_limit_counts(monkeypatch, tmp_path):
    (tmp_path / "memory.max").write_text("5000\n")
    (tmp_path / "memory.current").write_text("3000\n")
    (tmp_path / "memory.stat").write_text("anon 100\ninactive_file 500\n")
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    assert memory.free_bytes() == 2500
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.free_bytes() > 10**8


def test_a_device_that_runs_out_says_so_in_a_line():
    told = r"^memory: the device ran out \(RESOURCE_EXHAUSTED[^\n]+$"
    with pytest.raises(UserError, match=told), memory.exhaustible():
        jnp.zeros(10**14).block_until_ready()
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"), memory.exhaustible():
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")
