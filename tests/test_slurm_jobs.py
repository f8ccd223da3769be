"""Runs as jobs of a real SLURM, with fake programs: how they start, end and come back."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from sactory.run_dir import read_json
from tests.fake_tree import FINISH, Run
from tests.slurm_site import Cluster, slurm_only, until

ROOT = Path(__file__).resolve().parent.parent
pytestmark = [pytest.mark.timeout(300), slurm_only]
STEADY = {"replay_server": "steady", "collect": "steady", "train": "steady", "eval": "steady"}
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")
GONE_SECONDS = 35.0


class Job(Run):
    """A run directory with fake programs that goes through `sactory submit`."""

    def __init__(self, root: Path, cluster: Cluster):
        super().__init__(root)
        self.cluster, self.site = cluster, root.parent / "site.ini"
        self.dir.config.write_text("replay_server.listen = 'network'\n")
        self.site.write_text("")
        self.environment = {
            **self.environment,
            "PATH": cluster.environment["PATH"],
            "SLURM_CONF": cluster.environment["SLURM_CONF"],
            "PYTHONPATH": str(ROOT),
            "SACTORY_SITE": str(self.site),
        }

    def submit(self, modes: dict[str, str], *arguments: str, time: str = "10") -> str:
        """Runs `sactory submit` and returns the job's id."""
        fake = [sys.executable, str(ROOT / "tests" / "fake_job.py"), json.dumps(modes)]
        self.site.write_text(f"[job]\ntime = {time}\n[environment]\nsactory = {shlex.join(fake)}\n")
        self.said = self.sactory("submit", "--run_dir", str(self.dir), *arguments)
        return (self.dir.root / "id").read_text().strip()

    def sactory(self, *words: str) -> str:
        command = [sys.executable, "-m", "sactory.cli", *words]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def text(self, name: str) -> str:
        path = self.dir.root / name
        return path.read_text() if path.exists() else ""

    def why(self) -> str:
        return self.text("stdout") + self.text("stderr")

    def until_beating(self, *names: str) -> None:
        until(lambda: self.beating(*names), 60, self.why)

    def hosts(self) -> dict[str, str]:
        beats = {p.stem: read_json(p) for p in self.dir.status("").parent.glob("*.json")}
        return {name: beat["host"] for name, beat in beats.items() if beat}

    def until_gone(self) -> None:
        until(lambda: not self.processes(), GONE_SECONDS, lambda: str(self.processes()))


PROGRAMS = ("replay_server", "collect_0", "train", "eval")


@pytest.fixture
def job(tmp_path, cluster):
    job = Job(tmp_path / "R", cluster)
    yield job
    queued = cluster.run("squeue", "-h", "-o", "%A").split()
    if queued:
        cluster.run("scancel", *queued)
    until(lambda: not cluster.run("squeue", "-h").strip(), 60)
    job.end()


def test_a_job_runs_every_program_to_the_end_and_is_not_submitted_again(job):
    job_id = job.submit({**FINISH, "collect": "finish"})
    assert job.cluster.wait_for(job_id, ENDED, 60) == "COMPLETED", job.why()
    assert "| eval | S: 100 | ER: 42.0000" in job.text("stdout")
    job.until_gone()
    job.submit({})
    assert "is finished: nothing to submit" in job.said
    assert job.cluster.run("squeue", "-h") == ""


def test_scancel_lets_all_programs_save_and_leaves_none(job):
    job_id = job.submit(STEADY, "--nodes", "3")
    job.until_beating(*PROGRAMS)
    if job.cluster.own_names:
        hosts = job.hosts()
        assert hosts["eval"] == hosts["replay_server"]
        assert len({hosts[name] for name in ("replay_server", "train", "collect_0")}) == 3
    job.submit(STEADY, "--nodes", "3")
    assert "already (running)" in job.said
    job.cluster.run("scancel", job_id)
    job.until_gone()
    for name in PROGRAMS:
        assert job.text(f"saved_{name}"), f"{name} did not save: {job.why()}"
    assert job.cluster.wait_for(job_id, ENDED, 30) == "CANCELLED"
    again = job.submit(STEADY, "--nodes", "3")
    assert again != job_id
    job.until_beating(*PROGRAMS)


def test_the_warning_before_the_time_limit_saves_and_requeues(job):
    job_id = job.submit(STEADY)
    job.until_beating(*PROGRAMS)
    pid = job.pid("train")
    job.cluster.run("scancel", "--batch", "--signal=USR1", job_id)  # as --signal=B:USR1@… does
    until(lambda: job.text("saved_replay_server"), 30, job.why)
    saved = {name: (job.dir.root / f"saved_{name}").stat().st_mtime for name in PROGRAMS}
    assert max(saved, key=lambda name: saved[name]) == "replay_server"
    until(lambda: job.cluster.job(job_id)["Restarts"] == "1", 60)
    until(lambda: job.beating(*PROGRAMS, pid_not=pid), 60, job.why)
    assert "start 2 on" in job.text("stdout")


def test_a_lost_node_brings_the_job_back(job):
    job_id = job.submit(STEADY)
    job.until_beating(*PROGRAMS)
    pid, node = job.pid("train"), job.cluster.job(job_id)["BatchHost"]
    job.cluster.run("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
    until(lambda: job.beating(*PROGRAMS, pid_not=pid), 90, job.why)
    assert job.cluster.job(job_id)["Restarts"] == "1"


def test_a_preempted_job_saves_and_comes_back(job):
    job_id = job.submit(STEADY, "--partition", "low")
    job.until_beating(*PROGRAMS)
    pid = job.pid("train")
    better = ["--partition=main", "--nodes=3", "--exclusive", "--output=/dev/null"]
    job.cluster.run("sbatch", *better, "--wrap", "sleep 2")
    until(lambda: all(job.text(f"saved_{name}") for name in PROGRAMS), 60, job.why)
    until(lambda: job.beating(*PROGRAMS, pid_not=pid), 90, job.why)
    assert job.cluster.job(job_id)["Restarts"] == "1"


def test_a_program_that_fails_for_good_ends_the_job(job):
    job_id = job.submit({**STEADY, "train": "user_error"})
    assert job.cluster.wait_for(job_id, ENDED, 60) == "FAILED"
    job.until_gone()
    assert "sactory: error: train failed (exit code 2): mend this" in job.text("stderr")
    assert job.cluster.job(job_id)["Restarts"] == "0"
    assert job.text("saved_replay_server")


def test_collectors_in_an_array_come_and_go_and_end_with_the_run(job):
    everybody = [*PROGRAMS, "collect_1", "collect_2", "collect_3"]
    job_id = job.submit(STEADY, "--collectors", "3")
    job.until_beating(*everybody)
    pid = job.pid("train")
    job.submit(STEADY, "--collectors", "1")
    assert "collectors beside it: 1 (0 submitted, 2 cancelled)" in job.said
    until(lambda: job.text("saved_collect_2") and job.text("saved_collect_3"), 30)
    (job.dir.root / "saved_collect_2").unlink()
    job.submit(STEADY, "--collectors", "2")
    assert "collectors beside it: 2 (1 submitted, 0 cancelled)" in job.said
    job.until_beating(*PROGRAMS, "collect_1", "collect_2")
    assert job.pid("train") == pid
    job.cluster.run("scancel", job_id)
    job.until_gone()
    assert job.text("saved_collect_2")


def test_sactory_stop_ends_a_job_from_any_host(job):
    job_id = job.submit(STEADY)
    job.until_beating(*PROGRAMS)
    job.sactory("stop", "--run_dir", str(job.dir))
    assert job.cluster.wait_for(job_id, ENDED, 60) == "FAILED"
    assert job.processes() == {}
    assert job.cluster.job(job_id)["Restarts"] == "0"


def test_a_job_with_too_few_cpus_says_so_instead_of_waiting(job):
    script = job.sactory("submit", "--run_dir", str(job.dir), "--dry_run")
    assert "--cpus-per-task=5" in script
    path = job.dir.root / "edited.sbatch"
    path.write_text(script.replace("--cpus-per-task=5", "--cpus-per-task=2"))
    said = subprocess.check_output(["sbatch", "--parsable", path], env=job.environment, text=True)
    assert job.cluster.wait_for(said.strip(), ENDED, 30) == "FAILED"
    assert "the steps want 5 CPUs of" in job.text("stderr")
