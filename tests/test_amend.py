"""The verb `amend`: what a stopped run may change, what is recorded, and that it goes on."""

from __future__ import annotations

import fnmatch
import os
import shutil
import socket
import sys
import time

import pytest

from sactory import (
    amend,
    cli,
    config,
    estimate,
    init_run,
    provenance,
    settings,
    trainer_checkpoints,
)
from sactory.errors import UserError
from sactory.fields import SETTINGS, defaults
from sactory.locks import hold_lock
from sactory.run_dir import RunDir, read_json, write_json

pytestmark = pytest.mark.timeout(120)

SMALL = ["run.max_env_steps = 3000", "collect.Worker.random_steps = 100"]


@pytest.fixture(scope="module")
def frozen(tmp_path_factory):
    """One init serves all tests: they get copies of its directory."""
    run_dir = RunDir(tmp_path_factory.mktemp("amend") / "R")
    init_run.init(run_dir, "configs/debug.gin", SMALL)
    return run_dir.root


@pytest.fixture
def run_dir(tmp_path, frozen):
    return RunDir(shutil.copytree(frozen, tmp_path / "R"))


def number(run_dir: RunDir, cls):
    config.load(run_dir)
    return cls()


def refused(run_dir: RunDir, *overrides: str) -> str:
    """The message of a refused amendment, which must leave both files as they were."""
    before = run_dir.config.read_text(), run_dir.provenance.read_text()
    with pytest.raises(UserError) as caught:
        amend.amend(run_dir, list(overrides))
    assert (run_dir.config.read_text(), run_dir.provenance.read_text()) == before
    return str(caught.value)


def test_changes_are_frozen_and_recorded(run_dir, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["sactory", "amend"])
    words = ["--set", "run.max_env_steps = 9_000", "--set", "replay.updates_per_row = 0.5"]
    assert cli.main(["amend", "--run_dir", str(run_dir), *words]) == 0
    said = capsys.readouterr().out
    assert "run.max_env_steps = 3000 -> 9000" in said
    assert f"`sactory run --run_dir {run_dir}` goes on" in said
    assert number(run_dir, settings.Run).max_env_steps == 9000
    assert settings.Replay().updates_per_row == 0.5
    record = read_json(run_dir.provenance)
    (entry,) = record["amendments"]
    assert entry["argv"] == ["sactory", "amend"] and abs(entry["time"] - time.time()) < 100
    assert entry["changes"] == {
        "run.max_env_steps": [3000, 9000],
        "replay.updates_per_row": [1.0, 0.5],
    }
    assert provenance.check_sources(run_dir) == []  # the new text is the frozen one


def test_first_command_and_the_new_one_resume_and_others_are_refused(run_dir):
    amend.amend(run_dir, ["run.max_env_steps = 9000"])
    amend.amend(run_dir, ["run.max_env_steps = 12_000", "run.num_collectors = 2"])
    assert len(read_json(run_dir.provenance)["amendments"]) == 2
    collectors = "run.num_collectors = 2"
    for overrides in (SMALL, [*SMALL, "run.max_env_steps = 12_000", collectors]):
        assert init_run.init(run_dir, "configs/debug.gin", overrides) is False
    with pytest.raises(UserError, match=r"- run\.max_env_steps = 12000"):
        init_run.init(run_dir, "configs/debug.gin", [*SMALL, "run.max_env_steps = 9000"])


def test_the_same_again_changes_nothing(run_dir):
    before = run_dir.config.read_text()
    assert amend.amend(run_dir, ["run.max_env_steps = 3000"]) == {}
    assert run_dir.config.read_text() == before
    assert "amendments" not in read_json(run_dir.provenance)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.Learner.batch_size = 64", "sactory init --from"),
        ("envs.load.name = 'walker_walk'", "a run keeps its envs.load.name"),
        ("run.seed = 3", "a run keeps its run.seed"),
        ("run.max_env_step = 9", "did you mean"),
        ("run.max_env_steps = 'x'", "run.max_env_steps"),
        ("run.max_env_steps = 100", "leave nothing to learn from"),
        ("replay.capacity = 10", "replay.capacity = 10"),
        ("replay.updates_per_row = None", "needs replay.mode = 'async'"),
    ],
)
def test_refusals_change_nothing(run_dir, override, message):
    assert message in refused(run_dir, override)
    assert message in refused(run_dir, "run.max_hours = 5", override)


def test_what_can_not_fit_is_refused_and_what_needs_less_never(run_dir, monkeypatch):
    monkeypatch.setattr(estimate, "available_memory", lambda: 1e6)
    assert "GB of memory" in refused(run_dir, "run.num_collectors = 8")
    amend.amend(run_dir, ["replay.capacity = 2000"])
    monkeypatch.undo()
    assert "max_disk_gb = 1e-06 can't hold" in refused(
        run_dir, "run.max_disk_gb = 1e-6", "run.num_collectors = 2"
    )


def test_running_run_is_refused(run_dir):
    held = hold_lock(run_dir.lock("run"))
    assert "`sactory stop" in refused(run_dir, "run.max_hours = 5")
    os.close(held)
    beat = {"program": "train", "worker": None, "pid": os.getpid(), "host": socket.gethostname()}
    for state, at in (("training", time.time()), ("training", 0.0)):  # alive; frozen
        write_json(run_dir.status("train"), {**beat, "state": state, "time": at})
        assert "runs (train)" in refused(run_dir, "run.max_hours = 5")
    write_json(run_dir.status("train"), {**beat, "state": "stopped", "time": time.time()})
    amend.amend(run_dir, ["run.max_hours = 5"])


def test_finished_run_goes_on_when_its_limit_grew(run_dir, capsys):
    done = {"reason": "max_env_steps", "env_steps": 3010}
    write_json(run_dir.done, done)
    write_json(run_dir.result, {})
    amend.amend(run_dir, ["train.checkpoint_seconds = 9.0"])
    amend.amend(run_dir, ["run.max_env_steps = 3010"])  # it has these already
    assert run_dir.is_done and run_dir.result.exists()
    amend.amend(run_dir, ["run.max_env_steps = 6000"])
    assert not run_dir.is_done and not run_dir.result.exists()
    assert read_json(run_dir.root / "done_3010.json") == done


def test_limits_on_return_and_hours_decide_as_the_trainer_does(run_dir):
    write_json(run_dir.status("eval"), {"last_eval_return": 500.0})
    newest = run_dir.trainer_checkpoints / "000000002000"
    newest.mkdir(parents=True)
    trainer_checkpoints.seal(newest, {"train_step": 2000, "env_steps": 2500, "elapsed": 7200.0})
    write_json(run_dir.done, {"reason": "stop_at_return", "env_steps": 2000})
    amend.amend(run_dir, ["run.stop_at_return = 490.0"])
    assert run_dir.is_done
    amend.amend(run_dir, ["run.stop_at_return = 600.0", "run.max_hours = 1.5"])
    assert run_dir.is_done
    amend.amend(run_dir, ["run.max_hours = 3.0"])
    assert not run_dir.is_done


def test_what_may_change_are_settings_that_exist_and_none_that_shape_learning():
    keys = {f"{group}.{name}" for group, cls in SETTINGS.items() for name in defaults(cls)}
    for pattern in amend.AMENDABLE:
        assert fnmatch.filter(keys, pattern), pattern
    free = {key for pattern in amend.AMENDABLE for key in fnmatch.filter(keys, pattern)}
    for group in ("envs.load", "train.SacAgent", "train.Learner", "collect.Worker"):
        assert not [key for key in free if key.startswith(f"{group}.")]
    for key in ("replay.gamma", "replay.n_step", "replay.segment_length", "run.seed", "run.name"):
        assert key not in free
