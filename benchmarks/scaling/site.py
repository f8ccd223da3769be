"""A run directory with its replay server as a process of its own, and what that process uses.

python -m benchmarks.scaling.site RUN_DIR      the server (started by `Site` itself)
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.rounds import ROOT
from sactory import init_run
from sactory.errors import UserError
from sactory.run_dir import RunDir, read_json, write_json

_START_SECONDS = 900.0
_CHUNK = 1 << 18


def environment() -> dict[str, str]:
    """For every process of a benchmark."""
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def thread_seconds(pid: int, name: str) -> float:
    """CPU seconds of a process's threads of this name; 0 if it has none."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        if (task / "comm").read_text().strip() == name:
            total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def holdings(pid: int) -> tuple[int, int, int]:
    """Bytes of memory, open files and threads of a process."""
    place = Path(f"/proc/{pid}")
    pages = int((place / "statm").read_text().split()[1])
    files, threads = (len(list((place / name).iterdir())) for name in ("fd", "task"))
    return pages * os.sysconf("SC_PAGE_SIZE"), files, threads


class Site:
    """A run with a server.

    Attributes:
        run_dir: The run.
        pid: The server's process.

    Args:
        root: Where the run directory is made.
        config: Its configuration file.
        overrides: Settings that differ.
    """

    def __init__(self, root: Path, config: str, overrides: Sequence[str]):
        self.run_dir = RunDir(root)
        init_run.init(self.run_dir, ROOT / config, list(overrides))
        words = [sys.executable, "-m", "benchmarks.scaling.site", str(root)]
        with open(root.with_name(root.name + ".server"), "wb") as says:
            self._process = subprocess.Popen(words, cwd=ROOT, env=environment(), stderr=says)
        self.pid = self._process.pid
        end = time.monotonic() + _START_SECONDS
        while (read_json(self.run_dir.status("replay_server")) or {}).get("state") != "running":
            if self._process.poll() is not None or time.monotonic() > end:
                raise UserError(f"the replay server did not start: see {says.name}")
            time.sleep(0.1)
        self._process.send_signal(signal.SIGUSR2)

    def close(self) -> None:
        """Ends the server; nothing of it is kept."""
        self._process.kill()
        self._process.wait()


class Relay:
    """Stands between the programs of a run and its server's socket, and counts bytes.

    Attributes:
        received: Bytes that the server has received.
        sent: Bytes that it has sent.

    Args:
        run_dir: The run; whoever connects from now on comes through here.
        path: Of the relay's own socket.
    """

    def __init__(self, run_dir: RunDir, path: Path):
        self.received = self.sent = 0
        address = read_json(run_dir.address)
        assert isinstance(address, dict)
        self._server, self._path = address["socket"], str(path)
        loop = asyncio.new_event_loop()
        threading.Thread(target=loop.run_forever, daemon=True, name="relay").start()
        asyncio.run_coroutine_threadsafe(self._listen(), loop).result()
        write_json(run_dir.address, {**address, "socket": self._path})

    async def _listen(self) -> None:
        await asyncio.start_unix_server(self._carry, self._path)

    async def _carry(self, near_in: asyncio.StreamReader, near_out: asyncio.StreamWriter) -> None:
        far_in, far_out = await asyncio.open_unix_connection(self._server)
        await asyncio.gather(
            self._pass_on(near_in, far_out, "received"), self._pass_on(far_in, near_out, "sent")
        )

    async def _pass_on(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, counter: str
    ) -> None:
        while data := await source.read(_CHUNK):
            setattr(self, counter, getattr(self, counter) + len(data))
            sink.write(data)
            await sink.drain()
        sink.close()


def _name_threads(*_: object) -> None:
    for thread in threading.enumerate():
        Path(f"/proc/self/task/{thread.native_id}/comm").write_text(thread.name[:15])


if __name__ == "__main__":
    from replay_server import main as program
    from sactory import quiet

    quiet.set_environment()
    signal.signal(signal.SIGUSR2, _name_threads)
    sys.exit(program.main([f"--run_dir={sys.argv[1]}"]))
