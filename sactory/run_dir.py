"""Where everything of a run lies, and how a file is written so that it is whole or absent.

    R/  config.gin specs.json provenance.json code/ tls/ frozen by init, and curriculum.json
        train.log eval.log tb/<program>/ video/<env_steps>.mp4
        policies/{greedy,collect}/<export>/               SavedModels with meta.json
        train/<train_step>/                               trainer checkpoints
        train/diverged.json                               why the trainer rolled back
        replay/                                           Reverb's own root, nothing else
        replay_history/<checkpoint>/                      hard links of its checkpoints, manifests
        repair.json                                       the trainer asks for a clean replay
        quarantine/                                       what was damaged, and why
        curriculum_state.json                             what parameters depend on now
        status/<program>.json                             heartbeats
        services/<host>/                                  the generated supervise tree
        address.json locks/ done.json failed.json result.json

This module knows names and atomic writes only; it never decides what is written.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import shutil
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sactory.errors import UserError

# What a disk or its server says when it can't be read or locked now; whether files are whole,
# nobody knows.
_UNREADABLE = (
    "EIO",
    "ESTALE",
    "EACCES",
    "EPERM",
    "ETIMEDOUT",
    "EMFILE",
    "ENFILE",
    "ENOMEM",
    "ENOLCK",
)


class RunDir:
    """The paths of one run.

    Args:
        root: The run directory R. It need not exist yet.
    """

    def __init__(self, root: str | os.PathLike[str]):
        self.root = Path(os.path.abspath(root))
        self.config = self.root / "config.gin"
        self.specs = self.root / "specs.json"
        self.provenance = self.root / "provenance.json"
        self.curriculum = self.root / "curriculum.json"
        self.curriculum_state = self.root / "curriculum_state.json"
        self.code = self.root / "code"
        self.train_log = self.root / "train.log"
        self.eval_log = self.root / "eval.log"
        self.videos = self.root / "video"
        self.trainer_checkpoints = self.root / "train"
        self.diverged = self.trainer_checkpoints / "diverged.json"
        self.replay_checkpoints = self.root / "replay"
        self.replay_history = self.root / "replay_history"
        self.repair = self.root / "repair.json"
        self.quarantine = self.root / "quarantine"
        self.address = self.root / "address.json"
        self.tls = self.root / "tls"
        self.done = self.root / "done.json"
        self.failed = self.root / "failed.json"
        self.result = self.root / "result.json"  # of the final evaluation: nothing is left to do

    def __str__(self) -> str:
        return str(self.root)

    def __repr__(self) -> str:
        return f"RunDir({str(self.root)!r})"

    def tensorboard(self, program: str) -> Path:
        """Event files of one program, for example `train` or `collect_0`."""
        return self.root / "tb" / program

    def policies(self, kind: str) -> Path:
        """Exports of one kind, `greedy` or `collect`."""
        return self.root / "policies" / kind

    def video(self, env_steps: int) -> Path:
        """The video of the policy exported at `env_steps` env steps."""
        return self.videos / f"{env_steps}.mp4"

    def status(self, program: str) -> Path:
        """The heartbeat of one program, for example `train` or `collect_0`."""
        return self.root / "status" / f"{program}.json"

    def services(self, host: str | None = None) -> Path:
        """The supervise tree of one host (default: this one)."""
        return self.root / "services" / (host or socket.gethostname())

    def lock(self, name: str) -> Path:
        """A file to take an advisory lock on."""
        return self.root / "locks" / name

    @property
    def is_frozen(self) -> bool:
        """Whether init has finished; provenance.json is the last file it writes."""
        return self.provenance.exists()

    @functools.cached_property
    def run_id(self) -> str:
        """What no other run has in common with this one."""
        return (read_json(self.provenance) or {}).get("run_id", "")

    @property
    def is_done(self) -> bool:
        """Whether the run has reached its end; not yet, as long as its disk can't be read."""
        return os.path.exists(self.done)

    def require(self) -> RunDir:
        """Returns itself if init has frozen it, else raises `UserError`."""
        if not self.root.exists():
            raise UserError(
                f"there is no {self.root}: `sactory init --run_dir {self.root} --config CONFIG` "
                "makes a run there"
            )
        if not self.is_frozen:
            raise UserError(
                f"{self.root} is not a run directory (it has no provenance.json): name another, or "
                f"make one with `sactory init --run_dir {self.root} --config CONFIG`"
            )
        return self


def require_private(path: Path) -> None:
    """Refuses what somebody else could have written: a policy's files are code.

    Raises:
        UserError: Others can write to `path` or below it, own something there, can put another
            directory in its place, or a link in it leads elsewhere.
    """
    path = path.resolve()
    why = _public(path)
    if why is not None:
        raise UserError(
            f"{path} is not loaded, for a policy is code and {why}: if you trust it, take a copy "
            f"of your own, `cp -rL {path} COPY && chmod -R go-w COPY`"
        )


def _public(path: Path) -> str | None:
    """Why others may have a say in what lies at `path`, or None."""
    ours = (os.getuid(), 0)
    parents = [(parent, parent.stat()) for parent in path.parents]
    for parent, found in parents:
        # Where everybody can rename what isn't theirs, anything may be in its place a moment later.
        if found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX:
            return f"everybody can write to {parent}"
    if any(found.st_uid in ours and not found.st_mode & 0o011 for _, found in parents):
        return None  # nobody else gets in: it doesn't matter what lies inside
    for part in [path, *path.rglob("*")] if path.exists() else []:
        found = part.lstat()
        if found.st_uid not in ours:
            return f"{part} belongs to user {found.st_uid}"
        if stat.S_ISLNK(found.st_mode):
            return f"{part} is a link"
        if found.st_mode & 0o022:
            return f"others can write to {part}"
    return None


def fsync_path(path: Path) -> None:
    """Flushes one file or directory to the disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_atomic(path: Path, data: bytes | str) -> None:
    """Writes a file so that a reader, or a crash, sees the old content or the new, never a part.

    Raises:
        OSError: The disk is full or the directory can't be written; the old file stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    fd, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(fd, "wb") as f:
            f.write(data.encode() if isinstance(data, str) else data)
            f.flush()
            os.fsync(f.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    fsync_path(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as JSON with `write_atomic`. NaN is refused: it is not JSON."""
    write_atomic(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Reads a JSON file; None if it is absent or not whole JSON (another host may be slow).

    Raises:
        OSError: It can't be read now.
    """
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError, RecursionError):
        return None  # ValueError: not JSON, not UTF-8, or a number of too many digits


def poll_json(path: Path) -> Any:
    """As `read_json`, for whoever looks again soon: None also if it can't be read now."""
    try:
        return read_json(path)
    except OSError:
        return None


def is_unreadable(error: OSError) -> bool:
    """Whether an error of reading or locking says nothing about the file: it may pass."""
    return errno.errorcode.get(error.errno or 0) in _UNREADABLE


@contextlib.contextmanager
def whole_directory(path: Path) -> Iterator[Path]:
    """Yields a temporary sibling to fill; on success it is fsynced and renamed to `path`.

    On any error the temporary directory is removed and `path` never appears.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".tmp-", dir=path.parent))
    try:
        yield temporary
        for directory, _, files in os.walk(temporary):
            for name in files:
                fsync_path(Path(directory) / name)
            fsync_path(Path(directory))
        os.replace(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    fsync_path(path.parent)


def remove_leftovers(directory: Path) -> None:
    """Removes the temporary directories that a killed writer left in `directory`."""
    for leftover in directory.glob(".tmp-*"):
        shutil.rmtree(leftover, ignore_errors=True)
