"""A run directory with fake programs, for the tests of the tree and of `sactory run`."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from sactory.run_dir import RunDir, read_json, write_json
from supervise import daemontools, log_tail, processes, reaper, tree, verdict

NEEDS_DAEMONTOOLS = pytest.mark.skipif(
    shutil.which("supervise", path=daemontools.search_path()) is None,
    reason="daemontools is not installed",
)
FAKE = str(Path(__file__).with_name("fake_program.py"))
FAKE_RUN = str(Path(__file__).with_name("fake_run.py"))
STEADY = {"replay_server": "steady", "collect_0": "steady", "train": "steady", "eval": "steady"}
FINISH = dict.fromkeys(STEADY, "finish")
FINISH["final"] = "print('| eval | S: 100 | ER: 42.0000')"


class Run:
    """A run directory whose processes are told from all others by a variable they inherit."""

    def __init__(self, root: Path):
        self.dir = RunDir(root)
        self.tag = f"SACTORY_TEST_TAG={uuid.uuid4().hex}"
        self.environment = {**os.environ, **dict([self.tag.split("=")])}
        root.mkdir()
        self.dir.config.write_text("run.max_env_steps = 100\ncollect.Worker.random_steps = 10\n")
        write_json(self.dir.provenance, {"cwd": str(root)})

    def processes(self) -> dict[int, str]:
        """Every living process of this test, wherever in the process tree it went."""
        found = {}
        for path in Path("/proc").glob("[0-9]*"):
            try:
                environment = (path / "environ").read_bytes()
            except OSError:
                continue
            if self.tag.encode() in environment.split(b"\0") and processes.start_time(
                int(path.name)
            ):
                found[int(path.name)] = (path / "cmdline").read_bytes().decode().replace("\0", " ")
        return found

    def reaper(self, modes: dict[str, str], grace: float = 15.0, **limits: float):
        members = [
            tree.Program(name, [sys.executable, FAKE, name, str(self.dir), *words.split()])
            for name, words in modes.items()
        ]
        root = tree.write_tree(self.dir, members, None, grace, limits)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(*self.tag.split("="))
            return reaper.start(root)

    def run(self, modes: dict[str, str], *arguments: str, **kwargs) -> subprocess.Popen[str]:
        """Starts `sactory run`."""
        return subprocess.Popen(
            [sys.executable, FAKE_RUN, json.dumps(modes), "--run_dir", str(self.dir), *arguments],
            **{
                "env": self.environment,
                "stdout": subprocess.PIPE,
                "stderr": subprocess.PIPE,
                "text": True,
                **kwargs,
            },
        )

    def end(self) -> None:
        while self.processes():
            processes.send(self.processes(), signal.SIGKILL)
            processes.reap()

    def service(self, name: str) -> Path:
        return self.dir.services() / name

    def is_down(self, name: str) -> bool:
        told = daemontools.status(self.service(name))
        return told is not None and told.pid == 0

    def state(self, name: str) -> verdict.State:
        return verdict.read_state(self.service(name))

    def log(self, name: str) -> list[str]:
        return log_tail.tail(log_tail.log_file(self.service(name)))

    def beating(self, *names: str, pid_not: int | None = None) -> bool:
        beats = [read_json(self.dir.status(name)) or {} for name in names]
        return all(b.get("state") == "training" and b["pid"] != pid_not for b in beats)

    def pid(self, name: str) -> int:
        beat = read_json(self.dir.status(name))
        assert beat is not None
        return beat["pid"]

    def supervise_pid(self, name: str) -> int:
        command = f"supervise {self.service(name)} "
        return next(pid for pid, text in self.processes().items() if text == command)


def until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)
