from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import her_envs
from her_jax import evaluate, rollout
from her_jax.audit import reward
from her_jax.errors import UserError

BITS = 6


@pytest.fixture(scope="module")
def env():
    return her_envs.make("BitFlip", n=BITS)


def test_shape_of_the_problem(env):
    assert env.horizon == env.action_size == env.observation_size == env.goal_spec.size == BITS
    assert env.discrete and env.goal_spec.count == 2**BITS
    assert env.name == "BitFlip6"
    with pytest.raises(UserError, match="n: 0"):
        her_envs.make("BitFlip", n=0)


def test_an_action_flips_one_bit_and_nothing_else(env):
    start = env.draw(jax.random.key(0))
    state = env.begin(start)
    for i in range(BITS):
        after = env.step(state, jnp.eye(BITS)[i])
        expected = np.array(start.bits)
        expected[i] = 1 - expected[i]
        np.testing.assert_array_equal(after.obs.observation, expected)
        np.testing.assert_array_equal(after.obs.achieved_goal, expected)
        np.testing.assert_array_equal(after.obs.desired_goal, start.desired_goal)
    np.testing.assert_array_equal(env.step(state, jnp.zeros(BITS)).obs.observation, start.bits)


def test_starts_and_goals_are_uniform_and_independent(env):
    starts = jax.vmap(env.draw)(jax.random.split(jax.random.key(0), 20_000))
    bits, goals = np.asarray(starts.bits), np.asarray(starts.desired_goal)
    assert set(np.unique(bits)) == set(np.unique(goals)) == {0.0, 1.0}
    np.testing.assert_allclose(bits.mean(0), 0.5, atol=0.02)
    np.testing.assert_allclose(goals.mean(0), 0.5, atol=0.02)
    np.testing.assert_allclose((bits == goals).mean(0), 0.5, atol=0.02)
    # Solved from the start once in 2^n.
    assert abs((bits == goals).all(1).mean() - 2.0**-BITS) < 0.004


def test_reward_passes_its_test_and_is_sparse(env):
    assert set(reward.examine(env).values()) == {"pass"}
    goal = jnp.ones(BITS)
    assert env.reward(goal, goal) == 0 and env.reward(goal.at[0].set(0), goal) == -1


def test_an_episode_succeeds_at_any_step(env):
    """Flipping the wrong bits in turn passes through the goal; the last step has left it."""
    start = env.draw(jax.random.key(3))
    start = start._replace(bits=1 - start.desired_goal)

    def policy(key, obs):
        del key
        wrong = jnp.abs(obs.observation - obs.desired_goal)
        return jax.nn.one_hot(jnp.argmax(wrong), BITS)

    longer = her_envs.BitFlipEnv(BITS)
    played, _ = rollout.play(longer, policy, start, jax.random.key(0))
    assert bool(evaluate.outcome(longer, played).success)

    def restless(key, obs):
        done = jnp.all(obs.observation == obs.desired_goal)
        return jnp.where(done, jnp.eye(BITS)[0], policy(key, obs))

    near = start._replace(bits=start.desired_goal.at[2].add(1 - 2 * start.desired_goal[2]))
    outcome = evaluate.outcome(longer, rollout.play(longer, restless, near, jax.random.key(0))[0])
    assert bool(outcome.success) and bool(outcome.success_any)


def test_doing_nothing_fails(env):
    starts = jax.vmap(env.draw)(jax.random.split(jax.random.key(0), 500))
    idle = evaluate.evaluate(env, evaluate.no_action(env), starts)
    assert evaluate.mean(idle.success) < 0.06
