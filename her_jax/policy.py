"""What acts of a run, as one file of plain arrays: `policy.npz`.

A checkpoint holds the whole run, goal buffer included; this is the half megabyte that playing
takes. NumPy reads it: an array for each parameter, as `learner.average.params.Dense_0.kernel`, the
normalisation of what goes in, as `normalizer.mean.goal`, and the checkpoint's plain values, as JSON
under `about`.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from her_jax import metrics
from her_jax.errors import UserError
from her_jax.train import TrainState
from her_jax.types import Agent

FILE = "policy.npz"

_ABOUT = "about"
_DAMAGE = (
    *(OSError, ValueError, KeyError, TypeError, EOFError, NotImplementedError),
    *(zipfile.BadZipFile, zlib.error),
)


def only(agent: Agent, state: TrainState) -> TrainState:
    """The state with nothing but what acts, and the steps that it was trained for."""
    nothing: Any = None
    return TrainState(
        learner=agent.acting(state.learner),
        normalizer=state.normalizer,
        buffer=nothing,
        key=nothing,
        env_steps=state.env_steps,
    )


def save(folder: Path, epoch: int, state: TrainState, about: dict[str, Any]) -> None:
    """Writes the file into a run folder, whole or not at all.

    Args:
      folder: of the run.
      epoch: after which the state is.
      state: what `only` returned.
      about: the plain values that a checkpoint carries.
    """
    arrays = {name: np.asarray(leaf) for name, leaf in _named(state)}
    text = np.array(json.dumps({"epoch": epoch, **about}))

    def write(path: Path) -> None:
        with path.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **arrays, **{_ABOUT: text})

    metrics.write_whole(folder / FILE, write)


def load(
    folder: Path, like: TrainState, require: Callable[[dict[str, Any]], None]
) -> tuple[int, TrainState]:
    """Epoch and state of the file of a run folder.

    Args:
      folder: of the run.
      like: a state as `only` returns it, or its `jax.eval_shape`, of the same configuration.
      require: is given the plain values before the arrays are used, and raises if they do not suit.

    Raises:
      UserError: if the file is damaged or of other networks.
    """
    path = folder / FILE
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
        about = json.loads(str(arrays.pop(_ABOUT)))
        epoch = int(about["epoch"])
    except _DAMAGE as error:
        raise UserError(
            f"policy: {path} does not load ({type(error).__name__}: {error}); restore it"
        ) from None
    require(about)
    named = _named(like)
    for name, leaf in named:
        found = arrays.get(name, np.zeros(()))
        if name not in arrays or (found.shape, found.dtype) != (leaf.shape, leaf.dtype):
            raise UserError(
                f"policy: {path} has no {name} of shape {leaf.shape} and {leaf.dtype}; use the "
                "configuration that it was trained with"
            )
    leaves = [jnp.asarray(arrays[name]) for name, _ in named]
    return epoch, jax.tree.unflatten(jax.tree.structure(like), leaves)


def _named(tree: Any) -> list[tuple[str, Any]]:
    """Every leaf with its place, as `learner.average.params.Dense_0.kernel`."""
    return [
        (jax.tree_util.keystr(path, simple=True, separator="."), leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    ]
