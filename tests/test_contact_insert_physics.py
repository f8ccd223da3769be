"""ContactInsert's physics: forces, penetration, friction, shapes, finite numbers."""

from __future__ import annotations

import numpy as np
import pytest

from sactory.envs.contact_insert import fixtures
from sactory.envs.contact_insert.variants import PLATE_RADIUS, SLOT_DEPTH
from tests.contact_rig import NAMES, contact_forces, load, place, push, simulate

pytestmark = pytest.mark.timeout(120)

WEIGHT = 0.33 * 9.81


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
