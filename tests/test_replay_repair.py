"""A running replay server is asked for a repair, is killed, frozen or stuck."""

import subprocess
import sys
import threading
import time
import types

import numpy as np
import pytest

from collect.writer import SegmentWriter
from replay_server import server
from sactory import client as client_lib
from sactory import supervision, tables
from sactory.init_run import init
from sactory.run_dir import RunDir, read_json, write_json
from sactory.specs import Specs
from sactory.supervision import Stop, wait_for
from tests.replay_site import Site, make_run, own_time_zone, row

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def run_dir(tmp_path):
    run_dir = RunDir(tmp_path / "run")
    init(
        run_dir, "configs/debug.gin", ["replay.mode = 'async'", "collect.Worker.random_steps = 20"]
    )
    return run_dir


@pytest.fixture
def serve(run_dir):
    started = []

    def start():
        run_dir.address.unlink(missing_ok=True)  # this process shall not dial the last one's
        command = [sys.executable, "-m", "sactory.cli", "replay-server", "--run_dir", str(run_dir)]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        started.append(process)
        client = client_lib.connect(run_dir, Stop().event, patience=90)
        assert client is not None and process.poll() is None
        return process, client

    yield start
    for process in started:
        process.kill()
        process.communicate(timeout=60)


def replay(client):
    infos = client_lib.table_infos(client)
    assert infos is not None
    return infos[tables.REPLAY]


def told(run_dir, **wanted):
    """Whether the server's heartbeat says so; it comes once a second."""
    beat = read_json(run_dir.status("replay_server")) or {}
    return all(beat.get(key) == value for key, value in wanted.items())


def test_a_poisoned_server_repairs_itself_on_request_and_survives_a_kill(run_dir, serve):
    first, client = serve()
    size = Specs.load(run_dir).row.size
    writer = SegmentWriter(client, 1, size)
    for i in range(40):
        writer.add(np.full((1, size), i, np.float32))
    assert writer.flush(20)
    poison = client.trajectory_writer(1, validate_items=False)
    poison.append([np.zeros((1, size + 1), np.float32)])
    poison.create_item(tables.REPLAY, 1.0, poison.history[0][-1])
    poison.flush(0, 20_000)
    assert replay(client).current_size == 41
    write_json(run_dir.repair, {"reason": "wrong shape", "time": 1.0})
    _, said = first.communicate(timeout=90)
    assert first.returncode == supervision.RETRY, said
    second, client = serve()
    assert replay(client).current_size == 40
    assert replay(client).rate_limiter_info.insert_stats.completed == 41
    assert not run_dir.repair.exists()
    repaired = {"repaired_items": 1, "checkpoint_rows": 40, "pid": second.pid}
    assert wait_for(lambda: told(run_dir, **repaired), Stop(), timeout=60)
    second.kill()
    second.communicate(timeout=60)
    _, client = serve()
    assert replay(client).current_size == 40


@pytest.fixture
def watched(tmp_path):
    """A server in this process, and its watch on a thread: what it returned comes last."""
    with own_time_zone():
        site = Site(make_run(tmp_path / "run")).start()
        stop, ended = Stop(), []
        parts = (site.run_dir, stop, site.heartbeat, site.client, site.checkpoints, site.limits)

        def watch():
            try:
                ended.append(server._watch(*parts))
            except server.StuckError as e:
                ended.append(e)

        thread = threading.Thread(target=watch)
        yield site, stop, thread, ended
        stop.request("the test is over", 15)
        thread.join(30)
        site.stop()


def test_a_repair_waits_until_the_tables_are_saved(watched, monkeypatch):
    site, _, thread, ended = watched
    monkeypatch.setattr(server, "_REPAIR_AGAIN_SECONDS", 0.0)
    tries, disk_is_full = [], threading.Event()
    disk_is_full.set()

    def save(client):
        tries.append(client)
        return not disk_is_full.is_set()

    monkeypatch.setattr(site.checkpoints, "save", save)
    write_json(site.run_dir.repair, {"reason": "", "time": 1.0})
    thread.start()
    assert wait_for(lambda: len(tries) >= 2, Stop(), timeout=30)
    assert not ended
    disk_is_full.clear()
    thread.join(30)
    assert ended == [supervision.RETRY] and site.run_dir.repair.exists()


def test_a_repair_comes_however_long_a_save_takes(watched):
    site, _, thread, ended = watched
    site.checkpoints._duration = 3600.0
    write_json(site.run_dir.repair, {"reason": "", "time": 1.0})
    thread.start()
    thread.join(60)
    assert ended == [supervision.RETRY]
    assert any(site.run_dir.replay_checkpoints.iterdir())


def test_a_server_that_never_answers_starts_anew(watched, monkeypatch):
    site, _, thread, ended = watched
    saves = []
    monkeypatch.setattr(site.checkpoints, "save", saves.append)
    monkeypatch.setattr(server.client_lib, "table_infos", lambda client: None)
    monkeypatch.setattr(server, "_SILENT_SECONDS", 0.9)
    write_json(site.run_dir.repair, {"reason": "", "time": 1.0})
    thread.start()
    thread.join(30)
    (error,) = ended
    assert "has not answered" in str(error)
    assert not saves, "a save would hang"


def test_a_frozen_server_goes_on_and_saves_at_its_end(watched, monkeypatch):
    """Clocks run on in a freeze, and the first questions after it may miss their deadline."""
    site, stop, thread, ended = watched
    site.write([row(0)])
    frozen, calls = [0.0], []

    def table_infos(client, ask=server.client_lib.table_infos):
        calls.append(client)
        if len(calls) in (2, 3, 6):
            frozen[0] += 1000.0
        if len(calls) == 6:
            stop.request("SIGTERM", 15)
        return None if len(calls) in (2, 3) else ask(client)

    clock = types.SimpleNamespace(monotonic=lambda: time.monotonic() + frozen[0], time=time.time)
    monkeypatch.setattr(server.client_lib, "table_infos", table_infos)
    monkeypatch.setattr(server, "time", clock)
    thread.start()
    thread.join(60)
    assert ended == [supervision.RETRY]
    assert site.status()["checkpoint_rows"] == 1
