"""Sends rows to the replay table in segments of constant length."""

from __future__ import annotations

import numpy as np
import reverb
from absl import logging

from sactory.tables import CHUNK_ROWS, MAX_IN_FLIGHT_ITEMS, REPLAY

_ASK_EVERY_ITEMS = 4


class SegmentWriter:
    """Writes items of exactly `segment_length` rows.

    Rows run on over the ends of episodes and over the worker's environments, so every item has
    the same shape whatever happens.

    Args:
        client: The replay server.
        segment_length: L, rows per item.
        row_size: Floats per row.
    """

    def __init__(self, client: reverb.Client, segment_length: int, row_size: int):
        self._client = client
        self._segment = np.empty((segment_length, row_size), np.float32)
        self._filled = 0
        self._unasked = 0
        self._writer = self._open()

    def _open(self) -> reverb.TrajectoryWriter:
        chunk = max(1, CHUNK_ROWS // len(self._segment))
        writer = self._client.trajectory_writer(num_keep_alive_refs=chunk, validate_items=True)
        writer.configure((0,), num_keep_alive_refs=chunk, max_chunk_length=chunk)
        return writer

    def add(self, row: np.ndarray) -> None:
        """Adds one row, float32 `[row_size]`; sends the segment when it is full."""
        self._segment[self._filled] = row
        self._filled += 1
        if self._filled < len(self._segment):
            return
        self._filled = 0
        self._writer.append([self._segment.copy()])
        self._writer.create_item(REPLAY, 1.0, self._writer.history[0][-1])
        self._unasked += 1

    def has_room(self, timeout: float) -> bool:
        """Whether more rows may be added: at most a bounded number is unconfirmed.

        Args:
            timeout: Seconds to wait for the server, which may be holding inserts back.
        """
        if self._unasked < _ASK_EVERY_ITEMS:
            return True
        if not self._flush(MAX_IN_FLIGHT_ITEMS, timeout):
            return False
        self._unasked = 0
        return True

    def flush(self, timeout: float) -> bool:
        """Sends all whole segments; False if the server didn't confirm them in time."""
        return self._flush(0, timeout)

    def _flush(self, in_flight: int, timeout: float) -> bool:
        try:
            self._writer.flush(block_until_num_items=in_flight, timeout_ms=int(1000 * timeout))
        except reverb.DeadlineExceededError:
            return False
        return True

    def reopen(self) -> None:
        """Starts anew; segments that weren't confirmed are lost."""
        logging.warning("opening a new writer: what the old one had not confirmed is lost")
        self._unasked = 0
        self._writer = self._open()
