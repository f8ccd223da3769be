"""When and where the replay tables are saved.

Reverb keeps one checkpoint, deletes whatever else lies in its root, and holds the tables' lock
while it copies; so the root holds nothing else and the interval grows with the time a save takes.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from pathlib import Path
from typing import Any

import reverb
from absl import logging
from reverb.platform import checkpointers_lib

from replay_server import offline, restore
from replay_server.crashes import Crashes
from replay_server.history import SAVED, Copy, History
from sactory import settings
from sactory.heartbeat import Heartbeat
from sactory.run_dir import RunDir, fsync_path
from sactory.tables import REPLAY

# A save may take at most a fiftieth of the time between two.
_DURATION_FACTOR = 50
# The last save before the end is started only if this many times the last one's duration is left.
_SAFETY = 1.5


class Checkpoints:
    """Saves the tables on a schedule, and finds what a server starts from.

    Attributes:
        checkpointer: For `reverb.Server`.

    Args:
        run_dir: The run.
        replay: Its settings.
        heartbeat: Where checkpoints, recoveries and repairs are reported.
    """

    def __init__(self, run_dir: RunDir, replay: settings.Replay, heartbeat: Heartbeat):
        # Reverb names checkpoints by local time and keeps the one that sorts last.
        os.environ["TZ"] = "UTC"
        time.tzset()
        self._run_dir, self._replay, self._heartbeat = run_dir, replay, heartbeat
        self._history = History(run_dir, replay.keep_checkpoints)
        self.checkpointer = checkpointers_lib.DefaultCheckpointer(
            path=str(run_dir.replay_checkpoints)
        )
        self._due = 0.0
        self._duration = 0.0
        self._loading: Copy | None = None

    def prepare(self, tables: list[Any]) -> None:
        """Leaves in Reverb's root what a server with these tables shall start from."""
        self._heartbeat.update(state="restoring", recovered=[])
        copy = restore.prepare(self._run_dir, self._history, self._replay, tables, self._heartbeat)
        self._loading = copy
        if copy is None:
            self._heartbeat.update(checkpoint_time=None, checkpoint_seconds=None)
        else:
            self._report(copy)
            # The warm-up is over, and there is nothing new to save, unless others were damaged:
            # then this may be the only whole copy.
            if copy.manifest.origin == SAVED and not self._history.notes:
                self._due = time.monotonic() + self._replay.checkpoint_seconds
        self._report_notes()

    def loading(self) -> contextlib.AbstractContextManager[None]:
        """Surrounds the building of the server: a checkpoint may make it crash."""
        return Crashes(self._run_dir).watched()

    def is_loaded(self, infos: dict[str, Any]) -> bool:
        """Whether the server holds what its checkpoint promised; asked with its first answer.

        If it doesn't, that checkpoint goes to quarantine and the next start takes an older one.
        """
        copy, self._loading = self._loading, None
        if copy is None:
            return True
        size, promised = infos[REPLAY].current_size, copy.manifest.items(REPLAY)
        if size >= promised:
            return True
        self._history.discard(copy, f"the server made {size} of its {promised} items")
        self._report_notes()
        logging.error("the server came up with %d of %d items", size, promised)
        return False

    def save_if_due(self, client: reverb.Client) -> None:
        """Saves if the interval is over."""
        if time.monotonic() >= self._due:
            self.save(client)

    def save_last(self, client: reverb.Client, left: float) -> bool:
        """Saves before the end, if the time suffices.

        Args:
            client: The server.
            left: Seconds until the process is killed.

        Returns:
            Whether everything is saved.
        """
        if left < _SAFETY * self._duration:
            logging.warning(
                "no last checkpoint: the one before took %.0f s, %.0f s are left",
                self._duration,
                left,
            )
            return False
        saved: list[bool] = []
        thread = threading.Thread(
            target=lambda: saved.append(self.save(client)), daemon=True, name="last save"
        )
        thread.start()
        thread.join(left)
        if thread.is_alive():
            logging.error("the last checkpoint was not done within %.0f s", left)
        return saved == [True]

    def save(self, client: reverb.Client) -> bool:
        """Saves now and makes the checkpoint durable.

        Returns:
            Whether it worked; a failure is logged and the previous checkpoint stays in place.
        """
        began = time.monotonic()
        try:
            self._history.sweep()
            path = Path(client.checkpoint())
            if not (path / offline.DONE).exists():
                raise OSError(f"{path} has no DONE file")
            for name in os.listdir(path):
                fsync_path(path / name)
            fsync_path(path)
            fsync_path(path.parent)
            copy = self._history.add(path, time.monotonic() - began)
        except Exception as e:  # Reverb turns a full disk into an IndexError, for one
            logging.error("the replay checkpoint failed, the previous one stays: %s", e)
            self._due = time.monotonic() + self._replay.checkpoint_seconds
            with contextlib.suppress(OSError):  # the same disk: what failed the save fails here
                self._history.remove_partial()
            return False
        finally:
            self._report_notes()
        duration = time.monotonic() - began
        self._due = time.monotonic() + max(
            self._replay.checkpoint_seconds, _DURATION_FACTOR * duration
        )
        self._report(copy)
        logging.info("replay checkpoint %s in %.1f s", path.name, duration)
        return True

    def _report(self, copy: Copy) -> None:
        manifest = copy.manifest
        self._duration = manifest.duration
        self._heartbeat.update(
            checkpoint_time=manifest.time,
            checkpoint_seconds=round(manifest.duration, 2),
            checkpoint_rows=manifest.items(REPLAY) * self._replay.segment_length,
        )

    def _report_notes(self) -> None:
        self._heartbeat.update(recovered=list(self._history.notes))
