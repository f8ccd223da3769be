"""When and where the replay tables are saved.

Reverb keeps one checkpoint, deletes whatever else lies in its root, and holds the tables' lock
while it copies; so the root holds nothing else and the interval grows with the time a save takes.
"""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import reverb
from absl import logging
from reverb.platform import checkpointers_lib

from sactory.run_dir import RunDir, fsync_path

# A save may take at most a fiftieth of the time between two.
_DURATION_FACTOR = 50


class Checkpoints:
    """Saves the tables on a schedule: first at once, then at intervals.

    Args:
        run_dir: The run.
        interval: Seconds between the end of one save and the start of the next, at least.
    """

    def __init__(self, run_dir: RunDir, interval: float):
        # Reverb names checkpoints by local time and keeps the one that sorts last.
        os.environ["TZ"] = "UTC"
        time.tzset()
        run_dir.replay_checkpoints.mkdir(parents=True, exist_ok=True)
        self.checkpointer = checkpointers_lib.DefaultCheckpointer(
            path=str(run_dir.replay_checkpoints)
        )
        self._root = run_dir.replay_checkpoints
        self._remove_partial()
        self._interval = interval
        self._due = 0.0

    def _remove_partial(self) -> None:
        """Frees the space of saves that were cut off; Reverb would never read them."""
        for path in self._root.iterdir():
            if path.is_dir() and not (path / "DONE").exists():
                shutil.rmtree(path, ignore_errors=True)

    def save_if_due(self, client: reverb.Client) -> None:
        """Saves if the interval is over."""
        if time.monotonic() >= self._due:
            self.save(client)

    def save(self, client: reverb.Client) -> bool:
        """Saves now and makes the checkpoint durable.

        Returns:
            Whether it worked; a failure is logged and the previous checkpoint stays in place.
        """
        began = time.monotonic()
        try:
            path = Path(client.checkpoint())
            if not (path / "DONE").exists():
                raise OSError(f"{path} has no DONE file")
            for name in os.listdir(path):
                fsync_path(path / name)
            fsync_path(path)
            fsync_path(path.parent)
        except Exception as e:  # Reverb turns a full disk into an IndexError, for one
            logging.error("the replay checkpoint failed, the previous one stays: %s", e)
            self._remove_partial()
            self._due = time.monotonic() + self._interval
            return False
        duration = time.monotonic() - began
        self._due = time.monotonic() + max(self._interval, _DURATION_FACTOR * duration)
        logging.info("replay checkpoint %s in %.1f s", path.name, duration)
        return True
