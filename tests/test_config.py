"""Configurations: what is accepted, what is refused, and in which words."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import gin
import pytest

from sactory import config, settings
from sactory.errors import UserError
from sactory.fields import SETTINGS, defaults
from sactory.run_dir import RunDir

pytestmark = pytest.mark.timeout(60)

CONFIGS = Path(config.__file__).resolve().parent.parent / "configs"
SHIPPED = sorted(CONFIGS.glob("**/*.gin"))
TASKS = {
    "ball_in_cup_catch",
    "cartpole_balance",
    "cartpole_swingup",
    "cheetah_run",
    "contact_insert_peg",
    "contact_insert_planar",
    "contact_insert_plate",
    "finger_spin",
    "reacher_easy",
    "walker_stand",
    "walker_walk",
}
OTHER_TASKS = {
    **{
        f"contact_insert_{variant}": f"contact_insert:{variant}"
        for variant in ("peg", "planar", "plate")
    },
    "half_cheetah_bullet": "pybullet:HalfCheetahBulletEnv-v0",
    "pendulum": "gymnasium:Pendulum-v1",
}


@pytest.fixture(autouse=True)
def clean_gin():
    config.clear()
    yield
    config.clear()


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def frozen(tmp_path: Path, text: str) -> RunDir:
    """A run directory as far as `config.load` looks at it."""
    run_dir = RunDir(tmp_path / "run")
    run_dir.root.mkdir()
    run_dir.config.write_text(text)
    run_dir.provenance.write_text("{}")
    return run_dir


def test_sac_gin_binds_every_setting_with_the_default_and_its_unit():
    checked = config.check(config.resolve(CONFIGS / "sac.gin"))
    lines = (CONFIGS / "sac.gin").read_text().splitlines()
    for group, cls in SETTINGS.items():
        for name, default in defaults(cls).items():
            key = f"{group}.{name}"
            assert key in checked.places, f"configs/sac.gin does not bind {key}"
            assert checked.values[key] == default, key
            assert type(checked.values[key]) is type(default), key
            (line,) = [line for line in lines if line.startswith(f"{key} = ")]
            unit = vars(cls)["__dataclass_fields__"][name].metadata["unit"]
            assert "# " in line and (not unit or f"[{unit}]" in line), line


def test_every_setting_is_documented():
    source = Path(settings.__file__).read_text()
    for cls in SETTINGS.values():
        assert cls.__doc__
        for name in defaults(cls):
            after = source.split(f"\n    {name}: ")
            assert any(part.split("\n")[1].startswith('    """') for part in after[1:]), name


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_shipped_configs_load(path):
    checked = config.check(config.resolve(path))
    if path.parent.name == "tasks":
        lines = [line for line in path.read_text().splitlines() if line and line[0] != "#"]
        assert checked.get(settings.Env).name == OTHER_TASKS.get(path.stem, path.stem)
        assert lines[0] == "include 'configs/sac.gin'"
        assert 2 <= len(lines) - 1 <= 8, "a task's file holds the difference, no more"


def test_all_tasks_are_shipped():
    assert {p.stem for p in SHIPPED if p.parent.name == "tasks"} == TASKS | set(OTHER_TASKS)
    swingup = config.check(config.resolve(CONFIGS / "tasks/cartpole_swingup.gin"))
    assert swingup.get(settings.Run).max_env_steps == 80_000


def test_accepted_values_arrive_with_the_type_of_the_setting(tmp_path):
    path = write(
        tmp_path / "mine.gin",
        """
DISCOUNT = 1
replay.gamma = %DISCOUNT
replay.updates_per_row = None
replay.mode = 'async'
train.SacAgent:
    hidden_sizes = [8, 4]
    critic_hidden_sizes = ()
envs.load.task_kwargs = {'random': 3, 'sizes': (1, 2)}
run.seed = 3
run.seed = 4
far/run.seed = 5
far/deep/run.name = 'x'
""",
    )
    checked = config.check(config.resolve(path, ["run.num_collectors = 3"]))
    replay, agent = checked.get(settings.Replay), checked.get(settings.SacAgent)
    assert replay.gamma == 1.0 and type(replay.gamma) is float
    assert replay.updates_per_row is None
    assert agent.hidden_sizes == (8, 4) and agent.critic_hidden_sizes == ()
    assert checked.get(settings.Env).task_kwargs == {"random": 3, "sizes": (1, 2)}
    assert checked.get(settings.Run) == settings.Run(seed=4, num_collectors=3)
    deep = checked.get(settings.Run, "far/deep")
    assert deep == settings.Run(seed=5, num_collectors=3, name="x")


def test_gin_gives_what_was_checked(tmp_path):
    text = (
        "D = 0.5\nreplay.gamma = %D\nrun.seed = 7\nfar/run.seed = 8\n"
        "train.SacAgent.hidden_sizes = [8, 4]\ntrain.SacAgent.reward_scale = 2\n"
    )
    checked = config.load(frozen(tmp_path, text))
    for cls in SETTINGS.values():
        assert cls() == checked.get(cls)
    assert settings.Run().seed == 7
    assert settings.Run(seed=9).seed == 9, "an argument wins over gin"
    with gin.config_scope("far"):
        assert settings.Run() == checked.get(settings.Run, "far") == settings.Run(seed=8)
    assert settings.SacAgent().hidden_sizes == (8, 4)
    assert type(settings.SacAgent().reward_scale) is float
    (tmp_path / "run/config.gin").write_text("run.seed = 11\n")
    config.load(RunDir(tmp_path / "run"))
    assert settings.Run().seed == 11
    assert settings.Replay().gamma == 0.99, "nothing of the configuration before is left"


def test_a_damaged_frozen_file_is_named(tmp_path):
    run_dir = frozen(tmp_path, "run.seed = 1\nrun.seeed = 2\n")
    with pytest.raises(UserError, match=r"config.gin:2: run has no parameter `seeed`; did you"):
        config.load(run_dir)
    with pytest.raises(UserError, match=r"there is no .*nowhere"):
        config.load(RunDir(tmp_path / "nowhere"))


def test_constructing_a_settings_class_checks_it():
    assert settings.Learner(batch_size=8) == settings.Learner(8)
    with pytest.raises(UserError, match=r"train.Learner.batch_size = 0: must be an int"):
        settings.Learner(batch_size=0)
    with pytest.raises(TypeError, match="no field 'batchsize'"):
        settings.Learner(batchsize=8)  # pyright: ignore[reportCallIssue]
    with pytest.raises(AttributeError):
        settings.Learner().batch_size = 3  # pyright: ignore[reportAttributeAccessIssue]


def test_includes_are_found_beside_the_file_and_keep_their_places(tmp_path, monkeypatch):
    (tmp_path / "base").mkdir()
    write(tmp_path / "base/low.gin", "run.seed = 5\nrun.num_collectors = 0\n")
    write(tmp_path / "base/mid.gin", "# comment\ninclude 'low.gin'\nrun.name = 'mid'\n")
    top = write(tmp_path / "top.gin", "include 'base/mid.gin'\nrun.name = 'top'\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"^base/low.gin:2: run.num_collectors = 0: must be"):
        config.check(config.resolve(top))
    with pytest.raises(UserError, match=r"^--set: run.num_collectors = -1: must be"):
        config.check(config.resolve(top, ["run.num_collectors = -1"]))
    checked = config.check(config.resolve("top.gin", ["run.num_collectors = 2"]))
    assert checked.get(settings.Run) == settings.Run(seed=5, name="top", num_collectors=2)
    text = config.resolve_text("top.gin", ["run.num_collectors = 2"])
    assert "include" not in text
    assert config.check_text(text, "frozen").values == checked.values


def test_shipped_configs_are_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert config.check(config.resolve("configs/debug.gin")).get(settings.Run).name == "debug"


def test_configurations_need_no_tensorflow():
    code = (
        "import sys; from sactory import config, init_run, estimate, specs, provenance\n"
        f"config.check(config.resolve({str(CONFIGS / 'debug.gin')!r}))\n"
        "heavy = {'tensorflow', 'reverb', 'tf_agents', 'dm_control', 'mujoco'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=50, cwd=CONFIGS.parent)
