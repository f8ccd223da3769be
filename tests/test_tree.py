"""The daemontools tree with real daemontools and fake programs: it ends, restarts, no orphans."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from sactory import status
from sactory.run_dir import read_json
from supervise import daemontools, processes, reaper, tree
from tests.fake_tree import FAKE, FINISH, NEEDS_DAEMONTOOLS, STEADY, Run, until

pytestmark = [pytest.mark.timeout(120), NEEDS_DAEMONTOOLS]


@pytest.fixture
def run(tmp_path):
    run = Run(tmp_path / "R with a space")
    yield run
    run.end()


def test_finished_programs_end_the_tree(run):
    process = run.reaper({**{k: v for k, v in FINISH.items() if k != "final"}})
    assert process.wait(60) == reaper.FINISHED
    assert run.state("train").outcome == "finished"
    assert run.processes() == {}
    assert any(line.startswith("working") for line in run.log("train"))
    assert status.collect(run.dir)["state"] == "done"


def test_crashing_program_is_reported_with_its_error_and_stops_the_tree(run):
    modes = {"train": "crash 7", "eval": "steady"}
    process = run.reaper(modes, max_failures=3, first_pause=0.01, longest_pause=0.02)
    assert process.wait(60) == reaper.FAILED
    failed = read_json(run.dir.failed)
    assert failed["program"] == "train"
    assert failed["error"] == "ValueError: cannot work 7"
    assert (failed["exit"], failed["failures"]) == ("exit code 1", 3)
    assert Path(failed["log"]).read_text().count("ValueError: cannot work 7") == 3
    assert run.state("train").starts == 3
    assert (run.dir.root / "saved_eval").read_text() == "SIGTERM"
    assert run.processes() == {}
    assert status.collect(run.dir)["state"] == "failed"


def test_user_error_fails_without_a_second_try(run):
    assert run.reaper({"train": "user_error"}).wait(60) == reaper.FAILED
    failed = read_json(run.dir.failed)
    assert (failed["error"], failed["user_error"]) == ("mend this", True)
    assert run.state("train").starts == 1


def test_killed_program_comes_back_and_knows_that_it_did(run):
    process = run.reaper({"train": "crash_once", "eval": "steady"}, first_pause=0.01)
    until(lambda: run.beating("train", "eval"))
    assert read_json(run.dir.status("train"))["restarts"] == 1
    told = status.collect(run.dir)
    assert told["state"] == "running"
    (train,) = [p for p in told["programs"] if p["name"] == "train"]
    assert (train["restarts"], train["last_exit"]) == (1, "killed by SIGKILL")
    process.terminate()
    assert process.wait(60) == reaper.STOPPED
    assert (run.dir.root / "saved_train").exists()
    assert run.processes() == {}


@pytest.mark.parametrize("victim", ["supervise", "service"])
def test_never_two_copies_after_a_supervisor_was_killed(run, victim):
    process = run.reaper({"train": "steady 0.5"})
    until(lambda: run.beating("train"))
    old = run.pid("train")
    pid = run.supervise_pid("train")
    os.kill(processes.children(pid)[0] if victim == "service" else pid, signal.SIGKILL)
    until(lambda: run.beating("train", pid_not=old))
    assert processes.start_time(old) is None
    assert (run.dir.root / "saved_train").read_text() == "SIGTERM"
    copies = [
        pid for pid, text in run.processes().items() if text.startswith(f"{sys.executable} {FAKE}")
    ]
    assert copies == [run.pid("train")]
    process.terminate()
    assert process.wait(60) == reaper.STOPPED
    assert run.processes() == {}


def test_killed_reaper_leaves_no_orphan(run):
    process = run.reaper(STEADY)
    until(lambda: run.beating(*STEADY))
    process.kill()
    process.wait()
    until(lambda: not run.processes())
    assert (run.dir.root / "saved_train").exists()


def test_grandchildren_end_with_their_program(run):
    process = run.reaper({"collect_0": "child"})
    until(lambda: run.beating("collect_0"))
    process.terminate()
    assert process.wait(60) == reaper.STOPPED
    assert run.processes() == {}


def test_stubborn_program_is_killed_after_the_grace_period(run):
    process = run.reaper({"train": "stubborn", "eval": "steady"}, grace=5.0)
    until(lambda: run.beating("eval"))
    process.terminate()
    assert process.wait(60) == reaper.STOPPED
    assert run.processes() == {}
    assert (run.dir.root / "saved_eval").exists()


def test_replay_server_stops_last(run):
    process = run.reaper({**STEADY, "train": "steady 1"})
    until(lambda: run.beating(*STEADY))
    process.terminate()
    assert process.wait(60) == reaper.STOPPED
    saved = {name: (run.dir.root / f"saved_{name}").stat().st_mtime for name in STEADY}
    assert max(saved, key=lambda name: saved[name]) == "replay_server"


def test_killed_logger_loses_no_program_and_comes_back(run):
    process = run.reaper({"train": "steady"})
    until(lambda: run.beating("train"))
    old = run.pid("train")
    log = run.service("train") / "log"
    os.kill(next(p for p, t in run.processes().items() if t == f"supervise {log} "), signal.SIGKILL)
    until(lambda: daemontools.is_supervised(log))
    assert run.pid("train") == old
    subprocess.run(["svc", "-t", run.service("train")], check=True)
    until(lambda: any("end of start 1" in line for line in run.log("train")))
    process.terminate()
    assert process.wait(60) == reaper.STOPPED


def test_tree_can_be_driven_by_hand(run):
    process = run.reaper({"train": "steady"})
    until(lambda: run.beating("train"))
    old = run.pid("train")
    subprocess.run(["svc", "-t", run.service("train")], check=True)
    until(lambda: run.beating("train", pid_not=old))
    up = subprocess.run(
        ["svstat", run.service("train")], capture_output=True, text=True, check=True
    )
    assert ": up (pid " in up.stdout
    subprocess.run(["svc", "-d", run.service("train")], check=True)
    until(lambda: run.is_down("train"))
    assert read_json(run.dir.status("train"))["state"] == "stopped"
    process.terminate()
    process.wait(60)


def test_svscan_runs_the_tree_without_the_reaper(run):
    process = run.reaper({"train": "finish", "eval": "finish"})
    assert process.wait(60) == reaper.FINISHED
    for name in ("train", "eval"):
        for left in ("down", "state.json"):
            (run.service(name) / left).unlink()
    run.dir.done.unlink()
    scan = subprocess.Popen(["svscan", run.dir.services()], env=run.environment)
    until(lambda: run.state("train").outcome == run.state("eval").outcome == "finished")
    until(lambda: run.is_down("train"))
    scan.kill()
    scan.wait()


def test_only_the_server_is_told_of_an_insecure_port_and_only_if_asked(run):
    told = [
        ["--insecure_listen" in m.command for m in tree.programs(run.dir, 1, "cpu", insecure)]
        for insecure in (False, True)
    ]
    assert told == [[False] * 4, [True, False, False, False]]


def test_environment_of_the_programs(run, monkeypatch):
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, "http://nowhere")
    monkeypatch.setenv("PYTHONPATH", "some/relative")
    members = tree.programs(run.dir, 2, "gpu")
    assert [m.name for m in members] == ["replay_server", "collect_0", "collect_1", "train", "eval"]
    scripts = tree.write_tree(run.dir, members)
    say = "; ".join(["umask", "env"])
    for member in members:
        script = scripts / member.name / "run"
        text = script.read_text()
        start = next(line for line in text.splitlines() if line.startswith("exec /"))
        assert f"sactory.cli {member.command[3]}" in start or "-c" in start
        out = subprocess.run(["sh", "-c", text.replace(start, say)], capture_output=True, text=True)
        lines = out.stdout.splitlines()
        assert lines[0] == "0077"
        assert not [
            x for x in lines if x.split("=")[0] in ("http_proxy", "https_proxy", "grpc_proxy")
        ]
        assert ("TZ=UTC" in lines) == (member.name == "replay_server")
        assert ("CUDA_VISIBLE_DEVICES=-1" in lines) == (member.name != "train")
        path = next(x for x in lines if x.startswith("PYTHONPATH="))
        assert all(p.startswith("/") for p in path[len("PYTHONPATH=") :].split(":"))


def test_services_of_an_earlier_start_go_and_logs_stay(run):
    tree.write_tree(run.dir, tree.programs(run.dir, 3))
    log = run.service("train") / "log" / "main"
    log.mkdir()
    (log / "current").write_text("kept")
    (run.service("train") / "down").touch()
    tree.write_tree(run.dir, tree.programs(run.dir, 1))
    assert (log / "current").read_text() == "kept"
    assert not (run.service("train") / "down").exists()
    assert not run.service("collect_1").exists()


def test_a_wait_for_signals_that_was_frozen_takes_none_that_nobody_sent():
    signals = "(signal.SIGCHLD, signal.SIGTERM)"
    text = f"""import signal, sys
from supervise import processes
signal.pthread_sigmask(signal.SIG_BLOCK, {signals})
while not (taken := processes.take_signal({signals}, 0.02)):
    print(flush=True)
sys.exit(taken)
"""
    process = subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()  # it waits
    for _ in range(10):
        process.send_signal(signal.SIGSTOP)
        os.waitpid(process.pid, os.WUNTRACED)
        threading.Event().wait(0.04)  # until its own wait is over, too
        process.send_signal(signal.SIGCONT)
        os.waitpid(process.pid, os.WCONTINUED)
    process.terminate()
    assert process.wait(30) == signal.SIGTERM
