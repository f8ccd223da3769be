"""The end of a run: the final evaluation, its result, and where everything is."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from sactory import launch
from sactory.flags import print_error
from sactory.run_dir import RunDir, read_json, write_json
from supervise import processes, tree
from supervise.interrupts import Interrupts
from supervise.progress import Console

EPISODES = 10
_POLL_SECONDS = 0.5


def failure_text(failed: dict[str, Any]) -> str:
    """One line about R/failed.json."""
    times = failed.get("failures") or 0
    often = f", {times} times in a row" if times > 1 else ""
    return f"{failed.get('program')} failed ({failed.get('exit')}{often}): {failed.get('error')}"


def print_stored(run_dir: RunDir, console: Console) -> bool:
    """Prints the result of a finished run; False if there is none yet."""
    result = read_json(run_dir.result)
    if not run_dir.is_done or not isinstance(result, dict):
        return False
    _print(run_dir, result, console)
    return True


def final_evaluation(run_dir: RunDir, root: Path, interrupts: Interrupts, console: Console) -> int:
    """Scores the last policy, prints and stores the result; returns the exit code."""
    console.say(f"sactory: finished; final evaluation of {EPISODES} episodes")
    log = root / "final_eval.log"
    arguments = ["--run_dir", str(run_dir.root), "--step", "latest", "--episodes", str(EPISODES)]
    with open(log, "wb") as errors:
        child = subprocess.Popen(
            launch.sactory_command("eval", *arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**launch.program_environment(), "CUDA_VISIBLE_DEVICES": "-1"},
            preexec_fn=processes.child_setup(),
        )
    said, told = "", False
    while True:
        try:
            said = child.communicate(timeout=_POLL_SECONDS)[0]
            break
        except subprocess.TimeoutExpired:
            if not told and _is_stopped(root, interrupts):
                child.terminate()
                told = True
    if _is_stopped(root, interrupts):
        console.say(f"sactory: stopped; `sactory run --run_dir {run_dir}` evaluates")
        return interrupts.exit_code
    if child.returncode:
        lines = log.read_text(errors="replace").split("\n")
        last = next((line for line in reversed(lines) if line.strip()), "no message")
        print_error(f"the final evaluation failed: {last} (its log: {log})")
        return 1
    done = read_json(run_dir.done) or {}
    # What it says about files stands in the list of places below.
    lines = [x for x in said.splitlines() if x.strip() and not x.startswith(("policy ", "video "))]
    result = {**done, "evaluation": lines}
    write_json(run_dir.result, result)
    _print(run_dir, result, console)
    return 0


def _is_stopped(root: Path, interrupts: Interrupts) -> bool:
    return interrupts.count > 0 or (root / tree.STOP_FILE).exists()


def _print(run_dir: RunDir, result: dict[str, Any], console: Console) -> None:
    console.say("\n".join(result["evaluation"]))
    parts = [
        f"{result.get('env_steps', 0):,} env steps",
        f"{result.get('train_steps', 0):,} updates",
    ]
    if result.get("ratio") is not None:
        parts.append(f"RATIO {result['ratio']:.4f}")
    console.say(f"sactory: finished ({result.get('reason', 'done')}): {', '.join(parts)}")
    greedy = run_dir.policies("greedy")
    exports = sorted(p.name for p in greedy.glob("[0-9]*")) if greedy.is_dir() else []
    where = {
        "run directory": run_dir.root,
        "policy": greedy / exports[-1] if exports else greedy,
        "videos": run_dir.videos,
        "logs": f"{run_dir.train_log} {run_dir.eval_log}",
        "programs' logs": f"{run_dir.services()}/*/log/main/current",
        "curves": f"sactory tensorboard --run_dir {run_dir.root}",
    }
    for name, place in where.items():
        console.say(f"  {name:<16}{place}")
