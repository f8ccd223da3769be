"""Wall time until walker_walk is solved: whole systems, one run at a time on 2 cores.

Ours is a real `sactory run` that ends by `run.stop_at_return`; the clock runs from its start to the
end of the evaluation that reached the return, evaluations beside training included. A peer trains
in one process; its evaluations stop its clock. All have the same numbers of SAC, evaluate the mean
action as often and over as many episodes.

A finished run is a file in `results/bench`, so that an interrupted benchmark goes on where it was.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import comparison
from benchmarks.chaos.subject import Subject
from benchmarks.peers.environment import Peers
from benchmarks.peers.job import Job
from benchmarks.rounds import ROOT, worker_environment
from sactory.errors import UserError
from sactory.metrics import read_log
from sactory.run_dir import read_json, write_json

PARTS = ROOT / "benchmarks" / "results" / "bench"
SEEDS = (1, 2, 3)
_FUSED = {comparison.SBX: 1, comparison.SBX_16: 16, comparison.SBX_64: 64}
_MAX_SECONDS = 4 * 3600.0


def job(seed: int, fused: int) -> Job:
    """One run of SBX."""
    return Job("to_return", cores=2, fused=fused, task="walker_walk", seed=seed)


def settings(of: Job) -> dict[str, Any]:
    """Our run with the same task, seed, evaluations and end; all else as shipped."""
    return {
        "run.seed": of.seed,
        "run.stop_at_return": of.target,
        "run.max_env_steps": of.max_env_steps,
        "eval.Evaluator.every_env_steps": of.every,
        "eval.Evaluator.num_eval_episodes": of.episodes,
        "eval.Evaluator.video": False,
    }


def run_ours(of: Job) -> dict[str, Any]:
    """One whole run of ours."""
    with tempfile.TemporaryDirectory() as place:
        config = f"configs/tasks/{of.task}.gin"
        subject = Subject(Path(place) / "run", config, settings(of))
        began = time.time()
        subject.start()
        try:
            subject.wait_until(lambda now: False, _MAX_SECONDS)
        finally:
            subject.end()
        if subject.exit_code != 0:
            raise UserError(f"a run ended with {subject.exit_code}: {_last_line(subject.console)}")
        scores = [row for row in read_log(subject.run_dir.eval_log) if "export" in row]
    return outcome(
        [(row["step"], row["episode_reward"]) for row in scores],
        [row["time"] - began for row in scores],
        of.target,
    )


def outcome(curve: list[tuple[int, float]], seconds: list[float], target: float) -> dict[str, Any]:
    """What a run came to, by its first evaluation that reached the target.

    Args:
        curve: Env steps and mean return of each evaluation.
        seconds: When each was over.
        target: The return.
    """
    reached = [i for i, (_, score) in enumerate(curve) if score >= target]
    last = reached[0] if reached else len(curve) - 1
    return {
        "seconds": round(seconds[last], 1) if reached else None,
        "env_steps": curve[last][0],
        "curve": [[steps, round(score, 1)] for steps, score in curve[: last + 1]],
    }


def run_peer(peers: Peers, of: Job) -> dict[str, Any]:
    """One run of SBX."""
    began = time.time()
    done = subprocess.run(
        peers.command("sbx", of),
        cwd=ROOT,
        env=worker_environment(),
        capture_output=True,
        text=True,
        timeout=_MAX_SECONDS,
        check=False,
    )
    if done.returncode:
        raise UserError(f"SBX died: {done.stderr.strip().splitlines()[-1:]}")
    told = json.loads(done.stdout)
    # Its last evaluation is the one that reached the target.
    spent = told["end_time"] - began - told["evaluation_seconds"]
    return outcome(told["curve"], [spent] * len(told["curve"]), of.target)


def best_sbx(bench: dict[str, Any]) -> str:
    """SBX's fastest setting end to end, by what has been measured; 64 fused by default."""
    entries = bench.get("end_to_end", {}).get("entries", [])
    rates = {e["name"]: e["per_second"] for e in entries if e["name"] in _FUSED}
    return max(rates, key=lambda name: rates[name], default=comparison.SBX_64)


def measure(
    peers: Peers, best: str, commit: str | None, seeds: tuple[int, ...] = SEEDS
) -> list[dict[str, Any]]:
    """Runs what is missing, contenders taking turns.

    Args:
        peers: Where SBX is.
        best: Which of its settings.
        commit: What is measured: results of another commit are made anew.
        seeds: One run of each.

    Returns:
        An entry for each contender.
    """
    PARTS.mkdir(parents=True, exist_ok=True)
    names = [comparison.SACTORY] + [best] * (peers.missing is None)
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for seed in seeds:
        for name in names:
            of = job(seed, _FUSED.get(name, 1))
            path = PARTS / f"to_return_{name.replace(', ', '_').replace(' ', '_')}_{seed}.json"
            made = {"name": name, "job": of.to_json(), "commit": commit}
            result = read_json(path) if path.exists() else None
            if not isinstance(result, dict) or any(result.get(k) != v for k, v in made.items()):
                load = os.getloadavg()[0]
                ran = run_ours(of) if name == comparison.SACTORY else run_peer(peers, of)
                result = {**made, **ran, "load_at_start": round(load, 1)}
                write_json(path, result)
            print(f"{name}, seed {seed}: {result['seconds']} s", flush=True)
            runs[name].append(result)
    return [entry(name, results) for name, results in runs.items()]


def entry(name: str, results: list[dict[str, Any]]) -> dict[str, Any]:
    """The median of a contender's runs; None where half of them failed."""
    seconds = [r["seconds"] for r in results]
    middle = statistics.median(float("inf") if s is None else s for s in seconds)
    each = ", ".join("not reached" if s is None else f"{s:.0f}" for s in seconds)
    kept = [{k: r[k] for k in ("seconds", "env_steps", "curve", "load_at_start")} for r in results]
    return {
        "name": name,
        "seconds": None if middle == float("inf") else middle,
        "each": each,
        "runs": kept,
    }


def forget_parts() -> None:
    """Removes the single runs once their section is whole."""
    for path in PARTS.glob("to_return_*.json"):
        path.unlink()


def _last_line(console: Path) -> str:
    lines = console.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"
