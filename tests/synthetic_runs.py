"""Run directories as they look after training, written by hand: for reports and lists of runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from sactory.policies import export_name
from sactory.run_dir import RunDir, write_json


def make_run(
    root: Path,
    task: str = "cartpole_balance",
    seed: int = 1,
    returns: Sequence[float | None] = (),
    config: str = "sac_states",
    every: int = 1000,
    done: bool = True,
) -> RunDir:
    """A frozen run, evaluated every so many env steps; `done` says whether it came to its end."""
    run = RunDir(root / task / config / f"seed_{seed}")
    run.root.mkdir(parents=True)
    goal = max(1, len(returns) - 1) * every
    run.config.write_text(
        f"envs.load.name = '{task}'\nrun.seed = {seed}\nrun.max_env_steps = {goal}\n"
        f"run.name = '{config}'\neval.Evaluator.every_env_steps = {every}\n"
        "collect.Worker.random_steps = 100\n"
    )
    write_json(run.provenance, {"run_id": f"{task}{seed}"})
    for number, value in enumerate(returns):
        # Exports come at the first step at or after a multiple: runs differ by a few steps.
        evaluate(run, number * every + seed * bool(number), value)
    reached = (len(returns) - 1) * every + seed if len(returns) > 1 else 0
    if done:
        write_json(run.done, {"reason": "max_env_steps", "env_steps": reached, "train_steps": 1})
    else:
        write_json(run.status("train"), {"program": "train", "env_steps": reached, "time": 1.0})
    return run


def evaluate(
    run: RunDir, step: int, value: float | None, train_step: int | None = None, start: int = 1
) -> None:
    """Adds one evaluation of a policy that the trainer's start number `start` exported."""
    train_step = step if train_step is None else train_step
    name = export_name(step, train_step, start)
    row = {"step": step, "episode_reward": value, "train_step": train_step}
    with open(run.eval_log, "a") as log:
        log.write(json.dumps({**row, "export": name, "incarnation": start}) + "\n")
