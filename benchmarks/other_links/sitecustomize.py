"""Put first on PYTHONPATH, this changes how the programs of a run reach its replay server.

What `benchmarks.connections` compares the default with; `LINK` chooses:

    plain   no link at all: Reverb's objects go straight to its port (needs --insecure_listen)
    tls     mutual TLS, as from another host, where the default would take the private socket
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from sactory import link, tls
from sactory.run_dir import RunDir, read_json


class Plain:
    """Stands for `link.Link`.

    Args:
        run_dir: The run, on this host.
        is_ours: Unused.
    """

    problem = None

    def __init__(self, run_dir: RunDir, is_ours: Callable[[str], bool]):
        while not isinstance(address := read_json(run_dir.address), dict):
            time.sleep(0.1)
        self.target = f"127.0.0.1:{address['port']}"


class Encrypted(link.Link):
    """Takes the port where the original takes the socket."""

    async def _dial_unix(self, path: str) -> link.Pipe:
        port = (read_json(self._run_dir.address) or {})["port"]
        context, name = tls.client_context(self._run_dir.tls), tls.SERVER_NAME
        _, far = await self._loop.create_connection(
            link.Pipe, "127.0.0.1", port, ssl=context, server_hostname=name
        )
        return far


link.Link = {"plain": Plain, "tls": Encrypted}[os.environ["LINK"]]
