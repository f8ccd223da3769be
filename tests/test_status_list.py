"""`sactory status 'runs/*'`: which runs a pattern names, and SLURM's view beside ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sactory import run_list, slurm_view, status, status_list
from sactory.errors import UserError
from sactory.run_dir import write_json
from tests.synthetic_runs import make_run

pytestmark = pytest.mark.timeout(240)

SQUEUE = """\
12_1|RUNNING|node3|None|1-02:03:04|2|
12_2|PENDING||JobArrayTaskLimit|0:00|0|
13|TIMEOUT|node1|TimeLimit|10:00|0|
"""


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Commands that stand for SLURM's: each prints a text, or fails with it."""
    place = tmp_path / "bin"
    place.mkdir()
    monkeypatch.setenv("PATH", f"{place}:{os.environ['PATH']}")

    def says(command: str, text: str, code: int = 0) -> None:
        (place / f"{command}.txt").write_text(text)
        script = place / command
        stream = ">&2" if code else ""
        script.write_text(f'#!/bin/sh\necho "$@" >{place}/{command}.argv\n')
        with open(script, "a") as out:
            out.write(f"cat {place}/{command}.txt {stream}\nexit {code}\n")
        script.chmod(0o755)

    says("squeue", SQUEUE)
    says("sacct", "", 1)
    return says


def submitted(root: Path, seed: int, job: str, **fields):
    run = make_run(root, seed=seed, returns=(0.0, 5.0), **{"done": False, **fields})
    (run.root / "id").write_text(job + "\n")
    return run


def test_patterns_go_down_to_the_seeds_in_their_order(tmp_path, monkeypatch):
    for seed in (10, 2, 1):
        make_run(tmp_path / "runs", "a_task", seed)
    make_run(tmp_path / "runs", "b_task", 1)
    begun = tmp_path / "runs" / "b_task" / "sac_states" / "seed_2"
    begun.mkdir()
    (begun / "run.slrm").touch()
    for foreign in (".hidden/seed_9", "sweeps/1", "a_task/sac_states/seed_1/tb/seed_7"):
        (tmp_path / "runs" / foreign).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    names = [str(run_list.name(run)) for run in run_list.find(["runs/*"])]
    assert names == [
        *(f"a_task/sac_states/seed_{seed}" for seed in (1, 2, 10)),
        *(f"b_task/sac_states/seed_{seed}" for seed in (1, 2)),
    ]
    # A shell expands a pattern without quotes; what overlaps counts once.
    words = ["runs/a_task", "runs/b_task", "runs/a_task/sac_states/seed_*"]
    assert [str(run_list.name(run)) for run in run_list.find(words)] == names


def test_run_elsewhere_is_named_by_its_settings(tmp_path):
    run = make_run(tmp_path, "walker_walk", 7)
    run.root.rename(tmp_path / "mine")
    (found,) = run_list.find([str(tmp_path / "mine")])
    assert str(run_list.name(found)) == "walker_walk/sac_states/seed_7"


def test_slurms_view_is_that_of_the_last_job(tmp_path, slurm):
    first, second = submitted(tmp_path, 1, "9\n12_1"), submitted(tmp_path, 2, "12_2")
    never = make_run(tmp_path, seed=3)
    view = slurm_view.look([first, second, never])
    assert view.trouble == ""
    assert view.jobs == {
        first.root: slurm_view.Job("12_1", "RUNNING", "node3", "", "1-02:03:04", 2),
        second.root: slurm_view.Job("12_2", "PENDING", "", "JobArrayTaskLimit", "0:00", 0),
    }
    assert "-j 12 " in (tmp_path / "bin" / "squeue.argv").read_text()


def test_accounting_is_asked_for_what_squeue_has_forgotten(tmp_path, slurm):
    run, known = submitted(tmp_path, 1, "40_2"), submitted(tmp_path, 2, "13")
    slurm("sacct", "40_1|COMPLETED|n1|00:10\n40_2|CANCELLED by 0|n2|00:20:00\n40_[3-4]|PENDING||\n")
    jobs = slurm_view.look([run, known]).jobs
    assert jobs[run.root] == slurm_view.Job("40_2", "CANCELLED", "n2", "", "00:20:00")
    assert jobs[known.root].state == "TIMEOUT"


def test_members_that_never_began_end_with_their_array(tmp_path, slurm):
    run = submitted(tmp_path, 1, "7_3")
    slurm("squeue", "7|CANCELLED||None|0:00|0|\n7_1|CANCELLED|n1|None|0:09|0|\n")
    assert slurm_view.look([run]).jobs[run.root] == slurm_view.Job("7_3", "CANCELLED")


def test_forgotten_jobs_and_a_silent_controller_are_told_apart(tmp_path, slurm):
    run = submitted(tmp_path, 1, "99")
    slurm("squeue", "slurm_load_jobs error: Invalid job id specified", 1)
    assert slurm_view.look([run]) == slurm_view.View({}, "")
    slurm("squeue", "slurm_load_jobs error: Unable to contact slurm controller", 1)
    view = slurm_view.look([run])
    assert (view.jobs, "Unable to contact" in view.trouble) == ({}, True)


def test_without_slurm_nobody_is_asked(tmp_path, monkeypatch):
    run = submitted(tmp_path, 1, "12_1")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert slurm_view.look([run]) == slurm_view.View({}, "")


@pytest.mark.parametrize(
    ("state", "job", "expected"),
    [
        ("stopped", "PENDING", "queued"),
        ("failed", "REQUEUED", "queued"),
        ("stopped", "RUNNING", "starting"),
        ("running", "RUNNING", "running"),
        ("running", "COMPLETING", "running"),
        ("running", "CANCELLED", "stopped"),
        ("failed", "FAILED", "failed"),
        ("done", "RUNNING", "done"),
        ("running", None, "running"),
    ],
)
def test_slurm_knows_better_whether_a_run_lives(state, job, expected):
    assert slurm_view.joined(state, job and slurm_view.Job("1", job)) == expected


def test_line_for_each_run_and_why_it_does_not_run(tmp_path, slurm, capsys):
    running = submitted(tmp_path / "runs", 1, "12_1")
    beat = {"program": "train", "state": "training", "env_steps": 500, "host": "node3"}
    write_json(running.status("train"), {**beat, "time": time.time(), "pid": 1})
    submitted(tmp_path / "runs", 2, "12_2")
    timed_out = submitted(tmp_path / "runs", 3, "13")
    make_run(tmp_path / "runs", seed=4, returns=(0.0, 5.0))
    assert status.main([str(tmp_path / "runs" / "*")]) == 0
    out = capsys.readouterr().out
    lines = {line.split()[0]: line.split() for line in out.splitlines() if "/seed_" in line}
    place = "cartpole_balance/sac_states/seed_"
    assert "running" in lines[f"{place}1"] and "node3" in lines[f"{place}1"]
    assert lines[f"{place}1"][-2:] == ["1-02:03:04", "2"]
    assert lines[f"{place}2"][1] == "queued"
    assert lines[f"{place}4"][1] == "done"
    assert "4 runs: 1 running, 1 queued, 1 stopped, 1 done" in out
    assert f"- {place}2: job 12_2 is PENDING (JobArrayTaskLimit)" in out
    assert f"- {place}3: job 13 ended as TIMEOUT (TimeLimit): the same `sactory submit` goes" in out
    assert status.main(["--run_dir", str(timed_out.root)]) == 0
    assert "job 13: TIMEOUT on node1 (TimeLimit), 10:00" in capsys.readouterr().out


def test_json_of_many_runs_is_a_list_without_tensorflow(tmp_path, slurm):
    submitted(tmp_path / "runs", 1, "12_1")
    submitted(tmp_path / "runs", 2, "12_2")
    code = (
        "import sys; from sactory.cli import main; code = main(sys.argv[1:]); "
        "assert not {'tensorflow', 'reverb', 'numpy'} & set(sys.modules); sys.exit(code)"
    )
    words = [sys.executable, "-c", code, "status", str(tmp_path / "runs"), "--json"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    rows = json.loads(done.stdout)
    assert [(row["state"], row["job"]["reason"]) for row in rows] == [
        ("starting", ""),
        ("queued", "JobArrayTaskLimit"),
    ]
    assert rows[0]["max_env_steps"] == 1000


def test_silent_slurm_is_a_line_below_the_table(tmp_path, slurm):
    runs = [submitted(tmp_path, seed, "12_1") for seed in (1, 2)]
    slurm("squeue", "slurmctld is away", 1)
    view = slurm_view.look(runs)
    parts = status_list.render(status_list.collect(runs, view), view.trouble).renderables
    assert any("squeue gives no answer: slurmctld is away" in str(part) for part in parts)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "--run_dir is missing"),
        (["nowhere*"], "no such file or directory"),
        (["--run_dir", "a", "b"], "name runs in one way"),
    ],
)
def test_wrong_words_are_refused(words, message):
    with pytest.raises(UserError, match=message):
        status.main(words)
