"""The verb `init`: what it freezes, what it refuses, and that a refusal leaves nothing behind."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from sactory import config, estimate, init_run, settings
from sactory.errors import UserError
from sactory.run_dir import RunDir, read_json
from sactory.specs import Specs

pytestmark = pytest.mark.timeout(120)

ROOT = Path(config.__file__).resolve().parent.parent
SAC = str(ROOT / "configs/sac.gin")
TOY = (Path(__file__).parent / "toy_env.py").read_text()  # what a user might have written


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A working directory of its own with a user's environment in it."""
    (tmp_path / "toy_of_test_init.py").write_text(TOY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield tmp_path
    sys.modules.pop("toy_of_test_init", None)
    config.clear()


def toy(**kwargs) -> list[str]:
    """Overrides for the user's environment."""
    return [
        "envs.load.name = 'python:toy_of_test_init:make'",
        f"envs.load.task_kwargs = {kwargs!r}",
        "run.max_env_steps = 20_000",
    ]


def content(directory: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(directory)): p.read_bytes() for p in directory.rglob("*") if p.is_file()
    }


def refuse(run_dir: str, overrides: list[str], config_path: str = SAC) -> str:
    """The message of a refused init, which must leave everything as it was."""
    before, names = content(Path.cwd()), sorted(map(str, Path.cwd().rglob("*")))
    with pytest.raises(UserError) as caught:
        init_run.init(RunDir(run_dir), config_path, overrides)
    assert content(Path.cwd()) == before
    assert sorted(map(str, Path.cwd().rglob("*"))) == names
    return str(caught.value)


def test_init_freezes_a_whole_run_directory(here, capsys):
    run_dir = RunDir("deep/er/run")
    chosen = [*toy(size=3), "run.seed = 4", "train.Learner.batch_size = 128"]
    assert init_run.init(run_dir, SAC, chosen) is True
    said = capsys.readouterr().out
    for word in ("memory", "disk", "env steps/s", "hours", "guess"):
        assert word in said
    assert sorted(p.name for p in run_dir.root.iterdir()) == [
        "code",
        "config.gin",
        "provenance.json",
        "specs.json",
        "tls",
    ]
    assert stat.S_IMODE(run_dir.root.stat().st_mode) == 0o700
    config.load(run_dir)
    assert settings.Learner() == settings.Learner(batch_size=128)
    assert settings.Run().seed == 4

    specs = Specs.load(run_dir)
    assert specs.env["name"] == "python:toy_of_test_init:make"
    assert specs.env["action_repeat"] == 1
    source = here / "toy_of_test_init.py"
    assert specs.env["sha256"] == hashlib.sha256(source.read_bytes()).hexdigest()
    assert (run_dir.code / source.name).read_bytes() == source.read_bytes()
    assert specs.row.size == 3 + 2 + 1 + 1 + 3 + 1
    record = read_json(run_dir.provenance)
    assert record["overrides"] == chosen and record["config"] == SAC
    assert record["versions"]["tensorflow"] == "2.15.1"
    assert record["argv"] == sys.argv and record["host"] and record["user"] and record["time"] > 1e9
    assert record["config_sha256"] == hashlib.sha256(run_dir.config.read_bytes()).hexdigest()
    if (ROOT / "requirements.lock").exists():
        lock = (ROOT / "requirements.lock").read_bytes()
        assert record["lock_sha256"] == hashlib.sha256(lock).hexdigest()


def test_the_same_command_resumes_and_another_is_refused_with_the_difference(here):
    run_dir = RunDir("run")
    assert init_run.init(run_dir, SAC, [*toy(), "run.seed = 4"]) is True
    before = content(run_dir.root)
    assert init_run.init(run_dir, SAC, [*toy(), "run.seed = 4"]) is False
    same = here / "same.gin"  # other words, same settings
    same.write_text("A = 4\nrun.seed = %A\n")
    assert init_run.init(run_dir, same, toy()) is False

    chosen = [*toy(), "run.seed = 5", "replay.gamma = 0.9", "far/run.seed = 1"]
    said = refuse("run", chosen).splitlines()
    assert said[0] == f"{run_dir} is frozen with other settings (- frozen, + asked for):"
    assert said[1:-1] == [
        "+ far/run.seed = 1",
        "- replay.gamma = 0.99",
        "+ replay.gamma = 0.9",
        "- run.seed = 4",
        "+ run.seed = 5",
    ]
    assert content(run_dir.root) == before


def test_what_the_config_leaves_open_is_frozen_too(here):
    (here / "short.gin").write_text("run.seed = 4\n")
    assert init_run.init(RunDir("run"), here / "short.gin", toy()) is True
    frozen = config.check_text((here / "run/config.gin").read_text(), "frozen")
    assert set(frozen.values) == set(frozen.places)
    assert frozen.get(settings.Learner) == settings.Learner()


def test_default_run_dir():
    directory = init_run.default_run_dir
    assert directory(SAC) == Path("runs/cartpole_swingup/sac_states/seed_1")
    chosen = ["envs.load.name = 'python:a.b:c'", "run.seed = 3", "run.name = 'big-net'"]
    assert directory(SAC, chosen) == Path("runs/python_a_b_c/big-net/seed_3")


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        (
            {"dtype": "float64"},
            "observation is float64, which a float32 row can't hold exactly: let the environment "
            "declare and return float32",
        ),
        (
            {"dtype": "int64"},
            "observation is int64 from -9.22337e+18 to 9.22337e+18, which a float32 row can't hold",
        ),
        (
            {"dtype": "int32", "low": 0, "high": 2**24 + 1},
            "observation is int32 from 0 to 1.67772e+07, which a float32 row can't hold exactly: "
            "bound it by 2**24 = 16777216 in its spec or return float32",
        ),
        ({"action": "int64"}, "action is discrete (int64 [2]): SAC here acts with continuous"),
        ({"action_high": "inf"}, "action has no bounds: finite ones are wanted"),
        ({"action_high": "nan"}, "action has NaN among its bounds"),
        ({"fail": "no licence\nfound"}, "can't be built: RuntimeError: no licence found"),
        (
            {"returned": "float64"},
            "observation is float64 [3] after reset, its spec promises float32 [3]",
        ),
        ({"size": 4}, "observation is float32 [3] after reset, its spec promises float32 [4]"),
        ({"first": "nan"}, "observation holds NaN or an infinite number after reset"),
    ],
)
def test_unusable_environments(kwargs, message):
    said = refuse("some/run", toy(**kwargs))
    assert message in said and "\n" not in said, said
    assert "python:toy_of_test_init:make" in said


@pytest.mark.parametrize("dtype", ["uint8", "int16", "bool", "float16"])
def test_small_exact_dtypes_are_accepted(dtype):
    assert init_run.init(RunDir("run"), SAC, toy(dtype=dtype)) is True
    observation = Specs.load(RunDir("run")).sensors["observation"]
    assert observation.dtype == dtype


def test_an_unknown_task_names_near_ones():
    assert "walker_walk" in refuse("run", ["envs.load.name = 'walker_wak'"])
    assert "no module 'nobody'" in refuse("run", ["envs.load.name = 'python:nobody:make'"])
    assert "make" in refuse("run", ["envs.load.name = 'python:toy_of_test_init:mak'"])


def test_a_seed_that_is_not_there(here):
    message = refuse("run", [*toy(), f"replay.seed_from = '{here}/demos.npz'"])
    assert f"replay.seed_from = '{here}/demos.npz': there is no such file" in message


def test_run_directories_that_can_not_be_used(here):
    (here / "file").write_text("mine")
    assert "is a file: a directory is wanted" in refuse("file", toy())
    assert "can't be made" in (said := refuse("file/below/it", toy())) and "is a file" in said
    (here / "full").mkdir()
    (here / "full/precious.txt").write_text("mine")
    said = refuse("full", toy())
    assert "holds other files (precious.txt) and no run" in said
    (here / "empty").mkdir(mode=0o755)
    assert init_run.init(RunDir("empty"), SAC, toy()) is True
    assert stat.S_IMODE((here / "empty").stat().st_mode) == 0o700
    # Nobody may make files in /proc, not even root.
    assert "can't be made in /proc" in refuse("/proc/sactory/run", toy())


def test_a_directory_without_permission(here):
    with tempfile.TemporaryDirectory() as public:  # pytest's own directory is closed to others
        os.chmod(public, 0o755)
        shutil.copy(SAC, public)
        locked = Path(public, "locked")
        locked.mkdir(mode=0o555)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)  # root may write anywhere, nobody may not
        try:
            with pytest.raises(UserError, match=r"can't be made in .*locked: Permission denied"):
                init_run.init(RunDir(locked / "run"), Path(public, "sac.gin"))
        finally:
            os.seteuid(user)
        assert list(locked.iterdir()) == []


def test_a_run_that_can_not_fit(monkeypatch):
    huge = ["replay.capacity = 10_000_000_000_000", "run.max_env_steps = 10_000_000_000_000"]
    said = refuse("run", [*toy(), *huge])
    assert "GB of memory" in said and "replay.capacity = 10000000000000" in said
    monkeypatch.setattr(estimate, "available_disk", lambda directory: 1e6)
    said = refuse("run", toy())
    assert "GB of disk" in said and "0.0 GB are free" in said


def test_a_full_disk_leaves_nothing(monkeypatch):
    def full(path, value):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(init_run, "write_json", full)
    said = refuse("some/run", toy())
    assert said.endswith("run can't be written: No space left on device")


def test_two_inits_at_once(monkeypatch):
    build, chosen = init_run._build_specs, toy()

    def overtaken(*arguments):
        specs = build(*arguments)
        monkeypatch.setattr(init_run, "_build_specs", build)
        assert init_run.init(RunDir("run"), SAC, [*chosen, "run.seed = 4"]) is True
        return specs

    monkeypatch.setattr(init_run, "_build_specs", overtaken)
    assert init_run.init(RunDir("run"), SAC, [*chosen, "run.seed = 4"]) is False
    shutil.rmtree("run")
    monkeypatch.setattr(init_run, "_build_specs", overtaken)
    with pytest.raises(UserError, match="frozen with other settings"):
        init_run.init(RunDir("run"), SAC, [*chosen, "run.seed = 5"])
    assert sorted(p.name for p in Path.cwd().iterdir()) == ["run", "toy_of_test_init.py"]


def test_the_command_line_is_clean(tmp_path):
    def sactory(*words: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.run(
            [sys.executable, "-m", "sactory.cli", *words],
            capture_output=True,
            text=True,
            timeout=100,
            cwd=tmp_path,
            env=environment,
        )

    chosen = ["--set", "run.seed = 3", "--set", "run.num_collectors = 2"]
    done = sactory("init", "--config", "configs/sac.gin", *chosen)
    run_dir = tmp_path / "runs/cartpole_swingup/sac_states/seed_3"
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{run_dir} is ready" in done.stdout and "--set 'run.seed = 3'" in done.stdout
    assert run_dir.is_dir()
    again = sactory("init", "--config", "configs/sac.gin", *chosen)
    assert again.returncode == 0 and "nothing to do" in again.stdout
    bad = sactory("init", "--config", "configs/sac.gin", "--set", "run.sed = 3")
    assert bad.returncode == 2 and bad.stdout == ""
    assert bad.stderr == (
        "sactory: error: --set: run has no parameter `sed`; did you mean `run.seed`?\n"
    )
