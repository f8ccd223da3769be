"""Learning ContactInsert: success rates by variant, with and without a curriculum.

    python -m benchmarks.insertion [--tasks=contact_insert_planar] [--seeds=1,2,3]

Real runs, one a core; interrupted ones resume and finished ones are not done again. A run's score
is the success rate of its last policy over 100 episodes at full noise. Results:
benchmarks/results/insertion/<task>[_curriculum]_<seed>.json; `--table` prints them.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path

from benchmarks.learning import EPISODES, ROOT, Job, train_all
from sactory.flags import Flags, run_script
from sactory.intervals import wilson

RESULTS = ROOT / "benchmarks" / "results" / "insertion"
CURRICULUM = "configs/curricula/noise_ramp.json"
# Task: (env steps, success rate that is wanted after them)
WANTED = {"contact_insert_planar": (40_000, 0.9), "contact_insert_plate": (100_000, 0.8)}


def job(task: str, with_curriculum: bool, seed: int) -> Job:
    """One run."""
    settings = (("envs.load.curriculum", f"'{CURRICULUM}'"),) if with_curriculum else ()
    return Job(task, seed, WANTED[task][0], settings, "_curriculum" if with_curriculum else "")


def table() -> str:
    """Success rates as Markdown, one line a task and kind, seeds with 95 % intervals (Wilson's)."""
    lines = [
        "| task | env steps | curriculum | success by seed | wanted |",
        "|---|---|---|---|---|",
    ]
    for (task, (env_steps, wanted)), kind in itertools.product(WANTED.items(), (False, True)):
        paths = sorted(RESULTS.glob(f"{task}{'_curriculum' * kind}_[0-9]*.json"))
        cells = []
        for path in paths:
            result = json.loads(path.read_text())
            low, high = wilson(result["success"] * EPISODES, EPISODES)
            cells.append(f"{result['success']:.2f} ({low:.2f}-{high:.2f})")
        if cells:
            name = "noise ramp" if kind else "none"
            lines.append(f"| {task} | {env_steps:,} | {name} | {', '.join(cells)} | {wanted} |")
    return "\n".join(lines)


def main(argv: list[str]) -> None:
    """Runs what is missing, then prints the table."""
    flags = Flags("insertion", "Trains ContactInsert with and without a curriculum.")
    flags.string("tasks", ",".join(WANTED), "which tasks, by comma")
    flags.string("seeds", "1,2,3", "which seeds, by comma")
    flags.string("runs", str(ROOT / "runs" / "insertion"), "where the run directories go")
    flags.boolean("table", False, "only print the table of what is there")
    args, _ = flags.parse(argv)
    if not args.table:
        order = itertools.product(args.tasks.split(","), args.seeds.split(","), (False, True))
        jobs = (job(task, kind, int(seed)) for task, seed, kind in order)
        train_all(jobs, Path(args.runs).resolve(), RESULTS)
    print(table())


if __name__ == "__main__":
    run_script(main)
