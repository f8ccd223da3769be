"""The daemontools tree with real daemontools and fake programs: it ends, restarts, no orphans."""

from __future__ import annotations

import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from sactory import status
from sactory.run_dir import RunDir, read_json, write_json
from supervise import daemontools, log_tail, processes, reaper, tree, verdict

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.skipif(
        shutil.which("supervise", path=daemontools.search_path()) is None,
        reason="daemontools is not installed",
    ),
]
FAKE = str(Path(__file__).with_name("fake_program.py"))
FAKE_RUN = str(Path(__file__).with_name("fake_run.py"))
STEADY = {"replay_server": "steady", "collect_0": "steady", "train": "steady", "eval": "steady"}
FINISH = dict.fromkeys(STEADY, "finish")
FINISH["final"] = "print('| eval | S: 100 | ER: 42.0000')"


class Run:
    """A run directory whose processes are told from all others by a variable they inherit."""

    def __init__(self, root: Path):
        self.dir = RunDir(root)
        self.tag = f"SACTORY_TEST_TAG={uuid.uuid4().hex}"
        self.environment = {**os.environ, **dict([self.tag.split("=")])}
        root.mkdir()
        self.dir.config.write_text("run.max_env_steps = 100\ncollect.Worker.random_steps = 10\n")
        write_json(self.dir.provenance, {"cwd": str(root)})

    def processes(self) -> dict[int, str]:
        """Every living process of this test, wherever in the process tree it went."""
        found = {}
        for path in Path("/proc").glob("[0-9]*"):
            try:
                environment = (path / "environ").read_bytes()
            except OSError:
                continue
            if self.tag.encode() in environment.split(b"\0") and processes.start_time(
                int(path.name)
            ):
                found[int(path.name)] = (path / "cmdline").read_bytes().decode().replace("\0", " ")
        return found

    def reaper(self, modes: dict[str, str], grace: float = 15.0, **limits: float):
        members = [
            tree.Program(name, [sys.executable, FAKE, name, str(self.dir), *words.split()])
            for name, words in modes.items()
        ]
        root = tree.write_tree(self.dir, members, None, grace, limits)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(*self.tag.split("="))
            return reaper.start(root)

    def run(self, modes: dict[str, str], *arguments: str, **kwargs) -> subprocess.Popen[str]:
        """Starts `sactory run`."""
        return subprocess.Popen(
            [sys.executable, FAKE_RUN, json.dumps(modes), "--run_dir", str(self.dir), *arguments],
            **{
                "env": self.environment,
                "stdout": subprocess.PIPE,
                "stderr": subprocess.PIPE,
                "text": True,
                **kwargs,
            },
        )

    def service(self, name: str) -> Path:
        return self.dir.services() / name

    def state(self, name: str) -> verdict.State:
        return verdict.read_state(self.service(name))

    def log(self, name: str) -> list[str]:
        return log_tail.tail(log_tail.log_file(self.service(name)))

    def beating(self, *names: str, pid_not: int | None = None) -> bool:
        beats = [read_json(self.dir.status(name)) or {} for name in names]
        return all(b.get("state") == "training" and b["pid"] != pid_not for b in beats)

    def pid(self, name: str) -> int:
        beat = read_json(self.dir.status(name))
        assert beat is not None
        return beat["pid"]

    def supervise_pid(self, name: str) -> int:
        command = f"supervise {self.service(name)} "
        return next(pid for pid, text in self.processes().items() if text == command)


@pytest.fixture
def run(tmp_path):
    run = Run(tmp_path / "R with a space")
    yield run
    while run.processes():
        processes.send(run.processes(), signal.SIGKILL)
        processes.reap()


def until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


def nothing_left(run: Run) -> Callable[[], bool]:
    return lambda: not run.processes()


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
    until(nothing_left(run))
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
    until(lambda: daemontools.status(run.service("train")).pid == 0)
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
    until(lambda: daemontools.status(run.service("train")).pid == 0)
    scan.kill()
    scan.wait()


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
    out, err = run.run(FINISH).communicate(timeout=90)
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
    os.kill(read_json(run.dir.services() / status.ALIVE_FILE)["pid"], signal.SIGKILL)
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


def test_missing_daemontools_is_one_line_with_the_remedy(monkeypatch):
    monkeypatch.setattr(daemontools, "search_path", lambda: "/nowhere")
    with pytest.raises(daemontools.UserError, match="apt-get install daemontools"):
        daemontools.require()
