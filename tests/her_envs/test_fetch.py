"""The environments as pure functions: batching, randomness, options, refusals."""

# pyright: reportAttributeAccessIssue=false
# MuJoCo's bindings come without type stubs.

from __future__ import annotations

import functools
import importlib.util
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import chex
import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

import her_envs
from conftest import REPO, fetch, fetch_reset, fetch_step, same
from her_envs.fetch import cost, model
from her_envs.fetch.env import MIN_OBJECT_DISTANCE
from her_envs.fetch.tasks import TASKS
from her_envs.physics import base, native
from her_jax.errors import UserError
from her_jax.types import Box, GoalObs

COUNT = 6
"""Environments of most tests: what is compiled for each number of them is not kept on disk."""


def test_names():
    fetch_names = ("FetchReach", "FetchPush", "FetchSlide", "FetchPickAndPlace")
    assert her_envs.names() == (*fetch_names, "BitFlip")


def test_sizes_and_goal_spec(env):
    state = fetch_reset(env.name)(jax.random.split(jax.random.key(0), COUNT))
    assert isinstance(state.obs, GoalObs)
    assert state.obs.observation.shape == (COUNT, env.observation_size)
    assert state.obs.achieved_goal.shape == state.obs.desired_goal.shape == (COUNT, 3)
    assert env.horizon == 50 and env.action_size == 4
    spec = env.goal_spec
    assert (spec.size, spec.units, spec.tolerance) == (3, "m", 0.05)
    assert spec.name == ("gripper position" if env.name == "FetchReach" else "object position")


def test_any_batch_shape_gives_the_same_bits(env):
    keys = jax.random.split(jax.random.key(0), 6)
    action = jax.random.uniform(jax.random.key(1), (6, 4), minval=-1, maxval=1)
    flat = fetch_step(env.name)(fetch_reset(env.name)(keys), action)

    @jax.jit
    def nest(keys, action):
        return jax.vmap(jax.vmap(env.step))(jax.vmap(jax.vmap(env.reset))(keys), action)

    nested = nest(keys.reshape(2, 3), action.reshape(2, 3, 4))
    single = jax.jit(lambda key, action: env.step(env.reset(key), action))(keys[4], action[4])
    for one, many, alone in zip(*map(jax.tree.leaves, (flat, nested, single)), strict=True):
        np.testing.assert_array_equal(one, many.reshape(one.shape))
        np.testing.assert_array_equal(one[4], alone)


@pytest.mark.parametrize("variant", ["stock", "portable"])
def test_costs_by_hand(variant):
    """The portable model has a sensor of forces for each pair of geoms, whose sum counts."""
    scene = her_envs.make("FetchPush", model=variant).physics.scene
    at, data = base.Handles.of(scene), mujoco.MjData(scene.model)
    mujoco.mj_setState(scene.model, data, scene.row, mujoco.mjtState.mjSTATE_INTEGRATION)
    mujoco.mj_forward(scene.model, data)
    data.sensordata[at.distances] = np.linspace(-0.001, 0.03, len(at.distances))
    data.sensordata[at.distances[1]] = -0.02  # the deepest
    data.sensordata[at.distances] -= at.skins
    forces = np.zeros((len(at.forces) // 3, 3))
    forces[0] = [3, 0, 1]
    forces[-1] += [0, 4, -1]
    data.sensordata[at.forces] = forces.ravel()
    read = base.readings(data, at)
    inside = np.array([1.0, 0.5, 0.5])
    read = read._replace(
        grip_pos=inside - np.array([0.3, 0.4, 0.0]),
        grip_velp=np.array([0.02, 0.0, 0.0]),  # metres a step of 0.04 s
        object_pos=np.array([1.3, 0.75, scene.table_top - 0.001]),
    )
    box = Box(tuple(inside), (2.0, 2.0, 2.0))
    np.testing.assert_allclose(cost.costs(read, scene, box), [5.0, 0.02, 0.5, 0.5, 1.0], rtol=1e-5)
    above = read._replace(object_pos=np.array([1.3, 0.75, scene.table_top + 0.001]))
    assert cost.costs(above, scene, box)[-1] == 0


@pytest.mark.parametrize("name", TASKS)
def test_the_workspace_is_the_box_of_starts_and_goals_and_a_margin(name):
    env = fetch(name)
    here, top = env.physics.scene.gripper_pos, env.physics.scene.table_top
    centre = here + {"FetchSlide": np.array([0.4, 0.0, 0.0])}.get(name, np.zeros(3))
    reach = {"FetchSlide": 0.3}.get(name, 0.15)
    starts = {"FetchSlide": 0.1}.get(name, 0.15)
    resting = env.physics.scene.object_height if name != "FetchReach" else 0.0
    highest = {"FetchReach": here[2] + 0.15, "FetchPickAndPlace": resting + 0.45}.get(name, resting)
    low, high = env._workspace()
    np.testing.assert_allclose(low[:2], np.minimum(centre - reach, here - starts)[:2] - 0.1)
    np.testing.assert_allclose(high[:2], np.maximum(centre + reach, here + starts)[:2] + 0.1)
    assert low[2] == top and high[2] == pytest.approx(max(here[2], highest) + 0.1)


def test_number_of_threads_does_not_change_a_bit():
    keys = jax.random.split(jax.random.key(0), 7)
    states = []
    for threads in (1, 3):
        env = her_envs.make("FetchSlide", num_threads=threads)
        state = jax.vmap(env.step)(jax.vmap(env.reset)(keys), jnp.ones((7, 4)))
        states.append(jax.tree.leaves(state))
    for a, b in zip(*states, strict=True):
        np.testing.assert_array_equal(a, b)


def test_steps_are_functions_of_their_arguments(env):
    """Other simulations in between leave no trace."""
    step, actions = fetch_step(env.name), jnp.ones((COUNT, 4))
    state = fetch_reset(env.name)(jax.random.split(jax.random.key(5), COUNT))
    first = step(state, actions)
    other = fetch_reset(env.name)(jax.random.split(jax.random.key(6), COUNT))
    step(step(other, -actions), actions)
    assert same(first, step(state, actions))


@pytest.mark.parametrize("speed", [np.nan, 1e11])
def test_a_broken_simulation_says_so(speed, capfd, monkeypatch, tmp_path):
    """MuJoCo resets it by itself, and the object would be somewhere else without a word."""
    monkeypatch.chdir(tmp_path)  # MuJoCo writes a log where it stands
    env, keys, action = (
        fetch("FetchPush"),
        jax.random.split(jax.random.key(0), 3),
        jnp.zeros((3, 4)),
    )
    states = fetch_reset("FetchPush")(keys)
    rows = native.floats(states.physics.row).copy()
    rows[1, 1 + env.physics.scene.model.nq + 3] = speed
    broken = states.replace(physics=states.physics.replace(row=jnp.asarray(native.bits(rows))))
    after, intact = (fetch_step("FetchPush")(x, action) for x in (broken, states))
    for leaf in (after.obs.observation, after.obs.achieved_goal):
        assert np.isnan(leaf[1]).all()
    for one, other in zip(*map(jax.tree.leaves, (after, intact)), strict=True):
        np.testing.assert_array_equal(one[0::2], other[0::2])
    assert "unstable" in capfd.readouterr().err
    assert same(fetch_step("FetchPush")(states, action), intact)  # nothing of it stays


def test_concurrent_callbacks_do_not_mix():
    """Two Python threads step simulations of one size through one environment."""
    env = fetch("FetchPush")
    step = fetch_step(env.name)
    states = [fetch_reset(env.name)(jax.random.split(jax.random.key(i), COUNT)) for i in range(2)]

    def walk(state):
        for _ in range(10):
            state = step(state, jnp.ones((COUNT, 4)))
        return jax.block_until_ready(state)

    expected = [walk(state) for state in states]
    with ThreadPoolExecutor(2) as pool:
        for got, alone in zip(pool.map(walk, states), expected, strict=True):
            assert same(got, alone)


def test_a_single_core_does_not_deadlock():
    """Steps queued without waiting, on one core, where XLA has one thread for everything."""
    program = """
import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
import jax, jax.numpy as jnp, her_envs
env = her_envs.make("FetchReach")
state = jax.jit(jax.vmap(env.reset))(jax.random.split(jax.random.key(0), 200))
step = jax.jit(jax.vmap(env.step))
for _ in range(15):
    state = step(state, jnp.tanh(state.obs.observation[:, :4]))
jax.block_until_ready(state)
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120, cwd=REPO)


def test_copies_for_an_accelerator_are_of_the_same_bits(env):
    """Outside of a program, where the callback that serves accelerators works on a CPU, too."""
    host = env.physics._host_reset
    sizes = env.physics._result_shape()
    places = np.array([[1.3, 0.7], [1.35, 0.75], [1.4, 0.8]], np.float32)
    copied = jax.vmap(functools.partial(native._copied, host, sizes, "broadcast_all"))
    assert any(leaf.size == 0 for leaf in jax.tree.leaves(sizes))
    expected = jax.vmap(env.physics.reset)(places)
    found = copied(places)
    assert jax.tree.map(jnp.shape, found) == jax.tree.map(jnp.shape, expected)
    assert same(found, expected)


@pytest.mark.gpu
def test_a_gpu_steps_the_same_physics():
    """There the callback goes through JAX's own transfer; the simulator's bits are the same."""
    assert jax.default_backend() == "gpu"
    keys, ends = jax.random.split(jax.random.key(0), 4), []
    for device in (jax.devices()[0], jax.devices("cpu")[0]):
        with jax.default_device(device):
            env = her_envs.make("FetchPush")
            state = jax.jit(jax.vmap(env.reset))(jax.device_put(keys, device))
            state = jax.jit(jax.vmap(env.step))(state, jnp.full((4, 4), 0.5))
            ends.append(np.asarray(state.physics.row))
    np.testing.assert_array_equal(*ends)


def test_every_reset_draws_a_new_goal_and_object(env):
    keys = jax.random.split(jax.random.key(2), (11, COUNT))
    states = [fetch_reset(env.name)(some) for some in keys]
    obs = jax.tree.map(lambda *x: np.concatenate(x), *(state.obs for state in states))
    assert len(np.unique(obs.desired_goal, axis=0)) == keys.size
    if env.task.has_object:
        assert len(np.unique(obs.achieved_goal, axis=0)) == keys.size


def test_objects_start_off_the_gripper_and_inside_the_square(env):
    if not env.task.has_object:
        pytest.skip("Reach has no object")
    starts = jax.vmap(env.draw)(jax.random.split(jax.random.key(3), 5000))
    offset = np.asarray(starts.object_xy) - env.physics.scene.gripper_pos[:2]
    assert np.linalg.norm(offset, axis=1).min() >= MIN_OBJECT_DISTANCE - 1e-6
    assert np.abs(offset).max() <= env.task.object_range + 1e-6
    # All four corners of the square are reached: nothing falls back to a fixed place.
    corners = np.abs(offset).min(axis=1) > 0.8 * env.task.object_range
    for x, y in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
        assert (corners & (offset @ [x, 0] > 0) & (offset @ [0, y] > 0)).any()


def test_half_of_the_goals_are_in_the_air():
    env = fetch("FetchPickAndPlace")
    starts = jax.vmap(env.draw)(jax.random.split(jax.random.key(4), 4000))
    height = np.asarray(starts.desired_goal[:, 2]) - env.physics.scene.object_height
    assert abs((height > 1e-5).mean() - 0.5) < 0.04
    assert height.max() <= 0.45 + 1e-6


def test_fourth_action_moves_the_fingers_only_in_pick_and_place(env):
    state = fetch_reset(env.name)(jax.random.split(jax.random.key(5), COUNT))
    opening, closing = (
        fetch_step(env.name)(state, jnp.zeros((COUNT, 4)).at[:, 3].set(value)).obs.observation
        for value in (1.0, -1.0)
    )
    assert (not np.array_equal(opening, closing)) == (env.name == "FetchPickAndPlace")


def test_actions_are_clipped(env):
    state = fetch_reset(env.name)(jax.random.split(jax.random.key(5), COUNT))
    wild, full = (
        fetch_step(env.name)(state, jnp.full((COUNT, 4), value)).obs.observation
        for value in (7.0, 1.0)
    )
    np.testing.assert_array_equal(wild, full)


def test_actions_of_another_size_are_refused(env):
    state = fetch_reset(env.name)(jax.random.split(jax.random.key(5), COUNT))
    for size in (3, 5):
        with pytest.raises(AssertionError):
            jax.vmap(env.step)(state, jnp.zeros((COUNT, size)))


def test_goals_stay_for_the_whole_episode(env):
    state = fetch_reset(env.name)(jax.random.split(jax.random.key(6), COUNT))
    actions = jnp.ones((COUNT, 4))
    after = fetch_step(env.name)(fetch_step(env.name)(state, actions), actions)
    np.testing.assert_array_equal(after.obs.desired_goal, state.obs.desired_goal)


def test_reward_and_success_hit_miss_and_threshold(env):
    """On the threshold the reward is paid and success is not: the original's difference."""
    goal = jnp.array([1.25, 0.75, 0.5])
    tolerance = jnp.float32(0.05)
    origin, on_threshold = jnp.zeros(3), jnp.array([0.0, 0.0, tolerance])
    assert float(env.reward(goal, goal)) == 0.0 and bool(env.success(goal, goal))
    far = goal + jnp.array([0.051, 0, 0])
    assert float(env.reward(far, goal)) == -1.0 and not bool(env.success(far, goal))
    assert float(env.reward(on_threshold, origin)) == 0.0
    assert not bool(env.success(on_threshold, origin))
    broken = jnp.full(3, jnp.nan)
    assert float(env.reward(broken, goal)) == -1.0 and not bool(env.success(broken, goal))
    batch = env.reward(jnp.zeros((2, 3, 3)), jnp.ones((2, 3, 3)))
    assert batch.shape == (2, 3) and batch.dtype == jnp.float32


def test_named_variants_leave_parity():
    dense = her_envs.make("FetchPush", reward="dense")
    np.testing.assert_allclose(dense.reward(jnp.zeros(3), jnp.array([0.3, 0.4, 0.0])), -0.5)
    assert her_envs.make("FetchPush", tolerance="her2017").goal_spec.tolerance == 0.07
    assert her_envs.make("FetchPickAndPlace", tolerance="her2017").goal_spec.tolerance == 0.07
    assert her_envs.make("FetchSlide", tolerance="her2017").goal_spec.tolerance == 0.20


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "FetchPull"}, "environment: 'FetchPull' is unknown; choose one of FetchReach"),
        ({"physics": "bullet"}, "physics: 'bullet' is unknown; choose one of native, warp, jax"),
        ({"tolerance": "wide"}, "tolerance: 'wide' is unknown; choose one of v4"),
        ({"reward": "shaped"}, "reward: 'shaped' is unknown; choose one of sparse"),
        ({"num_threads": -1}, "num_threads: -1 is negative"),
        ({"name": "FetchReach", "tolerance": "her2017"}, "is not defined for FetchReach"),
        ({"n": 20}, "n: 20 has no meaning in FetchPush; leave it at 10"),
        ({"name": "BitFlip", "reward": "dense"}, "reward: 'dense' has no meaning in BitFlip"),
        ({"name": "BitFlip", "goal": "single"}, "goal: 'single' has no meaning in BitFlip"),
        ({"name": "BitFlip", "physics": "jax"}, "physics: 'jax' has no meaning in BitFlip"),
        ({"name": "BitFlip", "model": "fast"}, "model: 'fast' has no meaning in BitFlip"),
        ({"name": "BitFlip", "tolerance": "her2017"}, "tolerance: 'her2017' has no meaning"),
        ({"name": "BitFlip", "action_repeat": 2}, "action_repeat: 2 has no meaning in BitFlip"),
    ],
)
def test_bad_arguments_get_one_line(arguments, message):
    with pytest.raises(UserError) as error:
        her_envs.make(**{"name": "FetchPush", **arguments})
    assert message in str(error.value) and "\n" not in str(error.value)


def test_missing_package_and_missing_meshes_say_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install gymnasium-robotics==1\.4\.2"):
        her_envs.make("FetchPush")
    monkeypatch.undo()
    xml = (model.asset_folder() / "push.xml").read_text()
    (tmp_path / "push.xml").write_text(xml)  # alone, without shared.xml and meshes
    monkeypatch.setattr(model, "asset_folder", lambda: tmp_path)
    with pytest.raises(UserError, match=r"Fetch meshes: .*push\.xml does not load") as error:
        her_envs.make("FetchPush")
    assert "\n" not in str(error.value)


def test_restored_readings_are_of_the_restored_states():
    """Contact sensors too, whatever the same simulations held before; the hand is on the table."""
    env = fetch("FetchPush")
    state = fetch_reset("FetchPush")(jax.random.split(jax.random.key(0), COUNT))
    rows = native.floats(np.asarray(state.physics.row))
    lifted = rows.copy()
    lifted[:, 1 + int(env.physics.scene.model.joint("robot0:slide2").qposadr[0])] += 0.2
    forces = [np.asarray(env.physics.restore(r)[1].table_force) for r in (rows, lifted, rows)]
    assert (forces[0] > 0).all() and not forces[1].any()
    np.testing.assert_array_equal(forces[0], forces[2])


def test_restore_takes_any_leading_shape_and_only_float64(env):
    from her_envs.physics.native import floats

    state = fetch_reset(env.name)(jax.random.split(jax.random.key(0), 6))
    rows = floats(np.asarray(state.physics.row)).reshape(2, 3, -1)
    goals = np.asarray(state.obs.desired_goal).reshape(2, 3, 3)
    restored = env.restore(rows, goals)
    assert restored.obs.observation.shape == (2, 3, env.observation_size)
    stepped = jax.jit(jax.vmap(jax.vmap(env.step)))(restored, jnp.ones((2, 3, 4)))
    expected = fetch_step(env.name)(state, jnp.ones((6, 4)))
    np.testing.assert_array_equal(
        np.asarray(stepped.physics.row).reshape(6, -1), expected.physics.row
    )
    with pytest.raises(UserError, match="row: float32 array"):
        env.restore(rows.astype(np.float32), goals)
    with pytest.raises(UserError, match="row: float64 array of shape"):
        env.restore(rows[..., :-1], goals)
    with pytest.raises(UserError, match="desired_goal: shape"):
        env.restore(rows, goals[0])
    nq, nv = env.physics.scene.model.nq, env.physics.scene.model.nv
    with pytest.raises(UserError, match="qpos"):
        env.state_at(np.zeros(3), np.zeros(nv), np.zeros(3))
    with pytest.raises(UserError, match="qvel: leading shape"):
        env.state_at(np.zeros((2, nq)), np.zeros((3, nv)), np.zeros((2, 3)))


def test_step_is_traced_once_for_a_batch_size():
    env = fetch("FetchReach")
    step = jax.jit(jax.vmap(chex.assert_max_traces(env.step, n=1)))
    state = fetch_reset(env.name)(jax.random.split(jax.random.key(0), COUNT))
    for _ in range(3):
        state = step(state, jnp.zeros((COUNT, 4)))
