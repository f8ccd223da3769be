"""Talks to daemontools: its programs or their stand-in, the status of a service, commands to it.

The files and fifos of `supervise` are read directly: `svc` ends with 0 whatever happened.
"""

from __future__ import annotations

import errno
import os
import shutil
import struct
import sys
from dataclasses import dataclass
from pathlib import Path

_PROGRAMS = ("supervise", "multilog")


@dataclass(frozen=True)
class ServiceStatus:
    """What `supervise` says about a service.

    Attributes:
        pid: The run script's process, or 0 when the service is down.
        want: `u` (up), `d` (down) or "" (once: not started again).
    """

    pid: int
    want: str


def search_path() -> str:
    """PATH with the places where an environment without root keeps daemontools' programs."""
    places = [os.environ.get("PATH", os.defpath)]
    places += [str(Path(sys.prefix) / "bin"), str(Path(sys.prefix) / "usr" / "bin")]
    return os.pathsep.join(places)


def command(name: str) -> list[str]:
    """The argv that starts daemontools' `supervise` or `multilog`, or what stands in for them."""
    if all(shutil.which(program, path=search_path()) for program in _PROGRAMS):
        return [name]  # to be found on `search_path()`
    return [sys.executable, "-m", "supervise.stand_in", name]


def is_supervised(service: Path) -> bool:
    """Whether a `supervise` runs on the directory (what `svok` tests)."""
    return _write_fifo(service / "supervise" / "ok", b"")


def status(service: Path) -> ServiceStatus | None:
    """The service's status as `supervise` wrote it last, or None if it never did."""
    try:
        data = (service / "supervise" / "status").read_bytes()
    except OSError:
        return None
    if len(data) < 18:
        return None
    (pid,) = struct.unpack("<I", data[12:16])
    return ServiceStatus(pid, data[17:18].decode("ascii", "replace").strip("\0"))


def control(service: Path, commands: str) -> bool:
    """Sends commands such as `dx` (see `man svc`); False if no `supervise` listens."""
    return _write_fifo(service / "supervise" / "control", commands.encode())


def _write_fifo(path: Path, data: bytes) -> bool:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    except OSError as e:
        if e.errno in (errno.ENXIO, errno.ENOENT):
            return False
        raise
    try:
        os.write(fd, data)
        return True
    finally:
        os.close(fd)
