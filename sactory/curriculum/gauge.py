"""One average that decides something: which episodes count, and what they come to."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from sactory.curriculum.measured import Measure
from sactory.curriculum.state import Report


@dataclasses.dataclass
class Gauge:
    """A measure's latest episodes since the last change.

    Attributes:
        measure: What is averaged.
        since: Episodes of an earlier version of the curriculum don't count.
        count: Episodes counted.
        window: The latest values, at most `measure.window`.
        smoothed: The smoothed average; None before the first judgement.
    """

    measure: Measure
    since: int
    count: int = 0
    window: list[float] = dataclasses.field(default_factory=list)
    smoothed: float | None = None

    def add(self, report: Report) -> None:
        """Counts an episode if it is of this measure's source and recent enough."""
        value = report.measured(self.measure.name)
        if value is None or not math.isfinite(value) or report.version < self.since:
            return
        if report.source != self.measure.source:
            return
        self.count += 1
        self.window = [*self.window, value][-self.measure.window :]
        if self.count >= self.measure.min_episodes:
            mean = math.fsum(self.window) / len(self.window)
            kept = self.measure.smoothing if self.smoothed is not None else 0.0
            self.smoothed = kept * (self.smoothed or 0.0) + (1 - kept) * mean

    @property
    def average(self) -> float | None:
        """The average; None while too few episodes count."""
        return self.smoothed

    def to_json(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {
            "since": self.since,
            "count": self.count,
            "window": self.window,
            "smoothed": self.smoothed,
        }

    @classmethod
    def from_json(cls, measure: Measure, value: Mapping[str, Any]) -> Gauge:
        """Reads `to_json`'s form."""
        return cls(measure, value["since"], value["count"], [*value["window"]], value["smoothed"])
