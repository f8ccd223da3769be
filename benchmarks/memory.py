"""Memory of every program of a long run, and how it grows once the replay is full.

    python -m benchmarks.memory --minutes=60

Starts a cheetah_run whose replay is full within minutes, so that what still grows
afterwards is a leak. Results: benchmarks/results/memory.json.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import psutil

from benchmarks.chaos.subject import ROOT, Subject
from sactory.errors import UserError
from sactory.flags import Flags, run_script
from sactory.run_dir import read_json, write_json

RESULT = ROOT / "benchmarks" / "results" / "memory.json"
MARKS = (10, 30, 60)  # minutes
_SAMPLE_SECONDS = 15.0


def settings(minutes: float) -> dict[str, Any]:
    """A run that lasts, with a small replay and frequent checkpoints."""
    return {
        "run.max_env_steps": 100_000_000,
        "run.max_hours": round((minutes + 2) / 60, 4),
        "replay.capacity": 30_000,
        "replay.checkpoint_seconds": 60.0,
        "eval.Evaluator.video": False,
        "eval.Evaluator.num_eval_episodes": 2,
    }


def sample(subject: Subject) -> dict[str, float]:
    """Resident memory of each program, MB."""
    sizes = {}
    for name, pid in subject.counters().pids.items():
        try:
            sizes[name] = psutil.Process(pid).memory_info().rss / 1e6
        except psutil.NoSuchProcess:
            continue
    return sizes


def growth(samples: list[tuple[float, dict[str, float]]], name: str, since: float) -> float | None:
    """MB an hour of one program by least squares, from the minute `since` on."""
    points = [(m / 60, sizes[name]) for m, sizes in samples if m >= since and name in sizes]
    if len(points) < 3:
        return None
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points)
    return slope / sum((x - mean_x) ** 2 for x, _ in points)


def table(samples: list[tuple[float, dict[str, float]]]) -> str:
    """Memory at the marks and the growth after the first, as Markdown."""
    marks = [mark for mark in MARKS if samples[-1][0] >= mark - 0.5]
    head = " | ".join(f"MB at {mark} min" for mark in marks)
    lines = [f"| program | {head} | MB/h after {MARKS[0]} min |", "|---" * (len(marks) + 2) + "|"]
    for name in samples[-1][1]:
        near = [min(samples, key=lambda s: abs(s[0] - mark))[1].get(name) for mark in marks]
        cells = ["-" if size is None else f"{size:.0f}" for size in near]
        slope = growth(samples, name, MARKS[0])
        lines.append(
            f"| {name} | {' | '.join(cells)} | {'-' if slope is None else f'{slope:.1f}'} |"
        )
    return "\n".join(lines)


def main(argv: list[str]) -> int:
    """Runs, samples and tabulates."""
    flags = Flags("memory", "Samples the memory of every program of a long run.")
    flags.float("minutes", 60.0, "how long after the start of training")
    flags.string("run_dir", str(ROOT / "runs" / "memory"), "a new run directory")
    args, _ = flags.parse(argv)
    subject = Subject(
        Path(args.run_dir).resolve(), "configs/tasks/cheetah_run.gin", settings(args.minutes)
    )
    load = os.getloadavg()
    samples: list[tuple[float, dict[str, float]]] = []
    subject.start()
    try:
        if subject.wait_until(lambda now: now.train_steps > 0, 600) is None:
            raise UserError(f"the run did not start training: see {subject.console}")
        began = time.monotonic()
        while (minute := (time.monotonic() - began) / 60) < args.minutes + 0.5:
            samples.append((minute, sample(subject)))
            if subject.exit_code is not None:
                break
            time.sleep(_SAMPLE_SECONDS)
    finally:
        subject.end()
        report(subject, args.minutes, samples, load)
    return 0


def report(
    subject: Subject,
    minutes: float,
    samples: list[tuple[float, dict[str, float]]],
    load: tuple[float, float, float],
) -> None:
    """Stores what was sampled, of an interrupted run too, and prints the table."""
    if not samples:
        return
    result = {
        "samples": [[round(m, 2), {k: round(v, 1) for k, v in s.items()}] for m, s in samples],
        "load_at_start_and_end": [round(load[0], 1), round(os.getloadavg()[0], 1)],
        "commit": (read_json(subject.run_dir.provenance) or {}).get("git"),
        "minutes": round(samples[-1][0], 1),
        "command": f"python -m benchmarks.memory --minutes={minutes:g}",
    }
    write_json(RESULT, result)
    print(table(samples))
    print(json.dumps({k: v for k, v in result.items() if k != "samples"}))


if __name__ == "__main__":
    run_script(main)
