"""What the server's heartbeat tells of its tables: sizes, and what their worker waited for.

Reverb serves each table from one worker thread and counts its milliseconds by state. Tried on a
real server: `waiting_for_sampling` grows while inserts are there and the limiter holds them,
`waiting_for_inserts` while it holds samples, `sleeping` while nobody asks for anything; the
counters run on within a state.
"""

from __future__ import annotations

import collections
from typing import Any

from sactory import tables

WINDOW_SECONDS = 60.0
_SHOWN = (tables.REPLAY, tables.WEIGHTS, tables.STATE, tables.PROGRESS)


class TableWatch:
    """Makes the heartbeat's fields from what the server says of its tables.

    Args:
        window: Seconds that `table_worker` looks back.
    """

    def __init__(self, window: float = WINDOW_SECONDS):
        self._window = window
        self._points: collections.deque[tuple[float, dict[str, int]]] = collections.deque()

    def fields(self, infos: dict[str, Any], now: float) -> dict[str, dict[str, int]]:
        """The fields at this moment.

        Args:
            infos: Reverb's information on every table.
            now: Monotonic seconds.

        Returns:
            `tables`, items by table; `table_worker`, the milliseconds that the replay table's
            worker spent in each state within the window.
        """
        worker = infos[tables.REPLAY].table_worker_time
        names = [field.name for field in worker.DESCRIPTOR.fields]
        totals = {name[: -len("_ms")]: int(getattr(worker, name)) for name in names}
        self._points.append((now, totals))
        while len(self._points) > 2 and now - self._points[1][0] >= self._window:
            self._points.popleft()
        first = self._points[0][1]
        return {
            "tables": {name: infos[name].current_size for name in _SHOWN},
            "table_worker": {state: ms - first[state] for state, ms in totals.items()},
        }
