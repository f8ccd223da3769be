"""A process's own end of its connections to the run's replay server.

Reverb's objects connect to a socket of their own process, and a thread takes each connection on to
wherever the server is. It holds a connection until the server answers: gRPC then waits, instead of
backing off for up to 30 s, so that clients, writers and datasets go on within seconds of the
server's return, wherever it came back. The link also brings what gRPC in Reverb lacks: a login.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import logging

from sactory import tls
from sactory.run_dir import RunDir, read_json

_REDIAL_SECONDS = 0.25
_DIAL_SECONDS = 10.0
_TELL_SECONDS = 60.0
# Not 127.0.0.1: from there Reverb takes a client whose process id equals the server's for the same
# process and hands it raw pointers; two containers may well share a number.
LOCAL_SOURCE = ("127.0.0.2", 0)


_READ_BYTES = 1 << 18
_read = threading.local()  # each event loop's thread reads all its connections into one buffer


class Pipe(asyncio.BufferedProtocol):
    """One end of a connection; joined to another, each sends on what the other receives.

    Args:
        made: Called once with the pipe when its connection stands.

    Attributes:
        lost: A future that is done when the connection has ended.
        answered: A future that is done when the peer has said something, or will say nothing more.
    """

    transport: Any

    def __init__(self, made: Callable[[Pipe], None] = lambda pipe: None):
        loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[None] = loop.create_future()
        self.answered: asyncio.Future[None] = loop.create_future()
        self._made = made
        self._other: Pipe | None = None
        self._early: list[bytes] = []

    def join(self, other: Pipe) -> None:
        """Joins two ends; from now on they end together."""
        for one, two in ((self, other), (other, self)):
            one._other = two
            two.transport.writelines(one._early)
            one._early.clear()
            if one.lost.done():
                two.transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Part of asyncio's protocol, as are the methods below."""
        self.transport = transport
        connection = transport.get_extra_info("socket")
        if connection.family != socket.AF_UNIX:
            _notice_lost_hosts(connection)
        self._made(self)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: D102
        try:
            return _read.buffer
        except AttributeError:
            _read.buffer = memoryview(bytearray(_READ_BYTES))
            return _read.buffer

    def buffer_updated(self, nbytes: int) -> None:  # noqa: D102
        data = bytes(_read.buffer[:nbytes])  # TLS may hold on to it
        if self._other is not None:
            self._other.transport.write(data)
            return
        self._early.append(data)
        if not self.answered.done():
            self.answered.set_result(None)

    def pause_writing(self) -> None:  # noqa: D102
        if self._other is not None:
            self._other.transport.pause_reading()

    def resume_writing(self) -> None:  # noqa: D102
        if self._other is not None:
            self._other.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: D102
        self.lost.set_result(None)
        if not self.answered.done():
            self.answered.set_result(None)
        if self._other is not None:
            self._other.transport.close()


def _notice_lost_hosts(connection: socket.socket) -> None:
    """Ends a connection that nothing has passed for 10 s, though something should have.

    A host without power says no goodbye, and after a long cut the kernel's next attempt to send is
    as far away as the cut was long: a new connection is there sooner.
    """
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 5)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 2)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 10_000)


def peer(connection: socket.socket) -> tuple[int, int]:
    """Process and user id at the other end of a unix socket, as the kernel knows them."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    pid, uid, _ = struct.unpack("3i", credentials)
    return pid, uid


def start_loop(name: str) -> asyncio.AbstractEventLoop:
    """An event loop on a thread of its own, for as long as the process lives."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name=name, daemon=True).start()
    return loop


class Link:
    """Takes this process's connections to the server of one run.

    Args:
        run_dir: The run; its address.json is read anew for each attempt.
        is_ours: Asks a plain port, which anybody may have taken, whether it is the run's server.

    Attributes:
        target: What to give to Reverb as the server's address.
        problem: Why the last attempt failed; None after one that didn't.
    """

    def __init__(self, run_dir: RunDir, is_ours: Callable[[str], bool]):
        self._run_dir, self._is_ours = run_dir, is_ours
        self.problem: str | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        listener = socket.socket(socket.AF_UNIX)
        listener.bind("")  # a free name in the kernel: no file, nothing to clean up
        self.target = "unix-abstract:" + listener.getsockname()[1:].decode()
        self._loop = start_loop("link")
        asyncio.run_coroutine_threadsafe(self._listen(listener), self._loop).result()

    async def _listen(self, listener: socket.socket) -> None:
        await self._loop.create_unix_server(lambda: Pipe(self._accept), sock=listener)

    def _accept(self, near: Pipe) -> None:
        pid, _ = peer(near.transport.get_extra_info("socket"))
        if pid != os.getpid():  # such names have no owner: any process could connect
            near.transport.abort()
            return
        task = self._loop.create_task(self._carry(near))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _carry(self, near: Pipe) -> None:
        """Joins a connection to the server once that answers; gives up when gRPC does."""
        while not near.lost.done():
            try:
                far = await asyncio.wait_for(self._dial(), _DIAL_SECONDS)
            except (OSError, asyncio.TimeoutError) as e:
                self.problem = str(e) or "no answer"
                logging.log_every_n_seconds(
                    logging.INFO, "no connection to the replay server: %s", _TELL_SECONDS, e
                )
            else:
                # A server that is starting or frozen takes connections, but does not answer.
                await asyncio.wait([near.lost, far.answered], return_when=asyncio.FIRST_COMPLETED)
                if not near.lost.done() and not far.lost.done():
                    self.problem = None
                    near.join(far)
                    return
                self.problem = "the server ended the connection: it refused it, or it is restarting"
                far.transport.abort()
            await asyncio.sleep(_REDIAL_SECONDS)

    async def _dial(self) -> Pipe:
        """One connection to the run's server.

        Raises:
            OSError: There is none.
        """
        address = read_json(self._run_dir.address)
        if not isinstance(address, dict):
            raise OSError(f"{self._run_dir.address} is missing: the server has not started yet")
        host, port, path = address["host"], address["port"], address["socket"]
        is_here = host == socket.gethostname()
        if is_here and Path(path).exists():
            return await self._dial_unix(path)
        if address["access"] == "isolated":
            raise OSError(
                f"it takes connections on host {host} only"
                + (f", where {path} is not seen from here" if is_here else "")
                + " (replay_server.listen = 'local')"
            )
        if is_here:
            host = "127.0.0.1"
        if address["access"] == "tls":
            context = tls.client_context(self._run_dir.tls)
            name = tls.SERVER_NAME
            _, far = await self._loop.create_connection(
                Pipe, host, port, ssl=context, server_hostname=name
            )
            return far
        source = LOCAL_SOURCE if is_here else None
        _, far = await self._loop.create_connection(Pipe, host, port, local_addr=source)
        if not await self._loop.run_in_executor(None, self._is_ours, f"{host}:{port}"):
            far.transport.abort()
            raise OSError(f"{host}:{port} is not this run's replay server")
        return far

    async def _dial_unix(self, path: str) -> Pipe:
        _, far = await self._loop.create_unix_connection(Pipe, path)
        _, uid = peer(far.transport.get_extra_info("socket"))
        if uid != os.getuid():  # the directory was cleared away and another user took its name
            far.transport.abort()
            raise OSError(f"{path} belongs to user {uid}, not to {os.getuid()}")
        return far
