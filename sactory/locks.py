"""Advisory locks on files of a run: one process each, freed by the kernel however it ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

from sactory.errors import RetryError, UserError
from sactory.run_dir import is_unreadable


class LockedError(Exception):
    """Somebody else holds the lock."""


def hold_lock(path: Path, refusal: str | None = None) -> int:
    """Takes an exclusive lock that lives as long as this process, and writes its number there.

    Args:
        path: The lock's file.
        refusal: What to tell the user if another process holds it; None: `LockedError` says so.

    Returns:
        The open descriptor.

    Raises:
        LockedError: Another process holds it, and there is no `refusal`.
        RetryError: The disk, or the server of its locks, is away.
        UserError: Another process holds it; or the file system has no locks.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _lock(fd, path)
    except LockedError:
        os.close(fd)
        if refusal is None:
            raise
        raise UserError(refusal) from None
    except BaseException:
        os.close(fd)
        raise
    with contextlib.suppress(OSError):  # on a full disk it is held all the same, by nobody's name
        os.ftruncate(fd, 0)
        os.write(fd, f"{os.getpid()}\n".encode())
    return fd


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock. Nothing is written: the file still names its last owner.

    Raises:
        RetryError: The disk, or the server of its locks, is away.
        UserError: The file system has no locks.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)  # NFS locks no file that can't be written
    except FileNotFoundError:
        return False
    try:
        _lock(fd, path)
        return False
    except LockedError:
        return True
    finally:
        os.close(fd)


def _lock(fd: int, path: Path) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as e:
        raise LockedError(str(path)) from e
    except OSError as e:
        kind = RetryError if is_unreadable(e) else UserError
        raise kind(
            f"{path} can't be locked ({e.strerror}): the file system of the run directory must "
            "support flock"
        ) from e
