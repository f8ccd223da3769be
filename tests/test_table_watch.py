"""What the server tells of its tables, against a real server whose limiter holds one side."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import numpy as np
import portpicker
import pytest
import reverb
from reverb.cc import schema_pb2

from replay_server.table_watch import TableWatch
from sactory import status, tables

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def client():
    """Sampling begins at 2 items, and neither side may run ahead by more than a few."""
    limiter = reverb.rate_limiters.RateLimiter(
        samples_per_insert=1.0, min_size_to_sample=2, min_diff=-4.0, max_diff=4.0
    )
    fifo = reverb.selectors.Fifo
    replay = reverb.Table(tables.REPLAY, fifo(), fifo(), 1000, limiter)
    others = [reverb.Table.queue(n, 1) for n in (tables.WEIGHTS, tables.STATE, tables.PROGRESS)]
    server = reverb.Server([replay, *others], port=portpicker.pick_unused_port())
    yield reverb.Client(f"localhost:{server.port}")
    server.stop()


def blocked_until(client, side: str) -> dict:
    """The last fields, as soon as the limiter has held `side` most of the time."""
    watch, end, fields = TableWatch(window=0.5), time.monotonic() + 60, {}
    while time.monotonic() < end:
        fields = watch.fields(client.server_info(timeout=5), time.monotonic())
        server = {"time": 0.0, "host": "elsewhere", "state": "running", **fields}
        if status._blocked(server, 0.0).get(side, 0.0) > 0.9:
            return fields
        time.sleep(0.1)
    raise AssertionError(f"{side} were never held: {fields}")


def test_held_inserts_and_held_samples_are_told_apart(client):
    with client.trajectory_writer(num_keep_alive_refs=1) as writer:

        def insert(count):
            for _ in range(count):
                writer.append(np.zeros(1, np.float32))
                writer.create_item(tables.REPLAY, 1.0, writer.history[-1])
            writer.flush(block_until_num_items=count)

        insert(20)  # the limiter takes four
        fields = blocked_until(client, "inserts")
        assert fields["tables"] == {"replay": 4, "weights": 0, "state": 0, "progress": 0}
        samples = client.sample(tables.REPLAY, num_samples=30)
        taking = threading.Thread(target=lambda: list(samples), daemon=True)
        taking.start()
        blocked_until(client, "samples")  # 20 in, and 24 out at the most
        insert(10)
        taking.join(60)
        assert not taking.is_alive()


def test_window_slides_over_the_counters():
    def infos(**milliseconds):
        table = SimpleNamespace(
            current_size=3, table_worker_time=schema_pb2.TableWorkerTime(**milliseconds)
        )
        names: list[str] = [tables.REPLAY, tables.WEIGHTS, tables.STATE, tables.PROGRESS]
        return dict.fromkeys(names, table)

    watch, fields = TableWatch(window=60), {}
    for second in range(100):
        waits = 1000 * min(second, 70)
        fields = watch.fields(
            infos(waiting_for_sampling_ms=waits, sleeping_ms=1000 * second - waits), float(second)
        )
    worker = fields["table_worker"]
    assert (worker["waiting_for_sampling"], worker["sleeping"]) == (31_000, 29_000)
    assert (worker["waiting_for_inserts"], worker["sampling"]) == (0, 0)
