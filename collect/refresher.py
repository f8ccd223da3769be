"""The collector's link to the rest of the run, on a thread of its own.

Reports progress, reads the run's state and fetches newer weights, so that the worker never waits
for any of it.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque

import numpy as np
import reverb
from absl import logging

from sactory import client as client_lib
from sactory import progress, weights
from sactory.run_dir import RunDir
from sactory.tables import PROGRESS, REPLAY, STATE

# Episodes go out with several reports: one lost report loses none.
_EPISODES_KEPT = 16
_LAST_REPORT_SECONDS = 5.0
# A round costs the server 1 to 3 ms; all collectors together make so many a second.
_SECONDS, _ROUNDS_PER_SECOND = 0.25, 128
_FIRST_SECONDS = 1.0


def interval(chosen: float | None, collectors: int) -> float:
    """Seconds between two rounds of one of so many collectors.

    Args:
        chosen: The user's `collect.refresh_seconds`, or None.
        collectors: Of the run.
    """
    return max(_SECONDS, collectors / _ROUNDS_PER_SECOND) if chosen is None else chosen


class Refresher:
    """Talks to the replay server every `seconds`.

    Attributes:
        state: What the trainer published last, or None before it did.
        is_done: Whether the run has reached its end.
        error: Why the thread gave up, or None.
    """

    def __init__(
        self,
        run_dir: RunDir,
        client: reverb.Client,
        stop: threading.Event,
        worker: int,
        seconds: float,
        segment_length: int,
    ):
        self.state: progress.RunState | None = None
        self._seen: progress.RunState | None = None
        self.error: Exception | None = None
        self.is_done = False
        self._run_dir, self._stop, self._worker = run_dir, stop, worker
        self._client, self._watchdog = client, client_lib.Watchdog(client, run_dir)
        self._seconds, self._segment_length = seconds, segment_length
        self._acts = False
        self._incarnation = time.time_ns()  # unlike any other start of this worker
        self._rows = self._env_steps = self._reported = 0
        self._episodes: deque[progress.Episode] = deque()
        self._run_rows, self._rows_then = 0, 0
        self._version: weights.Version | None = None
        self._fetched: tuple[weights.Version, np.ndarray] | None = None
        self._state_changed = time.monotonic()
        self._thread = threading.Thread(target=self._loop, name="refresher", daemon=True)

    def start(self) -> None:
        """Starts the thread after one round on the caller's."""
        self._round()
        self._thread.start()

    def count(self, rows: int, env_steps: int) -> None:
        """Adds to this incarnation's totals."""
        self._rows += rows
        self._env_steps += env_steps

    def add_episode(self, episode: progress.Episode) -> None:
        """Reports a finished episode."""
        self._episodes.append(episode)

    @property
    def run_rows(self) -> int:
        """Agent steps of the whole run: what others were last known to have, and ours now."""
        return self._run_rows + self._rows - self._rows_then

    @property
    def trainer_silence(self) -> float:
        """Seconds since the trainer's state last changed."""
        return time.monotonic() - self._state_changed

    def set_version(self, version: weights.Version) -> None:
        """Says which weights the worker has from elsewhere (an export), and that it acts now."""
        self._version, self._acts = version, True

    def take_weights(self) -> tuple[weights.Version, np.ndarray] | None:
        """Weights newer than the worker's, once; None if there are none."""
        fetched, self._fetched = self._fetched, None
        return fetched

    def _loop(self) -> None:
        while not self._stop.wait(self._pause):
            try:
                self._round()
            except RuntimeError as e:  # the server went away between the probe and the call
                logging.warning("the replay server stopped answering: %s", e)
            except Exception as e:  # whatever it is must end the worker, not only this thread
                self.error = e
                return

    @property
    def _pause(self) -> float:
        # The end of the random steps and the first policy are heard of soon, however many wait.
        return self._seconds if self._acts else min(self._seconds, _FIRST_SECONDS)

    def report_now(self) -> None:
        """Sends the last totals, within a time limit: a lost server must not hold up the end."""
        with contextlib.suppress(RuntimeError):
            if client_lib.table_infos(self._client, self._run_dir) is not None:
                client_lib.within(_LAST_REPORT_SECONDS, self._report)

    def _round(self) -> None:
        self.is_done = self._run_dir.is_done
        infos = self._watchdog.infos()
        if infos is None:
            return
        rows_now = self._rows
        self._report()
        for message in client_lib.take_json(self._client, STATE, infos):
            try:
                self._look_at(progress.RunState.from_json(message))
            except ValueError as e:
                logging.warning("dropped a state of the run that can't be read: %s", e)
        inserted = infos[REPLAY].rate_limiter_info.insert_stats.completed
        known = self.state.rows if self.state else 0
        # A restored server may have forgotten rows, a trainer may not have heard of them yet.
        self._run_rows = max(known, inserted * self._segment_length, rows_now)
        self._rows_then = rows_now
        if self.state is not None:
            published = weights.Version(
                self.state.weights_incarnation, self.state.weights_train_step
            )
            if published.supersedes(self._version):
                self._fetch(infos, published)

    def _look_at(self, state: progress.RunState) -> None:
        """Takes a state that is new, whatever the trainer's clock says.

        One that goes back comes from a restored server, unless it changes: then somebody publishes
        it, and what is held here was never true.
        """
        if state == self._seen:
            return
        changes = self._seen is not None and self._seen != self.state
        self._seen = state
        if self.state is None or changes or state.order >= self.state.order:
            self.state, self._state_changed = state, time.monotonic()

    def _report(self) -> None:
        if self._reported == self._rows and self._reported:
            return
        rows, steps, episodes = self._rows, self._env_steps, list(self._episodes)
        record = progress.report(self._worker, self._incarnation, rows, steps, episodes)
        client_lib.put_json(self._client, PROGRESS, record)
        self._reported = rows
        for _ in range(len(episodes) - _EPISODES_KEPT):
            self._episodes.popleft()

    def _fetch(self, infos: dict, published: weights.Version) -> None:
        found = weights.latest(self._client, infos)
        # Others than the trainer tells of are too new by an instant, or not its own.
        if found is not None and found[0] == published:
            self._version = published
            self._fetched = found
