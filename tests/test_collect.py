"""A collector's loop: what it sends and what ends it, who may be which worker."""

import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from collect.main import take_worker_id
from collect.slots import BadStepError
from collect.worker import Worker
from sactory import client as client_lib
from sactory import config, progress, supervision, tables
from sactory.errors import UserError
from sactory.heartbeat import Heartbeat
from sactory.rows import LIMIT
from sactory.run_dir import read_json
from tests.test_slots import failing_reset
from tests.trainer_rig import Rig, make_run


@pytest.fixture
def worker(tmp_path):
    """A worker with a replay server that holds nothing back."""
    rig = Rig(make_run(tmp_path / "run"))
    heartbeat = Heartbeat(rig.run_dir, "collect", 0, interval=0.05)
    worker = Worker(rig.run_dir, 0, supervision.Stop(), heartbeat, rig.client)
    yield worker
    worker._stop.request("the test is over", 15)
    heartbeat.close()
    rig.close()


def test_an_environment_that_fails_for_good_ends_the_worker(worker):
    """dm_control's PhysicsError is a RuntimeError, as what a failed writer raises."""
    env = worker._slots._envs[0]
    env._step, env._reset = lambda action: failing_reset(), failing_reset
    worker._refresher.state = progress.RunState(0, 0, 0, 0, 0, 1.0)
    worker._refresher.start = lambda: None
    with pytest.raises(BadStepError, match="three resets in a row"):
        worker.run()


def test_rows_that_can_not_be_learned_from_are_not_sent(worker, caplog):
    good = np.ones(worker._specs.row.size, np.float32)
    bad = [good.copy() for _ in range(3)]
    bad[0][0], bad[1][1], bad[2][2] = np.nan, -np.inf, 2 * LIMIT
    worker._send(np.stack([good, *bad, good]))
    assert worker._writer.flush(20)
    infos = client_lib.table_infos(worker._refresher._client)
    assert infos is not None and infos[tables.REPLAY].current_size == 2
    worker._said -= 10
    worker._tell()
    worker._heartbeat.close()
    assert read_json(worker._heartbeat.path)["refused_steps"] == 3
    assert caplog.text.count("refused a row") == 3


def test_a_failed_writer_costs_no_row_that_was_not_sent(worker, monkeypatch):
    monkeypatch.setattr("collect.worker._HOLD_SECONDS", 0.01)
    failures = [RuntimeError("the connection broke"), RuntimeError("no server yet")]
    flush, reopen = worker._writer.flush, worker._writer.reopen

    def failing(original):
        def call(*arguments):
            if failures:
                raise failures.pop()
            return original(*arguments)

        return call

    monkeypatch.setattr(worker._writer, "flush", failing(flush))
    monkeypatch.setattr(worker._writer, "reopen", failing(reopen))
    worker._refresher.state = progress.RunState(0, 0, 0, 0, 0, 1.0)
    worker._send(np.ones((3, worker._specs.row.size), np.float32))
    assert not failures and flush(20)
    infos = client_lib.table_infos(worker._refresher._client)
    assert infos is not None and infos[tables.REPLAY].current_size == 3


@pytest.mark.parametrize(("length", "n_step"), [(1, 1), (1, 3), (8, 3)])
def test_a_held_collector_has_little_to_lose(tmp_path, length, n_step):
    """Nothing is sampled, so the limiter soon holds it; rows that aren't in the table are lost."""
    run_dir = make_run(
        tmp_path / "run",
        "replay.mode = 'sync'",
        "replay.updates_per_row = 1",
        f"replay.segment_length = {length}",
        f"replay.n_step = {n_step}",
        "train.Learner.batch_size = 128",
    )
    rig = Rig(run_dir)
    stop, heartbeat = supervision.Stop(), Heartbeat(run_dir, "collect", 0, interval=0.05)
    thread = threading.Thread(target=lambda: worker.run())
    try:
        state = progress.RunState(0, 1_000, 0, 0, 0, time.time())  # its random steps
        client_lib.put_json(rig.client, tables.STATE, state.to_json())
        worker = Worker(run_dir, 0, stop, heartbeat, rig.client)
        worker._slots.begin()
        worker._choose_actions = lambda: np.zeros(worker._action_shape, np.float32)
        thread.start()
        while (read_json(heartbeat.path) or {}).get("state") != "waiting for room in the replay":
            assert thread.is_alive()
        infos = client_lib.table_infos(rig.client)
        assert infos is not None
        rows = infos[tables.REPLAY].current_size * length
        assert rows > 0
        assert 0 < worker._batches - rows <= length + n_step
    finally:
        stop.request("the test is over", 15)
        if thread.ident is not None:
            thread.join(30)
        heartbeat.close()
        rig.close()


def test_a_worker_whose_heartbeat_is_lost_does_not_repeat_its_first_life(tmp_path):
    rig, drawn = Rig(make_run(tmp_path / "run")), []

    def start():
        heartbeat = Heartbeat(rig.run_dir, "collect", 0, interval=0.05)
        drawn.append(Worker(rig.run_dir, 0, supervision.Stop(), heartbeat, rig.client)._actor_seed)
        heartbeat.close()
        heartbeat.path.unlink()  # a power cut

    try:
        start()
        start()  # nothing was made yet: the same run from its beginning
        rig.run_dir.train_log.write_text('{"step": 10}\n')
        start()
        start()
    finally:
        rig.close()
    assert drawn[0] == drawn[1] and len(set(drawn)) == 3


def second_collector(run_dir, worker, **environment):
    """What another process gets that takes an id."""
    code = (
        "import sys; from collect.main import take_worker_id as take; from sactory import config; "
        "from sactory.run_dir import RunDir; run_dir = RunDir(sys.argv[1]); config.load(run_dir)\n"
        f"try: print(take(run_dir, {worker}))\n"
        "except Exception as e: print(type(e).__name__, e)"
    )
    return subprocess.run(
        [sys.executable, "-c", code, str(run_dir)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    ).stdout.strip()


def test_an_extra_collector_never_takes_the_id_of_a_supervised_one(tmp_path):
    run_dir = make_run(tmp_path / "run", "run.num_collectors = 2")
    config.load(run_dir)
    assert take_worker_id(run_dir, 0) == 0  # and 1 is between two starts
    assert take_worker_id(run_dir, None) == 2
    assert second_collector(run_dir, None) == "3"
    taken = f"is taken by another collector of {run_dir}"
    assert second_collector(run_dir, 0).startswith(f"UserError --worker = 0 {taken}: leave")
    # A service has been given this id: it waits until whoever has it ends.
    told = second_collector(run_dir, 2, **{supervision.RESTARTS_VARIABLE: "0"})
    assert told == f"RetryError --worker = 2 {taken}"
    with pytest.raises(UserError, match="must be 0 or more"):
        take_worker_id(run_dir, -1)
