"""Makes the daemontools tree of a run: one service directory per program, each with a log.

    R/services/<host>/
        tree.json                 what the reaper reads: the services and the grace period
        train/run  train/service.json  train/log/run       the program and its multilog
        collect_0/ …  replay_server/  eval/

The directories are ordinary daemontools services: `svstat R/services/<host>/*`, `svc -t …`.
This module writes files; `supervise.reaper` starts what they describe.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from sactory import launch
from sactory.run_dir import RunDir, write_atomic, write_json
from sactory.supervision import ALIVE_FILE
from supervise import daemontools, verdict
from supervise.templates import LOG_RUN, RUN

DEFAULT_GRACE_SECONDS = 60.0
TREE_FILE = "tree.json"  # written here once, read by the reaper
STOP_FILE = "stop"  # whoever creates it, on any host that sees R, stops the tree
LAST_TO_STOP = "replay_server"  # the others may still want to hand it their last rows


@dataclass(frozen=True)
class Program:
    """One program of the tree.

    Attributes:
        name: Name of its service.
        command: Its argv.
        environment: Variables of its own.
    """

    name: str
    command: Sequence[str]
    environment: dict[str, str] = field(default_factory=dict)


def programs(
    run_dir: RunDir, num_collectors: int, device: str = "cpu", insecure_listen: bool = False
) -> list[Program]:
    """The programs of a run on one host.

    Args:
        run_dir: The run directory.
        num_collectors: Number of collectors.
        device: `gpu` lets the trainer see the GPUs; nobody else does.
        insecure_listen: Whether the replay server's port is open to everybody.
    """
    collectors = [f"collect_{worker}" for worker in range(num_collectors)]
    names = [LAST_TO_STOP, *collectors, "train", "eval"]
    return [program(run_dir, name, device, insecure_listen) for name in names]


def program(
    run_dir: RunDir, name: str, device: str = "cpu", insecure_listen: bool = False
) -> Program:
    """One program of a run by its name, such as `train` or `collect_0`; the rest as above."""
    where = ["--run_dir", str(run_dir.root)]
    no_gpu = {"CUDA_VISIBLE_DEVICES": "-1"}
    verb, _, worker = name.partition("_") if name.startswith("collect_") else (name, "", "")
    if worker:
        where += ["--worker", worker]
    if name == LAST_TO_STOP:
        where += ["--insecure_listen"] if insecure_listen else []
        # Reverb names and sorts its checkpoints by local time: a clock change would misorder them.
        no_gpu = {"TZ": "UTC", **no_gpu}
    environment = {} if name == "train" and device == "gpu" else no_gpu
    return Program(name, launch.sactory_command(verb.replace("_", "-"), *where), environment)


def write_tree(
    run_dir: RunDir,
    members: Sequence[Program],
    directory: str | None = None,
    grace_seconds: float = DEFAULT_GRACE_SECONDS,
    limits: dict[str, float] | None = None,
    name: str | None = None,
) -> Path:
    """Writes the service directories, replacing those of an earlier start; logs are kept.

    Call it only while holding the run's lock, when no tree of this run lives on this host.

    Args:
        run_dir: The run directory.
        members: The programs.
        directory: Working directory of the programs; None or missing: the run directory.
        grace_seconds: From a stop to the moment when whatever is left is killed.
        limits: Fields of `verdict.Settings` to set otherwise than by default.
        name: Of the tree, where a host has several of this run; None: the host's.

    Returns:
        The tree's directory.
    """
    root = run_dir.services(name)
    root.mkdir(parents=True, exist_ok=True)
    names = [member.name for member in members]
    for old in root.iterdir():
        if old.is_dir() and old.name not in names:
            shutil.rmtree(old)
    for name in (STOP_FILE, ALIVE_FILE):
        (root / name).unlink(missing_ok=True)
    if directory is None or not os.path.isdir(directory):
        directory = str(run_dir.root)
    for member in members:
        settings = verdict.Settings(
            name=member.name,
            failed_file=str(run_dir.failed),
            directory=directory,
            grace_seconds=program_grace(grace_seconds),
        )
        _write_service(root / member.name, member, {**asdict(settings), **(limits or {})})
    write_json(root / TREE_FILE, {"services": names, "grace_seconds": grace_seconds})
    return root


def ask_to_stop(root: Path, grace: float | None = None) -> None:
    """Asks the reaper of the tree in `root` to end it, once.

    Args:
        root: The tree's directory.
        grace: Seconds until what is left is killed; None, or more than the tree has: the tree's.
    """
    if (root / STOP_FILE).exists():
        return
    try:
        write_atomic(root / STOP_FILE, "" if grace is None else f"{grace}\n")
    except OSError:  # an empty file needs no room on the disk
        (root / STOP_FILE).touch()


def asked_grace(root: Path, longest: float) -> float:
    """The grace period that the stop file names, in seconds, at most `longest`."""
    try:
        return min(longest, float((root / STOP_FILE).read_text()))
    except (OSError, ValueError):
        return longest


def program_grace(tree_grace: float) -> float:
    """A program's own grace period in seconds.

    The replay server is told to stop up to a third of the tree's grace after the others.
    """
    return max(1.0, tree_grace * 2.0 / 3.0 - 2.0)


def _write_service(path: Path, member: Program, settings: dict[str, object]) -> None:
    for name in ("down", verdict.STATE_FILE):
        (path / name).unlink(missing_ok=True)
    write_json(path / verdict.SETTINGS_FILE, settings)
    variables = {
        "PYTHONPATH": launch.python_path(),
        "PYTHONSAFEPATH": "1",
        "PYTHONUNBUFFERED": "1",
        **member.environment,
    }
    exports = "\n".join(f"export {k}={shlex.quote(v)}" for k, v in variables.items())
    text = RUN.format(
        name=member.name,
        exports=exports,
        python=shlex.quote(sys.executable),
        command=shlex.join(member.command),
    )
    _write_script(path / "run", text)
    multilog = daemontools.command("multilog")
    options = [] if len(multilog) > 1 else ["t", "s1000000", "n5"]  # what the stand-in does anyway
    _write_script(path / "log" / "run", LOG_RUN.format(multilog=shlex.join([*multilog, *options])))


def _write_script(path: Path, text: str) -> None:
    write_atomic(path, text)
    path.chmod(0o700)
