"""Runs that train as jobs of a real SLURM: where their programs are, and what a requeue keeps."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sactory.run_dir import RunDir, read_json
from tests import slurm_site
from tests.slurm_site import Cluster, slurm_only, until

ROOT = Path(__file__).resolve().parent.parent
pytestmark = [pytest.mark.timeout(600), slurm_only]
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")
PROGRAMS = ("replay_server", "collect_0", "train", "eval")
RANDOM_STEPS = 500  # configs/debug.gin
DEBUG = (
    "envs.load.name = 'cartpole_balance'",
    "eval.Evaluator.video = False",
    "eval.Evaluator.num_eval_episodes = 1",
)
BALANCE = "configs/tasks/cartpole_balance.gin"


class Training:
    """A run that goes through `sactory submit`."""

    def __init__(self, root: Path, cluster: Cluster, configuration: str, *overrides: str):
        self.dir, self.cluster = RunDir(root), cluster
        self._words = [configuration, "--run_dir", str(root)]
        for override in overrides:
            self._words += ["--set", override]

    def submit(self, *words: str) -> str:
        environment = {**self.cluster.environment, "PYTHONPATH": str(ROOT)}
        environment.pop("SACTORY_SITE", None)
        command = [sys.executable, "-m", "sactory.cli", "submit", *self._words, *words]
        done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        self.said = done.stdout
        return (self.dir.root / "id").read_text().strip()

    def beat(self, name: str) -> dict:
        return read_json(self.dir.status(name)) or {}

    def train_steps(self) -> int:
        return int(self.beat("train").get("train_steps") or 0)

    def text(self, name: str) -> str:
        path = self.dir.root / name
        return path.read_text() if path.exists() else ""

    def why(self) -> str:
        logs = self.dir.root.glob("services/*/*/log/main/current")
        told = [f"{log}\n{log.read_text()[-2000:]}" for log in logs]
        return "\n".join([self.text("stdout"), self.text("stderr"), *told])

    def finish(self, job_id: str, seconds: float = 400) -> dict:
        """Waits for the job's end; returns what done.json says."""
        assert self.cluster.wait_for(job_id, ENDED, seconds) == "COMPLETED", self.why()
        assert (self.dir.root / "result.json").exists()
        return read_json(self.dir.done)

    def score(self) -> float:
        """Mean return of the final evaluation."""
        line = next(x for x in read_json(self.dir.result)["evaluation"] if x.startswith("| eval"))
        return float(line.split("ER:")[1].split("|")[0])

    def logged_env_steps(self) -> list[int]:
        rows = [json.loads(line) for line in self.text("train.log").splitlines()]
        return [row["step"] for row in rows if "episode_reward" in row]


@pytest.fixture(scope="module")
def one_node():
    """A node with this host's own cores, to which SLURM binds each step."""
    cpus = len(os.sched_getaffinity(0))
    with slurm_site.running(nodes=1, cpus=cpus, affinity=True) as cluster:
        yield cluster


def test_each_program_stays_on_its_cpus_of_the_allocation(one_node, tmp_path):
    run = Training(
        tmp_path / "R", one_node, "configs/debug.gin", *DEBUG, "run.max_env_steps = 1_500"
    )
    job_id = run.submit()
    until(lambda: run.train_steps() > 0, 200, run.why)
    cores = {name: os.sched_getaffinity(run.beat(name)["pid"]) for name in PROGRAMS}
    others = cores["replay_server"] | cores["collect_0"] | cores["eval"]
    assert not cores["train"] & others
    if os.cpu_count() == 2:
        assert "the programs want 5 CPUs and a node has 2: replay_server, collect_0" in run.said
        assert [len(cores[name]) for name in PROGRAMS] == [1, 1, 1, 1]
    run.finish(job_id)


def test_over_three_nodes_with_tls_a_requeued_run_goes_on(cluster, tmp_path):
    run = Training(
        tmp_path / "R", cluster, "configs/debug.gin", *DEBUG, "run.max_env_steps = 3_000"
    )
    job_id = run.submit("--nodes", "3")
    until(lambda: run.train_steps() > 300, 200, run.why)
    hosts = {name: run.beat(name)["host"] for name in PROGRAMS}
    if cluster.own_names:
        assert len({hosts[name] for name in ("replay_server", "train", "collect_0")}) == 3
        assert (read_json(run.dir.address) or {})["access"] == "tls"
    cluster.run("scancel", "--batch", "--signal=USR1", job_id)
    done = run.finish(job_id)
    assert cluster.job(job_id)["Restarts"] == "1"
    assert 3_000 <= done["env_steps"] < 3_300
    # Random steps made twice would be rows without updates.
    assert done["train_steps"] > 0.95 * (done["env_steps"] - RANDOM_STEPS)
    steps = run.logged_env_steps()
    assert steps == sorted(steps)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_run_on_one_node_learns_to_balance(one_node, tmp_path):
    run = Training(tmp_path / "R", one_node, BALANCE, "eval.Evaluator.video = False")
    run.finish(run.submit("--time", "60"), 3500)
    assert run.score() >= 900


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_run_over_three_nodes_learns_to_balance(cluster, tmp_path):
    run = Training(tmp_path / "R", cluster, BALANCE, "eval.Evaluator.video = False")
    run.finish(run.submit("--time", "60", "--nodes", "3"), 3500)
    assert run.score() >= 900
    assert (read_json(run.dir.address) or {})["access"] == "tls" or not cluster.own_names


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_time_limit_too_short_for_the_run_only_interrupts_it(cluster, tmp_path):
    run = Training(
        tmp_path / "R",
        cluster,
        BALANCE,
        "eval.Evaluator.video = False",
        "run.max_env_steps = 20_000",
        "run.stop_at_return = None",
    )
    job_id = run.submit("--time", "3")
    done = run.finish(job_id, 3500)
    assert int(cluster.job(job_id)["Restarts"]) >= 1
    assert done["train_steps"] > 0.95 * (done["env_steps"] - 1_000)
    steps = run.logged_env_steps()
    assert steps == sorted(steps)
    assert run.score() >= 900
