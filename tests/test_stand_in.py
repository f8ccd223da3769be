"""What takes daemontools' place where it isn't installed: the same files, commands and habits."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from supervise import daemontools, log_tail, reaper
from tests.fake_tree import FINISH, STEADY, Run, until

pytestmark = pytest.mark.timeout(120)
PROGRAMS = {name: mode for name, mode in FINISH.items() if name != "final"}
WITHOUT_DAEMONTOOLS = """
import sys
from supervise import daemontools, reaper
daemontools._PROGRAMS = ("no such program",)
sys.exit(reaper.main(sys.argv[1:]))
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    run = Run(tmp_path / "R")
    monkeypatch.setattr(daemontools, "_PROGRAMS", ("no such program",))
    monkeypatch.setattr(sys, "executable", _python(tmp_path))
    yield run
    run.end()


def _python(place: Path) -> str:
    """A Python whose reaper finds no daemontools."""
    path = place / "python"
    path.write_text(
        f"""#!/bin/sh
[ "$2" != supervise.reaper ] || exec {sys.executable} -c '{WITHOUT_DAEMONTOOLS}' "$3"
exec {sys.executable} "$@"
"""
    )
    path.chmod(0o755)
    return str(path)


def test_a_run_without_daemontools_finishes_and_leaves_nothing(run):
    assert run.reaper(PROGRAMS).wait(60) == reaper.FINISHED
    assert {run.state(name).outcome for name in PROGRAMS} == {"finished"}
    assert "working -1" not in run.log("train")
    assert any(line.startswith("working") for line in run.log("train"))
    until(lambda: run.processes() == {})


def test_without_daemontools_a_stop_saves_and_a_killed_program_comes_back(run):
    process = run.reaper(STEADY)
    until(lambda: run.beating(*STEADY))
    pid = run.pid("train")
    os.kill(pid, signal.SIGKILL)
    until(lambda: run.beating("train", pid_not=pid))
    commands = " ".join(run.processes().values())
    assert "supervise.stand_in supervise" in commands
    assert "supervise.stand_in multilog" in commands
    process.terminate()
    assert process.wait(60) == reaper.STOPPED
    assert (run.dir.root / "saved_train").read_text() == "SIGTERM"
    until(lambda: run.processes() == {})


class Service:
    """A service directory with a stand-in `supervise` on it."""

    def __init__(self, directory: Path, script: str):
        directory.mkdir()
        (directory / "run").write_text(f"#!/bin/sh\n{script}\n")
        (directory / "run").chmod(0o755)
        self.dir = directory
        self.command = [sys.executable, "-m", "supervise.stand_in", "supervise", str(directory)]

    def start(self) -> None:
        self.process = subprocess.Popen(self.command)
        until(lambda: daemontools.is_supervised(self.dir))

    def pid(self) -> int:
        told = daemontools.status(self.dir)
        return 0 if told is None else told.pid

    def lines(self) -> list[str]:
        path = self.dir / "said"
        return path.read_text().split() if path.exists() else []


@pytest.fixture
def service(tmp_path):
    script = "trap 'echo end >>said; kill $!; exit' TERM; echo up >>said; sleep 99 & wait"
    service = Service(tmp_path / "s", script)
    yield service
    if service.process.poll() is None:
        daemontools.control(service.dir, "dx")
        service.process.wait(30)


def test_commands_do_what_svc_says(service):
    service.start()
    until(lambda: service.lines() == ["up"])
    until(service.pid)
    first = service.pid()
    assert daemontools.control(service.dir, "t")
    until(lambda: service.lines() == ["up", "end", "up"])  # TERM alone: it comes back
    until(lambda: service.pid() not in (0, first))
    daemontools.control(service.dir, "d")
    until(lambda: service.pid() == 0)
    assert daemontools.status(service.dir) == daemontools.ServiceStatus(0, "d")
    daemontools.control(service.dir, "u")
    until(lambda: service.lines()[-2:] == ["end", "up"])
    daemontools.control(service.dir, "dx")
    assert service.process.wait(30) == 0
    assert not daemontools.is_supervised(service.dir)


def test_a_service_marked_down_waits_and_a_second_supervise_is_refused(service):
    (service.dir / "down").touch()
    service.start()
    assert service.pid() == 0
    second = subprocess.run(service.command, capture_output=True, text=True, timeout=30)
    assert second.returncode == 111
    assert "unable to acquire the lock" in second.stderr
    daemontools.control(service.dir, "o")
    until(lambda: service.lines() == ["up"])
    daemontools.control(service.dir, "t")
    until(lambda: service.pid() == 0)
    assert service.lines() == ["up", "end"]  # once


@pytest.mark.skipif(shutil.which("svstat") is None, reason="daemontools is not installed")
def test_the_real_svstat_and_svc_understand_it(service):
    service.start()
    until(lambda: service.lines() == ["up"])
    until(service.pid)
    said = subprocess.check_output(["svstat", service.dir], text=True)
    assert f": up (pid {service.pid()}) " in said
    subprocess.run(["svc", "-dx", service.dir], check=True)
    assert service.process.wait(30) == 0


def test_the_log_has_stamped_lines_and_keeps_the_newest(tmp_path):
    command = [sys.executable, "-m", "supervise.stand_in", "multilog", str(tmp_path / "main")]
    lines = [f"line {i} {'x' * 1000}" for i in range(7_000)]
    subprocess.run(command, input="\n".join([*lines, "last"]), text=True, check=True, timeout=60)
    current = tmp_path / "main" / "current"
    assert log_tail.tail(current)[-1] == "last"
    text = current.read_text()
    assert text.startswith("@4000000") and text[25] == " "
    old = sorted((tmp_path / "main").glob("@*.s"))
    assert len(old) == 4
    assert all(1_000_000 <= path.stat().st_size < 1_002_000 for path in old)
