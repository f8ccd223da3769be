"""What curricula and levels set of ContactInsert, and what each does."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from sactory import curriculum, envs, settings
from sactory.curriculum.environment import ParameterSpec
from sactory.envs.contact_insert.parameters import LEVELS
from sactory.errors import UserError
from tests.contact_rig import NAMES, STILL, load

pytestmark = pytest.mark.timeout(120)

CURRICULA = Path(curriculum.__file__).parents[2] / "configs" / "curricula"
UPDOWN = {
    "type": "updown",
    "measure": "success_rate",
    "up": 0.8,
    "down": 0.2,
    "step_up": 0.1,
    "step_down": 0.1,
}


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


@pytest.mark.parametrize("name", ["contact_insert_original", "noise_by_success", "noise_ramp"])
@pytest.mark.parametrize("variant", NAMES)
def test_shipped_curricula_fit(variant, name):
    made = curriculum.load(CURRICULA / f"{name}.json")
    env = load(variant)
    curriculum.check_environment(made, env.parameter_specs(), env.info_metrics)
    assert set(env.info_metrics) <= set(env.get_info())
    env.set_parameters(made.values(made.hardest_state(), np.random.default_rng(0)))
    assert env.get_parameters()["noise_level"] == 1


def test_curricula_may_set_parameters_of_every_kind():
    params = {
        "hole_shape": {"type": "choice", "values": ["box", "cylinder"]},
        "policy_lag_ms": [3, 6],
        "wrench_bias": {"type": "normal", "mean": 0, "std": 0.5, "shape": [3]},
        "goalreach_steps": {"type": "int_uniform", "low": 1, "high": 10},
        "clearance": {"type": "lerp", "from": 0.002, "to": 0.0005},
    }
    made = curriculum.parse({"schema": 2, "curriculum": {"params": params, "difficulty": UPDOWN}})
    env = load("peg")
    curriculum.check_environment(made, env.parameter_specs(), env.info_metrics)
    env.set_parameters(made.values(made.initial_state(), np.random.default_rng(0)))
    assert env.get_parameters()["policy_lag_ms"] == (3, 6)
    env.reset()
