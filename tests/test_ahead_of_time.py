"""What benchmarks/ahead_of_time.py reads in compiled programs."""

from __future__ import annotations

import importlib.util
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ahead_of_time
import her_envs
from her_jax.errors import UserError


def compiled(function, *args):
    return ahead_of_time.read(jax.jit(function).lower(*args).compile().as_text() or "")


def test_loops_are_found_with_their_lengths_and_depths():
    def run(x):
        def outer(x, _):
            x, _ = jax.lax.scan(lambda x, _: (jnp.sort(x) + 1.0, None), x, length=7)
            return jnp.sort(-x), None

        return jax.lax.scan(outer, x, length=5)[0]

    program = compiled(run, jnp.arange(64.0))
    found = [(loop.passes, loop.depth) for loop in program.loops]
    assert (5, 0) in found and (7, 1) in found
    assert all(loop.kernels > 0 for loop in program.loops if loop.passes in (5, 7))
    assert not program.for_host.keys() & {"callbacks", "transfers"}


def test_a_result_counts_if_any_of_its_arrays_holds_something():
    text = """
%body (p: f32[2]) -> f32[2] {
  %a = (f32[2]{0}, f32[2,0]{1,0}) custom-call(%p), custom_call_target="step"
  %b = f32[2,0]{1,0} copy(%c)
  %d = (f32[0]{0}, s32[0,3]{1,0}) custom-call(%p), custom_call_target="nothing"
  %e = s32[] fusion(%p), kind=kLoop, calls=%add
}
ENTRY %main (p: f32[2]) -> f32[2] {
  %w = f32[2]{0} while(%p), condition=%c, body=%body, config={"known_trip_count":{"n":"20"}}
}
"""
    assert ahead_of_time.read(text).loops == [ahead_of_time.Loop(20, 2, 0)]


def test_what_waits_for_the_host_is_counted():
    def run(x):
        x = jax.lax.while_loop(lambda x: x.sum() < 100, lambda x: x * 2, x)
        return jax.pure_callback(np.sin, jax.ShapeDtypeStruct(x.shape, x.dtype), x)

    found = compiled(run, jnp.ones(8)).for_host
    assert found["callbacks"] == 1 and found["loops of unknown length"] == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "h900"}, "device: 'h900' is unknown; choose one of h100"),
        ({"worlds": (0,)}, "worlds: (0,) are not all positive"),
        ({"physics": ("native",)}, "physics: 'native' calls the host"),
        ({"device": "host", "kernels": True}, "kernels: Warp's, which are for h100"),
    ],
)
def test_bad_options_get_one_line(options, message, tmp_path):
    with pytest.raises(UserError) as error:
        ahead_of_time.main(**options, out=tmp_path / "out.json")
    assert message in str(error.value) and not (tmp_path / "out.json").exists()


def test_warp_models_are_put_for_a_gpu_that_is_not_there():
    with ahead_of_time.as_default(types.SimpleNamespace(platform="gpu")):
        env = her_envs.make("FetchReach", physics="warp")
    assert env.simulator == "warp"


def test_a_missing_compiler_says_what_to_install():
    if importlib.util.find_spec("jax_cuda13_plugin") is not None:
        pytest.skip("JAX's compiler for GPUs is installed")
    with pytest.raises(UserError, match=r"pip install -e '\.\[cuda13\]'"):
        ahead_of_time.describe("h100")
