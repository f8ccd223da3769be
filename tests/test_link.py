"""A process's own end: it holds connections until the run's server answers, wherever that is."""

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import reverb
import tensorflow as tf

from collect.writer import SegmentWriter
from replay_server.gate import _open_socket
from sactory import client as client_lib
from sactory import supervision, tables
from sactory.init_run import init
from sactory.link import Link
from sactory.run_dir import RunDir, read_json, write_json
from sactory.specs import Specs

pytestmark = pytest.mark.timeout(180)


def make_link(run_dir):
    return Link(run_dir, lambda target: True)


def until(condition):
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def dial(link):
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(20)
    connection.connect("\0" + link.target.removeprefix("unix-abstract:"))
    connection.sendall(b"early ")
    return connection


def hears(connection, message):
    said = b""
    while len(said) < len(message):
        said += connection.recv(100) or b"(end)"
    return said == message


@contextlib.contextmanager
def server(run_dir, path, name, **address):
    """Says its name first, as Reverb speaks first, then echoes; ends all connections at the end."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    fields = {"host": socket.gethostname(), "access": "isolated", "socket": str(path), "port": None}
    write_json(run_dir.address, {**fields, **address})
    connections = []

    def serve():
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                connections.append(connection)
                connection.sendall(name)
                connection.sendall(connection.recv(100))

    threading.Thread(target=serve, daemon=True).start()
    yield connections
    listener.shutdown(socket.SHUT_RDWR)
    for open_one in (listener, *connections):
        open_one.close()


def test_a_connection_is_held_until_the_server_is_there_and_follows_it(tmp_path):
    run_dir = RunDir(tmp_path)
    link = make_link(run_dir)
    waiting = dial(link)
    with server(run_dir, tmp_path / "a", b"first: ") as connections:
        assert hears(waiting, b"first: early ")
    assert waiting.recv(100) == b""  # ends with the server's end
    assert len(connections) == 1
    waiting = dial(link)
    with server(run_dir, tmp_path / "b", b"second: "):
        assert hears(waiting, b"second: early ")
        waiting.close()


def test_a_connection_that_was_given_up_is_not_taken_to_the_server(tmp_path):
    run_dir = RunDir(tmp_path)
    link = make_link(run_dir)
    given_up = dial(link)
    until(lambda: link.problem)  # it is being held
    given_up.close()
    until(lambda: not link._tasks)
    with server(run_dir, tmp_path / "a", b"x ") as connections:
        assert hears(dial(link), b"x early ")
        assert len(connections) == 1


def test_a_large_answer_waits_for_a_slow_reader(tmp_path):
    run_dir = RunDir(tmp_path)
    link = make_link(run_dir)
    sent = os.urandom(1000) * 30_000
    with server(run_dir, tmp_path / "a", b"x") as connections:
        slow = dial(link)
        assert hears(slow, b"xearly ")
        sender = threading.Thread(target=lambda: connections[0].sendall(sent))
        sender.start()
        sender.join(1.0)
        assert sender.is_alive()  # nobody holds it all in memory
        got = bytearray()
        while len(got) < len(sent):
            got += slow.recv(1 << 20)
        sender.join(20)
        assert got == sent


def test_no_other_process_may_use_the_link(tmp_path):
    run_dir = RunDir(tmp_path)
    link = make_link(run_dir)
    attempt = (
        "import socket, sys; s = socket.socket(socket.AF_UNIX); s.settimeout(20);"
        "s.connect(chr(0) + sys.argv[1]); s.sendall(b'x'); print(s.recv(100))"
    )
    name = link.target.removeprefix("unix-abstract:")
    with server(run_dir, tmp_path / "a", b"x ") as connections:
        tried = subprocess.run(
            [sys.executable, "-c", attempt, name],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert connections == []
        assert "b''" in tried.stdout or "Error" in tried.stderr
        assert hears(dial(link), b"x early ")


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        (None, "the server has not started yet"),
        ({"host": "elsewhere"}, "it takes connections on host elsewhere only"),
        ({"socket": "/nowhere/replay"}, "/nowhere/replay is not seen from here"),
    ],
)
def test_who_waits_in_vain_is_told_why(tmp_path, address, problem):
    run_dir = RunDir(tmp_path)
    if address is not None:
        whole = {"host": socket.gethostname(), "access": "isolated", "socket": "/x", "port": None}
        write_json(run_dir.address, {**whole, **address})
    with pytest.raises(client_lib.ServerGoneError, match=problem):
        client_lib.connect(run_dir, threading.Event(), patience=1)


def test_paths_of_sockets_stay_short_however_deep_the_run_lies(tmp_path):
    run_dir = RunDir(tmp_path / ("long" * 50) / ("longer" * 30))
    write_json(run_dir.provenance, {"run_id": "f" * 16})
    listener = _open_socket(run_dir)
    path = listener.getsockname()
    assert len(path) < 60 and len(make_link(run_dir).target) < 60
    listener.close()
    os.unlink(path)
    os.rmdir(os.path.dirname(path))


def test_a_call_that_hangs_ends_after_its_time():
    server = reverb.Server([reverb.Table.queue("empty", 1)])
    client = reverb.Client(f"127.0.0.1:{server.port}")
    with pytest.raises(client_lib.CallTimeoutError):
        client_lib.within(0.5, lambda: list(client.sample("empty", 1)))
    with pytest.raises(ZeroDivisionError):
        client_lib.within(20, lambda: 1 // 0)
    assert client_lib.within(20, lambda: None) is None
    server.stop()


FREE = [
    "replay.mode = 'async'",
    "replay.updates_per_row = None",
    "collect.Worker.random_steps = 20",
]


def start_server(run_dir, view):
    """Starts the run's server; `view` is the run as its clients see it, maybe from elsewhere."""
    before = read_json(run_dir.address)
    command = [sys.executable, "-m", "sactory.cli", "replay-server", "--run_dir", str(run_dir)]
    process = subprocess.Popen(command)
    while read_json(run_dir.address) == before and process.poll() is None:
        time.sleep(0.05)
    if view is not run_dir:
        write_json(view.address, {**read_json(run_dir.address), "socket": "/nowhere"})
    return process


def seen_from_elsewhere(run_dir, root):
    """The run as on another host: its files are there, its server's socket isn't."""
    view = RunDir(root)
    view.root.mkdir()
    for path in (run_dir.provenance, run_dir.tls):
        (view.root / path.name).symlink_to(path)
    return view


def fill(writer, size, value):
    for _ in range(40):
        writer.add(np.full((1, size), value, np.float32))
    end = time.monotonic() + 60
    while not writer.flush(1.0):
        assert time.monotonic() < end


@pytest.mark.parametrize("encrypted", [False, True])
def test_client_writer_and_dataset_outlive_a_killed_server(tmp_path, encrypted):
    run_dir = RunDir(tmp_path / "run")
    listen = "network" if encrypted else "local"
    init(run_dir, "configs/debug.gin", [*FREE, f"replay_server.listen = '{listen}'"])
    view = seen_from_elsewhere(run_dir, tmp_path / "view") if encrypted else run_dir
    process = start_server(run_dir, view)
    try:
        client = client_lib.connect(view, supervision.Stop().event, patience=90)
        assert client is not None
        size = Specs.load(run_dir).row.size
        writer = SegmentWriter(client, 1, size)
        fill(writer, size, 1)
        dataset = iter(
            reverb.TrajectoryDataset(
                client_lib.target(view), tables.REPLAY, tf.float32, tf.TensorShape([1, size]), 2
            )
        )
        assert next(dataset).data.numpy()[0, 0] == 1
        process.kill()
        process.wait()
        assert client_lib.table_infos(client) is None
        process = start_server(run_dir, view)
        fill(writer, size, 2)  # the killed server had saved nothing
        while next(dataset).data.numpy()[0, 0] != 2:
            pass
        assert client_lib.table_infos(client, run_dir) is not None
        client_lib.put_json(client, tables.STATE, {"x": 1})
        infos = client_lib.table_infos(client)
        assert client_lib.take_json(client, tables.STATE, infos) == [{"x": 1}]
    finally:
        process.kill()
        process.wait()
