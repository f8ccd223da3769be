"""A run's replay server, and what a trainer tells collectors, for benchmarks of single programs.

The server is `sactory replay-server`, reached as in a run. A process takes the trainer's place: it
exports a policy and publishes its weights as often as a trainer would, but learns nothing.
"""

from __future__ import annotations

import atexit
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.rounds import ROOT, Worker
from sactory import quiet
from sactory.run_dir import RunDir

CONFIG = "configs/tasks/cheetah_run.gin"
_START_SECONDS = 120.0


class Run:
    """A frozen run with its replay server, and a publisher if collectors need one.

    Attributes:
        run_dir: The run.
        server_pid: Its replay server.

    Args:
        settings: Bindings that differ from cheetah_run's.
        publishes: Whether a policy is exported and its weights are published.

    Raises:
        SystemExit: A program of it died or took too long.
    """

    def __init__(self, settings: Mapping[str, Any], publishes: bool):
        self._place = Path(tempfile.mkdtemp(prefix="bench-"))
        self.run_dir = RunDir(self._place / "run")
        self._processes: list[subprocess.Popen[bytes]] = []
        atexit.register(self.close)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # for atexit runs after that only
        words = ["-m", "sactory.cli", "init", f"--config={CONFIG}", f"--run_dir={self.run_dir}"]
        words += [f"--set={name} = {value!r}" for name, value in settings.items()]
        if self._start(*words).wait() != 0:
            self._give_up("init failed")
        server = self._start("-m", "sactory.cli", "replay-server", f"--run_dir={self.run_dir}")
        self.server_pid = server.pid
        if publishes:
            self._start("-m", "benchmarks.served", str(self.run_dir))
        self._wait(publishes)

    def _start(self, *words: str) -> subprocess.Popen[bytes]:
        with open(self._place / "log", "ab") as log:
            process = subprocess.Popen([sys.executable, *words], cwd=ROOT, stdout=log, stderr=log)
        self._processes.append(process)
        return process

    def _wait(self, publishes: bool) -> None:
        end = time.monotonic() + _START_SECONDS
        exports = self.run_dir.policies("collect")
        while not (
            self.run_dir.address.exists() and (not publishes or any(exports.glob("[0-9]*")))
        ):
            if any(process.poll() for process in self._processes):
                self._give_up("a program died")
            if time.monotonic() > end:
                self._give_up("it takes too long to start")
            time.sleep(0.1)

    def _give_up(self, reason: str) -> None:
        raise SystemExit(f"{reason}:\n{(self._place / 'log').read_text()[-4000:]}")

    def close(self) -> None:
        """Ends the programs and removes the files."""
        atexit.unregister(self.close)
        for process in self._processes:
            process.kill()
            process.wait()
        shutil.rmtree(self._place, ignore_errors=True)


class Served(Worker):
    """A contender that needs a run.

    Args:
        name: For the tables.
        words: The command; the run's directory and its server's process id are added.
        run: Closed with the contender.
    """

    def __init__(self, name: str, words: Sequence[str], run: Run):
        super().__init__(name, (*words, f"--run_dir={run.run_dir}", f"--server={run.server_pid}"))
        self._run = run

    def close(self) -> None:
        """Ends the process and the run's."""
        super().close()
        self._run.close()


def publish(run_dir: RunDir) -> None:
    """Exports a new policy and publishes its weights for ever."""
    import tensorflow as tf

    from sactory import client as client_lib
    from sactory import config, progress, settings, supervision
    from sactory.specs import Specs, to_tf_agents
    from train.agent import SacAgent
    from train.export import Exporter
    from train.lessons import Lessons
    from train.publisher import Publisher

    config.load(run_dir)
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    _, action_spec, time_step_spec = to_tf_agents(Specs.load(run_dir))
    agent = SacAgent(time_step_spec, action_spec, settings.SacAgent(), settings.Run().seed)
    agent.initialize()
    vector, stop = agent.policy_vector(), supervision.Stop().event
    client = client_lib.connect(run_dir, stop)
    assert client is not None
    length = settings.Replay().segment_length
    publisher = Publisher(run_dir, client, stop, length, progress.Book(), 1, Lessons())
    publisher.start(0, vector)
    exporter = Exporter(run_dir, agent)
    exporter.export(vector, 0, 0, 1)
    step = 0
    while not stop.wait(settings.Train().publish_seconds):
        step += 1
        publisher.offer(step, vector)


if __name__ == "__main__":
    quiet.set_environment()
    publish(RunDir(sys.argv[1]))
