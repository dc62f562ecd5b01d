"""One pure program: play, store, relabel, learn.

    cycle: every environment plays one episode; all are stored; the normaliser sees them with
           relabelled goals; then `updates_per_cycle` updates on relabelled batches
    epoch: a scan of cycles

Everything that changes is in `TrainState`; the caller jits `epoch` and donates it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from her_jax import buffer, evaluate, normalizer, prioritization, relabel, rollout
from her_jax.config import Config
from her_jax.types import (
    Agent,
    Batch,
    Episode,
    GoalEnv,
    GoalObs,
    Key,
    Moment,
    Transition,
)

MAX_BATCHES_AT_ONCE = 25
"""Most batches that are drawn together; see `batches_at_once`."""


class Returns(NamedTuple):
    """What a transition [B, ...] is worth before its value is bootstrapped.

    Attributes:
      reward: float32 [B], discounted sum of the rewards in the n-step window.
      discount: float32 [B], gamma to the number of steps in it.
      next_observation: float32 [B, O], where it ends.
    """

    reward: jax.Array
    discount: jax.Array
    next_observation: jax.Array


class Drawn(NamedTuple):
    """Rows that the learner has learned from, for the auditor; [B, ...].

    Attributes:
      steps: which stored steps.
      transitions: what relabelling made of them.
      reward: float32 [B], the reward of each step.
      window: what the learner was given in the reward's place: the same for `n_step` 1.
    """

    steps: Moment
    transitions: Transition
    reward: jax.Array
    window: Returns


class TrainState(struct.PyTreeNode):
    """The whole run.

    Attributes:
      learner: the agent's state.
      normalizer: statistics of observations and goals.
      buffer: the goal buffer.
      key: split once a cycle.
      env_steps: int32 [], steps played in all environments together.
    """

    learner: Any
    normalizer: normalizer.NormalizerState
    buffer: buffer.BufferState
    key: Key
    env_steps: jax.Array


def init(env: GoalEnv, agent: Agent, config: Config, key: Key) -> TrainState:
    """A run before its first step; consumes `key`."""
    learner_key, run_key = jax.random.split(key)
    goal_size = env.goal_spec.size
    return TrainState(
        learner=agent.init(learner_key, env.observation_size + goal_size),
        normalizer=normalizer.init(env.observation_size, goal_size),
        buffer=buffer.init(example_episode(env), config.replay.capacity),
        key=run_key,
        env_steps=jnp.zeros((), jnp.int32),
    )


def example_episode(env: GoalEnv) -> Episode:
    """Zeros of an episode's shape."""
    steps, goal_size = env.horizon, env.goal_spec.size
    return Episode(
        observation=jnp.zeros((steps + 1, env.observation_size)),
        achieved_goal=jnp.zeros((steps + 1, goal_size)),
        desired_goal=jnp.zeros(goal_size),
        action=jnp.zeros((steps, env.action_size)),
        cost=jnp.zeros((steps, len(env.cost_specs))),
    )


def epoch(
    env: GoalEnv, agent: Agent, config: Config, state: TrainState
) -> tuple[TrainState, dict[str, jax.Array], Drawn]:
    """`cycles_per_epoch` cycles.

    Returns:
      The new state, metrics averaged over the cycles, and `audited_rows` rows of each batch of the
      last cycle, all of which the new state's buffer still holds.
    """

    def body(state, _):
        state, metrics, drawn = cycle(env, agent, config, state)
        return state, (metrics, drawn)

    state, (metrics, drawn) = jax.lax.scan(body, state, length=config.train.cycles_per_epoch)
    return state, jax.tree.map(jnp.mean, metrics), jax.tree.map(lambda x: x[-1], drawn)


def cycle(
    env: GoalEnv, agent: Agent, config: Config, state: TrainState
) -> tuple[TrainState, dict[str, jax.Array], Drawn]:
    """One round of episodes and the updates that follow it."""
    next_key, play_key, label_key, learn_key = jax.random.split(state.key, 4)
    played, dropped = explore(env, agent, config, state, play_key)
    outcome = evaluate.outcome(env, played, dropped)
    episodes = rollout.without_broken(played, outcome.broken)
    statistics = observe(config, state.normalizer, episodes, label_key)
    prioritize = prioritization.PRIORITIES[config.replay.priority]
    priority = jax.vmap(lambda one: prioritize(one, env.seconds_per_action))(episodes)
    replay = buffer.insert(state.buffer, episodes, priority)
    learner, metrics, drawn = learn_in_stages(
        env, agent, config, state.env_steps, state.learner, statistics, replay, learn_key
    )
    metrics["exploring_requested_goal_success"] = jnp.mean(outcome.success)
    metrics["broken_episodes"] = jnp.mean(outcome.broken)
    metrics["dropped_contact_steps"] = jnp.mean(outcome.dropped / env.horizon)
    for i, spec in enumerate(env.cost_specs):
        metrics[f"exploring_{spec.name}"] = jnp.mean(jnp.sum(episodes.cost[..., i], axis=-1))
    played = config.train.num_envs * env.horizon * env.steps_per_action
    state = TrainState(learner, statistics, replay, next_key, state.env_steps + played)
    return state, metrics, drawn


def learn_in_stages(
    env: GoalEnv, agent: Agent, config: Config, env_steps: jax.Array, *state: Any
) -> tuple[Any, dict[str, jax.Array], Drawn]:
    """`learn`, with the batch size that applies after `env_steps`."""
    settings = config.replay
    early = functools.partial(learn, env, agent, config)
    if settings.late_batch_size == 0:
        return early(*state)
    larger = dataclasses.replace(settings, batch_size=settings.late_batch_size)
    late = functools.partial(learn, env, agent, dataclasses.replace(config, replay=larger))
    return jax.lax.cond(env_steps >= settings.late_batch_env_steps, late, early, *state)


def explore(
    env: GoalEnv, agent: Agent, config: Config, state: TrainState, key: Key
) -> tuple[Episode, jax.Array]:
    """One episode [N, ...] in every environment under the exploring policy; consumes `key`.

    Returns:
      The episodes, and in how many steps of each contacts were dropped, int32 [N].
    """

    def policy(key: Key, obs: GoalObs) -> jax.Array:
        return exploring(agent, config, state.learner, state.normalizer, obs, key)

    start_key, policy_key = jax.random.split(key)
    return jax.vmap(functools.partial(rollout.play, env, policy))(
        jax.vmap(env.draw)(jax.random.split(start_key, config.train.num_envs)),
        jax.random.split(policy_key, config.train.num_envs),
    )


def exploring(
    agent: Agent,
    config: Config,
    learner: Any,
    statistics: normalizer.NormalizerState,
    obs: GoalObs,
    key: Key,
) -> jax.Array:
    """The behaviour policy's action for an unbatched observation; consumes `key`."""
    noise_key, action_key = jax.random.split(key)
    seen = _noisy(config, obs.observation, noise_key)
    inputs = normalizer.inputs(statistics, seen, obs.desired_goal, config.normalizer)
    return agent.explore(learner, inputs, action_key)


def _noisy(config: Config, observation: jax.Array, key: Key) -> jax.Array:
    """What training sees of a stored observation [..., O]; consumes `key`."""
    noise = config.train.observation_noise
    return observation + noise * jax.random.normal(key, observation.shape) if noise else observation


def greedy(
    agent: Agent,
    config: Config,
    learner: Any,
    statistics: normalizer.NormalizerState,
    obs: GoalObs,
) -> jax.Array:
    """The deterministic action for an observation of any leading shape."""
    return agent.act(
        learner,
        normalizer.inputs(statistics, obs.observation, obs.desired_goal, config.normalizer),
    )


def observe(
    config: Config, statistics: normalizer.NormalizerState, episodes: Episode, key: Key
) -> normalizer.NormalizerState:
    """Adds new episodes [N, ...] to the statistics, under relabelled goals as in Baselines.

    Baselines draws N x T steps of the new episodes with replacement; here every step is taken
    once, which has the same expectation and less variance. Consumes `key`.
    """
    count, steps = episodes.action.shape[:2]
    episode, time = jnp.divmod(jnp.arange(count * steps), steps)
    seen = relabelled(config, episodes, jnp.asarray(count), Moment(episode, time), key)
    return normalizer.update(statistics, seen.observation, seen.desired_goal, config.normalizer)


def relabelled(
    config: Config, episodes: Episode, stored: jax.Array, steps: Moment, key: Key
) -> Transition:
    """The transitions at `steps` [B], each relabelled by chance; consumes `key`."""
    one = functools.partial(
        relabel.transition,
        episodes,
        stored,
        strategy=relabel.STRATEGIES[config.replay.strategy],
        probability=config.replay.relabel_probability,
        min_displacement=config.replay.min_displacement,
    )
    return jax.vmap(one)(steps, jax.random.split(key, steps.time.shape[0]))


def episode_distribution(config: Config, replay: buffer.BufferState) -> jax.Array | None:
    """Cumulative distribution of replayed episodes, for `buffer.sample`; None if uniform."""
    if config.replay.priority == "uniform":
        return None
    return buffer.cumulative(replay, config.replay.priority_share)


def replayed(
    env: GoalEnv, config: Config, replay: buffer.BufferState, steps: Moment, key: Key
) -> tuple[Transition, jax.Array]:
    """The stored transitions at `steps` [B], relabelled, and their rewards [B]; consumes `key`.

    The reward is the environment's, of the next achieved goal under the goal of the row.
    """
    transitions = relabelled(config, replay.episodes, replay.size, steps, key)
    reward = env.reward(transitions.next_achieved_goal, transitions.desired_goal)
    return transitions, reward


def returns(
    env: GoalEnv,
    config: Config,
    replay: buffer.BufferState,
    steps: Moment,
    transitions: Transition,
    reward: jax.Array,
) -> Returns:
    """n-step returns from `steps` [B], every reward in the window under the goal of the row.

    A window ends after `n_step` steps or with its episode, whose last state is bootstrapped like
    any other because nothing is terminal. With more than one step the return is that of the stored
    actions, which the policy may no longer take: it is off-policy and not corrected.
    """
    discount, n_step = config.agent.discount, config.replay.n_step
    if n_step == 1:
        return Returns(reward, jnp.full_like(reward, discount), transitions.next_observation)
    ahead = jnp.arange(n_step)
    time = steps.time[:, None] + ahead
    taken = time < env.horizon
    episode, later = steps.episode[:, None], jnp.minimum(time + 1, env.horizon)
    achieved = replay.episodes.achieved_goal[episode, later]
    goal = jnp.broadcast_to(transitions.desired_goal[:, None], achieved.shape)
    count = jnp.sum(taken, axis=-1)
    return Returns(
        reward=jnp.sum(taken * discount**ahead * env.reward(achieved, goal), axis=-1),
        discount=discount**count,
        next_observation=replay.episodes.observation[steps.episode, steps.time + count],
    )


def learn(
    env: GoalEnv,
    agent: Agent,
    config: Config,
    learner: Any,
    statistics: normalizer.NormalizerState,
    replay: buffer.BufferState,
    key: Key,
) -> tuple[Any, dict[str, jax.Array], Drawn]:
    """`updates_per_cycle` updates on fresh batches; consumes `key`.

    Batches do not depend on what is learned, so several are drawn at once: an accelerator then
    launches as many kernels for all of them as for one.

    Returns:
      The learner, the means of its metrics, and `audited_rows` rows of each batch, [B, ...].
    """
    settings, distribution = config.replay, episode_distribution(config, replay)

    def draw(key):
        sample_key, label_key, noise_key, update_key = jax.random.split(key, 4)
        steps = buffer.sample(replay, sample_key, settings.batch_size, distribution)
        transitions, reward = replayed(env, config, replay, steps, label_key)
        window = returns(env, config, replay, steps, transitions, reward)
        given = batch(config, statistics, transitions, window, noise_key)
        labels = {
            "replayed_reward": jnp.mean(reward),
            "hindsight_ratio": jnp.mean(transitions.hindsight),
        }
        seen = Drawn(steps, transitions, reward, window)
        shown = jax.tree.map(lambda x: x[: settings.audited_rows], seen)
        return (given, update_key), (labels, shown)

    def update(learner, drawn):
        with _precision(config.train.matmul_precision):
            return agent.update(learner, *drawn)

    def draw_and_update(learner, keys):
        batches, (labels, shown) = jax.vmap(draw)(keys)
        learner, metrics = jax.lax.scan(update, learner, batches)
        return learner, (metrics | labels, shown)

    count = config.train.updates_per_cycle
    keys = jax.random.split(key, count).reshape(-1, batches_at_once(count))
    learner, (metrics, drawn) = jax.lax.scan(draw_and_update, learner, keys)
    drawn = jax.tree.map(lambda x: x.reshape(-1, *x.shape[3:]), drawn)
    return learner, jax.tree.map(jnp.mean, metrics), drawn


def batches_at_once(updates: int) -> int:
    """How many batches are drawn together of so many updates: the most that go into them evenly."""
    return max(n for n in range(1, MAX_BATCHES_AT_ONCE + 1) if updates % n == 0)


def _precision(name: str) -> contextlib.AbstractContextManager[None]:
    """Of matrix products inside; "default" leaves what JAX is set to."""
    return contextlib.nullcontext() if name == "default" else jax.default_matmul_precision(name)


def batch(
    config: Config,
    statistics: normalizer.NormalizerState,
    transitions: Transition,
    window: Returns,
    key: Key,
) -> Batch:
    """What the agent sees of transitions [B]: both states under the same goal, normalised.

    Consumes `key` for the noise on what is observed, if there is any.
    """
    now_key, next_key = jax.random.split(key)

    def normalized(observation: jax.Array) -> jax.Array:
        return normalizer.inputs(
            statistics, observation, transitions.desired_goal, config.normalizer
        )

    return Batch(
        inputs=normalized(_noisy(config, transitions.observation, now_key)),
        action=transitions.action,
        reward=window.reward,
        discount=window.discount,
        next_inputs=normalized(_noisy(config, window.next_observation, next_key)),
    )
