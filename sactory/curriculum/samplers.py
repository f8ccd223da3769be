"""Values drawn at random at each reset: distributions whose bounds may follow the curriculum.

In the shape descriptions, `S` is a parameter's shape: `()` for a number. A vector's elements are
drawn independently.
"""

from __future__ import annotations

import dataclasses
from statistics import NormalDist
from typing import Any

import numpy as np

from sactory.curriculum.state import State
from sactory.curriculum.values import Node, Span, Value, show, to_plain

_SMALLEST = 1e-300  # a quantile is finite from here
_STANDARD = NormalDist()


def numbers(value: Value, state: State) -> np.ndarray:
    """A bound at a state, [S] or one that S broadcasts from."""
    return np.asarray(value.at(state), np.float64)


class Sampler(Node):
    """A distribution over numbers; the value's type is float unless the class says otherwise."""

    kind = "float"


@dataclasses.dataclass(frozen=True)
class Uniform(Sampler):
    """Every number from `low` to `high` is equally likely."""

    low: Value
    high: Value
    shape: tuple[int, ...] = ()
    label = "uniform"

    def children(self) -> tuple[Node, ...]:
        """The bounds."""
        return self.low, self.high

    def bounds(self, state: State) -> tuple[np.ndarray, np.ndarray]:
        """Both bounds at a state."""
        return numbers(self.low, state), numbers(self.high, state)

    def draw(self, state: State, generator: np.random.Generator) -> Any:
        """Draws one value [S]."""
        low, high = self.bounds(state)
        drawn = low + (high - low) * generator.random(self.shape)
        return to_plain(np.clip(drawn, low, high), self.kind)

    def span(self, state: State, sigmas: float = np.inf) -> Span:
        """Both bounds."""
        low, high = self.bounds(state)
        return np.broadcast_to(low, self.shape), np.broadcast_to(high, self.shape)

    def text(self, state: State) -> str:
        """For example `uniform(0.1, 0.4)`."""
        low, high = self.bounds(state)
        return f"{self.label}({show(low)}, {show(high)})"

    def problem(self, state: State) -> tuple[str, str] | None:
        """The bounds must be in order."""
        low, high = self.bounds(state)
        return ordered("low", low, "high", high)


class LogUniform(Uniform):
    """The logarithm is uniform from that of `low` to that of `high`."""

    label = "log_uniform"

    def draw(self, state: State, generator: np.random.Generator) -> Any:
        """Draws one value [S]."""
        low, high = self.bounds(state)
        drawn = low * (high / low) ** generator.random(self.shape)
        return to_plain(np.clip(drawn, low, high), self.kind)

    def problem(self, state: State) -> tuple[str, str] | None:
        """The bounds must be positive and in order."""
        low, _ = self.bounds(state)
        if np.min(low) <= 0:
            return "low", f"is {show(low)}: must be above 0, for its logarithm"
        return super().problem(state)


class IntUniform(Uniform):
    """Every integer from `low` to `high`, both included; bounds in between are rounded."""

    kind = "int"
    label = "int_uniform"

    def bounds(self, state: State) -> tuple[np.ndarray, np.ndarray]:
        """Both bounds at a state, as whole numbers."""
        low, high = super().bounds(state)
        return np.rint(low), np.rint(high)

    def draw(self, state: State, generator: np.random.Generator) -> Any:
        """Draws one value [S]."""
        low, high = self.bounds(state)
        drawn = low + np.floor((high - low + 1) * generator.random(self.shape))
        return to_plain(np.clip(drawn, low, high), self.kind)

    def text(self, state: State) -> str:
        """For example `int_uniform(7, 12)`."""
        low, high = (to_plain(bound, "int") for bound in self.bounds(state))
        return f"{self.label}({show(low)}, {show(high)})"


@dataclasses.dataclass(frozen=True)
class Normal(Sampler):
    """A normal distribution; values beyond `clip` become its nearest end."""

    mean: Value
    std: Value
    clip: tuple[Value, Value] | None = None
    shape: tuple[int, ...] = ()

    def children(self) -> tuple[Node, ...]:
        """Mean, deviation and clip."""
        return (self.mean, self.std, *(self.clip or ()))

    def draw(self, state: State, generator: np.random.Generator) -> Any:
        """Draws one value [S]."""
        drawn = generator.standard_normal(self.shape) * numbers(self.std, state)
        return to_plain(self._clipped(drawn + numbers(self.mean, state), state), self.kind)

    def _clipped(self, value: np.ndarray, state: State) -> np.ndarray:
        if self.clip is None:
            return value
        return np.clip(value, numbers(self.clip[0], state), numbers(self.clip[1], state))

    def span(self, state: State, sigmas: float = np.inf) -> Span:
        """Up to `sigmas` standard deviations around the mean, within the clip."""
        mean, std = numbers(self.mean, state), numbers(self.std, state)
        reach = np.where(std > 0, sigmas * np.where(std > 0, std, 1), 0)
        low, high = self._clipped(mean - reach, state), self._clipped(mean + reach, state)
        return np.broadcast_to(low, self.shape), np.broadcast_to(high, self.shape)

    def text(self, state: State) -> str:
        """For example `normal(0.0, 0.5) in [-1.5, 1.5]`."""
        text = f"normal({self.mean.text(state)}, {self.std.text(state)})"
        if self.clip is not None:
            text += f" in [{self.clip[0].text(state)}, {self.clip[1].text(state)}]"
        return text

    def problem(self, state: State) -> tuple[str, str] | None:
        """The deviation must not be negative, the clip in order."""
        if np.min(numbers(self.std, state)) < 0:
            return "std", f"is {self.std.text(state)}: must be at least 0"
        if self.clip is None:
            return None
        low, high = (numbers(end, state) for end in self.clip)
        return ordered("clip[0]", low, "clip[1]", high)


@dataclasses.dataclass(frozen=True)
class TruncatedNormal(Sampler):
    """A normal distribution restricted to `low` .. `high`: nothing piles up at the ends."""

    mean: Value
    std: Value
    low: Value
    high: Value
    shape: tuple[int, ...] = ()

    def children(self) -> tuple[Value, ...]:
        """Mean, deviation and bounds."""
        return self.mean, self.std, self.low, self.high

    def draw(self, state: State, generator: np.random.Generator) -> Any:
        """Draws one value [S] by the inverse of the distribution function."""
        parameters = [numbers(node, state) for node in self.children()]
        share = generator.random(self.shape)
        drawn = np.vectorize(_truncated_quantile, otypes=[float])(share, *parameters)
        return to_plain(drawn, self.kind)

    def span(self, state: State, sigmas: float = np.inf) -> Span:
        """Up to `sigmas` standard deviations around the mean, within the bounds."""
        mean, std, low, high = (numbers(node, state) for node in self.children())
        ends = np.clip(mean - sigmas * std, low, high), np.clip(mean + sigmas * std, low, high)
        return np.broadcast_to(ends[0], self.shape), np.broadcast_to(ends[1], self.shape)

    def text(self, state: State) -> str:
        """For example `truncated_normal(1.0, 0.1) in [0.8, 1.2]`."""
        mean, std, low, high = (node.text(state) for node in self.children())
        return f"truncated_normal({mean}, {std}) in [{low}, {high}]"

    def problem(self, state: State) -> tuple[str, str] | None:
        """The deviation must be positive, the bounds in order."""
        if np.min(numbers(self.std, state)) <= 0:
            return "std", f"is {self.std.text(state)}: must be above 0"
        return ordered("low", numbers(self.low, state), "high", numbers(self.high, state))


def _truncated_quantile(share: float, mean: float, std: float, low: float, high: float) -> float:
    """The value below which a `share` of the truncated distribution lies."""
    a, b = (low - mean) / std, (high - mean) / std
    flip = a > 0  # the distribution function is precise in its lower tail only
    if flip:
        a, b = -b, -a
    below_a, below_b = _STANDARD.cdf(a), _STANDARD.cdf(b)
    quantile = below_a + (below_b - below_a) * (1 - share if flip else share)
    z = _STANDARD.inv_cdf(min(max(quantile, _SMALLEST), 1 - 1e-16))
    return min(max(mean + std * (-z if flip else z), low), high)


def ordered(
    low_key: str, low: np.ndarray, high_key: str, high: np.ndarray
) -> tuple[str, str] | None:
    """A `problem` if some lower bound is above its upper one."""
    if np.all(low <= high):
        return None
    return low_key, f"is {show(low)}: must not be above {high_key}, which is {show(high)}"
