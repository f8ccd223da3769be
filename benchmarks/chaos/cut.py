"""Takes down the network of an isolated replay server for a while, as a pulled cable would.

Connections stay and nothing passes, so that neither side is told. A child does it: it must enter
the server's network, and this process must stay where it is.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_SIOCSIFFLAGS, _IFF_UP, _IFF_RUNNING = 0x8914, 0x1, 0x40


def cut(pid: int, seconds: float) -> bool:
    """Cuts the network of process `pid`; False if it has none of its own, or it is gone."""
    try:
        if _namespace(pid, "net") == _namespace("self", "net"):
            return False
    except FileNotFoundError:
        return False
    words = [sys.executable, "-m", "benchmarks.chaos.cut", str(pid), str(seconds)]
    done = subprocess.run(words, check=False, cwd=ROOT, timeout=seconds + 60)
    return done.returncode == 0


def _namespace(pid: int | str, kind: str) -> str:
    return os.readlink(f"/proc/{pid}/ns/{kind}")


def _enter(pid: int) -> None:
    """Moves this process into the network of another, and into its user namespace before."""
    libc = ctypes.CDLL(None, use_errno=True)
    for kind, flag in (("user", _CLONE_NEWUSER), ("net", _CLONE_NEWNET)):
        if _namespace(pid, kind) == _namespace("self", kind):
            continue
        with open(f"/proc/{pid}/ns/{kind}") as f:
            if libc.setns(f.fileno(), flag):
                raise OSError(ctypes.get_errno(), f"can't enter the {kind} namespace of {pid}")


def _set_loopback(flags: int) -> None:
    with socket.socket() as s:
        fcntl.ioctl(s, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags))


if __name__ == "__main__":
    _enter(int(sys.argv[1]))
    _set_loopback(0)
    try:
        time.sleep(float(sys.argv[2]))
    finally:
        _set_loopback(_IFF_UP | _IFF_RUNNING)
