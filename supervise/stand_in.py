"""What runs where daemontools isn't installed: `supervise` and `multilog` in Python.

Both behave and write as daemontools' own do, so `svc`, `svstat` and `tai64nlocal` of any other host
work on their directories. Only what a run needs is here: no `svscan`, one set of log options.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import selectors
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

from supervise import processes

_TAI = 2**62 + 10  # TAI64 of the Unix epoch, as daemontools counts
_LOG_BYTES, _LOG_FILES = 1_000_000, 5
_BUSY = 111  # what `supervise` ends with if another one has the directory
_SIGNALS = {
    "h": signal.SIGHUP,
    "a": signal.SIGALRM,
    "i": signal.SIGINT,
    "t": signal.SIGTERM,
    "k": signal.SIGKILL,
    "p": signal.SIGSTOP,
    "c": signal.SIGCONT,
}


def _tai64n(now: float) -> bytes:
    return struct.pack(">QI", _TAI + int(now), int(now % 1 * 1e9))


class Supervise:
    """Keeps the service in the current directory as its commands say; see `man supervise`."""

    def __init__(self) -> None:
        os.makedirs("supervise", mode=0o700, exist_ok=True)
        self._lock = os.open("supervise/lock", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._selector = selectors.DefaultSelector()
        for name in ("control", "ok"):
            with contextlib.suppress(FileExistsError):
                os.mkfifo(f"supervise/{name}", 0o600)
            reader = os.open(f"supervise/{name}", os.O_RDONLY | os.O_NONBLOCK)
            if name == "control":
                os.open("supervise/control", os.O_WRONLY | os.O_NONBLOCK)  # never its end of file
                self._control = reader
        self._woken, waker = os.pipe()
        for end in (self._woken, waker):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(waker)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        for end in (self._control, self._woken):
            self._selector.register(end, selectors.EVENT_READ)
        self._program: subprocess.Popen[bytes] | None = None
        self._want = "d" if os.path.exists("down") else "u"
        self._is_paused = self._exits = False
        self._changed, self._start_at = time.time(), 0.0

    def run(self) -> None:
        """Returns after the command `x`, once the service is down."""
        self._tell()
        while not (self._exits and self._program is None):
            wait = None
            if self._program is None and self._want == "u":
                wait = self._start_at - time.monotonic()
                if wait <= 0:
                    self._start()
                    continue
            for key, _ in self._selector.select(wait):
                data = os.read(key.fd, 100)
                if key.fd == self._control:
                    for command in data.decode("ascii", "replace"):
                        self._obey(command)
            if self._program is not None and self._program.poll() is not None:
                self._program = None
                self._want = "d" if self._want == "o" else self._want
                self._note_change()

    def _start(self) -> None:
        self._start_at = time.monotonic() + 1.0
        try:
            self._program = subprocess.Popen(["./run"])
        except OSError as e:
            print(f"supervise: unable to start {Path.cwd()}/run: {e}", file=sys.stderr, flush=True)
        self._note_change()

    def _obey(self, command: str) -> None:
        if command in ("u", "d", "o"):
            self._want = command
            if command == "d":
                self._send(signal.SIGTERM, signal.SIGCONT)
            elif command == "o" and self._program is None:
                self._start()
        elif command == "x":
            self._exits = True
        elif command in _SIGNALS:
            self._send(_SIGNALS[command])
            self._is_paused = command == "p" or (self._is_paused and command != "c")
        self._tell()

    def _send(self, *numbers: signal.Signals) -> None:
        for number in numbers:
            if self._program is not None:
                self._program.send_signal(number)

    def _note_change(self) -> None:
        self._changed, self._is_paused = time.time(), False
        self._tell()

    def _tell(self) -> None:
        pid = 0 if self._program is None else self._program.pid
        want = {"o": 0}.get(self._want, ord(self._want))
        told = _tai64n(self._changed) + struct.pack("<IBB", pid, self._is_paused, want)
        with contextlib.suppress(OSError):  # a full disk must not end the service
            Path("supervise/status.new").write_bytes(told)
            os.replace("supervise/status.new", "supervise/status")


def multilog(directory: Path) -> None:
    """`multilog t s1000000 n5`: stamps the lines of standard input and keeps the newest."""
    directory.mkdir(mode=0o700, exist_ok=True)
    lock = os.open(directory / "lock", os.O_WRONLY | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    current = directory / "current"
    for line in sys.stdin.buffer:
        stamp = b"@" + _tai64n(time.time()).hex().encode()
        with contextlib.suppress(OSError):  # a full disk: the line is lost, the program goes on
            with open(current, "ab") as f:
                f.write(stamp + b" " + line.rstrip(b"\n") + b"\n")
                size = f.tell()
            if size >= _LOG_BYTES:
                os.replace(current, directory / f"{stamp.decode()}.s")
                for old in sorted(directory.glob("@*.s"))[: -_LOG_FILES + 1]:
                    old.unlink()


def main(argv: list[str]) -> int:
    """`supervise DIRECTORY` or `multilog DIRECTORY`."""
    what, directory = argv
    processes.name_me(what)
    try:
        if what == "multilog":
            multilog(Path(directory))
        else:
            os.chdir(directory)
            Supervise().run()
    except BlockingIOError:
        print(f"{what}: unable to acquire the lock of {directory}", file=sys.stderr)
        return _BUSY
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
