"""Sends rows to the replay table in segments of constant length."""

from __future__ import annotations

from collections import deque

import numpy as np
import reverb
from absl import logging

from sactory.tables import REPLAY


class SegmentWriter:
    """Writes items of exactly `segment_length` rows.

    Rows run on over the ends of episodes and over the worker's environments, so every item has
    the same shape whatever happens. Each item is a chunk of its own: a chunk travels with every
    sample of any of its items, and is sent only when it is full.

    Args:
        client: The replay server.
        segment_length: L, rows per item.
        row_size: Floats per row.
    """

    def __init__(self, client: reverb.Client, segment_length: int, row_size: int):
        self._client = client
        self._segment = np.empty((segment_length, row_size), np.float32)
        self._filled = 0
        self._full: deque[np.ndarray] = deque()
        self._confirmed = True
        self._writer = self._open()

    def _open(self) -> reverb.TrajectoryWriter:
        writer = self._client.trajectory_writer(num_keep_alive_refs=1, validate_items=True)
        writer.configure((0,), num_keep_alive_refs=1, max_chunk_length=1)
        return writer

    def add(self, rows: np.ndarray) -> None:
        """Adds rows, float32 `[M, row_size]`, and sends the segments that are full.

        Raises:
            RuntimeError: The writer has failed; what it was not given yet goes with the next rows.
        """
        length = len(self._segment)
        while len(rows):
            taken = rows[: length - self._filled]
            self._segment[self._filled : self._filled + len(taken)] = taken
            self._filled += len(taken)
            rows = rows[len(taken) :]
            if self._filled == length:
                self._full.append(self._segment.copy())
                self._filled = 0
        while self._full:
            self._confirmed = False
            self._writer.append([self._full.popleft()])
            self._writer.create_item(REPLAY, 1.0, self._writer.history[0][-1])

    def flush(self, timeout: float) -> bool:
        """Waits until the server has every segment that was sent.

        Args:
            timeout: Seconds to wait for the server, which may be holding inserts back.

        Returns:
            Whether it has them.
        """
        if not self._confirmed:
            try:
                self._writer.flush(timeout_ms=int(1000 * timeout))
            except reverb.DeadlineExceededError:
                return False
            self._confirmed = True
        return True

    def reopen(self) -> None:
        """Starts anew; a segment that wasn't confirmed is lost.

        Raises:
            RuntimeError: The server doesn't answer.
        """
        logging.warning("opening a new writer: what the old one had not confirmed is lost")
        self._writer = self._open()
        self._confirmed = True
