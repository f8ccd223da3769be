"""`make chaos`: hurts a real run for a given time and prints what it cost.

    python -m benchmarks.chaos.soak --minutes=20

As root the run lives on a small tmpfs of its own, so that its disk can be full; else that fault is
left out. Exit code 1 if an invariant was violated or the run did not end by itself.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import random
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.chaos import faults
from benchmarks.chaos.invariants import Observer
from benchmarks.chaos.subject import ROOT, Counters, Saved, Subject
from sactory.errors import UserError
from sactory.flags import Flags, run_script
from sactory.run_dir import read_json, write_json

RESULT = ROOT / "benchmarks" / "results" / "chaos.json"
CONFIG = "configs/tasks/cartpole_swingup.gin"
_DISK_MB = 3000
_RECOVERY_SECONDS = 240.0
_RESTART_SECONDS = 30.0  # a program may take a signal with grace
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


@dataclasses.dataclass(frozen=True)
class Recovery:
    """How a run got over a fault.

    Attributes:
        seconds: Until all programs lived and both counters moved again; None: it didn't.
        rows: The fewest that the server said to have taken meanwhile.
        train_steps: The fewest of the trainer meanwhile.
    """

    seconds: float | None
    rows: int
    train_steps: int


def recover(subject: Subject, hurt: Counters, restarts: tuple[str, ...]) -> Recovery:
    """Waits until the run is well again: all programs up, and then both counters moving.

    A trainer that went back has recovered when it trains again, not when it has caught up.

    Args:
        subject: The run.
        hurt: Its counters before the fault.
        restarts: Programs that start anew, though not always at once.
    """
    began, up = time.monotonic(), None
    rows, train_steps = hurt.rows_inserted, hurt.train_steps

    def well(now: Counters) -> bool:
        nonlocal rows, train_steps, up
        rows, train_steps = min(rows, now.rows_inserted), min(train_steps, now.train_steps)
        anew = all(now.pids.get(name) not in (None, hurt.pids.get(name)) for name in restarts)
        if not anew and time.monotonic() - began < _RESTART_SECONDS:
            return False
        if up is None or not now.is_ready:
            up = now if now.is_ready else None
            return False
        return now.env_steps > up.env_steps and now.train_steps > up.train_steps

    now = subject.wait_until(well, _RECOVERY_SECONDS)
    return Recovery(None if now is None else time.monotonic() - began, rows, train_steps)


def soak(subject: Subject, choose: random.Random, end: float) -> list[dict[str, Any]]:
    """Injects faults one after the other until `end` (monotonic); one record each."""
    records: list[dict[str, Any]] = []
    functions, weights = zip(*faults.FAULTS)
    while time.monotonic() < end and subject.exit_code is None:
        before, saved = subject.counters(), subject.saved()
        injected = choose.choices(functions, weights)[0](subject, choose)
        if injected is None:  # its target was not there
            time.sleep(1.0)
            continue
        after = recover(subject, before, injected.restarts)
        # Heartbeats lag: what they had not told yet can't be missed.
        saved = Saved(
            min(saved.rows, before.rows_inserted), min(saved.train_steps, before.train_steps)
        )
        record = {
            "kind": injected.kind,
            "text": injected.text,
            "seconds_to_recover": after.seconds,
            "env_steps_lost": max(0, before.rows_inserted - after.rows),  # one row each
            "updates_lost": max(0, before.train_steps - after.train_steps),
            "env_steps": before.env_steps,
        }
        if after.seconds is not None or subject.exit_code is None:
            record["violations"] = [] if injected.kind == "damage" else unsaved_only(after, saved)
            records.append(record)
            took = "not recovered" if after.seconds is None else f"{after.seconds:.1f} s"
            print(f"{len(records):3d} {injected.kind}: {injected.text}: {took}", flush=True)
        time.sleep(choose.uniform(*_PAUSE_SECONDS))
    return records


def unsaved_only(after: Recovery, saved: Saved) -> list[str]:
    """What is wrong if more was lost than came after the newest checkpoints."""
    wrong = []
    if after.rows < saved.rows:
        wrong.append(f"the replay came back with {after.rows} rows of {saved.rows} saved ones")
    if after.train_steps < saved.train_steps:
        wrong.append(f"train step {after.train_steps} is older than the saved {saved.train_steps}")
    return wrong


def table(records: list[dict[str, Any]]) -> str:
    """The faults by kind, as Markdown."""
    lines = [
        "| fault | injected | recovered | s to recover, median | worst "
        "| env steps lost, mean | worst | updates lost, mean | worst |",
        "|---" * 9 + "|",
    ]
    kinds = list(dict.fromkeys(r["kind"] for r in records))
    for kind in [*sorted(kinds), "all"]:
        mine = [r for r in records if kind in (r["kind"], "all")]
        times = [r["seconds_to_recover"] for r in mine if r["seconds_to_recover"] is not None]
        cells = [kind, len(mine), len(times)]
        cells += [f"{statistics.median(times):.1f}", f"{max(times):.1f}"] if times else ["-", "-"]
        for lost in ("env_steps_lost", "updates_lost"):
            values = [r[lost] for r in mine]
            cells += [f"{statistics.mean(values):.0f}", max(values)] if values else ["-", "-"]
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
        shutil.rmtree(place, ignore_errors=True)


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
    violations += [
        f"not recovered: {r['text']}" for r in records if r["seconds_to_recover"] is None
    ]
    violations += [f"{r['text']}: {v}" for r in records for v in r.pop("violations")]
    if subject.exit_code != 0 or not subject.run_dir.is_done:
        violations.append(f"`sactory run` ended with {subject.exit_code}, see {subject.console}")
    outcome = read_json(subject.run_dir.root / "result.json") or {}
    result = {
        "faults": len(records),
        "recovered": sum(r["seconds_to_recover"] is not None for r in records),
        "violations": violations,
        "env_steps": outcome.get("env_steps"),
        "evaluation": outcome.get("evaluation"),
        "duplicates": sum("times" in v for v in violations),
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
        shutil.copytree(
            place, kept, ignore=shutil.ignore_patterns("replay", "replay_history", "supervise")
        )
        print(f"the run's files are kept in {kept}")
    return 1 if violations else 0


if __name__ == "__main__":
    run_script(main)
