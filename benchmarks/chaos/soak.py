"""`make chaos`: hurts a real run for a given time and prints what it cost.

    python -m benchmarks.chaos.soak --minutes=20

As root the run lives on a small tmpfs of its own, so that its disk can be full; else that fault is
left out. Exit code 1 if an invariant was violated or the run did not end by itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.chaos import faults
from benchmarks.chaos.invariants import Observer
from benchmarks.chaos.subject import PROGRAMS, ROOT, Counters, Subject, median
from sactory.errors import UserError
from sactory.flags import Flags, run_script
from sactory.run_dir import read_json, write_json

RESULT = ROOT / "benchmarks" / "results" / "chaos.json"
CONFIG = "configs/tasks/cartpole_swingup.gin"
_DISK_MB = 3000
_RECOVERY_SECONDS = 240.0
_PAUSE_SECONDS = (1.0, 6.0)
_START_SECONDS = 600.0
_END_SECONDS = 900.0  # what the run was down or lost has not counted as its time


def settings(minutes: float, seed: int) -> dict[str, Any]:
    """How the run differs from the shipped one: it ends by time, and saves often."""
    return {
        "run.seed": seed,
        "run.max_env_steps": 10_000_000,
        "run.max_hours": round(minutes / 60, 4),
        "run.stop_at_return": None,
        "replay.capacity": 200_000,
        "replay.checkpoint_seconds": 20.0,
        "train.checkpoint_seconds": 20.0,
        "eval.Evaluator.video": False,
        "eval.Evaluator.num_eval_episodes": 2,
    }


def recover(subject: Subject) -> tuple[float, Counters] | None:
    """Waits until all programs live and both counters move again; the seconds it took.

    A trainer that went back has recovered when it trains again, not when it has caught up.
    """
    began, before = time.monotonic(), subject.counters()
    lowest = before.train_steps

    def well(now: Counters) -> bool:
        nonlocal lowest
        lowest = min(lowest, now.train_steps)
        moved = now.env_steps > before.env_steps and now.train_steps > lowest
        return moved and all(name in now.pids for name in PROGRAMS)

    now = subject.wait_until(well, _RECOVERY_SECONDS)
    return None if now is None else (time.monotonic() - began, now)


def soak(subject: Subject, choose: random.Random, end: float) -> list[dict[str, Any]]:
    """Injects faults one after the other until `end` (monotonic); one record each."""
    records: list[dict[str, Any]] = []
    functions, weights = zip(*faults.FAULTS)
    while time.monotonic() < end and subject.exit_code is None:
        before = subject.counters()
        injected = choose.choices(functions, weights)[0](subject, choose)
        if injected is None:  # its target was not there
            time.sleep(1.0)
            continue
        result = recover(subject)
        seconds, after = result if result else (None, subject.counters())
        record = {
            "kind": injected.kind,
            "text": injected.text,
            "seconds_to_recover": seconds,
            "rows_lost": max(0, before.rows_inserted - after.rows_inserted),
            "updates_lost": max(0, before.train_steps - after.train_steps),
            "env_steps": after.env_steps,
        }
        if result is not None or subject.exit_code is None:
            records.append(record)
            took = "not recovered" if seconds is None else f"{seconds:.1f} s"
            print(f"{len(records):3d} {injected.kind}: {injected.text}: {took}", flush=True)
        time.sleep(choose.uniform(*_PAUSE_SECONDS))
    return records


def table(records: list[dict[str, Any]]) -> str:
    """The faults by kind, as Markdown."""
    lines = [
        "| fault | injected | recovered | median s | worst s | rows lost (worst) "
        "| updates lost (worst) |",
        "|---|---|---|---|---|---|---|",
    ]
    kinds = list(dict.fromkeys(r["kind"] for r in records))
    for kind in [*sorted(kinds), "all"]:
        mine = [r for r in records if kind in (r["kind"], "all")]
        times = [r["seconds_to_recover"] for r in mine if r["seconds_to_recover"] is not None]
        cells = [
            kind,
            len(mine),
            len(times),
            f"{median(times):.1f}" if times else "-",
            f"{max(times):.1f}" if times else "-",
            max((r["rows_lost"] for r in mine), default=0),
            max((r["updates_lost"] for r in mine), default=0),
        ]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


@contextlib.contextmanager
def small_disk(parent: Path) -> Iterator[Path]:
    """A directory for the run: as root on a tmpfs of its own, which is unmounted at the end."""
    parent.mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(prefix="chaos-", dir=parent))
    mounted = False
    if os.geteuid() == 0:
        words = ["mount", "-t", "tmpfs", "-o", f"size={_DISK_MB}m", "tmpfs", str(place)]
        mounted = subprocess.run(words, check=False, capture_output=True).returncode == 0
    if not mounted:
        print("no disk of its own could be mounted: the fault 'full disk' is left out")
    try:
        yield place
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(place)], check=False)


def main(argv: list[str]) -> int:
    """Runs the soak; 0 if nothing was violated."""
    flags = Flags("chaos", "Hurts a run for some minutes and checks that nothing is lost.")
    flags.float("minutes", 20.0, "how long")
    flags.integer("seed", 1, "of the run and of the choice of faults")
    flags.string("dir", str(ROOT / "runs"), "where the run directory is made")
    args, _ = flags.parse(argv)
    with small_disk(Path(args.dir).resolve()) as place:
        return _soak_and_report(place, args.minutes, args.seed)


def _soak_and_report(place: Path, minutes: float, seed: int) -> int:
    load = os.getloadavg()
    subject = Subject(place / "run", CONFIG, settings(minutes, seed))
    observer = Observer(subject)
    try:
        subject.start()
        if subject.wait_until(lambda now: now.train_steps > 0, _START_SECONDS) is None:
            raise UserError(f"the run did not start training: see {subject.console}")
        observer.start()
        # The last minutes belong to the run's own end.
        records = soak(subject, random.Random(seed), time.monotonic() + 60 * (minutes - 1.5))
        subject.wait_until(lambda now: False, _END_SECONDS)
    finally:
        subject.end()
        observer.stop()
    violations = observer.violations
    violations += [f"not recovered: {r['text']}" for r in records if not r["seconds_to_recover"]]
    if subject.exit_code != 0 or not subject.run_dir.is_done:
        violations.append(f"`sactory run` ended with {subject.exit_code}, see {subject.console}")
    outcome = read_json(subject.run_dir.root / "result.json") or {}
    result = {
        "faults": len(records),
        "recovered": sum(r["seconds_to_recover"] is not None for r in records),
        "violations": violations,
        "env_steps": outcome.get("env_steps"),
        "evaluation": outcome.get("evaluation"),
        "restarts_of_the_trainer": len(subject.events("restart")),
        "minutes": minutes,
        "load_at_start_and_end": [round(load[0], 1), round(os.getloadavg()[0], 1)],
        "commit": (read_json(subject.run_dir.provenance) or {}).get("git"),
        "command": f"make chaos MINUTES={minutes:g}",
        "records": records,
    }
    print(table(records))
    print(json.dumps({k: v for k, v in result.items() if k != "records"}, indent=1))
    write_json(RESULT, result)
    if violations:
        kept = place.with_name(place.name + "-kept")
        shutil.copytree(place, kept, ignore=shutil.ignore_patterns("replay*", "supervise"))
        print(f"the run's files are kept in {kept}")
    return 1 if violations else 0


if __name__ == "__main__":
    run_script(main)
