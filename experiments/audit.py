"""Audits a run, or replay data of any library.

`python experiments/audit.py RUN` relabels every stored step of the run's checkpoint as training
does, checks each result, measures every figure in one pass, and writes audit.json, audit.md and
episodes.parquet into the run folder. With `--verify` it writes nothing: it recomputes the saved
record and names every number that differs.

`python experiments/audit.py REPLAY.npz --tolerance 0.05` audits rows that another sampler drew;
docs/audit.md has the format.

Exit status 1 if a rule is broken or a number differs. Chance alone breaks the rule of the share in
three audits of a thousand.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

import launch
from her_jax import goal_set, lock, metrics, policy, provenance, relabel
from her_jax.audit import foreign, log, record, relabelling
from her_jax.config import ReplayConfig
from her_jax.errors import UserError
from her_jax.runner import Run
from her_jax.train import TrainState

_WRITTEN = (record.JSON, record.MARKDOWN, record.LOG, metrics.SUMMARY)


def main(
    path: Annotated[Path, tyro.conf.Positional],
    verify: bool = False,
    strategy: str | None = None,
    k: float | None = None,
    tolerance: float | None = None,
    rewards: tuple[float, float] | None = None,
) -> None:
    """Audit a run folder, or a .npz file of foreign replay data.

    Args:
      path: Run folder, or .npz file in the format of docs/audit.md.
      verify: Recompute the saved record of a run and compare, instead of writing it anew.
      strategy: Of a .npz file: where its sampler may take goals from; default future.
      k: Of a .npz file: relabelled rows for each unchanged one; default 4.
      tolerance: Of a .npz file: success distance.
      rewards: Of a .npz file: paid for missing and for reaching the goal; default -1 0.
    """
    start = time.perf_counter()
    of_a_file = {"strategy": strategy, "k": k, "tolerance": tolerance, "rewards": rewards}
    given = {name: value for name, value in of_a_file.items() if value is not None}
    if path.suffix == ".npz" and verify:
        raise UserError(f"verify: {path} is no run folder; only a run has a record to verify")
    if path.suffix != ".npz" and given:
        raise UserError(f"{', '.join(given)}: for .npz files only; a run is audited with its own")
    if path.suffix == ".npz":
        clean = audit_file(path, **given)
    elif verify:
        clean = verify_run(launch.open_run(path))
    else:
        clean = audit_run(launch.open_run(path))
    launch.status.print(f"{time.perf_counter() - start:.1f} s")
    if not clean:
        sys.exit(1)


def audit_run(run: Run) -> bool:
    """Writes the record of a run; whether no rule is broken.

    Raises:
      UserError: if another MuJoCo would score it than the summary names.
    """
    path = run.folder / metrics.SUMMARY
    summary = metrics.read_json(path) if path.is_file() else {}
    here = provenance.versions()["mujoco"]
    was = summary.get("versions", {}).get("mujoco", here)
    if run.judge.simulator and was != here:
        raise UserError(
            f"versions: {run.folder} was scored with MuJoCo {was}; {here}, which is installed, "
            "would give other figures: install the former, or use evaluate.py"
        )
    with lock.alone(run.folder):
        _, state, about = run.restore()
        goals = goal_set.standard(run.env, run.config.train.eval_episodes)
        with launch.waiting("compiling, then auditing"):
            built = run.audit(state, about, goals)
        simulated = record.physics(run.judge, run.config)
        record.refresh_summary(run.folder, built, simulated)
    test = built.reward_recompute_test
    launch.report(
        {
            "task": built.task,
            "run_id": built.run_id,
            "requested_goal_success": built.report_metrics["requested_goal_success"],
            "no_action_success": built.report_metrics["no_action_success"],
            "failure_labels": list(built.failure_labels),
            "warnings": built.warnings,
            "audited_transitions": test["audited_rows"],
            "violations": test["violations"],
            "relabelled_share": test["relabelled_share"],
            "share_within_three_sigma": test["share_within_three_sigma"],
            "identity_mismatches": test["identity_mismatches"],
            "clean": built.clean,
            "written": [str(path) for path in map(run.folder.joinpath, _WRITTEN) if path.is_file()],
        }
    )
    return built.clean


def verify_run(run: Run) -> bool:
    """Recomputes every number of a run's record; whether all agree."""
    saved = record.read(run.folder)
    epoch, state, about = run.restore()
    goals = goal_set.standard(run.env, run.config.train.eval_episodes)
    with launch.waiting("compiling, then recomputing"):
        rebuilt, steps = run.measure(state, about, goals)
    logged, written = log.read(run.folder / record.LOG), run.folder / record.MARKDOWN
    text = record.markdown(dataclasses.replace(rebuilt, made_with=saved.made_with))
    found = {
        record.JSON: record.differences(saved.claims(), rebuilt.claims()),
        record.LOG: record.differences(
            {
                "rows": len(logged),
                "equal": log.equal(logged, steps),
                "reached": log.success(logged),
            },
            {
                "rows": len(steps),
                "equal": True,
                "reached": rebuilt.report_metrics["requested_goal_success"],
            },
        ),
        record.MARKDOWN: []
        if written.is_file() and written.read_bytes() == text.encode()
        else ["the text is not the record's"],
        metrics.SUMMARY: _summary_differences(run, rebuilt, epoch, int(state.env_steps)),
        policy.FILE: _policy_differences(run, epoch, state),
    }
    lines = [f"{file}: {line}" for file, all_ in found.items() for line in all_]
    launch.report(
        {
            "run_id": saved.run_id,
            "compared": sum(not name.startswith("made_with.") for name in rebuilt.as_row()),
            "differences": lines,
            "verified": not lines,
        }
    )
    return not lines


def _summary_differences(
    run: Run, rebuilt: record.AuditRecord, epoch: int, env_steps: int
) -> list[str]:
    """What the summary says otherwise than the recomputed record."""
    if not (run.folder / metrics.SUMMARY).is_file():
        return []
    summary = metrics.read_json(run.folder / metrics.SUMMARY)
    config = run.config
    recomputed = record.for_summary(rebuilt) | {
        "task": config.env.task,
        "seed": config.seed,
        **record.physics(run.judge, config),
        "reward": config.env.reward,
        "env_steps": env_steps,
        "updates": epoch * config.train.cycles_per_epoch * config.train.updates_per_cycle,
        "commit": rebuilt.hashes["code"],
    }
    return record.differences({name: summary.get(name) for name in recomputed}, recomputed)


def _policy_differences(run: Run, epoch: int, state: TrainState) -> list[str]:
    """What the policy file, which older runs lack, has otherwise than the checkpoint."""
    if not (run.folder / policy.FILE).is_file():
        return []
    try:
        saved = run.restore_policy()
    except UserError as error:
        return [str(error)]
    expected = epoch, policy.acting(run.agent, state)
    return record.differences(
        *({"epoch": at, "arrays": record.hash_of_arrays(acts)} for at, acts in (saved, expected))
    )


def audit_file(
    path: Path,
    strategy: str = "future",
    k: float = 4.0,
    tolerance: float | None = None,
    rewards: tuple[float, float] = (-1.0, 0.0),
) -> bool:
    """Audits foreign replay data with a sparse reward; whether no rule is broken."""
    replay = foreign.load(path)
    if tolerance is None:
        raise UserError("tolerance: not given; name the task's success distance, e.g. 0.05")
    if strategy not in relabel.STRATEGIES:
        known = ", ".join(relabel.STRATEGIES)
        raise UserError(f"strategy: {strategy!r} is unknown; choose one of {known}")
    if not 0 < tolerance < np.inf or not rewards[0] < rewards[1]:
        raise UserError(
            f"tolerance, rewards: {tolerance}, {rewards}; give a positive tolerance, and a reward "
            "for missing below that for reaching"
        )
    probability = ReplayConfig(strategy=strategy, k=k).relabel_probability
    episodes = len(np.asarray(replay.episodes.desired_goal))

    def reward(achieved: np.ndarray, desired: np.ndarray) -> np.ndarray:
        reached = np.linalg.norm(achieved - desired, axis=-1) <= tolerance
        return np.where(reached, rewards[1], rewards[0])

    report = relabelling.check(
        replay.episodes,
        episodes,
        replay.claim,
        reward=reward,
        strategy=strategy,
        probability=probability,
        success=lambda achieved, desired: reward(achieved, desired) == rewards[1],
    )
    mismatches = foreign.identity_mismatches(replay, reward)
    found: dict[str, Any] = {
        "rows": len(replay.claim.reward),
        "violations": {rule: int(bad.sum()) for rule, bad in report.violations.items()},
        "reasons": [
            *report.reasons(),
            *([f"{mismatches} stored rewards are not the environment's"] if mismatches else []),
        ],
        "causes": relabelling.causes(
            replay.episodes, episodes, replay.claim, report, reward=reward
        ),
        "identity_mismatches": mismatches,
        "relabelled_share": report.share,
        "configured_share": probability,
        "clean": report.clean and not mismatches,
    }
    launch.report(found)
    return found["clean"]


if __name__ == "__main__":
    launch.command(main)
