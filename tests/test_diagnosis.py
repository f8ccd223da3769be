"""Why a run is slow or stuck: the lines that `sactory status` makes of a run's facts."""

from __future__ import annotations

import os
import socket

import pytest

from sactory import diagnosis, status, supervision
from sactory.run_dir import RunDir, write_json

NOW = 1_000_000.0
SETTINGS = {
    "collect.Worker.random_steps": 5000,
    "train.checkpoint_seconds": 60.0,
    "replay.checkpoint_seconds": 600.0,
}


def program(name, worker=None, state="running", alive=True, **fields):
    base = {
        "name": name,
        "worker": worker,
        "state": state,
        "alive": alive,
        "restarts": 0,
        "last_error": None,
        "last_exit": None,
        "silent_seconds": 1.0,
        "up_seconds": 5000.0,
    }
    return {**base, **fields}


def told(*programs, **fields):
    """A healthy run, changed by what a test names."""
    healthy = {
        "replay_server": program("replay_server"),
        "collect_0": program("collect", 0, "collecting"),
        "collect_1": program("collect", 1, "collecting"),
        "train": program("train", state="training"),
        "eval": program("eval", state="waiting"),
    }
    healthy.update({status.full_name(p): p for p in programs})
    base = {
        "state": "running",
        "replay_size": 100_000,
        "programs": list(healthy.values()),
        "done": None,
        "failed": None,
        "access": "isolated",
        "weights_age": 0.3,
        "checkpoints": {"train": 30.0, "replay_server": 300.0},
        "save_seconds": {},
        "blocked": {"inserts": 0.1, "samples": 0.1, "seconds": 60.0},
        "disk_free": 50e9,
        "recovered": {},
        "repaired_items": 0,
        "refused_steps": 0,
        "exports_waiting": 0,
    }
    return {**base, **fields}


def why(*programs, **fields):
    return diagnosis.explain(told(*programs, **fields), SETTINGS)


def blocked(inserts=0.0, samples=0.0, seconds=60.0):
    return {"inserts": inserts, "samples": samples, "seconds": seconds}


def away(name, state, worker=None, **fields):
    return program(name, worker, state, alive=False, **fields)


def test_healthy_run_has_nothing_to_say():
    assert why() == []


def test_slow_trainer_is_named():
    assert why(blocked=blocked(inserts=0.83)) == [
        "collectors wait for the trainer: the limiter held inserts 83 % of the last minute"
    ]


def test_slow_collectors_are_named():
    assert why(blocked=blocked(samples=0.94, seconds=12.0)) == [
        "the trainer waits for the collectors: the limiter held samples 94 % of the last 12 s"
    ]


def test_first_rows_are_waited_for():
    assert why(
        program("train", state="starting"), blocked=blocked(samples=1.0), replay_size=1200
    ) == ["the trainer waits for the first rows: 1,200 of 5,000"]


def test_restarting_collectors_are_why_the_trainer_waits():
    lines = why(
        *(away("collect", "restarting", w, last_error="KeyError: x") for w in (1, 2)),
        program("collect", 3),
        blocked=blocked(samples=0.9),
    )
    assert lines == [
        "the trainer waits for rows: 2 of 4 collectors are restarting, last error: KeyError: x"
    ]


def test_everybody_waits_for_a_lost_server_and_nothing_else_is_blamed():
    assert why(
        away("replay_server", "silent", silent_seconds=40.0),
        program("collect", 0, "waiting for room in the replay"),
        blocked={},
    ) == ["everybody waits for the replay server: it has been silent for 40 s: frozen, or its disk "
          "hangs"]  # fmt: skip


def test_starting_server_is_waited_for():
    starting = program("replay_server", state="starting", up_seconds=7.0)
    assert why(starting, program("train", state="starting"), state="starting", blocked={}) == [
        "everybody waits for the replay server: it is starting, for 7 s now"
    ]


def test_frozen_trainer_holds_the_collectors():
    frozen = away("train", "silent", silent_seconds=340.0)
    assert why(frozen, blocked=blocked(inserts=1.0), weights_age=340.0) == [
        "collectors wait for the trainer: it has been silent for 6 min: frozen, or its disk hangs"
    ]
    # In async mode they go on, with old weights.
    assert why(frozen, weights_age=341.0) == [
        "the trainer has been silent for 6 min: frozen, or its disk hangs; weights are 6 min old"
    ]


def test_starting_trainer_is_no_fault_but_the_reason():
    starting = program("train", state="starting", up_seconds=12.0)
    idle = [program("collect", w, "waiting for an export") for w in (0, 1)]
    assert why(starting, *idle, state="starting", weights_age=None, blocked={}) == [
        "the trainer is starting, for 12 s now"
    ]
    idle[1]["state"] = "starting"
    assert why(*idle, blocked={}) == ["2 of 2 collectors: waiting for an export, starting"]


def test_weights_that_are_not_published():
    assert why(weights_age=100.0) == [
        "weights are 2 min old: the trainer trains, but can't publish them"
    ]
    assert why(program("train", state="waiting"), weights_age=100.0) == []  # nothing new to publish


def test_restarts_with_the_last_error():
    lines = why(
        program("train", state="training", restarts=3, last_error="ValueError: nan"),
        program("collect", 0, restarts=1, last_exit="killed by SIGKILL"),
        program("collect", 1, restarts=2),
    )
    assert lines == [
        "2 collectors: 3 restarts, last error: killed by SIGKILL",
        "train: 3 restarts, last error: ValueError: nan",
    ]


def test_overdue_checkpoints():
    ages = {"train": 200.0, "replay_server": 1000.0}
    assert why(checkpoints=ages) == ["train: no checkpoint for 3 min: see its log"]
    assert why(program("train", state="training", up_seconds=100.0), checkpoints=ages) == []
    late = {"train": 1.0, "replay_server": 1500.0}
    assert why(checkpoints=late) == ["replay_server: no checkpoint for 25 min: see its log"]
    # One that takes 20 s is made every 1,000 s.
    assert why(checkpoints=late, save_seconds={"replay_server": 20.0}) == []


def test_full_disk_damage_and_strangers():
    assert why(
        disk_free=0.4e9,
        recovered={"train": ["train/000000000900: damaged", "b", "c"]},
        repaired_items=3,
        refused_steps=1,
        access="open",
        exports_waiting=5,
    ) == [
        "the disk of R has 0.4 GB free",
        "the evaluator is 5 policies behind",
        "train found damage: train/000000000900: damaged (and 2 more: see its log)",
        "the replay was repaired: 3 bad items removed",
        "collectors refused 1 step of their environments: see their logs",
        "the replay server is open to everybody who can reach this host",
    ]


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"state": "stopped"}, "nothing runs: `sactory run --run_dir R` goes on"),
        (
            {"state": "failed", "failed": {"program": "train", "error": "ValueError: x"}},
            "train failed: ValueError: x",
        ),
        (
            {"done": {"reason": "max_env_steps"}, "exports_waiting": 2},
            "training has ended (max_env_steps): 2 policies to score",
        ),
    ],
)
def test_ended_runs(fields, line):
    assert why(blocked={}, **fields) == [line]
    assert why(state="done") == []


def test_status_reads_the_facts_from_the_heartbeats(tmp_path):
    """The same from files: what each heartbeat says reaches the lines."""
    run_dir = RunDir(tmp_path)
    write_json(run_dir.provenance, {})
    run_dir.config.write_text("collect.Worker.random_steps = 1000\n")
    base = {"pid": os.getpid(), "host": socket.gethostname(), "time": NOW, "started": NOW - 99}
    worker = {"waiting_for_sampling": 45_000, "waiting_for_inserts": 6000, "sleeping": 9000}
    server = {"tables": {"replay": 4000}, "table_worker": worker, "checkpoint_time": NOW - 7}
    beats = {
        "replay_server": {**server, "state": "running", "access": "open", "replay_size": 4000},
        "collect_0": {"state": "collecting", "refused_steps": 2},
        "train": {"state": "training", "weights_time": NOW - 2, "checkpoint_time": NOW - 50},
    }
    for name, fields in beats.items():
        program, _, number = name.partition("_") if "collect" in name else (name, "", "")
        worker_id = int(number) if number else None
        beat = {**base, "program": program, "worker": worker_id, **fields}
        write_json(run_dir.status(name), beat)
    services = {**base, "state": "running", "services": []}
    write_json(run_dir.services() / supervision.ALIVE_FILE, services)
    found = status.collect(run_dir, NOW)
    assert found["blocked"] == {"inserts": 0.75, "samples": 0.1, "seconds": 60.0}
    assert found["checkpoints"] == {"replay_server": 7.0, "train": 50.0}
    assert (found["weights_age"], found["tables"]) == (2.0, {"replay": 4000})
    assert found["access"] == "open"
    assert [line for line in found["why"] if not line.startswith("the disk")] == [
        "collectors wait for the trainer: the limiter held inserts 75 % of the last minute",
        "collectors refused 2 steps of their environments: see their logs",
        "the replay server is open to everybody who can reach this host",
    ]
    write_json(
        run_dir.status("replay_server"), {**base, **beats["replay_server"], "state": "starting"}
    )
    assert status.collect(run_dir, NOW)["blocked"] == {}  # the times of its last life
    # A server that has fallen silent says nothing on who waits now.
    assert status.collect(run_dir, NOW + 60)["blocked"] == {}


def test_damaged_configuration_does_not_keep_status_from_answering(tmp_path):
    run_dir = RunDir(tmp_path)
    write_json(run_dir.provenance, {})
    run_dir.config.write_text("no ] gin\n")
    assert status.collect(run_dir)["why"][0].startswith("nothing runs")
