"""The harness that hurts runs must see what it is there to see."""

import concurrent.futures
import dataclasses
import json
import os
import random
import signal
import subprocess
import sys

import numpy as np
import pytest

from benchmarks.chaos import counted_env, cut, faults, soak
from benchmarks.chaos.invariants import Observer, check_logs, check_setbacks
from benchmarks.chaos.subject import Counters, Saved, Subject
from sactory import trainer_checkpoints
from sactory.run_dir import write_json
from tests.marks import isolated_only

WELL = Counters(1000, 500, 1000, {"replay_server": 1, "collect_0": 2, "train": 3, "eval": 4})


@pytest.fixture
def subject(tmp_path):
    (tmp_path / "run").mkdir()
    return Subject(tmp_path / "run", "configs/debug.gin", {})


def write_log(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def violations_of(subject, *counters):
    observer = Observer(subject)
    for c in counters:
        observer._look(c)
    return observer.violations


def test_counters_that_only_grow_are_well(subject):
    later = dataclasses.replace(WELL, env_steps=1001, train_steps=501)
    assert violations_of(subject, WELL, WELL, later) == []


def test_env_steps_that_go_back_are_a_violation(subject):
    (text,) = violations_of(subject, WELL, dataclasses.replace(WELL, env_steps=999))
    assert "env steps went back from 1000 to 999" in text


def test_each_setback_of_the_trainer_needs_its_own_restart_record(subject):
    back = dataclasses.replace(WELL, train_steps=400)
    observer = Observer(subject)
    for c in (WELL, back):
        observer._look(c)
    ((when, updates),) = observer.setbacks
    assert updates == 100
    (text,) = check_setbacks(subject, observer.setbacks)
    assert "went back by 100 without a restart record" in text
    write_log(subject.run_dir.train_log, [{"event": "restart", "step": 1000, "time": when + 2}])
    assert check_setbacks(subject, observer.setbacks) == []
    assert len(check_setbacks(subject, observer.setbacks * 2)) == 1


def test_a_spoiled_heartbeat_takes_no_counts_back(subject):
    run_dir = subject.run_dir
    run_dir.config.write_text("")
    run_dir.provenance.write_text("{}")
    run_dir.status("train").parent.mkdir()
    beats = {"train": {"env_steps": 9, "train_steps": 5}, "replay_server": {"rows_inserted": 10}}
    for name, beat in beats.items():
        run_dir.status(name).write_text(json.dumps(beat))
    before = subject.counters()
    assert (before.env_steps, before.train_steps, before.rows_inserted) == (9, 5, 10)
    run_dir.status("train").write_text("")
    run_dir.status("replay_server").unlink()
    assert subject.counters() == before


def test_a_run_that_stands_still_is_a_violation(subject, monkeypatch):
    monkeypatch.setattr("benchmarks.chaos.invariants._STUCK_SECONDS", -1.0)
    (text,) = violations_of(subject, WELL, WELL)
    assert "nothing has moved" in text


def test_two_copies_of_a_program_are_a_violation(subject, monkeypatch):
    monkeypatch.setattr("benchmarks.chaos.invariants._COPIES_SECONDS", -1.0)
    sleep = "import time, sys; time.sleep(60)"
    words = [sys.executable, "-c", sleep, "sactory.cli", "train", "--run_dir"]
    copies = [subprocess.Popen([*words, str(subject.run_dir)]) for _ in range(2)]
    try:
        assert sorted(subject.copies("train")) == sorted(p.pid for p in copies)
        assert subject.copies("eval") == []
        (text,) = violations_of(subject, WELL, WELL)
        assert "2 copies of train" in text
    finally:
        for process in copies:
            process.kill()
            process.wait()


def test_sound_logs_are_well(subject):
    write_log(
        subject.run_dir.train_log,
        [
            {"step": 10, "episode": 1, "episode_reward": 1.0, "train_step": 5},
            {"step": 20, "episode": 2, "episode_reward": 1.0, "train_step": 9},
            {"step": 20, "event": "restart", "train_step": 5},
            {"step": 30, "episode": 3, "episode_reward": 1.0, "train_step": 7},
        ],
    )
    write_log(subject.run_dir.eval_log, [{"step": 0, "export": "a"}, {"step": 9, "export": "b"}])
    with open(subject.run_dir.train_log, "a") as f:
        f.write('{"half')  # being written
    assert check_logs(subject) == []


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        ([{"step": 9, "export": "a"}, {"step": 9, "export": "a"}], "a was scored 2 times"),
        (["half", {"step": 9, "export": "a"}], "line 1 is not JSON"),
    ],
)
def test_an_unsound_eval_log_is_a_violation(subject, rows, text):
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    subject.run_dir.eval_log.write_text("\n".join(lines) + "\n")
    (found,) = check_logs(subject)
    assert text in found


@pytest.mark.parametrize(
    ("second", "text"),
    [
        ({"step": 5, "episode": 2, "train_step": 9}, "env steps go back"),
        ({"step": 30, "episode": 1, "train_step": 9}, "episode 1 stands there 2 times"),
        ({"step": 30, "episode": 2, "train_step": 4}, "train step 4 follows 5"),
    ],
)
def test_an_unsound_train_log_is_a_violation(subject, second, text):
    first = {"step": 10, "episode": 1, "train_step": 5}
    write_log(
        subject.run_dir.train_log, [{**row, "episode_reward": 1.0} for row in (first, second)]
    )
    (found,) = check_logs(subject)
    assert text in found


@pytest.mark.parametrize("how", [faults.truncate, faults.flip_bit, faults.empty, faults.remove])
def test_damage_changes_the_file(tmp_path, how):
    path, content = tmp_path / "f", bytes(range(256))
    path.write_bytes(content)
    how(path, random.Random(0))
    assert not path.exists() or path.read_bytes() != content


def test_a_frozen_program_goes_on_afterwards(subject, monkeypatch):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    pids = dict.fromkeys(WELL.pids, child.pid)
    monkeypatch.setattr(subject, "counters", lambda: dataclasses.replace(WELL, pids=pids))
    monkeypatch.setattr("benchmarks.chaos.faults.time.sleep", lambda _: None)
    try:
        injected = faults.freeze(subject, random.Random(0))
        assert injected is not None and injected.kind == "freeze"
        child.send_signal(signal.SIGTERM)  # a stopped process would not end
        assert child.wait(10) == -signal.SIGTERM
    finally:
        child.kill()


ISOLATED = """
import socket, sys
from replay_server import isolation
isolation.enter()
listener = socket.create_server(("127.0.0.1", 8008))
print("up", flush=True)
for _ in sys.stdin:
    try:
        socket.create_connection(("127.0.0.1", 8008), timeout=0.5).close()
        listener.accept()[0].close()
        print("connected", flush=True)
    except OSError as e:
        print("refused:", e, flush=True)
"""


@isolated_only
def test_a_cut_port_takes_no_connections_until_it_is_mended():
    words = [sys.executable, "-c", ISOLATED]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        asks, tells = child.stdin, child.stdout
        assert asks is not None and tells is not None

        def ask():
            print("try", file=asks, flush=True)
            return tells.readline().strip()

        assert tells.readline() == "up\n"
        assert ask() == "connected"
        with concurrent.futures.ThreadPoolExecutor() as pool:
            cutting = pool.submit(cut.cut, child.pid, 5.0)
            while (answer := ask()) == "connected" and not cutting.done():
                continue
            assert answer.startswith("refused")
            assert cutting.result(60)
        assert ask() == "connected"
        asks.close()


def test_the_hosts_own_network_is_never_cut():
    assert not cut.cut(os.getpid(), 1.0)


def test_counter_counts_the_collectors_steps(tmp_path, monkeypatch):
    path = tmp_path / "count"
    counted_env.make_counter(path)
    assert counted_env.read_counter(path) == 0
    for words, count in ((["collect"], 3), (["eval"], 3)):
        monkeypatch.setattr(counted_env, "_command_line", lambda words=words: words)
        env = counted_env.load(str(path))
        env.reset()
        for _ in range(3):
            env.step(np.zeros(env.action_spec().shape, np.float32))
        assert counted_env.read_counter(path) == count


def test_table_has_a_line_for_each_kind_and_one_for_all():
    record = {"text": "x", "env_steps_lost": 3, "updates_lost": 0, "env_steps": 9}
    lines = soak.table(
        [
            {"kind": "signal", "seconds_to_recover": 2.0, **record},
            {"kind": "signal", "seconds_to_recover": None, **record},
            {"kind": "freeze", "seconds_to_recover": 4.0, **record, "env_steps_lost": 9},
        ]
    ).splitlines()
    assert lines[2] == "| freeze | 1 | 1 | 4.0 | 4.0 | 9 | 9 | 0 | 0 |"
    assert lines[3] == "| signal | 2 | 1 | 2.0 | 2.0 | 3 | 3 | 0 | 0 |"
    assert lines[4] == "| all | 3 | 2 | 3.0 | 4.0 | 5 | 9 | 0 | 0 |"


def test_only_what_came_after_the_newest_checkpoints_may_be_lost():
    saved = Saved(rows=100, train_steps=50)
    assert soak.unsaved_only(soak.Recovery(2.0, 100, 50), saved) == []
    assert len(soak.unsaved_only(soak.Recovery(2.0, 99, 49), saved)) == 2


def test_a_run_has_recovered_when_all_is_up_and_both_counters_move_again(subject, monkeypatch):
    def counters(train_pid, env_steps, train_steps, is_ready=True):
        pids = {**WELL.pids, "train": train_pid}
        return Counters(env_steps, train_steps, 1000, pids, is_ready)

    seen = [
        WELL,  # the old trainer is still there
        counters(9, 1001, 501, is_ready=False),
        counters(9, 1002, 400),
        counters(9, 1002, 416),
        counters(9, 1003, 432),
    ]
    left = iter(seen)
    monkeypatch.setattr(subject, "counters", lambda: next(left))
    monkeypatch.setattr("benchmarks.chaos.subject.time.sleep", lambda _: None)
    recovery = soak.recover(subject, WELL, ("train",))
    assert recovery.seconds is not None
    assert (recovery.rows, recovery.train_steps) == (1000, 400)
    assert next(left, None) is None


def test_saved_is_what_the_newest_checkpoints_hold(subject):
    run_dir = subject.run_dir
    assert subject.saved() == Saved()
    for sequence, inserts in ((1, 10), (2, 30)):
        manifest = {"sequence": sequence, "time": 7.0, "tables": {"replay": {"inserts": inserts}}}
        write_json(run_dir.replay_history / str(sequence) / "manifest.json", manifest)
    for step in (16, 32):
        (run_dir.trainer_checkpoints / trainer_checkpoints.directory_name(step)).mkdir(parents=True)
    assert subject.saved() == Saved(30, 32, 7.0)
