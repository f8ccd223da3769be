"""The runs that paths and patterns name: `runs/*` goes down to every seed.

A run is a directory that init has frozen or that a job was written for; what lies in it is not
looked at. What a run is called comes from where it lies, `<task>/<config>/seed_<i>`, else from its
settings.
"""

from __future__ import annotations

import functools
import glob
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sactory.errors import UserError
from sactory.run_dir import RunDir

JOB_SCRIPT = "run.slrm"
"""In the directory of a run that was written for SLURM."""
_DEEPEST = 5  # levels below what was named: nobody nests runs deeper, and disks may be slow
_SEED = re.compile(r"seed_(\d+)")


@dataclass(frozen=True, order=True)
class Name:
    """What a run is called among others.

    Attributes:
        task: The environment's name, as a directory's.
        config: The configuration's name.
        seed: Its seed.
    """

    task: str
    config: str
    seed: int

    def __str__(self) -> str:
        return f"{self.task}/{self.config}/seed_{self.seed}"


def find(words: Sequence[str]) -> list[RunDir]:
    """The runs at or below paths and patterns, sorted, each once.

    Raises:
        UserError: A word names nothing, or no run is there.
    """
    found: dict[Path, RunDir] = {}
    for word in words:
        paths = [word] if os.path.lexists(word) else glob.glob(os.path.expanduser(word))
        runs = [run for path in paths for run in _below(Path(path), _DEEPEST)]
        if not runs:
            what = "no run at or below it" if paths else "no such file or directory"
            raise UserError(f"{word}: there is {what}; try a pattern such as 'runs/*', in quotes")
        found.update((run.root.resolve(), run) for run in runs)
    return sorted(found.values(), key=lambda run: natural(str(run.root)))


def natural(text: str) -> list[Any]:
    """A key that sorts `seed_2` before `seed_10`."""
    return [(int(p), "") if p.isdecimal() else (-1, p) for p in re.split(r"(\d+)", text)]


def _below(path: Path, levels: int) -> list[RunDir]:
    """The runs in a directory; one that can't be read holds none."""
    run = RunDir(path)
    if run.is_frozen or (path / JOB_SCRIPT).exists():
        return [run]
    if not levels:
        return []
    try:
        with os.scandir(path) as entries:
            inner = [e.path for e in entries if e.is_dir() and not e.name.startswith(".")]
    except OSError:
        return []
    return [run for directory in inner for run in _below(Path(directory), levels - 1)]


def name(run_dir: RunDir) -> Name:
    """What a run is called.

    Raises:
        UserError: Neither its place nor its settings tell.
    """
    match = _SEED.fullmatch(run_dir.root.name)
    if match is not None:
        config = run_dir.root.parent
        return Name(config.parent.name, config.name, int(match[1]))
    values = read_settings(run_dir)
    if "envs.load.name" not in values:
        raise UserError(f"{run_dir}: its settings can't be read, so it has no name in a report")
    from sactory.config import task_slug

    task = task_slug(values["envs.load.name"])
    return Name(task, values["run.name"], values["run.seed"])


def read_settings(run_dir: RunDir) -> dict[str, Any]:
    """A run's settings by full name; {} where they can't be read."""
    try:
        changed = run_dir.config.stat().st_mtime_ns
        return _read_settings(run_dir.config, changed)
    except (OSError, UserError, UnicodeDecodeError):
        return {}


@functools.lru_cache(maxsize=1024)
def _read_settings(path: Path, _changed: int) -> dict[str, Any]:
    """Once for each content: `sactory run` asks twice a second, `status --watch` for many runs."""
    from sactory.config import check_text

    return check_text(path.read_text("utf-8"), str(path)).values
