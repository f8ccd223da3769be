"""The measuring side of a benchmark: contenders take turns, so that noise hurts them alike.

Every contender is a process of its own (`worker`); all are started first, one after another, then
measured round after round. Rates are medians of the rounds, per second of wall clock and per second
of CPU.
"""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from benchmarks import worker

ROOT = Path(__file__).resolve().parent.parent


def worker_environment() -> dict[str, str]:
    """Variables of a process that speaks `worker`'s protocol."""
    return {**os.environ, "PYTHONPATH": str(ROOT), worker.WORKER_VARIABLE: "1"}


class Measured(Protocol):
    """What takes turns; `Worker` unless one process is not enough."""

    name: str

    def measure(self, seconds: float) -> dict[str, Any]:
        """Works for a while; `per_second`, `per_core_second` and perhaps `per_unit`."""
        ...

    def close(self) -> None:
        """Ends it."""
        ...


class Worker:
    """A contender that is one process.

    Attributes:
        name: For the tables.
        first_seconds: From its start to its first unit of work: imports are not counted,
            compilation is.

    Args:
        name: For the tables.
        words: The command; its process speaks `worker`'s protocol.
        environment: Variables that differ from this process's.

    Raises:
        SystemExit: It died; what it said is shown.
    """

    def __init__(self, name: str, words: Sequence[str], environment: Mapping[str, str] = {}):
        self.name = name
        self.first_seconds: float | None = None
        self._words, self._environment = list(words), environment
        self._says = tempfile.TemporaryFile("w+")  # noqa: SIM115  # closed with the worker
        self._process: subprocess.Popen[str] | None = None

    def wait(self) -> None:
        """Starts it and waits until it is warm."""
        if self._process is not None:
            return
        self._process = subprocess.Popen(
            self._words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._says,
            text=True,
            cwd=ROOT,
            env={**worker_environment(), **self._environment},
        )
        self.first_seconds = self._read()["first_seconds"]

    def measure(self, seconds: float) -> dict[str, Any]:
        """Lets it work for a while."""
        self.wait()
        assert self._process is not None and self._process.stdin is not None
        print(seconds, file=self._process.stdin, flush=True)
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process is not None and self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._says.seek(0)
            raise SystemExit(f"'{self.name}' died:\n{self._says.read()[-4000:]}")
        return json.loads(line)

    def close(self) -> None:
        """Ends the process."""
        self._says.close()
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process.wait(60)


@dataclasses.dataclass(frozen=True)
class Rates:
    """What came out for one contender.

    Attributes:
        name: Whose.
        per_second: Median rate, wall clock.
        per_core_second: Median rate, by the CPU time of its processes.
        first_seconds: Until its first unit of work; None where that means nothing.
        rounds: Each round's two rates.
        per_unit: Medians of what else a unit took, by name.
    """

    name: str
    per_second: float
    per_core_second: float
    first_seconds: float | None
    rounds: list[tuple[float, float]]
    per_unit: dict[str, float] = dataclasses.field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """JSON value."""
        return dataclasses.asdict(self)


def measure(contenders: Sequence[Measured], rounds: int, seconds: float) -> list[Rates]:
    """Measures all in turn and closes them.

    Args:
        contenders: Started already.
        rounds: Measurements of each.
        seconds: Length of one.
    """
    measured: list[list[dict[str, Any]]] = [[] for _ in contenders]
    try:
        for contender in contenders:  # nobody compiles while another is measured
            if isinstance(contender, Worker):
                contender.wait()
        for _ in range(rounds):
            for contender, results in zip(contenders, measured):
                results.append(contender.measure(seconds))
    finally:
        for contender in contenders:
            contender.close()
    return [_rates(contender, results) for contender, results in zip(contenders, measured)]


def _rates(contender: Measured, results: list[dict[str, Any]]) -> Rates:
    more = [one.get("per_unit", {}) for one in results]
    return Rates(
        name=contender.name,
        per_second=statistics.median(one["per_second"] for one in results),
        per_core_second=statistics.median(one["per_core_second"] for one in results),
        first_seconds=getattr(contender, "first_seconds", None),
        rounds=[(one["per_second"], one["per_core_second"]) for one in results],
        per_unit={name: statistics.median(one[name] for one in more) for name in more[0]},
    )
