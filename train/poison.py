"""Bad items in the replay table: kept from the learner, and the server asked to remove them.

R/repair.json   {reason, time}: written here, deleted by the replay server when it has repaired
"""

from __future__ import annotations

import time

import numpy as np
import tensorflow as tf
from absl import logging

from sactory.rows import UNSOUND, all_sound
from sactory.run_dir import RunDir, write_json

_PATIENCE_SECONDS = 60.0
_POLL_SECONDS = 0.2
_MOST_IN_A_ROW = 5


class PoisonError(Exception):
    """A block can't be learned from; the message says why."""


class Poison:
    """Counts dropped blocks and asks for repairs.

    Args:
        run_dir: The run.

    Attributes:
        dropped: Blocks dropped since the start.
    """

    def __init__(self, run_dir: RunDir):
        self.dropped = 0
        self._in_a_row = 0
        self._request = run_dir.repair

    def check(self, rows: tf.Tensor) -> None:
        """Raises `PoisonError` if rows `[..., row]` hold what can't be learned from."""
        if not all_sound(np.asarray(memoryview(rows))):  # not `numpy()`, which copies
            raise PoisonError(f"a sampled row holds {UNSOUND}")
        self._in_a_row = 0

    def drop(self, reason: str) -> None:
        """Drops a block and waits, within a time limit, until the server has removed the cause.

        What was sampled before the repair lies in the stream's buffers: the caller opens it anew.

        Raises:
            RuntimeError: Block after block is bad: repairs don't help.
        """
        self.dropped += 1
        self._in_a_row += 1
        if self._in_a_row > _MOST_IN_A_ROW:
            raise RuntimeError(
                f"{self._in_a_row} blocks of samples in a row can't be learned from, and repairs "
                f"of the replay don't help: {reason}"
            )
        logging.error("a block of samples is dropped: %s", reason)
        try:
            if not self._request.exists():
                write_json(self._request, {"reason": reason, "time": time.time()})
        except OSError as e:  # the next bad block asks again
            logging.error("no repair of the replay can be asked for: %s", e)
        end = time.monotonic() + _PATIENCE_SECONDS
        while self._request.exists() and time.monotonic() < end:
            time.sleep(_POLL_SECONDS)
