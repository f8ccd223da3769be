"""Holds the model against real runs: sleeping environments, real collectors, trainer and server."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.rounds import ROOT
from benchmarks.scaling.model import Costs, Situation, loads, predict
from benchmarks.scaling.site import Site, environment
from benchmarks.worker import cpu_seconds
from collect.refresher import interval
from sactory import policies
from sactory.errors import UserError
from sactory.run_dir import RunDir, read_json

_STEP_SECONDS = 0.05
_PER_PROCESS = 8
_UPDATES_PER_ROW = 0.1
_HIDDEN = 64
_UPDATES_PER_CALL = 1
_OVERRIDES = (
    "envs.load.name = 'python:benchmarks.sleeping_env:load'",
    f"envs.load.task_kwargs = {{'seconds': {_STEP_SECONDS}}}",
    "run.max_env_steps = 100_000_000",
    "replay.mode = 'async'",
    f"replay.updates_per_row = {_UPDATES_PER_ROW}",
    "replay.capacity = 100_000",
    "collect.Worker.random_steps = 100",
    "train.cpus = 1",
    f"train.Learner.updates_per_call = {_UPDATES_PER_CALL}",
    f"train.SacAgent.hidden_sizes = ({_HIDDEN}, {_HIDDEN})",
)
_CONFIG = "configs/sac.gin"
_START_SECONDS = 900.0
_SETTLE_SECONDS = 5.0


@dataclasses.dataclass(frozen=True)
class Measured:
    """A run for a while, or what the model says of it.

    Attributes:
        rows_per_second: That the server took.
        updates_per_second: That the trainer made.
        server: CPU seconds of the server per second.
        collector: CPU seconds per second of a collector; of the prediction, without its acting.
    """

    rows_per_second: float
    updates_per_second: float
    server: float
    collector: float


def check(costs: Costs, collectors: list[int], seconds: float) -> list[dict[str, Any]]:
    """Runs so many collectors for a while each.

    Returns:
        A record for each: `collectors`, `load`, `predicted` and `measured`.
    """
    records = []
    for count in collectors:
        with tempfile.TemporaryDirectory() as place:
            load = os.getloadavg()[0]
            measured = _measure(Path(place) / "run", count, seconds)
        records.append(
            {
                "collectors": count,
                "load": round(load, 1),
                "predicted": dataclasses.asdict(_predicted(costs, count, measured)),
                "measured": dataclasses.asdict(measured),
            }
        )
        print(records[-1], flush=True)
    return records


def _predicted(costs: Costs, count: int, measured: Measured) -> Measured:
    """What the model says, told nothing but the settings."""
    weights = 4 * (18 * _HIDDEN + (_HIDDEN + 1) * _HIDDEN + (_HIDDEN + 1) * 12)
    situation = Situation(
        collectors=count,
        rows_per_second=1 / _STEP_SECONDS,
        refresh_seconds=interval(None, count),
        updates_per_row=_UPDATES_PER_ROW,
        sync=False,
        updates_per_call=_UPDATES_PER_CALL,
        weight_bytes=weights,
        update_seconds=0.0,  # a small network at a low rate: the trainer is no limit here
    )
    told = predict(costs, situation)
    used = loads(costs, situation, told.rows_per_second, told.updates_per_second)
    return Measured(
        told.rows_per_second,
        told.updates_per_second,
        used["server"] * situation.server_cores,
        told.collector_seconds,
    )


def _measure(root: Path, count: int, seconds: float) -> Measured:
    site = Site(root, _CONFIG, [*_OVERRIDES, f"run.num_collectors = {count}"])
    processes = [_start("sactory.cli", "train", "--run_dir", str(root), log=root)]
    try:
        _wait(lambda: policies.latest_export(site.run_dir) is not None, root)
        for first in range(0, count, _PER_PROCESS):
            here = min(_PER_PROCESS, count - first)
            words = ("benchmarks.scaling.collectors", str(root), str(first), str(here))
            processes.append(_start(*words, log=root))
        _wait(lambda: _collecting(site.run_dir) == count, root)
        time.sleep(_SETTLE_SECONDS)
        before = _counts(site, processes)
        time.sleep(seconds)
        after = _counts(site, processes)
    finally:
        for process in processes:
            process.kill()
            process.wait()
        site.close()
    rows, updates, server, collector = (
        (now - then) / (t1 - t0) for (now, t1), (then, t0) in zip(after, before)
    )
    return Measured(rows, updates, server, collector / count)


def _start(*words: str, log: Path) -> subprocess.Popen[bytes]:
    with open(log.with_name("programs.log"), "ab") as says:
        return subprocess.Popen(
            [sys.executable, "-m", *words],
            cwd=ROOT,
            env=environment(),
            stdout=says,
            stderr=says,
        )


def _wait(true: Any, root: Path) -> None:
    end = time.monotonic() + _START_SECONDS
    while not true():
        if time.monotonic() > end:
            said = root.with_name("programs.log").read_text(errors="replace")
            raise UserError(f"the run did not begin: {said[-2000:]}")
        time.sleep(0.5)


def _collecting(run_dir: RunDir) -> int:
    beats = run_dir.status("x").parent.glob("collect_*.json")
    return sum((read_json(path) or {}).get("state") == "collecting" for path in beats)


def _counts(site: Site, processes: list[Any]) -> list[tuple[float, float]]:
    """Rows, updates, and CPU seconds of server and collectors, each with its time."""
    server = read_json(site.run_dir.status("replay_server")) or {}
    trainer = read_json(site.run_dir.status("train")) or {}
    used = sum(cpu_seconds(process.pid) for process in processes[1:])
    now = time.time()
    return [
        (server["rows_inserted"], server["time"]),
        (trainer["train_steps"], trainer["time"]),
        (cpu_seconds(site.pid), now),
        (used, now),
    ]
