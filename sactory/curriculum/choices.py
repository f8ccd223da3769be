"""Values drawn from several possibilities: listed ones, intervals, other distributions."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from sactory.curriculum.samplers import numbers, ordered
from sactory.curriculum.state import State
from sactory.curriculum.values import NUMERIC, Node, Span, Value, show, typed


def weights_at(weights: tuple[Value, ...], count: int, state: State) -> np.ndarray:
    """The probability of each of `count` possibilities; without weights all are equally likely."""
    if not weights:
        return np.full(count, 1 / count)
    raw = np.array([weight.at(state) for weight in weights], np.float64)
    return raw / raw.sum()


def weights_problem(weights: tuple[Value, ...], state: State) -> tuple[str, str] | None:
    """A `problem` of weights."""
    raw = [float(weight.at(state)) for weight in weights]
    for i, weight in enumerate(raw):
        if weight < 0:
            return f"weights[{i}]", f"is {show(weight)}: must be at least 0"
    if raw and not sum(raw) > 0:
        return "weights", "are all 0: one must be above 0"
    return None


def join(spans: list[Span]) -> Span:
    """The span of several nodes; None if one of them has no numbers."""
    known = [span for span in spans if span is not None]
    if len(known) < len(spans):
        return None
    lows, highs = zip(*known)
    return np.min(lows, axis=0), np.max(highs, axis=0)


@dataclasses.dataclass(frozen=True)
class Choice(Node):
    """One of the listed values.

    Attributes:
        values: Plain values of one kind and shape.
        weights: As many, in any unit; none: all are equally likely.
    """

    values: tuple[Any, ...]
    weights: tuple[Value, ...]
    kind: str
    shape: tuple[int, ...] = ()

    def children(self) -> tuple[Node, ...]:
        """The weights."""
        return self.weights

    def draw(self, state: State, generator: np.random.Generator) -> Any:
        """Draws one of the values."""
        p = weights_at(self.weights, len(self.values), state)
        return typed(self.values[generator.choice(len(p), p=p)], self.kind)

    def span(self, state: State, sigmas: float = np.inf) -> Span:
        """The smallest and the largest value that can come."""
        if self.kind not in NUMERIC:
            return None
        p = weights_at(self.weights, len(self.values), state)
        possible = [np.asarray(v, np.float64) for v, w in zip(self.values, p) if w > 0]
        return np.min(possible, axis=0), np.max(possible, axis=0)

    def text(self, state: State) -> str:
        """For example `choice("box" 0.5, "cylinder" 0.5)`."""
        p = weights_at(self.weights, len(self.values), state).tolist()
        return f"choice({', '.join(f'{show(v)} {show(w)}' for v, w in zip(self.values, p))})"

    def problem(self, state: State) -> tuple[str, str] | None:
        """Weights must be probabilities."""
        return weights_problem(self.weights, state)


@dataclasses.dataclass(frozen=True)
class MultiRange(Node):
    """Uniform over several intervals together, each as likely as it is long."""

    intervals: tuple[tuple[Value, Value], ...]
    kind: str = "float"
    shape: tuple[int, ...] = ()

    def children(self) -> tuple[Node, ...]:
        """All bounds."""
        return tuple(bound for interval in self.intervals for bound in interval)

    def _bounds(self, state: State) -> np.ndarray:
        """The intervals [number of intervals, 2]."""
        return np.array([[numbers(bound, state) for bound in pair] for pair in self.intervals])

    def draw(self, state: State, generator: np.random.Generator) -> float:
        """Draws one number."""
        bounds = self._bounds(state)
        lengths = np.maximum(bounds[:, 1] - bounds[:, 0], 0)
        # Intervals without any length are points: all are equally likely.
        p = lengths / lengths.sum() if lengths.sum() > 0 else np.full(len(bounds), 1 / len(bounds))
        low, high = bounds[generator.choice(len(p), p=p)]
        return float(np.clip(low + (high - low) * generator.random(), low, high))

    def span(self, state: State, sigmas: float = np.inf) -> Span:
        """From the lowest bound to the highest."""
        bounds = self._bounds(state)
        return np.min(bounds), np.max(bounds)

    def text(self, state: State) -> str:
        """For example `multirange([-0.2, -0.1], [0.1, 0.2])`."""
        return f"multirange({', '.join(show(pair) for pair in self._bounds(state))})"

    def problem(self, state: State) -> tuple[str, str] | None:
        """Each interval must be in order."""
        for i, (low, high) in enumerate(self._bounds(state)):
            found = ordered(f"intervals[{i}][0]", low, f"intervals[{i}][1]", high)
            if found is not None:
                return found
        return None


@dataclasses.dataclass(frozen=True)
class Mixture(Node):
    """One of several distributions, drawn anew each time.

    Attributes:
        parts: The distributions or values, of one shape.
        weights: As many, in any unit; none: all are equally likely.
    """

    parts: tuple[Node, ...]
    weights: tuple[Value, ...]
    kind: str
    shape: tuple[int, ...] = ()

    def children(self) -> tuple[Node, ...]:
        """The parts and their weights."""
        return (*self.parts, *self.weights)

    def draw(self, state: State, generator: np.random.Generator) -> Any:
        """Draws from one of the parts."""
        p = weights_at(self.weights, len(self.parts), state)
        return typed(self.parts[generator.choice(len(p), p=p)].draw(state, generator), self.kind)

    def span(self, state: State, sigmas: float = np.inf) -> Span:
        """Of all parts that can come."""
        p = weights_at(self.weights, len(self.parts), state)
        return join([part.span(state, sigmas) for part, w in zip(self.parts, p) if w > 0])

    def text(self, state: State) -> str:
        """For example `mixture(0.2 uniform(-0.02, 0.0), 0.8 uniform(0.01, 0.04))`."""
        p = weights_at(self.weights, len(self.parts), state).tolist()
        parts = (f"{show(w)} {part.text(state)}" for part, w in zip(self.parts, p))
        return f"mixture({', '.join(parts)})"

    def problem(self, state: State) -> tuple[str, str] | None:
        """Weights must be probabilities."""
        return weights_problem(self.weights, state)
