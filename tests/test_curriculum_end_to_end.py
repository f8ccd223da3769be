"""A staged curriculum in real programs that are killed meanwhile: nobody falls back, none lags."""

import contextlib
import json
import os
import random
import signal

import pytest

from sactory.metrics import read_log
from sactory.run_dir import RunDir, read_json
from tests.test_end_to_end import start, status_of, wait_until

LESSONS = 5
EPISODES = 300  # of each lesson
LAG_SECONDS = 10.0  # a refresh takes 0.25 s; a busy host holds a thread up for much longer
WAIT_SECONDS = 400


def write_curriculum(path):
    until = {"measure": "success_rate", "op": ">=", "threshold": 0.5, "min_episodes": EPISODES}
    stages = [{"name": f"lesson{i}", "value": float(i), "until": until} for i in range(LESSONS)]
    del stages[-1]["until"]
    params = {"level": {"type": "stages", "stages": stages}}
    path.write_text(json.dumps({"curriculum": {"params": params}}))


def check_resets(notes, changes):
    """Of each reset: its lesson was the newest, or had been until a moment ago."""
    changes = [{"version": 0, "time": 0.0}, *changes]
    assert len({note["pid"] for note in notes}) > 2  # some came back
    for note in notes:
        told = [e["version"] for e in changes if e["time"] <= note["time"] - LAG_SECONDS]
        assert note["level"] >= max(told), note
    for pid in {note["pid"] for note in notes}:
        levels = [note["level"] for note in notes if note["pid"] == pid]
        assert levels == sorted(levels)


@pytest.mark.timeout(900)
def test_two_collectors_and_a_trainer_are_killed_and_no_lesson_is_lost(tmp_path):
    where, notes = tmp_path / "run", tmp_path / "notes.jsonl"
    run_dir, rng = RunDir(where), random.Random(5)
    write_curriculum(tmp_path / "mine.json")
    process = start(
        "run",
        where,
        **{
            "envs.load.name": "python:tests.lesson_env:make",
            "envs.load.task_kwargs": {"notes": str(notes)},
            "envs.load.curriculum": str(tmp_path / "mine.json"),
            "run.max_env_steps": 10**7,
            "run.num_collectors": 2,
            "eval.Evaluator.every_env_steps": 10**6,
        },
    )

    def version():
        state = (read_json(run_dir.curriculum_state) or {}).get("state", {})
        return state.get("version", -1)

    try:
        for lesson in range(LESSONS):
            wait_until(lambda lesson=lesson: version() >= lesson, WAIT_SECONDS, process)
            victims = rng.sample(["collect_0", "collect_1", "train"], rng.randint(1, 2))
            for name in ["train"] if lesson == 1 else victims:
                beat = read_json(run_dir.status(name)) or {}
                with contextlib.suppress(ProcessLookupError):
                    os.kill(beat.get("pid", 2**22 + 1), signal.SIGKILL)
        told = status_of(where)["curriculum"]
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=300)
    finally:
        process.kill()
    assert told["lessons"] == {"level": f"lesson{LESSONS - 1}"}
    log = read_log(run_dir.train_log)
    changes = [row for row in log if row.get("event") == "curriculum"]
    assert [row["version"] for row in changes] == list(range(1, LESSONS))  # each once, in order
    assert [row for row in log if row.get("event") == "restart"]
    evaluator = (read_json(run_dir.status("eval")) or {})["pid"]  # it plays the hardest lesson
    check_resets([note for note in read_log(notes) if note["pid"] != evaluator], changes)
