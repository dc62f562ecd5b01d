"""What acts of a run, as one file of plain arrays: `policy.npz`.

A checkpoint holds the whole run, goal buffer included; this is the half megabyte that playing
takes. NumPy reads it: parameters, as `learner.average.params.MLP_0.Dense_0.kernel`, the statistics
that normalise what goes in, as `normalizer.mean.goal`, and the checkpoint's plain values, as JSON
under `about`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from her_jax import metrics
from her_jax.errors import UserError
from her_jax.train import TrainState
from her_jax.types import Agent

if TYPE_CHECKING:
    from her_jax.normalizer import NormalizerState

FILE = "policy.npz"

_ABOUT = "about"


class Acting(NamedTuple):
    """What acts of a `TrainState`, by the names that it has there.

    Attributes:
      learner: the agent's state with nothing but what `act` reads.
      normalizer: statistics of observations and goals.
      env_steps: int32 [], steps that it was trained for.
    """

    learner: Any
    normalizer: NormalizerState
    env_steps: jax.Array


def acting(agent: Agent, state: TrainState) -> Acting:
    """What acts of a run."""
    return Acting(agent.acting(state.learner), state.normalizer, state.env_steps)


def save(path: Path, epoch: int, policy: Acting, about: dict[str, Any]) -> None:
    """Writes a file, whole or not at all.

    Args:
      path: of the file, `FILE` in a run folder.
      epoch: after which the policy is.
      policy: what acts.
      about: the plain values that a checkpoint carries.
    """
    arrays = {name: np.asarray(leaf) for name, leaf in _named(policy)}
    text = np.array(json.dumps({"epoch": epoch, **about}))

    def write(path: Path) -> None:
        with path.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **arrays, **{_ABOUT: text})

    metrics.write_whole(path, write)


def load(path: Path, like: Acting, require: Callable[[dict[str, Any]], None]) -> tuple[int, Acting]:
    """Epoch and policy of a file.

    Args:
      path: of the file.
      like: a policy, or its `jax.eval_shape`, of the same configuration.
      require: is given the plain values before the arrays are used, and raises if they do not suit.

    Raises:
      UserError: if the file is damaged or of other networks.
    """
    try:
        arrays = metrics.read_arrays(path)
        about = json.loads(str(arrays.pop(_ABOUT)))
        epoch = int(about["epoch"])
        require(about)
    except (*metrics.DAMAGE, KeyError) as error:
        raise UserError(
            f"policy: {path} does not load ({type(error).__name__}: {error}); restore it"
        ) from None
    named = _named(like)
    for name, leaf in named:
        found = arrays.get(name)
        if found is None or (found.shape, found.dtype) != (leaf.shape, leaf.dtype):
            raise UserError(
                f"policy: {path} has no {name} of shape {leaf.shape} and {leaf.dtype}; use the "
                "configuration that it was trained with"
            )
    leaves = [jnp.asarray(arrays[name]) for name, _ in named]
    return epoch, jax.tree.unflatten(jax.tree.structure(like), leaves)


def _named(tree: Any) -> list[tuple[str, Any]]:
    """Every leaf with its place, as `learner.average.params.MLP_0.Dense_0.kernel`."""
    return [
        (jax.tree_util.keystr(path, simple=True, separator="."), leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    ]
