"""What the trainer tells: one line per finished episode, with the means since the last one.

Every statistic is a running mean over the updates since the previous line, then cleared. Writing
happens on `MetricsWriter`'s thread.
"""

from __future__ import annotations

import time
from typing import Any

from sactory.metrics import TRAIN, MetricsWriter
from sactory.progress import Book, Entry

_RATES_SECONDS = 10.0
# Names in the log for the agent's metrics.
_LOGGED = ("batch_reward", "actor_loss", "critic_loss", "alpha_loss", "alpha", "entropy", "q_mean")


class Journal:
    """Collects metrics of updates and writes them with the episodes.

    Args:
        writer: Where rows go.
        past: What `to_json` gave before a restart.
    """

    def __init__(self, writer: MetricsWriter, past: dict[str, Any] | None = None):
        past = past or {}
        self._writer = writer
        self._sums: dict[str, float] = past.get("sums", {})
        self._means: dict[str, float] = past.get("means", dict.fromkeys(_LOGGED, 0.0))
        self._count: int = past.get("count", 0)
        self.last_return: float | None = past.get("last_return")
        self._rated: tuple[float, int, int] | None = None

    def to_json(self) -> dict[str, Any]:
        """The running means as the trainer's checkpoint holds them."""
        return {
            "sums": dict(self._sums),
            "means": dict(self._means),
            "count": self._count,
            "last_return": self.last_return,
        }

    def update(self, metrics: dict[str, float]) -> None:
        """Adds the metrics of one call of the compiled update."""
        for name in _LOGGED:
            self._sums[name] = self._sums.get(name, 0.0) + metrics[name]
        self._count += 1

    def episode(self, entry: Entry, book: Book, train_step: int, ratio: float) -> None:
        """Writes the line of a finished episode and clears the means.

        Of episodes that end together all have the same means.
        """
        episode = entry.episode
        self.last_return = episode.episode_return
        if self._count:
            self._means = {name: total / self._count for name, total in self._sums.items()}
        row = {
            "train_step": train_step,
            "episode": entry.number,
            "source": entry.source,
            "episode_reward": episode.episode_return,
            "episode_length": episode.length,
            "duration": episode.duration,
            **self._means,
            "ratio": ratio,
        }
        if episode.success is not None:
            row["success"] = episode.success
        if episode.played is not None:
            row["curriculum_version"] = episode.played.version
        self._writer.write(TRAIN, row, step=book.env_steps)
        self._sums, self._count = {}, 0

    def rates(self, book: Book, train_step: int, replay_size: int) -> None:
        """Writes how fast the run goes to TensorBoard; called often, it does so now and then."""
        now = time.monotonic()
        if self._rated is None:
            self._rated = (now, book.env_steps, train_step)
        elif now - self._rated[0] >= _RATES_SECONDS:
            seconds = now - self._rated[0]
            values = {
                "replay_size": replay_size,
                "env_steps_per_second": (book.env_steps - self._rated[1]) / seconds,
                "updates_per_second": (train_step - self._rated[2]) / seconds,
            }
            self.scalars(TRAIN, values, book)
            self._rated = (now, book.env_steps, train_step)

    def scalars(self, kind: str, values: dict[str, float], book: Book) -> None:
        """Writes values of one group of metrics to TensorBoard."""
        self._writer.scalars(kind, values, step=book.env_steps)

    def event(self, name: str, book: Book, **fields: Any) -> None:
        """Writes a record that is no episode, for example `restart`."""
        self._writer.event(name, fields, step=book.env_steps)

    def close(self) -> None:
        """Writes out what is queued, within a time limit."""
        self._writer.close(timeout=10.0)
