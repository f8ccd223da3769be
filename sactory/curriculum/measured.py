"""What moves by measured success: difficulty, staged lessons, automatic ranges. Descriptions only.

When they move is `coordinator`'s business; here stands what the file asks for, and what a
parameter's value is at the present lesson or range.
"""

from __future__ import annotations

import dataclasses
import operator
from typing import Any, Union

import numpy as np

from sactory.curriculum.choices import join
from sactory.curriculum.state import TRAIN, Axis, State
from sactory.curriculum.values import Node, Span, Timeline, show, typed

OPERATORS = {">=": operator.ge, ">": operator.gt, "<=": operator.le, "<": operator.lt}


@dataclasses.dataclass(frozen=True)
class Measure:
    """An average over the latest episodes.

    Attributes:
        name: `success_rate`, `return`, `episode_length` or a metric of the environment.
        window: Episodes that are averaged.
        min_episodes: Episodes that must have been counted since the last change.
        smoothing: Share of the earlier average that stays in it at each episode (0: none).
        source: `train`: episodes with exploration; `eval`: those of the greedy policy.
    """

    name: str
    window: int
    min_episodes: int
    smoothing: float = 0.0
    source: str = TRAIN

    @property
    def key(self) -> str:
        """Names the measure in a checkpoint: equal ones see the same episodes."""
        return ":".join(map(str, dataclasses.astuple(self)))


@dataclasses.dataclass(frozen=True)
class Reached:
    """A condition on one measure or clock.

    Attributes:
        of: A measure, or a clock.
        op: One of `OPERATORS`.
        threshold: In the unit of the measure or clock.
    """

    of: Union[Measure, Timeline]
    op: str
    threshold: float

    def holds(self, value: float | None) -> bool:
        """Whether a value meets the condition; none doesn't."""
        return value is not None and OPERATORS[self.op](value, self.threshold)


@dataclasses.dataclass(frozen=True)
class Combined:
    """All, or any, of several conditions."""

    every: bool
    parts: tuple[Condition, ...]


Condition = Union[Reached, Combined]


def measures(condition: Condition | None) -> list[Measure]:
    """The measures in a condition, from left to right."""
    if isinstance(condition, Combined):
        return [measure for part in condition.parts for measure in measures(part)]
    found = condition.of if isinstance(condition, Reached) else None
    return [found] if isinstance(found, Measure) else []


def needs_measure(condition: Condition) -> bool:
    """Whether clocks alone can't make a condition true."""
    if isinstance(condition, Reached):
        return isinstance(condition.of, Measure)
    return (any if condition.every else all)(map(needs_measure, condition.parts))


@dataclasses.dataclass(frozen=True)
class UpDown:
    """The shared difficulty, 0 to 1: up when the measure is high enough, down when it is too low.

    Attributes:
        init: At the start.
        measure: What is averaged.
        up: The difficulty grows where the average is at least this.
        down: It shrinks where the average is below this.
        step_up: Growth.
        step_down: Shrinkage.
    """

    measure: Measure
    init: float
    up: float
    down: float
    step_up: float
    step_down: float

    def moved(self, difficulty: float, average: float) -> float:
        """The difficulty after an average was reached."""
        if average >= self.up:
            difficulty += self.step_up
        elif average < self.down:
            difficulty -= self.step_down
        return min(max(round(difficulty, 9), 0.0), 1.0)  # steps of 0.1 end at 1, not beside it


@dataclasses.dataclass(frozen=True)
class Lesson:
    """One lesson of a staged parameter.

    Attributes:
        name: In states, logs and commands.
        value: What the parameter is meanwhile.
        until: When the next lesson begins; None for the last.
        fallback: When the lesson before begins again; None: never.
    """

    name: str
    value: Node
    until: Condition | None
    fallback: Condition | None


@dataclasses.dataclass(frozen=True)
class Stages(Node):
    """A parameter that goes through lessons."""

    param: str
    lessons: tuple[Lesson, ...]
    kind: str
    shape: tuple[int, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Of the lessons, in their order."""
        return tuple(lesson.name for lesson in self.lessons)

    def lesson(self, state: State) -> Lesson:
        """The present lesson."""
        return self.lessons[self.names.index(state.lessons[self.param])]

    def children(self) -> tuple[Node, ...]:
        """The lessons' values."""
        return tuple(lesson.value for lesson in self.lessons)

    def own_axes(self) -> dict[Axis, list[Any]]:
        """The lessons."""
        return {("lessons", self.param): list(self.names)}

    def draw(self, state: State, generator: np.random.Generator) -> Any:
        """Draws from the present lesson."""
        return typed(self.lesson(state).value.draw(state, generator), self.kind)

    def span(self, state: State, sigmas: float = np.inf) -> Span:
        """Of the present lesson."""
        return join([self.lesson(state).value.span(state, sigmas)])

    def text(self, state: State) -> str:
        """Of the present lesson."""
        return self.lesson(state).value.text(state)


@dataclasses.dataclass(frozen=True)
class Adr(Node):
    """Automatic domain randomisation (arXiv 1910.07113): uniform over a range that grows by itself.

    Attributes:
        param: The parameter.
        init: The range at the start, and the smallest one.
        limits: The largest range.
        delta: How far an end moves at once.
        boundary_p: How often an end is tried, if this is the parameter whose turn it is.
        high: An end moves outwards where the average of its tries is at least this.
        low: It moves back where their average is below this.
        measure: What the tries are judged by; its window is the number of tries.
    """

    param: str
    init: tuple[float, float]
    limits: tuple[float, float]
    delta: float
    boundary_p: float
    low: float
    high: float
    measure: Measure
    kind = "float"
    shape = ()

    def own_axes(self) -> dict[Axis, list[Any]]:
        """The range, narrowest and widest."""
        return {("ranges", self.param): [self.init, self.limits]}

    def draw(self, state: State, generator: np.random.Generator) -> float:
        """Draws from the present range."""
        low, high = state.ranges[self.param]
        return float(np.clip(low + (high - low) * generator.random(), low, high))

    def span(self, state: State, sigmas: float = np.inf) -> Span:
        """The present range."""
        low, high = state.ranges[self.param]
        return np.asarray(low), np.asarray(high)

    def text(self, state: State) -> str:
        """For example `adr(0.95, 1.05)`."""
        low, high = state.ranges[self.param]
        return f"adr({show(low)}, {show(high)})"

    def moved(self, ends: tuple[float, float], side: str, average: float) -> tuple[float, float]:
        """The range after the tries at one end reached an average."""
        outwards = (average >= self.high) - (average < self.low)
        low, high = ends
        if side == "low":
            low = _within(low - outwards * self.delta, self.limits[0], self.init[0])
        else:
            high = _within(high + outwards * self.delta, self.init[1], self.limits[1])
        return low, high


def _within(value: float, low: float, high: float) -> float:
    return min(max(round(value, 12), low), high)  # 0.1 + 0.2 is 0.3 in a log
