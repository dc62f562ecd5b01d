"""Where a number comes from: versions, device, commit."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import jax

_PACKAGES = (
    *("her-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "brax", "numpy"),
    *("mujoco", "mujoco-mjx", "warp-lang", "gymnasium-robotics"),
)

_CODE = tuple(
    f":(top){name}"
    for name in (
        *("her_jax/*.py", "envs/*.py", "envs/*.csv", "experiments/*.py", "benchmarks/*.py"),
        *("pyproject.toml", "constraints.txt"),
    )
)
"""What a result depends on, as git's pathspecs."""

COMMIT_VARIABLE = "HER_JAX_COMMIT"
UNKNOWN = "unknown (not a git checkout)"


def versions() -> dict[str, str]:
    """Versions of Python, this project and the packages that can change a result."""
    return {"python": platform.python_version()} | installed(_PACKAGES)


def installed(packages: Iterable[str]) -> dict[str, str]:
    """Version of each package, or that it is not installed."""
    found = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def device() -> str:
    """The accelerator that JAX runs on, and the host's processor and cores."""
    first = jax.devices()[0]
    return f"{first.platform}: {first.device_kind}; host: {_processor()}, {cores()} cores"


def cores() -> int:
    """Cores of the host that this process may use."""
    known = hasattr(os, "sched_getaffinity")
    return len(os.sched_getaffinity(0)) if known else os.cpu_count() or 1


def commit() -> str:
    """Hash of the checkout that this code runs from, with "+changes" if it was edited or added to.

    Of a copy without a repository, what the environment variable HER_JAX_COMMIT says.
    """
    folder = Path(__file__).resolve().parent
    try:
        _git(folder, "ls-files", "--error-unmatch", Path(__file__).name)  # not a host project's
        head = _git(folder, "rev-parse", "HEAD")
        edited = _git(folder, "status", "--porcelain", "--untracked-files=all", "--", *_CODE)
    except (OSError, subprocess.CalledProcessError):
        return os.environ.get(COMMIT_VARIABLE, UNKNOWN)
    return head + ("+changes" if edited else "")


def command() -> str:
    """The command line of this process, as a shell takes it."""
    return shlex.join(["python", *sys.orig_argv[1:]])


def _git(folder: Path, *words: str) -> str:
    git = shutil.which("git")
    if git is None:
        raise FileNotFoundError("git")
    done = subprocess.run(
        [git, "-C", str(folder), *words],
        capture_output=True,
        text=True,
        check=True,
        close_fds=False,  # spawns instead of forking, which JAX's threads would not survive
    )
    return done.stdout.strip()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()
