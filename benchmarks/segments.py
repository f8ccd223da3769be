"""What longer segments cost in learning: scores at 50 k env steps by segment_length.

    python -m benchmarks.segments [--lengths=1,16] [--seeds=1,2,3]

Real runs, one a core; interrupted ones resume and finished ones are not done again. The score of a
run is its last policy's mean return over 100 episodes. A length is accepted if the interquartile
mean (IQM, arXiv 2108.13264) over tasks and seeds loses at most 5 % and the intervals overlap.
Results: benchmarks/results/segments/<task>_length<L>_<seed>.json; `--table` prints them.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
from scipy import stats

from benchmarks.learning import ROOT, Job, train_all
from sactory.flags import Flags, run_script

RESULTS = ROOT / "benchmarks" / "results" / "segments"
TASKS = ("cartpole_swingup", "walker_walk", "cheetah_run")
ENV_STEPS = 50_000
_DRAWS, _INTERVAL = 10_000, (2.5, 97.5)
_TRIMMED = 0.25  # of either end: the mean of what is left is the IQM


def job(task: str, length: int, seed: int) -> Job:
    """One run."""
    settings = (("replay.segment_length", length),)
    return Job(task, seed, ENV_STEPS, settings, f"_length{length}")


def interval(scores: np.ndarray) -> tuple[float, float]:
    """95 % interval of the IQM of scores `[tasks, seeds]`, seeds drawn anew within each task."""
    random = np.random.default_rng(0)
    tasks, seeds = scores.shape
    drawn = random.integers(seeds, size=(_DRAWS, tasks, seeds))
    again = np.take_along_axis(np.broadcast_to(scores, drawn.shape), drawn, axis=2)
    means = stats.trim_mean(again.reshape(_DRAWS, -1), _TRIMMED, axis=1)
    low, high = np.percentile(means, _INTERVAL)
    return float(low), float(high)


def table() -> str:
    """Scores by length as Markdown; IQM and interval where each task has as many seeds."""
    found: dict[int, dict[str, dict[int, float]]] = {}
    for path in sorted(RESULTS.glob("*.json")):
        r = json.loads(path.read_text())
        by_task = found.setdefault(r["settings"]["replay.segment_length"], {})
        by_task.setdefault(r["task"], {})[r["seed"]] = r["score"]
    lines = [
        f"| segment_length | {' | '.join(TASKS)} | IQM (95 % interval) |",
        "|---" * (len(TASKS) + 2) + "|",
    ]
    for length, by_task in sorted(found.items()):
        cells = []
        for task in TASKS:
            scores = sorted(by_task.get(task, {}).items())
            cells.append(", ".join(f"{score:.0f}" for _, score in scores))
        counts = {len(by_task.get(task, {})) for task in TASKS}
        summary = "not all runs are there"
        if len(counts) == 1 and 0 not in counts:
            every = np.array([[v for _, v in sorted(by_task[t].items())] for t in TASKS])
            low, high = interval(every)
            summary = f"{stats.trim_mean(every.ravel(), _TRIMMED):.0f} ({low:.0f} to {high:.0f})"
        lines.append(f"| {length} | {' | '.join(cells)} | {summary} |")
    return "\n".join(lines)


def main(argv: list[str]) -> None:
    """Runs what is missing, then prints the table."""
    flags = Flags("segments", "Trains tasks with different segment lengths and compares them.")
    flags.string("lengths", "1,16", "which lengths, by comma")
    flags.string("seeds", "1,2,3", "which seeds, by comma")
    flags.string("runs", str(ROOT / "runs" / "segments"), "where the run directories go")
    flags.boolean("table", False, "only print the table of what is there")
    args, _ = flags.parse(argv)
    if not args.table:
        order = itertools.product(args.seeds.split(","), args.lengths.split(","), TASKS)
        jobs = (job(task, int(length), int(seed)) for seed, length, task in order)
        train_all(jobs, Path(args.runs).resolve(), RESULTS)
    print(table())


if __name__ == "__main__":
    run_script(main)
