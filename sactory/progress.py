"""How far the run is: what collectors report, and the trainer's book of it.

A report carries totals of one incarnation (one start of one worker), never differences, so a lost
or repeated report does no harm. Pure bookkeeping: no tables, no clock.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from typing import Any

from sactory import messages
from sactory.curriculum.state import Played, State

_SOURCE = re.compile(r"(?P<key>\d{1,15}:\d{1,19}):(?P<sequence>\d{1,15})")


@dataclasses.dataclass(frozen=True)
class Episode:
    """A finished episode.

    Attributes:
        sequence: Its number within the worker's incarnation, from 0.
        episode_return: Undiscounted sum of rewards.
        length: Env steps.
        duration: Seconds.
        success: Whether the task was solved, where the environment says so.
        played: What of the curriculum it was played at, where there is one.
    """

    sequence: int
    episode_return: float
    length: int
    duration: float
    success: float | None = None
    played: Played | None = None

    def to_json(self) -> dict[str, Any]:
        """The episode as a report holds it."""
        value = {**vars(self), "played": self.played and self.played.to_json()}
        return _without_none(value, "played")


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
        "episodes": [episode.to_json() for episode in episodes],
    }


class Book:
    """The sum of what all workers have done. Part of the trainer's checkpoint.

    One thread adds while another reads; the reader iterates over copies.
    """

    def __init__(self) -> None:
        self._totals: dict[str, Totals] = {}
        self._sum = Totals()  # of all, for there may be thousands

    def add(self, record: dict[str, Any]) -> list[Entry]:
        """Enters one report.

        Returns:
            The episodes in it that were not known yet.

        Raises:
            ValueError: It is not what `report` makes; nothing of it is entered.
        """
        checked = messages.fields(
            record, ("worker", "incarnation", "rows", "env_steps", "episodes")
        )
        worker = messages.count(checked, "worker")
        incarnation = messages.count(checked, "incarnation", messages.INCARNATIONS_BELOW)
        rows, env_steps = messages.count(checked, "rows"), messages.count(checked, "env_steps")
        if not isinstance(checked["episodes"], list):
            raise ValueError(f"episodes is {messages.short(checked['episodes'])}, not a list")
        episodes = sorted(map(_episode, checked["episodes"]), key=lambda e: e.sequence)
        key = f"{worker}:{incarnation}"
        totals = self._raise(key, rows, env_steps)
        new = []
        for episode in episodes:
            if episode.sequence >= totals.episodes:
                self._raise(key, episodes=episode.sequence + 1)
                new.append(Entry(self.episodes, f"{key}:{episode.sequence}", episode))
        return new

    def add_logged(self, sources: Iterable[Any]) -> None:
        """Enters the episodes that a log holds already: they must not be logged again.

        Args:
            sources: Of the log's rows; what is none (a damaged line) is passed over.
        """
        for source in sources:
            match = _SOURCE.fullmatch(str(source))
            if match:
                self._raise(match["key"], episodes=int(match["sequence"]) + 1)

    @property
    def rows(self) -> int:
        """Agent steps of the run."""
        return self._sum.rows

    @property
    def env_steps(self) -> int:
        """Simulator steps of the run."""
        return self._sum.env_steps

    @property
    def episodes(self) -> int:
        """Finished episodes of the run."""
        return self._sum.episodes

    def _raise(self, key: str, rows: int = 0, env_steps: int = 0, episodes: int = 0) -> Totals:
        """Raises an incarnation's totals, and their sum, to at least these."""
        totals = self._totals.setdefault(key, Totals())
        for name, value in (("rows", rows), ("env_steps", env_steps), ("episodes", episodes)):
            more = value - getattr(totals, name)
            if more > 0:
                setattr(totals, name, value)
                setattr(self._sum, name, getattr(self._sum, name) + more)
        return totals

    def merge(self, other: Book) -> None:
        """Takes over the steps that `other` knows beyond this book.

        Not the episodes: those that were known but not logged shall be told once more.
        """
        for key, theirs in other._totals.items():
            self._raise(key, theirs.rows, theirs.env_steps)

    def to_json(self) -> dict[str, Any]:
        """The book as the trainer's checkpoint holds it."""
        return {key: dataclasses.asdict(totals) for key, totals in list(self._totals.items())}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Book:
        """Reads `to_json`'s form.

        Raises:
            ValueError: It is not of that form.
        """
        book, names = cls(), [field.name for field in dataclasses.fields(Totals)]
        for key, totals in value.items():
            checked = messages.fields(totals, names)
            book._raise(key, **{name: messages.count(checked, name) for name in names})
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
        curriculum: What parameters depend on now, where the run has a curriculum.
    """

    env_steps: int
    rows: int
    train_step: int
    weights_incarnation: int
    weights_train_step: int
    time: float
    stop: bool = False
    curriculum: State | None = None

    def to_json(self) -> dict[str, Any]:
        """The message's content."""
        value = {**vars(self), "curriculum": self.curriculum and self.curriculum.to_json()}
        return _without_none(value, "curriculum")

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> RunState:
        """Reads a message; fields of a newer version are ignored.

        Raises:
            ValueError: A field is missing, or isn't what `to_json` makes.
        """
        own = [field.name for field in dataclasses.fields(cls)]
        names = [name for name in own if name != "curriculum"]
        if not isinstance(value, dict):
            raise ValueError(f"{messages.short(value)} is not an object")
        known = {name: v for name, v in value.items() if name in own}
        checked = messages.fields(known, names, ["curriculum"])
        if not isinstance(checked["stop"], bool):
            raise ValueError(f"stop is {messages.short(checked['stop'])}, not true or false")
        counts = {n: messages.count(checked, n) for n in names if n not in ("time", "stop")}
        curriculum = checked.get("curriculum")
        return cls(
            **counts,
            time=messages.number(checked, "time"),
            stop=checked["stop"],
            curriculum=None if curriculum is None else State.from_json(curriculum),
        )

    @property
    def order(self) -> tuple[int, ...]:
        """What never goes back while trainers follow each other."""
        version = self.curriculum.version if self.curriculum else 0
        return (self.weights_incarnation, self.train_step, self.env_steps, self.rows, version)


def _episode(value: Any) -> Episode:
    names = [field.name for field in dataclasses.fields(Episode) if field.name != "played"]
    checked = messages.fields(value, names, ["played"])
    played = checked.get("played")
    return Episode(
        sequence=messages.count(checked, "sequence"),
        episode_return=messages.number(checked, "episode_return"),
        length=messages.count(checked, "length"),
        duration=messages.number(checked, "duration"),
        success=None if checked["success"] is None else messages.number(checked, "success"),
        played=None if played is None else Played.from_json(played),
    )


def _without_none(value: dict[str, Any], name: str) -> dict[str, Any]:
    """Leaves a field out that says nothing."""
    return {key: v for key, v in value.items() if key != name or v is not None}
