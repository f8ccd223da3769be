"""The trainer's exporter keeps the run below its cap, with and without a new export."""

from __future__ import annotations

import os

import pytest

from sactory import disk, policies, settings, supervision
from sactory.run_dir import RunDir
from tests.test_policies import make_agent
from train import export
from train.export import Exporter

pytestmark = pytest.mark.timeout(120)


def test_the_cap_is_kept_between_exports(tmp_path, monkeypatch):
    monkeypatch.setattr(export, "_TIDY_SECONDS", 0.01)
    run_dir = RunDir(tmp_path)
    exporter = Exporter(run_dir, make_agent(), settings.Run(max_disk_gb=1e-6))
    old = run_dir.quarantine / "train-7"
    old.mkdir(parents=True)
    (old / "weights").write_bytes(os.urandom(10_000))
    gone = supervision.wait_for(lambda: not old.exists(), supervision.Stop(), timeout=60)
    assert gone and exporter.close(60)


def test_an_export_that_is_written_has_not_failed_whatever_happens_to_old_ones(
    tmp_path, monkeypatch, caplog
):
    def refuse(*_args):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(disk, "plan", refuse)
    run_dir, agent = RunDir(tmp_path), make_agent()
    exporter = Exporter(run_dir, agent, settings.Run(max_disk_gb=1))
    exporter.export(agent.policy_vector(), 10, 5, 1)
    assert exporter.wait(60)
    assert exporter.error is None and exporter.written == [policies.export_name(10, 5, 1)]
    assert "Input/output error" in caplog.text
    assert exporter.close(60)
