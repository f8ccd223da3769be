"""The scripts in a run's own directory, as users of such clusters know them.

run.slrm    the run as a job of its own: `sbatch run.slrm`
run.sh      the same run on this machine, without SLURM: `sh run.sh`
"""

from __future__ import annotations

import shlex

from sactory.run_dir import RunDir, write_atomic
from slurm import job
from slurm.plan import Plan
from slurm.site import Site


def write(run: RunDir, plan: Plan, site: Site, kill_wait: int) -> None:
    """Writes both; what a hand has changed in an earlier one is lost.

    Args:
        run: The run.
        plan: Its steps.
        site: The site's settings.
        kill_wait: The cluster's KillWait in seconds.
    """
    text = job.script(
        plan,
        site,
        run.root,
        name=job_name(run),
        output=run.root / "stdout",
        kill_wait=kill_wait,
    )
    write_atomic(run.root / "run.slrm", text)
    command = shlex.join([*site.command(), "run", "--run_dir", str(run.root)])
    lines = ["#!/bin/bash", "# Runs or resumes this run on this machine, without SLURM."]
    write_atomic(run.root / "run.sh", "\n".join([*lines, *site.setup_lines(), f"exec {command}\n"]))


def job_name(run: RunDir) -> str:
    """A job's name for `squeue`: the last parts of the run directory."""
    return "/".join(run.root.parts[-3:]).lstrip("/")
