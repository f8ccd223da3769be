"""What a full disk, or a log that nobody empties, must not stop: the tree, a service, an end."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from sactory import supervision
from sactory.run_dir import write_json
from supervise import reaper, verdict
from tests.fake_tree import FINISH, NEEDS_DAEMONTOOLS, Run

pytestmark = pytest.mark.timeout(120)
PROGRAMS = {name: mode for name, mode in FINISH.items() if name != "final"}
ROOT = str(Path(__file__).parent.parent)


@pytest.fixture
def run(tmp_path):
    run = Run(tmp_path / "R")
    yield run
    run.end()


def without_heartbeat(run: Run) -> Path:
    """Makes the tree's heartbeat impossible to write; returns the tree's directory."""
    root = run.dir.services()
    root.mkdir(parents=True)
    (root / f".{supervision.ALIVE_FILE}").symlink_to("/dev/full")
    return root


@NEEDS_DAEMONTOOLS
def test_the_reaper_lives_on_where_neither_heartbeat_nor_log_can_be_written(run):
    root = without_heartbeat(run)
    (root / "reaper.log").symlink_to("/dev/full")
    assert run.reaper(PROGRAMS).wait(60) == reaper.FINISHED
    assert run.processes() == {}


@NEEDS_DAEMONTOOLS
def test_the_reaper_complains_once_of_a_heartbeat_that_fails_again_and_again(run):
    root = without_heartbeat(run)
    assert run.reaper(PROGRAMS).wait(60) == reaper.FINISHED  # with a first and a last beat
    said = (root / "reaper.log").read_text()
    assert said.count("alive.json is not written") == 1


def test_a_service_outlives_the_notes_that_it_can_not_write(tmp_path):
    service = tmp_path / "train"
    write_json(
        service / verdict.SETTINGS_FILE,
        {"name": "train", "failed_file": str(tmp_path / "failed.json"), "directory": ROOT},
    )
    (service / "down").symlink_to(tmp_path / "nowhere" / "down")
    program = [sys.executable, "-c", "print('works')"]
    done = subprocess.run(
        [sys.executable, "-m", "supervise.service", *program],
        cwd=service,
        env={**os.environ, "PYTHONPATH": ROOT},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)),
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "works" in done.stdout and "end of start 1: exit code 0" in done.stdout


WAITING = "import os; stop = s.start_signal_thread(); READY; stop.wait(); os._exit(stop.exit_code)"
STUCK = "s.start_signal_thread(grace=0.3); READY; ctypes.CDLL(None).sleep(1000)"


@pytest.mark.parametrize("code", [WAITING, STUCK])
def test_a_stop_does_not_wait_for_whoever_reads_the_log(code):
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    with contextlib.suppress(BlockingIOError):
        while os.write(write_end, b"x" * 4096):
            pass
    os.set_blocking(write_end, True)
    start = "import ctypes; from sactory import supervision as s; "
    program = subprocess.Popen(
        [sys.executable, "-c", start + code.replace("READY", "print('ready', flush=True)")],
        stdout=subprocess.PIPE,
        stderr=write_end,
        text=True,
    )
    try:
        assert program.stdout is not None and program.stdout.readline() == "ready\n"
        program.terminate()
        assert program.wait(30) == supervision.RETRY
    finally:
        program.kill()
        program.communicate()
        os.close(read_end)
        os.close(write_end)
