"""Talks to daemontools: finds its programs, reads a service's status, sends it commands.

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

from sactory.errors import UserError

_PROGRAMS = ("supervise", "multilog", "svc", "svstat")


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


def require() -> str:
    """Returns the search path on which all of daemontools' programs were found.

    Raises:
        UserError: One is missing; says how to get it.
    """
    path = search_path()
    missing = [name for name in _PROGRAMS if shutil.which(name, path=path) is None]
    if missing:
        raise UserError(
            f"daemontools is missing ({', '.join(missing)}): `apt-get install daemontools` as "
            "root, or without root `apt-get download daemontools && dpkg -x daemontools_*.deb "
            f"{sys.prefix}`; elsewhere build it from https://cr.yp.to/daemontools.html"
        )
    return path


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
