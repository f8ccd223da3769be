"""Where a run comes from: who made it, with which sources and versions; and what changed since.

Only records and compares; nothing here is read back to configure a run.
"""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import importlib.metadata
import os
import platform
import secrets
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from sactory import __version__
from sactory.errors import UserError
from sactory.run_dir import RunDir, read_json

FORMAT = 1
_SOURCES = Path(__file__).resolve().parent.parent
_PACKAGES = (
    "tensorflow",
    "tf-agents",
    "dm-reverb",
    "tensorflow-probability",
    "gin-config",
    "numpy",
    "dm_control",
    "mujoco",
    "gymnasium",
    "pybullet",
    "protobuf",
)


def record(config_text: str, config: str, overrides: list[str]) -> dict[str, Any]:
    """The content of `provenance.json`.

    Args:
        config_text: The frozen text.
        config: The configuration file as the user named it.
        overrides: The `--set` bindings.
    """
    return {
        "format": FORMAT,
        "run_id": secrets.token_hex(8),
        "time": time.time(),
        "argv": sys.argv,
        "cwd": os.getcwd(),
        "config": config,
        "overrides": overrides,
        "config_sha256": sha256(config_text.encode()),
        "sactory": __version__,
        "git": commit(),
        "lock_sha256": _lock(),
        "versions": _versions(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "host": socket.gethostname(),
        "user": _user(),
    }


def check_sources(run_dir: RunDir) -> list[str]:
    """What differs from the sources and versions that the run was made with.

    Returns:
        Warnings for a program to log at its start, one line each; none if all is as it was.
    """
    then = read_json(run_dir.provenance) or {}
    warnings = []
    if then.get("sactory", __version__) != __version__:
        warnings.append(f"the run was made by Sactory {then['sactory']}, this is {__version__}")
    lock = _lock()
    if lock and then.get("lock_sha256") and lock != then["lock_sha256"]:
        warnings.append("requirements.lock changed since the run was made")
    for name, version in _versions().items():
        was = then.get("versions", {}).get(name, version)
        if was != version:
            warnings.append(f"the run was made with {name} {was}, this is {version}")
    for path, key in (
        (run_dir.config, "config_sha256"),
        (run_dir.curriculum, "curriculum_sha256"),
    ):
        with contextlib.suppress(OSError):
            if then.get(key) not in (None, sha256(path.read_bytes())):
                warnings.append(f"{path} was edited since init")
    return warnings + _check_env_source(run_dir)


def before_amendments(run_dir: RunDir) -> dict[str, Any]:
    """The values that amended settings had at first, by full name."""
    values: dict[str, Any] = {}
    for amendment in (read_json(run_dir.provenance) or {}).get("amendments", []):
        values = {**{key: old for key, (old, _) in amendment["changes"].items()}, **values}
    return values


def _check_env_source(run_dir: RunDir) -> list[str]:
    """Whether a user's environment still has the hash that init recorded."""
    specs = read_json(run_dir.specs) or {}
    env = specs.get("env", {})
    if "sha256" not in env:
        return []
    copy = run_dir.code / Path(env["file"]).name if env["single_file"] else None
    used = f"the run goes on with its copy {copy}" if copy else "the run uses the changed one"
    warnings = []
    try:
        now = env_source(env["name"])
    except UserError as e:
        return [f"the environment's source {env['file']} is gone ({e}); {used}"]
    if now["sha256"] != env["sha256"]:
        warnings.append(
            f"the environment's source {now['file']} changed since init (sha256 "
            f"{env['sha256'][:12]} -> {now['sha256'][:12]}); {used}"
        )
    with contextlib.suppress(OSError):
        if copy and sha256(copy.read_bytes()) != env["sha256"]:
            warnings.append(f"the run's copy of the environment's source, {copy}, was edited")
    return warnings


def env_source(name: str) -> dict[str, Any]:
    """Facts on a user's environment for `specs.json`; none for Sactory's own.

    Returns:
        `module`, `import_path` (what Python's path must hold), `file`, `single_file`, `sha256`.
    """
    kind, *parts = name.split(":")
    if kind == "gymnasium" and len(parts) == 2:  # gymnasium:my_module:MyEnv-v0
        name = f"python:{parts[0]}:registered"
    elif kind != "python":
        return {}
    from sactory.envs import python_env

    source = python_env.find_source(name)
    module = source.target.partition(":")[0]
    depth = module.count(".") + (source.path.stem == "__init__")
    return {
        "module": module,
        "import_path": str(source.path.parents[depth]),
        "file": str(source.path),
        "single_file": source.single_file,
        "sha256": source.sha256,
    }


def sha256(data: bytes) -> str:
    """Hash in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def _lock() -> str | None:
    lock = _SOURCES / "requirements.lock"
    return sha256(lock.read_bytes()) if lock.is_file() else None


def _versions() -> dict[str, str]:
    """Versions of the main packages that are installed; nothing is imported."""
    versions = {}
    for name in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


def commit() -> dict[str, Any] | None:
    """Commit of the sources and whether files differ from it; None outside a checkout."""
    if not (_SOURCES / ".git").exists():
        return None

    def git(*words: str) -> str:
        command = ["git", "-C", str(_SOURCES), *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
        return done.stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return {"commit": git("rev-parse", "HEAD"), "changed": bool(changed)}
    except (OSError, subprocess.SubprocessError):
        return None


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return "unknown"
