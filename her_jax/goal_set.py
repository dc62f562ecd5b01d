"""Held-out goals: what every success is measured on, as files with a hash.

A set is a table of starts, one a row: initial state and requested goal, drawn once from keys that
no training seed leads to, and kept as text that restores the float32 values to the bit. The same
file gives the same episodes whatever random generator a later version has. The first line names
task and SHA-256; a file that was edited, or belongs to another task, is refused.
"""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from her_jax.errors import UserError
from her_jax.types import GoalEnv, Key

_HELD_OUT = 0x48_45_52
"""Folded into the key of seed 0: its child number 4,736,338, and training uses the first two."""


SIZE = 1000
"""Starts in each of the sets that come with the environments."""


MOST = 10_000
"""Episodes of a set at most: all of an evaluation are played side by side."""


class GoalSet(NamedTuple):
    """E held-out starts.

    Attributes:
      starts: the environment's `Start`, NumPy float32 fields [E, ...].
      sha256: of task and starts.
    """

    starts: Any
    sha256: str

    @property
    def episodes(self) -> int:
        """E."""
        return len(self.starts.desired_goal)


def standard(env: GoalEnv, episodes: int | None = None) -> GoalSet:
    """The set that published figures are on: the first `episodes` rows of the environment's file.

    An environment without a file gets the starts that its file would be made of. Without a number,
    the whole set.

    Raises:
      UserError: if the file is damaged or has fewer rows, or none or more than `MOST` are asked
        for.
    """
    if env.held_out_file is None:
        return draw(env, SIZE if episodes is None else episodes)
    return load(env, env.held_out_file, episodes)


def held_out_keys(episodes: int, seed: int = 0) -> Key:
    """Keys [E] that no training seed leads to; a longer set begins with the shorter one.

    Args:
      episodes: E.
      seed: another seed gives another set, equally disjoint from training.
    """
    root = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), _HELD_OUT), seed)
    return jax.vmap(functools.partial(jax.random.fold_in, root))(jnp.arange(episodes))


def draw(env: GoalEnv, episodes: int, seed: int = 0) -> GoalSet:
    """A new set from the task's own distribution.

    Raises:
      UserError: if that are none, or more than `MOST`.
    """
    _require_some(episodes)
    if episodes > MOST:
        raise UserError(f"episodes: {episodes} are more than memory should hold; at most {MOST}")
    starts = jax.jit(jax.vmap(env.draw))(held_out_keys(episodes, seed))
    return _named(env, jax.tree.map(np.asarray, starts))


def first(env: GoalEnv, goals: GoalSet, episodes: int) -> GoalSet:
    """The leading rows of a set.

    Raises:
      UserError: if they are none.
    """
    _require_some(episodes)
    return _named(env, jax.tree.map(lambda x: x[:episodes], goals.starts))


def save(env: GoalEnv, goals: GoalSet, path: Path) -> None:
    """Writes a set as CSV.

    Raises:
      UserError: if the file exists or cannot be written.
    """
    names = [
        f"{field}_{i}" for field, x in goals.starts._asdict().items() for i in range(x[0].size)
    ]
    lines = [f"# held-out set of {env.name}, sha256 {goals.sha256}", ",".join(names)]
    lines += [",".join(map(str, row)) for row in _table(goals.starts)]  # shortest exact decimals
    try:
        with path.open("x") as file:
            file.write("\n".join(lines) + "\n")
    except OSError as error:
        raise UserError(f"out: {path} cannot be written ({error}); name a new file") from None


def load(env: GoalEnv, path: Path, episodes: int | None = None) -> GoalSet:
    """Reads a set and checks it.

    Args:
      env: the environment that it must be of.
      path: CSV that `save` wrote.
      episodes: how many of the leading rows; None for all.

    Raises:
      UserError: if the file is missing, damaged, edited, of another task or too short, or no row
        is asked for.
    """
    try:
        title, _, *lines = path.read_text().splitlines()
        table = np.array([line.split(",") for line in lines], np.float32)
    except (OSError, ValueError) as error:
        raise UserError(f"goals: {path} is no held-out set ({error}); make one anew") from None
    starts = _untable(env, table, path)
    whole = _named(env, starts)
    if title != f"# held-out set of {env.name}, sha256 {whole.sha256}":
        raise UserError(
            f"goals: {path} says {title.removeprefix('# ')!r}, but holds {whole.sha256} "
            f"for {env.name}; it was edited or is of another task; make one anew"
        )
    if episodes is not None and episodes > len(table):
        raise UserError(f"episodes: {episodes} asked for; {path} holds {len(table)}")
    return whole if episodes is None else first(env, whole, episodes)


def require_disjoint(goals: GoalSet, trained: np.ndarray) -> None:
    """Refuses an evaluation on goals that training has requested.

    Args:
      goals: the held-out set.
      trained: requested goals [n, G] of training episodes; goals of episodes that a buffer has
        forgotten cannot be compared.

    Raises:
      UserError: if a goal is in both, bit for bit.
    """
    seen = set(map(bytes, np.ascontiguousarray(trained, np.float32)))
    shared = sum(bytes(goal) in seen for goal in np.ascontiguousarray(goals.starts.desired_goal))
    if shared:
        raise UserError(
            f"goals: {shared} of {goals.episodes} held-out goals were requested in training; "
            "evaluate on a set that training never saw"
        )


def _require_some(episodes: int) -> None:
    if episodes < 1:
        raise UserError(f"episodes: {episodes} is not positive; try {SIZE}")


def _named(env: GoalEnv, starts: Any) -> GoalSet:
    table = _table(starts).astype("<f4")
    shape = f"{env.name} {table.shape}".encode()
    return GoalSet(starts, hashlib.sha256(shape + table.tobytes()).hexdigest())


def _table(starts: Any) -> np.ndarray:
    """float32 [E, columns]."""
    return np.concatenate([np.asarray(x, np.float32).reshape(len(x), -1) for x in starts], axis=1)


def _untable(env: GoalEnv, table: np.ndarray, path: Path) -> Any:
    like = jax.eval_shape(env.draw, jax.random.key(0))
    sizes = [x.size for x in like]
    if table.ndim != 2 or table.shape[1] != sum(sizes) or not np.isfinite(table).all():
        raise UserError(
            f"goals: {path} does not hold rows of {sum(sizes)} finite numbers, which {env.name} "
            "needs; make one anew"
        )
    columns = np.split(table, np.cumsum(sizes)[:-1], axis=1)
    fields = (x.reshape(len(table), *one.shape) for x, one in zip(columns, like, strict=True))
    return type(like)(*fields)
