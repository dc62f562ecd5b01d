"""Compiles training for a GPU or TPU that is not there, and reads what it would be given.

    python benchmarks/ahead_of_time.py [--device h100] [--physics warp] [--worlds 512 8192]

XLA needs a description of a device to compile for it, and neither the device nor its driver, only
its compiler: the extra `cuda13` for "h100" and "h200", `tpu` for "v5e"; "host" is the machine
itself. The program is an epoch of a preset, the one that training runs. Reported are

    seconds to trace and to compile, on this host's cores; for a GPU without autotuning of matrix
        products, which needs the device
    bytes: of the state that goes in (goal buffer, learner) and is updated in place, and of what the
        program works in besides; what Warp allocates for collisions is in neither
    kernels: what a GPU runs in each pass of a loop, beside its inner loops, before XLA groups
        kernels into CUDA graphs; a step of MuJoCo Warp counts as one, a graph of its own
    for_host: what would make the device wait for the host: callbacks, transfers, and on a GPU loops
        and branches whose condition the host has to read first. Programs with physics on the device
        should have no callback and no transfer

Warp compiles its kernels by itself, on first use; with `--kernels` the modules that a step loads on
the CPU are compiled for the GPU too, one after the other. Nothing here says how fast anything runs.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import importlib.util
import os
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import jax
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

import end_to_end
import harness
import her_envs
import launch
import presets
from her_envs.fetch.tasks import SUBSTEPS
from her_jax import agents, metrics, provenance, train
from her_jax.config import Config
from her_jax.errors import UserError

PACKAGES = ("jax-cuda13-plugin", "libtpu")


class Gpu(NamedTuple):
    """What XLA must know of a GPU of compute capability 9.0; NVIDIA's data sheets.

    Attributes:
      name: as the driver gives it.
      memory_bytes: of the device.
      bandwidth: of its memory, bytes a second.
    """

    name: str
    memory_bytes: int
    bandwidth: int

    def description(self) -> str:
        """XLA's `GpuTargetConfigProto` as text."""
        return f"""
            platform_name: "CUDA"
            device_description_str: "{self.name}"
            dnn_version_info {{ major: 9 minor: 10 }}
            gpu_device_info {{
              name: "{self.name}"
              device_vendor: "NVIDIA Corporation"
              cuda_compute_capability {{ major: 9 }}
              core_count: 132
              fpus_per_core: 128
              clock_rate_ghz: 1.98
              device_memory_size: {self.memory_bytes}
              memory_bandwidth: {self.bandwidth}
              l2_cache_size: {50 * 2**20}
              device_address_bits: 64
              threads_per_warp: 32
              threads_per_block_limit: 1024
              threads_per_core_limit: 2048
              thread_dim_limit_x: 1024
              thread_dim_limit_y: 1024
              thread_dim_limit_z: 64
              block_dim_limit_x: {2**31 - 1}
              block_dim_limit_y: 65535
              block_dim_limit_z: 65535
              registers_per_core_limit: 65536
              registers_per_block_limit: 65536
              shared_memory_per_core: {228 * 2**10}
              shared_memory_per_block: {48 * 2**10}
              shared_memory_per_block_optin: {227 * 2**10}
              driver_version: "13.0.0"
              runtime_version: "13.0.0"
              compile_time_toolkit_version: "13.0.0"
              dnn_version: "9.10.0"
            }}
        """


GPUS = {
    "h100": Gpu("NVIDIA H100 80GB HBM3", 80 * 10**9, 3_350 * 10**9),
    "h200": Gpu("NVIDIA H200", 141 * 10**9, 4_800 * 10**9),
}
TPUS = {"v5e": "v5e:2x2"}
"""Device -> the smallest topology that XLA has of it; one chip of it is used."""

DEVICES = (*GPUS, *TPUS, "host")

COMPILER_OPTIONS = {"gpu": {"xla_gpu_autotune_level": 0}}
"""By platform; autotuning runs candidates on the device."""

_INSTRUCTION = re.compile(r"\s+(?:ROOT )?%\S+ = (?P<shape>\(.*?\)|\S+) (?P<op>[a-z\-]+)\(")
_COMPUTATION = re.compile(r"^(?P<entry>ENTRY )?%?(?P<name>[\w.\-]+) \(.*\) -> .* \{")
_ARRAY = re.compile(r"\w+\[([\d,]*)\]")

_LAUNCHES = frozenset(
    ("fusion", "custom-call", "copy", "sort", "scatter", "gather", "dot", "convolution")
)
"""Instructions of a scheduled program that the device runs as a kernel, or as a copy."""

LOOPS = ("mujoco_step", "env_step", "update", "draw")
"""Loops whose kernels `launched` counts."""

_ALWAYS_WAITS = ("callbacks", "transfers")

_TRANSFERS = frozenset(("send", "recv", "infeed", "outfeed"))


class Loop(NamedTuple):
    """A loop of a compiled program.

    Attributes:
      passes: how often it runs; None if the program does not say, as those of TPUs never do.
      kernels: of each pass, those of inner loops left out.
      depth: how many loops it is in.
    """

    passes: int | None
    kernels: int
    depth: int


class Reading(NamedTuple):
    """What a compiled program says of itself.

    Attributes:
      loops: outer loops before their inner ones.
      for_host: kind -> how often the text of the program has it.
    """

    loops: list[Loop]
    for_host: dict[str, int]


def main(
    task: str = "fetch-push",
    preset: str = "accelerator",
    device: str = "h100",
    physics: tuple[str, ...] = ("warp",),
    model: str = "stock",
    worlds: tuple[int, ...] = (512,),
    kernels: bool = False,
    smoke: bool = False,
    out: Path | None = None,
) -> None:
    """Compile training for a device that is not there.

    Args:
      task: Task, as for train.py.
      preset: Preset, as for train.py.
      device: One of h100, h200, v5e and host.
      physics: Backends of training.
      model: Model of training.
      worlds: Numbers of environments.
      kernels: Whether to compile Warp's kernels too, for a GPU.
      smoke: A tiny program for the host, which only shows that everything works.
      out: Results file; default runs/benchmarks/ahead_of_time.json.
    """
    if smoke:
        task, device, physics, worlds = "fetch-reach", "host", ("native",), (2,)
    if any(count < 1 for count in worlds):
        raise UserError(f"worlds: {worlds} are not all positive; give e.g. --worlds 512 8192")
    if device != "host" and "native" in physics:
        raise UserError("physics: 'native' calls the host, which only a device that is there can")
    if kernels and (device not in GPUS or "warp" not in physics):
        raise UserError("kernels: Warp's, which are for h100 and h200; add --physics warp")
    physics = harness.known("physics", physics, her_envs.PHYSICS)
    described = describe(device)
    config = presets.load(preset, task)
    path = harness.results_file("ahead_of_time", out, smoke)
    rows = []
    for backend in physics:
        for count in worlds:
            env = dataclasses.replace(config.env, physics=backend, model=model)
            chosen = presets.with_envs(dataclasses.replace(config, env=env), count)
            if smoke:
                chosen = end_to_end.tiny(chosen)
            rows.append({"compiled_for": device} | measure(chosen, described))
            harness.write("ahead_of_time", rows, path)
    if kernels:
        compiled = {"compiled_for": device} | warp_kernels(config.env.task, model)
        harness.write("ahead_of_time", [*rows, compiled], path)
        print(f"Warp's {compiled['warp_kernels']} kernels: {compiled['compile_s']:.0f} s")
    print(table(rows))


def describe(device: str) -> Any:
    """A JAX device to compile for, described or the machine's own.

    Raises:
      UserError: if it is unknown, or its compiler is not installed.
    """
    if device not in DEVICES:
        raise UserError(f"device: {device!r} is unknown; choose one of {', '.join(DEVICES)}")
    if device == "host":
        return jax.devices()[0]
    if device in GPUS:
        module, extra = "jax_cuda13_plugin", "cuda13"
        options = {"topology": "1x1x1", "target_config": GPUS[device].description()}
        platform, topology = "cuda", "1x1x1"
    else:
        module, extra, options = "libtpu", "tpu", {}
        platform, topology = "tpu", TPUS[device]
    if importlib.util.find_spec(module) is None:
        raise UserError(f"device: no compiler for {device}; run: pip install -e '.[{extra}]'")
    os.environ["JAX_SKIP_CUDA_CONSTRAINTS_CHECK"] = "1"  # it asks for the driver
    jax.config.update("jax_platforms", "cpu")  # or JAX would look for the device
    found = topologies.get_topology_desc(topology, platform, **options)
    return found.devices[0]


@contextlib.contextmanager
def as_default(device: Any) -> Iterator[None]:
    """Models are put as for this device: Warp captures CUDA graphs where a GPU is the default."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(jax, "default_backend", lambda: device.platform))
        if device.platform == "gpu":
            stack.enter_context(mock.patch("warp.is_cuda_available", lambda: True))
        yield


def measure(config: Config, device: Any) -> dict[str, Any]:
    """Compiles an epoch of `config` for a device; returns a row."""
    with as_default(device):
        env = launch.make_env(config.env)
    agent = agents.make(config.agent, env)
    init = functools.partial(train.init, env, agent, config)
    here = SingleDeviceSharding(device)
    state = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here),
        jax.eval_shape(init, jax.random.key(config.seed)),
    )
    run_epoch = jax.jit(functools.partial(train.epoch, env, agent, config), donate_argnums=0)
    lowered, trace_s = harness.timed(run_epoch.lower, state)
    began = time.perf_counter()
    compiled = lowered.compile(compiler_options=COMPILER_OPTIONS.get(device.platform))
    compile_s = time.perf_counter() - began
    memory: Any = compiled.memory_analysis()
    program = read(compiled.as_text() or "")
    if device.platform == "tpu":  # which runs loops and branches by itself
        lasting = {kind: n for kind, n in program.for_host.items() if kind in _ALWAYS_WAITS}
        program = program._replace(for_host=lasting)
    return {
        "task": config.env.task,
        "device_kind": device.device_kind,
        "physics": config.env.physics,
        "model": config.env.model,
        "num_envs": config.train.num_envs,
        "trace_s": trace_s,
        "compile_s": compile_s,
        "state_bytes": memory.argument_size_in_bytes,
        "updated_in_place_bytes": memory.alias_size_in_bytes,
        "working_bytes": memory.temp_size_in_bytes,
        "kernels": launched(program, config, env.horizon),
        "for_host": program.for_host,
        "loops": [loop._asdict() for loop in program.loops],
        "packages": provenance.installed(PACKAGES),
    }


def warp_kernels(task: str, model: str) -> dict[str, Any]:
    """Compiles, for compute capability 9.0, what a reset and a step of Warp load on the CPU."""
    import warp

    env = her_envs.make(task, physics="warp", model=model)
    start = jax.jit(jax.vmap(env.reset))(jax.random.split(jax.random.key(0), 2))
    jax.block_until_ready(jax.jit(jax.vmap(env.step))(start, jax.numpy.zeros((2, 4))))
    modules: Any = getattr(warp, "_src").context.user_modules.values()  # noqa: B009
    used = [module for module in modules if module.execs and module.kernels]
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        for i, module in enumerate(used):
            warp.compile_aot_module(module, arch=90, module_dir=f"{folder}/{i}", use_ptx=False)
    return {
        "task": env.name,
        "model": model,
        "warp_kernels": sum(len(module.kernels) for module in used),
        "compile_s": time.perf_counter() - began,
        "packages": provenance.installed(("warp-lang",)),
    }


def read(text: str) -> Reading:
    """Reads the text of a compiled program (`jax.stages.Compiled.as_text`).

    Args:
      text: scheduled HLO.
    """
    bodies: dict[str, list[str]] = {}
    entry = name = ""
    for line in text.splitlines():
        if header := _COMPUTATION.match(line):
            name = header["name"]
            bodies[name] = []
            entry = name if header["entry"] else entry
        elif name:
            bodies[name].append(line)
    loops: list[Loop] = []
    for_host: collections.Counter[str] = collections.Counter()

    def visit(name: str, depth: int) -> int:
        """Kernels of a computation; notes the loops in it."""
        count = 0
        for line in bodies.get(name, ()):
            found = _INSTRUCTION.match(line)
            if found is None:
                continue
            op = found["op"]
            if op in _TRANSFERS:
                for_host["transfers"] += 1
            elif op == "custom-call" and "callback" in _attribute(line, "custom_call_target"):
                for_host["callbacks"] += 1
            elif op == "conditional":
                for_host["branches"] += 1
                for branch in re.findall(r"%([\w.\-]+)", _braces(line, "branch_computations")):
                    count += visit(branch, depth)
            elif op == "call":
                count += visit(_attribute(line, "to_apply"), depth)
            elif op == "while":
                passes = re.search(r'"known_trip_count":\{"n":"(\d+)"', line)
                if passes is None:
                    for_host["loops of unknown length"] += 1
                place = len(loops)
                loops.append(Loop(None, 0, depth))
                inside = sum(
                    visit(_attribute(line, part), depth + 1) for part in ("body", "condition")
                )
                loops[place] = Loop(int(passes[1]) if passes else None, inside, depth)
            elif op in _LAUNCHES and not _empty(found["shape"]):
                count += 1
        return count

    visit(entry, 0)
    return Reading(loops, dict(for_host))


def _empty(shape: str) -> bool:
    """Whether there is nothing in any of the arrays of a result."""
    return all("0" in sizes.split(",") for sizes in _ARRAY.findall(shape))


def _attribute(line: str, name: str) -> str:
    """The value of an attribute of an instruction; empty without it."""
    found = re.search(rf'\b{name}="?%?([\w.\-$:]+)', line)
    return found[1] if found else ""


def _braces(line: str, name: str) -> str:
    found = re.search(rf"\b{name}=\{{(.*?)\}}", line)
    return found[1] if found else ""


def launched(program: Reading, config: Config, horizon: int) -> dict[str, int | None]:
    """Kernels of a MuJoCo step, of the rest of an environment step, and of an update.

    Also those that draw the batches of several updates. A loop is known by its length; None where
    there is none of that length, or more than one. On FetchPickAndPlace the last MuJoCo step of
    `warp` is not in the loop.
    """
    updates = config.train.updates_per_cycle
    at_once = train.batches_at_once(updates)
    lengths = ((SUBSTEPS, SUBSTEPS - 1), (horizon,), (at_once,), (updates // at_once,))
    found = {
        name: [loop.kernels for loop in program.loops if loop.passes in some]
        for name, some in zip(LOOPS, lengths, strict=True)
    }
    return {name: counts[0] if len(counts) == 1 else None for name, counts in found.items()}


def committed() -> list[dict[str, Any]]:
    """Rows of all committed results."""
    paths = sorted(harness.RESULTS.glob("ahead_of_time*.json"))
    return [row for path in paths for row in metrics.read_json(path)["rows"]]


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: a line a program; rows of Warp's kernels are left out."""
    header = ["compiled for", "physics", "model", "environments", "trace, s", "compile, s"]
    header += ["state, MB", "working memory, MB", "kernels in a MuJoCo step", "in an env step"]
    header += ["in an update", "in a draw", "for the host"]
    return harness.markdown(header, [_cells(row) for row in rows if "loops" in row])


def _cells(row: dict[str, Any]) -> list[str]:
    waits = ", ".join(f"{kind}: {count}" for kind, count in row["for_host"].items())
    return [
        row["compiled_for"],
        row["physics"],
        row["model"],
        f"{row['num_envs']:,}",
        f"{row['trace_s']:.0f}",
        f"{row['compile_s']:.0f}",
        f"{row['state_bytes'] / 1e6:,.0f}",
        f"{row['working_bytes'] / 1e6:,.0f}",
        *("-" if count is None else f"{count}" for count in map(row["kernels"].get, LOOPS)),
        waits or "-",
    ]


if __name__ == "__main__":
    harness.run(main)
