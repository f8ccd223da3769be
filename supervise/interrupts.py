"""Ctrl-C and its kin, for a process that shows progress: noted, never acted on here."""

from __future__ import annotations

import signal


class Interrupts:
    """Takes Ctrl-C, TERM and HUP; what the caller chose to ignore (nohup) stays ignored."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self.count = 0
        for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(s) is not signal.SIG_IGN:
                signal.signal(s, self._take)

    def _take(self, signal_number: int, _frame: object) -> None:
        self.signal = self.signal or signal_number
        self.count += 1

    @property
    def exit_code(self) -> int:
        """What a shell expects of a program that a signal ended; 143 for `sactory stop`."""
        return 128 + (self.signal or signal.SIGTERM)
