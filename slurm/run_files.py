"""The scripts in a run's own directory, as users of such clusters know them.

`run.slrm` is the run as a job of its own, for `sbatch`; `run.sh` runs it on this machine.
"""

from __future__ import annotations

import shlex

from sactory.run_dir import RunDir, write_atomic
from sactory.run_list import JOB_SCRIPT
from slurm import job
from slurm.plan import Plan
from slurm.site import Site


def job_script(run: RunDir, plan: Plan, site: Site, kill_wait: int) -> str:
    """The text of `run.slrm`.

    Args:
        run: The run.
        plan: Its steps.
        site: The site's settings.
        kill_wait: The cluster's KillWait in seconds.
    """
    return job.script(
        plan,
        site,
        run.root,
        name="/".join(run.root.parts[-3:]).lstrip("/"),
        output=run.root / "stdout",
        kill_wait=kill_wait,
    )


def write(run: RunDir, script: str, site: Site) -> None:
    """Writes both; what a hand has changed in an earlier one is lost.

    Args:
        run: The run.
        script: Its `job_script`.
        site: The site's settings.
    """
    write_atomic(run.root / JOB_SCRIPT, script)
    command = shlex.join([*site.command(), "run", "--run_dir", str(run.root)])
    head = ["#!/bin/bash", "# Runs or resumes this run on this machine, without SLURM."]
    text = "\n".join([*head, *site.setup_lines(), f'exec {command} "$@"\n'])
    write_atomic(run.root / "run.sh", text)
