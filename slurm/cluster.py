"""Talks to SLURM by its own commands."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time

from sactory.errors import UserError

_SECONDS = 60.0


def require() -> None:
    """Raises `UserError` where SLURM's commands are missing."""
    if shutil.which("sbatch") is None:
        raise UserError(
            "sbatch is not found: run this on a login node of your cluster, or with --dry_run to "
            "see the script"
        )


def call(*command: str) -> str:
    """What a command of SLURM prints.

    Raises:
        UserError: It fails; with its own words.
    """
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_SECONDS, env=environment
        )
    except (OSError, subprocess.TimeoutExpired) as e:
        raise UserError(f"{command[0]}: {e}") from e
    if done.returncode:
        said = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise UserError(f"{command[0]} refused: {said}")
    return done.stdout


def submit(*arguments: str) -> str:
    """Submits a job; returns its id."""
    return call("sbatch", "--parsable", *arguments).strip().split(";")[0]


def state(job: str) -> str:
    """A job's state in one word, such as PENDING or RUNNING; "" if it is no longer queued.

    One that is ending may yet go back to the queue: that is waited for.
    """
    if not re.fullmatch(r"\d+(_\d+)?", job):
        return ""
    end = time.monotonic() + _SECONDS
    while True:
        try:
            lines = call("squeue", "--noheader", "--jobs", job, "--format", "%T").split()
        except UserError:  # SLURM no longer knows it
            return ""
        if not lines or lines[0] != "COMPLETING" or time.monotonic() > end:
            return lines[0] if lines else ""
        time.sleep(1.0)


def tasks(job: str) -> list[str]:
    """Ids such as `17_3` of an array's tasks that wait or run."""
    try:
        said = call("squeue", "--noheader", "--array", "--jobs", job, "--format", "%i %T")
    except UserError:  # SLURM no longer knows it
        return []
    rows = [line.split() for line in said.splitlines()]
    return [name for name, now in rows if now != "COMPLETING" and "_" in name]


def most_cpus(partition: str) -> int:
    """CPUs of the partition's largest nodes; 0 if SLURM doesn't say."""
    chosen = ["--partition", partition] if partition else []
    try:
        said = call("sinfo", "--noheader", "--format", "%P %c", *chosen)
    except UserError:
        return 0
    rows = [line.split() for line in said.splitlines()]
    if not partition and any(name.endswith("*") for name, _ in rows):
        rows = [row for row in rows if row[0].endswith("*")]  # the default one
    return max((int(cpus.rstrip("+")) for _, cpus in rows), default=0)


def kill_wait() -> int:
    """Seconds from SLURM's TERM to its KILL."""
    try:
        match = re.search(
            r"^KillWait\s*=\s*(\d+)", call("scontrol", "show", "config"), re.MULTILINE
        )
    except UserError:
        match = None
    return int(match.group(1)) if match else 30
