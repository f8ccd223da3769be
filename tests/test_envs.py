"""Environments: every task of the suite, the adapter's contract, the user's own, rendering."""

from __future__ import annotations

import importlib
import json
import os
import re
import runpy
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path

import dm_env
import numpy as np
import pytest
from dm_env import specs
from tf_agents.environments import dm_control_wrapper, utils, wrappers
from tf_agents.trajectories import time_step as ts

from sactory import envs, rendering, settings
from sactory.envs import python_env, suite, user_env
from sactory.errors import UserError

pytestmark = pytest.mark.timeout(120)

REPOSITORY = Path(__file__).parents[1]
PAGE = (REPOSITORY / "docs" / "environments.md").read_text()
TASKS = list(envs.suite_tasks())


@pytest.fixture(scope="session")
def opengl():
    """Skips what needs OpenGL where there is none."""
    try:
        rendering.choose_backend()
    except UserError as e:
        pytest.skip(str(e))


def load(name: str, seed: int = 0, **kwargs) -> suite.DmEnvironment:
    return envs.load(settings.Env(name=name, **kwargs), seed=seed)


def random_actions(env, steps: int) -> np.ndarray:
    shape = (steps, *env.action_spec().shape)
    return np.random.default_rng(5).uniform(-1, 1, shape).astype(np.float32)


# Every task of the suite


@pytest.mark.parametrize("name", TASKS)
def test_contract_of_every_task(name, request):
    if name == "quadruped_escape":
        request.getfixturevalue("opengl")  # dm_control draws its terrain whether asked or not
    env = load(name, seed=7)
    assert env.observation_spec().dtype == env.action_spec().dtype == np.float32
    assert (env.action_spec().minimum, env.action_spec().maximum) == (-1, 1)
    actions = random_actions(env, 4)
    episode = [env.reset(), *map(env.step, actions)]
    for step in episode:
        assert env.observation_spec().check_array(step.observation)
        assert np.isfinite(step.observation).all() and np.isfinite(step.reward)
        assert not any(
            np.shares_memory(step.observation, other.observation)
            for other in episode
            if other is not step
        )

    # The same seed gives the same episode, another seed another one.
    env.seed(8)
    assert not np.array_equal(env.reset().observation, episode[0].observation)
    env.seed(7)
    again = [env.step(actions[0]), *map(env.step, actions)]
    for step, twin in zip(episode, again):
        assert_equal(step, twin)

    # TF-Agents' own wrappers see the same numbers in the same order.
    dm_environment = env._env
    dm_environment.task.random.seed(7)
    stock = wrappers.FlattenObservationsWrapper(dm_control_wrapper.DmControlWrapper(dm_environment))
    low, high = stock.action_spec().minimum, stock.action_spec().maximum
    bounded = high < 1e9
    scaled = np.where(bounded, low + (actions.astype(np.float64) + 1) / 2 * (high - low), actions)
    for step, expected in zip(episode, [stock.reset(), *map(stock.step, scaled)]):
        np.testing.assert_allclose(step.observation, expected.observation, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(step.reward, expected.reward, rtol=1e-5, atol=1e-6)
        assert step.step_type == expected.step_type and step.discount == expected.discount
    env.close()


def assert_equal(step: ts.TimeStep, twin: ts.TimeStep) -> None:
    for value, other in zip(step, twin):
        np.testing.assert_array_equal(value, other)


def test_other_instance_with_the_same_seed_behaves_alike():
    one, other = load("finger_turn_hard", seed=3), load("finger_turn_hard", seed=3)
    for action in random_actions(one, 30):
        assert_equal(one.step(action), other.step(action))
    different = load("finger_turn_hard", seed=4)
    assert not np.array_equal(different.reset().observation, one.reset().observation)


def test_lqr_has_one_model_under_every_seed():
    stiffness = [
        load("lqr_lqr_2_1", seed=seed, task_kwargs=kwargs).physics.model.jnt_stiffness.tolist()
        for seed, kwargs in [(1, None), (2, None), (1, {"random": 5})]
    ]
    assert stiffness[0] == stiffness[1] != stiffness[2]


def test_observation_order_is_that_of_sorted_keys():
    env = load("walker_walk")
    assert env.observation_keys == ("height", "orientations", "velocity")
    observation = env.reset().observation
    assert observation[0] == np.float32(env.physics.torso_height())
    np.testing.assert_array_equal(observation[15:], env.physics.velocity().astype(np.float32))


@pytest.mark.parametrize(("name", "repeat"), [("cartpole_swingup", 3), ("fish_swim", 1)])
def test_tf_agents_own_validation(name, repeat):
    env = load(name, action_repeat=repeat, time_limit=0.2)
    utils.validate_py_environment(env, episodes=2)
    assert env.current_time_step().is_last()


def test_task_kwargs_and_episode_length():
    env = load("cartpole_swingup")
    assert (env.max_episode_steps, env.control_timestep) == (1000, 0.01)
    kwargs = {"environment_kwargs": {"control_timestep": 0.05}}
    env = load("cartpole_swingup", time_limit=1.0, task_kwargs=kwargs, action_repeat=3)
    assert (env.max_episode_steps, env.action_repeat) == (20, 3)
    env.reset()
    length = 1
    while not env.step(np.zeros(1, np.float32)).is_last():
        length += 1
    assert length == 7
    assert load("lqr_lqr_2_1").max_episode_steps is None


# The end of an episode


def test_time_limit_truncates_and_the_next_step_starts_anew():
    env = load("cartpole_balance", time_limit=0.03)
    action = np.ones(1, np.float32)
    steps = [env.step(action) for _ in range(5)]  # the first call of all resets
    assert [int(s.step_type) for s in steps] == [0, 1, 1, 2, 0]
    assert [float(s.discount) for s in steps] == [1, 1, 1, 1, 1]
    assert steps[4].reward == 0 and steps[3].reward > 0.5
    assert env.current_time_step() is steps[4]
    # The last observation is the one before the reset: one more step along the same way.
    assert steps[3].observation[0] > steps[2].observation[0] > steps[1].observation[0]


class Counter(dm_env.Environment):
    """Counts steps; float bounds it checks itself, two dictionary entries, a true terminal."""

    def __init__(self, length: int = 10, discount: float = 0.0):
        self.length, self.discount = length, discount
        self.count = 0
        self.seen: list[np.ndarray] = []

    def reset(self):
        self.count = 0
        return dm_env.restart(self.observe())

    def step(self, action):
        if self.count == self.length:
            return self.reset()
        spec = self.action_spec()
        assert action.dtype == spec.dtype
        assert (action >= spec.minimum).all() and (action <= spec.maximum).all()
        self.seen.append(action)
        if action[0] == spec.maximum[0]:
            raise RuntimeError("the physics blew up")
        self.count += 1
        if self.count == self.length:
            return dm_env.TimeStep(
                dm_env.StepType.LAST, float(self.count), self.discount, self.observe()
            )
        return dm_env.transition(float(self.count), self.observe(), 0.5)

    def observe(self):
        return {"b": np.array([[self.count, 1], [2, 3]], np.int16), "a": np.float64(self.count)}

    def observation_spec(self):
        return {"b": specs.Array((2, 2), np.int16), "a": specs.Array((), np.float64)}

    def action_spec(self):
        return specs.BoundedArray((2,), np.float32, minimum=[0.1, -7.3], maximum=[0.7, -1.1])


def test_terminal_discount_and_mixed_observations():
    env = suite.DmEnvironment(Counter(length=2))
    middle = np.zeros(2, np.float32)
    first, mid, last = env.reset(), env.step(middle), env.step(middle)
    np.testing.assert_array_equal(first.observation, [0, 0, 1, 2, 3])
    np.testing.assert_array_equal(last.observation, [2, 2, 1, 2, 3])
    assert (mid.reward, mid.discount, last.reward, last.discount) == (1, 0.5, 2, 0)
    assert last.is_last() and env.step(middle).is_first()


def test_action_repeat_sums_rewards_and_stops_at_the_end():
    env = suite.DmEnvironment(Counter(length=5, discount=0.0), action_repeat=3)
    middle = np.zeros(2, np.float32)
    steps = [env.step(middle) for _ in range(4)]
    assert [int(s.step_type) for s in steps] == [0, 1, 2, 0]
    assert [float(s.reward) for s in steps] == [0, 1 + 2 + 3, 4 + 5, 0]
    assert [float(s.discount) for s in steps] == [1, 0.5, 0, 1]
    assert steps[2].observation[0] == 5 and steps[3].observation[0] == 0


def test_actions_are_mapped_to_the_bounds_and_never_beyond():
    counter = Counter()
    env = suite.DmEnvironment(counter)
    env.reset()
    for action in [(-1, -1), (0, 0), (0.5, 1)]:
        env.step(np.array(action, np.float32))
    expected = [[0.1, -7.3], [0.4, -4.2], [0.55, -1.1]]
    np.testing.assert_allclose(counter.seen, expected, rtol=1e-6)
    with pytest.raises(ValueError, match=r"shape \(1,\)"):
        env.step(np.zeros(1, np.float32))


def test_an_environment_that_raises_starts_a_new_episode():
    env = suite.DmEnvironment(Counter())
    middle = np.zeros(2, np.float32)
    env.reset()
    env.step(middle)
    with pytest.raises(RuntimeError, match="blew up"):
        env.step(np.ones(2, np.float32))
    assert env.step(middle).is_first()


@pytest.mark.parametrize(
    ("method", "spec", "message"),
    [
        ("observation_spec", {"t": specs.Array((1,), np.int64)}, "observation 't' is .*float32"),
        ("observation_spec", specs.StringArray(()), "float32 can't hold"),
        ("action_spec", specs.DiscreteArray(3), "bounded array of floats"),
        ("action_spec", [specs.BoundedArray((1,), float, 0, 1)], "bounded array of floats"),
        ("action_spec", specs.Array((1,), float), "bounded array of floats"),
    ],
)
def test_unfit_specs_are_refused(monkeypatch, method, spec, message):
    monkeypatch.setattr(Counter, method, lambda self: spec)
    with pytest.raises(UserError, match=message):
        suite.DmEnvironment(Counter())


def test_lone_observation_arrays_are_taken(monkeypatch):
    monkeypatch.setattr(Counter, "observation_spec", lambda self: specs.Array((2, 3), np.float64))
    monkeypatch.setattr(Counter, "observe", lambda self: np.arange(6.0).reshape(2, 3))
    env = suite.DmEnvironment(Counter())
    assert env.observation_keys == ()
    np.testing.assert_array_equal(env.reset().observation, np.arange(6))
    assert env.observation_spec().check_array(env.reset().observation)


# Names


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("walker_wlak", "walker_walk"),
        ("cheetah-run", "cheetah_run"),
        ("humanoid", "humanoid_stand"),
        ("HalfCheetah-v4", "cheetah_run"),
        ("Ant-v4", "<domain>_<task>"),
        ("gym:Pendulum-v1", "unknown kind 'gym:'"),
        ("python:no_such_module_at_all:make", "no module 'no_such_module_at_all'"),
        ("python:json.no_such_part:make", "no module 'json.no_such_part'"),
        ("python:json", "expected python:pkg.module:function"),
        ("python:json:dumps:x", "expected python:pkg.module:function"),
    ],
)
def test_wrong_names_are_explained(name, message):
    with pytest.raises(UserError, match=re.escape(message)):
        load(name)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"task_kwargs": {"sparse": True}}, "it takes: time_limit, random, environment_kwargs"),
        ({"task_kwargs": {"time_limit": 1}, "time_limit": 1.0}, "as well"),
    ],
)
def test_wrong_task_arguments_are_explained(kwargs, message):
    with pytest.raises(UserError, match=message):
        load("cheetah_run", **kwargs)


def test_names_are_checked_without_tensorflow_and_opengl():
    code = """
        import os, sys
        os.environ.pop("MUJOCO_GL", None)
        from sactory import envs
        envs.check_name("cheetah_run")
        envs.check_name("python:json:dumps")
        assert "tensorflow" not in sys.modules
        assert "glfw" not in sys.modules and "OpenGL" not in sys.modules
        assert "MUJOCO_GL" not in os.environ
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# The user's own environments


def snippets(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def user_dir(tmp_path, monkeypatch):
    """The current directory of a user who has saved the files of the page."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    names = ["corridor", "adjustable", "my_env", "moon"]
    for name, text in zip(names, snippets("python")):
        Path(f"{name}.py").write_text(text)
    Path("corridor.gin").write_text(snippets("gin")[1])
    yield tmp_path
    for name in [*names, *[m for m in sys.modules if m.startswith("user_made")]]:
        sys.modules.pop(name, None)


def test_page_environment_and_its_parameters(user_dir, capsys):
    pytest.importorskip("gymnasium")
    from sactory import cli

    assert len([line for line in snippets("python")[0].splitlines() if line.strip()]) <= 20
    capsys.readouterr()
    assert cli.main(["check-env", "corridor.gin"]) == 0
    printed = [line.split()[:2] for line in capsys.readouterr().out.splitlines()]
    shown = re.findall(r"^(ok|warn|fail) +(\w+) ", PAGE, re.MULTILINE)
    assert printed == [list(words) for words in shown]
    env = load("python:adjustable:Adjustable")
    env.set_parameters({"step_size": 0.5})
    before = env.reset().observation
    np.testing.assert_allclose(env.step(np.ones(1, np.float32)).observation, before + 0.5)


def test_page_py_environment(user_dir):
    env = load("python:my_env:make", seed=3, task_kwargs={"step_size": 0.5}, action_repeat=2)
    assert isinstance(env, user_env.UserEnvironment)
    assert (env.max_episode_steps, env.action_repeat) == (50, 2)
    utils.validate_py_environment(env, episodes=3)
    env.seed(3)
    first = env.reset()
    position = first.observation[0]
    step = env.step(np.ones(1, np.float32))
    np.testing.assert_allclose(step.observation[0], position + 1, rtol=1e-6)
    expected = 1 - abs(position + 0.5) + 1 - abs(position + 1)
    np.testing.assert_allclose(step.reward, expected, rtol=1e-5)
    while not step.is_last():
        step = env.step(np.ones(1, np.float32))
    assert step.discount == 0 and step.observation[0] > 2
    assert_equal(load("python:my_env:make", seed=3).reset(), first)


def test_page_dm_env(user_dir):
    env = load("python:moon:walk", seed=3, task_kwargs={"gravity": -5.0})
    assert isinstance(env, suite.DmEnvironment)
    assert env.physics.model.opt.gravity[2] == -5
    assert env.max_episode_steps == 1000
    assert_equal(env.reset(), load("python:moon:walk", seed=3, task_kwargs={"gravity": -5}).reset())


def test_page_trial_script(user_dir, capsys):
    exec(snippets("python")[4], {})
    assert "'step_type': array(2" in capsys.readouterr().out


def test_page_settings_and_command(user_dir):
    """The page's first setting, its gin file and its command, as far as init goes."""
    from sactory import cli
    from sactory.specs import Specs

    pytest.importorskip("gymnasium")
    verb, config, flag, run_dir = shlex.split(snippets("sh")[1])[4:]
    assert (verb, flag) == ("run", "--run_dir")
    code = cli.main(["init", "--run_dir", run_dir, "--config", config])
    assert code == 0
    frozen = Path(run_dir, "config.gin").read_text()
    assert "{'step_size': 0.2}" in frozen
    assert Path(run_dir, "code", "corridor.py").read_text() == snippets("python")[0]
    facts = Specs.from_json(json.loads(Path(run_dir, "specs.json").read_text())).env
    assert facts["sha256"] == python_env.find_source("python:corridor:Corridor").sha256
    envs.check_name(re.findall(r"'(\w+)'", snippets("gin")[0])[0])


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text))
    importlib.invalidate_caches()


def test_the_runs_copy_comes_before_the_current_directory(user_dir):
    write(user_dir / "user_made_copy.py", "def make(): return 'current'")
    write(user_dir / "code" / "user_made_copy.py", "def make(): return 'frozen'")
    name = "python:user_made_copy:make"
    code = user_dir / "code"
    assert python_env.find_source(name).path == user_dir / "user_made_copy.py"
    assert python_env.find_source(name, [code]).path == code / "user_made_copy.py"
    with pytest.raises(UserError, match=r"returned builtins.str"):
        envs.load(settings.Env(name=name), search=code)
    assert sys.modules["user_made_copy"].make() == "frozen"


def test_the_users_files_do_not_shadow_sactorys(user_dir):
    write(user_dir / "user_made_shadow.py", "import user_made_helper\ndef make(): return 1")
    write(user_dir / "user_made_helper.py", "")
    before = sys.path[0]
    with pytest.raises(UserError, match=r"returned builtins.int"):
        load("python:user_made_shadow:make")
    assert sys.path[0] == before and sys.path[-1] == str(user_dir)


def test_source_hash_covers_a_package(user_dir):
    write(user_dir / "user_made_pkg" / "__init__.py", "")
    write(user_dir / "user_made_pkg" / "envs" / "__init__.py", "")
    write(user_dir / "user_made_pkg" / "envs" / "maze.py", "def make(): pass")
    write(user_dir / "user_made_single.py", "def make(): pass")
    name = "python:user_made_pkg.envs.maze:make"
    source = python_env.find_source(name)
    assert source.target == "user_made_pkg.envs.maze:make"
    assert (source.path.name, source.single_file) == ("maze.py", False)
    assert python_env.find_source("python:user_made_single:make").single_file
    assert python_env.find_source("python:user_made_pkg.envs:make").sha256 == source.sha256
    write(user_dir / "user_made_pkg" / "walls.py", "HEIGHT = 1")
    assert python_env.find_source(name).sha256 != source.sha256


@pytest.mark.parametrize(
    ("text", "kwargs", "message"),
    [
        ("import no_such_thing\ndef make(): pass", {}, "No module named 'no_such_thing'"),
        ("def make(: pass", {}, "SyntaxError"),
        ("def mak(): pass", {}, "no function 'make'; near ones are mak"),
        ("def make(size): pass", {}, "missing a required argument: 'size' (it takes: size)"),
        ("def make(): pass", {"task_kwargs": {"size": 1}}, "unexpected keyword argument 'size'"),
        ("def make(): pass", {"time_limit": 1.0}, "envs.load.time_limit holds for dm_control"),
        ("def make(): pass", {}, "returned builtins.NoneType: expected gymnasium.Env"),
    ],
)
def test_users_mistakes_are_explained(user_dir, request, text, kwargs, message):
    module = f"user_made_{abs(hash(request.node.name))}"
    write(user_dir / f"{module}.py", text)
    with pytest.raises(UserError, match=re.escape(message)):
        load(f"python:{module}:make", **kwargs)


def test_a_py_environments_actions_are_mapped_to_its_bounds():
    from tf_agents.environments import random_py_environment
    from tf_agents.specs import array_spec

    seen = []

    class Wide(random_py_environment.RandomPyEnvironment):
        def _step(self, action):
            seen.append(action)
            return super()._step(action)

    spec = array_spec.BoundedArraySpec((2,), np.float32, [0.0, -3.0], [5.0, 1.0])
    inner = Wide(array_spec.ArraySpec((3,), np.float32), spec, episode_end_probability=0.0)
    env = user_env.UserEnvironment(inner)
    assert env.action_spec().minimum == -1 and env.action_spec().maximum == 1
    env.reset()
    for action in [(-1, 1), (0, 0), (1, -1)]:
        env.step(np.array(action, np.float32))
    np.testing.assert_array_equal(seen, [[0, 1], [2.5, -1], [5, -3]])
    assert {a.dtype for a in seen} == {np.dtype(np.float32)}


# Rendering


def test_frames_in_any_size(opengl):
    env = load("cheetah_run")
    first = env.reset()
    small, large = rendering.frame(env, 48, 64), rendering.frame(env, 500, 700)
    assert (small.shape, large.shape, small.dtype) == ((48, 64, 3), (500, 700, 3), np.uint8)
    assert small.std() > 5 and abs(small.mean() - large.mean()) < 5
    np.testing.assert_array_equal(rendering.frame(env, 48, 64), small)
    for _ in range(20):
        env.step(np.ones(6, np.float32))
    assert not np.array_equal(rendering.frame(env, 48, 64), small)
    env.close()

    # Drawing changes nothing of the task.
    assert_equal(load("cheetah_run").reset(), first)


def test_the_users_own_rendering_works_too(user_dir, opengl):
    moon = load("python:moon:walk")
    moon.reset()
    assert moon.physics.render(32, 32).std() > 5
    moon.close()


def test_environments_that_cannot_be_filmed(user_dir):
    with pytest.raises(UserError, match="give it a `render` method"):
        rendering.frame(load("python:my_env:make"), 32, 32)
    with pytest.raises(UserError, match="no MuJoCo physics"):
        rendering.frame(suite.DmEnvironment(Counter()), 32, 32)


def test_mujoco_gl_off_is_respected(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "off")
    with pytest.raises(UserError, match="MUJOCO_GL=off forbids rendering"):
        rendering.choose_backend()


@pytest.fixture
def fresh_probe(monkeypatch):
    """Forgets which backends work, before and after."""
    monkeypatch.setenv("MUJOCO_GL", "")  # so that it is restored
    rendering._probe.cache_clear()
    yield monkeypatch
    rendering._probe.cache_clear()


def test_the_first_backend_that_draws_is_taken(fresh_probe, capsys):
    fresh_probe.setattr(rendering, "_PROBE", "import os; exit(os.environ['MUJOCO_GL'] == 'egl')")
    assert rendering.choose_backend() == "osmesa"
    fresh_probe.setattr(rendering, "_PROBE", "exit('must not be asked again')")
    assert rendering.choose_backend() == os.environ["MUJOCO_GL"] == "osmesa"
    assert capsys.readouterr().err == "rendering with OSMESA\n"


def test_a_backend_that_the_user_sets_is_the_only_one(fresh_probe):
    fresh_probe.setenv("MUJOCO_GL", "osmesa")
    fresh_probe.setattr(rendering, "_PROBE", "import os; exit(os.environ['MUJOCO_GL'] == 'osmesa')")
    with pytest.raises(UserError, match=r"\(osmesa: exit code 1\): unset MUJOCO_GL, or install"):
        rendering.choose_backend()


def test_no_backend_is_one_clear_line(fresh_probe):
    # For EGL a real failure: no driver to be found.
    fresh_probe.setenv("__EGL_VENDOR_LIBRARY_DIRS", "/nowhere")
    fresh_probe.setenv("__EGL_VENDOR_LIBRARY_FILENAMES", "/nowhere")
    fresh_probe.setattr(rendering, "_BACKENDS", ("egl",))
    with pytest.raises(UserError, match=r"no headless OpenGL works here \(egl: .+\): install"):
        rendering.choose_backend()
    assert os.environ["MUJOCO_GL"] == ""


def test_a_hanging_driver_is_given_up(fresh_probe):
    fresh_probe.setattr(rendering, "_PROBE", "import signal; signal.pause()")
    fresh_probe.setattr(rendering, "_PROBE_SECONDS", 0.2)
    fresh_probe.setattr(rendering, "_BACKENDS", ("egl",))
    with pytest.raises(UserError, match="egl: no answer within"):
        rendering.choose_backend()


# The benchmark


def test_benchmark_runs(capsys):
    path = REPOSITORY / "benchmarks" / "env_overhead.py"
    main = runpy.run_path(str(path), run_name="env_overhead")["main"]
    assert main(["cartpole_balance", "--episodes=1"]) == 0
    assert '"raw_us": ' in capsys.readouterr().out
