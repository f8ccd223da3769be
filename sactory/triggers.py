"""Predicates of a loop that fire when a threshold is crossed, never on a remainder.

So they survive steps that jump, and restarts: a trigger needs only where counting stands.
"""

from __future__ import annotations

import math


class Every:
    """Fires once for each time its argument has crossed a multiple of `interval`.

    A jump over several multiples fires once. A value that steps back (a restored counter) does not
    fire again until it passes the multiple that fired last.

    Args:
        interval: Distance between two firings, in the unit of the argument; above 0.
        start: Where counting stands now: multiples up to here don't fire.
        origin: The multiples' zero.
    """

    def __init__(self, interval: float, start: float = 0, origin: float = 0):
        if not interval > 0:
            raise ValueError(f"interval must be above 0, not {interval}")
        self._interval, self._origin = interval, origin
        self._passed = self._count(start)

    def _count(self, value: float) -> int:
        return math.floor((value - self._origin) / self._interval)

    def __call__(self, value: float) -> bool:
        """Whether a multiple has been crossed since the last call that fired."""
        count = self._count(value)
        if count <= self._passed:
            return False
        self._passed = count
        return True
