"""Cost of the goal buffer and of an update.

    python benchmarks/replay.py [--smoke] [--out FILE]

Inserting and sampling are timed from an empty to a full and wrapped ring, and for rings of 10^4 to
10^6 transitions: both should be flat. Updates of DDPG with three hidden layers of 256 are timed for
growing batches, sampling, relabelling and normalising included, beside the bare matrix products
that such an update cannot do without.
"""

from __future__ import annotations

import functools
import statistics
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

import harness
import her_envs
from her_jax import agents, buffer, train
from her_jax.config import Config, ReplayConfig, TrainConfig

ROUND = 20  # episodes in one insertion
SAMPLE = 512


def main(smoke: bool = False, rounds: int = 15, out: Path | None = None) -> None:
    """Measure insertion, sampling and updates.

    Args:
      smoke: A tiny run that only shows that everything works.
      rounds: Timed calls of each.
      out: Results file; default runs/benchmarks/replay.json.
    """
    harness.require_positive(rounds=rounds)
    path = harness.results_file("replay", out, smoke)
    env = her_envs.make("FetchPush")
    sizes = (1_000,) if smoke else (10_000, 100_000, 1_000_000)
    batches = (64,) if smoke else (256, 512, 1024, 2048, 4096, 8192)
    rounds = 2 if smoke else rounds
    rows = [row for size in sizes for row in ring_rows(env, size, rounds)]
    rows += [update_row(env, batch, updates=4 if smoke else 20, rounds=rounds) for batch in batches]
    print(ring_table(rows), update_table(rows), sep="\n\n")
    harness.write("replay", rows, path)


def ring_table(rows: list[dict[str, Any]]) -> str:
    """Markdown: microseconds to insert an episode and to draw a relabelled transition."""
    return harness.markdown(
        ["transitions", "filling", "insert, us an episode", "sample, us a transition"],
        [
            [
                f"{row['capacity_transitions']:,}",
                row["filling"],
                f"{row['insert_us_per_episode']:.2f}",
                f"{row['sample_and_relabel_us_per_transition']:.2f}",
            ]
            for row in rows
            if row["measured"] == "ring"
        ],
    )


def update_table(rows: list[dict[str, Any]]) -> str:
    """Markdown: updates a second for growing batches."""
    return harness.markdown(
        ["batch", "updates/s", "transitions/s", "time outside matrix products"],
        [
            [
                f"{row['batch']:,}",
                f"{row['updates_per_s']:,.0f}",
                f"{row['replayed_transitions_per_s']:,.0f}",
                f"{row['share_outside_matrix_products']:.0%}",
            ]
            for row in rows
            if row["measured"] == "update"
        ],
    )


def ring_rows(env: her_envs.FetchEnv, transitions: int, rounds: int) -> list[dict[str, Any]]:
    """Insertion and sampling at several fillings of one ring."""
    capacity = transitions // env.horizon
    example = train.example_episode(env)
    new = jax.tree.map(lambda x: jnp.ones((ROUND, *x.shape), x.dtype), example)
    insert = jax.jit(buffer.insert, donate_argnums=0)
    config = Config(replay=ReplayConfig(capacity=capacity), train=TrainConfig(num_envs=ROUND))
    sample = jax.jit(functools.partial(_sample, config))
    state = buffer.init(example, capacity)
    rows = []
    for filling, held in (("empty", 0.0), ("half", 0.5), ("full", 1.0), ("wrapped", 1.5)):
        rounds_held = int(held * capacity) // ROUND
        insert_s, sample_s = [], []
        for i in range(rounds + 1):  # the first call warms up
            state = state.replace(  # every call finds the same filling
                cursor=jnp.asarray(rounds_held * ROUND % capacity, jnp.int32),
                size=jnp.asarray(min(rounds_held * ROUND, capacity), jnp.int32),
            )
            state, took = harness.timed(lambda s: insert(s, new), state)
            insert_s.append(took)
            _, took = harness.timed(lambda s, i=i: sample(s, jax.random.key(i)), state)
            sample_s.append(took)
        insert_us, sample_us = (1e6 * statistics.median(s[1:]) for s in (insert_s, sample_s))
        rows.append(
            {
                "measured": "ring",
                "capacity_transitions": transitions,
                "filling": filling,
                "insert_us_per_episode": insert_us / ROUND,
                "sample_and_relabel_us_per_transition": sample_us / SAMPLE,
            }
        )
    return rows


def _sample(config: Config, state: buffer.BufferState, key: jax.Array) -> Any:
    sample_key, label_key = jax.random.split(key)
    steps = buffer.sample(state, sample_key, SAMPLE)
    return train.relabelled(config, state.episodes, state.size, steps, label_key)


def update_row(env: her_envs.FetchEnv, batch: int, updates: int, rounds: int) -> dict[str, Any]:
    """Updates a second, and the share of their time outside matrix products."""
    config = Config(
        replay=ReplayConfig(capacity=2_000, batch_size=batch),
        train=TrainConfig(num_envs=ROUND, updates_per_cycle=updates),
    )
    agent = agents.make(config.agent, env)
    state = train.init(env, agent, config, jax.random.key(0))
    full = state.buffer.replace(size=jnp.asarray(2_000, jnp.int32))
    learn = jax.jit(functools.partial(train.learn, env, agent, config))
    kernels = [
        _kernels(params)
        for params in (*state.learner.actor, *(c[0] for c in state.learner.critics))  # and targets
    ]
    inputs = tuple(
        jax.random.normal(key, (batch, width))
        for key, width in zip(jax.random.split(jax.random.key(0)), (28, 32), strict=True)
    )
    products = jax.jit(functools.partial(matrix_products, updates)).lower(*kernels, *inputs)
    run_products = products.compile()
    taken = harness.side_by_side(
        {
            "update": lambda: learn(state.learner, state.normalizer, full, jax.random.key(1)),
            "products": lambda: run_products(*kernels, *inputs),
        },
        rounds,
    )
    return {
        "measured": "update",
        "batch": batch,
        "updates_per_s": updates / taken["update"],
        "replayed_transitions_per_s": updates * batch / taken["update"],
        "share_outside_matrix_products": 1 - taken["products"] / taken["update"],
    }


def _kernels(params: Any) -> list[jax.Array]:
    """Weight matrices in the order of the layers."""
    layers = params["params"]["MLP_0"]
    return [layers[name]["kernel"] for name in sorted(layers)]


def matrix_products(
    updates: int,
    actor: list[jax.Array],
    actor_target: list[jax.Array],
    critic: list[jax.Array],
    critic_target: list[jax.Array],
    inputs: jax.Array,
    joint: jax.Array,
) -> Any:
    """Only the products of `updates` DDPG updates: five forward and three backward passes.

    Gradients are added to the weights, scaled to nothing, so that no product can be left out or
    hoisted from the loop; nothing else is computed.

    Args:
      updates: how many.
      actor: weights of the layers, from O+G = 28 inputs.
      actor_target: likewise.
      critic: weights of the layers, from O+G+A = 32 inputs.
      critic_target: likewise.
      inputs: [B, 28].
      joint: [B, 32].
    """

    def forward(weights: list[jax.Array], x: jax.Array) -> list[jax.Array]:
        values = [x]
        for weight in weights:
            values.append(values[-1] @ weight)
        return values

    def backward(weights: list[jax.Array], values: list[jax.Array], to: int) -> list[jax.Array]:
        """Weight gradients, the signal passed back through the layers down to number `to`."""
        signal, grads = values[-1], []
        for i in reversed(range(len(weights))):
            grads.append(values[i].T @ signal)
            if i >= to:
                signal = signal @ weights[i].T
        return grads[::-1]

    def body(carry: Any, _: Any) -> Any:
        actor, critic = carry
        next_action = forward(actor_target, inputs + 1e-30 * actor[0][0, 0])[-1]
        target = forward(critic_target, joint + 1e-30 * next_action[:, :1])[-1]
        critic_grads = backward(critic, forward(critic, joint + 1e-30 * target), to=1)
        actor_values = forward(actor, inputs)
        value = forward(critic, joint + 1e-30 * actor_values[-1][:, :1])[-1]
        signal = value
        for weight in reversed(critic):
            signal = signal @ weight.T
        actor_values[-1] = actor_values[-1] + signal[:, :1]
        actor_grads = backward(actor, actor_values, to=1)

        def add(weights: list[jax.Array], grads: list[jax.Array]) -> list[jax.Array]:
            return [w + 1e-30 * g for w, g in zip(weights, grads, strict=True)]

        return (add(actor, actor_grads), add(critic, critic_grads)), None

    return jax.lax.scan(body, (actor, critic), length=updates)[0]


if __name__ == "__main__":
    harness.run(main)
