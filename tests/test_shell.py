"""Every shell script, those that `sactory submit` writes included, is clean."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from sactory.run_dir import RunDir
from slurm import job, run_files
from slurm.plan import Plan, Step
from slurm.site import Site

ROOT = Path(__file__).resolve().parent.parent
pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.skipif(shutil.which("shellcheck") is None, reason="apt-get install shellcheck"),
]
PLAN = Plan((Step(0, 1, 1000, ("replay_server", "collect_0")), Step(0, 2, 2000, ("train",))))
SITE = Site(modules="python/3.11", script="/opt/env.sh", scratch="/scratch/$USER", account="mine")


def complaints(*paths: Path) -> str:
    # 1090, 1091: what a site sources is not there to be looked at.
    command = ["shellcheck", "--shell=bash", "--exclude=SC1090,SC1091", *map(str, paths)]
    return subprocess.run(command, capture_output=True, text=True).stdout


def test_scripts_of_the_repository():
    found = [*ROOT.glob("slurm/*.sh"), *ROOT.glob("slurm/*.sbatch"), *ROOT.glob("tests/*.sh")]
    found += [*ROOT.glob("supervise/*.sh"), ROOT / ".ci" / "run", ROOT / ".ci" / "setup"]
    assert len(found) > 5
    assert complaints(*found) == ""


def test_scripts_that_are_written_for_runs(tmp_path):
    run = RunDir(tmp_path / "a place" / "seed_1")
    run.root.mkdir(parents=True)
    run_files.write(run, run_files.job_script(run, PLAN, SITE, 30), SITE)
    array = tmp_path / "array.slrm"
    members = tmp_path / "a place" / "members"
    array.write_text(job.script(PLAN, SITE, members=members, array="1-6%2", time="90"))
    assert complaints(run.root / "run.slrm", run.root / "run.sh", array) == ""
