"""`make` and the scripts behind it: refusals in one line, quoting, and nothing done twice."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ["bash", "cat", "dirname", "env", "flock", "grep", "id", "make", "mktemp", "sed"]
TOOLS += ["sha256sum", "sort", "tail", "uname"]
DAEMONTOOLS = ["multilog", "setlock", "supervise", "svc", "svok", "svscan", "svstat"]

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def checkout(tmp_path) -> Path:
    """What `make setup` reads, under a path with spaces, with a PATH that holds no Python."""
    root = tmp_path / "a check out"
    for name in ("Makefile", "requirements.lock", "setup.py", ".ci/setup"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, root / name)
    shutil.copytree(ROOT / "supervise", root / "supervise")
    (root / "bin").mkdir()
    for tool in TOOLS:
        program = shutil.which(tool)
        assert program is not None, tool
        (root / "bin" / tool).symlink_to(program)
    return root


def script(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_text(f"#!/usr/bin/env bash\n{text}\n")
    path.chmod(0o755)


def run(root: Path, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=root,
        env={"PATH": str(root / "bin"), "HOME": str(root / "home"), **variables},
        capture_output=True,
        text=True,
        timeout=50,
    )


def refusal(done: subprocess.CompletedProcess[str]) -> str:
    """The one line that the script printed, without the line that make adds."""
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith("make: ***")]
    assert done.stdout == ""
    assert "Reverb publishes wheels for CPython 3.9-3.11 on x86-64 Linux only" in line
    return line


@pytest.mark.parametrize("machine", ["Linux aarch64", "Darwin arm64", "Darwin x86_64"])
def test_another_platform_is_refused(checkout, machine):
    system, cpu = machine.split()
    script(checkout / "bin" / "uname", f'[ "$1" = -s ] && echo {system} || echo {cpu}')
    line = refusal(run(checkout, "make", "setup"))
    assert machine in line and "use such a machine" in line
    assert not (checkout / ".venv").exists()


@pytest.mark.parametrize("version", ["CPython 3.8", "CPython 3.12", "PyPy 3.10"])
def test_another_python_is_refused(checkout, version):
    script(checkout / "bin" / "python3", f"echo {version}")
    line = refusal(run(checkout, "make", "setup"))
    assert f"python3 is {version}" in line and "make setup PYTHON=" in line
    assert not (checkout / ".venv").exists()


def test_no_python_is_refused(checkout):
    line = refusal(run(checkout, "make", "test"))
    assert "python3 is missing" in line and "apt-get install python3 python3-venv" in line


def test_a_wrong_python_named_is_refused(checkout):
    script(checkout / "bin" / "python3", "echo CPython 3.11")
    script(checkout / "bin" / "py312", "echo CPython 3.12")
    line = refusal(run(checkout, "make", "setup", "PYTHON=py312"))
    assert "PYTHON=py312 is CPython 3.12" in line and "PYTHON=python3.11" in line
    assert "not a Python" in refusal(run(checkout, "make", "setup", "PYTHON=nosuch"))


def test_a_fitting_python_behind_a_wrong_one_is_taken(checkout):
    """Debian's stripped python3 lacks ensurepip: the remedy names the Python that was found."""
    script(checkout / "bin" / "python3", "echo CPython 3.13")
    answers = ["*implementation*) echo CPython 3.10", "*ensurepip*) exit 1", "*) echo 3.10"]
    script(checkout / "bin" / "python3.10", f'case "$*" in {";; ".join(answers)};; esac')
    done = run(checkout, "make", "setup")
    assert done.returncode == 2
    assert "python3.10 can't make virtual environments" in done.stderr
    assert "apt-get install python3.10-venv" in done.stderr


def test_daemontools_missing_tells_the_remedy(checkout):
    done = run(checkout, "supervise/install_daemontools.sh", "bin")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "install your distribution's package" in line and "supervise" in line


def test_daemontools_in_the_environment_is_enough(checkout):
    (checkout / "venv bin").mkdir()
    for name in DAEMONTOOLS:
        script(checkout / "venv bin" / name, "exit 1")
    done = run(checkout, "supervise/install_daemontools.sh", "venv bin")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_make_run_passes_its_variables_untouched(checkout):
    script(checkout / ".ci" / "setup", "exit 0")
    script(checkout / ".venv" / "bin" / "sactory", "printf '%s\\n' \"$@\"")
    setting = "envs.load.name = 'walker_stand' # \"x\""
    done = run(checkout, "make", "run", "CONFIG=my c.gin", "RUN_DIR=/r d", f"SET={setting}")
    given = ["run", "my c.gin", "--run_dir", "/r d", "--set", setting]
    assert done.stdout.splitlines() == given, done.stderr
    # A variable of the caller's shell with such a common name is not meant for make.
    done = run(checkout, "make", "run", SET="x", CONFIG="y")
    assert done.stdout.splitlines() == ["run", "configs/tasks/cartpole_swingup.gin"]


def test_setup_does_nothing_twice(checkout):
    """On the environment these tests run in, if `make` has built it."""
    ready = ROOT / ".venv" / ".ready"
    if not ready.exists():
        pytest.skip("these tests do not run in an environment that `make setup` built")
    before = ready.stat().st_mtime_ns
    done = subprocess.run(
        [ROOT / ".ci" / "setup"],
        env={**os.environ, "PIP_NO_INDEX": "1"},
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert ready.stat().st_mtime_ns == before
