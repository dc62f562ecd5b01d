"""Saves and restores a whole `TrainState` through Orbax: learner, buffer, statistics, keys.

A checkpoint is complete or absent: Orbax writes to a temporary folder and renames it. Saving is
synchronous, because the next epoch overwrites the donated arrays that a background copy would
still be reading.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from her_jax.errors import UserError, reason
from her_jax.train import TrainState

FOLDER = "checkpoints"


def _manager(folder: Path) -> ocp.CheckpointManager:
    options = ocp.CheckpointManagerOptions(max_to_keep=1, enable_async_checkpointing=False)
    return ocp.CheckpointManager((folder / FOLDER).resolve(), options=options)


def save(folder: Path, epoch: int, state: TrainState, about: dict[str, Any]) -> None:
    """Saves `state` after `epoch`, with a few plain values; the previous checkpoint goes.

    Raises:
      UserError: if there is one of that epoch or a later one, which this process did not write.
    """
    with _manager(folder) as manager:
        saved = manager.save(
            epoch,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(jax.tree.map(_savable, state)),
                about=ocp.args.JsonSave(about),
            ),
        )
    if not saved:
        raise UserError(
            f"checkpoint: {folder} already holds epoch {latest(folder)}, of another process that "
            f"trains there; this one stops at epoch {epoch}"
        )


def latest(folder: Path) -> int | None:
    """Epoch of the latest complete checkpoint of a run folder, None without one."""
    return max(ocp.utils.checkpoint_steps(folder / FOLDER), default=None)


def restore(
    folder: Path, like: TrainState, require: Callable[[dict[str, Any]], None]
) -> tuple[int, TrainState, dict[str, Any]]:
    """The latest checkpoint.

    Args:
      folder: run folder.
      like: a state, or its `jax.eval_shape`, of the same configuration.
      require: is given the plain values before the state is read, and raises if they do not suit.

    Returns:
      Epoch, state, and the plain values saved with it.

    Raises:
      UserError: if there is no checkpoint, or it is damaged or of another shape.
    """
    where = folder / FOLDER
    if not where.is_dir():
        raise UserError(f"checkpoint: {folder} holds none; train again, in a new folder")
    epoch = latest(folder)
    if epoch is None:
        raise UserError(f"checkpoint: {where} is empty; train again, in a new folder")
    try:
        return _read(folder, epoch, like, require)
    except UserError:
        if latest(folder) == epoch:
            raise
        return restore(folder, like, require)  # a run under way has replaced it


def _read(
    folder: Path, epoch: int, like: TrainState, require: Callable[[dict[str, Any]], None]
) -> tuple[int, TrainState, dict[str, Any]]:
    """`restore` of the checkpoint of an epoch."""
    with _manager(folder) as manager:
        about = dict(_restore(manager, folder, epoch, about=ocp.args.JsonRestore())["about"])
        require(about)
        savable = jax.eval_shape(lambda tree: jax.tree.map(_savable, tree), like)
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, savable)
        # Arrays of a device that is not there, a GPU's on a laptop, come to the first one.
        here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        arguments = ocp.args.StandardRestore(abstract, fallback_sharding=here)
        restored = _restore(manager, folder, epoch, state=arguments)
    state = jax.tree.map(lambda x, saved: saved if x.size else _empty(x), like, restored["state"])
    return epoch, state, about


def _savable(x: jax.Array) -> jax.Array:
    """One zero in place of an array without elements, which Orbax refuses."""
    return x if x.size else jnp.zeros(1, x.dtype)


def _empty(x: jax.Array) -> jax.Array:
    return jnp.zeros(x.shape, x.dtype)


def _restore(manager: ocp.CheckpointManager, folder: Path, epoch: int, **items: Any) -> Any:
    try:
        return manager.restore(epoch, args=ocp.args.Composite(**items))
    except Exception as error:  # Orbax and TensorStore raise bare ones for damaged files
        raise UserError(
            f"checkpoint: epoch {epoch} of {folder} does not load ({reason(error)}); "
            "use the configuration and the versions it was trained with"
        ) from error
