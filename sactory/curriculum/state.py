"""What travels between the coordinator and the workers: clocks, states, reports. JSON values only.

A state says everything that a parameter's value depends on, so whoever holds the same state and
the same generator draws the same values.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

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
    def from_json(cls, value: Mapping[str, Any]) -> State:
        """Reads `to_json`'s form; fields of a newer version are ignored."""
        names = {field.name for field in dataclasses.fields(cls)}
        known = {name: v for name, v in value.items() if name in names}
        ranges = {name: (low, high) for name, (low, high) in known.pop("ranges", {}).items()}
        return cls(**known, ranges=ranges)

    def at(self, clock: Clock) -> State:
        """The same lesson at another time."""
        return dataclasses.replace(self, **{name: getattr(clock, name) for name in CLOCKS})

    def moved(self, axis: Axis, value: Any) -> State:
        """The state with one of the things changed that values depend on."""
        field = axis[0]
        if len(axis) > 1:
            value = {**getattr(self, field), axis[1]: value}
        return dataclasses.replace(self, **{field: value})


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
