"""What a service's run script becomes: starts its program once and judges how it ended.

daemontools throws the exit status away, so this process keeps it: 0 and 2 take the service down,
anything else lets `supervise` start it again after a pause that grows. It works without the
reaper too, under `svscan` or a `supervise` started by hand.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sactory import supervision
from sactory.run_dir import write_json
from supervise import daemontools, log_tail, processes
from supervise.verdict import STATE_FILE, Settings, describe_exit, judge, read_settings, read_state

_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGALRM)
_TAKEN = (signal.SIGCHLD, *_FORWARDED)
_KILL_AFTER_GRACE_SECONDS = 3.0
_SAVE_AGAIN_SECONDS = 2.0


class Service:
    """One start of one program.

    Args:
        directory: The service directory.
        command: The program's argv.
    """

    def __init__(self, directory: Path, command: list[str]):
        self.directory = directory
        self.command = command
        self.settings: Settings = read_settings(directory)
        self.state = read_state(directory)
        self._stop_asked: float | None = None

    def run(self) -> int:
        """Waits out the pause, runs the program, judges its end; returns the exit code."""
        signal.pthread_sigmask(signal.SIG_BLOCK, _TAKEN)
        processes.signal_me_when_parent_dies(signal.SIGTERM)
        processes.become_subreaper()
        if self.state.outcome:
            self._go_down()
            return 0
        # The wall clock may have been set back: never wait longer than the longest pause.
        pause = min(self.state.not_before - time.time(), self.settings.longest_pause)
        if self._sleep(pause) or not self._lock():
            return 0
        began = time.monotonic()
        exit_code = self._run_program()
        self._after(exit_code, time.monotonic() - began)
        return 0

    def _sleep(self, seconds: float) -> bool:
        """Waits; True if a signal asked to stop meanwhile."""
        end = time.monotonic() + seconds
        while self._stop_asked is None:
            left = end - time.monotonic()
            if left <= 0:
                return False
            if processes.take_signal(_TAKEN, left) in _FORWARDED:
                self._stop_asked = time.monotonic()
        return True

    def _lock(self) -> bool:
        """Takes the lock that the program itself inherits, so that there are never two copies.

        A copy whose service process was killed has got a parent-death signal and may be saving;
        when it has had its time it is killed. Returns False if asked to stop while waiting.
        """
        self._lock_fd = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        patience = time.monotonic() + self.settings.grace_seconds + _KILL_AFTER_GRACE_SECONDS
        told = False
        while True:
            try:
                fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except BlockingIOError:
                pass
            if not told:
                _say("waits for an earlier copy of the program to end")
                told = True
            if time.monotonic() > patience:
                _kill_named(os.pread(self._lock_fd, 100, 0).decode("ascii", "replace"))
            if self._sleep(0.1):
                return False

    def _run_program(self) -> int:
        environment = {**os.environ, supervision.RESTARTS_VARIABLE: str(self.state.starts)}
        environment[supervision.GRACE_VARIABLE] = str(self.settings.grace_seconds)
        self.state.starts += 1
        self._save(self.directory / STATE_FILE, asdict(self.state))
        _say(f"{log_tail.START_MARK} {self.state.starts}: {' '.join(self.command)}")
        program = subprocess.Popen(
            self.command,
            cwd=self.settings.directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            pass_fds=[self._lock_fd],
            preexec_fn=processes.child_setup(_TAKEN),
        )
        with contextlib.suppress(OSError):  # a full disk: the lock holds without its owner's name
            owner = f"{program.pid} {processes.start_time(program.pid)}"
            os.ftruncate(self._lock_fd, 0)
            os.pwrite(self._lock_fd, owner.encode(), 0)
        return self._wait(program.pid)

    def _wait(self, pid: int) -> int:
        """Passes signals on until the program has ended; returns its exit code."""
        while True:
            ended = processes.reap()
            if pid in ended:
                break
            taken = processes.take_signal(_TAKEN, 1.0)
            if taken is not None and taken in _FORWARDED:
                processes.send([pid], taken)
                if taken != signal.SIGALRM and self._stop_asked is None:
                    self._stop_asked = time.monotonic()
            late = self.settings.grace_seconds + _KILL_AFTER_GRACE_SECONDS
            if self._stop_asked is not None and time.monotonic() > self._stop_asked + late:
                _say("the program ignores its stop signal: killed")
                processes.send([pid], signal.SIGKILL)
        # What the program started and left behind must not live on beside the next copy.
        processes.send(processes.descendants(os.getpid()), signal.SIGKILL)
        return os.waitstatus_to_exitcode(ended[pid])

    def _after(self, exit_code: int, uptime: float) -> None:
        state = self.state
        _say(f"{log_tail.END_MARK} {state.starts}: {describe_exit(exit_code)} after {uptime:.1f} s")
        if self._stop_asked is not None and exit_code != supervision.OK:
            state.last_exit, state.time = "stopped", time.time()
        else:
            judge(state, self.settings, exit_code, uptime, time.time())
            if exit_code == -signal.SIGKILL:
                state.last_error = ""  # nothing that the program said explains it
            elif exit_code not in (supervision.OK, supervision.RETRY):
                state.last_error = log_tail.last_error(self.directory, state.starts)
        kept = self._keep_state(exit_code)
        if not state.outcome:
            return
        # The tree waits for an outcome: on a full disk it is written as soon as there is room.
        while not kept and not self._sleep(_SAVE_AGAIN_SECONDS):
            kept = self._keep_state(exit_code)
        self._go_down()

    def _keep_state(self, exit_code: int) -> bool:
        """Writes how the program ended; whether all of it could be written."""
        reported = self.state.outcome != "failed" or self._report_failure(exit_code)
        return self._save(self.directory / STATE_FILE, asdict(self.state)) and reported

    def _save(self, path: Path, value: dict[str, Any]) -> bool:
        """A full disk must not keep the program from running, which may be freeing some."""
        try:
            write_json(path, value)
            return True
        except OSError as e:
            _say(f"{path.name} is not written: {e}")
            return False

    def _report_failure(self, exit_code: int) -> bool:
        """Writes R/failed.json; the first program that fails is the one to look at."""
        failed = Path(self.settings.failed_file)
        if failed.exists():
            return True
        return self._save(
            failed,
            {
                "program": self.settings.name,
                "error": self.state.last_error or self.state.last_exit,
                "exit": self.state.last_exit,
                "user_error": exit_code == supervision.USER_ERROR,
                "failures": self.state.failures,
                "log": str(self.directory / "log" / "main" / "current"),
                "time": time.time(),
            },
        )

    def _go_down(self) -> None:
        """Tells `supervise` to leave the service down, and waits until it knows.

        Ending before it has read the command would make it start the script once more.
        """
        with contextlib.suppress(OSError):  # without it, the state alone says so to the next start
            (self.directory / "down").touch()
        if not daemontools.control(self.directory, "d"):
            return
        end = time.monotonic() + 5.0
        while time.monotonic() < end:
            status = daemontools.status(self.directory)
            if status is None or status.want == "d":
                return
            time.sleep(0.02)


def _kill_named(text: str) -> None:
    """Kills the process that a lock file names, if it is still that very process."""
    words = text.split()
    if len(words) == 2 and str(processes.start_time(int(words[0]))) == words[1]:
        _say(f"the earlier copy, process {words[0]}, does not end: killed")
        processes.send([int(words[0])], signal.SIGKILL)


def _say(text: str) -> None:
    supervision.write(f"service: {text}\n".encode(), 1)


def main(argv: list[str]) -> int:
    """Runs `argv` as the program of the service in the current directory."""
    return Service(Path.cwd(), argv).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
