"""`sactory status 'runs/*'`: a line for each of many runs, what SLURM says of it included.

Numbers come from `status.collect` and `slurm_view.look`; this joins and draws them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from sactory import run_list, slurm_view, status
from sactory.run_dir import RunDir

_COLUMNS = ("run", "state", "env steps", "return", "job", "SLURM", "node", "time", "restarts")
_RIGHT = ("env steps", "return", "restarts")
_QUIET = ("done", "running")  # states that say all; of the others a line says why


def collect(runs: Iterable[RunDir], view: slurm_view.View) -> list[dict[str, Any]]:
    """What `--json` prints of many runs: some fields of each one's status, and its job."""
    return [_one(run, view.jobs.get(run.root)) for run in runs]


def _one(run: RunDir, job: slurm_view.Job | None) -> dict[str, Any]:
    told = status.collect(run)
    state = slurm_view.joined(told["state"], job)
    why = [*_slurms_reason(state, job), *told["why"]]
    if state == "failed":  # what the program said tells more than how its job ended
        why = [*told["why"], *_slurms_reason(state, job)]
    return {
        "run_dir": str(run.root),
        "state": state,
        "env_steps": told["env_steps"],
        "max_env_steps": run_list.read_settings(run).get("run.max_env_steps"),
        "train_steps": told["train_steps"],
        "last_eval_return": told["last_eval_return"],
        "job": None if job is None else asdict(job),
        "why": why,
    }


def _slurms_reason(state: str, job: slurm_view.Job | None) -> list[str]:
    """Why a run waits, or that its job is over."""
    if job is None or job.state == "RUNNING" or state == "done":
        return []
    reason = f" ({job.reason})" if job.reason else ""
    if job.is_over:
        more = ": the same `sactory submit` goes on" if state == "stopped" else ""
        return [f"job {job.id} ended as {job.state}{reason}{more}"]
    return [f"job {job.id} is {job.state}{reason}"]


def render(rows: list[dict[str, Any]], trouble: str) -> Group:
    """The table and the lines below it.

    Args:
        rows: What `collect` returned.
        trouble: Why SLURM gives no answer, or "".
    """
    counts = Counter(row["state"] for row in rows)
    title = ", ".join(f"{count} {state}" for state, count in counts.most_common())
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in _COLUMNS:
        side = "right" if name in _RIGHT else "left"
        # On a narrow terminal the run's name takes several lines; nothing is cut.
        table.add_column(name, no_wrap=name != "run", overflow="fold", justify=side)
    for row in rows:
        table.add_row(*map(Text, _cells(row)))
    lines = [f"SLURM: {trouble}"] if trouble else []
    lines += [
        f"{_name(row)}: {row['why'][0]}"
        for row in rows
        if row["why"] and row["state"] not in _QUIET
    ]
    text = f"{len(rows)} runs: {title}" if len(rows) != 1 else title
    return Group(Text(text, style="bold"), table, *(Text(f"- {x}", style="yellow") for x in lines))


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    job = row["job"] or {}
    goal = row["max_env_steps"]
    steps = f"{row['env_steps']:,}" + (f" of {goal:,}" if goal else "")
    score = row["last_eval_return"]
    restarts = job.get("restarts")
    return (
        _name(row),
        row["state"],
        steps,
        "-" if score is None else f"{score:.1f}",
        *(job.get(key) or "-" for key in ("id", "state", "nodes", "elapsed")),
        "-" if restarts is None else str(restarts),
    )


def _name(row: dict[str, Any]) -> str:
    """The last parts of the directory: task, configuration and seed."""
    return "/".join(Path(row["run_dir"]).parts[-3:])


def job_line(job: slurm_view.Job) -> str:
    """What SLURM says of one run's job, in one line."""
    where = f" on {job.nodes}" if job.nodes else ""
    reason = f" ({job.reason})" if job.reason else ""
    time = f", {job.elapsed}" if job.elapsed else ""
    restarts = f", requeued {job.restarts} times" if job.restarts else ""
    return f"job {job.id}: {job.state}{where}{reason}{time}{restarts}"
