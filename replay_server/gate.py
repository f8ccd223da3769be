"""The only ways into the replay server, opened before Reverb exists.

| access     | who gets in                                                                       |
|------------|-----------------------------------------------------------------------------------|
| `isolated` | the run's user on this host, through a socket in a private directory              |
| `tls`      | also who holds a certificate of the run, from any host                            |
| `open`     | also everybody who reaches the host: Reverb's own port is open on every interface |
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import resource
import shutil
import socket
import ssl
import tempfile
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import portpicker
from absl import logging

from replay_server import isolation
from sactory import settings, tls
from sactory.errors import UserError
from sactory.link import LOCAL_SOURCE, Pipe, start_loop
from sactory.run_dir import RunDir, read_json, write_json

_INNER_PORT = 8008  # Reverb's, in a network where nobody else is
_BACKLOG = 1024
# Not $XDG_RUNTIME_DIR: it goes when the user logs out, and a run may go on. Not $TMPDIR: a socket's
# path must be short. Whoever cleans /tmp spares sockets that are in use.
_PLACE = Path("/tmp")
_PREFIX, _SOCKET = "sactory-", "replay"
_SETTLED_SECONDS = 60.0  # a server that starts has a socket by then
# Who has not shown a certificate yet holds one of these places, for this long.
_STRANGERS, _HANDSHAKE_SECONDS = 256, 10.0
_NO_DESCRIPTOR_SECONDS = 1.0


class Gate:
    """Takes connections in the host's network and passes them on to Reverb.

    Args:
        run_dir: The run.
        access: `isolated`, `tls` or `open`.
        port: The TCP port that others connect to, or None.
        listeners: Sockets that listen already, each with its TLS context or None.
        guard: A socket that keeps a port from others and does nothing else, or None.

    Attributes:
        access: As above.
        reverb_port: Where Reverb must listen.
    """

    def __init__(
        self,
        run_dir: RunDir,
        access: str,
        port: int | None,
        listeners: list[tuple[socket.socket, ssl.SSLContext | None]],
        guard: socket.socket | None = None,
    ):
        self.access = access
        self.reverb_port = port if access == "open" and port else _INNER_PORT
        self._listeners, self._guard = listeners, guard
        self._path = listeners[0][0].getsockname()
        self._tasks: set[asyncio.Task[None]] = set()
        address = {"host": socket.gethostname(), "access": access, "socket": self._path}
        write_json(run_dir.address, {**address, "port": port, "started": time.time()})

    def start(self) -> None:
        """Lets in who has waited; Reverb must be up."""
        self._loop = start_loop("gate")
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()

    async def _listen(self) -> None:
        for listener, context in self._listeners:
            if context is None:
                make = self._loop.create_unix_server
                await make(lambda: Pipe(self._accept), sock=listener, backlog=_BACKLOG)
            else:
                self._keep(self._let_in(listener, context))

    async def _let_in(self, listener: socket.socket, context: ssl.SSLContext) -> None:
        """Takes TLS connections; asyncio's own server would let strangers use up descriptors."""
        listener.setblocking(False)
        places = asyncio.Semaphore(_STRANGERS)
        while True:
            await places.acquire()
            try:
                connection, _ = await self._loop.sock_accept(listener)
            except OSError as e:
                logging.warning("a connection is not taken: %s", e)
                places.release()
                await asyncio.sleep(_NO_DESCRIPTOR_SECONDS)
                continue
            task = self._keep(self._shake_hands(connection, context))
            task.add_done_callback(lambda _: places.release())

    async def _shake_hands(self, connection: socket.socket, context: ssl.SSLContext) -> None:
        with contextlib.suppress(OSError):  # no certificate, or no word in time
            await self._loop.connect_accepted_socket(
                lambda: Pipe(self._accept),
                connection,
                ssl=context,
                ssl_handshake_timeout=_HANDSHAKE_SECONDS,
            )

    def _accept(self, near: Pipe) -> None:
        self._keep(self._pass_on(near))

    def _keep(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Starts a task; asyncio itself would forget it."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _pass_on(self, near: Pipe) -> None:
        try:
            _, far = await self._loop.create_connection(
                Pipe, "127.0.0.1", self.reverb_port, local_addr=LOCAL_SOURCE
            )
        except OSError as e:
            logging.warning("Reverb takes no connection: %s", e)
            near.transport.abort()
            return
        near.join(far)

    def close(self) -> None:
        """Removes the socket."""
        shutil.rmtree(Path(self._path).parent, ignore_errors=True)


def open_gate(run_dir: RunDir, insecure: bool = False) -> Gate:
    """Opens the ways in, and leaves the host's network unless it must not or can't.

    Call it while this process has one thread.

    Args:
        run_dir: The run, whose lock the caller holds.
        insecure: Whether the user asked for an open port.

    Raises:
        UserError: The port is taken, or connections from other hosts can't be made safe.
    """
    server = settings.ReplayServer()
    reason = "as --insecure_listen asks" if insecure else isolation.refusal()
    if reason is not None and server.listen == "network" and not insecure:
        raise UserError(
            "replay_server.listen = 'network' needs network namespaces, which this host refuses "
            f"({reason}), so that Reverb's own port would be open to everybody: choose another "
            "host for the replay server, or accept that with --insecure_listen"
        )
    _remove_dead_sockets()
    _raise_descriptor_limit()
    if reason is not None:
        port = choose_port(server.port, run_dir)
        guard = _hold(port)  # Reverb itself takes it only when all is restored
        logging.warning(
            "access is open (%s): port %d takes connections from every interface without login; "
            "keep this host off open networks",
            reason,
            port,
        )
        return Gate(run_dir, "open", port, [(_open_socket(run_dir), None)], guard)
    if server.listen == "network":
        port = choose_port(server.port, run_dir)
        outside = (_listen(port), tls.server_context(run_dir.tls))
        gate = Gate(run_dir, "tls", port, [(_open_socket(run_dir), None), outside])
    else:
        guard = _hold(choose_port(server.port, run_dir)) if server.port else None
        gate = Gate(run_dir, "isolated", None, [(_open_socket(run_dir), None)], guard)
    isolation.enter()
    return gate


def _raise_descriptor_limit() -> None:
    """Each connection takes two descriptors; the usual limit of 1024 is soon reached."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _open_socket(run_dir: RunDir) -> socket.socket:
    """A unix socket in a directory that only this user can enter."""
    directory = tempfile.mkdtemp(prefix=f"{_PREFIX}{run_dir.run_id[:8]}-", dir=_PLACE)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(os.path.join(directory, _SOCKET))
    listener.listen(_BACKLOG)
    return listener


def _remove_dead_sockets() -> None:
    """Removes what this user's killed servers left on this host."""
    for directory in _PLACE.glob(_PREFIX + "*"):
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
            found = directory.lstat()
            if found.st_uid != os.getuid() or time.time() - found.st_mtime < _SETTLED_SECONDS:
                continue
            probe.setblocking(False)
            if probe.connect_ex(str(directory / _SOCKET)) == errno.ECONNREFUSED:
                shutil.rmtree(directory)


def choose_port(wanted: int, run_dir: RunDir) -> int:
    """The TCP port to listen on.

    A restarted server takes its old port again if it can: a firewall may know it.

    Raises:
        UserError: `wanted` is taken.
    """
    if wanted:
        if not _is_free(wanted):
            raise UserError(
                f"replay_server.port = {wanted} is in use on this host: "
                "choose another, or 0 for a free one"
            )
        return wanted
    previous = (read_json(run_dir.address) or {}).get("port")
    if previous and _is_free(previous):
        return previous
    return portpicker.pick_unused_port()


def _everywhere() -> tuple[Any, str]:
    if socket.has_dualstack_ipv6():
        return socket.AF_INET6, "::"
    return socket.AF_INET, "0.0.0.0"


def _is_free(port: int) -> bool:
    """Reverb itself binds with SO_REUSEPORT and would share the port in silence."""
    try:
        _listen(port).close()
    except OSError:
        return False
    return True


def _listen(port: int) -> socket.socket:
    family, host = _everywhere()
    dual = family == socket.AF_INET6
    return socket.create_server((host, port), family=family, backlog=_BACKLOG, dualstack_ipv6=dual)


def _hold(port: int) -> socket.socket:
    """Keeps a port from others without listening on it.

    Without SO_REUSEADDR, with which two sockets may have a port as long as none listens; with
    SO_REUSEPORT, so that Reverb, which sets it too, can still have it.
    """
    family, host = _everywhere()
    guard = socket.socket(family)
    guard.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    guard.bind((host, port))
    return guard
