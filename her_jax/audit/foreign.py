"""Reads replay data of other libraries, so that `relabelling.check` can audit them too.

The plain array format is one `.npz` file with these arrays: what was stored,

    observation [C, T+1, O]   achieved_goal [C, T+1, G]   desired_goal [C, G]   action [C, T, A]
    reward [C, T]             what the environment paid while playing; may be absent

and what a sampler made of it, rows in any order,

    claim_episode [B]    claim_time [B]       claim_observation [B, O]   claim_action [B, A]
    claim_reward [B]     claim_relabelled [B] claim_desired_goal [B, G]
    claim_next_observation [B, O]             claim_terminated [B], absent where nothing ends

Stable-Baselines3's `HerReplayBuffer` is read in memory; the package itself is not needed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from her_jax import metrics
from her_jax.audit.relabelling import Claim, Scorer, scored
from her_jax.errors import UserError
from her_jax.types import Episode

_FIELDS = (
    *("observations", "next_observations", "actions", "rewards", "ep_start", "ep_length"),
    "sample",
)
_STORED = ("observation", "achieved_goal", "desired_goal", "action")


class Foreign(NamedTuple):
    """Replay data of any origin, as NumPy arrays.

    Attributes:
      episodes: all filled, [C, ...]; costs are empty, [C, T, 0].
      claim: rows of a sampler.
      reward: [C, T], as the environment paid; None where it was not stored.
    """

    episodes: Episode
    claim: Claim
    reward: np.ndarray | None


def load(path: Path) -> Foreign:
    """Reads the plain array format.

    Raises:
      UserError: if the file is missing or damaged, a field is missing or misshapen, a stored goal
        is not finite, or there is nothing in it.
    """
    try:
        arrays = metrics.read_arrays(path)
    except metrics.DAMAGE as error:
        reason = "it holds no plain arrays" if "pickle" in str(error) else error
        raise UserError(f"replay: {path} is no .npz file ({reason}); see docs/audit.md") from None
    claimed = [f"claim_{name}" for name in Claim._fields if name != "terminated"]
    missing = [name for name in (*_STORED, *claimed) if name not in arrays]
    if missing:
        raise UserError(f"replay: {path} lacks {', '.join(missing)}; see docs/audit.md")
    unknown = [n for n in arrays if n not in (*_STORED, *claimed, "reward", "claim_terminated")]
    if unknown:
        raise UserError(f"replay: {path} holds unknown {', '.join(unknown)}; see docs/audit.md")
    claim = Claim(**{name: arrays.get(f"claim_{name}") for name in Claim._fields})  # type: ignore
    return _checked(arrays, claim, arrays.get("reward"))


def stable_baselines3(buffer: Any, rows: int) -> Foreign:
    """Reads a `HerReplayBuffer` and draws rows from it.

    Rows are drawn by the buffer's own `sample` and found again in storage by observation, action
    and next observation; a row that is not found is given episode -1, and one that several stored
    steps could be is taken for one that its goal suits, if there is such a step. A row counts as
    relabelled if its goal is not the requested one. Done flags are not read.

    Args:
      buffer: of stable-baselines3 2.x, with whole episodes of one length.
      rows: how many to draw.

    Raises:
      UserError: if fields are missing, there is no whole episode, or lengths differ.
    """
    for field in _FIELDS:
        if not hasattr(buffer, field):
            raise UserError(
                f"replay: {type(buffer).__name__} lacks {field}; give a HerReplayBuffer"
            )
    capacity = buffer.actions.shape[0]
    begins = np.argwhere((buffer.ep_start == np.arange(capacity)[:, None]) & (buffer.ep_length > 0))
    if not len(begins):
        raise UserError("replay: the buffer holds no whole episode; play one first")
    lengths = {int(buffer.ep_length[at, env]) for at, env in begins}
    if len(lengths) > 1:
        raise UserError(
            f"replay: episodes of {min(lengths)} to {max(lengths)} steps; give them one length"
        )
    at = (begins[:, :1] + np.arange(lengths.pop())) % capacity  # [C, T]
    env = begins[:, 1:]

    def states(name: str) -> np.ndarray:
        first, last = buffer.observations[name][at, env], buffer.next_observations[name][at, env]
        return np.concatenate([first, last[:, -1:]], axis=1)

    stored = {
        "observation": states("observation"),
        "achieved_goal": states("achieved_goal"),
        "desired_goal": buffer.observations["desired_goal"][at[:, 0], env[:, 0]],
        "action": buffer.actions[at, env],
    }
    sample = buffer.sample(rows)
    drawn = {
        "observation": _plain(sample.observations["observation"]),
        "action": _plain(sample.actions),
        "next_observation": _plain(sample.next_observations["observation"]),
        "desired_goal": _plain(sample.observations["desired_goal"]),
        "reward": _plain(sample.rewards)[:, 0],
    }
    episode, time = _find(stored, drawn)
    asked = stored["desired_goal"][episode]
    claim = Claim(
        episode=episode,
        time=time,
        relabelled=(drawn["desired_goal"] != asked).any(-1),
        **drawn,
    )
    return _checked(stored, claim, buffer.rewards[at, env])


def identity_mismatches(replay: Foreign, reward: Scorer) -> int:
    """Stored steps whose reward is not that of the next achieved under the requested goal."""
    if replay.reward is None:
        return 0
    after = np.asarray(replay.episodes.achieved_goal)[:, 1:]
    goals = np.broadcast_to(np.asarray(replay.episodes.desired_goal)[:, None], after.shape)
    size = after.shape[-1]
    rows = after.reshape(-1, size), goals.reshape(-1, size), replay.reward.reshape(-1)
    return int((~scored(reward, *rows)).sum())


def _checked(arrays: dict[str, np.ndarray], claim: Claim, reward: Any) -> Foreign:
    """Assembles the parts if their shapes, types and stored goals allow an audit."""
    observation, achieved, desired, action = (arrays[name] for name in _STORED)
    claimed = {f"claim_{k}": v for k, v in claim._asdict().items() if v is not None}
    ranks = dict(zip(_STORED, (3, 3, 2, 3), strict=True)) | dict.fromkeys(claimed, 1)
    ranks |= {name: 2 for name in claimed if name.endswith(("observation", "action", "goal"))}
    given = {**arrays, **claimed}
    if reward is not None:
        given["reward"], ranks["reward"] = reward, 2
    for name, rank in ranks.items():
        if given[name].ndim != rank or given[name].dtype.kind not in "biuf":
            kind = f"{given[name].dtype} array of {given[name].ndim} axes"
            raise UserError(f"replay: {name} is a {kind}; expected numbers on {rank} axes")
    for name in ("claim_episode", "claim_time"):
        if given[name].dtype.kind not in "iu":
            raise UserError(f"replay: {name} holds {given[name].dtype}; expected integers")
    if achieved.size == 0 or action.size == 0 or len(claim.reward) == 0:
        raise UserError("replay: empty; there is nothing to audit")
    count, steps, rows = len(achieved), action.shape[1], len(claim.reward)
    wide = {
        "observation": observation.shape[2],
        "goal": desired.shape[1],
        "action": action.shape[2],
    }
    expected = {
        "observation": (count, steps + 1, wide["observation"]),
        "achieved_goal": (count, steps + 1, wide["goal"]),
        "desired_goal": (count, wide["goal"]),
        "action": (count, steps, wide["action"]),
        **{name: (rows,) if ranks[name] == 1 else (rows, _width(name, wide)) for name in claimed},
    }
    if reward is not None:
        expected["reward"] = (count, steps)
    for name, shape in expected.items():
        found = given[name].shape
        if found != shape:
            raise UserError(f"replay: {name} has shape {found}; expected {shape}")
    for name in ("achieved_goal", "desired_goal"):
        bad = ~np.isfinite(arrays[name]).reshape(count, -1).all(1)
        if bad.any():
            raise UserError(f"replay: {name} of episode {int(np.argmax(bad))} is not finite")
    if not np.isin(claim.relabelled, (0, 1)).all():
        raise UserError("replay: claim_relabelled holds other values than 0 and 1")
    observation = _as_precise_as(observation, claim.observation)
    achieved, desired = (_as_precise_as(x, claim.desired_goal) for x in (achieved, desired))
    action = _as_precise_as(action, claim.action)
    episodes: Any = (observation, achieved, desired, action, np.zeros((count, steps, 0)))
    claim = claim._replace(
        episode=claim.episode.astype(np.int64),  # small integers would overflow
        time=claim.time.astype(np.int64),
        relabelled=claim.relabelled == 1,
    )
    return Foreign(Episode(*episodes), claim, reward)


def _as_precise_as(stored: np.ndarray, claimed: np.ndarray) -> np.ndarray:
    """Storage in the rows' floating-point precision; what rows have cut to integers stays wrong."""
    return stored.astype(claimed.dtype) if claimed.dtype.kind == "f" else stored


def _width(name: str, wide: dict[str, int]) -> int:
    """Last axis of a claimed vector."""
    return next(size for kind, size in wide.items() if name.endswith(kind))


def _find(
    stored: dict[str, np.ndarray], drawn: dict[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Episode and time [B] of rows by the bits of (s, a, s'); episode -1 where there is none."""
    keys = np.concatenate(
        [stored["observation"][:, :-1], stored["action"], stored["observation"][:, 1:]], axis=-1
    )
    known: dict[bytes, list[tuple[int, int]]] = {}
    for episode, time in np.ndindex(keys.shape[:2]):
        known.setdefault(keys[episode, time].tobytes(), []).append((episode, time))
    parts = [drawn[name] for name in ("observation", "action", "next_observation")]
    rows = np.concatenate(parts, axis=-1).astype(keys.dtype)

    def suits(place: tuple[int, int], goal: np.ndarray) -> bool:
        episode, time = place
        later = stored["achieved_goal"][episode, time + 1 :]
        return bool(
            (stored["desired_goal"][episode] == goal).all() or (later == goal).all(-1).any()
        )

    found = []
    for row, goal in zip(rows, drawn["desired_goal"], strict=True):
        places = known.get(row.tobytes(), [(-1, 0)])
        suited = (place for place in places if len(places) > 1 and suits(place, goal))
        found.append(next(suited, places[0]))
    episode, time = np.array(found).T
    return episode, time


def _plain(tensor: Any) -> np.ndarray:
    """A tensor of any library as NumPy."""
    return tensor.detach().cpu().numpy() if hasattr(tensor, "detach") else np.asarray(tensor)
