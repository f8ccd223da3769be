"""`sactory report`: what it makes of run directories of all kinds."""

from __future__ import annotations

import csv
import itertools
import json
import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from eval import curves, outcomes, report, score_table, statistics
from sactory import run_list
from sactory.errors import UserError
from sactory.policies import META, export_name
from sactory.run_dir import write_json
from tests.synthetic_runs import evaluate, make_run

pytestmark = pytest.mark.timeout(240)


def read(*words):
    return outcomes.read_all(run_list.find([str(w) for w in words]))[0]


def state_of(run):
    (outcome,) = read(run.root)
    return outcome.state, outcome.why


def table_of(found, at=None):
    return {(x.task, x.config): x for x in score_table.lines(found, at)}


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 8, 10, 21])
def test_iqm_is_scipys_trimmed_mean(count):
    scores = np.random.default_rng(count).uniform(0, 1000, count)
    assert statistics.iqm(scores) == pytest.approx(stats.trim_mean(scores, 0.25))


def test_interval_of_three_runs_is_that_of_all_resamples():
    scores = np.array([100.0, 700.0, 900.0])
    means = sorted(np.mean(drawn) for drawn in itertools.product(scores, repeat=3))
    interval = statistics.iqm_interval([scores])
    # 27 equally likely resamples: 1/27 > 2.5 % of them are all the lowest, or all the highest.
    assert interval == (means[0], means[-1]) == (100.0, 900.0)


def test_interval_widens_when_seeds_disagree_and_one_run_has_none():
    alike = statistics.iqm_interval([np.array([899.0, 900.0, 901.0, 902.0])])
    apart = statistics.iqm_interval([np.array([100.0, 900.0, 500.0, 300.0])])
    assert alike is not None and apart is not None
    assert apart[1] - apart[0] > alike[1] - alike[0]
    assert statistics.iqm_interval([np.array([5.0])]) is None
    assert statistics.iqm_interval([]) is None


def test_scores_are_those_of_the_last_evaluation(tmp_path):
    for seed, last in enumerate((800.0, 900.0, 850.0, 100.0), 1):
        make_run(tmp_path, seed=seed, returns=(10.0, 990.0, last))
    line = table_of(read(tmp_path))["cartpole_balance", "sac_states"]
    assert line.scores == (800.0, 900.0, 850.0, 100.0)
    assert line.mean == 662.5
    assert line.std == pytest.approx(stats.tstd(line.scores))
    assert line.iqm == 825.0  # one of four is cut at each end
    assert line.interval is not None and line.interval[0] < 825 < line.interval[1]


def test_at_takes_the_last_evaluation_before_a_mark_of_all_that_came_so_far(tmp_path):
    make_run(tmp_path, seed=1, returns=(1.0, 2.0, 3.0, 4.0))
    make_run(tmp_path, seed=2, returns=(10.0, 20.0, 30.0), done=False)
    make_run(tmp_path, seed=3, returns=(100.0, 200.0), done=False)
    (line,) = score_table.lines(read(tmp_path), at=2001)
    assert line.scores == (3.0, 20.0)  # seed 2 was scored at 1002 and 2002
    (line,) = score_table.lines(read(tmp_path), at=None)
    assert (line.scores, line.runs, line.std, line.interval) == ((4.0,), 3, None, None)


def test_all_tasks_stand_together_below_the_tasks_of_each_config(tmp_path):
    for config, task in itertools.product(("a", "b"), ("walker_walk", "cheetah_run")):
        make_run(tmp_path, task, 1, (0.0, 100.0 if task == "walker_walk" else 500.0), config)
    lines = score_table.lines(read(tmp_path), None)
    assert [(x.task, x.config) for x in lines] == [
        ("cheetah_run", "a"),
        ("walker_walk", "a"),
        ("all tasks", "a"),
        ("cheetah_run", "b"),
        ("walker_walk", "b"),
        ("all tasks", "b"),
    ]
    assert lines[2].mean == 300.0


def test_runs_that_are_not_finished_are_named(tmp_path):
    make_run(tmp_path, "walker_walk", 1, (0.0, 100.0))
    make_run(tmp_path, "cheetah_run", 2, (0.0, 100.0))
    crashed = make_run(tmp_path, "walker_walk", 3, (0.0, 1.0), done=False)
    write_json(crashed.failed, {"program": "train", "error": "ValueError: no [x]"})
    make_run(tmp_path, "cheetah_run", 3, (0.0, 1.0), done=False)
    begun = tmp_path / "cheetah_run" / "sac_states" / "seed_4"
    begun.mkdir()
    (begun / "run.slrm").write_text("#!/bin/bash\n")
    told = {str(x.name): (x.state, x.why) for x in read(tmp_path) if x.state != "finished"}
    assert told == {
        "cheetah_run/sac_states/seed_1": ("missing", "there is no such run"),
        "cheetah_run/sac_states/seed_3": ("unfinished", "at 1,003 of 1,000 env steps: stopped"),
        "cheetah_run/sac_states/seed_4": ("missing", "it has not begun"),
        "walker_walk/sac_states/seed_2": ("missing", "there is no such run"),
        "walker_walk/sac_states/seed_3": (
            "crashed",
            "at 1,003 of 1,000 env steps: train failed: ValueError: no [x]",
        ),
        "walker_walk/sac_states/seed_4": ("missing", "there is no such run"),
    }


def test_finished_run_counts_when_its_last_policy_is_scored(tmp_path):
    run = make_run(tmp_path, returns=(0.0, 5.0))
    last = run.policies("greedy") / export_name(2000, 2000, 1)
    write_json(last / META, {})
    assert state_of(run) == ("unfinished", "its last policy has no score yet")
    evaluate(run, 2000, 7.0)
    assert state_of(run) == ("finished", "")
    assert state_of(make_run(tmp_path / "other", returns=()))[0] == "unfinished"


def test_overtaken_evaluations_and_damaged_rows_are_left_out(tmp_path):
    run = make_run(tmp_path, returns=(1.0, None, 3.0))
    with open(run.eval_log, "a") as log:
        log.write('{"step": 3000, "episode_rew\n[1]\n{"step": "x", "episode_reward": 1}\n')
    evaluate(run, 4000, 4.0, train_step=3900)  # by the first start, which died soon after
    evaluate(run, 5000, 5.0, train_step=3500, start=2)
    events = [
        {"event": "restart", "step": 4100, "train_step": 3000, "incarnation": 2},
        {"event": "restart", "step": 5100, "train_step": 3600, "incarnation": 3},
    ]
    run.train_log.write_text("".join(json.dumps(row) + "\n" for row in events) + '{"restart"')
    assert outcomes.evaluations(run) == [(0, 1.0), (2001, 3.0), (5000, 5.0)]


def test_two_runs_of_one_name_are_refused(tmp_path):
    for folder in ("one", "two"):
        make_run(tmp_path / folder, seed=3, returns=(1.0, 2.0))
    with pytest.raises(UserError, match="are both cartpole_balance/sac_states/seed_3"):
        read(tmp_path)


def test_curves_of_seeds_meet_at_the_multiples_of_the_interval(tmp_path):
    make_run(tmp_path, seed=1, returns=(0.0, 10.0, 20.0))
    make_run(tmp_path, seed=9, returns=(2.0, 30.0), done=False)
    assert curves.marks(read(tmp_path)) == ([0, 1000, 2000], [[0.0, 2.0], [10.0, 30.0], [20.0]])


def test_verb_prints_and_writes_everything_without_tensorflow(tmp_path):
    for seed in (1, 2, 10):
        make_run(tmp_path / "runs", "cartpole_balance", seed, (100.0, 700.0 + seed))
        make_run(tmp_path / "runs", "walker_stand", seed, (50.0, 600.0), done=seed != 10)
    code = (
        "import sys; from sactory.cli import main; code = main(sys.argv[1:]); "
        "assert not {'tensorflow', 'reverb'} & set(sys.modules); sys.exit(code)"
    )
    words = [sys.executable, "-c", code, "report", "runs/*"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    for text in ("3 of 3", "2 of 3", "704.3", "walker_stand/sac_states/seed_10: unfinished"):
        assert text in done.stdout
    out = tmp_path / "report"
    rows = list(csv.DictReader((out / "scores.csv").open()))
    assert [row["task"] for row in rows] == ["cartpole_balance", "walker_stand", "all tasks"]
    assert float(rows[0]["mean"]) == pytest.approx(2113 / 3)
    assert [r["seed"] for r in csv.DictReader((out / "runs.csv").open())] == ["1", "2", "10"] * 2
    page = (out / "scores.md").read_text()
    assert "| cartpole_balance | sac_states | 3 of 3 | 704.3 |" in page
    assert "- walker_stand/sac_states/seed_10: unfinished" in page and "](curves.png)" in page
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_nothing_to_report_is_refused_in_one_line(tmp_path):
    with pytest.raises(UserError, match="which runs"):
        report.main([])
    with pytest.raises(UserError, match="no such file or directory"):
        report.main([str(tmp_path / "runs*")])
    with pytest.raises(UserError, match="no run at or below it"):
        report.main([str(tmp_path)])


def test_report_of_runs_without_any_evaluation_still_draws(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path / "runs", done=False)
    assert report.main(["runs"]) == 0
    assert (tmp_path / "report" / "curves.png").exists()
