"""Runs a service tree in a session of its own, and leaves no process behind.

It starts a `supervise` for each service and each log, restarts one that dies, adopts every orphan
below it, and ends when all services are finished, one has failed, or somebody asks it to stop: by
TERM, by the tree's stop file, or by dying as its parent. Should it be killed itself, the parent-
death signals that it gave to each `supervise` end the tree from above.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from sactory import launch
from sactory.run_dir import read_json
from sactory.supervision import ALIVE_FILE
from supervise import daemontools, processes, tree, verdict

# None of them is 1, with which Python ends after an exception.
FINISHED, FAILED, STOPPED = 0, 3, 75
_POLL_SECONDS = 0.3
_RESTART_SECONDS = 1.0
_ORPHAN_KILL_SECONDS = 60.0
_TAKEN = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Member:
    """One service with its log: two `supervise` processes and the pipe between them.

    Args:
        directory: The service directory.
    """

    def __init__(self, directory: Path):
        self.directory = directory
        self.name = directory.name
        self.pid = 0
        self.log_pid = 0
        self.restart_at = 0.0
        # Both ends stay open here, so that either side can be restarted without losing a line.
        self.read_end, self.write_end = os.pipe()

    def start(self) -> None:
        """Starts whichever of the two is not running."""
        if not self.log_pid:
            self.log_pid = _start_supervise(self.directory / "log", stdin=self.read_end)
        if not self.pid:
            self.pid = _start_supervise(self.directory, stdout=self.write_end)

    def ended(self, pid: int) -> bool:
        """Notes that a process ended; True if it was one of these two."""
        if pid == self.pid:
            self.pid = 0
        elif pid == self.log_pid:
            self.log_pid = 0
        else:
            return False
        self.restart_at = time.monotonic() + _RESTART_SECONDS
        return True

    def close_pipe(self) -> None:
        """Lets the log see the end of the file once the program is gone too."""
        for fd in (self.read_end, self.write_end):
            if fd >= 0:
                os.close(fd)
        self.read_end = self.write_end = -1


def _start_supervise(
    directory: Path, stdin: int = subprocess.DEVNULL, stdout: int | None = None
) -> int:
    return subprocess.Popen(
        [*daemontools.command("supervise"), str(directory)],
        stdin=stdin,
        stdout=stdout,
        env={**os.environ, "PATH": daemontools.search_path()},
        preexec_fn=processes.child_setup(_TAKEN),
    ).pid


class Reaper:
    """Runs one tree to its end.

    Args:
        root: The tree's directory.
    """

    def __init__(self, root: Path):
        description = read_json(root / tree.TREE_FILE)
        self.root = root
        self.grace = float(description["grace_seconds"])
        self.members = [Member(root / name) for name in description["services"]]
        self.started = time.time()
        self._orphans: dict[int, float] = {}
        self._stop_reason = ""
        self._hurry = False
        self._ending = False
        self._beat_at = 0.0
        self._beat_fails = False

    def run(self) -> int:
        """Returns FINISHED, FAILED or STOPPED when no process of the tree is left."""
        signal.pthread_sigmask(signal.SIG_BLOCK, _TAKEN)
        processes.become_subreaper()
        result = self._supervise()
        why = {FINISHED: "all services are finished", FAILED: "a service has failed"}
        _say(why.get(result, f"stopping: {self._stop_reason}"))
        self._ending = True
        self._stop_programs()
        self._stop_logs()
        self._beat("ended")
        return result

    def _supervise(self) -> int:
        """Keeps the tree running until it should end."""
        while True:
            for member in self.members:
                if time.monotonic() >= member.restart_at:
                    member.start()
            self._step()
            if self._stop_reason:
                return STOPPED
            outcomes = [self._outcome(m) for m in self.members]
            if "failed" in outcomes:
                return FAILED
            if all(outcomes) and all(self._is_down(m) for m in self.members):
                return FINISHED

    def _outcome(self, member: Member) -> str:
        try:
            return verdict.read_state(member.directory).outcome
        except OSError:  # a disk that can't be read now may tell in a moment
            return ""

    def _is_down(self, member: Member) -> bool:
        status = daemontools.status(member.directory)
        return status is None or status.pid == 0

    def _step(self) -> None:
        """Waits a moment, takes signals, collects the dead, looks after orphans."""
        taken = processes.take_signal(_TAKEN, _POLL_SECONDS)
        if taken is not None and taken != signal.SIGCHLD:
            # Asked twice: no more grace. TERM may come from a parent and from SLURM as well.
            self._hurry = bool(self._stop_reason) and taken == signal.SIGINT
            self._stop_reason = self._stop_reason or taken.name
        if os.path.exists(self.root / tree.STOP_FILE):
            self._stop_reason = self._stop_reason or "sactory stop"
            self.grace = tree.asked_grace(self.root, self.grace)
        for pid in processes.reap():
            self._orphans.pop(pid, None)
            if any(member.ended(pid) for member in self.members) and not self._ending:
                _say(f"a supervise, process {pid}, died")
        self._end_orphans()
        if time.monotonic() - self._beat_at >= 1.0:
            self._beat("stopping" if self._ending else "running")

    def _end_orphans(self) -> None:
        """Ends what lost its `supervise` or its service process: a new copy is on its way."""
        known = {pid for member in self.members for pid in (member.pid, member.log_pid)}
        now = time.monotonic()
        for pid in processes.children(os.getpid()):
            if pid in known or processes.start_time(pid) is None:
                continue
            if pid not in self._orphans:
                _say(f"orphan {processes.command_name(pid)}, process {pid}: told to end")
                self._orphans[pid] = now
                processes.send([pid], signal.SIGTERM)
            elif now - self._orphans[pid] > min(self.grace, _ORPHAN_KILL_SECONDS):
                processes.send([pid], signal.SIGKILL)

    def _stop_programs(self) -> None:
        """Ends all services, the replay server last, and kills what outlives the grace period."""
        began = time.monotonic()
        last = [m for m in self.members if m.name == tree.LAST_TO_STOP]
        others = [m for m in self.members if m not in last]
        self._control(others, "dx")
        self._wait(began + self.grace / 3, lambda: all(not m.pid for m in others))
        self._control(last, "dx")
        if self._wait(began + self.grace, lambda: not self._program_processes()):
            return
        for pid in self._program_processes():
            _say(f"{processes.command_name(pid)}, process {pid}, did not end in time: killed")
        while self._program_processes():
            processes.send(self._program_processes(), signal.SIGKILL)
            self._step()

    def _stop_logs(self) -> None:
        """Lets each multilog read to the end of its pipe, then ends it."""
        for member in self.members:
            member.close_pipe()
            if member.log_pid:
                daemontools.control(member.directory / "log", "x")
        self._hurry = False
        self._wait(time.monotonic() + 5.0, lambda: not processes.descendants(os.getpid()))
        while processes.descendants(os.getpid()):
            processes.send(processes.descendants(os.getpid()), signal.SIGKILL)
            self._step()

    def _control(self, members: list[Member], commands: str) -> None:
        for member in members:
            if member.pid and not daemontools.control(member.directory, commands):
                processes.send([member.pid], signal.SIGTERM)  # it has not opened its fifo yet

    def _program_processes(self) -> list[int]:
        """Every living process of the tree that does not belong to a log."""
        logs = [member.log_pid for member in self.members]
        below = processes.descendants(os.getpid(), without=logs)
        return [pid for pid in below if processes.command_name(pid) != "multilog"]

    def _wait(self, end: float, done: Callable[[], bool]) -> bool:
        while not done():
            if time.monotonic() > end or self._hurry:
                return False
            self._step()
        return True

    def _beat(self, state: str) -> None:
        """Tells `sactory status`, on whatever host, that the tree lives."""
        self._beat_at = time.monotonic()
        beat = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "state": state,
            "started": self.started,
            "time": time.time(),
            "services": [member.name for member in self.members],
        }
        temporary = self.root / f".{ALIVE_FILE}"
        try:
            temporary.write_text(json.dumps(beat))
            os.replace(temporary, self.root / ALIVE_FILE)
            self._beat_fails = False
        except OSError as e:
            if not self._beat_fails:
                _say(f"{ALIVE_FILE} is not written: {e}")
            self._beat_fails = True


def _say(text: str) -> None:
    """Writes past Python's buffers: what a full disk refuses must not come back at the end."""
    with contextlib.suppress(OSError):
        os.write(1, f"{time.strftime('%FT%T')} reaper: {text}\n".encode())


def start(root: Path, keep: tuple[int, ...] = ()) -> subprocess.Popen[bytes]:
    """Starts the reaper of a tree in a session of its own; it gets TERM when this process dies.

    Call it from the main thread.

    Args:
        root: The tree's directory, as `tree.write_tree` returned it.
        keep: Descriptors that the reaper inherits, so that their locks live as long as the tree.
    """
    with open(root / "reaper.log", "ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "supervise.reaper", str(root)],
            cwd=root,
            env=launch.program_environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            pass_fds=keep,
            preexec_fn=processes.child_setup(),
        )


def main(argv: list[str]) -> int:
    """Runs the tree in the directory `argv[0]`."""
    return Reaper(Path(argv[0])).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
