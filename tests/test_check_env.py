"""`sactory check-env`: what it says of sound and of spoilt environments, and its exit code."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import numpy as np
import pytest
from tf_agents.environments import py_environment
from tf_agents.specs import array_spec
from tf_agents.trajectories import time_step as ts

from sactory import cli
from sactory.curriculum import ParameterSpec

pytestmark = pytest.mark.timeout(120)


class Spoilt(py_environment.PyEnvironment):
    """Sound unless its argument says how it is spoilt."""

    max_episode_steps = None

    def __init__(self, how="", seed=0):
        super().__init__()
        if how == "build":
            raise RuntimeError("no simulator here")
        self.how = how
        self.random = np.random.default_rng(None if how == "unseeded" else seed)
        self.buffer = np.zeros(2, np.float32)
        if how == "unpicklable":
            self.function = lambda: 0
        if how == "endless with limit":
            self.max_episode_steps = 5

    def observation_spec(self):
        return array_spec.BoundedArraySpec((2,), np.float32, -10.0, 10.0)

    def action_spec(self):
        return array_spec.BoundedArraySpec((1,), np.float32, -1.0, 1.0)

    def parameter_specs(self):
        return {"size": ParameterSpec(1.0, 0.0, 3.0)} if "parameter" in self.how else {}

    def set_parameters(self, values):
        if values["size"] > 2:
            raise RuntimeError("too large")

    def _reset(self):
        self.steps = 0
        return ts.restart(self.observe())

    def _step(self, action):
        if self._current_time_step.is_last() and self.how != "goes on":
            return self.reset()
        self.steps += 1
        if self.how == "raises" and self.steps == 4:
            raise RuntimeError("unstable")
        reward = 1e30 if self.how == "reward" else 1.0
        if self.steps >= 10 and not self.how.startswith("endless"):
            end = ts.termination if self.how == "terminal limit" else ts.truncation
            return end(self.observe(), reward)
        return ts.transition(self.observe(), reward, 0.0 if self.how == "discount" else 1.0)

    def observe(self):
        value = np.zeros(2, np.float32) if self.how == "fixed" else self.random.uniform(-1, 1, 2)
        if self.how in ("dtype", "shape", "nan", "bounds") and self.steps == 3:
            return {
                "dtype": value.astype(np.float64),
                "shape": np.zeros(3, np.float32),
                "nan": np.full(2, np.nan, np.float32),
                "bounds": np.full(2, 11, np.float32),
            }[self.how]
        if self.how == "reuses":
            self.buffer[:] = value
            return self.buffer
        return value.astype(np.float32)


def check(capsys, *words: str) -> tuple[int, dict[str, tuple[str, str]], str]:
    """Exit code; level and text by topic; stderr."""
    code = cli.main(["check-env", *words])
    out, err = capsys.readouterr()
    lines = [line.split(maxsplit=2) for line in out.splitlines()]
    return code, {topic: (level, text) for level, topic, text in lines}, err


def check_spoilt(capsys, how: str) -> tuple[int, dict[str, tuple[str, str]], str]:
    binding = f"envs.load.task_kwargs = {{'how': {how!r}}}"
    name = "python:tests.test_check_env:Spoilt"
    return check(capsys, name, "--set", binding, "--steps=100")


TOPICS = ["specs", "values", "episodes", "seeds", "memory", "pickling", "parameters", "speed"]


def test_a_sound_environment(capsys):
    code, found, _ = check_spoilt(capsys, "")
    assert code == 0 and list(found) == TOPICS
    assert {level for level, _ in found.values()} == {"ok"}
    assert found["episodes"][1] == "9 ended, 0 at a terminal state (discount 0)"


def test_a_task_of_the_suite_with_its_parameters(capsys):
    code, found, _ = check(capsys, "cartpole_balance", "--steps=300")
    assert code == 0 and list(found) == TOPICS
    assert found["parameters"][1].startswith("9: gravity_scale, ")


@pytest.mark.parametrize(
    ("how", "level", "topic", "text"),
    [
        ("build", "fail", "build", "RuntimeError: no simulator here"),
        ("raises", "fail", "steps", "it raised RuntimeError: unstable"),
        (
            "dtype",
            "fail",
            "form",
            "step 3: the observation is float64 [2], its spec promises float32",
        ),
        ("shape", "fail", "form", "step 3: the observation is float32 [3], its spec promises"),
        ("nan", "fail", "finite", "step 3: the observation holds NaN"),
        ("bounds", "fail", "bounds", "step 3: the observation leaves its bounds [-10.0, 10.0]"),
        ("reward", "fail", "reward", "a number within"),
        ("discount", "fail", "discount", "the discount is 0 before the last step"),
        ("goes on", "fail", "order", "step 11: its step_type is 2 where a FIRST one belongs"),
        ("endless", "warn", "episodes", "no episode ended and it names no max_episode_steps"),
        ("endless with limit", "fail", "episodes", "though max_episode_steps = 5"),
        ("terminal limit", "warn", "episodes", "after 10 steps with discount 0: if that is a time"),
        ("unseeded", "warn", "seeds", "with the same seed two environments differ from step 0 on"),
        ("fixed", "warn", "seeds", "another seed gives the same episode"),
        ("reuses", "warn", "memory", "writes into observations that it returned before"),
        ("unpicklable", "warn", "pickling", "can't be pickled"),
        ("parameter", "fail", "parameters", "size = 3.0: RuntimeError: too large; narrow its"),
    ],
)
def test_each_fault_is_named_with_its_level(capsys, how, level, topic, text):
    code, found, _ = check_spoilt(capsys, how)
    assert found[topic][0] == level and text in found[topic][1]
    assert code == (1 if level == "fail" else 0)


def test_the_settings_come_from_a_configuration(capsys, tmp_path):
    config = tmp_path / "mine.gin"
    config.write_text(
        "include 'configs/sac.gin'\n"
        "envs.load.name = 'cartpole_swingup'\nenvs.load.action_repeat = 4\n"
    )
    code, found, _ = check(capsys, str(config), "--set", "envs.load.time_limit = 0.4", "--steps=55")
    assert code == 0
    assert found["episodes"][1] == "5 ended, 0 at a terminal state (discount 0)"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "which environment? `sactory check-env gymnasium:Pendulum-v1`"),
        (["cartpole_swingp"], "near ones are cartpole_swingup"),
        (["no_such.gin"], "no_such.gin"),
        (["cartpole_balance", "--steps=0"], "--steps=0 must be at least 1"),
        (["cartpole_balance", "--set", "envs.load.names = 'x'"], "has no parameter `names`"),
    ],
)
def test_mistakes_are_one_line_with_code_2(capsys, words, message):
    code, found, err = check(capsys, *words)
    assert (code, found) == (2, {}) and message in err and err.count("\n") == 1


def test_a_mistake_does_not_wait_for_tensorflow():
    code = """
        import sys
        from sactory import cli
        assert cli.main(["check-env", "cartpole_swingp"]) == 2
        assert cli.main(["check-env", "gymnasium:Pendulm-v1"]) == 2
        assert "tensorflow" not in sys.modules
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], timeout=60)
    assert done.returncode == 0
