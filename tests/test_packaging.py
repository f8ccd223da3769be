"""The lock, the metadata and the environment that `make` builds say the same thing."""

import importlib.metadata
import importlib.util
import os
import re
import runpy
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import setuptools
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import sactory

ROOT = Path(__file__).resolve().parent.parent
PYTHONS = ("3.9", "3.10", "3.11")
PACKAGES = ["sactory", "replay_server", "collect", "train", "eval", "supervise", "configs"]


def load_lock_tool():
    spec = importlib.util.spec_from_file_location("lock", ROOT / ".ci" / "lock.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


lock_tool = load_lock_tool()
LOCK = lock_tool.LOCK.read_text()


@pytest.fixture
def metadata(monkeypatch):
    """The arguments of setup.py's call of `setup`."""
    found = {}
    monkeypatch.setattr(setuptools, "setup", lambda **arguments: found.update(arguments))
    monkeypatch.chdir(ROOT)
    runpy.run_path("setup.py")
    return found


def holds(requirement: Requirement, python: str) -> bool:
    machine = {"sys_platform": "linux", "platform_machine": "x86_64", "platform_system": "Linux"}
    version = {"python_version": python, "python_full_version": f"{python}.7"}
    marker = requirement.marker
    return marker is None or marker.evaluate({**machine, **version, "extra": ""})


def locked(python: str) -> dict[str, str]:
    """Name and version of what the lock installs for a Python; fails on a name with two."""
    versions = {}
    for line in lock_tool.requirements(LOCK):
        requirement = Requirement(line)
        if holds(requirement, python):
            assert requirement.name not in versions, f"{requirement.name} twice for {python}"
            versions[requirement.name] = str(requirement.specifier).removeprefix("==")
    return versions


@pytest.mark.parametrize("python", PYTHONS)
def test_lock_satisfies_setup_py(metadata, python):
    versions = locked(python)
    wanted = [*metadata["install_requires"], *metadata["extras_require"]["dev"]]
    for requirement in map(Requirement, wanted):
        if holds(requirement, python):
            version = versions[canonicalize_name(requirement.name)]
            assert requirement.specifier.contains(version), f"{requirement} but {version} locked"


def test_pins_of_the_stack(metadata):
    versions = locked("3.11")
    pins = {"tensorflow": "2.15.1", "tf-agents": "0.19.0", "dm-reverb": "0.14.0"}
    pins |= {"numpy": "1.26.4", "gin-config": "0.5.0", "dm-control": "1.0.50", "mujoco": "3.17.0"}
    assert {name: versions[name] for name in pins} == pins
    assert int(versions["setuptools"].split(".")[0]) < 81
    assert metadata["python_requires"] == ">=3.9,<3.12"


def test_every_locked_version_has_hashes():
    blocks = re.split(r"^(?=[a-z0-9])", LOCK, flags=re.MULTILINE)[1:]
    assert len(blocks) == len(lock_tool.requirements(LOCK)) > 80
    assert [block.splitlines()[0] for block in blocks if "--hash=sha256:" not in block] == []


def test_conda_env_is_generated_from_the_lock():
    assert lock_tool.CONDA_ENV.read_text() == lock_tool.conda_env(LOCK), "run `make lock`"


def test_gpu_extra_is_what_tensorflow_asks_for(metadata):
    asked = [Requirement(line) for line in importlib.metadata.requires("tensorflow") or []]
    of_cuda = {f"{r.name}{r.specifier}" for r in asked if r.marker and "and-cuda" in str(r.marker)}
    assert importlib.metadata.version("tensorflow") == locked("3.11")["tensorflow"]
    assert set(metadata["extras_require"]["gpu"]) == of_cuda


def test_no_file_names_a_package_registry():
    words = ["pypi org", "pythonhosted org", "deb debian", "anaconda org", "registry npmjs"]
    hosts = [pair.replace(" ", ".") for pair in words]  # so that this file does not name them
    options = ["--" + word for word in ("index-url", "extra-index-url", "find-links")]
    found = []
    for path in project_files():
        text = path.read_text(errors="ignore")
        found += [f"{path.relative_to(ROOT)}: {word}" for word in hosts + options if word in text]
    assert found == []


def project_files() -> list[Path]:
    """Every file of the project, without what runs and tools have made."""
    made = {"runs", "build", "dist", "__pycache__", "results"}
    files = []
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [
            f for f in folders if f == ".ci" or not (f[0] == "." or f in made or "egg-info" in f)
        ]
        files += [Path(folder) / name for name in names]
    return files


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """A wheel built from a copy of the tree, so that nothing is left in the checkout."""
    copy = tmp_path_factory.mktemp("wheel") / "copy"
    copy.mkdir()
    for name in ("setup.py", "pyproject.toml", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    for name in PACKAGES:
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    build = "from setuptools import build_meta as b; print(b.build_wheel('..'))"
    done = subprocess.run([sys.executable, "-c", build], cwd=copy, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr.decode()
    return next(copy.parent.glob("*.whl"))


@pytest.mark.timeout(180)
def test_wheel_holds_programs_and_configs(wheel):
    assert wheel.name.startswith(f"sactory-{sactory.__version__}-")
    held = set(zipfile.ZipFile(wheel).namelist())
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*"):
            if path.suffix in (".py", ".gin", ".sh", ".json"):
                assert str(path.relative_to(ROOT)) in held
    assert not [name for name in held if name.startswith(("tests/", "docs/", "benchmarks/"))]


@pytest.mark.timeout(180)
def test_installed_wheel_finds_its_configs(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    code = """
import sactory, sactory.config_text as c
print(sactory.__file__)
print(c.resolve_text('configs/tasks/walker_walk.gin'))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.startswith(str(tmp_path)), done.stderr
    assert "envs.load.name = 'walker_walk'" in done.stdout
