"""What SLURM says of the jobs of runs; nothing is submitted or changed here.

A run's job is the last line of `R/id`: `123`, or `123_4` for a member of an array. SLURM forgets
an ended job minutes later; where there is accounting (`sacct`) it is asked then.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from sactory.run_dir import RunDir

ID_FILE = "id"
_SECONDS = 30.0  # a busy controller may take long
_SECONDS_BETWEEN_LOOKS = 10.0
_ID = re.compile(r"\d+(_\d+)?")
# Of these a job does not come back; all others wait, run, or end and may be requeued.
_OVER = (
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL"),
    *("OUT_OF_MEMORY", "PREEMPTED", "REVOKED", "TIMEOUT"),
)
_WAITING = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD")
_ACTIVE = ("running", "starting")
_FIELDS = ("JobArrayID", "State", "NodeList", "Reason", "TimeUsed", "RestartCnt")


@dataclass(frozen=True)
class Job:
    """One job, in SLURM's own words.

    Attributes:
        id: `123` or `123_4`.
        state: `PENDING`, `RUNNING`, `TIMEOUT`, …
        nodes: Where it runs or ran.
        reason: Why it waits, or how it ended.
        elapsed: For how long, `[days-]hours:minutes:seconds`.
        restarts: How often it was requeued; None if unknown.
    """

    id: str
    state: str
    nodes: str = ""
    reason: str = ""
    elapsed: str = ""
    restarts: int | None = None

    @property
    def is_over(self) -> bool:
        """Whether it has ended for good."""
        return self.state in _OVER


@dataclass(frozen=True)
class View:
    """What SLURM said.

    Attributes:
        jobs: By the run's directory; runs without a job, or with one that is forgotten, are absent.
        trouble: Why there is no answer; "" if there is one or nobody to ask.
    """

    jobs: dict[Path, Job] = field(default_factory=dict)
    trouble: str = ""


def job_id(run: RunDir) -> str | None:
    """The last job of a run, or None if it never was one."""
    try:
        lines = (run.root / ID_FILE).read_text(errors="replace").split()
    except OSError:
        return None
    return lines[-1] if lines and _ID.fullmatch(lines[-1]) else None


def look(runs: Iterable[RunDir]) -> View:
    """Asks SLURM for the jobs of runs; no answer where there is no SLURM."""
    wanted = {run.root: found for run in runs if (found := job_id(run))}
    if not wanted or shutil.which("squeue") is None:
        return View()
    numbers = sorted({found.partition("_")[0] for found in wanted.values()})
    known, trouble = _queued(numbers)
    if not trouble:
        known = {**_accounted([n for n in numbers if n not in _numbers(known)]), **known}
    jobs = {root: job for root, found in wanted.items() if (job := _find(known, found))}
    return View(jobs, trouble)


def joined(state: str, job: Job | None) -> str:
    """A run's state by its files (`status.collect`), where SLURM knows better by SLURM.

    Signs of life from another host may outlive a killed job by seconds, and a job that waits has
    none yet.
    """
    if job is None or state == "done":
        return state
    if job.is_over:
        return "stopped" if state in _ACTIVE else state
    if state in _ACTIVE:
        return state
    return "queued" if job.state in _WAITING else "starting"


def _numbers(known: dict[str, Job]) -> set[str]:
    return {name.partition("_")[0] for name in known}


def _find(known: dict[str, Job], wanted: str) -> Job | None:
    """A job; of members that never began, the array's own record tells the end."""
    array = known.get(wanted.partition("_")[0])
    return known.get(wanted) or (Job(wanted, array.state) if array and array.is_over else None)


def _queued(numbers: list[str]) -> tuple[dict[str, Job], str]:
    form = ",".join(f"{name}:|" for name in _FIELDS)
    command = ["squeue", "-h", "-r", "-t", "all", "-j", ",".join(numbers), "-O", form]
    try:
        done = _ask(command)
    except (OSError, subprocess.TimeoutExpired) as e:
        return {}, f"squeue gives no answer: {e}"
    if done.returncode and "Invalid job id" not in done.stderr:
        said = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        return {}, f"squeue gives no answer: {said}"
    return parse(done.stdout), ""


def parse(text: str) -> dict[str, Job]:
    """Jobs by id from squeue's lines of `_FIELDS`, each followed by a bar."""
    jobs = {}
    for line in text.splitlines():
        parts = [p.strip() for p in line.split("|")]
        if len(parts) < len(_FIELDS) or not _ID.fullmatch(parts[0]):
            continue
        name, state, nodes, reason, elapsed, restarts = parts[: len(_FIELDS)]
        count = int(restarts) if restarts.isdecimal() else None
        jobs[name] = Job(name, state, nodes, "" if reason == "None" else reason, elapsed, count)
    return jobs


def _accounted(numbers: list[str]) -> dict[str, Job]:
    """What accounting remembers of jobs that squeue has forgotten; most sites have it."""
    if not numbers or shutil.which("sacct") is None:
        return {}
    fields = "JobID,State,NodeList,Elapsed"
    try:
        done = _ask(["sacct", "-n", "-P", "-X", "-j", ",".join(numbers), "-o", fields])
    except (OSError, subprocess.TimeoutExpired):
        return {}
    jobs = {}
    for line in done.stdout.splitlines():
        name, state, nodes, elapsed = [*line.split("|"), "", "", ""][:4]
        if _ID.fullmatch(name) and state:
            jobs[name] = Job(name, state.split()[0], nodes, "", elapsed)
    return jobs


def _ask(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, timeout=_SECONDS, stdin=subprocess.DEVNULL
    )


class Jobs:
    """SLURM's view of some runs, asked for now and then: its controller serves everybody."""

    def __init__(self, runs: list[RunDir]):
        self._runs = runs
        self._view = View()
        self._next = 0.0

    def look(self) -> View:
        """The newest view, some seconds old at most."""
        if time.monotonic() >= self._next:
            self._view = look(self._runs)
            self._next = time.monotonic() + _SECONDS_BETWEEN_LOOKS
        return self._view
