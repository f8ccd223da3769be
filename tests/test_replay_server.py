"""The replay server as a process: its lock, its checkpoints, whose it is."""

import signal
import subprocess
import sys

import numpy as np
import pytest

from collect.writer import SegmentWriter
from sactory import client as client_lib
from sactory import supervision, tables
from sactory.init_run import init
from sactory.run_dir import RunDir, read_json, write_json
from sactory.specs import Specs

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def run_dir(tmp_path):
    run_dir = RunDir(tmp_path / "run")
    init(
        run_dir, "configs/debug.gin", ["replay.mode = 'async'", "collect.Worker.random_steps = 20"]
    )
    return run_dir


def serve(run_dir):
    command = [sys.executable, "-m", "sactory.cli", "replay-server", "--run_dir", str(run_dir)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def reached(run_dir, process):
    client = client_lib.connect(run_dir, supervision.Stop().event, patience=90)
    assert client is not None and process.poll() is None
    return client


def test_rows_and_counts_survive_a_stop(run_dir):
    first = serve(run_dir)
    try:
        client = reached(run_dir, first)
        size = Specs.load(run_dir).row.size
        writer = SegmentWriter(client, 1, size)
        for i in range(50):
            writer.add(np.full((1, size), i, np.float32))
        assert writer.flush(10)
        client_lib.put_json(client, tables.STATE, {"stop": True})
        second = serve(run_dir)  # the same run must not be served twice
        _, said = second.communicate(timeout=60)
        assert second.returncode == supervision.USER_ERROR
        assert f"another replay server already serves {run_dir}" in said
        first.send_signal(signal.SIGTERM)
        first.communicate(timeout=60)
        assert first.returncode == supervision.RETRY
    finally:
        first.kill()
    again = serve(run_dir)
    try:
        infos = client_lib.table_infos(reached(run_dir, again))
        assert infos is not None
        assert infos[tables.REPLAY].current_size == 50
        assert infos[tables.REPLAY].rate_limiter_info.insert_stats.completed == 50

        # What the trainer said last is not of this life: it may be the stop of an amended run.
        def items():
            beat = read_json(run_dir.status("replay_server"))
            return beat.get("tables") if beat["pid"] == again.pid else None

        empty = {"replay": 50, "weights": 0, "state": 0, "progress": 0}
        assert supervision.wait_for(lambda: items() == empty, supervision.Stop(), 30)
    finally:
        again.kill()
        again.communicate(timeout=60)


def test_the_server_of_another_run_is_not_taken_for_ones_own(run_dir, tmp_path):
    other = RunDir(tmp_path / "other")
    write_json(other.provenance, {"run_id": "another"})
    process = serve(run_dir)
    try:
        client = reached(run_dir, process)
        write_json(other.address, read_json(run_dir.address))
        assert client_lib.table_infos(client, run_dir) is not None
        assert client_lib.table_infos(client, other) is None
        with pytest.raises(client_lib.ServerGoneError):
            client_lib.connect(other, supervision.Stop().event, patience=1)
    finally:
        process.kill()
        process.communicate(timeout=60)


def test_a_finished_run_is_not_served(run_dir):
    write_json(run_dir.done, {"reason": "max_env_steps"})
    process = serve(run_dir)
    process.communicate(timeout=60)
    assert process.returncode == supervision.OK
