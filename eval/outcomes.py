"""What became of each run of a report: how it ended, and its evaluations.

Reads run directories only; no program needs to live.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sactory import policies, run_list, slurm_view, status, status_files
from sactory.errors import UserError
from sactory.json_lines import read_log
from sactory.run_dir import RunDir
from sactory.run_list import Name

FINISHED, MISSING = "finished", "missing"


@dataclass(frozen=True)
class Outcome:
    """One run.

    Attributes:
        name: Task, configuration and seed.
        state: `finished`, `crashed`, `unfinished` or `missing`.
        why: One line on a run that is not finished.
        env_steps: Env steps that it has made.
        curve: Env steps and mean return of each evaluation, ascending.
        every_env_steps: Env steps between two evaluations.
    """

    name: Name
    state: str
    why: str = ""
    env_steps: int = 0
    curve: tuple[tuple[int, float], ...] = ()
    every_env_steps: int = 1

    def score(self, at: int | None) -> float | None:
        """The return of the last evaluation, the field's final score; None if it doesn't count.

        Args:
            at: The last one at or before so many env steps, of a run that has come so far; None:
                of a run that is finished.
        """
        counts = self.state == FINISHED if at is None else self.env_steps >= at
        reached = [value for step, value in self.curve if at is None or step <= at]
        return reached[-1] if counts and reached else None


def read_all(runs: Iterable[RunDir]) -> tuple[list[Outcome], str]:
    """The outcomes of runs, sorted, and a `missing` one for each seed that only other tasks have.

    Returns:
        The outcomes, and why SLURM was of no help ("" if it was, or there is none).

    Raises:
        UserError: Two runs have the same task, configuration and seed.
    """
    places: dict[Name, RunDir] = {}
    for run in runs:
        name = run_list.name(run)
        other = places.setdefault(name, run)
        if other is not run:
            raise UserError(f"{other} and {run} are both {name}: report on them one by one")
    view = slurm_view.look(places.values())
    found = {name: _read(name, run, view.jobs.get(run.root)) for name, run in places.items()}
    for config in {name.config for name in places}:
        tasks = {name.task for name in places if name.config == config}
        seeds = {name.seed for name in places if name.config == config}
        for name in (Name(task, config, seed) for task in tasks for seed in seeds):
            found.setdefault(name, Outcome(name, MISSING, "there is no such run"))
    return [found[name] for name in sorted(found)], view.trouble


def _read(name: Name, run: RunDir, job: slurm_view.Job | None) -> Outcome:
    if not run.is_frozen:
        return Outcome(name, MISSING, "it has not begun")
    told = status.collect(run)
    values = run_list.read_settings(run)
    curve = tuple(evaluations(run))
    state, why = _ending(told, job, values.get("run.max_env_steps"))
    if state == FINISHED and (not curve or policies.unscored(run, policies.scores(run))):
        state, why = "unfinished", "its last policy has no score yet"
    every = values.get("eval.Evaluator.every_env_steps", 1)
    return Outcome(name, state, why, told["env_steps"], curve, every)


def _ending(told: dict[str, Any], job: slurm_view.Job | None, goal: int | None) -> tuple[str, str]:
    """How a run has ended, and a line that says more unless it is finished."""
    if told["done"]:
        return FINISHED, ""
    steps = f"at {told['env_steps']:,} of {goal:,} env steps" if goal else ""
    if told["state"] == "failed":
        return "crashed", f"{steps}: {told['why'][0]}"
    if job is not None and job.is_over and job.state != "COMPLETED":
        return "crashed", f"{steps}: job {job.id} ended as {job.state}"
    if job is not None and not job.is_over:
        return "unfinished", f"{steps}: job {job.id} is {job.state}"
    return "unfinished", f"{steps}: {told['state']}"


def evaluations(run: RunDir) -> list[tuple[int, float]]:
    """Env steps and return of a run's evaluations; those that a restart has overtaken are out."""
    restarts = _restarts(run.train_log)
    points: dict[int, float] = {}
    for row in read_log(run.eval_log):
        step, value = status_files.number(row.get("step")), row.get("episode_reward")
        if step is None or not isinstance(value, (int, float)) or not math.isfinite(value):
            continue
        made = status_files.number(row.get("incarnation"))
        at = status_files.number(row.get("train_step"))
        if made is not None and at is not None and any(made < i and at > t for i, t in restarts):
            continue
        points[int(step)] = float(value)
    return sorted(points.items())


def _restarts(log: Path) -> list[tuple[float, float]]:
    """Incarnation and restored train step of each restart of the trainer.

    Only lines with an event are parsed: episodes are thousands.
    """
    found = []
    with contextlib.suppress(OSError), open(log, "rb") as lines:
        for line in lines:
            if b'"restart"' not in line:
                continue
            with contextlib.suppress(ValueError):
                row = json.loads(line)
                numbers = [status_files.number(row.get(k)) for k in ("incarnation", "train_step")]
                if row.get("event") == "restart" and None not in numbers:
                    found.append((numbers[0], numbers[1]))
    return found
