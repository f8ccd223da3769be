"""How a program talks with whoever supervises it: exit codes, stop signals, waiting.

Signals are taken by a thread, because a Python handler never runs while the main thread is blocked
inside Reverb or TensorFlow. What a program saves when it stops is its own affair.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import select
import signal
import threading
import time
from collections.abc import Callable
from typing import TypeVar

OK = 0  # finished: the service goes down for good
FAILED = 1  # what Python makes of an uncaught exception: restarted with back-off
USER_ERROR = 2  # the user must mend something: the service goes down and the run has failed
RETRY = 75  # EX_TEMPFAIL, also after a stop by signal: start it again

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
GRACE_VARIABLE = "SACTORY_GRACE_SECONDS"
RESTARTS_VARIABLE = "SACTORY_RESTARTS"  # how often the service has started its program before
ALIVE_FILE = "alive.json"  # in a tree's directory: its heartbeat
SERVICE_STATE_FILE = "state.json"  # in a service's directory: how its program ended last
DEFAULT_GRACE_SECONDS = 55.0  # below the 60 s after which the tree kills what is left

_DUPLICATE_SECONDS = 0.5  # one Ctrl-C may arrive twice, from the terminal and from a parent
_T = TypeVar("_T")


class Stop:
    """Says whether the program should stop, and why.

    A program looks at it between two pieces of work, saves, and ends with `exit_code`.
    """

    def __init__(self) -> None:
        self.event = threading.Event()
        self.reason: str | None = None
        self.signal: int | None = None
        self._requested: float | None = None

    def is_set(self) -> bool:
        """Whether the program should stop."""
        return self.event.is_set()

    def wait(self, timeout: float | None = None) -> bool:
        """Waits up to `timeout` seconds for the stop; returns whether it came."""
        return self.event.wait(timeout)

    def request(self, reason: str, signal_number: int | None = None) -> None:
        """Asks the program to stop. The first reason stands."""
        if self.event.is_set():
            return
        self.reason = reason
        self.signal = signal_number
        self._requested = time.monotonic()
        self.event.set()

    @property
    def age(self) -> float:
        """Seconds since the program was asked to stop; 0 if it was not."""
        return 0.0 if self._requested is None else time.monotonic() - self._requested

    @property
    def exit_code(self) -> int:
        """RETRY after a signal, so that a stopped program is not taken for a finished one."""
        return OK if self.signal is None else RETRY


def grace_seconds() -> float:
    """Seconds from the stop signal to the program's own hard end; the tree may set it."""
    try:
        return max(1.0, float(os.environ[GRACE_VARIABLE]))
    except (KeyError, ValueError):
        return DEFAULT_GRACE_SECONDS


def start_signal_thread(grace: float | None = None) -> Stop:
    """Starts the thread that takes the stop signals, and keeps them from all others.

    Call it in the main thread before TensorFlow or Reverb is imported: their threads inherit the
    mask, so that no blocking call of theirs is interrupted. Child processes inherit it too: start
    them with `preexec_fn=unblock_signals`.

    The first signal sets the returned `Stop`; `grace` seconds later, or at another Ctrl-C, the
    process ends at once with RETRY, wherever its main thread is stuck. Another TERM changes
    nothing: a parent's death and a supervisor may each send one.

    Args:
        grace: Seconds; None means `grace_seconds()`.
    """
    stop = Stop()
    if not faulthandler.is_enabled():
        faulthandler.enable()
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    # Python's C handler writes the number to this descriptor at once, in whatever thread it runs,
    # even in one that a library started before the mask was set. The Python handler has no work.
    signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    # What the caller chose to ignore (nohup, a shell's background job) stays ignored.
    signals = [s for s in STOP_SIGNALS if signal.getsignal(s) is not signal.SIG_IGN]
    for s in signals:
        signal.signal(s, _do_nothing)
        signal.siginterrupt(s, False)
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    deadline = grace_seconds() if grace is None else grace
    arguments = (stop, read_end, signals, deadline)
    threading.Thread(target=_take_signals, args=arguments, daemon=True, name="signals").start()
    return stop


def unblock_signals() -> None:
    """Undoes the mask in a child process (for `preexec_fn`)."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)


def _do_nothing(_number: int, _frame: object) -> None:
    pass


def _take_signals(stop: Stop, wakeup_fd: int, signals: list[signal.Signals], grace: float) -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
    first = _next_signal(wakeup_fd, signals, None)
    assert first is not None  # it waited without a limit
    began = time.monotonic()
    stop.request(first.name, first)
    _say(f"stopping: {first.name}")
    while True:
        again = _next_signal(wakeup_fd, signals, began + grace - time.monotonic())
        if again is None:
            _say(f"not stopped within {grace:g} s; where every thread stands:")
            write(_where_threads_stand())
            os._exit(RETRY)
        if again == signal.SIGINT and time.monotonic() - began > _DUPLICATE_SECONDS:
            _say("SIGINT again: ending at once")
            os._exit(RETRY)


def _next_signal(
    wakeup_fd: int, signals: list[signal.Signals], timeout: float | None
) -> signal.Signals | None:
    """Waits for one of `signals`; None after `timeout` seconds."""
    end = None if timeout is None else time.monotonic() + timeout
    while True:
        left = None if end is None else max(0.0, end - time.monotonic())
        if not select.select([wakeup_fd], [], [], left)[0]:
            return None
        number = os.read(wakeup_fd, 1)[0]
        if number in signals:  # other signals with a Python handler are written there too
            return signal.Signals(number)


def _where_threads_stand() -> bytes:
    """Every thread's stack, by way of memory: faulthandler waits for whoever reads its file."""
    with contextlib.suppress(OSError), open(os.memfd_create("stacks"), "r+b") as f:
        faulthandler.dump_traceback(f, all_threads=True)
        f.seek(0)
        return f.read()
    return b""


def _say(text: str) -> None:
    write(f"sactory: {text}\n".encode())


def write(data: bytes, descriptor: int = 2) -> None:
    """Writes what the log takes at once: a pipe that nobody empties must not hold a stop up.

    Past Python's buffers, whose locks the stuck main thread may hold.

    Args:
        data: Whole lines.
        descriptor: 1 or 2.
    """
    with contextlib.suppress(OSError):
        while data and select.select([], [descriptor], [], 0)[1]:
            data = data[os.write(descriptor, data[: select.PIPE_BUF]) :]


def wait_for(
    predicate: Callable[[], _T],
    stop: Stop | threading.Event,
    timeout: float | None = None,
    shortest: float = 0.05,
    longest: float = 1.0,
) -> _T | None:
    """Calls `predicate` with growing pauses until its value is true.

    Args:
        predicate: What to wait for.
        stop: Ends the waiting early.
        timeout: Seconds; None waits until `stop`.
        shortest: First pause in seconds; it doubles up to `longest`.
        longest: Longest pause in seconds.

    Returns:
        The true value, or None after a stop or time-out.
    """
    end = None if timeout is None else time.monotonic() + timeout
    pause = shortest
    while True:
        value = predicate()
        if value:
            return value
        left = pause if end is None else min(pause, end - time.monotonic())
        if left <= 0 or stop.wait(left):
            return None
        pause = min(2 * pause, longest)
