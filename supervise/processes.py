"""What the kernel offers against orphans: parent-death signals, child subreapers, /proc.

Linux only, like Reverb's wheels. Nothing here decides when a process ends.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None, use_errno=True)  # loaded here: not safe between fork and exec


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def become_subreaper() -> None:
    """From now on orphaned descendants become children of this process instead of init's."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def signal_me_when_parent_dies(signal_number: int) -> None:
    """Asks the kernel for a signal when the thread that started this process ends."""
    _prctl(_PR_SET_PDEATHSIG, signal_number)


def child_setup(unblock: Iterable[signal.Signals] = ()) -> Callable[[], None]:
    """Returns a `preexec_fn`: the child gets TERM when this process dies, and a clean mask.

    Start the child from the main thread: the kernel watches the thread, not the process.
    """
    parent = os.getpid()
    signals = list(unblock)

    def setup() -> None:
        signal_me_when_parent_dies(signal.SIGTERM)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
        if os.getppid() != parent:  # it died before the kernel knew
            os.kill(os.getpid(), signal.SIGTERM)

    return setup


def name_me(name: str) -> None:
    """Gives this process the name that `ps` and `command_name` show."""
    _libc.prctl(_PR_SET_NAME, name.encode(), 0, 0, 0)


def start_time(pid: int) -> int | None:
    """Clock tick at which a process started: with the pid it names a process for good.

    None if there is no such process, or only its zombie.
    """
    fields = _stat(pid)
    return None if fields is None or fields[0] in ("Z", "X") else int(fields[19])


def command_name(pid: int) -> str:
    """The kernel's name of a process, at most 15 characters; "" if it is gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def children(pid: int) -> list[int]:
    """Direct children of a single-threaded process, zombies included."""
    try:
        words = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:  # a kernel without this list
        return [p for p in descendants(pid) if (_stat(p) or ["", "0"])[1] == str(pid)]
    return [int(word) for word in words]


def descendants(root: int, without: Iterable[int] = ()) -> list[int]:
    """All living processes below `root`, zombies and what is at or below `without` left out."""
    skipped = set(without)
    below: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        fields = _stat(int(entry)) if entry.isdigit() else None
        if fields is not None and fields[0] not in ("Z", "X"):
            below.setdefault(int(fields[1]), []).append(int(entry))
    found: list[int] = []
    todo = [root]
    while todo:
        new = [pid for pid in below.get(todo.pop(), []) if pid not in skipped]
        found += new
        todo += new
    return found


def send(pids: Iterable[int], signal_number: int) -> None:
    """Sends a signal to each process that still exists."""
    for pid in pids:
        try:
            os.kill(pid, signal_number)
        except ProcessLookupError:
            continue


def end_descendants(grace: float) -> None:
    """Waits up to `grace` seconds for all processes below this one, then kills what is left."""
    end = time.monotonic() + grace
    while descendants(os.getpid()):
        if time.monotonic() > end:
            send(descendants(os.getpid()), signal.SIGKILL)
        reap()
        time.sleep(0.1)


def take_signal(signals: Collection[signal.Signals], seconds: float) -> signal.Signals | None:
    """Waits for one of the blocked `signals`; None when the time is over."""
    info = signal.sigtimedwait(signals, seconds)
    # Python hands out uninitialised memory if SIGCONT ended the wait after its time was over.
    if info is None or info.si_signo not in signals:
        return None
    return signal.Signals(info.si_signo)


def reap() -> dict[int, int]:
    """Collects ended children without waiting: {pid: wait status}."""
    ended: dict[int, int] = {}
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid == 0:
            return ended
        ended[pid] = status


def _stat(pid: int) -> list[str] | None:
    """Fields of /proc/<pid>/stat from the state on: state, parent, ...; None if it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return text[text.rindex(")") + 2 :].split()
