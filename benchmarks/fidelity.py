"""How faithful a physics backend and model are to the original, on one task after the other.

    python benchmarks/fidelity.py --physics warp --model stock [--runs runs/RUN ...] [--smoke]

The reference is the `native` backend with the stock model, which the tests prove equal to
Gymnasium-Robotics' Fetch v4, float64 joint positions included. Compared are

    one step    from states of native episodes: error of gripper and object after 40 ms; from states
                rebuilt from joint positions and velocities alone, which lack the pose that the next
                mocap target starts from; and from whole states, of models with the stock joints,
                rounded to float32 for `native` too, as a control: what rounding alone costs
    coasting    how far FetchSlide's puck then slides, the hand off it; of the stock model only
    stages      what one step of 2 ms derives, and where it ends, from whole native states (levels 1
                and 2 of MuJoCo's own parity test); of the stock model on Warp, and in pure JAX of
                its model, against C with the same one
    episodes    of equal starts and scripts: resets, rest, how far a struck puck slides, lifts
    transfer    success of trained policies (`--runs`) on equal held-out goals on both

Half of the native episodes have random actions, half are scripted to push, strike or grasp.
`--recorded FOLDER` takes the states of recorded episodes of the original instead, and plays
nothing. Results are written as they come, to runs/benchmarks/fidelity-PHYSICS-MODEL.json unless
`--out`; what the same commit has measured of other tasks stays in the file.
"""

# pyright: reportAttributeAccessIssue=false
# MuJoCo's bindings are compiled and come without type stubs.

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

import harness
import her_envs
import launch
import record
from her_envs.fetch import model as scenes
from her_envs.fetch.tasks import TASKS
from her_envs.physics.base import Scene
from her_envs.physics.mjx import COMPARED, Mjx
from her_envs.physics.native import Native, NativeState, bits, floats
from her_jax import evaluate, goal_set, metrics, rollout
from her_jax.config import EnvConfig
from her_jax.errors import UserError
from her_jax.runner import Run
from her_jax.types import Episode, GoalObs

TOLERANCES = {
    "xpos": (1e-5, 1e-4),
    "xquat": (1e-5, 1e-4),
    "site_xpos": (1e-5, 1e-4),
    "qfrc_bias": (1e-3, 1e-3),
    "qfrc_passive": (1e-3, 1e-3),
    "qacc_smooth": (1e-2, 1e-3),
    "qfrc_constraint": (1e-1, 1e-2),
    "qacc": (1e-1, 1e-2),
}
"""Absolute and relative tolerance of each stage in MuJoCo's parity test, level 1."""

_SUCCESS = "requested_goal_success"
_MEASURED = ("task", "physics", "model", "states")
"""What a row is of."""


def main(
    physics: str = "warp",
    model: str = "stock",
    tasks: tuple[str, ...] = tuple(TASKS),
    native_episodes: int = 20,
    episodes: int = 100,
    runs: tuple[Path, ...] = (),
    policy_episodes: int = 200,
    recorded: Path | None = None,
    table: bool = False,
    smoke: bool = False,
    out: Path | None = None,
) -> None:
    """Compare a backend and model with the original.

    Args:
      physics: Backend.
      model: Model.
      tasks: Environments.
      native_episodes: Native episodes whose states are stepped once.
      episodes: Scripted episodes on both.
      runs: Run folders of trained policies, scored on both.
      policy_episodes: Held-out goals of a policy.
      recorded: Folder of recorded episodes of the original (benchmarks/record.py), to take their
        states instead of those of native episodes, and to play nothing; rows have its name.
      table: Print the tables of all committed results of these tasks, whatever the backend and the
        model, and measure nothing.
      smoke: A tiny run that only shows that everything works.
      out: Results file.
    """
    tasks = harness.fetch_tasks(tasks)
    if table:
        for name, value in {"runs": runs, "recorded": recorded, "out": out}.items():
            if value:
                raise UserError(f"{name}: --table measures nothing; leave one of them out")
        rows = [row for row in committed() if row["task"] in tasks]
        print(markdown(rows), stages_markdown(rows), sep="\n\n")
        return
    if smoke:
        tasks, native_episodes, episodes, policy_episodes = tasks[:1], 2, 2, 2
    harness.require_positive(
        native_episodes=native_episodes, episodes=episodes, policy_episodes=policy_episodes
    )
    if recorded and runs:
        raise UserError("runs: policies play no recorded episodes; leave --recorded out")
    states = recorded.resolve().name if recorded else "played"
    name = f"fidelity-{physics}-{model}" + (f"-{states}" if recorded else "")
    path = harness.results_file(name, out, smoke, continues=True)
    opened = {run: launch.open_run(run) for run in runs}
    for folder, run in opened.items():
        require_plain(folder, run, tasks)
    compared = {
        task: (her_envs.make(task), her_envs.make(task, physics=physics, model=model))
        for task in tasks
    }
    rows = harness.continued("fidelity", path)
    for task, (native, other) in compared.items():
        row: dict[str, Any] = {"task": task, "physics": physics, "model": model, "states": states}
        before = [old for old in rows if all(old[name] == row[name] for name in _MEASURED)]
        steps = from_file(native, recorded) if recorded else played(native, native_episodes)
        row |= one_step(native, other, steps)
        if task == "FetchSlide" and model == "stock":
            row["coasting"] = coasting(native, other, steps)
        if physics == "warp" and model == "stock":
            row["stages"] = stages(native, other.physics, floats(steps.physics.row))
        if physics == "jax" and not recorded:
            alike = her_envs.make(task, physics="native", model=model)
            own = floats(played(alike, native_episodes).physics.row)
            row["stages"] = stages(alike, other.physics, own)
        if not recorded:
            anew = {folder.name for folder in opened}
            scores = [one for old in before for one in old["transfer"] if one["run"] not in anew]
            row |= {"episodes": scripted_episodes(native, other, episodes), "transfer": scores}
        rows = [*(row for row in rows if row not in before), row]
        harness.write("fidelity", rows, path)
        for folder, run in opened.items():
            if run.config.env.task == task:
                row["transfer"].append(transfer(folder, run, other, policy_episodes))
                harness.write("fidelity", rows, path)
    print(markdown(rows))
    print(
        "Errors after one environment step, in brackets from states rebuilt from joint positions "
        "and velocities;\nnative physics starts from whole states that are rounded to float32. "
        "docs/physics.md explains the columns."
    )


def committed() -> list[dict[str, Any]]:
    """Rows of all results files: the stock model's first, then by physics, model, states and task.

    A file holds the rows of one commit; a task that another one measured has a file of its own.

    Raises:
      UserError: if two files measured the same.
    """
    order = list(TASKS)
    rows: dict[tuple[bool, str, str, str, int], dict[str, Any]] = {}
    for path in sorted(harness.RESULTS.glob("fidelity-*.json")):
        for row in metrics.read_json(path)["rows"]:
            physics, model, task = row["physics"], row["model"], row["task"]
            place = (model != "stock", physics, model, row["states"], order.index(task))
            if place in rows:
                raise UserError(
                    f"{path}: {task} on {physics} with {model}, {row['states']}, has another file"
                )
            rows[place] = row
    return [rows[place] for place in sorted(rows)]


def markdown(rows: list[dict[str, Any]]) -> str:
    """Markdown: a line for each task, backend and model.

    Errors of a step are from whole states, in brackets from rebuilt ones, and say how many steps
    broke; pairs are the backend's own and the original's.
    """
    header = [
        *("task", "physics", "model", "states", "gripper p99, m", "its motion p99, m"),
        *("object p95, m", "object p99, m"),
        *("drift at rest, m", "script moves it, m", "script lifts it", "policy succeeds"),
    ]
    return harness.markdown(header, [_line(row) for row in rows])


def stages_markdown(rows: list[dict[str, Any]]) -> str:
    """Markdown: what MJX derives of a model, a line for each backend, task and kind of states.

    The share of states within tolerance is of accelerations, which come last. Errors of joint
    positions, in metres, radians and parts of a quaternion, are those after a MuJoCo step; C's
    own, from rounded states, are the control.
    """
    header = [
        *("task", "physics", "model", "states"),
        *("within tolerance", "C rounded", "contacts lost", "gained"),
        *("lost or gained, median", "neither, p99", "C rounded, p99"),
        *("over 0.2 mm in 40 ms", "C rounded"),
    ]
    measured = {tuple(row[name] for name in _MEASURED): row for row in rows}
    lines = []
    for (task, physics, model, states), row in measured.items():
        if "stages" not in row:
            continue
        found, control = row["stages"], measured.get((task, "native", model, states), {})
        whole = (row, control) if model == "stock" else ({}, {})  # others are not C's with theirs
        off = [
            found.get(f"qpos_{which}", {}).get(percentile)
            for which, percentile in (
                ("other_contacts", "median"),
                ("equal_contacts", "p99"),
                ("equal_contacts_of_c_rounded", "p99"),
            )
        ]
        shares = [
            found.get(which, {}).get("qacc")
            for which in ("within_tolerance", "within_tolerance_of_c_rounded")
        ]
        counts = [found.get("fewer_contacts"), found.get("more_contacts")]
        over = [each.get("one_step", {}).get("over_0.2_mm") for each in whole]
        lines.append(
            [
                *(task, physics, model, states),
                *("-" if share is None else f"{share:.1%}" for share in shares),
                *("-" if count is None else str(count) for count in counts),
                *map(_small, off),
                *("-" if count is None else str(count) for count in over),
            ]
        )
    return harness.markdown(header, lines)


def _line(row: dict[str, Any]) -> list[str]:
    """One line of the table."""
    play = row.get("episodes", {})

    def pair(name: str, digits: int) -> str:
        both = [play[who][name] for who in ("other", "native") if play]
        return ", ".join(f"{one:.{digits}f}" for one in both) or "-"

    scores = []
    for score in row.get("transfer", ()):
        other, native = (score[who][_SUCCESS] for who in ("other", "native"))
        trained = "" if score["trained_on"] == "native" else f" (trained on {score['trained_on']})"
        scores.append(f"{other:.3f}, {native:.3f}{trained}")
    return [
        *(row["task"], row["physics"], row["model"], row["states"]),
        *(_errors(row, part, "p99") for part in ("gripper", "gripper_motion")),
        *(_errors(row, "object", percentile) for percentile in ("p95", "p99")),
        _small(play.get("resting_drift")),
        pair("travelled_mean", 3),
        pair("lifted_share", 2),
        "; ".join(scores) or "-",
    ]


def _errors(row: dict[str, Any], part: str, percentile: str) -> str:
    """From whole states, if any, and from rebuilt ones."""
    whole, rebuilt = (
        row.get(start, {}).get(part, {}) for start in ("one_step", "one_step_rebuilt")
    )
    if not rebuilt:
        return "-"
    broken = whole.get("not_finite", 0) + rebuilt["not_finite"]
    errors = f"{_small(whole.get(percentile))} ({_small(rebuilt[percentile])})"
    return errors + (f", {broken} broke" if broken else "")


def _small(value: float | None) -> str:
    return "-" if value is None else f"{value:.1e}"


# States


class Steps(NamedTuple):
    """Native environment steps.

    Attributes:
      physics: `NativeState` [n, ...] before the step.
      action: [n, 4].
      after: positions of gripper and object [n, 6], or of the gripper alone [n, 3], after it.
    """

    physics: NativeState
    action: Any
    after: Any


def played(env: her_envs.FetchEnv, count: int) -> Steps:
    """Native episodes, half of them scripted."""
    script = scripted(env)

    def play(key: jax.Array, is_scripted: jax.Array) -> Any:
        start_key, run_key = jax.random.split(key)

        def step(state: Any, key: jax.Array) -> Any:
            script_key, random_key = jax.random.split(key)
            random = jax.random.uniform(random_key, (4,), minval=-1.0, maxval=1.0)
            return _step(env, state, jnp.where(is_scripted, script(script_key, state.obs), random))

        return jax.lax.scan(step, env.reset(start_key), jax.random.split(run_key, env.horizon))[1]

    keys = jax.random.split(jax.random.key(0), count)
    return _flat(jax.jit(jax.vmap(play))(keys, jnp.arange(count) % 2 == 1))


def from_file(env: her_envs.FetchEnv, folder: Path) -> Steps:
    """Recorded episodes of the original, played again.

    Raises:
      UserError: if the folder lacks the task's file, or the episodes do not repeat to the bit.
    """
    path = record.recorded_file(folder, env.task.name)
    if not path.is_file():
        raise UserError(f"recorded: {path} is no file; make it by benchmarks/record.py")
    with np.load(path) as file:
        rows, actions, qpos = file["state0"], file["action"], file["qpos"]
    start = env.restore(rows, np.zeros((len(rows), 3)))
    step = functools.partial(_step, env)
    run = jax.jit(jax.vmap(lambda state, actions: jax.lax.scan(step, state, actions)[1]))
    steps = _flat(run(start, jnp.asarray(actions, jnp.float32)))
    again = env.physics.qpos(steps.physics).reshape(len(rows), -1, qpos.shape[-1])
    if not np.array_equal(again, qpos[:, :-1]):
        raise UserError(f"recorded: {path} does not repeat with MuJoCo {mujoco.__version__}")
    return steps


def _step(env: her_envs.FetchEnv, state: Any, action: jax.Array) -> tuple[Any, Steps]:
    later = env.step(state, action)
    return later, Steps(state.physics, action, later.obs.observation[: _sites(env)])


def _flat(steps: Steps) -> Steps:
    """Steps [episodes, T, ...] as [n, ...]."""
    return jax.tree.map(lambda x: np.asarray(x).reshape(-1, x.shape[-1]), steps)


def _sites(env: her_envs.FetchEnv) -> int:
    """Leading numbers of an observation that are positions in the world."""
    return 6 if env.task.has_object else 3


# One step of 40 ms


def one_step(
    native: her_envs.FetchEnv, other: her_envs.FetchEnv, steps: Steps
) -> dict[str, dict[str, Any]]:
    """Errors in metres after one step.

    A model without some joints starts a little beside the state, by up to the 6 mm that the torso
    rises in an episode; errors of what a step moves leave that out. The pose of a whole state would
    pull it over at once, so that such a model is given none.

    Args:
      native: the reference.
      other: what is compared with it.
      steps: of the reference.

    Returns:
      "one_step_rebuilt" from qpos and qvel alone, "one_step" from whole states.
    """
    rows, step = floats(steps.physics.row), jax.jit(jax.vmap(other.step))
    wanted_before = _positions(native.restore(rows, np.zeros((len(rows), 3))), native)
    wanted = steps.after.reshape(len(rows), -1, 3)

    def errors(whole: bool) -> dict[str, Any]:
        state = _started(native, other, steps.physics, whole)
        later = step(state, jnp.asarray(steps.action))
        before, got = (_positions(each, native) for each in (state, later))
        error = np.linalg.norm(got - wanted, axis=-1)
        moved = np.linalg.norm((got - before) - (wanted - wanted_before), axis=-1)
        found = {"states": len(got), "gripper": _percentiles(error[:, 0])}
        found["gripper_motion"] = _percentiles(moved[:, 0])
        if native.task.has_object:
            found["object"] = _percentiles(error[:, 1])
        found["over_0.2_mm"] = int((error > 2e-4).any(axis=-1).sum())
        found["dropped_contacts"] = int(np.asarray(later.dropped).sum())
        return found

    found = {"one_step_rebuilt": errors(whole=False)}
    if other.physics.scene.model.nq == native.physics.scene.model.nq:
        found["one_step"] = errors(whole=True)
    return found


def coasting(
    native: her_envs.FetchEnv, other: her_envs.FetchEnv, steps: Steps
) -> dict[str, float | int]:
    """Mean distances in metres that a sliding puck goes in a second without an action.

    Of the states in which it moves away from the hand, at 0.15 m/s or more and its centre at least
    0.06 m off; pucks that leave the table are left out.
    """
    rows, count = floats(steps.physics.row), 25
    before = native.restore(rows, np.zeros((len(rows), 3)))
    gripper, puck = _positions(before, native).swapaxes(0, 1)[..., :2]
    model = native.physics.scene.model
    first = int(model.joint(native.physics.scene.object_joint).dofadr[0])
    velocity = _part(model, rows, "QVEL")[:, first : first + 2]
    away = puck - gripper
    slides = np.linalg.norm(velocity, axis=-1) >= 0.15
    slides &= (np.linalg.norm(away, axis=-1) >= 0.06) & ((velocity * away).sum(axis=-1) > 0)
    if not slides.any():
        return {"states": 0}
    chosen = jax.tree.map(lambda x: x[slides], steps.physics)
    starts = {
        "native": jax.tree.map(lambda x: x[slides], before).replace(physics=chosen),
        "other": _started(native, other, chosen, whole=True),
    }
    ends, gone = {}, {}
    for (who, state), env in zip(starts.items(), (native, other), strict=True):
        step = jax.jit(jax.vmap(env.step))
        for _ in range(count):
            state = step(state, jnp.zeros((int(slides.sum()), env.action_size)))
        ends[who] = _positions(state, native)[:, 1]
        gone[who] = np.linalg.norm(ends[who][:, :2] - puck[slides], axis=-1)
    stays = np.minimum(ends["native"][:, 2], ends["other"][:, 2]) > 0.41  # the table's top: 0.4
    if not stays.any():
        return {"states": 0}
    return {
        "states": int(stays.sum()),
        "native_mean": float(gone["native"][stays].mean()),
        "other_mean": float(gone["other"][stays].mean()),
        "difference_p95": float(np.quantile(np.abs(gone["other"] - gone["native"])[stays], 0.95)),
    }


def _started(
    native: her_envs.FetchEnv, other: her_envs.FetchEnv, physics: NativeState, whole: bool
) -> Any:
    """States of `other` that start where those of `native` are."""
    stock, model = native.physics.scene.model, other.physics.scene.model
    rows, pose = (floats(x) for x in (physics.row, physics.gripper_pose))
    if whole and isinstance(other.physics, Native):
        state = other.restore(_rounded(rows), np.zeros((len(rows), 3)))
        return state.replace(physics=state.physics.replace(gripper_pose=bits(_rounded(pose))))
    qpos, qvel = (_part(stock, rows, name) for name in ("QPOS", "QVEL"))
    if model.nq != stock.nq:
        qpos, qvel = scenes.carried_over(stock, model, qpos, qvel)
    state = other.state_at(qpos, qvel, np.zeros((len(qpos), 3)))
    if not whole:
        return state
    warmstart = _part(stock, rows, "WARMSTART")
    simulation = state.physics.replace(
        gripper_pose=jnp.asarray(pose, jnp.float32), warmstart=jnp.asarray(warmstart, jnp.float32)
    )
    return state.replace(physics=simulation)


def _rounded(rows: np.ndarray) -> np.ndarray:
    """What float32 can hold of float64 values."""
    return rows.astype(np.float32).astype(np.float64)


def _part(model: mujoco.MjModel, rows: np.ndarray, name: str) -> np.ndarray:
    """A part of `mjSTATE_INTEGRATION` rows, [n, ...]."""
    kind = getattr(mujoco.mjtState, f"mjSTATE_{name}")
    part = np.zeros((len(rows), mujoco.mj_stateSize(model, kind)))
    for row, out in zip(rows, part, strict=True):
        mujoco.mj_extractState(model, row, mujoco.mjtState.mjSTATE_INTEGRATION, out, kind)
    return part


def _positions(states: Any, env: her_envs.FetchEnv) -> np.ndarray:
    """Positions [n, 1 or 2, 3] of gripper and object."""
    seen = np.asarray(states.obs.observation, np.float64)[:, : _sites(env)]
    return seen.reshape(len(seen), -1, 3)


def _percentiles(values: np.ndarray) -> dict[str, Any]:
    """Median, 95th and 99th percentile, and the largest, of those that are finite, if any."""
    finite = values[np.isfinite(values)]
    quantiles = {"median": 0.5, "p95": 0.95, "p99": 0.99, "largest": 1.0}
    found: dict[str, Any] = {
        name: float(np.quantile(finite, q)) if len(finite) else None
        for name, q in quantiles.items()
    }
    return found | {"not_finite": len(values) - len(finite)}


# One step of 2 ms, stage by stage


def stages(native: her_envs.FetchEnv, physics: Mjx, rows: np.ndarray) -> dict[str, Any]:
    """How much of what one MuJoCo step derives, and where it ends, is as in C with the same model.

    Shares of states within MuJoCo's tolerances, by stage; states with fewer and with more contacts;
    errors after the step, those of joint positions also where there are equally many contacts and
    where there are not. As a control C's own shares, and errors where there are equally many
    contacts, from states rounded to float32.
    """
    expected, qpos, qvel = _in_c(native.physics.scene, rows)
    rounded, rounded_qpos, _ = _in_c(native.physics.scene, _rounded(rows))
    found, other_qpos, other_qvel = physics.substep(rows)
    equal, steady = (each["ncon"] == expected["ncon"] for each in (found, rounded))
    error, rounding = (np.abs(x - qpos).max(axis=1) for x in (other_qpos, rounded_qpos))

    def agreed(derived: dict[str, np.ndarray], name: str) -> float:
        absolute, relative = TOLERANCES[name]
        got = derived[name].astype(np.float64).reshape(len(rows), -1)
        want = expected[name].reshape(len(rows), -1)
        within = np.abs(got - want) <= absolute + relative * np.abs(want)
        return float(within.all(axis=1).mean())

    return {
        "within_tolerance": {name: agreed(found, name) for name in TOLERANCES},
        "within_tolerance_of_c_rounded": {name: agreed(rounded, name) for name in TOLERANCES},
        "qpos": _percentiles(error),
        "qpos_equal_contacts": _percentiles(error[equal]),
        "qpos_other_contacts": _percentiles(error[~equal]),
        "qpos_equal_contacts_of_c_rounded": _percentiles(rounding[steady]),
        "qvel": _percentiles(np.abs(other_qvel - qvel).max(axis=1)),
        "fewer_contacts": int((found["ncon"] < expected["ncon"]).sum()),
        "more_contacts": int((found["ncon"] > expected["ncon"]).sum()),
        "peak_contacts_in_c": int(expected["ncon"].max()),
    } | _sizes(found)


def _sizes(found: dict[str, np.ndarray]) -> dict[str, Any]:
    """What the states need room for in MuJoCo Warp; in pure JAX sizes are those of the model."""
    if "nefc" not in found:
        return {}
    return {
        "peak_constraint_rows": int(found["nefc"].max()),
        "candidate_pairs_a_state": float(found["ncollision"][0]) / len(found["nefc"]),
    }


def _in_c(scene: Scene, rows: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """What C derives from the states, and where its next step ends."""
    model, data = scene.model, mujoco.MjData(scene.model)
    derived: dict[str, list[Any]] = {name: [] for name in (*COMPARED, "ncon")}
    qpos, qvel = [], []
    for row in rows:
        mujoco.mj_setState(model, data, row, mujoco.mjtState.mjSTATE_INTEGRATION)
        mujoco.mj_forward(model, data)
        for name in derived:
            derived[name].append(np.copy(getattr(data, name)))
        mujoco.mj_setState(model, data, row, mujoco.mjtState.mjSTATE_INTEGRATION)
        mujoco.mj_step(model, data)
        qpos.append(data.qpos.copy())
        qvel.append(data.qvel.copy())
    fields = {name: np.stack(values) for name, values in derived.items()}
    return fields, np.stack(qpos), np.stack(qvel)


# Episodes


def scripted_episodes(
    native: her_envs.FetchEnv, other: her_envs.FetchEnv, count: int
) -> dict[str, Any]:
    """What a script does from equal held-out starts, and what doing nothing does."""
    starts = goal_set.standard(native, count).starts
    keys = jax.random.split(jax.random.key(1), count)
    played, dropped = {}, {}
    for who, env in (("native", native), ("other", other)):
        play = functools.partial(rollout.play, env, scripted(env))
        played[who], dropped[who] = jax.jit(jax.vmap(play))(starts, keys)
    first = {who: np.asarray(e.observation[:, 0, : _sites(native)]) for who, e in played.items()}
    found: dict[str, Any] = {
        "episodes": count,
        "broken_episodes": int(rollout.broken(played["other"]).sum()),
        "dropped_contact_steps": int(dropped["other"].sum()),
        "reset_difference": float(np.abs(first["other"] - first["native"]).max()),
    }
    for who, episode in played.items():
        found[who] = _summary(native, episode)
    if native.task.has_object:
        few = jax.tree.map(lambda x: x[: min(count, 20)], starts)
        rest = functools.partial(evaluate.episodes, other, evaluate.no_action(other))
        still, _ = jax.jit(rest)(few)
        goal = np.asarray(still.achieved_goal, np.float64)
        found["resting_drift"] = float(np.linalg.norm(goal - goal[:, :1], axis=-1).max())
        found["rest_height_difference"] = float(
            np.abs(goal[:, -1, 2] - native.physics.scene.object_height).max()
        )
    return found


def _summary(env: her_envs.FetchEnv, episode: Episode) -> dict[str, float]:
    """Success of a script at the last step, how far it moved the goal's body, how high."""
    achieved = np.asarray(episode.achieved_goal, np.float64)
    travelled = np.linalg.norm(achieved[:, -1, :2] - achieved[:, 0, :2], axis=-1)
    lifted = achieved[:, :, 2].max(axis=1) - achieved[:, 0, 2]
    return {
        "requested_goal_success": evaluate.mean(evaluate.outcome(env, episode).success),
        "travelled_mean": float(travelled.mean()),
        "travelled_std": float(travelled.std()),
        "lifted_share": float((lifted > 0.05).mean()),
    }


def scripted(env: her_envs.FetchEnv) -> Callable[[Any, GoalObs], jax.Array]:
    """A script without memory: reaches, pushes, strikes or grasps and lifts towards the goal."""
    if not env.task.has_object:
        return lambda key, obs: _towards(obs.desired_goal - obs.achieved_goal, 0.0)
    return _push if env.task.block_gripper else _grasp


def _towards(offset: jax.Array, fingers: Any) -> jax.Array:
    return jnp.append(jnp.clip(offset / 0.05, -1.0, 1.0), fingers)


def _push(key: jax.Array, obs: GoalObs) -> jax.Array:
    """Behind the object, then through it towards the goal until it is there."""
    del key
    grip, thing = obs.observation[:3], obs.achieved_goal
    way = (obs.desired_goal - thing).at[2].set(0.0)
    direction = way / jnp.maximum(jnp.linalg.norm(way), 1e-6)
    behind = thing - 0.08 * direction
    offset = (grip - behind).at[2].set(0.0)
    lined_up = jnp.linalg.norm(offset - jnp.dot(offset, direction) * direction) < 0.02
    ready = lined_up & (jnp.dot(offset, direction) > -0.03)
    around = behind.at[2].set(thing[2] + jnp.where(jnp.linalg.norm(offset) > 0.03, 0.08, 0.0))
    push = (thing + 0.02 * direction).at[2].set(thing[2])
    done = jnp.linalg.norm(way) < 0.03
    move = jnp.where(ready, push + way - grip, around - grip)
    return jnp.where(done, jnp.zeros(4), _towards(move, 0.0))


def _grasp(key: jax.Array, obs: GoalObs) -> jax.Array:
    """Above the object, down, closed, to the goal."""
    del key
    offset = obs.achieved_goal - obs.observation[:3]
    above = jnp.linalg.norm(offset[:2]) > 0.015
    near = jnp.linalg.norm(offset) < 0.02
    held = near & (jnp.sum(obs.observation[9:11]) < 0.06)
    approach = _towards(offset + jnp.array([0.0, 0.0, 0.08]) * above, 1.0)
    carry = _towards(obs.desired_goal - obs.achieved_goal, -1.0)
    return jnp.where(held, carry, jnp.where(near, jnp.array([0.0, 0.0, 0.0, -1.0]), approach))


# Policies


def require_plain(folder: Path, run: Run, tasks: tuple[str, ...]) -> None:
    """Refuses a policy that would be scored on another task than it was trained for.

    Raises:
      UserError: names the run and what it was trained with.
    """
    env = run.config.env
    if env.task not in tasks:
        raise UserError(f"runs: {folder} is of {env.task}; name it in --tasks, or leave it out")
    for name in ("tolerance", "goal", "action_repeat"):
        value, plain = getattr(env, name), getattr(EnvConfig(), name)
        if value != plain:
            raise UserError(f"runs: {folder} has {name} {value!r}; give one with {plain!r}")


def transfer(folder: Path, run: Any, other: her_envs.FetchEnv, count: int) -> dict[str, Any]:
    """Success of a run's policy on equal held-out goals on both physics."""
    _, state = run.restore_policy()
    native = her_envs.make(run.config.env.task)
    goals = goal_set.standard(native, count)
    scores = {}
    for who, env in (("native", native), ("other", other)):
        score = functools.partial(evaluate.evaluate, env, lambda _, obs: run.act(state, obs))
        outcome = jax.jit(score)(goals.starts)
        scores[who] = {
            _SUCCESS: evaluate.mean(outcome.success),
            "broken_episodes": int(outcome.broken.sum()),
            "dropped_contact_steps": int(outcome.dropped.sum()),
        }
    about = {"run": folder.name, "trained_on": run.config.env.physics, "episodes": count}
    return about | scores | {"goal_set": goals.sha256, "env_steps": int(state.env_steps)}


if __name__ == "__main__":
    harness.run(main)
