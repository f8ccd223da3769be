"""A trainer that was interrupted learns exactly what one that was not would have learned."""

import numpy as np
import pytest

from sactory import supervision
from sactory import trainer_checkpoints as on_disk
from sactory.metrics import read_log
from sactory.progress import Book, Episode, report
from sactory.run_dir import read_json, write_json
from sactory.sealed import seal
from tests.trainer_rig import CALL, Rig, make_run, stand_ins  # noqa: F401  (a fixture)
from train import learner as learner_module

pytestmark = pytest.mark.timeout(180)


def train(rig, *lengths):
    """Starts the trainer once for each length in calls; returns its last numbers and state."""
    variables = []
    for calls in lengths:
        start = rig.start()
        assert start.run(calls) == supervision.RETRY
        variables = start.variables
    newest = on_disk.find(rig.run_dir.trainer_checkpoints)[-1]
    return variables, on_disk.read(newest)["state"]


def test_resuming_is_exact_to_the_last_bit(tmp_path, stand_ins):  # noqa: F811
    found = []
    for name, lengths in (("whole", [6]), ("interrupted", [2, 4])):
        rig = Rig(make_run(tmp_path / name))
        try:
            found.append(train(rig, *lengths))
        finally:
            rig.close()
        beat = read_json(rig.run_dir.status("train"))
        assert beat["checkpoint_seconds"] < 60 and beat["checkpoint_time"] > 1e9
        assert beat["recovered"] == [] and beat["dropped_blocks"] == 0
    (whole, state), (interrupted, state_after) = found
    assert len(whole) > 20
    for a, b in zip(whole, interrupted):
        np.testing.assert_array_equal(a, b)
    assert state["train_step"] == 6 * CALL
    for key in ("train_step", "env_steps", "book", "journal"):
        assert state[key] == state_after[key], key
    assert state_after["elapsed"] > 0 and state_after["incarnation"] == 2


def flip(book):
    book["0:1"]["env_steps"] = 90


def misspell(book):
    book["0:1"]["grows"] = book["0:1"].pop("rows")


@pytest.mark.parametrize("damage", [None, flip, misspell, lambda book: book.update(more=None)])
def test_a_damaged_book_in_the_heartbeat_is_passed_over(tmp_path, stand_ins, damage, caplog):  # noqa: F811
    run_dir = make_run(tmp_path / "run")
    book = seal(Book.from_json({"0:1": {"rows": 20, "env_steps": 40, "episodes": 1}}).to_json())
    if damage:
        damage(book)
    write_json(run_dir.status("train"), {"book": book, "starts": "x", "incarnation": {}})
    rig = Rig(run_dir)
    try:
        learner = rig.start().learner
    finally:
        rig.close()
    assert learner.book.env_steps == (0 if damage else 40)
    assert ("the last heartbeat is passed over: has changed" in caplog.text) == bool(damage)
    beat = read_json(run_dir.status("train"))
    assert (beat["starts"], learner._incarnation) == (1, 1)


def test_the_next_start_knows_the_book_of_the_last_heartbeat(tmp_path, stand_ins):  # noqa: F811
    rig = Rig(make_run(tmp_path / "run"))
    try:
        first = rig.start()
        first.learner.book.add(report(0, 1, 5, 10))
        first.learner._heartbeat.update(**first.learner._counters())
        first.end()
        first.learner._heartbeat.close()
        assert rig.start().learner.book.env_steps == 10
    finally:
        rig.close()


def test_a_save_that_failed_is_tried_again_before_the_next_is_due(tmp_path, stand_ins, monkeypatch):  # noqa: F811
    rig = Rig(make_run(tmp_path / "run"))
    try:
        learner = rig.start().learner
        outcomes = iter([False, False, True])
        tried = []
        monkeypatch.setattr(
            learner._checkpoints, "save", lambda state: tried.append(state) or next(outcomes)
        )
        due = iter([True, False, False, False])
        learner._save_due, learner._save_again_due = lambda now: next(due), lambda now: True
        for count in (1, 2, 3, 3):
            learner._export_and_save()
            assert len(tried) == count
    finally:
        rig.close()


def finish(rig, monkeypatch, outcomes, stop_after=None):
    """Ends a run by its env steps while saves go as told; the exit code and how many there were."""
    start = rig.start()
    learner, stop = start.learner, start._stop
    save, tried = learner._checkpoints.save, []

    def told(state):
        tried.append(state)
        if len(tried) == stop_after:
            stop.request("SIGTERM", 15)
        return outcomes[len(tried) - 1] and save(state)

    monkeypatch.setattr(learner_module, "_SAVE_AGAIN_SECONDS", 0.01)
    learner._checkpoints.save = told
    entry = learner.book.add(report(0, 1, 100_000, 100_000, [Episode(0, 1.5, 10, 0.1)]))
    learner._publisher.last_round = lambda: learner._publisher.episodes.extend(entry)
    return start.run(10**6), len(tried)


def test_a_run_ends_with_its_last_weights_however_often_the_disk_refuses_them(
    tmp_path,
    stand_ins,  # noqa: F811
    monkeypatch,
):
    rig = Rig(make_run(tmp_path / "run"))
    try:
        assert finish(rig, monkeypatch, [False, False, True]) == (supervision.OK, 3)
    finally:
        rig.close()
    done = read_json(rig.run_dir.done)
    newest = on_disk.find(rig.run_dir.trainer_checkpoints)[-1]
    assert on_disk.read(newest)["state"]["train_step"] == done["train_steps"]
    rows = [row for row in read_log(rig.run_dir.train_log) if "source" in row]
    assert len(rows) == done["episodes"] == 1  # that of the last round, too
    assert read_json(rig.run_dir.status("train"))["error"] is None


def test_a_stop_ends_the_wait_for_room_and_leaves_the_run_unfinished(
    tmp_path,
    stand_ins,  # noqa: F811
    monkeypatch,
):
    rig = Rig(make_run(tmp_path / "run"))
    try:
        assert finish(rig, monkeypatch, [False] * 9, stop_after=3) == (supervision.RETRY, 3)
    finally:
        rig.close()
    assert not rig.run_dir.done.exists()
