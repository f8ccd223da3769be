"""Scores of the shipped task files after as many env steps: every run a real `sactory run`.

    python -m benchmarks.learning --tasks=walker_walk,finger_spin --seeds=1,2

One run a core, as many at a time as the process may use. A run that was interrupted resumes, one
whose result is there is left out, so the same command goes on where it stopped. Results are
benchmarks/results/learning/<task>_<seed>.json; `--table` prints them as Markdown.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import shlex
import statistics
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks import cores
from sactory.flags import Flags, run_script
from sactory.metrics import read_log
from sactory.run_dir import RunDir, read_json, write_json

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "learning"
EPISODES = 100  # of the final score
# Task: (env steps, score that is wanted after them)
WANTED = {
    "cartpole_swingup": (100_000, 780),
    "ball_in_cup_catch": (100_000, 900),
    "finger_spin": (100_000, 600),
    "reacher_easy": (100_000, 700),
    "walker_walk": (100_000, 550),
    "pendulum": (30_000, -200),
}


@dataclasses.dataclass(frozen=True)
class Job:
    """One run to its end, whatever it scores.

    Attributes:
        task: The shipped file.
        seed: `run.seed`.
        env_steps: Where it ends.
        settings: Further bindings, name to value.
        suffix: Of its name, where settings differ.
    """

    task: str
    seed: int
    env_steps: int
    settings: tuple[tuple[str, Any], ...] = ()
    suffix: str = ""

    @property
    def name(self) -> str:
        """Of its files."""
        return f"{self.task}{self.suffix}_{self.seed}"

    def command(self, run_dir: Path | str) -> list[str]:
        """What starts it, without videos."""
        settings = {
            "run.seed": self.seed,
            "run.max_env_steps": self.env_steps,
            "run.stop_at_return": None,
            "eval.Evaluator.video": False,
            **dict(self.settings),
        }
        words = ["sactory", "run", f"configs/tasks/{self.task}.gin", "--run_dir", str(run_dir)]
        return words + [word for k, v in settings.items() for word in ("--set", f"{k} = {v}")]


def train_all(jobs: Iterable[Job], runs: Path, results: Path) -> None:
    """Trains what has no result yet, one run a core."""
    runs.mkdir(parents=True, exist_ok=True)
    results.mkdir(parents=True, exist_ok=True)
    missing = [job for job in jobs if not (results / f"{job.name}.json").exists()]
    cores.share(missing, lambda job, core: train(job, runs, results, core))


def train(job: Job, runs: Path, results: Path, core: int) -> None:
    """Trains one seed on one core and stores what came of it."""
    run_dir = RunDir(runs / job.name)
    load = os.getloadavg()
    with open(runs / f"{job.name}.console", "a") as console:
        done = subprocess.run(
            [sys.executable, "-m", "sactory.cli", *job.command(run_dir.root)[1:]],
            cwd=ROOT,
            stdout=console,
            stderr=subprocess.STDOUT,
            preexec_fn=lambda: os.sched_setaffinity(0, {core}),
            check=False,
        )
    if done.returncode:
        print(f"{job.name}: exit code {done.returncode}, see {console.name}", flush=True)
        return
    final = final_score(run_dir, core)
    rows = [row for row in read_log(run_dir.eval_log) if "export" in row]
    end = read_json(run_dir.done)
    made = read_json(run_dir.provenance)
    result = {
        "task": job.task,
        "seed": job.seed,
        "settings": dict(job.settings),
        "score": final["ER"],
        **({"success": final["SUCCESS"]} if "SUCCESS" in final else {}),
        "curve": [[row["step"], round(row["episode_reward"], 1)] for row in rows],
        "ratio": end["ratio"],
        "env_steps": end["env_steps"],
        "train_steps": end["train_steps"],
        "seconds": round(end["time"] - made["time"]),
        "cores": 1,
        "load_at_start_and_end": [round(load[0], 1), round(os.getloadavg()[0], 1)],
        "commit": made["git"],
        "command": shlex.join(job.command("R")),
    }
    write_json(results / f"{job.name}.json", result)
    print(f"{job.name}: {final} in {result['seconds']} s", flush=True)


def final_score(run_dir: RunDir, core: int) -> dict[str, float]:
    """What the console says of many episodes of the last policy: ER, and SUCCESS if there is one.

    The evaluations of the curve have ten: too few where a policy gets all or nothing.
    """
    where = ["--run_dir", str(run_dir), "--step", "latest", "--episodes", str(EPISODES)]
    done = subprocess.run(
        [sys.executable, "-m", "sactory.cli", "eval", *where],
        cwd=ROOT,
        capture_output=True,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
        check=True,
    )
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("| eval |")]
    columns = dict(part.split(": ") for part in line.split(" | ")[1:])
    return {name: float(value) for name, value in columns.items()}


def table() -> str:
    """The results as Markdown, one line a task; beside training ten episodes are played."""
    lines = [
        f"| task | env steps | scores of {EPISODES} episodes | mean | mean of 10 | wanted |",
        "|---|---|---|---|---|---|",
    ]
    for task, (env_steps, wanted) in WANTED.items():
        results = [json.loads(p.read_text()) for p in sorted(RESULTS.glob(f"{task}_*.json"))]
        if results:
            each = ", ".join(f"{r['score']:.0f} (seed {r['seed']})" for r in results)
            mean = statistics.mean(r["score"] for r in results)
            of_ten = statistics.mean(r["curve"][-1][1] for r in results)
            means = f"{mean:.0f} | {of_ten:.0f}"
            lines.append(f"| {task} | {env_steps:,} | {each} | {means} | {wanted} |")
    return "\n".join(lines)


def main(argv: list[str]) -> None:
    """Runs what is missing, then prints the table."""
    flags = Flags("learning", "Trains the shipped tasks and tabulates their scores.")
    flags.string("tasks", ",".join(WANTED), "which tasks, by comma")
    flags.string("seeds", "1,2", "which seeds, by comma")
    flags.string("runs", str(ROOT / "runs" / "learning"), "where the run directories go")
    flags.boolean("table", False, "only print the table of what is there")
    args, _ = flags.parse(argv)
    if not args.table:
        order = itertools.product(args.seeds.split(","), args.tasks.split(","))
        jobs = (Job(task, int(seed), WANTED[task][0]) for seed, task in order)
        train_all(jobs, Path(args.runs).resolve(), RESULTS)
    print(table())


if __name__ == "__main__":
    run_script(main)
