"""The other end of the replay server in the measurement of unit costs.

    python -m benchmarks.scaling.units RUN_DIR SERVER_PID

Reads orders `{"unit", "size", "calls" or "seconds"}`, one JSON object a line, and answers with the
units done and the CPU seconds that this process, the server and the server's gate took.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import reverb

from benchmarks import worker
from benchmarks.scaling.site import thread_seconds
from collect.writer import SegmentWriter
from sactory import client as client_lib
from sactory import config, progress, settings, supervision, weights
from sactory.link import Link
from sactory.run_dir import RunDir
from sactory.specs import Specs
from sactory.tables import PROGRESS, STATE, WEIGHTS
from train.feeder import Feeder
from train.poison import Poison

_STATE = progress.RunState(10**6, 10**6, 10**6, 1, 10**6, 1e9)
_WAIT_SECONDS = 20.0


class Units:
    """Every unit of work by its name: a method that makes one, and returns how many it made.

    Args:
        run_dir: The run, its configuration loaded.
        client: Its server.
    """

    def __init__(self, run_dir: RunDir, client: reverb.Client):
        self._run_dir, self._client = run_dir, client
        self._length, self._row_size = (
            settings.Replay().segment_length,
            Specs.load(run_dir).row.size,
        )
        self._rows = np.random.default_rng(0).normal(size=(997, self._row_size))
        self._rows = self._rows.astype(np.float32)
        self._writer = SegmentWriter(client, self._length, self._row_size)
        self._feeder: Feeder | None = None
        self._book, self._reports, self._version = progress.Book(), 0, 0
        self._infos: dict[str, Any] | None = None
        self._connections: list[Any] = []
        self._vector = np.zeros(0, np.float32)

    def insert(self, size: int) -> int:
        """An item, as a collector with one environment sends it."""
        for _ in range(self._length):
            while not self._writer.flush(_WAIT_SECONDS):
                continue
            self._reports += 1
            start = self._reports % len(self._rows)
            self._writer.add(self._rows[start : start + 1])
        return 1

    def sample(self, size: int) -> int:
        """The items of one block of K batches."""
        if self._feeder is None:
            target = client_lib.target(self._run_dir)
            learner, poison = settings.Learner(), Poison(self._run_dir)
            self._feeder = Feeder(target, learner, self._length, self._row_size, 0, poison)
        block = self._feeder.get(_WAIT_SECONDS)
        assert block is not None
        return block.shape[0] * block.shape[1] // self._length

    def publish(self, size: int) -> int:
        """Weights of `size` bytes."""
        self._version += 1
        if self._vector.nbytes != size:
            self._vector = np.random.default_rng(0).normal(size=size // 4).astype(np.float32)
        weights.publish(self._client, weights.Version(1, self._version), self._vector)
        return 1

    def fetch(self, size: int) -> int:
        """The weights that were published last."""
        found = weights.latest(self._client, self._known(WEIGHTS))
        assert found is not None and found[1].nbytes == size
        return 1

    def report(self, size: int) -> int:
        """A collector's totals and one episode."""
        self._reports += 1
        episodes = [progress.Episode(self._reports, 512.25, 1000, 12.5)]
        record = progress.report(self._reports % 1000, 1, self._reports, self._reports, episodes)
        client_lib.put_json(self._client, PROGRESS, record)
        return 1

    def drain(self, size: int) -> int:
        """All reports that wait, read and booked."""
        records = client_lib.take_json(self._client, PROGRESS, self._look())
        for record in records:
            self._book.add(record)
        return len(records)

    def probe(self, size: int) -> int:
        """The question how the server is."""
        assert self._look() is not None
        return 1

    def tell_state(self, size: int) -> int:
        """The run's state, by the trainer."""
        client_lib.put_json(self._client, STATE, _STATE.to_json())
        return 1

    def read_state(self, size: int) -> int:
        """The run's state, by a collector."""
        for message in client_lib.take_json(self._client, STATE, self._known(STATE)):
            progress.RunState.from_json(message)
        return 1

    def connect(self, size: int) -> int:
        """A collector's connections and streams, which stay."""
        link = Link(self._run_dir, lambda target: True)
        client = reverb.Client(link.target)
        writer = SegmentWriter(client, self._length, self._row_size)
        writer.add(self._rows[: self._length])
        assert writer.flush(_WAIT_SECONDS)
        self._connections.append((link, client, writer))
        return 1

    def idle(self, size: int) -> int:
        """Nothing, for a tenth of a second."""
        time.sleep(0.1)
        return 1

    def _look(self) -> dict[str, Any] | None:
        return client_lib.table_infos(self._client, self._run_dir)

    def _known(self, table: str) -> dict[str, Any] | None:
        """What an earlier probe said, once that was that the table holds something."""
        if self._infos is None or not self._infos[table].current_size:
            self._infos = self._look()
        return self._infos


def measure(call: Callable[[int], int], order: dict[str, Any], server: int) -> dict[str, float]:
    """Makes units for a while, or a number of calls, and tells what they took."""

    def used() -> tuple[float, ...]:
        server_seconds, gate = worker.cpu_seconds(server), thread_seconds(server, "gate")
        return time.perf_counter(), time.process_time(), server_seconds, gate

    units = calls = 0
    before = used()
    end = before[0] + order.get("seconds", float("inf"))
    while calls < order.get("calls", float("inf")) and time.perf_counter() < end:
        units += call(order.get("size", 0))
        calls += 1
    taken = [after - b for after, b in zip(used(), before)]
    return dict(zip(("units", "wall", "client", "server", "gate"), (units, *taken)))


def main(root: str, server: str) -> None:
    """Works through the orders."""
    run_dir = RunDir(root)
    config.load(run_dir)
    client = client_lib.connect(run_dir, supervision.Stop().event)
    assert client is not None
    units = Units(run_dir, client)
    for line in sys.stdin:
        order = json.loads(line)
        worker.answer(measure(getattr(units, order["unit"]), order, int(server)))
    os._exit(0)  # Reverb's threads would abort Python's own end


if __name__ == "__main__":
    main(*sys.argv[1:])
