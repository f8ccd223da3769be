"""Parameters of environments: checked, in force from the next reset on, free where none is set."""

from __future__ import annotations

import dm_env
import numpy as np
import pytest
from dm_control import suite as dm_suite
from dm_env import specs
from tf_agents.environments import random_py_environment
from tf_agents.specs import array_spec
from tf_agents.trajectories import time_step as ts

from sactory import envs, settings
from sactory.curriculum import ParameterSpec, check_environment, parse
from sactory.envs import suite, user_env
from sactory.errors import UserError

pytestmark = pytest.mark.timeout(120)

PUSH = np.array([0.5], np.float32)


def load(name: str = "cartpole_swingup", **kwargs) -> suite.DmEnvironment:
    return envs.load(settings.Env(name=name, **kwargs), seed=3)


def episode(env, steps: int = 12) -> np.ndarray:
    """Observations `[steps + 1, O]` of the episode of seed 3."""
    env.seed(3)
    shape = env.action_spec().shape
    action = np.full(shape, 0.5, np.float32)
    return np.array(
        [env.reset().observation, *(env.step(action).observation for _ in range(steps))]
    )


def test_every_task_has_the_default_set():
    env = load()
    assert list(env.parameter_specs()) == [
        "gravity_scale",
        "damping_scale",
        "friction_scale",
        "mass_scale",
        "actuator_gain_scale",
        "observation_noise",
        "action_noise",
        "latency",
        "initial_spread",
    ]
    assert env.get_parameters() == {n: s.default for n, s in env.parameter_specs().items()}
    curriculum = parse({"curriculum": {"params": {"latency": 3, "mass_scale": 1.5}}})
    check_environment(curriculum, env.parameter_specs(), ())


def test_values_are_in_force_from_the_next_reset_on():
    env = load(time_limit=0.03)
    model = env.physics.model
    gravity = model.opt.gravity[2]
    env.reset()
    env.set_parameters({"gravity_scale": 0.5})
    env.step(PUSH)
    assert (env.get_parameters()["gravity_scale"], model.opt.gravity[2]) == (1.0, gravity)
    env.step(PUSH)
    assert env.step(PUSH).is_last()
    assert env.step(PUSH).is_first()  # without a reset of ours
    assert (env.get_parameters()["gravity_scale"], model.opt.gravity[2]) == (0.5, gravity / 2)
    for _ in range(8):  # and so in the episodes to come
        env.step(PUSH)
    assert model.opt.gravity[2] == gravity / 2


@pytest.mark.parametrize(
    "values",
    [
        {"gravity_scale": 0.3},
        {"damping_scale": 5.0},
        {"friction_scale": 0.1},
        {"mass_scale": 3.0},
        {"actuator_gain_scale": 2.0},
        {"observation_noise": 0.1},
        {"action_noise": 0.3},
        {"latency": 2},
        {"initial_spread": 0.2},
    ],
)
def test_each_changes_the_episode_and_leaves_no_trace(values):
    env = load("cheetah_run")
    before = episode(env, 40)
    env.set_parameters(values)
    changed = episode(env, 40)
    assert np.isfinite(changed).all() and not np.array_equal(changed, before)
    np.testing.assert_array_equal(episode(env, 40), changed)  # the noise follows the seed
    env.set_parameters({key: env.parameter_specs()[key].default for key in values})
    np.testing.assert_array_equal(episode(env, 40), before)


def test_what_a_task_writes_to_its_model_is_scaled_too():
    env = load("finger_spin")  # sets the hinge's damping at each reset
    env.reset()
    damping = env.physics.named.model.dof_damping["hinge"][0]
    env.set_parameters({"damping_scale": 3.0})
    for _ in range(2):
        env.reset()
        assert env.physics.named.model.dof_damping["hinge"][0] == pytest.approx(3 * damping)


def test_masses_take_what_follows_from_them_along():
    env = load("cheetah_run")
    env.reset()
    subtree = env.physics.model.body_subtreemass.copy()
    env.set_parameters({"mass_scale": 2.0})
    env.reset()
    np.testing.assert_allclose(env.physics.model.body_subtreemass, 2 * subtree)


def test_latency_delays_actions_by_rows():
    env, prompt = load(), load()
    env.set_parameters({"latency": 2})
    actions = [PUSH, -PUSH, PUSH, PUSH / 2]
    env.reset()
    late = [env.step(action).observation for action in [*actions, PUSH, PUSH]]
    prompt.reset()
    zero = np.zeros(1, np.float32)
    early = [prompt.step(action).observation for action in [zero, zero, *actions]]
    np.testing.assert_array_equal(late, early)


def test_the_first_states_spread_within_the_limits_of_joints():
    env = load("reacher_easy")
    env.set_parameters({"initial_spread": 50.0})
    env.reset()
    wrist = env.physics.named.data.qpos["wrist"][0]
    low, high = env.physics.named.model.jnt_range["wrist"]
    assert low <= wrist <= high


def test_steps_go_the_short_way_unless_they_are_varied():
    env = load()
    env.reset()
    assert not {"_step", "should_reset"} & set(vars(env))
    env.set_parameters({"latency": 1, "gravity_scale": 2.0})
    env.reset()
    assert "_step" in vars(env)
    env.set_parameters({"latency": 0})
    env.reset()
    assert not {"_step", "should_reset"} & set(vars(env))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"gravity": 1.0}, "no parameter 'gravity'; did you mean `gravity_scale`?"),
        ({"x": 1.0}, "no parameter 'x'; it has gravity_scale, damping_scale,"),
        ({"mass_scale": 0.0}, "parameter 'mass_scale' = 0.0: at least 0.01 is wanted"),
        ({"mass_scale": float("nan")}, "parameter 'mass_scale' = nan: at least 0.01"),
        ({"gravity_scale": float("inf")}, "a finite number is wanted"),
        ({"gravity_scale": "low"}, "parameter 'gravity_scale' = 'low': float is wanted"),
        ({"gravity_scale": [1.0, 2.0]}, "= [1.0, 2.0]: float is wanted"),
        ({"latency": 1.5}, "parameter 'latency' = 1.5: int is wanted"),
        ({"latency": 101}, "0 to 100 is wanted"),
    ],
)
def test_wrong_values_are_one_line_and_set_nothing(values, message):
    env = load()
    with pytest.raises(UserError) as caught:
        env.set_parameters({"action_noise": 0.1, **values})
    assert message in str(caught.value) and "\n" not in str(caught.value)
    env.reset()
    assert env.get_parameters()["action_noise"] == 0.0


class Adjustable(random_py_environment.RandomPyEnvironment):
    """Begins its episodes by itself; its parameters have every type."""

    def __init__(self):
        action = array_spec.BoundedArraySpec((1,), np.float32, -1.0, 1.0)
        observation = array_spec.BoundedArraySpec((2,), np.float32, -1.0, 1.0)
        super().__init__(observation, action, episode_end_probability=0.0, max_duration=2)
        self.calls = []

    def parameter_specs(self):
        return {
            "size": ParameterSpec(1.0, 0.5, 2.0),
            "range": ParameterSpec([0, 1], minimum=0),
            "shape": ParameterSpec("box"),
            "wind": ParameterSpec(False),
        }

    def set_parameters(self, values):
        self.calls.append(values)


def test_a_users_environment_gets_checked_values_before_a_reset():
    inner = Adjustable()
    env = user_env.UserEnvironment(inner)
    env.reset()
    env.set_parameters({"size": 2, "range": np.array([3, 4])})
    env.set_parameters({"shape": "cylinder", "wind": True, "size": 1})
    assert inner.calls == []
    for _ in range(6):
        env.step(PUSH)
    values = {"size": 1.0, "range": [3, 4], "shape": "cylinder", "wind": True}
    assert inner.calls == [values] and type(inner.calls[0]["size"]) is float
    assert env.get_parameters() == values
    for wrong in ({"wind": 1}, {"shape": 3}, {"range": [1, 2, 3]}, {"range": [1, -1]}):
        with pytest.raises(UserError, match="is wanted"):
            env.set_parameters(wrong)


class Plain(dm_env.Environment):
    def reset(self):
        return dm_env.restart(np.zeros(1))

    def step(self, action):
        return dm_env.transition(0.0, np.zeros(1))

    def observation_spec(self):
        return specs.Array((1,), np.float64)

    def action_spec(self):
        return specs.BoundedArray((1,), np.float64, -1, 1)


def test_an_environment_without_parameters_lists_none():
    env = suite.DmEnvironment(Plain())
    assert env.parameter_specs() == env.get_parameters() == {}
    env.set_parameters({})
    with pytest.raises(UserError, match="no parameter 'size'; it has none"):
        env.set_parameters({"size": 1.0})
    assert isinstance(env.step(PUSH), ts.TimeStep)


def make_cartpole():
    return dm_suite.load("cartpole", "balance", task_kwargs={"random": 1})


def test_a_users_dm_control_task_has_the_default_set_and_own_ones_win(monkeypatch):
    assert "mass_scale" in load("python:tests.test_parameters:make_cartpole").parameter_specs()
    monkeypatch.setattr(Plain, "parameter_specs", lambda self: {"a": 1}, raising=False)
    monkeypatch.setattr(Plain, "set_parameters", lambda self, values: None, raising=False)
    with pytest.raises(UserError, match=r"parameter_specs\(\)\['a'\] is a int"):
        suite.DmEnvironment(Plain())


def test_what_curricula_are_judged_by_passes_the_adapters(monkeypatch):
    assert suite.DmEnvironment(Plain()).info_metrics == ()
    assert suite.DmEnvironment(Plain()).get_info() == {}
    for kind, adapt in ((Plain, suite.DmEnvironment), (Adjustable, user_env.UserEnvironment)):
        monkeypatch.setattr(kind, "info_metrics", ["success"], raising=False)
        monkeypatch.setattr(kind, "get_info", lambda self: {"success": True}, raising=False)
        env = adapt(kind())
        env.reset()
        assert env.info_metrics == ("success",) and env.get_info() == {"success": True}
