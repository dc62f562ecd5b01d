"""The HER audit record: what a run claims, and everything needed to recompute it.

`build` derives a record from the run's saved pieces alone: configuration, checkpoint, held-out
goals. Building it again on the same machine and versions gives the same record, number for number,
and `differences` names what does not agree.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pyarrow as pa

from her_jax import evaluate, metrics, provenance, train
from her_jax.audit import labels, log, measure, programs, relabelling, replay, reward
from her_jax.config import Config
from her_jax.errors import UserError
from her_jax.goal_set import GoalSet
from her_jax.relabel import AUDITED_AS
from her_jax.types import Agent, GoalEnv, Key

JSON = "audit.json"
MARKDOWN = "audit.md"
LOG = "episodes.parquet"

NO_PHYSICS = "none"
"""In place of simulator, model and version where nothing is simulated."""

SECTION = "goal-conditioned reinforcement learning with hindsight experience replay"


@dataclasses.dataclass(frozen=True)
class AuditRecord:
    """One run, audited.

    Attributes:
      section: what kind of claim this is.
      task: environment.
      goal_space: the goal specification.
      relabel_strategy: strategy, the built-in one whose rules it was held to, hash of the file that
        registers it, k, the share of relabelled rows that follows, and how far from the start
        of its episode a goal must lie to be given, which lowers that share.
      reward_recompute_test: the reward test, and the audit of every stored step: rows, violations
        by rule, measured share and, where goals are left out, the expected one. That is None for a
        strategy of the user's own, and absent from older records; `share_within_three_sigma` then
        asks no more than that the share is not above the configured one.
      evaluation: the settings that decide what success means; records are comparable if and only
        if these are equal.
      report_metrics: every figure of `measure`; `requested_goal_success` is the headline.
      costs: channel -> units, sum over an episode, worst step, of the evaluated policy.
      no_action_costs: the same for doing nothing.
      reward_decomposition: objective, safety and exploration, apart.
      failure_labels: label -> evidence; empty for a healthy run.
      warnings: what a reader should know besides.
      hashes: SHA-256 of configuration, stored episodes, parameters and goal set, and the commits
        that trained the run.
      run_id: first 16 digits of a hash of the hashes.
      made_with: versions, device and commit that computed the record; everything else follows from
        the hashed pieces.
    """

    section: str
    task: str
    goal_space: dict[str, Any]
    relabel_strategy: dict[str, Any]
    reward_recompute_test: dict[str, Any]
    evaluation: dict[str, Any]
    report_metrics: dict[str, Any]
    costs: dict[str, Any]
    no_action_costs: dict[str, Any]
    reward_decomposition: dict[str, Any]
    failure_labels: dict[str, list[str]]
    warnings: list[str]
    hashes: dict[str, str]
    run_id: str
    made_with: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Nested plain values."""
        return dataclasses.asdict(self)

    @property
    def clean(self) -> bool:
        """Whether the reward passes its test and no audited row breaks a rule."""
        test = self.reward_recompute_test
        return (
            all(outcome == "pass" for outcome in test["pairs"].values())
            and not test["identity_mismatches"]
            and not any(test["violations"].values())
            and test["share_within_three_sigma"]
        )

    def claims(self) -> dict[str, Any]:
        """What anyone who has the pieces can recompute: all but `made_with`."""
        return {name: value for name, value in self.to_dict().items() if name != "made_with"}

    def as_row(self) -> dict[str, Any]:
        """Flat plain values, nested names joined by dots."""
        return _flat(self.to_dict())


def compute(
    env: GoalEnv, agent: Agent, config: Config, state: train.TrainState, goals: GoalSet
) -> measure.Measured:
    """The one pass behind a record, compiled and run; its random draws are fixed."""
    return programs.measured(env, agent, config, state, goals.starts, _key(0))


def build(
    env: GoalEnv,
    config: Config,
    state: train.TrainState,
    about: dict[str, Any],
    goals: GoalSet,
    measured: measure.Measured,
) -> AuditRecord:
    """The record of a run.

    Args:
      env: the environment that scores it.
      config: settings of the run.
      state: the run's last checkpoint.
      about: the plain values saved with it: commits, and the goal that it was trained for.
      goals: the held-out set.
      measured: what `compute` returned for the same state and goals.
    """
    rows = replay.check_stored(env, config, state.buffer, _key(1))
    test = reward.examine(env)
    figures = _metrics(measured)
    found = _labels(env, state, about, goals, figures, test, rows)
    costs, idle_costs = (_finite(evaluate.costs(env, o)) for o in (measured.outcome, measured.idle))
    hashes = {
        "config": hash_of_config(config),
        "replay": hash_of_arrays(state.buffer.episodes, int(state.buffer.size)),
        "parameters": hash_of_arrays((state.learner, state.normalizer)),
        "goal_set": goals.sha256,
        "code": ", ".join(about["commits"]),
    }
    return AuditRecord(
        section=SECTION,
        task=env.name,
        goal_space=_goal_space(env),
        relabel_strategy={
            "strategy": config.replay.strategy,
            "audited_as": AUDITED_AS[config.replay.strategy],
            "plugin_sha256": about.get("plugin_sha256", ""),
            "k": config.replay.k,
            "share": config.replay.relabel_probability,
            "min_displacement": config.replay.min_displacement,
        },
        reward_recompute_test={
            "pairs": test,
            "identity_mismatches": figures["identity_mismatches"],
            "audited_rows": len(rows.violations["stored"]),
            "violations": {rule: int(bad.sum()) for rule, bad in rows.violations.items()},
            "relabelled_share": rows.share,
            **(
                {"expected_share": None if rows.at_most else rows.expected_share}
                if config.replay.min_displacement > 0
                else {}
            ),
            "share_within_three_sigma": rows.share_holds,
        },
        evaluation=settings(env, goals),
        report_metrics=figures,
        costs=costs,
        no_action_costs=idle_costs,
        reward_decomposition={
            "objective": _finite(evaluate.mean(measured.outcome.reward_sum)),
            "safety": {name: channel["episode_sum"] for name, channel in costs.items()},
            "exploration": figures["exploring_requested_goal_success"]
            - figures["requested_goal_success"],
        },
        failure_labels=found,
        warnings=_warnings(figures, found, rows, measured.outcome),
        hashes=hashes,
        run_id=hashlib.sha256(json.dumps(hashes).encode()).hexdigest()[:16],
        made_with=provenance.versions()
        | {"device": provenance.device(), "commit": provenance.commit()},
    )


def _labels(
    env: GoalEnv,
    state: train.TrainState,
    about: dict[str, Any],
    goals: GoalSet,
    figures: dict[str, Any],
    test: dict[str, str],
    rows: relabelling.Report,
) -> dict[str, list[str]]:
    """Failure labels from the figures and from what is stored."""
    spec = env.goal_spec
    asked = np.asarray(state.buffer.episodes.desired_goal)[: int(state.buffer.size)]
    return labels.label(
        figures,
        tolerance=spec.tolerance,
        reward_test=test,
        reward_violations=rows.broken.get("reward", 0),
        goals_agree=measure.requested_goals_agree(asked, goals.starts.desired_goal, spec.tolerance),
        goal_settings_agree=about["goal"].items() <= evaluate.goal_settings(spec).items(),
    )


def _goal_space(env: GoalEnv) -> dict[str, Any]:
    """The goal specification as plain values."""
    spec = env.goal_spec
    boxes = {"region": spec.region._asdict(), "bounds": spec.bounds._asdict()}
    return json.loads(json.dumps(dataclasses.asdict(spec) | boxes))  # tuples become lists


def physics(judge: GoalEnv, config: Config) -> dict[str, str]:
    """What `summary.json` says of the physics that a run was trained and scored on.

    Args:
      judge: the environment that success is measured on.
      config: settings of the run.
    """
    return {
        "physics": config.env.physics if judge.simulator else NO_PHYSICS,
        "model": config.env.model if judge.simulator else NO_PHYSICS,
        "scored_on": judge.simulator or NO_PHYSICS,
    }


def settings(env: GoalEnv, goals: GoalSet) -> dict[str, Any]:
    """What success means; figures may be compared only where all of this is equal."""
    return {
        "task": env.name,
        "physics": env.simulator or NO_PHYSICS,
        "mujoco": provenance.versions()["mujoco"] if env.simulator else NO_PHYSICS,
        "goal_set": goals.sha256,
        "episodes": goals.episodes,
        "held_out": env.goal_spec.can_be_held_out,
        "steps_per_action": env.steps_per_action,
        **evaluate.goal_settings(env.goal_spec),
        "policy": "deterministic",
    }


def episode_log(
    record: AuditRecord,
    env: GoalEnv,
    config: Config,
    state: train.TrainState,
    measured: measure.Measured,
) -> pa.Table:
    """The steps behind a record, see `log`."""
    about = {
        "failure_labels": list(record.failure_labels),
        "hashes": record.hashes,
        "run_id": record.run_id,
    }
    return log.build(env, config, measured.played, state, _key(2), about)


def write(folder: Path, record: AuditRecord, steps: pa.Table) -> None:
    """Writes `audit.json`, `audit.md` and the episode log into a run folder."""
    log.write(folder / LOG, steps)
    metrics.write_json(folder / JSON, record.to_dict())
    metrics.write_text(folder / MARKDOWN, markdown(record))


def for_summary(record: AuditRecord) -> dict[str, Any]:
    """The part of a record that `summary.json` repeats."""
    figures = record.report_metrics
    return {
        "requested_goal_success": figures["requested_goal_success"],
        "requested_goal_success_any_step": figures["requested_goal_success_any_step"],
        "no_action_success": figures["no_action_success"],
        "costs": record.costs,
        "no_action_costs": record.no_action_costs,
        "failure_labels": list(record.failure_labels),
        "eval_episodes": record.evaluation["episodes"],
        "eval_set": record.evaluation["goal_set"],
        "distance_threshold": record.evaluation["tolerance"],
        "hindsight_ratio": figures["hindsight_ratio"],
        "run_id": record.run_id,
    }


def refresh_summary(folder: Path, record: AuditRecord, simulated: dict[str, str]) -> None:
    """Brings what a finished run's summary repeats of the record, and its `physics`, up to date."""
    path = folder / metrics.SUMMARY
    if path.is_file():
        metrics.write_json(path, metrics.read_json(path) | for_summary(record) | simulated)


def read(folder: Path) -> AuditRecord:
    """The record of a run folder.

    Raises:
      UserError: if it is missing or not complete.
    """
    if not (folder / JSON).is_file():
        raise UserError(f"audit: {folder} holds no {JSON}; run experiments/audit.py {folder}")
    values = metrics.read_json(folder / JSON)
    kinds = {"dict": dict, "list": list, "str": str}
    wanted = {f.name: kinds[str(f.type).partition("[")[0]] for f in dataclasses.fields(AuditRecord)}
    wrong = {*wanted} ^ {*values}
    wrong |= {n for n, kind in wanted.items() if n in values and not isinstance(values[n], kind)}
    if wrong:
        raise UserError(
            f"audit: {folder / JSON} is not a whole record ({', '.join(sorted(wrong))}); "
            "audit the run anew"
        )
    return AuditRecord(**values)


def differences(saved: dict[str, Any], recomputed: dict[str, Any]) -> list[str]:
    """Names every entry in which two (nested) dictionaries differ, with both values."""
    a, b = _flat(saved), _flat(recomputed)
    return [
        f"{name}: {a.get(name, 'absent')} saved, {b.get(name, 'absent')} recomputed"
        for name in sorted({*a, *b})
        if name not in a or name not in b or json.dumps(a[name]) != json.dumps(b[name])
    ]


def require_comparable(records: dict[str, AuditRecord]) -> None:
    """Refuses records whose figures do not mean the same.

    Args:
      records: name -> record.

    Raises:
      UserError: names the first setting that differs, the task before others, and both values.
    """
    (first, reference), *others = records.items()
    for name, record in others:
        fields = {*reference.evaluation, *record.evaluation}
        for field in sorted(fields, key=lambda field: (field != "task", field)):
            ours, theirs = reference.evaluation.get(field), record.evaluation.get(field)
            if ours != theirs:
                raise UserError(
                    f"{field}: {first} was scored with {ours} and {name} with {theirs}; "
                    "their figures are not comparable"
                )


def hash_of_config(config: Config) -> str:
    """SHA-256 of all settings."""
    return hashlib.sha256(json.dumps(config.to_dict(), sort_keys=True).encode()).hexdigest()


def hash_of_arrays(tree: Any, rows: int | None = None) -> str:
    """SHA-256 of a pytree of arrays: names, shapes, types and bits; of the leading `rows` only."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.asarray(leaf)[:rows] if rows is not None else np.asarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {array.shape} {array.dtype}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def markdown(record: AuditRecord) -> str:
    """The record for reading."""
    m, e, relabel = record.report_metrics, record.evaluation, record.relabel_strategy
    test = record.reward_recompute_test
    least = relabel.get("min_displacement", 0.0)  # which older records lack
    expected = test.get("expected_share")  # only where goals are left out
    bound = bool(least) and expected is None
    goals = "held-out goals" if e.get("held_out", True) else "goals, too few to hold any out"
    when = "at any step" if e["scored_at"] == "any step" else "at the last step"
    violations = {rule: count for rule, count in test["violations"].items() if count}
    lines = [
        f"# Audit of {record.task}, run {record.run_id}",
        "",
        f"**Success on requested goals: {m['requested_goal_success']:.3f}** "
        f"({e['goal']} within {e['tolerance']:g} {e['units']} {when}, "
        f"{e['episodes']} {goals}; doing nothing: {m['no_action_success']:.3f}).",
        "",
        f"Failure labels: {', '.join(record.failure_labels) or 'none'}.",
        *(f"- {name}: {line}" for name, all_ in record.failure_labels.items() for line in all_),
        *(f"- Warning: {warning}" for warning in record.warnings),
        "",
        "| cost | units | sum of an episode | worst step | doing nothing: sum | worst step |",
        "|---|---|---|---|---|---|",
        *(
            f"| {name} | {c['units']} | {_show(c['episode_sum'])} | {_show(c['worst_step'])} | "
            f"{_show(record.no_action_costs[name]['episode_sum'])} | "
            f"{_show(record.no_action_costs[name]['worst_step'])} |"
            for name, c in record.costs.items()
        ),
        "",
        "| relabelling | |",
        "|---|---|",
        f"| strategy | {relabel['strategy']}, k = {relabel['k']:g} |",
        f"| stored steps audited | {test['audited_rows']:,} |",
        f"| violations | {violations or 'none'} |",
        f"| relabelled share | {test['relabelled_share']:.4f} "
        f"(configured {'at most ' if bound else ''}{relabel['share']:.4f}"
        f"{f', {expected:.4f} with goals left out' if least and not bound else ''}; "
        f"{'not above it by' if bound else 'within'} three sigma: "
        f"{'yes' if test['share_within_three_sigma'] else 'no'}) |",
        *(
            [f"| least distance of a goal from the start of its episode | {least:g} |"]
            if least
            else []
        ),
        f"| reward test | {', '.join(f'{k}: {v}' for k, v in test['pairs'].items())} |",
        "",
        "| figure | value |",
        "|---|---|",
        *(f"| {name} | {_show(value)} |" for name, value in m.items()),
        "",
        "| reward | value |",
        "|---|---|",
        f"| objective, sum of an episode | {_show(record.reward_decomposition['objective'])} |",
        "| safety | the costs above; not part of the reward |",
        "| exploration, success of the exploring policy less that of the evaluated one | "
        f"{record.reward_decomposition['exploration']:+.3f} |",
        "",
        f"Scored on {_scored_on(e)}; {record.made_with['device']}; by commit "
        f"`{record.made_with['commit']}`.",
        "",
        *(f"- {name}: `{value}`" for name, value in record.hashes.items()),
    ]
    return "\n".join(lines) + "\n"


def _scored_on(evaluation: dict[str, Any]) -> str:
    """The physics, in words."""
    if evaluation["physics"] == NO_PHYSICS:
        return "no physics, nothing is simulated"
    return f"{evaluation['physics']} physics, MuJoCo {evaluation['mujoco']}"


def _metrics(measured: measure.Measured) -> dict[str, Any]:
    """Plain figures."""
    numbers = {name: np.asarray(value).item() for name, value in measured.numbers.items()}
    outcome = measured.outcome
    return _finite(
        {
            "requested_goal_success": evaluate.mean(outcome.success),
            "requested_goal_success_any_step": evaluate.mean(outcome.success_any),
            "no_action_success": evaluate.mean(measured.idle.success),
            "exploring_requested_goal_success": evaluate.mean(measured.exploring.success),
            "final_distance": evaluate.mean(outcome.distance),
            **numbers,
        }
    )


def _finite(values: Any) -> Any:
    """NaN, a mean over nothing, and infinity become None, which JSON can hold."""
    if isinstance(values, dict):
        return {name: _finite(value) for name, value in values.items()}
    return None if isinstance(values, float) and not math.isfinite(values) else values


def _warnings(
    m: dict[str, Any],
    found: dict[str, list[str]],
    rows: relabelling.Report,
    outcome: evaluate.Outcome,
) -> list[str]:
    warnings = [f"audit: {count} rows break the rule {rule}" for rule, count in rows.broken.items()]
    if not rows.share_holds:
        warnings.append("audit: the relabelled share is not as configured")
    if labels.easier_goals(m):
        given, asked = (m[f"{x}_goal_distance_from_start"] for x in ("relabelled", "requested"))
        warnings.append(
            f"easier goals: relabelled ones lie {given:.3f} from the start, requested ones "
            f"{asked:.3f}; hindsight figures say little about requested goals"
        )
    if m["invalid_goal_share"] > 0:
        warnings.append(f"{m['invalid_goal_share']:.2%} of the achieved goals are out of bounds")
    if labels.low_success(m) and not found:
        hint = "perhaps it needs more training"
        if m["hindsight_ratio"] == 0:
            hint = "no hindsight goal is replayed"
        warnings.append(f"low success that no label explains; {hint}")
    broken = evaluate.mean(outcome.broken)
    if broken:
        warnings.append(f"{broken:.2%} of the evaluation's episodes broke; they count as failed")
    dropped = evaluate.mean(outcome.dropped > 0)
    if dropped:
        warnings.append(f"{dropped:.2%} of the evaluation's episodes lacked room for contacts")
    return warnings


def _key(purpose: int) -> Key:
    """Fixed, so that a record can be recomputed."""
    return jax.random.fold_in(jax.random.key(0x41_55_44), purpose)


def _flat(values: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(values, dict) and values:
        items = {f"{prefix}{k}": v for k, v in values.items()}
    elif isinstance(values, list | tuple) and values:
        items = {f"{prefix}{i}": v for i, v in enumerate(values)}
    else:
        return {prefix.removesuffix("."): values}
    return {k: v for name, item in items.items() for k, v in _flat(item, f"{name}.").items()}


def _show(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else f"{value:,}"
