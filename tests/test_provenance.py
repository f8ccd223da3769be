"""What a run remembers of its sources, and what it says when they changed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from sactory import config, init_run, provenance
from sactory.run_dir import RunDir, read_json

pytestmark = pytest.mark.timeout(120)

SAC = Path(config.__file__).resolve().parent.parent / "configs/sac.gin"
TOY = (Path(__file__).parent / "toy_env.py").read_text()


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A working directory of its own with a user's environment in it."""
    (tmp_path / "toy_of_provenance.py").write_text(TOY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield tmp_path
    sys.modules.pop("toy_of_provenance", None)
    config.clear()


def test_a_changed_source_is_reported(here):
    run_dir = RunDir("run")
    init_run.init(run_dir, SAC, ["envs.load.name = 'python:toy_of_provenance:make'"])
    assert provenance.check_sources(run_dir) == []
    with (here / "toy_of_provenance.py").open("a") as f:
        f.write("# changed\n")
    (warning,) = provenance.check_sources(run_dir)
    assert "toy_of_provenance.py changed since init" in warning
    assert f"the run goes on with its copy {run_dir.code}" in warning
    with run_dir.config.open("a") as f:
        f.write("# by hand\n")
    assert any("config.gin was edited" in w for w in provenance.check_sources(run_dir))
    (here / "toy_of_provenance.py").unlink()
    assert any("is gone" in w for w in provenance.check_sources(run_dir))
    record = read_json(run_dir.provenance)
    record["sactory"], record["versions"]["numpy"] = "0.0.1", "1.0"
    run_dir.provenance.write_text(json.dumps(record))
    warnings = " ".join(provenance.check_sources(run_dir))
    assert "made by Sactory 0.0.1" in warnings and "with numpy 1.0" in warnings


def test_a_package_can_be_imported_from_anywhere(here, monkeypatch):
    (here / "toy_package").mkdir()
    (here / "toy_package/__init__.py").write_text("")
    (here / "toy_package/deep.py").write_text(TOY)
    name = "envs.load.name = 'python:toy_package.deep:make'"
    run_dir = RunDir("run")
    assert init_run.init(run_dir, SAC, [name]) is True
    assert not run_dir.code.exists(), "a part of a package is of no use alone"
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p not in ("", str(here))])
    config.load(run_dir)
    assert sys.path[-1] == str(here)
    assert provenance.check_sources(run_dir) == []
