"""The measured side of a benchmark: does its work whenever the measuring side says for how long.

Runs in other projects' environments too, so it needs nothing but Python. The measuring side is
`rounds`.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

WORKER_VARIABLE = "BENCHMARK_WORKER"
_answers = sys.stdout
if WORKER_VARIABLE in os.environ:  # the measuring side imports this too, and has more to say
    sys.stdout = sys.stderr  # what libraries print is no answer


def use_cores(count: int) -> None:
    """Keeps this process and its threads to the first `count` cores that it may use."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])


def answer(value: Any) -> None:
    """Sends one line to the measuring side."""
    print(json.dumps(value), file=_answers, flush=True)


class Meter:
    """Counts units of work between two lines of the measuring side.

    For loops that belong to a library: it is told of each unit and holds the loop while others
    are measured. The first unit says that all is compiled and warm.

    Args:
        totals: Growing numbers by name, for example seconds spent in a piece of the work; what
            they grow by for each unit is answered too.
    """

    def __init__(self, totals: Callable[[], Mapping[str, float]] = dict):
        self._created = time.perf_counter()
        self._end = 0.0
        self._units = -1
        self._began = (0.0, 0.0)
        self._totals = totals
        self._totals_then: Mapping[str, float] = {}

    def add(self, units: int = 1) -> None:
        """Counts finished units; ends the process when there is nothing more to measure."""
        if self._units < 0:
            answer({"first_seconds": time.perf_counter() - self._created})
            self._wait()
            return
        self._units += units
        if time.perf_counter() >= self._end:
            wall = time.perf_counter() - self._began[0]
            cpu = time.process_time() - self._began[1]
            rates = {"per_second": self._units / wall, "per_core_second": self._units / cpu}
            then = self._totals_then
            growth = {k: (v - then[k]) / self._units for k, v in self._totals().items()}
            answer({**rates, "per_unit": growth})
            self._wait()

    def _wait(self) -> None:
        line = sys.stdin.readline()
        if not line:
            os._exit(0)  # a library's threads may not end by themselves
        self._units = 0
        self._totals_then = self._totals()
        self._began = (time.perf_counter(), time.process_time())
        self._end = self._began[0] + float(line)


def cpu_seconds(pid: int) -> float:
    """CPU time that another process has used, all threads together, to the nanosecond."""
    return time.clock_gettime((~pid << 3) | 2)  # the clock that clock_getcpuclockid(3) names


def serve(call: Callable[[], Any], units: int) -> None:
    """Calls `call`, each time `units` of work, for as long as there is something to measure."""
    meter = Meter()
    while True:
        call()
        meter.add(units)
