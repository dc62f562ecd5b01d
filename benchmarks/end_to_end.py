"""Where the time of training goes, and how soon a policy succeeds, by physics backend.

    python benchmarks/end_to_end.py [TASK] [--physics native warp] [--targets 0.5 0.9] [--smoke]

Each physics trains the preset until success on held-out goals, scored on native physics, reaches
the highest target or time is up; with `--transfer native warp` its policy is scored in the end on
each of these, with the stock model, on 1,000 goals. Then a cycle is timed in parts (simulation with
policy, drawing and relabelling of its batches, its updates with both). Seconds to a target are
those of training; compiling, Warp's kernels included, and evaluating stand apart. On an accelerator
`native` simulates on the host's cores for a learner on the device.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import jax
import tyro

import env_throughput
import harness
import her_envs
import launch
import presets
from her_jax import agents, buffer, evaluate, goal_set, memory, rollout, train
from her_jax.config import Config
from her_jax.errors import UserError
from her_jax.policy import Acting, acting
from her_jax.types import GoalEnv, GoalObs

TARGETS = (0.5, 0.9, 0.95)
"""Successes whose times are reported."""


GOALS = 1000
"""Held-out goals that transfer is measured on."""


def main(
    task: Annotated[str, tyro.conf.Positional] = "fetch-push",
    preset: str = "tuned",
    physics: tuple[str, ...] = ("native",),
    model: str = "stock",
    num_envs: int | None = None,
    targets: tuple[float, ...] = TARGETS,
    limit_s: float = 600.0,
    transfer: tuple[str, ...] = (),
    transfer_goals: int | None = None,
    rounds: int = 3,
    seed: int = 0,
    smoke: bool = False,
    out: Path | None = None,
) -> None:
    """Time the parts of a cycle, and training to given successes.

    Args:
      task: Task, as for train.py.
      preset: Preset, as for train.py.
      physics: Backends of training, one after the other.
      model: Model of training.
      num_envs: Environments; default the preset's.
      targets: Successes whose times are reported.
      limit_s: Seconds after which the training of a backend stops, evaluating included and
        compiling not; its parts are timed afterwards.
      transfer: Physics on which the policy is scored in the end.
      transfer_goals: Held-out goals there; default 1,000.
      rounds: How often each part is timed.
      seed: Seed of training.
      smoke: A tiny run that only shows that everything works.
      out: Results file; default runs/benchmarks/end_to_end.json.
    """
    if transfer_goals is not None and not transfer:
        raise UserError("transfer_goals: without effect; name physics with --transfer")
    goals = GOALS if transfer_goals is None else transfer_goals
    environments = 1 if num_envs is None else num_envs
    harness.require_positive(rounds=rounds, transfer_goals=goals, num_envs=environments)
    if not targets:
        raise UserError("targets: none given; name some, e.g. --targets 0.5 0.9")
    for name in transfer:
        launch.require_judge("transfer", name)
    config = dataclasses.replace(presets.load(preset, task), seed=seed)
    if num_envs is not None:
        config = presets.with_envs(config, num_envs)
    if smoke:
        config, limit_s, rounds, goals = tiny(config), 0.0, 1, 2
    backends = [
        dataclasses.replace(config.env, physics=backend, model=model)
        for backend in harness.known("physics", physics, her_envs.PHYSICS)
    ]
    for env in backends:
        launch.make_envs(env)  # refuses what cannot be combined before any is measured
    path = harness.results_file("end_to_end", out, smoke)
    rows: list[dict[str, Any]] = []

    def keep(row: dict[str, Any], quiet: bool = True) -> None:
        harness.write("end_to_end", [*rows, row], path, quiet)

    for env in backends:
        one = dataclasses.replace(config, env=env)
        row, learned = trained(one, targets, lambda: limit_s, keep)
        keep(row)
        if transfer:
            row["transfer"] = transferred(one, learned, transfer, goals)
        row |= parts(one, rounds)
        keep(row, quiet=False)
        rows.append(row)
    print(table(rows, targets))


def tiny(config: Config) -> Config:
    """A run of two episodes."""
    return dataclasses.replace(
        config,
        train=dataclasses.replace(
            config.train, num_envs=2, updates_per_cycle=2, cycles_per_epoch=1, eval_episodes=2
        ),
        replay=dataclasses.replace(config.replay, capacity=4, batch_size=8),
    )


def table(rows: list[dict[str, Any]], targets: tuple[float, ...]) -> str:
    """Markdown: a line a backend."""
    header = ["task", "physics", "model", "environments", "env steps/s, training"]
    header += [
        "simulation",
        "relabelling",
        "updates",
        *(f"s to {target:.2f}" for target in targets),
    ]
    lines = []
    for row in rows:
        whole = row["simulation_s"] + row["updates_s"]
        shares = (
            row["simulation_s"],
            row["relabelling_s"],
            row["updates_s"] - row["relabelling_s"],
        )
        reached = [row["seconds_to"].get(f"{target:.2f}") for target in targets]
        lines.append(
            [
                *(row["task"], row["physics"], row["model"], f"{row['num_envs']:,}"),
                f"{row['env_steps_per_s']:,.0f}",
                *(f"{max(share, 0.0) / whole:.0%}" for share in shares),
                *("not reached" if seconds is None else f"{seconds:,.0f}" for seconds in reached),
            ]
        )
    return harness.markdown(header, lines)


def trained(
    config: Config,
    targets: tuple[float, ...],
    limit_s: Callable[[], float],
    keep: Callable[[dict[str, Any]], None],
) -> tuple[dict[str, Any], Acting]:
    """A training: what it was of, and what it reached when; and what it learned.

    Args:
      config: of the training.
      targets: successes whose times are reported.
      limit_s: says, once all is compiled, for how long to train.
      keep: is given what there is of the row after every epoch.
    """
    env, judge = launch.make_envs(config.env)
    memory.require(env, config)
    print(memory.plan(env, config))
    row = {
        "task": env.name,
        "physics": config.env.physics,
        "model": config.env.model,
        "scored_on": config.env.scored_on,
        "num_envs": config.train.num_envs,
        "updates_per_cycle": config.train.updates_per_cycle,
        "batch_size": config.replay.batch_size,
        "matmul_precision": config.train.matmul_precision,
        "seed": config.seed,
    }
    keep(row)
    if config.env.physics == "warp" and isinstance(env, her_envs.FetchEnv):
        # JAX's ahead-of-time compiling leaves Warp's kernels to the first call, which is timed.
        row["first_step_s"] = env_throughput.first_step_s(env)
    found, learned = learn(env, judge, config, targets, limit_s, lambda so_far: keep(row | so_far))
    return row | found, learned


def transferred(
    config: Config, learned: Acting, physics: tuple[str, ...], goals: int
) -> dict[str, Any]:
    """Success of one policy on several physics, each with the stock model, on equal goals.

    Args:
      config: of its training.
      learned: by it.
      physics: their names.
      goals: how many of the held-out ones.
    """
    found: dict[str, Any] = {"goals": goals}
    for name in physics:
        env = her_envs.make(config.env.task, physics=name)
        starts = goal_set.standard(env, goals).starts
        found[name] = evaluate.mean(jax.jit(_score(env, config))(learned, starts))
    return found


def _score(env: GoalEnv, config: Config) -> Callable[[Acting, Any], jax.Array]:
    """Success [E] of what was learned, from starts [E, ...]."""
    agent = agents.make(config.agent, env)

    def score(learned: Acting, starts: Any) -> jax.Array:
        def policy(_: Any, obs: GoalObs) -> jax.Array:
            return train.greedy(agent, config, learned.learner, learned.normalizer, obs)

        return evaluate.evaluate(env, policy, starts).success

    return score


def parts(config: Config, rounds: int) -> dict[str, float]:
    """Median seconds over rounds that the parts of a cycle take, each a program of its own."""
    env = launch.make_env(config.env)
    agent = agents.make(config.agent, env)
    state = jax.jit(functools.partial(train.init, env, agent, config))(jax.random.key(0))
    play = jax.jit(functools.partial(train.explore, env, agent, config))
    episodes, _ = play(state, jax.random.key(1))
    episodes = rollout.without_broken(episodes, rollout.broken(episodes))
    replay = buffer.insert(state.buffer, episodes)
    count = config.train.updates_per_cycle
    keys = jax.random.split(jax.random.key(2), count).reshape(-1, train.batches_at_once(count))

    @jax.jit
    def relabel(replay: buffer.BufferState) -> jax.Array:
        distribution = train.episode_distribution(config, replay)

        def draw(key: jax.Array) -> jax.Array:
            sample_key, label_key = jax.random.split(key)
            steps = buffer.sample(replay, sample_key, config.replay.batch_size, distribution)
            batch, reward = train.replayed(env, config, replay, steps, label_key)
            window = train.returns(env, config, replay, steps, batch, reward)
            used = (batch.observation, batch.action, batch.desired_goal, window)  # by the learner
            return jax.numpy.stack([jax.numpy.sum(x) for x in jax.tree.leaves(used)]).sum()

        def draw_at_once(total: jax.Array, keys: jax.Array) -> tuple[jax.Array, None]:
            return total + jax.numpy.sum(jax.vmap(draw)(keys)), None

        return jax.lax.scan(draw_at_once, jax.numpy.zeros(()), keys)[0]

    learn = jax.jit(functools.partial(train.learn, env, agent, config))
    taken = harness.side_by_side(
        {
            "simulation_s": lambda: play(state, jax.random.key(1)),
            "relabelling_s": lambda: relabel(replay),
            "updates_s": lambda: learn(state.learner, state.normalizer, replay, jax.random.key(3)),
        },
        rounds,
    )
    cycle_steps = config.train.num_envs * env.horizon * env.steps_per_action
    return taken | {"sim_env_steps_per_s": cycle_steps / taken["simulation_s"]}


def learn(
    env: GoalEnv,
    judge: GoalEnv,
    config: Config,
    targets: tuple[float, ...],
    limit_s: Callable[[], float],
    keep: Callable[[dict[str, Any]], None],
) -> tuple[dict[str, Any], Acting]:
    """Trains until the highest target, or for `limit_s`; at least an epoch."""
    agent = agents.make(config.agent, env)
    goals = goal_set.standard(judge, config.train.eval_episodes)

    found: dict[str, Any] = {}
    began = time.perf_counter()
    state = jax.jit(functools.partial(train.init, env, agent, config))(jax.random.key(config.seed))
    run_epoch = jax.jit(functools.partial(train.epoch, env, agent, config), donate_argnums=0)
    run_epoch = run_epoch.lower(state).compile()
    learned = acting(agent, state)
    run_score = jax.jit(_score(judge, config)).lower(learned, goals.starts).compile()
    found |= {"compile_s": time.perf_counter() - began, "limit_s": limit_s()}
    began = time.perf_counter()
    seconds, reached, lines, success = 0.0, {}, [], 0.0
    broken = dropped = 0.0
    while not lines or (time.perf_counter() - began < found["limit_s"] and success < max(targets)):
        (state, values, _), epoch_s = harness.timed(run_epoch, state)
        seconds += epoch_s
        learned = acting(agent, state)
        success = evaluate.mean(run_score(learned, goals.starts))
        broken = max(broken, float(values["broken_episodes"]))
        dropped = max(dropped, float(values["dropped_contact_steps"]))
        print(
            f"{int(state.env_steps):11,} steps  {seconds:6.1f} s  success {success:.3f}", flush=True
        )
        lines.append(
            {
                "env_steps": int(state.env_steps),
                "training_s": seconds,
                "requested_goal_success": success,
            }
        )
        for target in targets:
            if success >= target:
                reached.setdefault(f"{target:.2f}", seconds)
        found |= {
            "env_steps_per_s": lines[-1]["env_steps"] / seconds,
            "largest_broken_share": broken,
            "largest_dropped_share": dropped,
            "seconds_to": reached,
            "epochs": lines,
        }
        keep(found)
    return found, learned


if __name__ == "__main__":
    harness.run(main)
