"""MuJoCo Warp and MJX on the CPU: few simulations, few steps, the code that accelerators run."""

# pyright: reportAttributeAccessIssue=false, reportArgumentType=false
# MuJoCo's bindings come without type stubs, and `Breaking` delegates at run time.

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import types

import jax
import jax.numpy as jnp
import jaxlib.version
import mujoco
import numpy as np
import pytest
from mujoco import mjx as mujoco_mjx

import ahead_of_time
import fidelity
import her_envs
from conftest import LEARNING, SILENT, fetch, optimised, same, with_
from her_envs.fetch import model as scenes
from her_envs.fetch import prune
from her_envs.fetch.tasks import TASKS
from her_envs.physics import mjx, pure
from her_envs.physics.mjx import GRAPH_MODES, RATES, Mjx, MjxState, hoisted, over_any_batch
from her_envs.physics.native import floats
from her_jax import agents, rollout, train
from her_jax.errors import UserError
from her_jax.runner import Run

COUNT = 3
ACTIONS = jnp.zeros((COUNT, 4))


@functools.cache
def made(name: str, physics: str, model: str) -> her_envs.FetchEnv:
    return her_envs.make(name, physics=physics, model=model)


def warp(name: str) -> her_envs.FetchEnv:
    return made(name, "warp", "stock")


@functools.cache
def stepping(name: str, physics: str = "warp", model: str = "stock"):
    return jax.jit(jax.vmap(made(name, physics, model).step))


@functools.cache
def played(name: str, physics: str = "warp", model: str = "stock"):
    """States of COUNT environments after a reset and after each of 3 steps, the last downwards."""
    reset = jax.jit(jax.vmap(made(name, physics, model).reset))
    states = [reset(jax.random.split(jax.random.key(0), COUNT))]
    actions = jax.random.uniform(jax.random.key(1), (3, COUNT, 4), minval=-1.0, maxval=1.0)
    # Pure JAX that XLA does not optimise takes a quarter of an hour for these steps.
    with optimised() if physics == "jax" else contextlib.nullcontext():
        for action in actions.at[-1, :, 2].set(-1.0):
            states.append(stepping(name, physics, model)(states[-1], action))
    return states


PRUNED = [model for model in scenes.VARIANTS if model != "stock"]  # that one is test_reference's
NATIVE = [(name, "native", model) for name in TASKS for model in PRUNED]
DEVICE = [(name, "warp", "stock") for name in TASKS]
DEVICE += [("FetchPush", "warp", "fast"), ("FetchReach", "jax", "portable")]
LONG = [(name, "warp", model) for name in TASKS for model in PRUNED]
LONG += [(name, "jax", "portable") for name in TASKS]


@pytest.mark.parametrize(
    ("name", "physics", "model"),
    [
        *NATIVE,
        *DEVICE,
        *(pytest.param(*each, marks=pytest.mark.slow) for each in LONG if each not in DEVICE),
    ],
)
def test_every_backend_and_model_keeps_the_contract(name, physics, model):
    """Starts, shapes, goals, costs and small errors against the original, of a few steps."""
    env, reference = made(name, physics, model), fetch(name)
    assert env.goal_spec == reference.goal_spec and env.cost_specs == reference.cost_specs
    got, expected = played(name, physics, model), played(name, "native", "stock")
    for state, other in zip(got, expected, strict=True):
        assert jax.tree.map(jnp.shape, state.obs) == jax.tree.map(jnp.shape, other.obs)
        assert state.cost.shape == other.cost.shape and not state.dropped.any()
        np.testing.assert_array_equal(state.obs.desired_goal, other.obs.desired_goal)
        position = slice(0, 6 if env.task.has_object else 3)
        error = np.abs(state.obs.observation - other.obs.observation)[:, position]
        assert error.max() <= 5e-3, error.max(axis=0)
        assert np.median(error) <= (5e-4 if physics == "jax" else 2e-4)
        if name == "FetchPickAndPlace":  # the hand is in the air, and the block's weight not on it
            assert not np.asarray(other.cost)[:, 0].any()
            assert not np.asarray(state.cost)[:, 0].any()
        for cost, near_zero in ((0, 1e-3), (1, 2e-7)):  # what sensors read: newtons and metres
            np.testing.assert_allclose(
                state.cost[:, cost],
                other.cost[:, cost],
                rtol=0.01 if model == "stock" else 0.08,
                atol=near_zero,
            )
    force, depth = np.asarray(expected[1].cost)[:, :2].T
    assert depth.all() or not env.task.has_object
    assert force.any() == (name in ("FetchPush", "FetchSlide"))  # the hand starts on the table


def test_pure_jax_warns_where_it_may_hang(monkeypatch):
    """A batch of some 300 and more waits for ever, by `lapack_spotrf` of jaxlib 0.10.2."""
    monkeypatch.setenv("NPROC", "1")
    assert not mjx._may_hang()
    monkeypatch.setenv("NPROC", "2")
    monkeypatch.setattr(jaxlib.version, "__version_info__", (0, 11, 1))
    assert not mjx._may_hang()
    monkeypatch.setattr(jaxlib.version, "__version_info__", (0, 11, 0))
    with pytest.warns(RuntimeWarning, match="'jax' can hang on a CPU .* NPROC=1"):
        her_envs.make("FetchReach", physics="jax", model="portable")


@pytest.mark.slow
def test_pure_jax_resets_the_portable_model():
    """Its forward dynamics, contacts included."""
    starts = [
        jax.jit(jax.vmap(made("FetchPush", physics, "portable").reset))(
            jax.random.split(jax.random.key(0), COUNT)
        )
        for physics in ("jax", "native")
    ]
    got, expected = (np.asarray(start.obs.observation) for start in starts)
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_the_control_of_fidelity_is_the_original_from_rounded_states():
    env = fetch("FetchPush")
    states = played("FetchPush", "native", "stock")[1]  # the hand on the table
    actions = np.asarray(ACTIONS)
    after = stepping("FetchPush", "native", "stock")(states, ACTIONS).obs.observation[:, :6]
    steps = fidelity.Steps(states.physics, actions, np.asarray(after))
    found = fidelity.one_step(env, env, steps)["one_step"]
    assert found["gripper"]["largest"] < 1e-5
    given = floats(states.physics.row)
    started = floats(fidelity._started(env, env, states.physics, whole=True).physics.row)
    np.testing.assert_array_equal(started, given.astype(np.float32))
    assert (started != given).any()
    assert found["states"] == COUNT and found["over_0.2_mm"] == 0


def test_a_puck_coasts_where_nothing_holds_it():
    """The first of three: the second rests, the third slides off the table."""
    env = fetch("FetchSlide")
    nq, nv = env.physics.scene.model.nq, env.physics.scene.model.nv
    start = env.physics.scene.row[1 : 1 + nq]
    qpos, qvel = np.tile(start, (3, 1)), np.zeros((3, nv))
    qpos[:, -7], qpos[:, -6] = (1.3, 1.3, 1.9), 0.75  # ahead of the gripper
    qvel[:, -6] = 0.4, 0.0, 3.0
    physics = env.state_at(qpos, qvel, np.zeros((3, 3))).physics
    steps = fidelity.Steps(physics, np.zeros((3, 4)), np.zeros((3, 6)))
    found = fidelity.coasting(env, env, steps)
    assert found["states"] == 1
    assert found["native_mean"] == pytest.approx(0.4**2 / (2 * 0.1 * 9.81), rel=0.1)
    assert found["other_mean"] == pytest.approx(found["native_mean"], rel=1e-3)
    resting = jax.tree.map(lambda x: x[1:2], steps)
    assert fidelity.coasting(env, env, resting) == {"states": 0}


def test_one_substep_agrees_with_c():
    """Stage by stage, from whole states with contact, within MuJoCo's own tolerances."""
    states = played("FetchPush", "native", "stock")
    rows = floats(np.stack([state.physics.row for state in states]))
    rows = rows.reshape(-1, rows.shape[-1])
    found = fidelity.stages(fetch("FetchPush"), warp("FetchPush").physics, rows)
    assert set(found["within_tolerance"]) == set(fidelity.TOLERANCES)
    assert set(found["within_tolerance"].values()) == {1.0}
    assert found["peak_constraint_rows"] >= 6  # the weld's
    assert found["fewer_contacts"] == found["more_contacts"] == 0
    assert found["peak_contacts_in_c"] > 0
    assert found["qpos"]["largest"] < 1e-3 and found["qvel"]["largest"] < 0.5


def test_a_substep_of_pure_jax_agrees_with_c():
    """Of the same model, the hand in the air and flat on the table."""
    native, env = (made("FetchReach", physics, "portable") for physics in ("native", "jax"))
    pulls = (((0.1, 0.0, 0.0), 5), ((0.1, 0.1, 0.0), 20), ((0.0, 0.0, -0.2), 100))
    rows = np.stack([native.physics.scene.row] * len(pulls))
    model, data = native.physics.scene.model, mujoco.MjData(native.physics.scene.model)
    for row, (pull, steps) in zip(rows, pulls, strict=True):
        mujoco.mj_setState(model, data, row, mujoco.mjtState.mjSTATE_INTEGRATION)
        mujoco.mj_forward(model, data)
        body = data.body("robot0:gripper_link")
        data.mocap_pos[0], data.mocap_quat[0] = body.xpos + pull, (1, 0, 1, 0)
        mujoco.mj_step(model, data, nstep=steps)
        mujoco.mj_getState(model, data, row, mujoco.mjtState.mjSTATE_INTEGRATION)
    with optimised():
        found = fidelity.stages(native, env.physics, rows)
    assert found["peak_contacts_in_c"] > 0
    assert found["fewer_contacts"] == found["more_contacts"] == 0
    within = found["within_tolerance"]
    assert within.pop("qfrc_constraint") >= 2 / 3  # on the table those of stiff rows cancel
    assert set(within.values()) == {1.0}
    assert found["qvel"]["largest"] < 2e-3


def test_a_weld_aims_in_pure_jax_as_in_c():
    """At all of the reference: MJX leaves out what the residual accelerates by itself."""
    scene = made("FetchPush", "native", "portable").physics.scene
    model = copy.copy(scene.model)
    rng = np.random.default_rng(0)
    model.eq_data[0, :6] = rng.normal(scale=0.1, size=6)  # anchors, and a relative pose
    model.eq_data[0, 6:10] = np.array([2.0, -1.0, 2.0, 4.0]) / 5
    data = mujoco.MjData(model)
    qpos, qvel, left_out = [], [], []
    for _ in range(5):
        mujoco.mj_setState(model, data, scene.row, mujoco.mjtState.mjSTATE_INTEGRATION)
        data.qpos[:7] += rng.normal(scale=0.1, size=7)
        data.qvel[:7] = rng.normal(scale=2.0, size=7)
        mujoco.mj_forward(model, data)
        stiffness, damping, impedance = data.efc_KBIP[:6, :3].T
        simple = -damping * data.efc_vel[:6] - stiffness * impedance * data.efc_pos[:6]
        assert set(data.efc_type[:6]) == {int(mujoco.mjtConstraint.mjCNSTR_EQUALITY)}
        qpos.append(data.qpos.copy())
        qvel.append(data.qvel.copy())
        left_out.append(simple - data.efc_aref[:6])
    on_device = mujoco_mjx.put_model(model, impl="jax")
    blank = mujoco_mjx.make_data(model, impl="jax")

    def accelerated(qpos, qvel):
        moving = blank.replace(qpos=qpos, qvel=qvel, mocap_quat=jnp.asarray(data.mocap_quat))
        moving = moving.replace(mocap_pos=jnp.asarray(data.mocap_pos))
        for stage in (mujoco_mjx.kinematics, mujoco_mjx.com_pos, mujoco_mjx.com_vel):
            moving = stage(on_device, moving)
        return pure.acceleration(on_device, moving, 0)

    got = jax.jit(jax.vmap(accelerated))(jnp.asarray(qpos), jnp.asarray(qvel))
    assert (np.abs(left_out).max(axis=0) > 0.1).all()
    np.testing.assert_allclose(got, left_out, rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda model: setattr(model.opt, "cone", int(mujoco.mjtCone.mjCONE_ELLIPTIC)), "elliptic"),
        (lambda model: setattr(model.opt, "integrator", 3), "integrators other than Euler's"),
        (lambda model: setattr(model.opt, "disableflags", 1), "equalities that are turned off"),
        (lambda model: model.eq_type.fill(0), "equalities other than welds"),
        (lambda model: model.eq_objtype.fill(int(mujoco.mjtObj.mjOBJ_SITE)), "welds of sites"),
    ],
)
def test_pure_jax_refuses_what_its_dynamics_do_not_know(change, what):
    model = copy.copy(scenes.scene(TASKS["FetchReach"], "portable").model)
    pure.require(model)
    change(model)
    with pytest.raises(UserError, match=f"physics: 'jax' knows no {what}"):
        pure.require(model)


@pytest.mark.slow
def test_a_puck_rests_in_pure_jax_beside_a_hand_that_presses():
    env = made("FetchSlide", "jax", "portable")
    with optimised():
        state = jax.jit(jax.vmap(env.reset))(jax.random.split(jax.random.key(0), 8))
        step, start = jax.jit(jax.vmap(env.step)), state.obs.achieved_goal
        for _ in range(20):
            state = step(state, jnp.zeros((8, env.action_size)))
            np.testing.assert_allclose(state.obs.achieved_goal, start, atol=1e-6)


def test_a_contact_counts_once_in_pure_jax():
    data = mujoco_mjx.make_data(scenes.scene(TASKS["FetchReach"], "portable").model, impl="jax")
    contact = data._impl.contact
    count = len(contact.dist)
    pos, dist = np.arange(3.0 * count).reshape(count, 3), np.full(count, -0.01)
    pos[1] = pos[0]  # the same place of one pair
    pos[3], dist[2] = pos[2] + 1e-6, 1.0  # the first of both does not touch
    geom = np.zeros((count, 2), int)
    pos[5], geom[5] = pos[4], (0, 1)  # of two pairs
    found = pure._once(
        None,
        data.tree_replace(
            {"_impl.contact.pos": pos, "_impl.contact.dist": dist, "_impl.contact.geom": geom}
        ),
    )
    expected = np.where(np.arange(count) == 1, 1.0, dist)
    np.testing.assert_array_equal(found._impl.contact.dist, expected.astype(np.float32))


def test_what_the_weld_reads_a_step_late_is_carried():
    """As C has it after a restart, and a step without it errs more."""
    native, env = fetch("FetchPush"), warp("FetchPush")
    states = played("FetchPush", "native", "stock")[-2]
    rows, goals = floats(states.physics.row), np.asarray(states.obs.desired_goal)
    start = env.restore(rows, goals)
    model = native.physics.scene.model
    data = mujoco.MjData(model)
    for i, row in enumerate(rows):
        mujoco.mj_setState(model, data, row, mujoco.mjtState.mjSTATE_INTEGRATION)
        mujoco.mj_forward(model, data)
        for name in RATES:
            carried = start.physics.rates[name][i]
            np.testing.assert_allclose(carried, getattr(data, name), atol=1e-4)
    actions = jnp.full((COUNT, 4), 0.5)
    wanted = stepping("FetchPush", "native")(states, actions).obs.observation[:, :3]
    blank = jax.tree.map(jnp.zeros_like, start.physics.rates)
    errors = []
    for rates in (start.physics.rates, blank):
        state = start.replace(physics=start.physics.replace(rates=rates))
        reached = stepping("FetchPush")(state, actions).obs.observation[:, :3]
        errors.append(np.median(np.linalg.norm(np.asarray(reached - wanted), axis=-1)))
    assert errors[0] < errors[1]


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("model", ["stock", "fast"])
def test_pure_jax_says_what_it_cannot_simulate(name, model):
    with pytest.raises(UserError, match="physics: 'jax' cannot simulate this model") as refused:
        her_envs.make(name, physics="jax", model=model)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"model": "tiny"}, "model: 'tiny' is unknown; choose one of stock, fast, portable"),
        ({"nconmax": 0}, "nconmax: 0 is not positive"),
        ({"njmax": -1}, "njmax: -1 is not positive"),
        ({"graph_mode": "cuda"}, "graph_mode: 'cuda' is unknown"),
    ],
)
def test_bad_options_get_one_line(options, complaint):
    with pytest.raises(UserError, match=complaint) as refused:
        her_envs.make("FetchReach", physics="warp", **options)
    assert "\n" not in str(refused.value)


def test_without_warp_the_remedy_is_named(monkeypatch):
    scene = fetch("FetchReach").physics.scene
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="needs warp-lang; run: pip install"):
        Mjx(scene, "warp")


def test_a_driver_too_old_for_warp_is_named(monkeypatch):
    scene = fetch("FetchReach").physics.scene
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr("warp.is_cuda_available", lambda: False)
    with pytest.raises(UserError, match="sees no GPU where JAX sees one"):
        Mjx(scene, "warp")


@pytest.mark.parametrize(
    "name",
    ["FetchPush", pytest.param("FetchReach", marks=pytest.mark.slow)],  # has no object
)
def test_any_batch_shape_gives_the_same_simulations(name):
    """Contacts of all simulations lie in one array; who is beside whom changes nothing."""
    env = warp(name)
    starts = played(name)[-2]
    action = jnp.full((COUNT, 4), -0.3)
    flat = stepping(name)(starts, action)
    nested = jax.jit(jax.vmap(jax.vmap(env.step)))(
        *jax.tree.map(lambda x: x[None], (starts, action))
    )
    alone = jax.jit(env.step)(*jax.tree.map(lambda x: x[1], (starts, action)))
    for one, many, single in zip(*map(jax.tree.leaves, (flat, nested, alone)), strict=True):
        np.testing.assert_array_equal(one, many[0])
        np.testing.assert_array_equal(one[1], single)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["FetchPush", "FetchPickAndPlace"])  # which reads them elsewhere
def test_sensors_are_read_as_if_every_pass_had_them(name):
    env = her_envs.make(name, physics="warp")
    env.physics._without_sensors = env.physics._model
    down = jnp.zeros((COUNT, 4)).at[:, 2].set(-1.0)
    for state in played(name)[-2:]:
        after = stepping(name)(state, down)
        assert after.cost[:, 1].all()  # something is touched
        assert same(jax.jit(jax.vmap(env.step))(state, down), after)


@pytest.mark.gpu
@pytest.mark.parametrize("graph_mode", GRAPH_MODES)
def test_a_gpu_steps_as_the_original_does(graph_mode):
    """Two steps, so that a captured graph is played again. Written without a GPU, not yet run."""
    assert jax.default_backend() == "gpu"
    states = played("FetchPush", "native", "stock")
    rows, goals = floats(np.asarray(states[1].physics.row)), np.asarray(states[1].obs.desired_goal)
    env = her_envs.make("FetchPush", physics="warp", graph_mode=graph_mode)
    state, step = env.restore(rows, goals), jax.jit(jax.vmap(env.step))
    other, original = states[1], stepping("FetchPush", "native")
    for _ in range(2):
        state, other = step(state, ACTIONS), original(other, ACTIONS)
        found, expected = state.obs.observation[:, :6], other.obs.observation[:, :6]
        np.testing.assert_allclose(found, expected, atol=1e-3)
        assert not state.dropped.any()


def test_lifted_twice_a_function_sees_all_elements_at_once():
    seen = []

    def many(x, y):
        seen.append(x.shape)
        return x + y

    lifted = over_any_batch(many)
    inner = jax.vmap(lifted, in_axes=(0, None))
    total = jax.vmap(inner, in_axes=(0, None))(jnp.arange(6.0).reshape(2, 3), jnp.asarray(1.0))
    np.testing.assert_array_equal(total, [[1, 2, 3], [4, 5, 6]])
    assert seen[-1] == (6,)
    assert float(lifted(jnp.asarray(1.0), jnp.asarray(2.0))) == 3.0


@pytest.mark.parametrize(
    "room", [{"nconmax": 1}, pytest.param({"njmax": 4}, marks=pytest.mark.slow)], ids=str
)
def test_what_has_no_room_is_reported_and_not_silent(room):
    cramped = her_envs.make("FetchPush", physics="warp", **room)
    state = jax.jit(jax.vmap(cramped.reset))(jax.random.split(jax.random.key(0), COUNT))
    assert state.dropped.all()  # of forward dynamics alone, as after the MuJoCo steps of a step
    speed = state.physics.qvel.at[1].set(jnp.nan)  # a simulation that breaks says so too
    state = state.replace(physics=state.physics.replace(qvel=speed))
    after = jax.jit(jax.vmap(cramped.step))(state, ACTIONS)
    assert after.dropped.all() and np.isnan(after.obs.observation[1]).all()
    assert not any(state.dropped.any() for state in played("FetchPush"))


@pytest.mark.parametrize("bad", [np.nan, 1e12])  # C takes what is beyond 1e10 for unstable
def test_a_broken_simulation_says_so_once_and_starts_anew(bad):
    env = warp("FetchPush")
    states = played("FetchPush")[-2]
    speed = states.physics.qvel.at[1].set(bad)
    broken = states.replace(physics=states.physics.replace(qvel=speed))
    step = stepping("FetchPush")
    after = step(broken, jnp.zeros((COUNT, 4)))
    assert np.isnan(after.obs.observation[1]).all()
    intact = step(states, jnp.zeros((COUNT, 4)))
    for i in (0, 2):
        np.testing.assert_array_equal(after.obs.observation[i], intact.obs.observation[i])
    assert same(jax.tree.map(lambda x: x[1], after.physics), env.physics._start)
    seen_by_a_network = after.obs.observation[:, :4]  # what it answers to no number is none
    later = step(after, seen_by_a_network)
    assert np.isfinite(later.obs.observation[1]).all()


class Breaking:
    """The toy, but the simulation of every second goal breaks in the middle of an episode."""

    def __init__(self, env, share=0.5):
        self._env, self._share = env, share

    def __getattr__(self, name):
        return getattr(self._env, name)

    def step(self, state, action):
        state = self._env.step(state, action)
        bad = state.obs.desired_goal[0] < 0 if self._share < 1 else True
        position = jnp.where(bad, jnp.nan, state.obs.achieved_goal)
        return state.replace(obs=state.obs._replace(observation=position, achieved_goal=position))


def test_a_broken_episode_never_enters_the_buffer(toy):
    everywhere = dataclasses.replace(toy, tolerance=10.0)  # where only broken episodes fail
    env = Breaking(everywhere)
    config = with_(LEARNING, updates_per_cycle=1, num_envs=8, capacity=32)
    agent = agents.make(config.agent, env)
    state = train.init(env, agent, config, jax.random.key(0))
    state, metrics, _ = jax.jit(functools.partial(train.cycle, env, agent, config))(state)
    stored = state.buffer.episodes.desired_goal[:8]
    succeeded, broke = metrics["exploring_requested_goal_success"], metrics["broken_episodes"]
    assert 0 < float(succeeded) == 1 - float(broke) < 1
    assert (np.asarray(stored[:, 0]) >= 0).all()
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(state.buffer.episodes))
    assert np.isfinite(state.normalizer.mean["observation"]).all()
    assert int(state.env_steps) == 8 * toy.horizon


def test_a_round_that_broke_as_a_whole_ends_the_run(toy, config, tmp_path):
    broken = Run(Breaking(toy, share=1.0), config, tmp_path / "r", SILENT, judge=toy)
    with pytest.raises(UserError, match="not finite"):
        broken.start()


def test_intact_episodes_are_left_as_they_are(toy):
    policy = functools.partial(lambda key, obs: jax.random.uniform(key, (2,)))
    starts = jax.vmap(toy.draw)(jax.random.split(jax.random.key(0), 4))
    keys = jax.random.split(jax.random.key(1), 4)
    episodes, dropped = jax.vmap(lambda s, k: rollout.play(toy, policy, s, k))(starts, keys)
    broken = rollout.broken(episodes)
    assert not broken.any() and not dropped.any()
    assert same(rollout.without_broken(episodes, broken), episodes)


@pytest.mark.parametrize(
    "backend",
    [pytest.param("cpu", marks=pytest.mark.slow), pytest.param("gpu", marks=pytest.mark.gpu)],
)
def test_an_epoch_makes_no_transfer(backend):
    """On a GPU every transfer would be a wait.

    The guard sees those of arguments and results, and the program's text those within, such as
    native physics makes.
    """
    assert jax.default_backend() == backend
    callback = f"python_{backend}_callback"  # target of what a program calls on the host
    host = jax.jit(jax.vmap(fetch("FetchReach").step)).lower(
        played("FetchReach", "native")[0], ACTIONS
    )
    assert callback in str(host.compile().as_text())
    env = warp("FetchReach")
    config = with_(LEARNING, num_envs=2, updates_per_cycle=1, cycles_per_epoch=1, capacity=4)
    agent = agents.make(config.agent, env)
    init = jax.jit(functools.partial(train.init, env, agent, config))
    run_epoch = jax.jit(functools.partial(train.epoch, env, agent, config), donate_argnums=0)
    state = init(jax.random.key(0))
    compiled = run_epoch.lower(state).compile()
    assert callback not in str(compiled.as_text())
    with jax.transfer_guard("disallow"):
        state, metrics, _ = compiled(state)
        jax.block_until_ready((state, metrics))
    assert int(state.env_steps) == 2 * env.horizon and int(state.buffer.size) == 2
    assert float(metrics["broken_episodes"]) == float(metrics["dropped_contact_steps"]) == 0


def test_states_are_restored():
    """What a reset gives is what its joint positions and velocities give."""
    env, state = warp("FetchSlide"), played("FetchSlide")[0]
    qpos = env.physics.qpos(state.physics)
    assert qpos.shape == (COUNT, 22) and qpos.dtype == np.float64
    again = env.state_at(qpos, np.asarray(state.physics.qvel), state.obs.desired_goal)
    np.testing.assert_allclose(again.obs.observation, state.obs.observation, atol=1e-6)
    for wrong in (qpos[:, :5], qpos[:2]):
        with pytest.raises(UserError, match="qpos, qvel: shapes"):
            env.state_at(wrong, np.asarray(state.physics.qvel), state.obs.desired_goal)


def test_state_is_small():
    """What is carried from step to step is what a step starts from, not all that it derives."""
    state = played("FetchPush")[0].physics
    assert isinstance(state, MjxState)
    assert sum(leaf.nbytes for leaf in jax.tree.leaves(state)) // COUNT < 2_000


def test_the_memory_plan_holds_what_compiled_programs_work_in():
    """On every device that training was compiled for, and not twice as much."""
    rows = [row for row in ahead_of_time.committed() if "working_bytes" in row]
    assert {row["compiled_for"] for row in rows} >= {"h100", "v5e"}
    for row in rows:
        platform = "tpu" if row["compiled_for"] in ahead_of_time.TPUS else "gpu"
        env = made(row["task"], row["physics"], row["model"])
        with ahead_of_time.as_default(types.SimpleNamespace(platform=platform)):
            planned = env.bytes_per_env * row["num_envs"]
        assert row["working_bytes"] <= planned < 2 * row["working_bytes"], row
    assert fetch("FetchPush").bytes_per_env == 0


# The pruned models


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("variant", ["fast", "portable"])
def test_pruned_models_are_smaller_and_start_where_the_original_does(name, variant):
    stock, pruned = (scenes.scene(TASKS[name], v) for v in ("stock", variant))
    assert pruned.model.nv == stock.model.nv - len(prune.WELDED)
    assert pruned.model.nbody < stock.model.nbody / 2
    assert pruned.model.npair == len(prune.pairs(TASKS[name]))
    assert (pruned.model.geom_contype == 0).all() and (pruned.model.geom_conaffinity == 0).all()
    poses = []
    for scene in (stock, pruned):
        data = mujoco.MjData(scene.model)
        mujoco.mj_setState(scene.model, data, scene.row, mujoco.mjtState.mjSTATE_INTEGRATION)
        mujoco.mj_forward(scene.model, data)
        poses.append([data.site(scene.gripper_site).xpos, data.body(scene.gripper_body).xquat])
    for a, b in zip(*poses, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-9)
    for name_ in ("robot0:gripper_link", "robot0:r_gripper_finger_link"):
        assert pruned.model.body(name_).mass == pytest.approx(stock.model.body(name_).mass)


@pytest.mark.parametrize("name", TASKS)
def test_pairs_touch_as_the_stock_geoms_would(name):
    """Contacts of the pruned models have the parameters of the stock model's, from C itself."""
    stock, fast, portable = (
        contacts(scenes.scene(TASKS[name], variant)) for variant in scenes.VARIANTS
    )
    pairs = {tuple(sorted(pair)) for pair in prune.pairs(TASKS[name])}
    reached = {pair for pair in pairs if prune.PALM not in pair}  # for fingers are below it
    assert set(stock) >= set(fast) == set(portable) == reached
    for variant, pruned in (("fast", fast), ("portable", portable)):
        for pair, values in pruned.items():
            expected = dict(stock[pair])
            if variant == "portable":  # whose geoms are larger instead
                foot = name == "FetchSlide" and not set(pair) & set(prune.HAND)
                expected["includemargin"] = -prune.OVERLAP if foot else 0.0
            for field, value in values.items():
                np.testing.assert_allclose(value, expected[field], err_msg=f"{pair} {field}")


STOCK_NAMES = {prune.PALM: "robot0:gripper_link", "table0": prune.TABLE, "": prune.TABLE}
STOCK_NAMES |= {prune.RIM: prune.OBJECT, prune.FOOT: prune.OBJECT}


def contacts(scene):
    """Parameters of contacts by pair of geoms, with the object between gripper and table."""
    model, found = scene.model, {}
    for height, lift in ((0.0, 0.0), (0.0, -0.03), (-0.06, -0.3)):
        data = mujoco.MjData(model)
        mujoco.mj_setState(model, data, scene.row, mujoco.mjtState.mjSTATE_INTEGRATION)
        if scene.object_joint:
            data.joint(scene.object_joint).qpos[:3] = scene.gripper_pos
            data.joint(scene.object_joint).qpos[2] += height
            if lift:
                data.joint(scene.object_joint).qpos[2] = scene.object_height + lift + 0.025
        mujoco.mj_forward(model, data)
        data.mocap_pos[0], data.mocap_quat[0] = data.body(scene.gripper_body).xpos, (1, 0, 1, 0)
        data.mocap_pos[0, 2] = 0.43  # fingers press the table
        mujoco.mj_step(model, data, nstep=100)
        for contact in data.contact:
            names = (model.geom(g).name for g in (contact.geom1, contact.geom2))
            pair = tuple(sorted(STOCK_NAMES.get(name, name) for name in names))
            found[pair] = {
                field: np.copy(getattr(contact, field))
                for field in ("dim", "friction", "solref", "solimp", "includemargin")
            }
    return found


@pytest.mark.parametrize("name", ["FetchPush", "FetchSlide", "FetchPickAndPlace"])
def test_the_object_stays_what_it_is(name):
    stock, portable = (scenes.scene(TASKS[name], v).model for v in ("stock", "portable"))
    assert portable.geom("object0").type == stock.geom("object0").type
    np.testing.assert_array_equal(portable.geom("object0").size, stock.geom("object0").size)
    np.testing.assert_allclose(portable.body("object0").mass, stock.body("object0").mass)
    np.testing.assert_allclose(portable.body("object0").inertia, stock.body("object0").inertia)


@pytest.mark.parametrize("name", TASKS)
def test_the_portable_hand_is_larger_by_its_margin(name):
    fast, portable = (scenes.scene(TASKS[name], v) for v in ("fast", "portable"))
    for geom in prune.HAND:
        grown = portable.model.geom(geom).size - fast.model.geom(geom).size
        np.testing.assert_allclose(grown, float(fast.model.geom(geom).margin[0]), rtol=1e-9)
        assert (grown > 0).all()
    hand = np.array([bool(set(pair) & set(prune.HAND)) for pair in prune.pairs(TASKS[name])])
    skins = np.array(portable.skins)
    np.testing.assert_allclose(skins[hand], float(fast.model.geom(prune.PALM).margin[0]))
    assert skins[~hand].max(initial=0.0) <= prune.OVERLAP


def test_what_the_puck_touches_with_in_pure_jax_has_its_corners_on_it():
    model = scenes.scene(TASKS["FetchSlide"], "portable").model
    radius, half_height, _ = model.geom("object0").size
    foot, rim = model.geom(prune.FOOT), model.geom(prune.RIM)
    np.testing.assert_allclose(np.hypot(*foot.size[:2]), radius)
    np.testing.assert_allclose(foot.size[2] - half_height, prune.OVERLAP, rtol=1e-6)
    mesh = model.mesh(int(rim.dataid[0]))
    first, count = int(mesh.vertadr[0]), int(mesh.vertnum[0])
    rotation = np.zeros(9)
    mujoco.mju_quat2Mat(rotation, rim.quat)
    corners = model.mesh_vert[first : first + count] @ rotation.reshape(3, 3).T + rim.pos
    assert count == 2 * prune.RIM_SIDES
    np.testing.assert_allclose(np.linalg.norm(corners[:, :2], axis=1), radius, rtol=1e-5)
    np.testing.assert_allclose(np.abs(corners[:, 2]), half_height, rtol=1e-5)


def test_constants_of_a_loop_are_made_outside_of_it():
    filled, ramp = np.full(5, 2.0, np.float32), np.arange(5, dtype=np.float32)

    def body(x):
        return {"a": x["a"] * filled + jax.vmap(lambda y: y * filled[0])(ramp)}

    def loop(x):
        step = hoisted(body, x)
        return jax.lax.scan(lambda x, _: (step(x), None), x, length=3)[0]

    start = {"a": jnp.ones(5)}
    expected = body(body(body(start)))
    np.testing.assert_allclose(jax.jit(loop)(start)["a"], expected["a"], rtol=1e-6)
    equations = jax.make_jaxpr(loop)(start).eqns
    (scan,) = (e for e in equations if e.primitive.name == "scan")
    (barrier,) = (e for e in equations if e.primitive.name == "optimization_barrier")
    assert len(barrier.outvars) == 2  # both arrays, and the loop is given them
    assert all(any(made is given for given in scan.invars) for made in barrier.outvars)
