"""How a program talks with whoever supervises it: exit codes, stop signals, waiting.

Signals are taken by a thread in `sigwait`, because a Python handler never runs while the main
thread is blocked inside Reverb or TensorFlow. What a program saves when it stops is its own affair.
"""

from __future__ import annotations

import faulthandler
import os
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
        self.event.set()

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
    """Blocks the stop signals and starts the thread that takes them.

    Call it in the main thread before TensorFlow or Reverb is imported: threads inherit the mask,
    so that none of the library's threads takes the signal and dies of it. Child processes inherit
    the mask too: start them with `preexec_fn=unblock_signals`.

    The first signal sets the returned `Stop`; `grace` seconds later, or at another Ctrl-C, the
    process ends at once with RETRY, wherever its main thread is stuck. Another TERM changes
    nothing: a parent's death and a supervisor may each send one.

    Args:
        grace: Seconds; None means `grace_seconds()`.
    """
    stop = Stop()
    if not faulthandler.is_enabled():
        faulthandler.enable()
    # What the caller chose to ignore (nohup, a shell's background job) stays ignored.
    signals = [s for s in STOP_SIGNALS if signal.getsignal(s) is not signal.SIG_IGN]
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    deadline = grace_seconds() if grace is None else grace
    arguments = (stop, signals, deadline)
    threading.Thread(target=_take_signals, args=arguments, daemon=True, name="signals").start()
    return stop


def unblock_signals() -> None:
    """Undoes the mask in a child process (for `preexec_fn`)."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)


def _take_signals(stop: Stop, signals: list[signal.Signals], grace: float) -> None:
    first = signal.sigwait(signals)
    began = time.monotonic()
    _say(f"stopping: {signal.Signals(first).name}")
    stop.request(signal.Signals(first).name, first)
    while True:
        left = began + grace - time.monotonic()
        again = signal.sigtimedwait(signals, max(left, 0.0))
        if again is None:
            _say(f"not stopped within {grace:g} s; where every thread stands:")
            faulthandler.dump_traceback(all_threads=True)
            os._exit(RETRY)
        if again.si_signo == signal.SIGINT and time.monotonic() - began > _DUPLICATE_SECONDS:
            _say("SIGINT again: ending at once")
            os._exit(RETRY)


def _say(text: str) -> None:
    """Writes past Python's buffers, whose locks the stuck main thread may hold."""
    os.write(2, f"sactory: {text}\n".encode())


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
