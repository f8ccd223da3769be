"""What travels between the coordinator and the workers: clocks, states, reports. JSON values only.

A state says everything that a parameter's value depends on, so whoever holds the same state and
the same generator draws the same values.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from sactory import messages

Axis = tuple[str, ...]
"""One thing that values depend on: a clock's name, `difficulty`, or `lessons` or `ranges` followed
by the parameter's name."""

CLOCKS = ("env_steps", "train_steps", "episodes")
TRAIN = "train"
EVAL = "eval"


@dataclasses.dataclass(frozen=True)
class Clock:
    """How far the run is.

    Attributes:
        env_steps: Simulator steps of the run, over all workers.
        train_steps: Gradient steps.
        episodes: Finished training episodes, over all workers.
        progress: Share of `run.max_env_steps` that is done, 0 to 1.
    """

    env_steps: int = 0
    train_steps: int = 0
    episodes: int = 0
    progress: float = 0.0


@dataclasses.dataclass(frozen=True)
class State:
    """The curriculum at one moment: what the coordinator publishes.

    Attributes:
        incarnation: The coordinator's start that published it; versions of two never compare.
        version: Grows by 1 with each change of the difficulty, a lesson or a range.
        env_steps: Simulator steps of the run.
        train_steps: Gradient steps.
        episodes: Finished training episodes.
        difficulty: 0 (easy) to 1 (hard).
        lessons: Name of the present lesson, by staged parameter.
        ranges: Present `(low, high)`, by parameter with automatic randomisation.
    """

    incarnation: int = 0
    version: int = 0
    env_steps: int = 0
    train_steps: int = 0
    episodes: int = 0
    difficulty: float = 0.0
    lessons: Mapping[str, str] = dataclasses.field(default_factory=dict)
    ranges: Mapping[str, tuple[float, float]] = dataclasses.field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The state as a message or a checkpoint holds it."""
        ranges = {name: list(ends) for name, ends in self.ranges.items()}
        return {**vars(self), "lessons": dict(self.lessons), "ranges": ranges}

    @classmethod
    def from_json(cls, value: Any) -> State:
        """Reads `to_json`'s form; fields of a newer version are ignored.

        Raises:
            ValueError: A field is missing, or isn't what `to_json` makes.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        if isinstance(value, dict):
            value = {name: v for name, v in value.items() if name in names}
        checked = messages.fields(value, names)
        lessons, ranges = checked["lessons"], checked["ranges"]
        if not isinstance(lessons, dict) or not all(isinstance(v, str) for v in lessons.values()):
            raise ValueError(f"lessons is {messages.short(lessons)}, not an object of names")
        if not isinstance(ranges, dict) or not all(map(_is_pair, ranges.values())):
            raise ValueError(f"ranges is {messages.short(ranges)}, not an object of ranges")
        return cls(
            **{name: messages.count(checked, name) for name in ("version", *CLOCKS)},
            incarnation=messages.count(checked, "incarnation", messages.INCARNATIONS_BELOW),
            difficulty=messages.number(checked, "difficulty"),
            lessons=lessons,
            ranges={name: (low, high) for name, (low, high) in ranges.items()},
        )

    def at(self, clock: Clock) -> State:
        """The same lesson at another time."""
        return dataclasses.replace(self, **{name: getattr(clock, name) for name in CLOCKS})

    def moved(self, axis: Axis, value: Any) -> State:
        """The state with one of the things changed that values depend on."""
        field = axis[0]
        if len(axis) > 1:
            value = {**getattr(self, field), axis[1]: value}
        return dataclasses.replace(self, **{field: value})


def scalar_of(info: Mapping[str, Any], name: str) -> float | None:
    """One scalar of what an environment tells of an episode; None if it tells no finite one."""
    try:
        value = float(info[name])
    except (KeyError, TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


def _is_pair(value: Any) -> bool:
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        return False
    ends = {"low": value[0], "high": value[1]}
    return messages.number(ends, "low") <= messages.number(ends, "high")


@dataclasses.dataclass(frozen=True)
class Played:
    """What of the curriculum an episode was played at, and what the environment measured in it.

    Attributes:
        incarnation: Of the state that the episode's reset applied.
        version: Likewise.
        probe: The end of an automatic range that was tried: (parameter, `low` or `high`).
        metrics: Scalars that the curriculum judges by, by name.
    """

    incarnation: int
    version: int
    probe: tuple[str, str] | None = None
    metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As a message holds it."""
        return {**vars(self), "metrics": dict(self.metrics), "probe": self.probe and [*self.probe]}

    @classmethod
    def from_json(cls, value: Any) -> Played:
        """Reads `to_json`'s form.

        Raises:
            ValueError: It is not of that form.
        """
        checked = messages.fields(value, [field.name for field in dataclasses.fields(cls)])
        probe = checked["probe"]
        if probe is not None:
            if not isinstance(probe, list) or [type(part) for part in probe] != [str, str]:
                raise ValueError(f"probe is {messages.short(probe)}, not a parameter and its end")
            probe = (probe[0], probe[1])
        return cls(
            incarnation=messages.count(checked, "incarnation", messages.INCARNATIONS_BELOW),
            version=messages.count(checked, "version"),
            probe=probe,
            metrics=messages.numbers(checked, "metrics"),
        )


@dataclasses.dataclass(frozen=True)
class Report:
    """A finished episode, as the coordinator counts it.

    Attributes:
        incarnation: Of the state that the episode's reset applied.
        version: Likewise.
        episode_return: Undiscounted sum of rewards.
        length: Env steps.
        success: 0 to 1; None where the environment doesn't say.
        metrics: Scalars that the environment lists, by name.
        source: `train` for an episode with exploration, `eval` for one of the greedy policy.
        probe: The end of an automatic range that was tried: (parameter, `low` or `high`).
    """

    incarnation: int
    version: int
    episode_return: float
    length: int
    success: float | None = None
    metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)
    source: str = TRAIN
    probe: tuple[str, str] | None = None

    @classmethod
    def of(
        cls,
        played: Played,
        episode_return: float,
        length: int,
        success: float | None,
        source: str = TRAIN,
    ) -> Report:
        """The report of an episode from what it was played at and how it ended."""
        return cls(
            played.incarnation,
            played.version,
            episode_return,
            length,
            success,
            played.metrics,
            source,
            played.probe,
        )

    def measured(self, measure: str) -> float | None:
        """One measure of the episode; None where it has no such measure."""
        own = {
            "success_rate": self.success,
            "return": self.episode_return,
            "episode_length": self.length,
        }
        value = own[measure] if measure in own else self.metrics.get(measure)
        return None if value is None else float(value)

    def to_json(self) -> dict[str, Any]:
        """The report as a message holds it."""
        return {**vars(self), "metrics": dict(self.metrics), "probe": self.probe and [*self.probe]}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Report:
        """Reads `to_json`'s form."""
        probe = value["probe"]
        return cls(**{**value, "probe": (probe[0], probe[1]) if probe else None})
