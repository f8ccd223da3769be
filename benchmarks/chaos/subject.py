"""A real `sactory run` under test, seen from outside: its files, its processes, its counters."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional

import psutil

from sactory import status, trainer_checkpoints
from sactory.metrics import read_log
from sactory.run_dir import RunDir, read_json

ROOT = Path(__file__).resolve().parent.parent.parent
PROGRAMS = ("replay_server", "collect_0", "train", "eval")
_POLL_SECONDS = 0.25


@dataclasses.dataclass(frozen=True)
class Counters:
    """What a run has done, at one moment.

    Attributes:
        env_steps: Simulator steps, from the trainer's book.
        train_steps: Gradient steps.
        rows_inserted: Rows that the replay server has ever taken.
        pids: Of the living programs, by name.
        is_ready: Whether all programs live and none of them is still starting.
    """

    env_steps: int
    train_steps: int
    rows_inserted: int
    pids: dict[str, int]
    is_ready: bool = False


@dataclasses.dataclass(frozen=True)
class Saved:
    """What a death can't take.

    Attributes:
        rows: Rows that the server had taken when its newest checkpoint was made.
        train_steps: Of the trainer's newest checkpoint.
        time: When the server's was made, Unix seconds.
    """

    rows: int = 0
    train_steps: int = 0
    time: float = 0.0


def _take_all_signals() -> None:
    """What a shell starts in the background ignores these, and hands that down to programs."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


class Subject:
    """Starts a run and looks at it.

    Attributes:
        run_dir: The run.
        words: The command.
        environment: Its environment; None: this process's.
        console: File that takes what it prints.

    Args:
        run_dir: Where it lives.
        config: Its configuration file.
        settings: Bindings that it changes, name to value.
    """

    def __init__(self, run_dir: Path, config: str, settings: dict[str, Any]):
        self.run_dir = RunDir(run_dir)
        self.words = ["sactory", "run", config, "--run_dir", str(run_dir)]
        for name, value in settings.items():
            self.words += ["--set", f"{name} = {value!r}"]
        self.environment: Optional[dict[str, str]] = None
        self._process: Optional[subprocess.Popen[bytes]] = None
        self._last = Counters(0, 0, 0, {})
        self.console = run_dir.with_name(run_dir.name + ".console")

    def start(self) -> None:
        """Starts the run, or resumes it."""
        with open(self.console, "ab") as console:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "sactory.cli", *self.words[1:]],
                cwd=ROOT,
                env=self.environment,
                stdout=console,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_take_all_signals,
            )

    @property
    def pid(self) -> int | None:
        """Of `sactory run`; None before it is started."""
        return None if self._process is None else self._process.pid

    @property
    def exit_code(self) -> int | None:
        """Of `sactory run`; None while it goes on."""
        return None if self._process is None else self._process.poll()

    def end(self) -> None:
        """Stops the run if it still goes on, whatever state it is in."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(120)
        except subprocess.TimeoutExpired:
            self._process.kill()

    def counters(self) -> Counters:
        """The counters now; all zero before init is over.

        Of a file that a fault has spoiled the last counts are taken, until it is written anew.
        """
        if not self.run_dir.is_frozen:
            return self._last
        is_told = isinstance(read_json(self.run_dir.status("train")), dict)
        server = read_json(self.run_dir.status("replay_server"))
        now = status.collect(self.run_dir)
        is_server_told = isinstance(server, dict)
        last = self._last
        self._last = Counters(
            env_steps=now["env_steps"] if is_told else last.env_steps,
            train_steps=now["train_steps"] if is_told else last.train_steps,
            rows_inserted=server.get("rows_inserted", 0) if is_server_told else last.rows_inserted,
            pids={status.full_name(p): p["pid"] for p in now["programs"] if p["pid"]},
            is_ready={status.full_name(p) for p in now["programs"] if _is_up(p)} >= set(PROGRAMS),
        )
        return self._last

    def saved(self) -> Saved:
        """What the newest checkpoints hold, in a run whose items are single rows."""
        paths = self.run_dir.replay_history.glob("*/manifest.json")
        manifests = filter(None, map(read_json, paths))
        newest = max(manifests, key=lambda m: m["sequence"], default=None)
        trained = trainer_checkpoints.find(self.run_dir.trainer_checkpoints)
        return Saved(
            rows=newest["tables"]["replay"]["inserts"] if newest else 0,
            train_steps=int(trained[-1].name) if trained else 0,
            time=newest["time"] if newest else 0.0,
        )

    def wait_until(self, true: Callable[[Counters], bool], timeout: float) -> Counters | None:
        """Polls until `true`; None after `timeout` seconds or when the run has ended."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            counters = self.counters()
            if true(counters):
                return counters
            if self.exit_code is not None:
                return None
            time.sleep(_POLL_SECONDS)
        return None

    def processes(self) -> list[psutil.Process]:
        """Every living process whose command line names the run directory or its services."""
        found = []
        for process in psutil.process_iter(["cmdline", "status"]):
            if process.info["status"] == psutil.STATUS_ZOMBIE:
                continue
            if any(str(self.run_dir.root) in word for word in process.info["cmdline"] or []):
                found.append(process)
        return found

    def copies(self, program: str) -> list[int]:
        """Living processes that are the program itself (not its `supervise` or service)."""
        verb, _, worker = program.replace("replay_server", "replay-server").partition("_")
        found = []
        for process in self.processes():
            words = process.info["cmdline"]
            if "supervise.service" in words or "sactory.cli" not in words:
                continue
            if words[words.index("sactory.cli") + 1] != verb:
                continue
            if not worker or words[-1] == worker:
                found.append(process.pid)
        return found

    def ancestors(self, program: str) -> dict[str, int]:
        """Processes behind a program: its service script's process and its `supervise`."""
        pid = self.counters().pids.get(program)
        chain: dict[str, int] = {}
        with contextlib.suppress(psutil.Error):
            if pid is not None:
                service = psutil.Process(psutil.Process(pid).ppid())
                chain = {"service": service.pid, "supervise": service.ppid()}
        return chain

    def events(self, name: str) -> list[dict[str, Any]]:
        """Records of one kind in train.log."""
        return [row for row in read_log(self.run_dir.train_log) if row.get("event") == name]


def _is_up(program: dict[str, Any]) -> bool:
    return program["pid"] is not None and program["state"] not in ("starting", "restoring")


def kill(pid: int, number: signal.Signals) -> bool:
    """Sends a signal; False if the process is gone."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True
