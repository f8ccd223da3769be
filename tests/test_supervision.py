"""Exit codes, the signal thread, waiting, heartbeats, and how an end is judged."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from sactory import heartbeat, supervision
from sactory.heartbeat import Heartbeat
from sactory.run_dir import RunDir, read_json
from supervise import log_tail, verdict
from supervise.verdict import Settings, State

pytestmark = pytest.mark.timeout(60)

START = "import sys, ctypes; from sactory import supervision as s; "
READY = "print('ready', flush=True); "
STUCK = "ctypes.CDLL(None).sleep(1000)"  # as deep in C as a blocked Reverb call


def start_program(code: str, **kwargs) -> subprocess.Popen[str]:
    program = subprocess.Popen(
        [sys.executable, "-c", START + code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **kwargs,
    )
    assert program.stdout is not None
    assert program.stdout.readline() == "ready\n"
    return program


@pytest.mark.parametrize("number", supervision.STOP_SIGNALS)
def test_signal_stops_a_waiting_program_with_retry(number):
    wait = "stop.wait(); print(stop.reason, stop.signal, flush=True); sys.exit(stop.exit_code)"
    program = start_program("stop = s.start_signal_thread(); " + READY + wait)
    program.send_signal(number)
    assert program.communicate(timeout=30)[0] == f"{number.name} {number.value}\n"
    assert program.returncode == supervision.RETRY


def test_program_stuck_in_c_ends_at_the_deadline_and_says_where():
    program = start_program("s.start_signal_thread(grace=0.3); " + READY + STUCK)
    program.terminate()
    _, err = program.communicate(timeout=30)
    assert program.returncode == supervision.RETRY
    assert "not stopped within 0.3 s" in err
    assert 'File "<string>", line 1' in err


def test_stuck_program_takes_the_signal_in_its_thread():
    start = "stop = s.start_signal_thread(grace=100); import threading, os; "
    save = "lambda: (stop.wait(), os.write(1, b'saved'), os._exit(75))"
    program = start_program(f"{start}threading.Thread(target={save}).start(); {READY}{STUCK}")
    program.terminate()
    assert program.communicate(timeout=30)[0] == "saved"


def test_thread_that_was_there_before_does_not_take_the_process_down():
    older = (
        "import threading; threading.Thread(target=ctypes.CDLL(None).sleep, args=[1000]).start(); "
    )
    code = "stop = s.start_signal_thread(grace=0.3); " + READY + STUCK
    for _ in range(5):  # the kernel chooses the thread
        program = start_program(older + code)
        program.terminate()
        assert "stopping: SIGTERM" in program.communicate(timeout=30)[1]
        assert program.returncode == supervision.RETRY


def test_second_ctrl_c_ends_at_once_but_second_term_does_not():
    program = start_program("s.start_signal_thread(grace=100); " + READY + STUCK)
    assert program.stderr is not None
    program.terminate()
    assert "stopping" in program.stderr.readline()
    program.terminate()
    with pytest.raises(subprocess.TimeoutExpired):
        program.wait(supervision._DUPLICATE_SECONDS + 0.5)
    program.send_signal(signal.SIGINT)
    assert program.wait(30) == supervision.RETRY


def test_ignored_hangup_stays_ignored():
    code = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN); "
    program = start_program(
        code + "stop = s.start_signal_thread(); " + READY + "stop.wait(); print(stop.reason)"
    )
    program.send_signal(signal.SIGHUP)
    program.terminate()
    assert program.communicate(timeout=30)[0] == "SIGTERM\n"


def test_children_can_be_given_a_clean_mask():
    code = (
        "import subprocess, signal; s.start_signal_thread(); "
        + READY
        + "print(subprocess.run(['sh', '-c', "
        "'kill -TERM $$; echo survived'], preexec_fn=s.unblock_signals).returncode)"
    )
    assert start_program(code).communicate(timeout=30)[0] == f"{-signal.SIGTERM}\n"


def test_grace_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv(supervision.GRACE_VARIABLE, "7.5")
    assert supervision.grace_seconds() == 7.5
    monkeypatch.setenv(supervision.GRACE_VARIABLE, "soon")
    assert supervision.grace_seconds() == supervision.DEFAULT_GRACE_SECONDS


def test_first_reason_stands():
    stop = supervision.Stop()
    assert stop.exit_code == supervision.OK
    stop.request("max_env_steps")
    stop.request("SIGTERM", signal.SIGTERM)
    assert (stop.reason, stop.exit_code) == ("max_env_steps", supervision.OK)


def test_wait_for_returns_the_value_or_none():
    values = iter([0, None, 5])
    assert supervision.wait_for(lambda: next(values), supervision.Stop(), shortest=0.001) == 5
    assert supervision.wait_for(lambda: None, supervision.Stop(), timeout=0.02) is None
    stop = supervision.Stop()
    threading.Timer(0.05, stop.request, ("test",)).start()
    assert supervision.wait_for(lambda: None, stop) is None
    assert stop.reason == "test"


def ends(*codes_and_uptimes: tuple[int, float], **settings) -> State:
    state = State()
    for code, uptime in codes_and_uptimes:
        verdict.judge(state, Settings("train", "", "", **settings), code, uptime, now=1000.0)
    return state


def test_finished_program_goes_down():
    assert ends((0, 5.0)).outcome == "finished"


def test_user_error_fails_at_once():
    assert ends((2, 500.0)).outcome == "failed"


def test_pauses_double_up_to_the_limit():
    pauses = [ends(*[(1, 1.0)] * n).not_before - 1000.0 for n in range(1, 10)]
    assert pauses == [1, 2, 4, 8, 16, 30, 30, 30, 30]


def test_tenth_quick_failure_in_a_row_fails():
    assert ends(*[(1, 1.0)] * 9).outcome == ""
    assert ends(*[(1, 1.0)] * 10).outcome == "failed"
    assert ends(*[(-9, 1.0)] * 9, (-9, 61.0), (-9, 1.0)).outcome == ""


def test_long_life_resets_the_pause():
    assert ends(*[(1, 1.0)] * 5, (1, 100.0)).not_before == 1001.0


def test_retry_backs_off_but_never_fails():
    state = ends(*[(75, 1.0)] * 40)
    assert (state.outcome, state.failures, state.not_before) == ("", 0, 1030.0)


def test_exits_are_described():
    assert verdict.describe_exit(3) == "exit code 3"
    assert verdict.describe_exit(-9) == "killed by SIGKILL"


LOG = """\
service: start 1: python train
ValueError: an older start
service: end of start 1: exit code 1 after 0.1 s
service: start 2: python train
a warning
Traceback (most recent call last):
  File "x.py", line 1, in <module>
    raise tf.errors.InternalError("bad")
tensorflow.python.framework.errors_impl.InternalError: bad
ignored message from a destructor
service: end of start 2: exit code 1 after 0.1 s
"""


def test_last_error_is_found_in_the_log():
    lines = LOG.splitlines()
    assert log_tail.find_error(lines, 1) == "ValueError: an older start"
    assert log_tail.find_error(lines, 2) == (
        "tensorflow.python.framework.errors_impl.InternalError: bad"
    )
    assert log_tail.find_error(["service: start 1: x", "sactory: error: no R"], 1) == "no R"
    assert log_tail.find_error(["service: start 1: x", "plain words", ""], 1) == "plain words"
    assert log_tail.find_error([], 1) == ""


def test_log_stamps_are_cut(tmp_path):
    (tmp_path / "current").write_text("@400000006b018ad81ed43c1c hello\nno stamp\n")
    assert log_tail.tail(tmp_path / "current") == ["hello", "no stamp"]
    assert log_tail.tail(tmp_path / "missing") == []


def test_heartbeat_tells_and_closes(tmp_path):
    beat = Heartbeat(RunDir(tmp_path), "collect", 3, interval=100.0, note=math.nan)
    beat.update(state="acting", rows=np.int64(7), nested={"x": [np.float32(0.5), math.inf]})
    beat.close("done")
    told = json.loads((tmp_path / "status" / "collect_3.json").read_text())
    assert (told["program"], told["worker"], told["pid"]) == ("collect", 3, os.getpid())
    assert (told["state"], told["rows"], told["note"]) == ("done", 7, None)
    assert told["nested"] == {"x": [0.5, None]}
    assert told["started"] <= told["time"] <= time.time()
    assert not [p for p in (tmp_path / "status").iterdir() if p.name != "collect_3.json"]


def test_heartbeat_beats_by_itself(tmp_path):
    beat = Heartbeat(RunDir(tmp_path), "train", interval=0.01)
    beat.update(env_steps=5)
    told = supervision.wait_for(
        lambda: (read_json(beat.path) or {}).get("env_steps"), supervision.Stop(), timeout=30
    )
    beat.close()
    assert told == 5


def test_heartbeat_counts_restarts_and_keeps_counters(tmp_path, monkeypatch):
    monkeypatch.delenv(supervision.RESTARTS_VARIABLE, raising=False)
    run_dir = RunDir(tmp_path)
    first = Heartbeat(run_dir, "train", env_steps=500, error="gone")
    assert (first.restarts, first.starts) == (0, 1)
    first.close("training")  # as if killed: it never said that it stopped
    second = Heartbeat(run_dir, "train")
    assert (second.restarts, second.starts) == (1, 2)
    second.close("stopped")
    told = read_json(second.path)
    assert told["env_steps"] == 500
    assert "error" not in told
    monkeypatch.setenv(supervision.RESTARTS_VARIABLE, "4")
    third = Heartbeat(run_dir, "train")
    third.close()
    assert (third.restarts, third.starts) == (4, 3)


def test_heartbeat_rate_falls_when_nothing_comes(tmp_path, monkeypatch):
    beat = Heartbeat(RunDir(tmp_path), "train")
    beat.close()
    now = [100.0]
    monkeypatch.setattr(heartbeat.time, "monotonic", lambda: now[0])
    assert beat._rate() is None
    for i in range(51):
        now[0] = 100.0 + i
        beat.progress(20 * i)
    assert beat._rate() == pytest.approx(20.0)
    now[0] += 10.0
    rate = beat._rate()
    assert rate is not None
    assert 0.0 < rate < 2.0


def test_progress_calls_do_not_pile_up(tmp_path):
    beat = Heartbeat(RunDir(tmp_path), "train")
    for i in range(100_000):
        beat.progress(i)
    assert len(beat._steps) < 1000
    beat.close()


def test_full_disk_does_not_stop_the_heartbeat(tmp_path, capsys):
    beat = Heartbeat(RunDir(tmp_path), "train", interval=0.01)
    assert supervision.wait_for(beat.path.exists, supervision.Stop(), timeout=30)
    (tmp_path / "status").rename(tmp_path / "away")
    (tmp_path / "status").write_text("not a directory")
    told = supervision.wait_for(
        lambda: "no heartbeat" in capsys.readouterr().out, supervision.Stop(), timeout=30
    )
    assert told
    (tmp_path / "status").unlink()
    (tmp_path / "away").rename(tmp_path / "status")
    beat.close("done")
    assert read_json(beat.path)["state"] == "done"
