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


@contextlib.contextmanager
def service_on_a_full_disk(service: Path, code: int):
    """A service that can't write, from its program's end on; yields it and what it has said."""
    failed = service.parent / "failed.json"
    settings = {"name": "train", "failed_file": str(failed), "directory": ROOT}
    write_json(service / verdict.SETTINGS_FILE, settings)
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    program = [sys.executable, "-c", f"print('works'); raise SystemExit({code})"]
    running = subprocess.Popen(
        [sys.executable, "-m", "supervise.service", *program],
        cwd=service,
        env={**os.environ, "PYTHONPATH": ROOT},
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard)),
    )
    try:
        assert running.stdout is not None
        said = ""
        while said.count("state.json is not written") < 3:  # the start's, the end's, one again
            said += running.stdout.readline()
        yield running, said
    finally:
        running.kill()
        running.communicate()


@pytest.mark.parametrize("code, outcome", [(0, "finished"), (2, "failed")])
def test_an_outcome_that_the_disk_refuses_is_written_when_there_is_room(tmp_path, code, outcome):
    service = tmp_path / "train"
    with service_on_a_full_disk(service, code) as (running, said):
        assert "works" in said and f"end of start 1: exit code {code}" in said
        hard = resource.prlimit(running.pid, resource.RLIMIT_FSIZE)[1]
        resource.prlimit(running.pid, resource.RLIMIT_FSIZE, (hard, hard))
        assert running.wait(30) == 0
    assert verdict.read_state(service).outcome == outcome
    assert (tmp_path / "failed.json").exists() == (outcome == "failed")


def test_a_stop_ends_a_service_that_waits_for_room(tmp_path):
    with service_on_a_full_disk(tmp_path / "train", 0) as (running, _):
        running.terminate()
        assert running.wait(30) == 0


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
