"""The reward test accepts rewards of goals alone and nothing else."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import her_envs
from conftest import SILENT, fetch
from her_envs.fetch.tasks import TASKS
from her_jax.audit import reward
from her_jax.errors import UserError
from her_jax.runner import Run
from her_jax.types import Box
from toy import PointEnv

PARTS = {"hit", "miss", "threshold", "pure", "grounded", "agrees", "range"}


@pytest.mark.parametrize("name", TASKS)
def test_every_task_passes(name):
    assert reward.examine(fetch(name)) == dict.fromkeys(PARTS, "pass")


@pytest.mark.parametrize(
    "variant", [{"tolerance": "her2017"}, {"reward": "dense"}], ids=["her2017", "dense"]
)
def test_variants_pass_with_their_own_pairs(variant):
    assert set(reward.examine(her_envs.make("FetchPush", **variant)).values()) == {"pass"}


class Remembering(PointEnv):
    """Pays less the more often it was asked."""

    calls = np.zeros(1)

    def reward(self, achieved_goal, desired_goal):
        self.calls[0] += 1
        return super().reward(achieved_goal, desired_goal) - self.calls[0]


class Peeking(PointEnv):
    """Asks the host, which knows the history of training."""

    def reward(self, achieved_goal, desired_goal):
        paid = super().reward(achieved_goal, desired_goal)
        shape = jax.ShapeDtypeStruct(paid.shape, paid.dtype)
        return jax.pure_callback(lambda x: np.asarray(x), shape, paid)


class Stateful(PointEnv):
    """Wants the simulator's state as well."""

    def reward(self, achieved_goal, desired_goal, state):  # type: ignore
        return super().reward(achieved_goal, desired_goal) + state


class Batchwise(PointEnv):
    """Pays by comparison with the rest of the batch."""

    def reward(self, achieved_goal, desired_goal):
        return super().reward(achieved_goal, desired_goal) - jnp.mean(achieved_goal)


class Undefined(PointEnv):
    """Cannot score goals that were never visited."""

    def reward(self, achieved_goal, desired_goal):
        paid = super().reward(achieved_goal, desired_goal)
        return jnp.where(jnp.abs(desired_goal).max(-1) > 1, jnp.nan, paid)


class Aliased(PointEnv):
    """Success depends on more than the goals."""

    calls = np.zeros(1)

    def success(self, achieved_goal, desired_goal):
        self.calls[0] += 1
        return super().success(achieved_goal, desired_goal) ^ (self.calls[0] % 3 == 0)


class Wider(PointEnv):
    """Pays within twice the tolerance that success is judged by."""

    def reward(self, achieved_goal, desired_goal):
        return PointEnv(tolerance=2 * self.tolerance).reward(achieved_goal, desired_goal)


class Positive(PointEnv):
    """Pays 1 for a hit and 0 for a miss, and says so."""

    def reward(self, achieved_goal, desired_goal):
        return super().reward(achieved_goal, desired_goal) + 1

    @property
    def reward_pairs(self):
        return tuple(pair._replace(reward=pair.reward + 1) for pair in super().reward_pairs)


class Tenfold(PointEnv):
    """Pays -10 for a miss, and says so."""

    def reward(self, achieved_goal, desired_goal):
        return 10 * super().reward(achieved_goal, desired_goal)

    @property
    def reward_pairs(self):
        return tuple(pair._replace(reward=10 * pair.reward) for pair in super().reward_pairs)


class Distant(PointEnv):
    """Pays for being far away."""

    def reward(self, achieved_goal, desired_goal):
        far = jnp.linalg.norm(achieved_goal - desired_goal, axis=-1) > 1.5
        return jnp.where(far, 5.0, super().reward(achieved_goal, desired_goal))


class Undefinable(PointEnv):
    """Pays no number far from the goal."""

    def reward(self, achieved_goal, desired_goal):
        far = jnp.linalg.norm(achieved_goal - desired_goal, axis=-1) > 1.5
        return jnp.where(far, jnp.nan, super().reward(achieved_goal, desired_goal))


@pytest.mark.parametrize(
    ("env", "part", "complaint"),
    [
        (Undefinable(), "range", "pays what is not finite"),
        (Positive(), "range", "pays up to 1; targets are clipped at 0"),
        (Tenfold(), "range", "pays -10 where the goal is missed"),
        (Distant(), "range", "pays up to 5; targets are clipped at 0"),
        (Remembering(), "pure", "depends on order"),
        (Peeking(), "pure", "calls back to the host"),
        (Batchwise(), "pure", "depends on order"),
        (Undefined(), "pure", "does not score every pair"),
        (Aliased(), "grounded", "depends on order"),
        (Wider(), "agrees", "reward and success disagree on"),
    ],
)
def test_bad_rewards_are_refused(env, part, complaint):
    assert complaint in reward.examine(env)[part]


def test_a_reward_with_a_third_argument_is_refused():
    assert "takes 3 arguments" in reward._pure(PointEnv(), Stateful().reward)


def test_pairs_must_be_there_and_hold():
    class Short(PointEnv):
        @property
        def reward_pairs(self):
            return super().reward_pairs[:1]

    assert reward.examine(Short())["miss"] == "no such pair"

    class Swapped(PointEnv):
        @property
        def reward_pairs(self):
            hit, miss, threshold = super().reward_pairs
            return hit._replace(reward=-1.0), miss._replace(success=True), threshold

    results = reward.examine(Swapped())
    assert results["hit"] == "pays -0 instead of -1" or results["hit"] == "pays 0 instead of -1"
    assert results["miss"] == "success is False instead of True"


@pytest.mark.parametrize("size", [1, 3, 15])
def test_right_rewards_pass_whatever_the_size_of_their_goal(size):
    class Tall(PointEnv):
        @property
        def goal_spec(self):
            names = tuple(f"x{i}" for i in range(size))
            box = Box((-1.0,) * size, (1.0,) * size)
            return dataclasses.replace(super().goal_spec, coordinates=names, region=box, bounds=box)

    assert reward.examine(Tall())["agrees"] == "pass"


@pytest.mark.parametrize(
    ("paid", "complaint"),
    [
        (lambda apart: -1.0 * (np.linalg.norm(apart, axis=-1) > 0.1), "NumPy knows no traced"),
        (lambda apart: 0.0 if jnp.linalg.norm(apart) < 0.1 else -1.0, "`if`, `and` and `or` know"),
        (lambda apart: -1.0 * (jnp.linalg.norm(apart) > 0.1), "zero-dimensional"),  # of one pair
    ],
)
def test_a_reward_that_cannot_be_run_is_refused_in_one_line(paid, complaint, config, tmp_path):
    class Mistaken(PointEnv):
        def reward(self, achieved_goal, desired_goal):
            return paid(achieved_goal - desired_goal)

    with pytest.raises(UserError, match=f"^reward: Point fails its reward test.*{complaint}") as at:
        Run(Mistaken(), config, tmp_path / "r", SILENT).start()
    assert "\n" not in str(at.value)


def test_a_device_that_is_full_is_no_fault_of_the_reward(config, tmp_path):
    class Full(PointEnv):
        message = "RESOURCE_EXHAUSTED: Out of memory"

        def reward(self, achieved_goal, desired_goal):
            raise jax.errors.JaxRuntimeError(self.message)

    with pytest.raises(jax.errors.JaxRuntimeError, match="RESOURCE"):
        Run(Full(), config, tmp_path / "r", SILENT).start()
    Full.message = "INTERNAL: of a callback of the user's own"
    with pytest.raises(UserError, match="reward: Point fails its reward test: INTERNAL"):
        Run(Full(), config, tmp_path / "r", SILENT).start()


def test_nothing_is_trained_with_a_bad_reward(config, tmp_path):
    with pytest.raises(UserError, match="Point fails its reward test 'agrees'"):
        Run(Wider(), config, tmp_path / "r", SILENT).start()
    assert not (tmp_path / "r").exists()
