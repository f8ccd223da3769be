"""What must hold all along, whatever is done to a run: looked at twice a second from outside."""

from __future__ import annotations

import collections
import json
import threading
import time
from pathlib import Path

from benchmarks.chaos.subject import PROGRAMS, Counters, Subject

_POLL_SECONDS = 0.5
# Two copies may be seen for a moment: the kernel ends the old one while the new one starts.
_COPIES_SECONDS = 5.0
_STUCK_SECONDS = 180.0
_RECORD_SECONDS = 120.0  # within which a trainer that went back has written so into train.log


class Observer:
    """Watches a run on a thread of its own.

    Attributes:
        violations: One line each; empty if all is well.
        setbacks: When the trainer went back (Unix time), and by how many updates.

    Args:
        subject: The run.
    """

    def __init__(self, subject: Subject):
        self.violations: list[str] = []
        self.setbacks: list[tuple[float, int]] = []
        self._subject = subject
        self._ended = threading.Event()
        self._last: Counters | None = None
        self._moved = time.monotonic()
        self._doubled: dict[str, float] = {}
        self._thread = threading.Thread(target=self._loop, name="observer", daemon=True)

    def start(self) -> None:
        """Starts watching."""
        self._thread.start()

    def stop(self) -> None:
        """Ends watching and looks at the logs a last time."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        self.violations += check_logs(self._subject)
        self.violations += check_setbacks(self._subject, self.setbacks)

    def _loop(self) -> None:
        while not self._ended.wait(_POLL_SECONDS):
            try:
                self._look(self._subject.counters())
            except Exception as e:  # an observer that dies would call everything well
                self.violations.append(f"the observer failed: {type(e).__name__}: {e}")
                return

    def _look(self, now: Counters) -> None:
        last, self._last = self._last, now
        self._look_for_copies()
        if last is None:
            return
        if now.env_steps < last.env_steps:
            self._note(f"env steps went back from {last.env_steps} to {now.env_steps}")
        if now.train_steps < last.train_steps:
            self.setbacks.append((time.time(), last.train_steps - now.train_steps))
        if (now.env_steps, now.train_steps) != (last.env_steps, last.train_steps):
            self._moved = time.monotonic()
        elif time.monotonic() - self._moved > _STUCK_SECONDS:
            self._note(f"nothing has moved for {_STUCK_SECONDS:.0f} s at {now}")
            self._moved = time.monotonic()

    def _look_for_copies(self) -> None:
        for name in PROGRAMS:
            copies = self._subject.copies(name)
            if len(copies) < 2:
                self._doubled.pop(name, None)
            elif time.monotonic() - self._doubled.setdefault(name, time.monotonic()) > (
                _COPIES_SECONDS
            ):
                self._note(f"{len(copies)} copies of {name} run: {copies}")
                self._doubled[name] = float("inf")  # told once

    def _note(self, text: str) -> None:
        self.violations.append(f"{time.strftime('%H:%M:%S')} {text}")


def check_setbacks(subject: Subject, setbacks: list[tuple[float, int]]) -> list[str]:
    """Setbacks of the trainer that train.log has no `restart` record for, each its own."""
    records = [row["time"] for row in subject.events("restart")]
    wrong = []
    for when, updates in setbacks:
        near = min(records, key=lambda t: abs(t - when), default=None)
        if near is None or abs(near - when) > _RECORD_SECONDS:
            at = time.strftime("%H:%M:%S", time.localtime(when))
            wrong.append(f"{at} train steps went back by {updates} without a restart record")
        else:
            records.remove(near)
    return wrong


def check_logs(subject: Subject) -> list[str]:
    """What is wrong with the logs of a run: broken lines, repetitions, restarts not recorded."""
    run_dir = subject.run_dir
    wrong = []
    for path in (run_dir.train_log, run_dir.eval_log):
        wrong += _broken_lines(path)
    rows = _rows(run_dir.eval_log)
    scored = collections.Counter(row["export"] for row in rows if "export" in row)
    wrong += [f"eval.log: {name} was scored {n} times" for name, n in scored.items() if n > 1]
    train = _rows(run_dir.train_log)
    steps = [row["step"] for row in train if "episode_reward" in row]
    if steps != sorted(steps):
        wrong.append("train.log: env steps go back")
    episodes = collections.Counter(row["episode"] for row in train if "episode" in row)
    wrong += [
        f"train.log: episode {n} stands there {k} times" for n, k in episodes.items() if k > 1
    ]
    before = None
    for row in train:
        if row.get("event") == "restart":
            before = None
        elif "train_step" in row:
            if before is not None and row["train_step"] < before:
                wrong.append(f"train.log: train step {row['train_step']} follows {before}")
            before = row["train_step"]
    return wrong


def _rows(path: Path) -> list[dict]:
    rows = []
    for line in path.read_bytes().splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


def _broken_lines(path: Path) -> list[str]:
    """Lines that are no JSON, the last one left out: it may be half written."""
    lines = path.read_bytes().splitlines()[:-1] if path.exists() else []
    wrong = []
    for number, line in enumerate(lines, 1):
        try:
            json.loads(line)
        except ValueError:
            wrong.append(f"{path.name}: line {number} is not JSON: {line[:60]!r}")
    return wrong
