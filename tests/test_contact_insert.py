"""ContactInsert: its physics, its contract, its parameters, its rule of success, its baselines."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest

from sactory import envs, rendering, settings
from sactory.curriculum.environment import ParameterSpec
from sactory.envs.contact_insert import fixtures
from sactory.envs.contact_insert.environment import ContactInsert
from sactory.envs.contact_insert.judge import Done
from sactory.envs.contact_insert.models import Geometry
from sactory.envs.contact_insert.parameters import LEVELS
from sactory.envs.contact_insert.simulation import Simulation
from sactory.envs.contact_insert.variants import PLATE_RADIUS, SLOT_DEPTH, VARIANTS
from sactory.errors import UserError
from sactory.intervals import wilson

pytestmark = pytest.mark.timeout(120)

NAMES = tuple(VARIANTS)
WEIGHT = 0.33 * 9.81
STILL = {"init_z_spread": 0.0, "init_xy_offset": 0.0, "init_tilt": 0.0, "goalreach_steps": 5}


def load(variant: str, level: str | None = "easy", seed: int = 0, parameters=(), **kwargs):
    task_kwargs = {"parameters": dict(parameters), **kwargs.pop("task_kwargs", {})}
    wanted = settings.Env(
        name=f"contact_insert:{variant}", level=level, task_kwargs=task_kwargs, **kwargs
    )
    return envs.load(wanted, seed=seed)


def simulate(variant: str, **geometry) -> Simulation:
    shapes = {"clearance": 0.0005, "chamfer": 0.001, "slot_gap": 0.06, "hole_shape": "box"}
    simulation = Simulation(VARIANTS[variant], Geometry(**{**shapes, **geometry}))
    simulation.configure(friction=0.3, mass_scale=1.0, grip_scale=1.0)
    return simulation


def place(simulation: Simulation, height: float, x: float = 0.0, y: float = 0.0) -> None:
    hinges = len(simulation.variant.hinges)
    simulation.reset(np.array([x, y]), 0.0, height, np.zeros(hinges))


def push(simulation: Simulation, steps: int, **speeds: float) -> float:
    """Moves the reference for some env steps; returns the deepest penetration, m."""
    variant = simulation.variant
    velocity = np.array([speeds.get(axis, 0.0) for axis in variant.slides + variant.hinges.upper()])
    deepest = 0.0
    for _ in range(steps):
        simulation.step(velocity, 0)
        deepest = max(deepest, *(-c.dist for c in simulation.data.contact), 0.0)
    return deepest


def contact_forces(simulation: Simulation) -> np.ndarray:
    """Of each contact: normal force, then friction [contacts, 6]."""
    import mujoco  # after Sactory, which keeps OpenGL out

    forces = np.zeros((simulation.data.ncon, 6))
    for i, force in enumerate(forces):
        mujoco.mj_contactForce(simulation.model, simulation.data, i, force)
    return forces


def play(env: ContactInsert, policy: str = "straight", seed: int = 0) -> dict:
    env.seed(seed)
    actor = env.baseline(policy, seed=seed)
    step = env.reset()
    while not step.is_last():
        step = env.step(actor.act(step.observation[None])[0])
    return env.get_info()


# Physics


@pytest.mark.parametrize("variant", ["planar", "peg"])
def test_pressing_on_the_edge_of_the_hole(variant):
    simulation = simulate(variant)
    place(simulation, 0.01, x=0.022)
    assert push(simulation, 40, z=-1.0) < 0.0002
    # The leash caps the force: 15 mm of 1500 N/m. Pushing down reads negative.
    fz = simulation.wrench[simulation.variant.num_slides - 1]
    assert fz == pytest.approx(-22.5, abs=0.1)
    assert simulation.touch == pytest.approx(22.5, abs=0.1)
    assert simulation.touch == pytest.approx(contact_forces(simulation)[:, 0].sum(), rel=1e-6)


@pytest.mark.parametrize("clearance", [0.001, 0.0005, 0.00025])
@pytest.mark.parametrize("variant", ["planar", "peg"])
def test_jamming_sideways_in_the_hole(variant, clearance):
    simulation = simulate(variant, clearance=clearance)
    place(simulation, -0.02)
    assert push(simulation, 40, x=1.0, z=-0.3) < 0.0002
    assert simulation.wrench[0] > 20  # it does push against the wall
    assert abs(simulation.point[0]) < clearance + 0.0002


def test_a_free_plate_weighs_what_it_weighs():
    simulation = simulate("plate")
    place(simulation, 0.3)
    assert simulation.wrench == pytest.approx(np.zeros(6), abs=0.01)  # tared
    assert simulation.data.sensordata[2] == pytest.approx(WEIGHT, abs=0.02)
    push(simulation, 28, z=-1.0)
    push(simulation, 10)
    assert -SLOT_DEPTH < simulation.point[2] - PLATE_RADIUS < 0  # between two blocks
    assert abs(simulation.wrench[2]) < 0.2  # and touching nothing


def test_a_pressed_plate_stands_on_the_base():
    simulation = simulate("plate", slot_gap=0.1)
    place(simulation, -0.14)
    push(simulation, 40, z=-1.0)
    assert simulation.point[2] == pytest.approx(PLATE_RADIUS - SLOT_DEPTH, abs=0.0005)
    assert simulation.touch == pytest.approx(36 + WEIGHT, abs=1.5)
    assert simulation.wrench[2] == pytest.approx(-simulation.touch, abs=0.2)


@pytest.mark.parametrize("friction", [0.1, 0.6])
def test_friction_follows_its_parameter(friction):
    simulation = simulate("planar")
    simulation.configure(friction, 1.0, 1.0)
    place(simulation, 0.001, x=-0.022)
    push(simulation, 15, z=-1.0)
    ratios = []
    for _ in range(8):
        push(simulation, 1, x=0.8, z=-1.0)  # until it slides over the wall's top
        forces = contact_forces(simulation)
        ratios.append(np.linalg.norm(forces[:, 1:3].sum(0)) / forces[:, 0].sum())
    assert simulation.point[0] > 0.0221
    assert max(ratios) == pytest.approx(friction, rel=0.03)


def test_the_fixture_follows_its_shapes():
    # The chamfer takes a peg that is off by less than clearance and chamfer together.
    for chamfer, enters in ((0.003, True), (0.0001, False)):
        simulation = simulate("planar", clearance=0.001, chamfer=chamfer)
        simulation.configure(0.05, 1.0, 1.0)
        place(simulation, 0.005, x=0.003)
        push(simulation, 40, z=-1.0)
        assert (simulation.point[2] < -0.01) == enters
    assert fixtures.hole(0.001, 0.002, planar=False).count("<geom") == 13
    assert fixtures.rack(0.06).count("<geom") == 5


def test_masses_and_stiffness_scale():
    simulation = simulate("plate")
    simulation.configure(0.3, 2.0, 1.0)
    simulation.set_stiffness(0.5)
    place(simulation, 0.3)
    assert simulation.data.sensordata[2] == pytest.approx(2 * WEIGHT, abs=0.06)
    simulation.configure(0.3, 1.0, 1.0)
    place(simulation, 0.3)
    assert simulation.data.sensordata[2] == pytest.approx(WEIGHT, abs=0.02)
    assert simulation.model.actuator_gainprm[0, 0] == 300
    assert simulation.data.site("nominal").xpos[2] == pytest.approx(0.3 + PLATE_RADIUS, abs=0.001)


@pytest.mark.parametrize("variant", NAMES)
def test_random_actions_stay_finite(variant):
    env = load(variant, "hard", seed=1, parameters={"force_abort": 1e6})
    random = np.random.default_rng(2)
    for _ in range(300):
        step = env.step(random.uniform(-1, 1, env.action_spec().shape).astype(np.float32))
        assert env.observation_spec().check_array(step.observation)
        assert np.isfinite(step.observation).all() and np.isfinite(step.reward)


@pytest.mark.slow
@pytest.mark.parametrize("variant", NAMES)
def test_ten_thousand_random_actions_stay_finite(variant):
    env = load(variant, "hard", seed=1)
    random = np.random.default_rng(2)
    for _ in range(10_000):
        step = env.step(random.uniform(-1, 1, env.action_spec().shape).astype(np.float32))
        assert np.isfinite(step.observation).all() and np.abs(step.reward) < 100


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


# Parameters and levels


@pytest.mark.parametrize("variant", NAMES)
def test_parameters_apply_at_the_next_reset(variant):
    env = load(variant)
    assert env.get_parameters() == {n: s.default for n, s in env.parameter_specs().items()}
    assert all(isinstance(spec, ParameterSpec) for spec in env.parameter_specs().values())
    env.reset()
    friction = env.simulation.model.geom_friction.copy()
    shape = "slot_gap" if variant == "plate" else "clearance"
    env.set_parameters(
        {"friction": 0.77, "policy_lag_ms": [3, 6], shape: 0.05 if variant == "plate" else 0.0012}
    )
    spec = env.observation_spec()
    env.step(np.zeros(env.action_spec().shape, np.float32))
    np.testing.assert_array_equal(env.simulation.model.geom_friction, friction)
    before = env.simulation
    env.reset()
    assert env.simulation is not before and 0.77 in env.simulation.model.geom_friction
    assert env.get_parameters()["policy_lag_ms"] == (3, 6)
    assert env.observation_spec() == spec


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"fricton": 1.0}, KeyError, "no parameter 'fricton'; there are noise_level"),
        ({"slot_gap": 0.1}, KeyError, "no parameter 'slot_gap'"),
        ({"friction": -1.0}, ValueError, "from 0 to 5"),
        ({"friction": math.nan}, ValueError, "finite"),
        ({"goalreach_steps": 2.5}, ValueError, "one integer"),
        ({"policy_lag_ms": 3}, ValueError, "2 integers"),
        ({"hole_shape": "star"}, ValueError, "box or cylinder"),
    ],
)
def test_wrong_parameters_are_explained(values, error, message):
    env = load("peg")
    before = env.get_parameters()
    with pytest.raises(error, match=message):
        env.set_parameters(values)
    assert env.get_parameters() == before
    with pytest.raises(UserError, match=message):
        load("peg", parameters=values)


def test_rewards_are_marked():
    marked = {n for n, s in load("plate").parameter_specs().items() if s.affects_reward}
    assert "reward_success" in marked and "friction" not in marked


@pytest.mark.parametrize("variant", NAMES)
def test_levels_get_harder(variant):
    values = [load(variant, level).get_parameters() for level in LEVELS]
    assert load(variant, None).get_parameters() == values[1]
    for name in ("goal_rot_noise", "wrench_noise", "wrench_bias_spread", "policy_lag_ms"):
        assert values[0][name] <= values[1][name] <= values[2][name]
    tight = "slot_gap" if variant == "plate" else "clearance"
    assert values[0][tight] >= values[1][tight] >= values[2][tight]
    assert values[0]["force_abort"] > values[2]["force_abort"]


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        ("contact_insert:plane", {}, "there is contact_insert:planar, "),
        ("contact_insert:peg", {"level": "brutal"}, "must be easy or medium or hard"),
        ("cartpole_swingup", {"level": "easy"}, "'cartpole_swingup' has no levels"),
        ("contact_insert:peg", {"task_kwargs": {"histroy": 2}}, "it takes history, velocity"),
    ],
)
def test_wrong_names_and_arguments_are_explained(name, kwargs, message):
    with pytest.raises(UserError, match=message):
        envs.load(settings.Env(name=name, **kwargs))


@pytest.mark.parametrize(
    ("name", "scale"), [("goal_pos_noise", "noise_level"), ("goal_rot_noise", "noise_level")]
)
def test_noise_scales_with_its_level(name, scale):
    def believed(**values):
        env = load("planar", seed=7, parameters={"init_xy_offset": 0.0, **values})
        env.reset()
        return env._start.goal

    none = believed(**{name: 0.1, scale: 0.0})
    np.testing.assert_array_equal(none, believed())
    half, full = believed(**{name: 0.1, scale: 0.5}), believed(**{name: 0.1})
    np.testing.assert_allclose(full - none, 2 * (half - none), atol=1e-12)
    assert np.abs(full - none).max() > 0


def test_what_is_sensed_is_noisy_but_the_truth_is_not():
    quiet = load("peg", seed=2).reset().observation
    for name, value in (
        ("wrench_noise", 1.0),
        ("wrench_bias", [1, 2, 3]),
        ("pose_noise", [0.01, 0]),
    ):
        env = load("peg", seed=2, parameters={name: value})
        assert not np.array_equal(env.reset().observation, quiet)
        assert env.get_info()["point"] == pytest.approx(
            np.array([*-env._start.fixture, env._start.height]), abs=0.012
        )


def test_latency_delays_the_hand():
    def height(lag):
        env = load(
            "planar", parameters={**STILL, "init_z_offset": 0.03, "policy_lag_ms": [lag, lag]}
        )
        env.reset()
        env.step(np.zeros(3, np.float32))
        return env.get_info()["point"][2]

    assert height(0) < height(10) < height(30) < height(1000) == pytest.approx(0.03)


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
