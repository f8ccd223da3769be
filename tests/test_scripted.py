"""`sactory eval --policy`: scripted policies of an environment, on the seeds of an export."""

from __future__ import annotations

from pathlib import Path

import pytest

from eval import main as eval_main
from eval.once import score_once
from sactory import config, init_run
from sactory.errors import UserError
from sactory.run_dir import RunDir

pytestmark = pytest.mark.timeout(180)

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def frozen(tmp_path_factory):
    run_dir = RunDir(tmp_path_factory.mktemp("scripted") / "run")
    overrides = ["envs.load.level = 'easy'", "train.SacAgent.hidden_sizes = (8,)"]
    init_run.init(run_dir, ROOT / "configs" / "tasks" / "contact_insert_planar.gin", overrides)
    return run_dir


@pytest.fixture
def run_dir(frozen):
    config.load(frozen)
    return frozen


def test_a_scripted_policy_is_scored_with_its_interval(run_dir, capsys):
    assert score_once(run_dir, "straight", 4, video=False) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("4 episodes of ")
    assert said[0].endswith("success 1.00 (95 % interval 0.51 to 1.00)")
    assert said[1:] == ["policy straight (scripted)"]


def test_unknown_policies_are_refused(run_dir):
    known = "contact_insert:planar has straight, search, jiggle, comply"
    with pytest.raises(UserError, match=f"--policy=strait: {known}"):
        score_once(run_dir, "strait", 1, video=False)


def test_one_kind_of_policy_at_a_time(run_dir):
    with pytest.raises(UserError, match="give one of them"):
        eval_main.main(["--run_dir", str(run_dir.root), "--policy=straight", "--step=latest"])
