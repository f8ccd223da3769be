"""`sactory status`: what it makes of the files in a run directory."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time

import pytest

from sactory import status, status_table, supervision, trainer_checkpoints
from sactory.errors import UserError
from sactory.run_dir import RunDir, write_json

pytestmark = pytest.mark.timeout(60)

KEYS = {
    "state",
    "env_steps",
    "train_steps",
    "ratio",
    "replay_size",
    "last_train_return",
    "last_eval_return",
    "programs",
}
PROGRAM_KEYS = {"name", "worker", "pid", "state", "restarts", "steps_per_second"}


@pytest.fixture
def run_dir(tmp_path):
    run_dir = RunDir(tmp_path / "R")
    run_dir.root.mkdir()
    write_json(run_dir.provenance, {})
    return run_dir


def beat(run_dir: RunDir, program: str, worker: int | None = None, **fields) -> None:
    name = program if worker is None else f"{program}_{worker}"
    base = {
        "program": program,
        "worker": worker,
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "time": time.time(),
        "state": "training",
        "restarts": 0,
        "steps_per_second": 5.0,
    }
    write_json(run_dir.status(name), {**base, **fields})


def tree(run_dir: RunDir, *services: str, **fields) -> None:
    base = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "state": "running",
        "time": time.time(),
        "services": services,
    }
    write_json(run_dir.services() / supervision.ALIVE_FILE, {**base, **fields})


def service(run_dir: RunDir, name: str, **fields) -> None:
    write_json(run_dir.services() / name / supervision.SERVICE_STATE_FILE, fields)


def states(run_dir: RunDir) -> dict[str, str]:
    return {status.full_name(p): p["state"] for p in status.collect(run_dir)["programs"]}


def test_untouched_run_is_stopped(run_dir):
    told = status.collect(run_dir)
    assert set(told) >= KEYS
    assert (told["state"], told["env_steps"], told["programs"]) == ("stopped", 0, [])


def test_the_curriculum_is_told_where_there_is_one(run_dir):
    assert status.collect(run_dir)["curriculum"] is None
    state = {"version": 3, "difficulty": 0.25, "lessons": {"lag": "short", "x": 5}}
    write_json(run_dir.curriculum_state, {"state": state})
    told = status.collect(run_dir)
    assert told["curriculum"] == {"version": 3, "difficulty": 0.25, "lessons": {"lag": "short"}}
    (line,) = status_table._curriculum(told["curriculum"])
    assert line == "curriculum: lag in lesson short, difficulty 0.25, version 3"
    for damaged in ([], {"state": 5}, {"state": {"version": "x"}}, {"state": {}}):
        write_json(run_dir.curriculum_state, damaged)
        assert status.collect(run_dir)["curriculum"] is None


def test_running_run_has_everything(run_dir):
    tree(run_dir, "replay_server", "collect_0", "collect_1", "train", "eval")
    beat(run_dir, "train", env_steps=1000, train_steps=500, ratio=1.0, replay_size=900)
    for worker in (1, 0):
        beat(run_dir, "collect", worker)
    run_dir.train_log.write_text('{"step": 9, "episode_reward": 7.5}\n{"event": "restart"}\n{"st')
    run_dir.eval_log.write_text('{"step": 0, "episode_reward": 1}\n{"episode_reward": 8.5}\n')
    told = status.collect(run_dir)
    assert told["state"] == "running"
    assert [told[k] for k in ("env_steps", "train_steps", "ratio", "replay_size")] == [
        1000,
        500,
        1.0,
        900,
    ]
    assert (told["last_train_return"], told["last_eval_return"]) == (7.5, 8.5)
    names = [(p["name"], p["worker"]) for p in told["programs"]]
    assert names == [
        ("replay_server", None),
        ("collect", 0),
        ("collect", 1),
        ("train", None),
        ("eval", None),
    ]
    assert all(set(p) >= PROGRAM_KEYS for p in told["programs"])


def test_starting_until_the_trainer_has_begun(run_dir):
    tree(run_dir, "train")
    assert status.collect(run_dir)["state"] == "starting"
    beat(run_dir, "train", state="starting")
    assert status.collect(run_dir)["state"] == "starting"
    beat(run_dir, "train", state="training", time=time.time() - 100)  # it hangs
    assert status.collect(run_dir)["state"] == "running"
    beat(run_dir, "train", state="starting")
    service(run_dir, "train", starts=2)  # it has run before: this is no start of the run
    assert status.collect(run_dir)["state"] == "running"


def test_programs_started_by_hand_make_a_running_run(run_dir):
    beat(run_dir, "train")
    assert status.collect(run_dir)["state"] == "running"


def test_dead_tree_is_a_stopped_run_whatever_its_files_say(run_dir):
    tree(run_dir, "train", time=time.time() - 100)
    beat(run_dir, "train", time=time.time() - 100, pid=2**22 + 1)
    told = status.collect(run_dir)
    assert told["state"] == "stopped"
    assert (told["programs"][0]["state"], told["programs"][0]["pid"]) == ("dead", None)


def test_frozen_program_is_silent(run_dir):
    beat(run_dir, "train", time=time.time() - 100)
    assert states(run_dir) == {"train": "silent"}


def test_zombie_is_dead(run_dir):
    child = subprocess.Popen(["true"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    beat(run_dir, "train", pid=child.pid)
    assert states(run_dir) == {"train": "dead"}
    child.wait()


def test_program_on_another_host_lives_by_its_heartbeat(run_dir):
    beat(run_dir, "collect", 0, host="elsewhere", pid=2**22 + 1)
    assert states(run_dir) == {"collect_0": "training"}


def test_services_tell_how_a_program_ended(run_dir):
    tree(run_dir, "train", "eval", "replay_server")
    beat(run_dir, "train", state="training", pid=2**22 + 1)
    later = time.time() + 20
    service(run_dir, "train", starts=3, not_before=later, last_error="ValueError: x")
    service(run_dir, "eval", starts=1, outcome="failed")
    service(run_dir, "replay_server", starts=1, outcome="finished")
    assert states(run_dir) == {"train": "restarting", "eval": "failed", "replay_server": "done"}
    train = next(p for p in status.collect(run_dir)["programs"] if p["name"] == "train")
    assert (train["restarts"], train["last_error"]) == (2, "ValueError: x")


def test_restarts_of_an_earlier_run_do_not_count(run_dir):
    beat(run_dir, "train", restarts=3)
    assert status.collect(run_dir)["programs"][0]["restarts"] == 3  # by hand
    tree(run_dir, "train")
    assert status.collect(run_dir)["programs"][0]["restarts"] == 0


def test_collectors_of_an_earlier_start_are_not_shown(run_dir):
    tree(run_dir, "collect_0")
    beat(run_dir, "collect", 0)
    beat(run_dir, "collect", 1, state="stopped")
    assert states(run_dir) == {"collect_0": "training"}


def test_run_is_done_when_its_programs_have_ended(run_dir):
    write_json(run_dir.done, {"reason": "max_env_steps", "env_steps": 4012})
    tree(run_dir, "train")
    beat(run_dir, "train", state="done", env_steps=3990)
    assert status.collect(run_dir)["state"] == "running"
    tree(run_dir, "train", state="ended")
    told = status.collect(run_dir)
    assert (told["state"], told["env_steps"]) == ("done", 4012)


def test_failed_run_says_what_failed(run_dir):
    write_json(run_dir.failed, {"program": "train", "error": "ValueError: x"})
    told = status.collect(run_dir)
    assert (told["state"], told["failed"]["error"]) == ("failed", "ValueError: x")


def test_half_written_files_do_no_harm(run_dir):
    beat(run_dir, "train", env_steps=3)
    run_dir.status("eval").write_text('{"program": "ev')
    run_dir.eval_log.write_text("\0\0\n[1]\n")
    told = status.collect(run_dir)
    assert (told["env_steps"], told["last_eval_return"]) == (3, None)


def test_counts_of_a_lost_heartbeat_come_from_the_newest_readable_checkpoint(run_dir):
    for train_step in (16, 32, 48):
        checkpoint = run_dir.trainer_checkpoints / trainer_checkpoints.directory_name(train_step)
        checkpoint.mkdir(parents=True)
        state = {"train_step": train_step, "env_steps": 2 * train_step}
        trainer_checkpoints.seal(checkpoint, state)
    (checkpoint / trainer_checkpoints.STATE).write_text("")
    run_dir.status("train").parent.mkdir()
    run_dir.status("train").write_text("")
    told = status.collect(run_dir)
    assert (told["env_steps"], told["train_steps"]) == (64, 32)
    beat(run_dir, "train")  # of a start that has not restored yet
    assert status.collect(run_dir)["env_steps"] == 64
    beat(run_dir, "train", env_steps=100, train_steps=50)
    told = status.collect(run_dir)
    assert (told["env_steps"], told["train_steps"]) == (100, 50)


def test_verb_prints_json_without_tensorflow(run_dir):
    beat(run_dir, "train", env_steps=3)
    code = (
        "import sys; from sactory.cli import main; code = main(sys.argv[1:]); "
        "assert not {'tensorflow', 'reverb', 'numpy'} & set(sys.modules); sys.exit(code)"
    )
    words = ["status", "--run_dir", str(run_dir), "--json"]
    out = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    assert (out.returncode, out.stderr) == (0, "")
    assert json.loads(out.stdout)["env_steps"] == 3


def test_table_shows_programs_and_the_failure(run_dir, capsys):
    tree(run_dir, "train")
    beat(run_dir, "train", env_steps=12345, cpus=[2, 3])
    service(run_dir, "train", starts=2, last_error="KeyError: [a]")
    write_json(run_dir.failed, {"program": "eval", "error": "no [x]", "log": "/l"})
    assert status.main(["--run_dir", str(run_dir)]) == 0
    out = capsys.readouterr().out
    for word in ("12,345 env steps", "train", "2,3", "KeyError: [a]", "eval failed: no [x]"):
        assert word in out


def test_directory_without_a_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="is not a run directory"):
        status.main(["--run_dir", str(tmp_path)])
