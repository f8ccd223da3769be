"""How far the run is: what collectors report, and the trainer's book of it.

A report carries totals of one incarnation (one start of one worker), never differences, so a lost
or repeated report does no harm. Pure bookkeeping: no tables, no clock.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any


@dataclasses.dataclass(frozen=True)
class Episode:
    """A finished episode.

    Attributes:
        sequence: Its number within the worker's incarnation, from 0.
        episode_return: Undiscounted sum of rewards.
        length: Env steps.
        duration: Seconds.
        success: Whether the task was solved, where the environment says so.
    """

    sequence: int
    episode_return: float
    length: int
    duration: float
    success: float | None = None


@dataclasses.dataclass(frozen=True)
class Entry:
    """A finished episode as the book has entered it.

    Attributes:
        number: Finished episodes of the run, this one included.
        source: `worker:incarnation:sequence`, which no other episode of the run has.
        episode: What the worker said.
    """

    number: int
    source: str
    episode: Episode


@dataclasses.dataclass
class Totals:
    """What one incarnation of one worker has done so far."""

    rows: int = 0
    env_steps: int = 0
    episodes: int = 0


def report(
    worker: int, incarnation: int, rows: int, env_steps: int, episodes: Iterable[Episode] = ()
) -> dict[str, Any]:
    """The record that a collector sends.

    Args:
        worker: The worker's id.
        incarnation: A number that no other start of this worker has.
        rows: Agent steps of this incarnation so far.
        env_steps: Simulator steps of this incarnation so far.
        episodes: Finished episodes that may not have been reported yet.
    """
    return {
        "worker": worker,
        "incarnation": incarnation,
        "rows": rows,
        "env_steps": env_steps,
        "episodes": [dataclasses.asdict(episode) for episode in episodes],
    }


class Book:
    """The sum of what all workers have done. Part of the trainer's checkpoint.

    One thread adds while another reads; the reader iterates over copies.
    """

    def __init__(self) -> None:
        self._totals: dict[str, Totals] = {}

    def add(self, record: dict[str, Any]) -> list[Entry]:
        """Enters one report.

        Returns:
            The episodes in it that were not known yet.
        """
        key = f"{record['worker']}:{record['incarnation']}"
        totals = self._totals.setdefault(key, Totals())
        totals.rows = max(totals.rows, int(record["rows"]))
        totals.env_steps = max(totals.env_steps, int(record["env_steps"]))
        new = []
        for value in sorted(record["episodes"], key=lambda e: e["sequence"]):
            if value["sequence"] >= totals.episodes:
                totals.episodes = value["sequence"] + 1
                source = f"{key}:{value['sequence']}"
                new.append(Entry(self.episodes, source, Episode(**value)))
        return new

    def add_logged(self, sources: Iterable[str]) -> None:
        """Enters the episodes that a log holds already: they must not be logged again."""
        for source in sources:
            key, _, sequence = source.rpartition(":")
            totals = self._totals.setdefault(key, Totals())
            totals.episodes = max(totals.episodes, int(sequence) + 1)

    @property
    def rows(self) -> int:
        """Agent steps of the run."""
        return sum(totals.rows for totals in list(self._totals.values()))

    @property
    def env_steps(self) -> int:
        """Simulator steps of the run."""
        return sum(totals.env_steps for totals in list(self._totals.values()))

    @property
    def episodes(self) -> int:
        """Finished episodes of the run."""
        return sum(totals.episodes for totals in list(self._totals.values()))

    def merge(self, other: Book) -> None:
        """Takes over the steps that `other` knows beyond this book.

        Not the episodes: those that were known but not logged shall be told once more.
        """
        for key, theirs in other._totals.items():
            mine = self._totals.setdefault(key, Totals())
            mine.rows = max(mine.rows, theirs.rows)
            mine.env_steps = max(mine.env_steps, theirs.env_steps)

    def to_json(self) -> dict[str, Any]:
        """The book as the trainer's checkpoint holds it."""
        return {key: dataclasses.asdict(totals) for key, totals in list(self._totals.items())}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Book:
        """Reads `to_json`'s form."""
        book = cls()
        book._totals = {key: Totals(**totals) for key, totals in value.items()}
        return book


@dataclasses.dataclass(frozen=True)
class RunState:
    """What the trainer tells everybody each second.

    Attributes:
        env_steps: Simulator steps of the run.
        rows: Agent steps of the run.
        train_step: Gradient steps.
        weights_incarnation: Of the weights published last.
        weights_train_step: Of the weights published last.
        time: When this was published, unix seconds.
        stop: Whether the run has ended.
    """

    env_steps: int
    rows: int
    train_step: int
    weights_incarnation: int
    weights_train_step: int
    time: float
    stop: bool = False

    def to_json(self) -> dict[str, Any]:
        """The message's content."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> RunState:
        """Reads a message; fields of a newer version are ignored."""
        names = {field.name for field in dataclasses.fields(cls)}
        return cls(**{name: v for name, v in value.items() if name in names})
