"""Gymnasium's and PyBullet's environments: spaces, ends, seeds, options, pictures, mistakes."""

from __future__ import annotations

import contextlib
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
from tf_agents.environments import utils
from tf_agents.specs import array_spec

from sactory import cli, envs, rendering, settings
from sactory.curriculum import ParameterSpec
from sactory.errors import UserError
from sactory.specs import Specs

gymnasium = pytest.importorskip("gymnasium")
spaces = gymnasium.spaces

from sactory.envs.gymnasium_adapter import GymnasiumEnvironment  # noqa: E402

pytestmark = pytest.mark.timeout(120)

PUSH = np.array([0.5], np.float32)


def load(name: str = "gymnasium:Pendulum-v1", seed: int = 3, **kwargs):
    return envs.load(settings.Env(name=name, **kwargs), seed=seed)


class Fake(gymnasium.Env):
    """Returns what its lists say; keeps what it was given."""

    action_space = spaces.Box(-1, 1, (1,), np.float32)
    observation_space = spaces.Box(-1, 1, (1,), np.float32)
    ends = (False, False)
    seen = np.zeros(1, np.float32)

    def __init__(self, **parts):
        self.__dict__.update(parts)
        self.actions: list[np.ndarray] = []
        self.resets: list[tuple] = []

    def reset(self, seed=None, options=None):
        self.resets.append((seed, options))
        return self.seen, {}

    def step(self, action):
        self.actions.append(action)
        if action.ravel()[0] > 0.99:
            raise RuntimeError("the physics blew up")
        return self.seen, 1.0, *self.ends, {"is_success": True}


def adapt(action_repeat: int = 1, **parts) -> tuple[GymnasiumEnvironment, Fake]:
    inner = Fake(**parts)
    return GymnasiumEnvironment(inner, "fake", action_repeat), inner


def test_a_registered_environment_keeps_tf_agents_contract():
    env = load(task_kwargs={"g": 5.0}, action_repeat=2)
    assert (env.max_episode_steps, env.action_repeat, env.observation_keys) == (200, 2, ())
    assert env.control_timestep == pytest.approx(1 / 30)
    utils.validate_py_environment(env, episodes=2)
    assert env._env.unwrapped.g == 5.0


def test_the_same_seed_gives_the_same_episodes():
    one, other, different = load(seed=3), load(seed=3), load(seed=4)
    first = [env.reset().observation for env in (one, other, different)]
    np.testing.assert_array_equal(first[0], first[1])
    assert not np.array_equal(first[0], first[2])
    second = [env.reset().observation for env in (one, other)]
    np.testing.assert_array_equal(*second)
    assert not np.array_equal(first[0], second[0])
    one.seed(3)
    np.testing.assert_array_equal(one.step(PUSH).observation, first[0])


def test_reset_options_come_from_the_settings():
    env = load(reset_options={"x_init": 0.0, "y_init": 0.0})
    for _ in range(2):
        np.testing.assert_array_equal(env.reset().observation, [1, 0, 0])
    with pytest.raises(UserError, match=r"reset_options holds for gymnasium's environments"):
        load("cartpole_balance", reset_options={"x": 1})


@pytest.mark.parametrize(
    ("ends", "discount"),
    [((True, False), 0), ((False, True), 1), ((True, True), 0)],
    ids=["terminated", "truncated", "both"],
)
def test_terminated_and_truncated_are_kept_apart(ends, discount):
    env, inner = adapt(action_repeat=3, ends=ends)
    assert env.reset().is_first()
    last = env.step(PUSH)
    assert last.is_last() and last.discount == discount and last.reward == 1.0
    assert len(inner.actions) == 1 and env.get_info()["success"]
    assert env.step(PUSH).is_first() and len(inner.resets) == 2


def test_action_repeat_sums_the_rewards():
    env, inner = adapt(action_repeat=3)
    env.reset()
    assert env.step(PUSH).reward == 3 and len(inner.actions) == 3


BOX = spaces.Box(-np.inf, np.inf, (2, 3), np.float64)


@pytest.mark.parametrize(
    ("space", "seen", "expected"),
    [
        (BOX, np.arange(6.0).reshape(2, 3), np.arange(6).reshape(2, 3)),
        (spaces.Box(0, 255, (2,), np.uint8), np.array([0, 255], np.uint8), [0, 255]),
        (spaces.Box(-1, 1, (), np.float32), np.float32(0.5), 0.5),
        (spaces.Discrete(4, start=-1), np.int64(1), [0, 0, 1, 0]),
        (spaces.MultiDiscrete([2, 3]), np.array([1, 2]), [0, 1, 0, 0, 1]),
        (spaces.MultiDiscrete([[2], [2]]), np.array([[0], [1]]), [1, 0, 0, 1]),
        (spaces.MultiBinary(3), np.array([1, 0, 1], np.int8), [1, 0, 1]),
        (
            spaces.Dict({"b": spaces.Box(-1, 1, (2,)), "a": spaces.Discrete(2)}),
            {"b": np.ones(2, np.float32), "a": 1},
            {"b": [1, 1], "a": [0, 1]},
        ),
        (
            spaces.Tuple([spaces.Discrete(2), spaces.Box(-1, 1, (1,))]),
            (0, np.ones(1, np.float32)),
            {"0": [1, 0], "1": [1]},
        ),
        (
            spaces.Dict({"arm": spaces.Dict({"x/y": spaces.Box(-1, 1, (1,))})}),
            {"arm": {"x/y": np.ones(1, np.float32)}},
            {"arm.x.y": [1]},
        ),
    ],
)
def test_observations_become_float32(space, seen, expected):
    env, _ = adapt(observation_space=space, seen=seen)
    got = env.reset().observation
    assert array_spec.check_arrays_nest(got, env.observation_spec())
    sensors = got if isinstance(got, dict) else {"": got}
    wanted = expected if isinstance(expected, dict) else {"": expected}
    assert sensors.keys() == wanted.keys()
    for key, value in sensors.items():
        assert value.dtype == np.float32
        np.testing.assert_array_equal(value, wanted[key])
        assert not np.shares_memory(value, np.asarray(env.step(PUSH).observation))
    Specs.of_env(env, settings.Env(name="fake"))
    pickle.dumps(env)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (spaces.Text(5), "a Text space can't be observed"),
        (spaces.Sequence(spaces.Discrete(2)), "a Sequence space can't be observed"),
        (spaces.Box(0, 2**40, (1,), np.int64), "integers beyond 2**24"),
        (spaces.Dict({"t": spaces.Text(5)}), "part 't': a Text space"),
        (spaces.Dict({}), "the observation is empty"),
    ],
)
def test_observations_that_no_row_holds_are_refused(space, message):
    with pytest.raises(UserError) as caught:
        adapt(observation_space=space)
    assert message in str(caught.value) and str(caught.value).startswith("environment fake")


@pytest.mark.parametrize(
    ("space", "low", "high"),
    [
        (
            spaces.Box(np.array([0.1, -7.3], np.float32), np.array([0.7, -1.1], np.float32)),
            [0.1, -7.3],
            [0.7, -1.1],
        ),
        (spaces.Box(-np.inf, np.inf, (2,), np.float64), [-1, -1], [1, 1]),
        (spaces.Box(0, np.inf, (2,), np.float64), [0, 0], [2, 2]),
        (spaces.Box(-np.inf, 5.0, (1, 2), np.float64), [[3, 3]], [[5, 5]]),
    ],
)
def test_actions_are_mapped_to_the_bounds_and_never_beyond(space, low, high):
    env, inner = adapt(action_space=space)
    env.reset()
    for action in (-1, 1):
        with contextlib.suppress(RuntimeError):  # the fake's own
            env.step(np.full(2, action, np.float32))
        env.reset()
    np.testing.assert_array_equal(inner.actions, np.array([low, high], space.dtype))
    assert all(action in space for action in inner.actions)
    with pytest.raises(ValueError, match=r"shape \(1,\)"):
        env.step(PUSH)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (spaces.Discrete(2), "its actions are discrete, Discrete(2): so far"),
        (spaces.MultiBinary(2), "its actions are discrete"),
        (spaces.Box(0, 3, (1,), np.int64), "its actions are discrete"),
        (spaces.Tuple([spaces.Discrete(2)]), "its actions are not one array"),
        (spaces.Box(0, 1, (0,)), "it takes no actions"),
    ],
)
def test_other_actions_are_refused_in_one_line(space, message):
    with pytest.raises(UserError) as caught:
        adapt(action_space=space)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_an_environment_that_raises_starts_a_new_episode():
    env, inner = adapt()
    env.reset()
    with pytest.raises(RuntimeError, match="blew up"):
        env.step(np.ones(1, np.float32))
    assert env.step(PUSH).is_first() and len(inner.resets) == 2


def test_its_own_parameters_are_set_at_a_reset():
    calls: list[dict] = []
    env, _ = adapt(
        parameter_specs=lambda: {"mass": ParameterSpec(1.0, minimum=0.0)},
        set_parameters=calls.append,
        info_metrics=("success",),
    )
    assert env.info_metrics == ("success",) and load().info_metrics == ()
    env.reset()
    env.set_parameters({"mass": 2})
    env.step(PUSH)
    assert calls == [] and env.get_parameters() == {"mass": 1.0}
    env.reset()
    assert calls == [{"mass": 2.0}] and env.get_parameters() == {"mass": 2.0}
    assert load().parameter_specs() == {}


def test_pictures():
    env = load()
    env.reset()
    first = rendering.frame(env, 32, 32)
    assert first.std() > 5
    for _ in range(10):
        env.step(PUSH)
    assert not np.array_equal(rendering.frame(env, 32, 32), first)
    env.close()
    with pytest.raises(UserError, match="give it a `render` method"):
        rendering.frame(adapt()[0], 32, 32)


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        ("gymnasium:Pendulm-v1", {}, "Did you mean: `Pendulum`"),
        ("gymnasium:Pendulum-v9", {}, "`v9` for environment `Pendulum` doesn't exist"),
        ("gymnasium:no_such_module:A-v0", {}, "No module named 'no_such_module'"),
        ("gymnasium:CartPole-v1", {}, "its actions are discrete"),
        ("gymnasium:Pendulum-v1", {"task_kwargs": {"gg": 1}}, "unexpected keyword argument 'gg'"),
        ("gymnasium:Pendulum-v1", {"time_limit": 1.0}, "{'max_episode_steps': N}"),
    ],
)
def test_mistakes_are_one_line(name, kwargs, message):
    with pytest.raises(UserError) as caught:
        load(name, **kwargs)
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert name in str(caught.value)


@pytest.mark.parametrize(
    ("name", "missing", "extra"),
    [
        ("gymnasium:Pendulum-v1", "gymnasium", "gymnasium"),
        ("pybullet:HalfCheetahBulletEnv-v0", "pybullet_envs_gymnasium", "pybullet"),
    ],
)
def test_a_missing_extra_is_named(monkeypatch, name, missing, extra):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(UserError, match=f"need the extra {extra}, .*`make setup EXTRAS={extra}`"):
        envs.check_name(name)


def test_a_module_that_registers_is_found_beside_the_user(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    Path("registers_one.py").write_text(
        "import gymnasium\n"
        "entry = 'gymnasium.envs.classic_control.pendulum:PendulumEnv'\n"
        "gymnasium.register('MadeByUser-v0', entry, max_episode_steps=7)\n"
    )
    name = "gymnasium:registers_one:MadeByUser-v0"
    assert load(name).max_episode_steps == 7
    Path("mine.gin").write_text(f"include 'configs/sac.gin'\nenvs.load.name = '{name}'\n")
    assert cli.main(["init", "--config", "mine.gin", "--run_dir", "run"]) == 0
    assert Path("run", "code", "registers_one.py").exists()
    sys.modules.pop("registers_one")


def test_pybullet(capfd):
    pytest.importorskip("pybullet")
    pytest.importorskip("pybullet_envs_gymnasium")
    with pytest.raises(UserError, match="did you mean `HalfCheetahBulletEnv-v0`"):
        envs.check_name("pybullet:HalfCheetaBulletEnv-v0")
    env, twin = (load("pybullet:HalfCheetahBulletEnv-v0") for _ in range(2))
    specs = Specs.of_env(env, settings.Env(name="pybullet:HalfCheetahBulletEnv-v0"))
    assert (specs.sensors["observation"].shape, specs.action.shape) == ((26,), (6,))
    assert env.max_episode_steps == 1000
    env.reset()
    twin.reset()
    for action in np.random.default_rng(1).uniform(-1, 1, (20, 6)).astype(np.float32):
        step, other = env.step(action), twin.step(action)
        np.testing.assert_array_equal(step.observation, other.observation)
    assert rendering.frame(env, 32, 32).std() > 1
    env.close()
    twin.close()
    assert capfd.readouterr().out == ""
