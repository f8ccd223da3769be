"""The trainer's link to the rest of the run, on a thread of its own.

Drains the collectors' reports into the book, publishes the weights and the run's state, and notices
when the server lost what was published.
"""

from __future__ import annotations

import collections
import contextlib
import threading
import time
from typing import Any

import numpy as np
import reverb
from absl import logging

from sactory import client as client_lib
from sactory import progress, settings, weights
from sactory.run_dir import RunDir
from sactory.tables import PROGRESS, REPLAY, STATE, WEIGHTS
from train.lessons import Lessons

_LAST_ROUND_SECONDS = 5.0


class Publisher:
    """Publishes every `train.publish_seconds`.

    Attributes:
        book: What the collectors have done.
        episodes: Finished episodes that the learner has not logged yet, with their number in the
            run, from 1.
        replay_rows: Rows in the replay table.
        inserted_rows: Rows inserted into it over the run, as far as the server remembers.
        published_time: When weights were published last, unix seconds; None before that.
        error: Why the thread gave up, or None.
    """

    def __init__(
        self,
        run_dir: RunDir,
        client: reverb.Client,
        stop: threading.Event,
        segment_length: int,
        book: progress.Book,
        incarnation: int,
        lessons: Lessons,
    ):
        self.book = book
        self._lessons = lessons
        self.episodes: collections.deque[progress.Entry] = collections.deque()
        self.replay_rows = self.inserted_rows = 0
        self.published_time: float | None = None
        self.error: Exception | None = None
        self._client, self._stop = client, stop
        self._watchdog = client_lib.Watchdog(client, run_dir)
        self._seconds, self._segment_length = settings.Train().publish_seconds, segment_length
        self._incarnation = incarnation
        self._lock = threading.Lock()
        self._newest: tuple[weights.Version, np.ndarray] | None = None
        self._published: weights.Version | None = None
        self._puts_after: int | None = None
        self._train_step = 0
        self._ended = False
        self._thread = threading.Thread(target=self._loop, name="publisher", daemon=True)

    def start(self, train_step: int, vector: np.ndarray) -> None:
        """Publishes the restored weights, then starts the thread."""
        self.offer(train_step, vector)
        self.round()
        self._thread.start()

    @property
    def wants_weights(self) -> bool:
        """Whether the weights offered last have been published."""
        return self._newest is None or self._newest[0] == self._published

    def offer(self, train_step: int, vector: np.ndarray) -> None:
        """Hands over a copy of the policy's weights, float32 `[W]`."""
        self._newest = (weights.Version(self._incarnation, train_step), vector)
        self._train_step = train_step

    def count(self, train_step: int) -> None:
        """Says how many gradient steps have been made."""
        self._train_step = train_step

    def to_json(self) -> dict[str, Any]:
        """What the trainer's checkpoint holds of the collectors' work and of the curriculum."""
        steps = self.book.env_steps
        return {"env_steps": steps, "book": self.book.to_json(), **self._lessons.to_json()}

    def finish(self) -> None:
        """Tells everybody that the run has ended, from now on."""
        self._ended = True
        self.last_round()

    def last_round(self) -> None:
        """One more round within a time limit: a lost server must not hold up saving."""
        with contextlib.suppress(RuntimeError, client_lib.ServerGoneError):
            client_lib.within(_LAST_ROUND_SECONDS, self.round)

    def _loop(self) -> None:
        while not self._stop.wait(self._seconds):
            try:
                self.round()
            except RuntimeError as e:  # the server went away between the probe and the call
                logging.warning("the replay server stopped answering: %s", e)
            except Exception as e:  # whatever it is must end the trainer, not only this thread
                self.error = e
                return

    def round(self) -> None:
        """Drains, publishes what is new and looks after the server."""
        with self._lock:
            infos = self._watchdog.infos()
            if infos is None:
                return
            replay = infos[REPLAY]
            self.replay_rows = replay.current_size * self._segment_length
            inserts = replay.rate_limiter_info.insert_stats.completed
            self.inserted_rows = inserts * self._segment_length
            for record in client_lib.take_json(self._client, PROGRESS, infos):
                try:
                    new = self.book.add(record)
                except ValueError as e:
                    logging.warning("dropped a report that can't be read: %s", e)
                    continue
                self._lessons.count(new)
                self.episodes.extend(new)
            puts = infos[WEIGHTS].rate_limiter_info.insert_stats.completed
            # Another count than after our last insert: the server lost it or came back with old
            # weights, so that what collectors find is not what was published.
            lost = infos[WEIGHTS].current_size == 0 or puts != self._puts_after
            if self._newest is not None and (lost or self._newest[0] != self._published):
                version, vector = self._newest
                weights.publish(self._client, version, vector)
                self._published, self._puts_after = version, puts + 1
                self.published_time = time.time()
            self._publish_state()

    def _publish_state(self) -> None:
        published = self._published or weights.Version(0, 0)
        state = progress.RunState(
            env_steps=self.book.env_steps,
            rows=self.book.rows,
            train_step=self._train_step,
            weights_incarnation=published.incarnation,
            weights_train_step=published.train_step,
            time=time.time(),
            stop=self._ended,
            curriculum=self._lessons.update(self.book, self._train_step),
        )
        client_lib.put_json(self._client, STATE, state.to_json())
