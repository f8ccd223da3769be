"""The thread that writes down what is measured.

Names and units are `sactory.metric_names`'. `MetricsWriter` puts rows into a JSON-lines log,
TensorBoard and the console from a thread of its own, so a slow or full disk never delays its
caller. It computes nothing: means and rates are made where the numbers are.
"""

from __future__ import annotations

import math
import numbers
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TextIO

from absl import logging

from sactory.event_file import EventFile
from sactory.json_lines import JsonLines, plain, read_log
from sactory.metric_names import CURRICULUM, EVAL, LABELS, REGISTRY, STAMP, TRAIN, is_known

__all__ = [
    "CURRICULUM",
    "EVAL",
    "REGISTRY",
    "TRAIN",
    "MetricsWriter",
    "console_line",
    "eval_line",
    "read_log",
    "train_line",
]

RETRY_SECONDS = 1.0
MAX_SCALARS = 10_000  # TensorBoard rows that wait for the disk; log rows are never given up


# Console columns: header, key, format. The order and the names are the field's.
_COLUMNS = {
    TRAIN: (
        ("E", "episode", "%d"),
        ("S", "step", "%d"),
        ("D", "duration", "%.1f s"),
        ("R", "episode_reward", "%.4f"),
        ("BR", "batch_reward", "%.4f"),
        ("ALOSS", "actor_loss", "%.4f"),
        ("CLOSS", "critic_loss", "%.4f"),
        ("RATIO", "ratio", "%.4f"),
    ),
    EVAL: (("S", "step", "%d"), ("ER", "episode_reward", "%.4f")),
}
_SUCCESS = ("SUCCESS", "success", "%.2f")  # only where the environment says what success is
_COLOURS = {TRAIN: "\033[33m", EVAL: "\033[32m"}


def console_line(kind: str, row: Mapping[str, Any], color: bool = False) -> str:
    """`| eval | S: 0 | ER: 21.1676`; a missing value prints as 0, a missing success not at all."""
    parts = [f"{_COLOURS[kind]}{kind}\033[0m" if color else kind]
    success = (_SUCCESS,) if "success" in row else ()
    for header, key, form in _COLUMNS[kind] + success:
        value = row.get(key, 0)
        if not isinstance(value, numbers.Real):  # a null in a log was not finite
            value = math.nan
        exact = form != "%d" or math.isfinite(value)
        parts.append(f"{header}: {form % value if exact else value}")
    return "| " + " | ".join(parts)


def train_line(row: Mapping[str, Any], color: bool = False) -> str:
    """`| train | E: 1 | S: 1000 | D: 0.8 s | R: … | BR: … | ALOSS: … | CLOSS: … | RATIO: …`."""
    return console_line(TRAIN, row, color)


def eval_line(row: Mapping[str, Any], color: bool = False) -> str:
    """`| eval | S: 0 | ER: 21.1676`."""
    return console_line(EVAL, row, color)


class MetricsWriter:
    """Writes rows to a log, TensorBoard and the console; never makes its caller wait.

    Args:
        log: JSON-lines file for the rows, or None.
        tensorboard: Directory for event files, or None. Appended to by a resumed run.
        console: Stream for the console lines, True for standard output, or False for none.

    Attributes:
        dropped: TensorBoard rows given up since the start: too many waited, or the disk was full.
        unregistered: Names met that `REGISTRY` does not know.
    """

    def __init__(
        self,
        log: Path | None = None,
        tensorboard: Path | None = None,
        console: bool | TextIO = False,
    ):
        self._console = sys.stdout if console is True else console or None
        self._log = JsonLines(log) if log else None
        self._events = EventFile(tensorboard) if tensorboard else None
        self._rows: deque[dict[str, Any]] = deque()
        self._lines: deque[str] = deque(maxlen=MAX_SCALARS)
        self._scalars: deque[tuple[dict[str, float], int, float]] = deque()
        self._changed = threading.Condition()
        self._busy = False
        self._closed = False
        self.dropped = 0
        self.unregistered: set[str] = set()
        self._warned: set[str] = set()
        self._thread = threading.Thread(target=self._loop, name="metrics", daemon=True)
        self._thread.start()

    def write(self, kind: str, row: Mapping[str, Any], step: int) -> None:
        """Queues one row for the log, TensorBoard and, for train and eval, the console.

        Args:
            kind: `train`, `eval` or `collect`: the group in `REGISTRY`.
            row: Values by name; `step` and `time` are added.
            step: Env steps of the run.
        """
        self._check_names(kind, row)
        now = time.time()
        full = {"step": int(step), "time": now, **plain(row)}
        with self._changed:
            if self._log:
                self._rows.append(full)
            if self._console and kind in _COLUMNS:
                color = self._console.isatty()
                self._lines.append(console_line(kind, {**row, "step": step}, color))
            self._queue_scalars(kind, full, step, now)
            self._changed.notify_all()

    def scalars(self, kind: str, row: Mapping[str, Any], step: int) -> None:
        """Queues values for TensorBoard only."""
        self._check_names(kind, row)
        with self._changed:
            self._queue_scalars(kind, plain(row), step, time.time())
            self._changed.notify_all()

    def event(self, name: str, row: Mapping[str, Any], step: int) -> None:
        """Queues a log row that is no measurement, such as a `restart`: `{"event": name, …}`."""
        with self._changed:
            if self._log:
                now = time.time()
                self._rows.append({"event": name, "step": int(step), "time": now, **plain(row)})
            self._changed.notify_all()

    def flush(self, timeout: float) -> bool:
        """Waits until everything queued is written; False after `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._pending() and not self._busy, timeout)

    def close(self, timeout: float = 10.0) -> bool:
        """Writes what is queued and ends the thread; False if the disk took over `timeout`."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _check_names(self, kind: str, row: Mapping[str, Any]) -> None:
        for name in row:
            if not is_known(kind, name) and name not in self.unregistered:
                self.unregistered.add(name)
                logging.warning("metric %s/%s is not in sactory.metrics.REGISTRY", kind, name)

    def _queue_scalars(self, kind: str, row: Mapping[str, Any], step: int, now: float) -> None:
        if self._events is None:
            return
        values = {
            f"{kind}/{name}": float(value)
            for name, value in row.items()
            if isinstance(value, (bool, int, float)) and name not in (*LABELS, *STAMP)
        }
        self._scalars.append((values, int(step), now))
        if len(self._scalars) > MAX_SCALARS:
            self._scalars.popleft()
            self.dropped += 1

    def _pending(self) -> bool:
        return bool(self._rows or self._lines or self._scalars)

    def _loop(self) -> None:
        retry = False
        while True:
            with self._changed:
                self._busy = False
                self._changed.notify_all()
                if retry:  # the disk refused a row: try again, but not in a tight loop
                    self._changed.wait_for(lambda: self._closed, RETRY_SECONDS)
                else:
                    self._changed.wait_for(lambda: self._pending() or self._closed)
                last = self._closed
                self._busy = True
            retry = not self._drain()
            if last and (retry or not self._pending()):
                break
        for sink in (self._log, self._events):
            if sink:
                self._attempt(sink.close)

    def _drain(self) -> bool:
        """Writes what is queued; False if a log row has to be tried again."""
        while self._lines:
            line = self._lines.popleft()
            self._attempt(lambda line=line: print(line, file=self._console, flush=True))
        log, events, whole = self._log, self._events, True
        while log and self._rows and whole:
            row = self._rows[0]
            whole = self._attempt(lambda row=row: log.append(row))
            if whole:
                self._rows.popleft()
        count = 0
        while events and self._scalars:
            values = self._scalars.popleft()
            if not self._attempt(lambda values=values: events.add(*values)):
                self.dropped += 1
            count += 1
        if events and count:
            self._attempt(events.flush)
        return whole

    def _attempt(self, action: Callable[[], Any]) -> bool:
        """Runs one write; an OSError is warned of once, in the log, and reported as False."""
        try:
            action()
            return True
        except (OSError, ValueError) as e:  # ValueError: the console was closed
            text = f"{type(e).__name__}: {e}"
            if text not in self._warned:
                self._warned.add(text)
                logging.warning("statistics can't be written (%s); going on", text)
            return False
