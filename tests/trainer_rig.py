"""A trainer in the test's process, with a real agent, server, publisher and files.

Only what takes long or ends badly in a test is ours: where blocks come from, and SavedModels.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest
import reverb
import tensorflow as tf

from sactory import config, init_run, settings, supervision, tables
from sactory.cpus import CpuPlan
from sactory.fork import Origin
from sactory.heartbeat import Heartbeat
from sactory.run_dir import RunDir, read_json, write_json
from sactory.specs import Specs
from train import setup

SAC = Path(config.__file__).resolve().parent.parent / "configs/sac.gin"
CALL = 4  # gradient steps of one call
ENV = "envs.load.name = 'python:tests.toy_env:make'"
SETTINGS = (
    ENV,
    "run.max_env_steps = 100_000",
    "replay.mode = 'async'",
    "replay.updates_per_row = None",
    "replay.capacity = 10_000",
    "collect.Worker.random_steps = 100",
    "train.checkpoint_seconds = 1000.0",  # only what a test asks for is saved
    "train.Learner.batch_size = 8",
    f"train.Learner.updates_per_call = {CALL}",
    "train.SacAgent.hidden_sizes = (16,)",
    "train.SacAgent.num_critics = 1",
    "train.SacAgent.critic_subset = 1",
)


def make_run(root, *overrides: str, origin: Origin | None = None) -> RunDir:
    """A frozen run of the toy environment."""
    run_dir = RunDir(root)
    chosen = [*SETTINGS, *overrides] if origin is None else list(overrides)
    source = SAC if origin is None else origin.run_dir.config
    assert init_run.init(run_dir, source, chosen, origin)
    return run_dir


class Blocks:
    """Stands for the feeder: block n depends on n alone, and n on the train step."""

    def __init__(self, *arguments):
        self.address, self.poison = arguments[0], arguments[-1]
        self.number, self.row_size = 0, arguments[3]

    def get(self, timeout):
        rng = np.random.default_rng(self.number)
        self.number += 1
        return tf.constant(rng.uniform(-1, 1, (CALL, 8, self.row_size)), tf.float32)


class Exports:
    """Stands for the exporter: tracing a policy takes seconds."""

    error = None

    def __init__(self, *arguments, **more):
        self.vectors = []

    def export(self, vector, *arguments):
        self.vectors.append(vector)

    def wait(self, timeout):
        return True


@pytest.fixture
def stand_ins(monkeypatch):
    """For tests that start trainers here."""
    monkeypatch.setattr(setup, "configure_tensorflow", lambda plan: None)  # TensorFlow has begun
    monkeypatch.setattr(setup, "Feeder", Blocks)
    monkeypatch.setattr(setup, "Exporter", Exports)


class Rig:
    """One run with its replay server.

    Args:
        run_dir: Made by `make_run`.
    """

    def __init__(self, run_dir: RunDir):
        self.run_dir = run_dir
        config.load(run_dir)
        row, run = Specs.load(run_dir).row, settings.Run()
        replay = settings.Replay()
        limits = tables.replay_limits(
            replay, settings.Learner(), settings.Worker(), run.num_collectors
        )
        built = tables.build_tables(row, limits, replay.segment_length, run_dir.run_id)
        self._server = reverb.Server(built)
        self.client = reverb.Client(f"127.0.0.1:{self._server.port}")
        self._heartbeats: list[Heartbeat] = []
        self._starts: list[Start] = []
        address = {"host": "localhost", "access": "open", "socket": None}
        write_json(run_dir.address, {**address, "port": self._server.port, "started": time.time()})

    def start(self):
        """A start of the trainer, as `sactory train` makes it."""
        config.load(self.run_dir)
        last_beat = read_json(self.run_dir.status("train")) or {}
        stop, heartbeat = supervision.Stop(), Heartbeat(self.run_dir, "train", interval=0.05)
        self._heartbeats.append(heartbeat)
        plan = CpuPlan(None, 1)
        learner = setup.make_learner(self.run_dir, stop, heartbeat, plan, last_beat.get("book"))
        assert learner is not None
        learner._feeder.number = learner._train_step // CALL  # type: ignore
        self._starts.append(Start(learner, stop))
        return self._starts[-1]

    def close(self):
        for heartbeat, start in zip(self._heartbeats, self._starts):
            start.end()
            heartbeat.close()
        self._server.stop()


class Start:
    """One start of the trainer, ended by a signal after some calls of the update."""

    def __init__(self, learner, stop):
        self.learner, self._stop = learner, stop
        self.items = learner._agent.checkpoint_items()

    @property
    def variables(self) -> list[np.ndarray]:
        """All numbers that a checkpoint holds."""
        parts = tf.nest.flatten(list(self.items.values()))
        nested = [p.variables if isinstance(p, tf.Module) else [p] for p in parts]
        return [v.numpy() for vs in nested for v in vs]

    def run(self, calls: int, then=lambda items: None) -> int:
        """Trains for some calls; after the last one `then` may spoil the weights.

        Where it does, the learner finds out by itself; else a stop signal ends it.
        """
        update, done = self.learner._update, 0

        def counted(block):
            nonlocal done
            metrics = update(block)
            done += 1
            if done == calls and then(self.items) is None:
                self._stop.request("SIGTERM", 15)
            return metrics

        self.learner._update = counted
        if not calls and then(self.items) is None:
            self._stop.request("SIGTERM", 15)
        watchdog = threading.Timer(150, self._stop.request, ["the test takes too long"])
        watchdog.start()
        try:
            return self.learner.run()
        finally:
            watchdog.cancel()
            self.end()

    def end(self) -> None:
        """Ends its threads: one inside Reverb would abort the interpreter's exit."""
        self._stop.event.set()
        self.learner._publisher._thread.join(10)
