"""Sweeps: which runs there are, which want a job, and an array of them on a real SLURM."""

from __future__ import annotations

import os
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from eval import outcomes, report
from sactory import run_list, slurm_view, status, status_list
from sactory.errors import UserError
from sactory.json_lines import read_log
from sactory.run_dir import RunDir, write_json
from slurm import members, submit
from tests.slurm_site import Cluster, slurm_only, until

pytestmark = pytest.mark.timeout(240)

ROOT = Path(__file__).resolve().parent.parent
DEBUG = str(ROOT / "configs" / "debug.gin")


def bindings(run):
    return ["run.max_env_steps = 2_000"]


def frozen(root: Path, tasks=(None,), seeds=(None,)) -> list[RunDir]:
    """The run directories of a sweep as init leaves them, without building environments."""
    runs = []
    for member in members.make(DEBUG, bindings, tasks, seeds, root):
        member.run.root.mkdir(parents=True)
        lines = [f"{key} = {value!r}\n" for key, value in member.config.values.items()]
        member.run.config.write_text("".join(lines))
        write_json(member.run.provenance, {"run_id": "x"})
        runs.append(member.run)
    return runs


def test_seeds_and_tasks_are_read_and_refused():
    assert members.parse_seeds("1-3,7, 5-6,2") == [1, 2, 3, 7, 5, 6]
    for wrong in ("", "3-1", "1-", "a", "1,,2", "-1", "1-5000"):
        with pytest.raises(UserError, match="--seeds = "):
            members.parse_seeds(wrong)
    assert members.parse_tasks("walker_walk, cheetah_run,walker_walk") == [
        "walker_walk",
        "cheetah_run",
    ]
    with pytest.raises(UserError, match="--tasks = a,,b"):
        members.parse_tasks("a,,b")


def test_members_lie_by_task_config_and_seed(tmp_path):
    made = members.make(DEBUG, bindings, ["walker_walk", "cheetah_run"], [1, 2], tmp_path)
    places = [str(m.run.root.relative_to(tmp_path)) for m in made]
    assert places == [
        "walker_walk/debug/seed_1",
        "walker_walk/debug/seed_2",
        "cheetah_run/debug/seed_1",
        "cheetah_run/debug/seed_2",
    ]
    assert made[3].config.values["envs.load.name"] == "cheetah_run"
    assert made[3].config.values["run.seed"] == 2
    assert {m.config.values["run.max_env_steps"] for m in made} == {2000}


@pytest.mark.parametrize(
    ("files", "job", "expected"),
    [
        ((), None, members.NEW),
        (("id",), None, members.STOPPED),
        (("id",), "TIMEOUT", members.STOPPED),
        (("id",), "PENDING", members.QUEUED),
        (("id",), "RUNNING", members.RUNNING),
        (("id", "failed.json"), "FAILED", members.FAILED),
        (("id", "failed.json"), "PENDING", members.QUEUED),
        (("id", "done.json"), "FAILED", members.STOPPED),  # without its final evaluation
        (("id", "done.json"), "RUNNING", members.RUNNING),
        (("id", "done.json", "result.json"), "COMPLETED", members.FINISHED),
        (("id", "done.json", "result.json"), None, members.FINISHED),
    ],
)
def test_state_of_a_member(tmp_path, files, job, expected):
    (run,) = frozen(tmp_path)
    for name in files:
        (run.root / name).write_text("7_1\n" if name == "id" else '{"env_steps": 1}')
    known = None if job is None else slurm_view.Job("7_1", job)
    assert members.state(run, known) == expected


def test_run_outside_of_slurm_is_left_alone(tmp_path):
    (run,) = frozen(tmp_path)
    beat = {"program": "train", "state": "training", "pid": os.getpid()}
    write_json(run.status("train"), {**beat, "host": os.uname().nodename, "time": 4e9})
    assert members.state(run, None) == members.RUNNING
    (run.root / "id").write_text("7\n")
    # A job's signs of life may be younger than its end.
    assert members.state(run, slurm_view.Job("7", "CANCELLED")) == members.STOPPED


def test_dry_run_prints_the_array_and_makes_nothing(tmp_path, capsys):
    words = [DEBUG, "--seeds", "1-5", "--at_once", "2", "--run_dir", str(tmp_path), "--dry_run"]
    assert submit.main(words) == 0
    out = capsys.readouterr().out
    assert "#SBATCH --array=1-5%2" in out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--seeds", "1-3"], "needs a configuration"),
        ([DEBUG, "--seeds", "1-3", "--collectors", "4"], "--collectors is for one run"),
        ([DEBUG, "--seeds", "1-3", "--at_once", "0"], "--at_once = 0"),
        ([DEBUG, "--tasks", "a b"], "envs.load.name = 'a b'"),
    ],
)
def test_wrong_sweeps_are_refused_in_one_line(tmp_path, words, message):
    with pytest.raises(UserError, match=message):
        submit.main([*words, "--run_dir", str(tmp_path), "--dry_run"])


def called_with(script: str, tmp_path: Path, *words: str) -> list[list[str]]:
    """What a script in slurm/ hands to `sactory`, call by call."""
    stand_in = tmp_path / "stand_in"
    stand_in.write_text('#!/bin/sh\nfor word; do echo "$word"; done\necho .\n')
    stand_in.chmod(0o755)
    done = subprocess.run(
        [ROOT / "slurm" / script, *words],
        capture_output=True,
        text=True,
        env={**os.environ, "SACTORY": str(stand_in)},
    )
    assert (done.returncode, done.stderr) == (0, "")
    return [call.splitlines() for call in done.stdout.split(".\n")[:-1]]


def test_run_cluster_schedules_ten_seeds_of_a_task(tmp_path):
    (call,) = called_with("run_cluster.sh", tmp_path, "walker", "walk")
    assert call[:2] == ["submit", str(ROOT / "configs" / "sac")] or call[1].endswith(
        "configs/sac.gin"
    )
    text = " ".join(call)
    assert "--tasks walker_walk --seeds 1-10" in text and "run.name = 'sac_states'" in text
    (call,) = called_with("run_cluster.sh", tmp_path, "walker", "walk", "mine", "--at_once", "4")
    assert call[1].endswith("configs/mine.gin") and call[-2:] == ["--at_once", "4"]
    assert "run.name = 'mine'" in call
    (call,) = called_with("run_cluster.sh", tmp_path, "walker", "walk", "--dry_run")
    assert "run.name = 'sac_states'" in call and call[-1] == "--dry_run"


def test_run_all_schedules_the_testbed_and_passes_options_on(tmp_path):
    calls = called_with("run_all.sh", tmp_path, "mine", "--time", "90")
    tasks = [call[call.index("--tasks") + 1] for call in calls]
    assert tasks == [
        "cartpole_swingup",
        "reacher_easy",
        "cheetah_run",
        "finger_spin",
        "ball_in_cup_catch",
        "walker_walk",
        "walker_stand",
        "walker_run",
        "hopper_stand",
        "hopper_hop",
    ]
    assert all(call[-2:] == ["--time", "90"] and "run.name = 'mine'" in call for call in calls)


@pytest.fixture
def site(cluster, monkeypatch, tmp_path):
    """The test's SLURM as this process sees it, with settings of the site in tmp_path/site.ini."""
    for name in ("PATH", "SLURM_CONF"):
        monkeypatch.setenv(name, cluster.environment[name])
    monkeypatch.setenv("SACTORY_SITE", str(tmp_path / "site.ini"))
    monkeypatch.chdir(tmp_path)
    yield cluster
    jobs = cluster.run("squeue", "-h", "-o", "%A").split()
    if jobs:
        cluster.run("scancel", *jobs)


def queue(cluster: Cluster) -> Counter[str]:
    """How many jobs are in which state, and why: `PENDING JobArrayTaskLimit`."""
    return Counter(cluster.run("squeue", "-hr", "-o", "%T %r").splitlines())


@slurm_only
@pytest.mark.timeout(600)
def test_same_command_submits_only_what_is_missing(site, tmp_path, capsys):
    (tmp_path / "site.ini").write_text(f"[job]\nsactory = {ROOT / 'tests' / 'fake_sactory.sh'}\n")
    tasks = ["cartpole_balance", "walker_stand"]
    runs = frozen(tmp_path / "runs", tasks, [1, 2, 3])
    for run in runs[:2]:
        (run.root / "hang").touch()
    (runs[4].root / "fail").touch()
    words = [DEBUG, "--tasks", ",".join(tasks), "--seeds", "1-3", "--at_once", "2"]
    words += ["--set", bindings(None)[0]]

    def submitted() -> str:
        assert submit.main(words) == 0
        return capsys.readouterr().out

    assert "6 runs: 6 to submit" in submitted()
    until(lambda: all((run.root / "train.log").exists() for run in runs[:2]), 60)
    full = {"RUNNING None": 2, "PENDING JobArrayTaskLimit": 4}
    until(lambda: queue(site) == full, 20, lambda: str(queue(site)))
    assert "6 runs: 2 running, 4 queued, 0 to submit" in submitted()
    assert queue(site) == full
    first = slurm_view.job_id(runs[0])
    view = slurm_view.look(runs)
    states = [row["state"] for row in status_list.collect(runs, view)]
    assert states == ["starting"] * 2 + ["queued"] * 4  # the stand-in has no signs of life

    site.run("scancel", first)  # by hand
    until(lambda: slurm_view.look(runs[:1]).jobs[runs[0].root].is_over, 60)
    for run in runs[:2]:
        (run.root / "hang").unlink()
    until(lambda: not queue(site), 90, lambda: str(queue(site)))
    assert [run.is_done for run in runs] == [False, True, True, True, False, True]
    told = {str(x.name): x.why for x in outcomes.read_all(runs)[0] if x.state == "crashed"}
    assert "ended as CANCELLED" in told["cartpole_balance/debug/seed_1"]
    assert "ValueError: told so" in told["walker_stand/debug/seed_2"]

    (runs[4].root / "fail").unlink()
    said = submitted()
    assert "6 runs: 4 finished, 2 to submit" in said
    assert f"stopped, goes on: {runs[0]}" in said and f"failed, goes on: {runs[4]}" in said
    listed = (tmp_path / "runs" / "sweeps" / "2" / "members").read_text().split()
    assert listed == [str(runs[0]), str(runs[4])]
    until(lambda: not queue(site), 90, lambda: str(queue(site)))
    assert "6 runs: 6 finished, 0 to submit" in submitted()
    assert not queue(site)

    found = run_list.find(["runs/*"])
    assert found and [r.root for r in found] == [r.root for r in runs]
    finished, trouble = outcomes.read_all(found)
    assert (trouble, {x.state for x in finished}) == ("", {"finished"})
    assert [x.score(None) for x in finished] == [100.0, 200.0, 300.0] * 2
    rows = status_list.collect(found, slurm_view.look(found))
    assert {(row["state"], row["job"]["state"]) for row in rows} == {("done", "COMPLETED")}
    for run in runs:
        assert {"id", "stdout", "stderr", "run.sh", "run.slrm"} <= set(os.listdir(run.root))


@slurm_only
@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_sweep_that_trains_goes_on_where_a_job_was_killed(site, tmp_path, capsys):
    (tmp_path / "site.ini").write_text("")
    words = [DEBUG, "--tasks", "cartpole_balance,walker_stand", "--seeds", "1-3", "--at_once", "2"]
    for setting in (
        "run.max_env_steps = 3_000",
        "eval.Evaluator.num_eval_episodes = 1",
        "eval.Evaluator.video = False",
    ):
        words += ["--set", setting]

    def submitted() -> str:
        assert submit.main(words) == 0
        return capsys.readouterr().out

    assert "6 runs: 6 to submit" in submitted()
    runs = run_list.find(["runs"])
    until(lambda: status.collect(runs[0])["env_steps"] >= 600, 900, lambda: str(queue(site)))
    site.run("scancel", slurm_view.job_id(runs[0]))
    until(lambda: not queue(site), 2400, lambda: str(queue(site)))
    assert [run.is_done for run in runs] == [False] + [True] * 5

    said = submitted()
    assert "6 runs: 5 finished, 1 to submit" in said
    assert f"stopped, goes on: {runs[0]}" in said
    until(lambda: not queue(site), 900, lambda: str(queue(site)))
    assert "6 runs: 6 finished, 0 to submit" in submitted()
    restarts = [row for row in read_log(runs[0].train_log) if row.get("event") == "restart"]
    assert restarts and restarts[0]["train_step"] > 0
    finished, _ = outcomes.read_all(runs)
    assert {x.state for x in finished} == {"finished"}
    assert all(x.score(None) is not None and len(x.curve) >= 4 for x in finished)
    assert report.main(["runs/*"]) == 0
    assert capsys.readouterr().out.count("3 of 3") == 2
