"""Collector's writer → Reverb server → trainer's feeder, with a real server in this process."""

import collections
import threading

import numpy as np
import pytest
import reverb
import tensorflow as tf

from collect.writer import SegmentWriter
from sactory import client as client_lib
from sactory import progress, settings, supervision, tables, weights
from sactory.errors import UserError
from sactory.rows import RowFormat
from sactory.run_dir import RunDir, read_json
from train.feeder import Feeder
from train.poison import Poison

pytestmark = pytest.mark.timeout(120)
LEARNER = settings.Learner(batch_size=8, updates_per_call=2)
ROW = RowFormat((("observation", (2,)), ("action", ())))


def limits(**kwargs):
    replay = {"capacity": 1000, **kwargs.pop("replay", {})}
    learner = {"batch_size": 8, "updates_per_call": 2, **kwargs.pop("learner", {})}
    worker = settings.Worker(random_steps=kwargs.pop("random_steps", 10))
    return tables.replay_limits(
        settings.Replay(**replay), settings.Learner(**learner), worker, num_collectors=1
    )


@pytest.fixture
def serve():
    servers = []

    def start(limits, segment_length):
        server = reverb.Server(tables.build_tables(ROW, limits, segment_length, ""))
        servers.append(server)
        return server, reverb.Client(f"127.0.0.1:{server.port}")

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def run_dir(tmp_path):
    return RunDir(tmp_path)


def infos_of(client):
    infos = client_lib.table_infos(client)
    assert infos is not None
    return infos


def next_block(feeder):
    block = feeder.get(20)
    assert block is not None
    return block.numpy()


def row(i):
    return np.array([i, -i, i % 7], np.float32)


@pytest.mark.parametrize("length", [1, 4])
def test_rows_arrive_whole_and_each_is_used_once_a_pool(serve, length, run_dir):
    free = {"segment_length": length, "mode": "async", "updates_per_row": None}
    server, client = serve(limits(replay=free), length)
    writer = SegmentWriter(client, length, ROW.size)
    for i in range(64):
        writer.add(row(i)[None])
        assert writer.flush(5)
    assert writer.flush(5)
    assert infos_of(client)[tables.REPLAY].current_size == 64 // length
    feeder = Feeder(
        f"127.0.0.1:{server.port}", LEARNER, length, ROW.size, seed=0, poison=Poison(run_dir)
    )
    counts, followed = collections.Counter(), 0
    for _ in range(60):
        block = next_block(feeder)
        assert block.shape == (2, 8, 3)
        flat = block.reshape(-1, 3)
        np.testing.assert_array_equal(flat, [row(i) for i in flat[:, 0]])
        counts.update(flat[:, 0].astype(int).tolist())
        followed += (np.diff(flat[:, 0]) == 1).sum()
        segments = collections.Counter(flat[:, 0].astype(int) // length)
        assert all(n % length == 0 for n in segments.values())  # whole segments in one pool
    assert len(counts) == 64
    assert followed < 60 * 15 / 4  # 0.8 of them if segments were not mixed


def test_a_segment_that_is_not_full_is_not_sent(serve):
    _, client = serve(limits(replay={"segment_length": 4}), 4)
    writer = SegmentWriter(client, 4, ROW.size)
    for i in range(7):
        writer.add(row(i)[None])
    assert writer.flush(5)
    assert infos_of(client)[tables.REPLAY].current_size == 1


def test_sync_holds_the_collector_and_async_does_not(serve):
    def write_until_held(mode):
        _, client = serve(limits(replay={"mode": mode}), 1)
        writer = SegmentWriter(client, 1, ROW.size)
        for i in range(400):
            writer.add(row(i)[None])
            if not writer.flush(0.5):
                return i
        return None

    assert write_until_held("sync") is not None
    assert write_until_held("async") is None


def test_sync_keeps_samples_in_proportion_to_inserts(serve, run_dir):
    lim = limits()
    server, client = serve(lim, 1)
    writer = SegmentWriter(client, 1, ROW.size)
    feeder = Feeder(
        f"127.0.0.1:{server.port}", LEARNER, 1, ROW.size, seed=0, poison=Poison(run_dir)
    )
    stop, updates = threading.Event(), 0

    def write():
        i = 0
        while not stop.is_set():
            writer.add(row(i)[None])
            i += 1
            while not writer.flush(0.2) and not stop.is_set():
                pass

    thread = threading.Thread(target=write)
    thread.start()
    try:
        while updates < 400:
            next_block(feeder)
            updates += 2
        info = infos_of(client)[tables.REPLAY].rate_limiter_info
    finally:
        stop.set()
        thread.join(20)
    ahead = info.sample_stats.completed - lim.samples_per_insert * (
        info.insert_stats.completed - lim.min_size
    )
    assert abs(ahead) <= lim.error_buffer
    assert updates * 8 <= info.sample_stats.completed


@pytest.mark.parametrize("length", [1, 5])
def test_the_rate_does_not_depend_on_the_segment_length(length):
    lim = limits(
        replay={"segment_length": length, "updates_per_row": 0.5}, learner={"batch_size": 10}
    )
    assert lim.samples_per_insert == 5
    assert lim.min_size == 10 // length
    assert lim.max_size == 1000 // length


def test_a_table_that_could_never_be_sampled_is_refused():
    with pytest.raises(UserError, match=r"replay.capacity = 1000 .*random_steps = 1000"):
        limits(random_steps=1000)


def test_weights_and_state_make_the_round_trip(serve):
    _, client = serve(limits(), 1)
    infos = infos_of(client)
    assert weights.latest(client, infos) is None
    assert client_lib.take_json(client, tables.STATE, infos) == []
    vector = np.arange(5, dtype=np.float32)
    for step in (3, 8):
        weights.publish(client, weights.Version(2, step), vector * step)
    state = progress.RunState(1, 2, 3, 2, 8, 9.5)
    client_lib.put_json(client, tables.STATE, state.to_json())
    infos = infos_of(client)
    newest = weights.latest(client, infos)
    assert newest is not None
    version, got = newest
    assert version == weights.Version(2, 8)
    np.testing.assert_array_equal(got, vector * 8)
    (message,) = client_lib.take_json(client, tables.STATE, infos)
    assert progress.RunState.from_json(message) == state


def test_progress_is_delivered_once(serve):
    _, client = serve(limits(), 1)
    for i in range(3):
        client_lib.put_json(client, tables.PROGRESS, {"i": i})
    client_lib.put(client, tables.PROGRESS, [np.frombuffer(b"not json", np.uint8)])
    infos = infos_of(client)
    assert client_lib.take_json(client, tables.PROGRESS, infos) == [{"i": 0}, {"i": 1}, {"i": 2}]
    assert infos_of(client)[tables.PROGRESS].current_size == 0


def test_versions_supersede_by_incarnation_then_step():
    old, new = weights.Version(1, 500), weights.Version(2, 100)
    assert new.supersedes(old) and not old.supersedes(new)
    assert weights.Version(2, 101).supersedes(new) and not new.supersedes(new)
    assert old.supersedes(None)


def test_a_broken_stream_is_an_error_and_not_a_silence(run_dir):
    server = reverb.Server([reverb.Table.queue("other", 1)])
    feeder = Feeder(
        f"127.0.0.1:{server.port}", LEARNER, 1, ROW.size, seed=0, poison=Poison(run_dir)
    )
    with pytest.raises(RuntimeError, match="sampling from the replay server failed"):
        for _ in range(200):
            feeder.get(0.2)
    server.stop()
    assert isinstance(feeder.error, (tf.errors.OpError, RuntimeError))


def test_whatever_ends_the_feeders_thread_is_told(serve, run_dir, monkeypatch):
    def broken(poison, rows):
        raise KeyError("a bug")

    server, client = serve(limits(replay={"mode": "async", "updates_per_row": None}), 1)
    insert_unchecked(client, map(row, range(20)))
    monkeypatch.setattr(Poison, "check", broken)
    feeder = Feeder(f"127.0.0.1:{server.port}", LEARNER, 1, ROW.size, 0, Poison(run_dir))
    with pytest.raises(RuntimeError, match="sampling from the replay server failed: 'a bug'"):
        for _ in range(200):
            feeder.get(0.2)


def insert_unchecked(client, values):
    """What a collector that checks nothing might send."""
    with client.trajectory_writer(num_keep_alive_refs=1, validate_items=False) as writer:
        for value in values:
            writer.append([value])
            writer.create_item(tables.REPLAY, 1.0, [writer.history[0][-1:]])
            writer.flush(timeout_ms=10_000)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (np.array([1, np.nan, 1], np.float32), "holds NaN, infinity"),
        (np.array([1, 1, -np.inf], np.float32), "holds NaN, infinity or a number beyond"),
        (np.array([1, 1e25, 1], np.float32), "holds NaN, infinity or a number beyond"),
        (np.ones(4, np.float32), "another shape or type"),
        (np.ones(3, np.int64), "another shape or type"),
    ],
)
def test_poison_is_dropped_and_a_repair_asked_for(serve, run_dir, bad, reason):
    server, client = serve(limits(replay={"mode": "async", "updates_per_row": None}), 1)
    insert_unchecked(client, map(row, range(20)))
    insert_unchecked(client, [bad] * 200)
    feeder = Feeder(f"127.0.0.1:{server.port}", LEARNER, 1, ROW.size, 0, Poison(run_dir))
    request = supervision.wait_for(
        lambda: run_dir.repair.exists() and read_json(run_dir.repair), threading.Event(), 20
    )
    assert request is not None and reason in request["reason"] and request["time"] > 1e9
    client.reset(tables.REPLAY)  # what the server's repair comes to
    insert_unchecked(client, map(row, range(20)))
    run_dir.repair.unlink()
    for _ in range(20):  # nothing bad comes any more, not even what had been fetched ahead
        flat = next_block(feeder).reshape(-1, 3)
        np.testing.assert_array_equal(flat, [row(i) for i in flat[:, 0]])
    assert feeder.poison.dropped == 1 and not run_dir.repair.exists()


def test_a_trainer_that_no_repair_helps_says_so(serve, run_dir, monkeypatch):
    server, client = serve(limits(replay={"mode": "async", "updates_per_row": None}), 1)
    insert_unchecked(client, [np.array([1, np.nan, 1], np.float32)] * 20)
    monkeypatch.setattr("train.poison._PATIENCE_SECONDS", 0.0)
    feeder = Feeder(f"127.0.0.1:{server.port}", LEARNER, 1, ROW.size, 0, Poison(run_dir))
    with pytest.raises(RuntimeError, match="6 blocks of samples in a row"):
        feeder.get(60)
