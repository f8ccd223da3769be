"""A whole run as a contender: replay server, collector, trainer, evaluator and supervision.

While others are measured all its processes are stopped. Env steps are counted by the replay
server, from its heartbeat and with the heartbeat's own time, CPU time over the whole tree.
"""

from __future__ import annotations

import contextlib
import signal
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psutil

from benchmarks.chaos.subject import Subject
from sactory.errors import UserError
from sactory.metrics import read_log
from sactory.run_dir import read_json

CONFIG = "configs/tasks/cheetah_run.gin"
SETTINGS: dict[str, Any] = {
    "run.max_env_steps": 10_000_000,
    "collect.Worker.random_steps": 1_000,
    "eval.Evaluator.every_env_steps": 1_000_000,  # once, before training
    "eval.Evaluator.video": False,
}
_WARM_UPDATES = 500
_START_SECONDS, _SETTLE_SECONDS = 600.0, 5.0
_POLL_SECONDS = 0.05


class Tree:
    """The processes of one `sactory run`.

    Args:
        pid: Its process.
    """

    def __init__(self, pid: int):
        self._pid = pid
        self._stopped: list[psutil.Process] = []

    def processes(self) -> list[psutil.Process]:
        """All of them, parents before their children and the replay server's last.

        Raises:
            psutil.NoSuchProcess: The run has ended.
        """
        root = psutil.Process(self._pid)
        return sorted([root, *root.children(recursive=True)], key=_is_of_the_server)  # stable

    def cpu_seconds(self) -> float:
        """CPU time that the living have used."""
        total = 0.0
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                total += times.user + times.system
        return total

    def stop(self) -> None:
        """Stops everything: who looks after others first, who is waited for last."""
        self._stopped = self.processes()
        _send(self._stopped, signal.SIGSTOP)

    def go_on(self) -> None:
        """Lets everything go on, in the opposite order."""
        _send(reversed(self._stopped), signal.SIGCONT)
        self._stopped = []


class WholeRun:
    """A run of cheetah_run with the shipped defaults, at one update per env step.

    Attributes:
        name: For the tables.

    Args:
        name: For the tables.
    """

    def __init__(self, name: str):
        self.name = name
        self._place = tempfile.TemporaryDirectory()
        self._subject = Subject(Path(self._place.name) / "run", CONFIG, SETTINGS)
        self._subject.start()
        assert self._subject.pid is not None
        self._tree = Tree(self._subject.pid)
        try:
            self._wait_until_warm()
        except BaseException:
            self.close()
            raise
        self._tree.stop()

    def _wait_until_warm(self) -> None:
        """Waits until it trains and the first policy is evaluated."""
        subject = self._subject
        found = subject.wait_until(
            lambda now: (
                now.train_steps >= _WARM_UPDATES
                and any("export" in row for row in read_log(subject.run_dir.eval_log))
            ),
            _START_SECONDS,
        )
        if found is None:
            raise UserError(f"the run did not begin to train: see {subject.console}")

    def measure(self, seconds: float) -> dict[str, float]:
        """Lets it go on for a while."""
        self._tree.go_on()
        try:
            self._beat_after(time.time() + _SETTLE_SECONDS)
            first, cpu = self._beat_after(time.time()), self._tree.cpu_seconds()
            last = self._beat_after(first["time"] + seconds)
            cpu = self._tree.cpu_seconds() - cpu
            self._tree.stop()
        except psutil.NoSuchProcess:
            raise UserError(f"the run has ended: see {self._subject.console}") from None
        rows, wall = last["rows_inserted"] - first["rows_inserted"], last["time"] - first["time"]
        return {"per_second": rows / wall, "per_core_second": rows / cpu}

    def _beat_after(self, when: float) -> dict[str, Any]:
        """The replay server's first heartbeat after a time; Unix seconds."""
        end = time.monotonic() + max(0.0, when - time.time()) + 60
        while time.monotonic() < end:
            beat = read_json(self._subject.run_dir.status("replay_server"))
            if isinstance(beat, dict) and beat.get("time", 0.0) > when:
                return beat
            time.sleep(_POLL_SECONDS)
        raise UserError(f"the replay server has gone silent: see {self._subject.console}")

    def close(self) -> None:
        """Ends the run."""
        self._tree.go_on()
        self._subject.end()
        self._place.cleanup()


def _is_of_the_server(process: psutil.Process) -> bool:
    """Whether a process is the replay server or its service."""
    with contextlib.suppress(psutil.Error):
        return any("replay" in word for word in process.cmdline())
    return False


def _send(processes: Iterable[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.send_signal(number)
