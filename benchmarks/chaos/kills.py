"""What each death costs: kill -9 of every program, three times each, during a learning run.

    python -m benchmarks.chaos.kills

For each seed one run is disturbed and one is not. Results are
benchmarks/results/kills/<kind>_<seed>.json, and what is there is not done again; a run that was
interrupted begins anew.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import shutil
import signal
import statistics
import time
from pathlib import Path
from typing import Any

from benchmarks import cores
from benchmarks.chaos import counted_env
from benchmarks.chaos.invariants import Observer
from benchmarks.chaos.subject import PROGRAMS, ROOT, Counters, Subject, kill
from sactory.flags import Flags, run_script
from sactory.metrics import read_log
from sactory.run_dir import read_json, write_json

RESULTS = ROOT / "benchmarks" / "results" / "kills"
ENV_STEPS = 60_000
# The server's deaths come last: before them every row that is missing is a collector's.
ORDER = ("collect_0", "train", "eval") * 3 + ("replay_server",) * 3
FIRST_KILL, BETWEEN = 9_000, 4_000  # env steps
_RECOVERY_SECONDS = 300.0
_KINDS = ("disturbed", "undisturbed")


def settings(seed: int, counter: Path) -> dict[str, Any]:
    """cartpole_swingup as shipped, with counted steps, to its end whatever it scores."""
    return {
        "run.seed": seed,
        "run.max_env_steps": ENV_STEPS,
        "run.stop_at_return": None,
        "envs.load.name": "python:benchmarks.chaos.counted_env:load",
        "envs.load.task_kwargs": {"counter": str(counter)},
        "replay.checkpoint_seconds": 60.0,
        "eval.Evaluator.video": False,
    }


def disturb(subject: Subject, counter: Path) -> list[dict[str, Any]]:
    """Kills each program three times at fixed numbers of env steps; one record each."""
    records: list[dict[str, Any]] = []
    for i, name in enumerate(ORDER):
        due = FIRST_KILL + i * BETWEEN
        before = subject.wait_until(_Due(due, name), 3600)
        if before is None:
            break
        kill(before.pids[name], signal.SIGKILL)
        began, killed, saved = time.monotonic(), time.time(), subject.saved()
        missing = _missing_rows(subject, counter) if name == "collect_0" else 0
        after = subject.wait_until(_Well(before, name), _RECOVERY_SECONDS)
        record: dict[str, Any] = {"program": name, "env_steps": before.env_steps}
        record["seconds_to_recover"] = None if after is None else time.monotonic() - began
        if name == "collect_0":  # all collectors' losses so far, less those that are known
            record["rows_lost"] = missing - sum(r.get("rows_lost", 0) for r in records)
        elif name == "train" and after is not None:
            restart = subject.events("restart")[-1]
            record["updates_lost"] = max(0, before.train_steps - restart["train_step"])
        elif name == "replay_server" and after is not None:
            record["rows_lost"] = before.rows_inserted - saved.rows
            record["seconds_since_saved"] = killed - saved.time
        records.append(record)
        print(json.dumps(record), flush=True)
    return records


@dataclasses.dataclass(frozen=True)
class _Due:
    """Whether it is time to kill a program, and it is there."""

    env_steps: int
    name: str

    def __call__(self, now: Counters) -> bool:
        return now.env_steps >= self.env_steps and self.name in now.pids


@dataclasses.dataclass(frozen=True)
class _Well:
    """Whether all programs are up, the killed one anew, and env steps are made again."""

    before: Counters
    name: str

    def __call__(self, now: Counters) -> bool:
        is_new = now.pids.get(self.name) not in (None, self.before.pids[self.name])
        moved = now.env_steps > self.before.env_steps
        return is_new and moved and now.is_ready


def _missing_rows(subject: Subject, counter: Path) -> int:
    """Steps taken that are no rows of the replay; exact while no collector lives.

    One more may be missing: a step that was begun when the collector died.
    """
    killed = time.time()

    def server() -> dict[str, Any]:
        return read_json(subject.run_dir.status("replay_server")) or {}

    subject.wait_until(lambda _: server().get("time", 0) > killed + 2.0, 30)
    return counted_env.read_counter(counter) - int(server()["rows_inserted"])


def run(kind: str, seed: int, runs: Path, core: int) -> None:
    """One run to its end, and its result."""
    runs.mkdir(parents=True, exist_ok=True)
    os.sched_setaffinity(0, {core})
    place, load = runs / f"{kind}_{seed}", os.getloadavg()
    shutil.rmtree(place, ignore_errors=True)
    counter = runs / f"{kind}_{seed}.count"
    counted_env.make_counter(counter)
    subject = Subject(place, "configs/tasks/cartpole_swingup.gin", settings(seed, counter))
    observer = Observer(subject)
    subject.start()
    observer.start()
    try:
        records = disturb(subject, counter) if kind == "disturbed" else []
        subject.wait_until(lambda now: False, 2 * 3600)
    finally:
        subject.end()
        observer.stop()
    done = read_json(subject.run_dir.done) or {}
    rows = [row for row in read_log(subject.run_dir.eval_log) if "export" in row]
    result = {
        "kind": kind,
        "seed": seed,
        "exit_code": subject.exit_code,
        "score": rows[-1]["episode_reward"] if rows else None,
        "env_steps": done.get("env_steps"),
        "train_steps": done.get("train_steps"),
        "ratio": done.get("ratio"),
        "steps_taken": counted_env.read_counter(counter),
        "violations": observer.violations,
        "kills": records,
        "load_at_start_and_end": [round(load[0], 1), round(os.getloadavg()[0], 1)],
        "commit": (read_json(subject.run_dir.provenance) or {}).get("git"),
        "command": "python -m benchmarks.chaos.kills",
    }
    write_json(RESULTS / f"{kind}_{seed}.json", result)


def table() -> str:
    """The results as Markdown: what each kill cost, then the scores."""
    results = [json.loads(p.read_text()) for p in sorted(RESULTS.glob("*.json"))]
    kills = [k for r in results for k in r["kills"]]
    lines = [
        "| killed | times | s to recover, median (worst) | lost, worst | lost, mean |",
        "|---|---|---|---|---|",
    ]
    for name in PROGRAMS:
        mine = [k for k in kills if k["program"] == name]
        times = [k["seconds_to_recover"] for k in mine if k["seconds_to_recover"] is not None]
        unit = "updates" if name == "train" else "rows"
        lost = [k[f"{unit}_lost"] for k in mine if f"{unit}_lost" in k]
        if times:
            lines.append(
                f"| {name} | {len(mine)} | {statistics.median(times):.1f} ({max(times):.1f}) | "
                + (f"{max(lost)} {unit} | {statistics.mean(lost):.0f} |" if lost else "- | - |")
            )
    lines += ["", "| run | scores (seeds) | mean |", "|---|---|---|"]
    for kind in _KINDS:
        mine = [r for r in results if r["kind"] == kind and r["score"] is not None]
        if mine:
            scores = ", ".join(f"{r['score']:.0f} ({r['seed']})" for r in mine)
            mean = statistics.mean(r["score"] for r in mine)
            lines.append(f"| {kind} | {scores} | {mean:.0f} |")
    wrong = [v for r in results for v in r["violations"]]
    return "\n".join([*lines, "", f"{len(wrong)} violations", *wrong])


def main(argv: list[str]) -> int:
    """Runs what is missing, one run a core, then prints the tables."""
    flags = Flags("kills", "Kills every program of learning runs and tabulates what it cost.")
    flags.string("seeds", "1,2,3", "which seeds, by comma")
    flags.string("runs", str(ROOT / "runs" / "kills"), "where the run directories go")
    flags.boolean("table", False, "only print the tables of what is there")
    args, _ = flags.parse(argv)
    if not args.table:
        jobs = itertools.product(map(int, args.seeds.split(",")), _KINDS)
        missing = [(k, s) for s, k in jobs if not (RESULTS / f"{k}_{s}.json").exists()]
        cores.share(missing, lambda job, core: run(*job, Path(args.runs).resolve(), core))
    print(table())
    return 0


if __name__ == "__main__":
    run_script(main)
