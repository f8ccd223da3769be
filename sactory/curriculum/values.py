"""Values that a state alone decides: fixed, scheduled, interpolated. No randomness, no parsing.

In the shape descriptions, `S` is a parameter's shape: `()` for a number.
"""

from __future__ import annotations

import bisect
import dataclasses
import itertools
import json
from collections.abc import Iterator
from typing import Any, Optional, Union

import numpy as np

from sactory.curriculum.state import Axis, Clock, State

UNSET = object()
"""In the place of a value: the environment keeps its own."""

NUMERIC = ("int", "float")

INNER_POINTS = (0, 15, 3, 1, 0)
"""Points looked at between two of an axis, by how many axes there are."""

Span = Optional[tuple[np.ndarray, np.ndarray]]


class Node:
    """Where a parameter's value, or a part of it, comes from.

    Attributes:
        kind: Type of the value's numbers: `int`, `float`, `str` or `bool`.
        shape: S, shape of the value.
    """

    kind: str
    shape: tuple[int, ...]

    def draw(self, state: State, generator: np.random.Generator) -> Any:
        """One value: a JSON scalar, or nested lists of shape S; `UNSET`: the environment's own."""
        raise NotImplementedError

    def span(self, state: State, sigmas: float = np.inf) -> Span:
        """Lowest and highest value [S] at a state; None where there are no numbers.

        Args:
            state: The state.
            sigmas: Normal distributions count up to this many standard deviations.
        """
        raise NotImplementedError

    def text(self, state: State) -> str:
        """The value or its distribution at a state, in one line."""
        raise NotImplementedError

    def children(self) -> tuple[Node, ...]:
        """The nodes that this one is made of."""
        return ()

    def own_axes(self) -> dict[Axis, list[Any]]:
        """What this node itself depends on, with the values at which that bends, last hardest."""
        return {}

    def problem(self, state: State) -> tuple[str, str] | None:
        """The key that makes the node useless at a state, and what would be right."""
        return None


def walk(node: Node) -> Iterator[Node]:
    """A node and all that it is made of."""
    yield node
    for child in node.children():
        yield from walk(child)


def axes(node: Node) -> dict[Axis, list[Any]]:
    """What a node depends on, with all values at which it may bend."""
    found: dict[Axis, list[Any]] = {}
    for part in walk(node):
        for axis, points in part.own_axes().items():
            known = found.setdefault(axis, [])
            known += [point for point in points if point not in known]
            if isinstance(known[0], (int, float)):
                known.sort()
    return found


def corners(node: Node, start: State) -> Iterator[State]:
    """States that show a node's extremes: every combination of the values where it bends.

    Between them each of its numbers is monotone, but two that meet on one axis may have different
    curves. So numeric axes are looked at more closely, the fewer there are the more.
    """
    found = axes(node)
    numeric = [p for p in found.values() if len(p) > 1 and isinstance(p[0], (int, float))]
    inner = INNER_POINTS[min(len(numeric), len(INNER_POINTS) - 1)]
    points = [_refined(p, inner) if p in numeric else p for p in found.values()]
    for combination in itertools.product(*points):
        state = start
        for axis, value in zip(found, combination):
            state = state.moved(axis, value)
        yield state


def _refined(points: list[float], inner: int) -> list[float]:
    parts = [np.linspace(a, b, inner + 1, endpoint=False) for a, b in zip(points, points[1:])]
    return [*np.concatenate([*parts, points[-1:]]).tolist()]


def show(value: Any) -> str:
    """A plain value as JSON, without the noise of floating point."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(show(v) for v in value)}]"
    if isinstance(value, float) and np.isfinite(value):
        value = float(f"{value:.12g}")
    return json.dumps(value)


def to_plain(value: Any, kind: str) -> Any:
    """Numbers [S] as a Python number or nested lists; an `int` is the nearest one."""
    array = np.asarray(value, np.float64)
    return (np.rint(array).astype(np.int64) if kind == "int" else array).tolist()


def typed(value: Any, kind: str) -> Any:
    """A drawn value as its kind: a float where the parameter has floats; no change of words."""
    return to_plain(value, kind) if kind in NUMERIC else value


class Value(Node):
    """A node that a state alone decides."""

    def at(self, state: State) -> Any:
        """The value at a state."""
        raise NotImplementedError

    def draw(self, state: State, generator: np.random.Generator) -> Any:
        """The value at a state; takes nothing from the generator."""
        return self.at(state)

    def span(self, state: State, sigmas: float = np.inf) -> Span:
        """The value twice."""
        value = self.at(state)
        if value is UNSET or self.kind not in NUMERIC:
            return None
        return np.asarray(value, np.float64), np.asarray(value, np.float64)

    def text(self, state: State) -> str:
        """The value."""
        value = self.at(state)
        return "default" if value is UNSET else show(value)


@dataclasses.dataclass(frozen=True)
class Fixed(Value):
    """The same value all the time."""

    value: Any
    kind: str
    shape: tuple[int, ...] = ()

    def at(self, state: State) -> Any:
        """The value."""
        return self.value


@dataclasses.dataclass(frozen=True)
class Timeline:
    """A clock as schedules and conditions read it.

    Attributes:
        name: As the file names it.
        field: The field of a state or clock that it is read from.
        unit: This many steps of the field are one of the clock's, begun ones not counted.
    """

    name: str
    field: str
    unit: int = 1

    def read(self, now: Union[State, Clock]) -> float:
        """What the clock shows."""
        steps = getattr(now, self.field)
        return steps if self.unit == 1 else steps // self.unit


@dataclasses.dataclass(frozen=True)
class Schedule(Value):
    """A value that follows a clock; before the first and after the last point it stands still.

    Attributes:
        curve: `step`, `linear`, `cosine` or `exp`, from each point to the next.
        timeline: The clock.
        times: Of the points, ascending, in the clock's units.
        values: Of the points, each of shape S.
        begins: Whether there is no value before the first point.
    """

    curve: str
    timeline: Timeline
    times: tuple[float, ...]
    values: tuple[Any, ...]
    kind: str
    shape: tuple[int, ...] = ()
    begins: bool = False

    def at(self, state: State) -> Any:
        """The value at the state's time."""
        time = self.timeline.read(state)
        i = bisect.bisect_right(self.times, time) - 1
        if i < 0 and self.begins:
            return UNSET
        here = self.values[max(i, 0)]
        if i < 0 or self.curve == "step" or i + 1 == len(self.times):
            return typed(here, self.kind)
        share = (time - self.times[i]) / (self.times[i + 1] - self.times[i])
        a, b = np.asarray(here, np.float64), np.asarray(self.values[i + 1], np.float64)
        if self.curve == "exp":
            return to_plain(a * (b / a) ** share, self.kind)
        if self.curve == "cosine":
            share = (1 - np.cos(np.pi * share)) / 2
        return to_plain(a + (b - a) * share, self.kind)

    def own_axes(self) -> dict[Axis, list[Any]]:
        """The clock's field, at the points."""
        return {(self.timeline.field,): [t * self.timeline.unit for t in self.times]}


@dataclasses.dataclass(frozen=True)
class Lerp(Value):
    """A value between two, by the difficulty or by how far a staged parameter's lessons are.

    Attributes:
        first: The easy end, of shape S.
        last: The hard end.
        lessons: Names of the lessons it follows, in their order; empty: it follows the difficulty.
        of: The staged parameter, or `difficulty`.
    """

    first: Any
    last: Any
    kind: str
    shape: tuple[int, ...] = ()
    of: str = "difficulty"
    lessons: tuple[str, ...] = ()

    def at(self, state: State) -> Any:
        """The value at the state's difficulty or lesson."""
        share = state.difficulty
        if self.lessons:
            share = self.lessons.index(state.lessons[self.of]) / max(len(self.lessons) - 1, 1)
        a, b = np.asarray(self.first, np.float64), np.asarray(self.last, np.float64)
        return to_plain(a * (1 - share) + b * share, self.kind)

    def own_axes(self) -> dict[Axis, list[Any]]:
        """The difficulty, or the lessons."""
        if self.lessons:
            return {("lessons", self.of): list(self.lessons)}
        return {("difficulty",): [0.0, 1.0]}
