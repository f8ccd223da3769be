"""`sactory run` and `sactory stop` with fake programs: how a run ends, and what is said."""

from __future__ import annotations

import os
import pty
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import whole_run
from sactory import status, supervision
from sactory.run_dir import read_json, write_json
from tests.fake_tree import FAKE, FINISH, NEEDS_DAEMONTOOLS, STEADY, Run, until

FAKE_ROOT = str(Path(FAKE).parent.parent)  # where `sactory` is found
pytestmark = [pytest.mark.timeout(120), NEEDS_DAEMONTOOLS]


@pytest.fixture
def run(tmp_path):
    run = Run(tmp_path / "R with a space")
    yield run
    run.end()


def test_run_ends_with_the_final_evaluation_and_then_only_prints(run):
    out, err = run.run(FINISH).communicate(timeout=90)
    assert err == ""
    assert "| eval | S: 100 | ER: 42.0000" in out
    assert "finished (max_env_steps): 100 env steps, 90 updates, RATIO 0.9000" in out
    assert "\x1b" not in out
    assert run.processes() == {}
    again = run.run({"final": "raise SystemExit(1)"})
    assert "| eval | S: 100 | ER: 42.0000" in again.communicate(timeout=30)[0]
    assert again.returncode == 0


def test_run_reports_a_failed_final_evaluation(run):
    process = run.run({**FINISH, "final": "raise ValueError('no policy')"})
    _, err = process.communicate(timeout=90)
    assert process.returncode == 1
    assert "final evaluation failed: ValueError: no policy" in err
    assert not (run.dir.root / "result.json").exists()


def test_run_reports_the_user_error_of_a_program(run):
    process = run.run({**STEADY, "train": "user_error"})
    out, err = process.communicate(timeout=90)
    assert process.returncode == 2
    assert err.startswith("sactory: error: train failed (exit code 2): mend this\nits log: /")
    assert "Traceback" not in out + err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_run_stops_cleanly_and_says_how_to_resume(run, number, code):
    process = run.run(STEADY)
    until(lambda: run.beating(*STEADY))
    process.send_signal(number)
    out, err = process.communicate(timeout=90)
    assert (process.returncode, err) == (code, "")
    assert f"`sactory run --run_dir {run.dir}` resumes" in out
    assert all((run.dir.root / f"saved_{name}").exists() for name in STEADY)
    assert run.processes() == {}
    assert status.collect(run.dir)["state"] == "stopped"


def test_second_ctrl_c_does_not_wait(run):
    process = run.run({"train": "stubborn", "eval": "steady"}, "--grace", "1000")
    until(lambda: run.beating("eval"))
    process.send_signal(signal.SIGINT)
    assert process.stdout is not None
    until(lambda: "stopping" in process.stdout.readline())
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert run.processes() == {}


def test_killed_run_leaves_no_orphan_and_the_next_waits_for_its_tree(run):
    process = run.run({**STEADY, "train": "steady 3"})
    until(lambda: run.beating(*STEADY))
    process.kill()
    process.communicate()
    out, _ = run.run(FINISH).communicate(timeout=90)
    assert (run.dir.root / "saved_train").exists()
    assert "waiting for the programs of an earlier run" in out
    assert "ER: 42.0000" in out
    assert run.processes() == {}


def test_killed_terminal_leaves_no_orphan(run):
    parent, child = pty.openpty()
    process = run.run(
        STEADY,
        stdin=child,
        stdout=child,
        stderr=child,
        start_new_session=True,
        preexec_fn=lambda: __import__("fcntl").ioctl(0, __import__("termios").TIOCSCTTY, 0),
    )
    os.close(child)
    until(lambda: run.beating(*STEADY))
    os.close(parent)
    assert process.wait(60) == 128 + signal.SIGHUP
    assert run.processes() == {}
    assert (run.dir.root / "saved_train").exists()


def test_terminal_shows_a_live_line(run):
    parent, child = pty.openpty()
    process = run.run(FINISH, stdin=child, stdout=child, stderr=child)
    os.close(child)
    shown = b""
    while True:
        try:
            data = os.read(parent, 10_000)
        except OSError:
            break
        if not data:
            break
        shown += data
    os.close(parent)
    assert process.wait(60) == 0
    assert b"/ 100 env steps" in shown
    assert b"ER: 42.0000" in shown


def test_killed_reaper_is_reported_by_run_which_ends_its_orphans(run):
    process = run.run({**STEADY, "train": "steady 1"})
    until(lambda: run.beating(*STEADY))
    alive = run.dir.services() / supervision.ALIVE_FILE
    until(alive.exists)  # the programs may be faster than the reaper's first beat
    os.kill(read_json(alive)["pid"], signal.SIGKILL)
    _, err = process.communicate(timeout=90)
    assert process.returncode == 1
    assert "the reaper of the programs was killed" in err
    assert run.processes() == {}
    assert (run.dir.root / "saved_train").exists()


def test_second_run_is_refused_and_stop_ends_the_first(run):
    process = run.run(STEADY)
    until(lambda: run.beating(*STEADY))
    second = run.run(STEADY)
    _, err = second.communicate(timeout=60)
    assert second.returncode != 0
    assert f"another `sactory run`, process {process.pid}, holds" in err
    command = [sys.executable, "-m", "sactory.cli", "stop", "--run_dir", str(run.dir)]
    stop = subprocess.run(command, env=run.environment, capture_output=True, text=True)
    assert (stop.returncode, stop.stderr) == (0, "")
    assert stop.stdout == f"stopped: {run.dir}, 100 env steps\n"
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 143
    assert "resumes" in out
    again = subprocess.run(command, env=run.environment, capture_output=True, text=True)
    assert again.stdout == f"nothing runs in {run.dir} (stopped)\n"


def stop(run, *arguments):
    command = [sys.executable, "-m", "sactory.cli", "stop", "--run_dir", str(run.dir), *arguments]
    return subprocess.run(
        command, env=run.environment, capture_output=True, text=True, timeout=90, check=False
    )


def test_stop_kills_what_does_not_end_within_its_grace(run):
    process = run.run({"train": "stubborn", "eval": "steady"}, "--grace", "1000")
    until(lambda: run.beating("eval"))
    told = stop(run, "--grace", "3")
    assert (told.returncode, told.stderr) == (0, "")
    assert told.stdout.startswith(f"stopped: {run.dir}")
    assert process.wait(60) == 143
    assert (run.dir.root / "saved_eval").exists()  # it saved before
    assert run.processes() == {}


def test_stop_ends_programs_started_by_hand_the_server_last(run):
    names = ("replay_server", "train")
    for name in names:
        words = [sys.executable, FAKE, name, str(run.dir), "by_hand"]
        subprocess.Popen(words, env=run.environment, cwd=FAKE_ROOT)
    until(lambda: run.beating(*names))
    run.dir.lock("eval").write_text(str(os.getpid()))  # an old file that names a stranger
    old = {"pid": os.getpid(), "time": 0.0, "state": "training"}
    write_json(run.dir.status("eval"), {**read_json(run.dir.status("train")), **old})
    told = stop(run)
    assert (told.returncode, told.stderr) == (0, "")
    assert told.stdout.startswith(f"stopped: {run.dir}")
    saved = [(run.dir.root / f"saved_{name}").stat().st_mtime_ns for name in names]
    assert saved[0] > saved[1]
    until(lambda: run.processes() == {})
    assert stop(run, "--grace", "-1").returncode == 2


def test_stop_kills_a_frozen_program_started_by_hand(run):
    words = [sys.executable, FAKE, "train", str(run.dir), "by_hand"]
    process = subprocess.Popen(words, env=run.environment, cwd=FAKE_ROOT)
    until(lambda: run.beating("train"))
    process.send_signal(signal.SIGSTOP)
    assert stop(run, "--grace", "1").returncode == 0
    assert process.wait(30) == -signal.SIGKILL


def test_orphans_of_a_reaper_that_broke_are_ended(run):
    process = run.run({**STEADY, "train": "steady 1"})
    until(lambda: run.beating(*STEADY))
    alive = run.dir.services() / supervision.ALIVE_FILE
    until(alive.exists)
    # With no descriptor left it can't look at its children: an exception ends it.
    resource.prlimit(read_json(alive)["pid"], resource.RLIMIT_NOFILE, (0, 0))
    _, err = process.communicate(timeout=90)
    assert process.returncode == 1
    assert "the reaper of the programs ended with 1" in err
    assert run.processes() == {}
    assert (run.dir.root / "saved_train").exists()


def test_a_run_frozen_as_a_whole_goes_on(run):
    process = run.run(STEADY)
    until(lambda: run.beating(*STEADY))
    frozen = whole_run.Tree(process.pid)
    frozen.stop()
    until(lambda: all(p.status() == "stopped" for p in frozen.processes()))
    assert len(frozen.processes()) > 2 * len(STEADY)
    assert frozen.cpu_seconds() > 0
    began = time.time()
    frozen.go_on()
    until(lambda: all(read_json(run.dir.status(name))["time"] > began for name in STEADY))
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert {run.state(name).starts for name in STEADY} == {1}
    assert run.processes() == {}
