"""How soon a run goes on after its replay server was away for a minute.

    python -m benchmarks.chaos.outage [--run_dir DIR] [--seconds 60] [--trials 3]

Each trial takes the server away in one of two ways: stopped (SIGTERM, started again a minute
later) and cut off (its network down for a minute, nobody is told). Counted from the moment it is
there again: until new rows are in the table, and until the trainer has updated on new samples.
The result is benchmarks/results/outage.json.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import statistics
import time
from pathlib import Path
from typing import Any

from benchmarks.chaos.cut import cut
from benchmarks.chaos.subject import ROOT, Counters, Subject
from sactory import status
from sactory.flags import Flags, run_script
from sactory.run_dir import read_json, write_json
from supervise import daemontools

RESULT = ROOT / "benchmarks" / "results" / "outage.json"
_START_SECONDS, _RECOVERY_SECONDS = 300.0, 120.0
_BETWEEN_SECONDS = 20.0
# Blocks that were sampled before the outage: updates on them say nothing about the stream.
_STALE_UPDATES = 64


@dataclasses.dataclass(frozen=True)
class _Moved:
    """Whether the counters have passed those of a moment."""

    before: Counters
    rows: int = 0
    updates: int = 0

    def __call__(self, now: Counters) -> bool:
        more_rows = now.rows_inserted >= self.before.rows_inserted + self.rows
        return more_rows and now.train_steps >= self.before.train_steps + self.updates


def stop(subject: Subject, seconds: float) -> float:
    """Keeps the server down for a while; returns when it answered again (Unix seconds)."""
    service = subject.run_dir.services() / "replay_server"
    before = read_json(subject.run_dir.status("replay_server"))["started"]
    daemontools.control(service, "d")
    time.sleep(seconds)
    daemontools.control(service, "u")

    def is_back(_: Counters) -> bool:
        beat = read_json(subject.run_dir.status("replay_server")) or {}
        return bool(beat.get("started", 0) > before and beat.get("state") == "running")

    if subject.wait_until(is_back, _RECOVERY_SECONDS) is None:
        raise SystemExit(f"the replay server did not come back: see {subject.console}")
    return time.time()


def cut_off(subject: Subject, seconds: float) -> float:
    """Takes the server's network down for a while; returns when it was up again."""
    if not cut(subject.counters().pids["replay_server"], seconds):
        raise SystemExit("the replay server has no network of its own here: nothing can be cut")
    return time.time()


def restarts(subject: Subject) -> int:
    """Starts after the first, of all programs but the server."""
    programs = status.collect(subject.run_dir)["programs"]
    return sum(p["restarts"] for p in programs if status.full_name(p) != "replay_server")


def trial(subject: Subject, way: str, seconds: float) -> dict[str, Any]:
    """One outage and what came after it."""
    starts = restarts(subject)
    back = (stop if way == "stopped" else cut_off)(subject, seconds)
    then = subject.counters()
    record: dict[str, Any] = {"way": way, "seconds": seconds}
    for what, moved in (
        ("rows", _Moved(then, rows=1)),
        ("updates", _Moved(then, updates=_STALE_UPDATES)),
    ):
        after = subject.wait_until(moved, _RECOVERY_SECONDS)
        if after is None:
            raise SystemExit(f"no new {what} after an outage ({way}): see {subject.console}")
        record[f"seconds_to_{what}"] = round(time.time() - back, 1)
    record["restarts_of_others"] = restarts(subject) - starts
    print(json.dumps(record), flush=True)
    return record


def main(argv: list[str]) -> int:
    """Runs the trials and prints the worst and the median."""
    flags = Flags("outage", "Takes the replay server away and measures the return.")
    flags.string("run_dir", "runs/outage", "where the run lives; what is there goes")
    flags.float("seconds", 60.0, "how long each outage is")
    flags.integer("trials", 3, "outages of each kind")
    args, _ = flags.parse(argv)
    place, load = Path(args.run_dir).resolve(), os.getloadavg()
    shutil.rmtree(place, ignore_errors=True)
    settings = {"run.max_env_steps": 10_000_000, "run.stop_at_return": None}
    subject = Subject(place, "configs/tasks/cartpole_swingup.gin", settings)
    subject.start()
    records = []
    try:
        begun = subject.wait_until(
            lambda now: now.is_ready and now.train_steps > 1000, _START_SECONDS
        )
        if begun is None:
            raise SystemExit(f"the run did not start: see {subject.console}")
        for way in ("stopped", "cut") * args.trials:
            records.append(trial(subject, way, args.seconds))
            time.sleep(_BETWEEN_SECONDS)
    finally:
        subject.end()
    times = [max(r["seconds_to_rows"], r["seconds_to_updates"]) for r in records]
    result = {
        "median_seconds": statistics.median(times),
        "worst_seconds": max(times),
        "restarts_of_others": sum(r["restarts_of_others"] for r in records),
        "trials": records,
        "load_at_start_and_end": [round(load[0], 1), round(os.getloadavg()[0], 1)],
        "commit": (read_json(subject.run_dir.provenance) or {}).get("git"),
        "command": "python -m benchmarks.chaos.outage",
    }
    write_json(RESULT, result)
    print(json.dumps({k: v for k, v in result.items() if k != "trials"}, indent=1))
    return 0


if __name__ == "__main__":
    run_script(main)
