"""Takes the replay server off the host's network.

Reverb listens on all interfaces without a login, and nothing in it can change that. So the process
leaves for a network of its own, with nothing in it but `lo`, before it starts Reverb. Sockets that
it opened before stay where they are: they are the only way in.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import socket
import struct

_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_RETRANSMISSIONS = 5  # 13 s
_SIOCSIFFLAGS, _IFF_UP, _IFF_RUNNING = 0x8914, 0x1, 0x40


def refusal() -> str | None:
    """Why this system allows no isolation; None if it does.

    A child tries it, so that a system that allows only half of it leaves this process as it was.
    """
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        said = b""
        try:
            enter()
        except OSError as e:
            said = (e.strerror or str(e)).encode()
        except BaseException as e:
            said = repr(e).encode()
        finally:
            os.write(write_end, said)
            os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as f:
        said = f.read().decode()
    os.waitpid(child, 0)
    return said or None


def enter() -> None:
    """Moves this process, which must have one thread only, into a network of its own.

    A user without the right to do so does it in a user namespace, with the same user and group ids.

    Raises:
        OSError: The system refuses.
    """
    threads = len(os.listdir("/proc/self/task"))
    if threads != 1:  # the others would stay outside, and Reverb might listen in one of them
        raise RuntimeError(f"isolation must come before other threads start: there are {threads}")
    uid, gid = os.getuid(), os.getgid()
    try:
        _unshare(_CLONE_NEWNET)
    except PermissionError:
        _unshare(_CLONE_NEWUSER | _CLONE_NEWNET)
        _write("self/setgroups", "deny")
        _write("self/uid_map", f"{uid} {uid} 1")
        _write("self/gid_map", f"{gid} {gid} 1")
    # Reverb would hold on to a dead connection for a quarter of an hour, and answer it first.
    with contextlib.suppress(OSError):  # some containers have it read-only
        _write("sys/net/ipv4/tcp_retries2", str(_RETRANSMISSIONS))
    with socket.socket() as s:
        fcntl.ioctl(s, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP | _IFF_RUNNING))


def _unshare(flags: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(flags):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _write(name: str, text: str) -> None:
    with open(f"/proc/{name}", "w") as f:
        f.write(text)
