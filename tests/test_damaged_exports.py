"""Exports that get damaged: collectors take another, the trainer exports anew, nobody gives up."""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from collect.worker import Worker
from sactory import config, damaged_exports, policies, progress, settings, supervision, weights
from sactory.errors import UserError
from sactory.heartbeat import Heartbeat
from sactory.run_dir import RunDir, read_json, write_json
from sactory.specs import Specs, to_tf_agents
from tests.trainer_rig import Rig, make_run, stand_ins  # noqa: F401  (a fixture)
from train.agent import SacAgent
from train.export import Exporter

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A run with three exports."""
    run_dir = make_run(tmp_path_factory.mktemp("exported") / "run")
    config.load(run_dir)
    _, action, time_step = to_tf_agents(Specs.load(run_dir))
    agent = SacAgent(time_step, action, settings.SacAgent(), 1)
    exporter = Exporter(run_dir, agent)
    for n in range(3):
        exporter.export(agent.policy_vector(), 1000 * n, 900 * n, 1)
    assert exporter.close(60) and exporter.error is None
    return run_dir


@pytest.fixture
def rig(exported, tmp_path):
    run_dir = RunDir(tmp_path / "run")
    shutil.copytree(exported.root, run_dir.root)
    rig = Rig(run_dir)
    yield rig
    rig.close()


@pytest.fixture
def worker(rig):
    heartbeat = Heartbeat(rig.run_dir, "collect", 0, interval=0.05)
    yield Worker(rig.run_dir, 0, supervision.Stop(), heartbeat, rig.client)
    heartbeat.close()


def damage(run_dir, *kept, kinds=(policies.COLLECT,)):
    """Damages the exports of all but some env steps."""
    for kind in kinds:
        for export in policies.list_exports(run_dir, kind):
            if export.env_steps not in kept:
                meta = read_json(export.path / policies.META)
                meta["giles"] = meta.pop("files")
                write_json(export.path / policies.META, meta)


def collect_steps(run_dir):
    return [e.env_steps for e in policies.list_exports(run_dir, policies.COLLECT)]


def test_a_collector_sets_damaged_exports_aside_and_acts_with_an_older_one(rig, worker):
    damage(rig.run_dir, 0)
    assert worker._load_actor() is not None
    assert worker._version == weights.Version(1, 0)
    assert collect_steps(rig.run_dir) == [0]
    worker._heartbeat.close()
    notes = read_json(worker._heartbeat.path)["recovered"]
    assert len(notes) == 2 and "meta.json has changed since it was written" in notes[0]
    assert len(list(rig.run_dir.quarantine.glob("*.why"))) == 2


def test_a_collector_without_any_whole_export_waits_for_the_next(rig, worker, exported):
    damage(rig.run_dir)
    assert worker._load_actor() is None
    assert worker._heartbeat._fields["state"] == "waiting for an export"
    newest = policies.list_exports(exported, policies.COLLECT)[-1]
    shutil.copytree(newest.path, rig.run_dir.policies(policies.COLLECT) / newest.name)
    assert worker._load_actor() is not None


def test_an_export_that_another_collector_has_moved_is_no_news(rig):
    export = policies.list_exports(rig.run_dir, policies.COLLECT)[0]
    error = policies.CorruptExport("nonsense")
    assert len(damaged_exports.set_aside(rig.run_dir, export, error)) == 1
    assert damaged_exports.set_aside(rig.run_dir, export, error) == []
    assert len(list(rig.run_dir.quarantine.iterdir())) == 2  # the export and its reason
    with pytest.raises(policies.CorruptExport):
        policies.read_meta(export.path)


def test_damaged_exports_that_can_not_be_moved_are_not_read_all_the_time(rig, worker, monkeypatch):
    damage(rig.run_dir)
    rig.run_dir.quarantine.touch()  # no directory can be made there
    monkeypatch.setattr("collect.worker._DAMAGE_SECONDS", 1000.0)
    load, loads = worker._load_actor, []
    monkeypatch.setattr(worker, "_load_actor", lambda: loads.append(load()))
    worker._refresher.state = progress.RunState(0, 1_000, 0, 0, 0, 1.0)
    worker._refresher._run_rows = 1_000  # the random steps are over
    assert [worker._choose_actions() for _ in range(3)] == [None] * 3
    assert loads == [None]
    worker._load_at = 0.0
    assert worker._choose_actions() is None and loads == [None] * 2


FULL_DISK = """
import sys
from sactory import quarantine
from sactory.run_dir import RunDir

run_dir = RunDir(sys.argv[1])
bad = run_dir.root / "bad"
bad.touch()
quarantine.set_aside(run_dir, bad, "damaged")
try:
    quarantine.set_aside(run_dir, bad, "damaged")
except FileNotFoundError:
    print("gone")
"""


def test_quarantine_on_a_full_disk_moves_and_leaves_no_reason_without_its_file(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)),
    )
    assert done.stdout == "gone\n", done.stderr
    moved, reason = sorted(path.name for path in RunDir(tmp_path).quarantine.iterdir())
    assert moved.endswith("-0-bad") and reason == f"{moved}.why"


def test_an_export_of_another_version_still_ends_the_collector(rig, worker):
    newest = policies.list_exports(rig.run_dir, policies.COLLECT)[-1]
    write_json(newest.path / policies.META, {"format": 1, "files": {}})
    with pytest.raises(UserError, match="has format 1"):
        worker._load_actor()
    assert len(collect_steps(rig.run_dir)) == 3


def test_published_weights_of_another_network_are_not_taken(worker, caplog):
    actor = worker._load_actor()
    vector, version = actor.variables_vector(), worker._version
    worker._take(actor, weights.Version(9, 9), vector[:-1])
    assert worker._version == version and "don't fit the policy" in caplog.text
    worker._take(actor, weights.Version(9, 9), vector * 2)
    assert worker._version == weights.Version(9, 9)
    np.testing.assert_array_equal(actor.variables_vector(), vector * 2)


@pytest.mark.parametrize(("kept", "count"), [((0, 1000, 2000), 0), ((0,), 0), ((), 1)])
def test_a_restart_exports_anew_if_no_export_is_whole(rig, stand_ins, kept, count):  # noqa: F811
    damage(rig.run_dir, *kept)
    assert len(rig.start().learner._exporter.vectors) == count


def test_a_trainer_whose_exports_are_lost_exports_anew(rig, stand_ins):  # noqa: F811
    learner = rig.start().learner
    learner._lost_due = lambda now: True
    learner._export_and_save()
    assert learner._exporter.vectors == []
    shutil.rmtree(rig.run_dir.policies(policies.COLLECT))
    learner._export_and_save()
    assert len(learner._exporter.vectors) == 1
