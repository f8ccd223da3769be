"""ContactInsert as an environment: its contract, its rule of success, its scripted policies."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from sactory import rendering
from sactory.envs.contact_insert.environment import ContactInsert
from sactory.envs.contact_insert.judge import Done
from sactory.errors import UserError
from sactory.intervals import wilson
from tests.contact_rig import NAMES, STILL, load, play

pytestmark = pytest.mark.timeout(120)

# Contract


@pytest.mark.parametrize("variant", NAMES)
def test_the_same_seed_gives_the_same_episodes(variant):
    one, other = load(variant, "hard", seed=3), load(variant, "hard", seed=3)
    random = np.random.default_rng(0)
    seen = []
    for _ in range(30):
        action = random.uniform(-1, 1, one.action_spec().shape).astype(np.float32)
        step, twin = one.step(action), other.step(action)
        for value, same in zip(step, twin):
            np.testing.assert_array_equal(value, same)
        seen.append(step.observation)
    assert not any(np.shares_memory(seen[-1], earlier) for earlier in seen[:-1])
    one.seed(3)
    np.testing.assert_array_equal(one.reset().observation, seen[0])
    one.seed(4)
    assert not np.array_equal(one.reset().observation, seen[0])


def test_an_episode_goes_on_after_pickling():
    env = load("peg", "hard", seed=5)
    action = np.full(6, 0.3, np.float32)
    for _ in range(5):
        env.step(action)
    twin = pickle.loads(pickle.dumps(env))
    for _ in range(3):
        np.testing.assert_array_equal(env.step(action).observation, twin.step(action).observation)


@pytest.mark.parametrize(("variant", "axes"), [("planar", 3), ("peg", 6), ("plate", 6)])
def test_shapes(variant, axes):
    env = load(variant)
    assert env.action_spec().shape == (axes,)
    assert env.observation_spec().shape == (4 * 3 * axes,)
    kwargs = {"history": 8, "velocity": False, "variable_impedance": True}
    env = load(variant, task_kwargs=kwargs, action_repeat=2, time_limit=1.0)
    assert env.action_spec().shape == (2 * axes,)
    assert env.observation_spec().shape == (8 * 2 * axes,)
    assert env.max_episode_steps == round(1.0 / env.control_timestep)
    first = env.reset().observation.reshape(8, -1)
    assert (first == first[0]).all()
    second = env.step(np.zeros(2 * axes, np.float32)).observation.reshape(8, -1)
    assert (second[:6] == first[0]).all() and not (second[7] == first[0]).all()
    assert env.get_info()["done_reason"] == Done.RUNNING
    with pytest.raises(ValueError, match="shape"):
        env.step(np.zeros(1, np.float32))


def test_the_time_limit_is_no_end_of_the_world():
    env = load("planar", parameters={"base_weight": 0.0}, time_limit=0.2)
    steps = [env.step(np.zeros(3, np.float32)) for _ in range(7)]
    assert [int(step.step_type) for step in steps] == [0, 1, 1, 1, 1, 2, 0]
    assert steps[5].discount == 1
    env.reset()
    assert env.get_info()["success"] is False


def test_too_much_force_ends_an_episode_badly():
    env = load("planar", parameters={**STILL, "init_z_offset": -0.02, "force_abort": 5.0})
    env.reset()
    step = env.step(np.array([1, 0, 0], np.float32))
    while not step.is_last():
        step = env.step(np.array([1, 0, 0], np.float32))
    info = env.get_info()
    assert (info["done_reason"], info["success"]) == (Done.FAILED, False)
    assert step.discount == 0 and step.reward < -4 and info["peak_force"] > 5


@pytest.mark.parametrize("hold", [1, 5])
def test_success_needs_the_goal_to_be_held(hold):
    env = load("planar", parameters={**STILL, "init_z_offset": -0.03, "goalreach_steps": hold})
    step = env.reset()
    held = 0
    while not step.is_last():
        step = env.step(np.zeros(3, np.float32))
        held = held + 1 if env.get_info()["inside"] else 0
    info = env.get_info()
    assert held == hold and info["success"] and info["done_reason"] == Done.SUCCESS
    assert info["depth"] >= 0.036 and step.discount == 0
    assert step.reward == pytest.approx(2 - 0.02)


def test_holding_starts_again_when_the_goal_is_left():
    parameters = {**STILL, "init_z_offset": -0.034, "base_weight": 0.0, "goalreach_steps": 8}
    env = load("planar", parameters=parameters)
    env.reset()
    inside = []
    for way in [-1] * 4 + [1] * 6 + [-1] * 20:
        step = env.step(np.array([0, way, 0], np.float32))
        inside.append(env.get_info()["inside"])
        if step.is_last():
            break
    assert env.get_info()["success"]
    assert inside.index(True) < len(inside) - 9  # it was inside before,
    assert inside[-9:] == [False] + [True] * 8  # left, and held from the start again


def test_costs_fall_towards_the_goal_and_slots_off_the_middle_pay_less():
    def first_reward(height):
        env = load("planar", parameters={**STILL, "init_z_offset": height})
        env.reset()
        return float(env.step(np.zeros(3, np.float32)).reward)

    assert first_reward(0.03) < first_reward(0.005) < first_reward(-0.02) < -0.02
    env = load("plate", parameters={"slot_gap": 0.1})
    env.reset()
    quality = [env._judge._quality(np.array([0, y, 0])) for y in (0.01, 0.15, -0.17)]
    assert quality == [1, 0.5, 0.5]


# Baselines


def test_the_order_of_the_baselines():
    env = load("planar", "hard")
    counts = {
        policy: sum(play(env, policy, seed)["success"] for seed in range(8))
        for policy in ("straight", "search", "comply")
    }
    assert counts["straight"] <= 3 and counts["straight"] <= counts["search"]
    assert counts["comply"] >= 6
    assert play(load("planar", "easy"))["success"]


@pytest.mark.parametrize("variant", NAMES)
@pytest.mark.parametrize("policy", ContactInsert.baselines)
def test_every_baseline_acts_on_a_batch(variant, policy):
    env = load(variant, task_kwargs={"variable_impedance": True})
    actor = env.baseline(policy)
    batch = np.stack([env.reset().observation for _ in range(3)])
    for _ in range(2):
        actions = actor.act(batch)
        assert actions.shape == (3, *env.action_spec().shape) and actions.dtype == np.float32
        assert np.abs(actions).max() <= 1


@pytest.mark.slow
@pytest.mark.parametrize(("variant", "share"), [("planar", 0.28), ("peg", 0.12), ("plate", 0.78)])
def test_medium_is_as_hard_as_the_prototype(variant, share):
    env = load(variant, "medium")
    successes = sum(play(env, "straight", seed)["success"] for seed in range(40))
    low, high = wilson(successes, 40)
    assert low - 0.15 <= share <= high + 0.15


def test_wilsons_interval():
    assert wilson(9, 10) == pytest.approx((0.596, 0.982), abs=1e-3)
    assert wilson(0, 10) == pytest.approx((0, 0.278), abs=1e-3)
    assert wilson(10, 10) == pytest.approx((0.722, 1), abs=1e-3)


# Pictures


def test_pictures_of_any_size():
    try:
        rendering.choose_backend()
    except UserError as e:
        pytest.skip(str(e))
    env = load("peg", parameters=STILL)
    env.reset()
    small, large = rendering.frame(env, 48, 64), rendering.frame(env, 500, 700)
    assert (small.shape, large.shape, small.dtype) == ((48, 64, 3), (500, 700, 3), np.uint8)
    assert small[:, :32].std() > 5 and small[:, 32:].std() > 5
    env.set_parameters({"clearance": 0.002})
    env.reset()
    assert rendering.frame(env, 48, 64).shape == (48, 64, 3)
    closeup = env.render(height=48, width=64, camera="closeup")
    assert not np.array_equal(closeup, env.render(height=48, width=64, camera="overview"))
    env.close()
