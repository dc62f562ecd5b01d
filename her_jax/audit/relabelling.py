"""Proves that relabelling changed labels and nothing else, or says which rows broke which rule.

The auditor is given what was stored, the environment's reward, and what a sampler claims to have
made of it. It recomputes everything else by itself, in NumPy and one array at a time, and shares no
code with the sampler. A rule that a sampler breaks in a single row is reported with that row.

    stored        the claimed step lies in a filled row of the buffer and before its end
    physics       observation, action and next observation equal the stored step's
    requested     a row that was not relabelled carries the goal that was requested
    provenance    a relabelled goal was achieved where the strategy may take goals from: in the
                  same episode, strictly later (`future`), at its end (`final`), anywhere in it
                  (`episode`), or anywhere in the buffer (`random`); `future_actual` may also take
                  what any stored episode was asked for. With a minimum displacement, nothing that
                  lies nearer to what the episode had achieved at its start
    reward        the reward is that of the next achieved goal under the row's goal, or of one a
                  unit in the last place nearer or farther, because programs round differently
    finite        every number of the row is finite
    workspace     the goal lies within the given bounds (only where bounds are given)
    terminated    the done flag is that of the row's goal (only where the claim has such flags)
    return        every reward of an n-step return is that of its own next achieved goal under the
                  row's goal (only this project's replay, while it trains with more than one step)

One rule concerns the batch: `share`, the relabelled share lies within three standard deviations of
the expected one: the configured share, or what a minimum displacement leaves of it, which the
stored episodes tell for every built-in strategy. Of a strategy of the user's own they do not, and
the share may then not lie above the configured one. `causes` goes one step further and names the
mistake that explains all rows (of broken `provenance` the first 20,000).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from her_jax.errors import UserError
from her_jax.relabel import AUDITED_AS, STRATEGIES
from her_jax.types import Episode, Moment, Transition

Scorer = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(achieved [B, G], desired [B, G]) -> [B]."""

_IN_EPISODE = {"future": 1.0, "final": 1.0, "episode": 1.0, "future_actual": 0.5}
"""Strategy -> how many of its goals it draws from the step's episode; the rest from any."""

_CHUNK = 20_000  # rows whose whole episodes are held in memory at a time

REASONS = {
    "stored": "the step lies in a row that is not filled, or past the end of its episode",
    "physics": "observation, action or next observation is not the stored one",
    "requested": "not relabelled, but the goal is not the requested one",
    "provenance": "the goal was not achieved where the strategy may take goals from",
    "reward": "the reward is not that of the next achieved goal under the row's goal",
    "finite": "NaN or infinity",
    "workspace": "the goal lies outside the workspace",
    "terminated": "the done flag is not that of the row's goal",
    "return": "a reward of the n-step return is not of the row's goal, or the window is another",
}


class Claim(NamedTuple):
    """What a sampler says it drew: B rows of plain arrays, from any implementation.

    Attributes:
      episode: int [B], the buffer row of each step.
      time: int [B], 0..T-1.
      observation: [B, O].
      action: [B, A].
      next_observation: [B, O].
      desired_goal: [B, G], the goal of the row after relabelling.
      reward: [B].
      relabelled: bool [B], whether the goal was replaced.
      terminated: bool [B], done flags of a task that ends at success; None where nothing ends.
    """

    episode: np.ndarray
    time: np.ndarray
    observation: np.ndarray
    action: np.ndarray
    next_observation: np.ndarray
    desired_goal: np.ndarray
    reward: np.ndarray
    relabelled: np.ndarray
    terminated: np.ndarray | None = None


class Elsewhere(NamedTuple):
    """Goals that a strategy may use for a step of any episode.

    Attributes:
      goals: their bits.
      share: how many of the moments that it draws them from hold one of these.
    """

    goals: frozenset[bytes]
    share: float


class Report(NamedTuple):
    """The outcome.

    Attributes:
      violations: rule that was checked -> bool [B], which rows break it.
      share: relabelled share of the batch.
      chances: [B], how likely each row was to be relabelled.
      at_most: whether these are upper bounds only.
    """

    violations: dict[str, np.ndarray]
    share: float
    chances: np.ndarray
    at_most: bool

    @property
    def expected_share(self) -> float:
        """What the share should be, or the most that it may be."""
        return float(self.chances.mean())

    @property
    def share_holds(self) -> bool:
        """Whether the share is the expected one within three standard deviations, or below.

        And a row, because few expected rows are not distributed normally.
        """
        count = len(self.chances)
        sigma = np.sqrt(np.sum(self.chances * (1 - self.chances))) / count
        slack = 3 * sigma + (1 / count if sigma > 0 else 0)
        above = self.share - self.expected_share
        return bool(above <= slack and (self.at_most or -above <= slack))

    @property
    def clean(self) -> bool:
        """Whether no rule is broken."""
        return self.share_holds and not self.broken

    @property
    def broken(self) -> dict[str, int]:
        """Rule -> number of rows that break it, for rules that are broken."""
        return {rule: int(rows.sum()) for rule, rows in self.violations.items() if rows.any()}

    def reasons(self) -> list[str]:
        """A line for each broken rule: the first row that breaks it, how many do, and why."""
        lines = [
            f"row {int(np.argmax(rows))} ({int(rows.sum())} in all): {rule}: {REASONS[rule]}"
            for rule, rows in self.violations.items()
            if rows.any()
        ]
        if not self.share_holds:
            lines.append(
                f"share: {self.share:.4f} relabelled, beyond three sigma of "
                f"{self.expected_share:.4f}"
            )
        return lines


def check(
    episodes: Episode,
    stored: int,
    claim: Claim,
    *,
    reward: Scorer,
    strategy: str,
    probability: float,
    min_displacement: float = 0.0,
    bounds: tuple[Any, Any] | None = None,
    success: Scorer | None = None,
    elsewhere: Elsewhere | None = None,
) -> Report:
    """Audits one batch.

    Args:
      episodes: what was stored, NumPy arrays [C, ...].
      stored: how many leading rows of it are filled.
      claim: what the sampler returned, [B, ...].
      reward: the environment's own, (achieved [B, G], desired [B, G]) -> [B].
      strategy: one of `relabel.STRATEGIES`.
      probability: configured share of relabelled rows.
      min_displacement: as of `relabel.transition`.
      bounds: lowest and highest goal [G], in the goal's units; None for no such rule.
      success: whether a goal is reached, where the claim has done flags.
      elsewhere: `goals_elsewhere` of the whole buffer, where `episodes` is a part of it.

    Returns:
      For each rule the rows that break it, and the verdict on the share.

    Raises:
      UserError: if the strategy is unknown, the probability is none, or there is nothing to audit.
    """
    if strategy not in STRATEGIES:
        raise UserError(f"strategy: {strategy!r} is unknown; choose one of {', '.join(STRATEGIES)}")
    at_most = AUDITED_AS[strategy] != strategy and min_displacement > 0
    strategy = AUDITED_AS[strategy]
    if not 0 <= probability <= 1:
        raise UserError(f"probability: {probability} does not lie in [0, 1]; give 1 - 1/(1+k)")
    if stored < 1 or len(claim.reward) == 0:
        raise UserError("replay: empty; there is nothing to audit")
    held: Any = episodes  # NumPy arrays, which the annotation of Episode does not say
    horizon = held.action.shape[1]
    inside = (claim.episode >= 0) & (claim.episode < stored)
    inside &= (claim.time >= 0) & (claim.time < horizon)
    episode = np.where(inside, claim.episode, 0)
    time = np.where(inside, claim.time, 0)
    goals = claim.desired_goal
    after = held.achieved_goal[episode, time + 1]
    if elsewhere is None:
        elsewhere = goals_elsewhere(episodes, stored, strategy, min_displacement)
    allowed, share = _in_episode(held, episode, time, goals, strategy, min_displacement)
    if elsewhere.goals:
        allowed |= np.array([goal in elsewhere.goals for goal in _bytes(goals)], bool)
    own_episode = _IN_EPISODE.get(strategy, 0.0)
    share = own_episode * share + (1 - own_episode) * elsewhere.share
    violations = {
        "stored": ~inside,
        "physics": ~(
            _equal(claim.observation, held.observation[episode, time])
            & _equal(claim.action, held.action[episode, time])
            & _equal(claim.next_observation, held.observation[episode, time + 1])
        ),
        "requested": ~claim.relabelled & ~_equal(goals, held.desired_goal[episode]),
        "provenance": claim.relabelled & ~allowed,
        "reward": ~scored(reward, after, goals, claim.reward),
        "finite": ~_finite(claim),
    }
    if bounds is not None:
        lowest, highest = map(np.asarray, bounds)
        violations["workspace"] = ~((goals >= lowest) & (goals <= highest)).all(-1)
    if claim.terminated is not None and success is not None:
        violations["terminated"] = ~scored(success, after, goals, claim.terminated)
    chances = np.full(len(goals), probability) if at_most else probability * share
    return Report(violations, float(np.mean(claim.relabelled)), chances, at_most)


def causes(
    episodes: Episode,
    stored: int,
    claim: Claim,
    report: Report,
    *,
    reward: Scorer,
    min_displacement: float = 0.0,
) -> dict[str, str]:
    """Names the mistake behind each broken rule, where one mistake explains every row.

    Args:
      episodes: as given to `check`.
      stored: as given to `check`.
      claim: as given to `check`.
      report: what `check` returned.
      reward: as given to `check`.
      min_displacement: as given to `check`.

    Returns:
      Rule -> mistake, for `reward`, `provenance` and `physics`; "unknown" where none of the known
      mistakes explains the rows.
    """
    held: Any = jax.tree.map(lambda x: x[:stored], episodes)
    inside = ~report.violations["stored"]
    rows = jax.tree.map(lambda x: x[inside], claim)
    broken = {rule: bad[inside] for rule, bad in report.violations.items()}
    episode, time = rows.episode, rows.time
    before, after = held.achieved_goal[episode, time], held.achieved_goal[episode, time + 1]
    found = {}
    if broken["reward"].any():
        found["reward"] = _cause_of_reward(rows, before, after, held.desired_goal[episode], reward)
    if broken["provenance"].any():
        bad = np.flatnonzero(broken["provenance"])[:_CHUNK]
        found["provenance"] = _cause_of_provenance(
            held, episode[bad], time[bad], rows.desired_goal[bad], min_displacement
        )
    if broken["physics"].any():
        last = (time == held.action.shape[1] - 1)[broken["physics"]]
        found["physics"] = "terminal observation lost" if last.all() else "observation changed"
    return found


def _cause_of_reward(
    rows: Any, before: np.ndarray, after: np.ndarray, requested: np.ndarray, reward: Scorer
) -> str:
    """The first hypothesis under which every reward is right."""
    goals = rows.desired_goal
    hypotheses = {
        "computed from the current achieved goal, not the next": lambda: reward(before, goals),
        "not recomputed after relabelling": lambda: reward(after, requested),
        "arguments swapped": lambda: reward(goals, after),
    }
    for name, recompute in hypotheses.items():
        if np.allclose(rows.reward, np.asarray(recompute()), rtol=1e-5, atol=1e-6):
            return name
    right = np.asarray(reward(after, goals))
    if len(set(rows.reward.tolist())) == 2 and len(set(right.tolist())) == 2:
        hit, expected = rows.reward == rows.reward.max(), right == right.max()
        if (hit == expected).all():
            return "other reward values"
        distance = np.linalg.norm(after - goals, axis=-1)
        if distance[hit].max() <= distance[~hit].min():
            return "tolerance changed"
    return "unknown"


def _cause_of_provenance(
    held: Any, episode: Any, time: Any, goals: np.ndarray, min_displacement: float
) -> str:
    """Where goals that should not have been used were achieved."""
    there = (held.achieved_goal[episode] == goals[:, None]).all(-1)  # [B, T+1]
    far = there & displaced(held.achieved_goal[episode], min_displacement)
    near = goals_of(held.achieved_goal[~displaced(held.achieved_goal, min_displacement)])
    elsewhere = np.array([goal in near for goal in _bytes(goals)], bool)
    if np.where(there.any(-1), ~far.any(-1), elsewhere).all():
        return "goal nearer to the start of its episode than the minimum displacement"
    moments = np.arange(there.shape[1])
    places = {
        "the requested goal, called relabelled": _equal(goals, held.desired_goal[episode]),
        "goal of the current state": there[np.arange(len(time)), time],
        "goal of the last state but one": there[:, -2],
        "goal of an earlier state": (there & (moments <= time[:, None])).any(-1),
        "goal of another time of the episode": there.any(-1),
    }
    for name, rows in places.items():
        if rows.all():
            return name
    known = goals_of(held.achieved_goal) | goals_of(held.desired_goal)
    if all(goal in known for goal in _bytes(goals)):
        return "goal of another episode"
    return "goal that was never achieved"


def row(
    episodes: Episode,
    *,
    time: int,
    goal: Any,
    reward: float,
    episode: int = 0,
    relabelled: bool = True,
) -> Claim:
    """A claim of one row, its physics as stored: what to ask the auditor about by hand.

    Args:
      episodes: what was stored, NumPy arrays [C, ...].
      time: step, 0..T-1.
      goal: [G], the goal that the row is given.
      reward: the reward that it is given.
      episode: row of the buffer.
      relabelled: whether the goal was replaced.
    """
    held: Any = episodes
    return Claim(
        episode=np.array([episode]),
        time=np.array([time]),
        observation=held.observation[[episode], time],
        action=held.action[[episode], time],
        next_observation=held.observation[[episode], time + 1],
        desired_goal=np.asarray(goal, held.achieved_goal.dtype).reshape(1, -1),
        reward=np.array([reward]),
        relabelled=np.array([relabelled]),
    )


def claim(steps: Moment, drawn: Transition, reward: jax.Array) -> Claim:
    """What this project's own sampler says it drew, as plain arrays."""
    return Claim(
        *map(
            np.asarray,
            (
                steps.episode,
                steps.time,
                drawn.observation,
                drawn.action,
                drawn.next_observation,
                drawn.desired_goal,
                reward,
                drawn.relabelled,
            ),
        )
    )


def merge(reports: list[Report]) -> Report:
    """One report of several batches that were checked alike."""
    violations = {
        rule: np.concatenate([report.violations[rule] for report in reports])
        for rule in reports[0].violations
    }
    chances = np.concatenate([report.chances for report in reports])
    sizes = [len(report.chances) for report in reports]
    share = float(np.average([report.share for report in reports], weights=sizes))
    return Report(violations, share, chances, reports[0].at_most)


def goals_elsewhere(
    episodes: Episode,
    stored: int,
    strategy: str,
    min_displacement: float = 0.0,
    among: np.ndarray | None = None,
) -> Elsewhere:
    """The goals that a strategy may use for any step, of `stored` rows of [C, ...].

    Of those that any episode achieved, which are many, only what could be one of `among` [B, G].
    """
    held: Any = episodes
    strategy = AUDITED_AS[strategy]
    if strategy == "random":
        achieved = np.asarray(held.achieved_goal)[:stored]
        far = displaced(achieved, min_displacement)
        given = achieved[far]
        if among is not None:
            given = given[np.isin(given[:, 0], among[:, 0])]
        return Elsewhere(goals_of(given), float(far.mean()))
    if strategy == "future_actual":
        return Elsewhere(goals_of(np.asarray(held.desired_goal)[:stored]), 1.0)
    return Elsewhere(frozenset(), 0.0)


def goals_of(goals: np.ndarray) -> frozenset[bytes]:
    """All goals [..., G] as a set of their bits."""
    return frozenset(_bytes(goals.reshape(-1, goals.shape[-1])))


def displaced(achieved: np.ndarray, min_displacement: float) -> np.ndarray:
    """Which achieved goals of whole episodes [N, T+1, G] may be given, bool [N, T+1].

    Those that lie at least that far from their episode's first, as far as float32 can tell.
    """
    if min_displacement == 0:
        return np.ones(achieved.shape[:2], bool)
    distance = np.linalg.norm(achieved - achieved[:, :1], axis=-1)
    return distance >= min_displacement * (1 - 1e-5)


def _bytes(goals: np.ndarray) -> list[bytes]:
    """Rows [n, G] as n strings of bits, equal where the values are: float64, and -0.0 is 0.0."""
    plain = np.ascontiguousarray(goals.astype(np.float64) + 0.0)
    return plain.view(np.dtype((np.void, plain.itemsize * plain.shape[1])))[:, 0].tolist()


def _in_episode(
    held: Any,
    episode: np.ndarray,
    time: np.ndarray,
    goals: np.ndarray,
    strategy: str,
    min_displacement: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Rows [B] whose goal was achieved where in its episode the strategy may take it from.

    And the share of those moments [B] whose goal may be given.
    """
    if len(goals) > _CHUNK:
        halves = [np.array_split(x, 2) for x in (episode, time, goals)]
        parts = [
            _in_episode(held, e, t, g, strategy, min_displacement)
            for e, t, g in zip(*halves, strict=True)
        ]
        allowed, share = (np.concatenate(part) for part in zip(*parts, strict=True))
        return allowed, share
    achieved = held.achieved_goal[episode]  # [B, T+1, G]
    moments = np.arange(achieved.shape[1])
    places = np.zeros(achieved.shape[:2], bool)
    if strategy in ("future", "future_actual"):
        places = moments > time[:, None]
    elif strategy == "final":
        places[:, -1] = True
    elif strategy == "episode":
        places[:] = True
    allowed = places & displaced(achieved, min_displacement)
    there = (achieved == goals[:, None]).all(-1)
    return (there & allowed).any(-1), allowed.sum(-1) / np.maximum(places.sum(-1), 1)


def scored(
    scorer: Scorer, achieved: np.ndarray, goals: np.ndarray, claimed: np.ndarray
) -> np.ndarray:
    """Rows [B] whose value is the scorer's, as far as numbers of that precision can tell."""
    right = np.isclose(claimed, np.asarray(scorer(achieved, goals)), rtol=1e-5, atol=1e-6)
    if right.all():
        return right
    near = np.isclose(claimed, rounded(scorer, achieved, goals), rtol=1e-5, atol=1e-6)
    return np.any(near, axis=0)


def rounded(scorer: Scorer, achieved: np.ndarray, goals: np.ndarray) -> np.ndarray:
    """The scorer's values [3, B] as is, and for goals achieved a rounding nearer and farther.

    Programs that compute a distance in different orders or precisions may find one on different
    sides of a threshold. Of goals that are no floating-point numbers as they are only, [1, B].
    """
    if achieved.dtype.kind != "f":
        return np.asarray(scorer(achieved, goals))[None]
    a, g = achieved.astype(np.float32), goals.astype(np.float32)
    nudge = rounding(a, g)
    return np.stack([np.asarray(scorer(place, g)) for place in (a, a + nudge, a - nudge)])


def rounding(achieved: Any, goals: Any) -> Any:
    """What float32 may take from or add to g - s, of any shape, towards g; NumPy or JAX arrays.

    A unit in the last place of the larger of both, and two of their difference.
    """
    xp = achieved.__array_namespace__()
    towards, larger = goals - achieved, xp.maximum(abs(achieved), abs(goals))
    unit = xp.nextafter(larger, xp.asarray(xp.inf, dtype=larger.dtype)) - larger
    return unit * xp.sign(towards) + 2 * xp.finfo(larger.dtype).eps * towards


def _equal(claimed: np.ndarray, stored: np.ndarray) -> np.ndarray:
    """Rows [B] in which all numbers are the same."""
    return (claimed == stored).all(-1)


def _finite(claim: Claim) -> np.ndarray:
    """Rows [B] without NaN or infinity."""
    vectors = (claim.observation, claim.action, claim.next_observation, claim.desired_goal)
    return np.isfinite(claim.reward) & np.all([np.isfinite(v).all(-1) for v in vectors], axis=0)
