"""Why a run failed: four labels, each with the evidence that produced it.

    reward_recompute_bug              the reward of a row is not the environment's for its goal
    evaluation_distribution_mismatch  success is measured on other goals, or by another rule, than
                                      training pursued
    exploration_failure               the requested goals are out of the data's reach: what is to be
                                      moved hardly moves, or few cells of the goal region are met
    goal_representation_failure       the achieved goal does not say what is asked for: it jitters
                                      at rest, or the policy reaches hindsight goals on purpose
                                      and still misses the requested ones, which the data covers

A bug of the reward explains a low success by itself, so evidence that rests on low success is
withheld while it is there; a goal that jitters or is not grounded is named beside it. A healthy run
has no label, and neither has one that has merely not been trained for long enough: `low_success`
says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LABELS = (
    "reward_recompute_bug",
    "evaluation_distribution_mismatch",
    "exploration_failure",
    "goal_representation_failure",
)

LOW_SUCCESS = 0.5
"""Below this, success on requested goals asks for an explanation."""

LOW_MOVED_RATE = 0.25
"""Below this share of episodes in which the achieved goal moves, exploration is blamed."""

LOW_COVERAGE = 0.25
"""Below this share of met cells of the requested region, exploration is blamed."""

HIGH_REACHED = 0.5
"""From this share on, the policy counts as reaching hindsight goals on purpose."""


def label(
    metrics: Mapping[str, Any],
    *,
    tolerance: float,
    reward_test: Mapping[str, str],
    reward_violations: int,
    goals_agree: bool,
    goal_settings_agree: bool,
) -> dict[str, list[str]]:
    """The labels of a run.

    Args:
      metrics: figures of `measure`, as in the audit record.
      tolerance: success distance, in the goal's units.
      reward_test: outcome of `reward.examine`.
      reward_violations: audited rows that broke the rule `reward`.
      goals_agree: whether training and held-out goals pass a two-sample test.
      goal_settings_agree: whether the run was trained for the goal that it is scored on.

    Returns:
      Label -> evidence, one line each; empty for a run without a label.
    """
    found = {
        "reward_recompute_bug": _reward(metrics, reward_test, reward_violations),
        "evaluation_distribution_mismatch": _mismatch(goals_agree, goal_settings_agree),
    }
    low = low_success(metrics) and not found["reward_recompute_bug"]
    found["exploration_failure"] = _exploration(metrics) if low else []
    explained = bool(found["exploration_failure"])
    found["goal_representation_failure"] = _representation(
        metrics, reward_test, tolerance, low and not explained
    )
    return {name: found[name] for name in LABELS if found[name]}


def low_success(metrics: Mapping[str, Any]) -> bool:
    """Whether success on requested goals is below `LOW_SUCCESS`."""
    return metrics["requested_goal_success"] < LOW_SUCCESS


def easier_goals(metrics: Mapping[str, Any]) -> bool:
    """Whether hindsight goals lie less than half as far from the start as the requested ones."""
    given = metrics["relabelled_goal_distance_from_start"]
    asked = metrics["requested_goal_distance_from_start"]
    return given is not None and asked is not None and given < 0.5 * asked


def _reward(metrics: Mapping[str, Any], test: Mapping[str, str], violations: int) -> list[str]:
    evidence = []
    if metrics["identity_mismatches"] > 0:
        evidence.append(
            f"{metrics['identity_mismatches']} rows with an unchanged goal are not paid what the "
            "environment pays"
        )
    if violations:
        evidence.append(f"{violations} audited rows are not paid for their next achieved goal")
    evidence += [
        f"reward test {name!r}: {outcome}"
        for name, outcome in test.items()
        if outcome != "pass" and name != "grounded"
    ]
    return evidence


def _mismatch(goals_agree: bool, settings_agree: bool) -> list[str]:
    evidence = []
    if not settings_agree:
        evidence.append("goal, units, tolerance or what counts are not those of training")
    if not goals_agree:
        evidence.append("training and held-out goals fail a two-sample test at 0.001")
    return evidence


def _exploration(metrics: Mapping[str, Any]) -> list[str]:
    evidence = []
    if _below(metrics["moved_rate"], LOW_MOVED_RATE):
        evidence.append(
            f"the achieved goal left its start in {metrics['moved_rate']:.1%} of the episodes"
        )
    if _below(metrics["goal_coverage"], LOW_COVERAGE):
        evidence.append(
            f"{metrics['goal_coverage']:.1%} of the cells of the requested region were met"
        )
    return evidence


def _below(figure: float | None, limit: float) -> bool:
    """Whether a figure that was measured is too low."""
    return figure is not None and figure < limit


def _representation(
    metrics: Mapping[str, Any], test: Mapping[str, str], tolerance: float, unexplained: bool
) -> list[str]:
    evidence = []
    jitter = metrics["static_goal_jitter"]
    if jitter is None:
        evidence.append("the achieved goal of a state at rest is not a number")
    elif jitter > tolerance / 2:
        evidence.append(
            f"the achieved goal of a state at rest jitters by {jitter:.3g} "
            f"a step, more than half the tolerance of {tolerance:g}"
        )
    if test["grounded"] != "pass":
        evidence.append(f"reward test 'grounded': {test['grounded']}")
    reached = metrics["recommanded_goal_reached"]
    tells = unexplained and not easier_goals(metrics)  # near ones are reached before far ones
    if tells and reached is not None and reached >= HIGH_REACHED:
        evidence.append(
            f"exploration is not known to be at fault, and {reached:.1%} of hindsight goals are "
            f"reached on purpose, but {metrics['requested_goal_success']:.1%} of the requested ones"
        )
    return evidence
