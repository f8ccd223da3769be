"""A run directory with a replay server in this process, for the tests of its checkpoints."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time

import numpy as np
import reverb

from collect.writer import SegmentWriter
from replay_server.checkpoint import Checkpoints
from sactory import client as client_lib
from sactory import settings, tables
from sactory.heartbeat import Heartbeat
from sactory.rows import RowFormat
from sactory.run_dir import RunDir, read_json, write_json
from sactory.specs import ArraySpec, Specs

ROW = RowFormat(
    (
        ("observation", (2,)),
        ("action", (1,)),
        ("reward", ()),
        ("discount", ()),
        ("next_observation", (2,)),
        ("policy_step", ()),
    )
)
ENV = {"name": "cartpole_swingup", "action_repeat": 1}
SPECS = Specs(ArraySpec((2,), "float32"), ArraySpec((1,), "float32", -1.0, 1.0), ROW, ENV)


def make_run(root, run_id="a", text=""):
    """A run directory as far as the replay server looks at it."""
    run_dir = RunDir(root)
    write_json(run_dir.provenance, {"run_id": run_id})
    write_json(run_dir.specs, SPECS.to_json())
    run_dir.config.write_text(text)
    return run_dir


def row(i):
    return np.array([i, -i, 0.5, i % 7, 0.99, i + 1, -i - 1, -1], np.float32)


class Site:
    """A server on a run directory."""

    def __init__(self, run_dir, run_id="a", tables_of=None, **replay):
        replay = {"capacity": 1000, "mode": "async", "updates_per_row": None, **replay}
        self.run_dir, self.replay = run_dir, settings.Replay(**replay)
        self.limits = tables.replay_limits(
            self.replay, settings.Learner(batch_size=8), settings.Worker(random_steps=10), 1
        )
        self.heartbeat = Heartbeat(run_dir, "replay_server")
        self.checkpoints = Checkpoints(run_dir, self.replay, self.heartbeat)
        length = self.replay.segment_length
        build = tables_of or (lambda: tables.build_tables(ROW, self.limits, length, run_id))
        self.tables = build()
        self.server = None

    def start(self):
        self.checkpoints.prepare(self.tables)
        with self.checkpoints.loading():
            self.server = reverb.Server(self.tables, checkpointer=self.checkpoints.checkpointer)
        self.client = reverb.Client(f"127.0.0.1:{self.server.port}")
        return self

    def write(self, rows):
        writer = SegmentWriter(self.client, self.replay.segment_length, ROW.size)
        for r in rows:
            writer.add(r[None])
        assert writer.flush(20)

    def write_item(self, array, priority=1.0, table=tables.REPLAY):
        """One item with nobody looking at it."""
        writer = self.client.trajectory_writer(1, validate_items=False)
        writer.append([array])
        writer.create_item(table, priority, writer.history[0][-1])
        with contextlib.suppress(reverb.DeadlineExceededError):
            writer.flush(0, 2000)

    @property
    def info(self):
        infos = client_lib.table_infos(self.client)
        assert infos is not None
        return infos[tables.REPLAY]

    def first_numbers(self, samples=600):
        """The numbers of the rows that sampling finds, each row checked to be whole."""
        numbers = set()
        steps = [step for sample in self.client.sample(tables.REPLAY, samples) for step in sample]
        for step in steps:
            for got in np.reshape(step.data[0], (-1, ROW.size)):
                np.testing.assert_array_equal(got, row(got[0]))
                numbers.add(int(got[0]))
        return numbers

    def status(self):
        """The heartbeat's last word."""
        self.heartbeat.close()
        return read_json(self.heartbeat.path)

    def stop(self):
        if self.server is not None:
            self.server.stop()
        self.heartbeat.close()


def copy_run(run_dir, target):
    """Copies a run directory with the hard links inside it."""
    subprocess.run(["cp", "-a", str(run_dir.root), str(target)], check=True, timeout=30)
    return RunDir(target)


@contextlib.contextmanager
def own_time_zone():
    """The server's process runs in UTC; this one shall not afterwards."""
    before = os.environ.get("TZ")
    try:
        yield
    finally:
        if before is None:
            os.environ.pop("TZ", None)
        else:
            os.environ["TZ"] = before
        time.tzset()
