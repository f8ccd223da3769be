"""Each program's sign of life: a small JSON file, replaced once a second by a thread of its own.

It never blocks the program: a slow or full disk delays the thread, and a missed beat only makes
`sactory status` call the program silent.
"""

from __future__ import annotations

import collections
import json
import math
import os
import socket
import threading
import time
from typing import Any

from sactory import cpus
from sactory.run_dir import RunDir, read_json
from sactory.supervision import RESTARTS_VARIABLE

_RATE_WINDOW_SECONDS = 10.0


def program_name(program: str, worker: int | None = None) -> str:
    """Name of a program's files and service: `train`, `collect_0`."""
    return program if worker is None else f"{program}_{worker}"


class Heartbeat:
    """Writes R/status/<program>[_<worker>].json each second until closed.

    Fields that the program has not set yet keep the values of its last life, so that a restart
    never shows counters of zero.

    Attributes:
        restarts: Starts after the first since `sactory run` began.
        starts: Starts in the whole life of the run, this one included.

    Args:
        run_dir: The run directory.
        program: `replay_server`, `collect`, `train` or `eval`.
        worker: Number of a collector.
        interval: Seconds between two beats.
        fields: First values of further fields.
    """

    def __init__(
        self,
        run_dir: RunDir,
        program: str,
        worker: int | None = None,
        interval: float = 1.0,
        **fields: Any,
    ):
        self.path = run_dir.status(program_name(program, worker))
        self._interval = interval
        self._lock = threading.Lock()
        self._steps: collections.deque[tuple[float, float]] = collections.deque()
        previous = read_json(self.path)
        previous = previous if isinstance(previous, dict) else {}
        self.restarts = _restarts(previous)
        self.starts = counted(previous.get("starts")) + 1
        self._fields: dict[str, Any] = {
            **{k: v for k, v in previous.items() if k != "error"},
            "program": program,
            "worker": worker,
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "started": time.time(),
            "state": "starting",
            "restarts": self.restarts,
            "starts": self.starts,
            "steps_per_second": None,
            "cpus": None,
            "threads": None,
            **fields,
        }
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True, name="heartbeat")
        self._thread.start()

    def update(self, **fields: Any) -> None:
        """Sets fields of the next beat, for example `state='training'`."""
        with self._lock:
            self._fields.update(fields)

    def progress(self, steps: float) -> None:
        """Reports the steps made so far, from which `steps_per_second` follows.

        Args:
            steps: Cumulative count in the program's own unit: rows, updates, episodes.
        """
        now = time.monotonic()
        with self._lock:
            # A caller in a tight loop must not fill memory: ten points a second are plenty.
            if len(self._steps) > 1 and now - self._steps[-2][0] < 0.1:
                self._steps.pop()
            self._steps.append((now, float(steps)))

    def close(self, state: str = "stopped") -> None:
        """Writes the last beat with `state` (`done`, `stopped`, `failed`) and ends the thread."""
        self.update(state=state)
        self._closed.set()
        self._thread.join(timeout=5.0)

    def _beat(self) -> None:
        warned = False
        while True:
            closing = self._closed.is_set()
            try:
                self._write()
            except OSError as e:
                if not warned:
                    print(f"sactory: no heartbeat: {e}", flush=True)
                warned = True
            if closing:
                return
            self._closed.wait(self._interval)

    def _write(self) -> None:
        with self._lock:
            self._fields["steps_per_second"] = self._rate()
            fields = dict(self._fields)
        plan = cpus.current()
        if plan is not None:
            fields["cpus"] = None if plan.pinned is None else sorted(plan.pinned)
            fields["threads"] = plan.threads
        fields["time"] = time.time()
        text = json.dumps(_finite(fields))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # Renamed but not fsynced: a beat must be whole, and is worth nothing after a power cut.
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        temporary.write_text(text)
        os.replace(temporary, self.path)

    def _rate(self) -> float | None:
        """Steps per second over the last ten seconds, falling when nothing comes any more."""
        if not self._steps:
            return None
        now = time.monotonic()
        while len(self._steps) > 2 and now - self._steps[1][0] > _RATE_WINDOW_SECONDS:
            self._steps.popleft()
        first_time, first_steps = self._steps[0]
        if now - first_time < 0.5:
            return None
        return max(0.0, self._steps[-1][1] - first_steps) / (now - first_time)


def _restarts(previous: dict[str, Any]) -> int:
    """Counted by the supervised service; without one, from what the last life left behind."""
    try:
        return int(os.environ[RESTARTS_VARIABLE])
    except (KeyError, ValueError):
        pass
    if not previous or previous.get("state") in ("done", "stopped"):
        return 0
    return counted(previous.get("restarts")) + 1


def counted(value: Any) -> int:
    """A count that an old file holds; 0 if it is damaged or missing."""
    whole = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53
    return value if whole else 0


def _finite(value: Any) -> Any:
    """JSON knows no NaN: such numbers become None; numpy scalars become Python's."""
    if isinstance(value, dict):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    if hasattr(value, "item") and not isinstance(value, (str, bytes)):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
