"""Specs: from an environment to JSON, to TF-Agents, and against a changed environment."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from tf_agents.environments import py_environment
from tf_agents.specs import array_spec, tensor_spec
from tf_agents.trajectories import time_step as ts

from sactory import settings
from sactory.errors import UserError
from sactory.run_dir import RunDir, write_json
from sactory.specs import ArraySpec, Specs, check_env_matches, to_tf_agents

pytestmark = pytest.mark.timeout(120)

ENV = settings.Env(name="python:a:b", action_repeat=2)


def bounded(shape: tuple[int, ...], dtype: str, low: Any, high: Any) -> Any:
    make: Any = array_spec.BoundedArraySpec
    return make(shape, dtype, low, high)


def plain(shape: tuple[int, ...], dtype: str = "float32") -> Any:
    make: Any = array_spec.ArraySpec
    return make(shape, dtype)


class Env(py_environment.PyEnvironment):
    """An environment that has nothing but specs."""

    def __init__(self, observation: Any = None, action: Any = None, reward: Any = None):
        super().__init__()
        self._observation = plain((3,)) if observation is None else observation
        self._action = bounded((2,), "float32", [-1, -2], [1, 2]) if action is None else action
        self._reward = reward

    def observation_spec(self) -> Any:
        return self._observation

    def action_spec(self) -> Any:
        return self._action

    def reward_spec(self) -> Any:
        return super().reward_spec() if self._reward is None else self._reward

    def _reset(self) -> Any:
        raise NotImplementedError

    def _step(self, action: Any) -> Any:
        raise NotImplementedError


SENSORS = {
    "velocity": plain((3,)),
    "contact": bounded((2,), "uint8", 0, 1),
    "angle": bounded((), "float32", -np.pi, np.inf),
}


def test_specs_survive_json():
    specs = Specs.of_env(Env(SENSORS), ENV, {"sha256": "abc"})
    text = json.dumps(specs.to_json(), allow_nan=False)
    assert Specs.from_json(json.loads(text)) == specs
    assert list(specs.sensors) == ["velocity", "contact", "angle"], "the environment's order"
    assert specs.sensors["contact"] == ArraySpec((2,), "uint8", 0.0, 1.0)
    assert specs.sensors["velocity"].minimum is None
    assert specs.action == ArraySpec((2,), "float32", [-1.0, -2.0], [1.0, 2.0])
    assert specs.env == {
        "name": "python:a:b",
        "action_repeat": 2,
        "max_episode_steps": None,
        "sha256": "abc",
    }
    assert specs.row.size == 6 + 2 + 1 + 1 + 6 + 1


def test_specs_for_tf_agents_are_float32():
    observation, action, time_step = to_tf_agents(Specs.of_env(Env(SENSORS), ENV))
    assert {key: spec.dtype.name for key, spec in observation.items()} == dict.fromkeys(
        SENSORS, "float32"
    )
    assert not isinstance(observation["velocity"], tensor_spec.BoundedTensorSpec)
    assert observation["angle"].minimum == np.float32(-np.pi)
    assert observation["angle"].maximum > 1e37
    np.testing.assert_array_equal(action.minimum, [-1, -2])
    assert (action.shape, action.dtype.name) == ((2,), "float32")
    assert time_step == ts.time_step_spec(observation)
    lone, _, _ = to_tf_agents(Specs.of_env(Env(), ENV))
    assert lone.shape == (3,) and lone.name == "observation"


@pytest.mark.parametrize(
    ("env", "message"),
    [
        (Env({"a": {"b": plain((2,))}}), "observation 'a' is a dict: an array is wanted"),
        (Env({"a/b": plain((2,))}), "observation has the key 'a/b': a string without '/'"),
        (Env([plain((2,))]), "observation is a list: an array or a dict of arrays is wanted"),
        (Env({}), "observation is a dict: an array or a dict of arrays is wanted"),
        (Env({"x": plain((2,), "float64")}), "observation 'x' is float64, which a float32 row"),
        (Env(plain((2,), "uint32")), "observation is uint32 from 0 to 4.29497e+09, which a"),
        (Env(plain((0, 3))), "observation has shape [0, 3], which holds nothing"),
        (Env(action=plain((2,))), "action has no bounds: finite ones are wanted"),
        (Env(action=bounded((2,), "float32", [0, 0], [1, 0])), "room to move is wanted"),
        (Env(action=[plain((2,))]), "action is a list: one array is wanted"),
        (Env(action=bounded((), "int32", 0, 3)), "action is discrete (int32 [])"),
        (Env(reward=plain((2,))), "reward is float32 [2], one number is wanted"),
        (Env(reward=plain((), "float64")), "reward is float64, which a float32 row"),
    ],
)
def test_what_sac_can_not_use_is_refused(env, message):
    with pytest.raises(UserError) as caught:
        Specs.of_env(env, ENV)
    said = str(caught.value)
    assert said.startswith("environment python:a:b: ") and message in said and "\n" not in said


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {**SENSORS, "velocity": plain((4,))},
            "observation 'velocity' was float32 [3], is now float32 [4]",
        ),
        ({**SENSORS, "extra": plain((1,))}, "'extra' was absent, is now float32 [1]"),
        ({k: SENSORS[k] for k in ("velocity", "angle")}, "'contact' was uint8 [2] in [0.0, 1.0]"),
        ({k: SENSORS[k] for k in sorted(SENSORS)}, "its fields came in the order"),
    ],
)
def test_an_environment_that_changed_since_init_is_refused(changed, message):
    specs = Specs.of_env(Env(SENSORS), ENV)
    check_env_matches(specs, Env(SENSORS))
    with pytest.raises(UserError) as caught:
        check_env_matches(specs, Env(changed))
    assert "environment python:a:b changed since init: " in str(caught.value)
    assert message in str(caught.value)


def test_changed_action_bounds_are_refused():
    specs = Specs.of_env(Env(), ENV)
    with pytest.raises(UserError, match=r"action was float32 .* is now float32"):
        check_env_matches(specs, Env(action=bounded((2,), "float32", -1, 1)))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"format": 99}, "its format is 99, this Sactory reads 1"),
        ({"row": {"kind": "flat", "version": 99, "fields": []}}, "rows of kind flat version 99"),
        ({"action": {}}, "can't be used"),
        (None, "it is missing or is not JSON"),
    ],
)
def test_specs_of_another_version_or_damaged(tmp_path, damage, message):
    run_dir = RunDir(tmp_path)
    run_dir.provenance.write_text("{}")
    write_json(run_dir.specs, Specs.of_env(Env(), ENV).to_json())
    assert Specs.load(run_dir) == Specs.of_env(Env(), ENV)
    if damage is None:
        run_dir.specs.write_text('{"format": ')
    else:
        write_json(run_dir.specs, {**Specs.of_env(Env(), ENV).to_json(), **damage})
    with pytest.raises(UserError, match=r"specs.json can't be used: ") as caught:
        Specs.load(run_dir)
    assert message in str(caught.value)
