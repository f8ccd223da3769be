"""The one who decides: counts episodes and moves difficulty, lessons and ranges.

A pure state machine: no files, no tables, no clock of its own. It lives in the trainer, its state
in the trainer's checkpoint. The same reports give the same states, however they are batched.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from sactory.curriculum import measured
from sactory.curriculum.gauge import Gauge
from sactory.curriculum.measured import Adr, Combined, Condition, Measure, Stages
from sactory.curriculum.plan import SIDES, Curriculum
from sactory.curriculum.state import Clock, Report, State

End = tuple[str, str]
"""One end of an automatic range: the parameter, and `low` or `high`."""


class Coordinator:
    """Turns reports into the state that workers follow.

    Averages are over episodes that began at the present version: a change of the difficulty or of
    a lesson starts every average anew, a change of one end of an automatic range only that end's.

    Args:
        curriculum: What to follow.
        incarnation: A number that no other start of the coordinator had: reports of another are
            late, because their versions may have meant something else.
        saved: What `to_json` gave before a restart; None: the run begins.

    Attributes:
        state: As `update` returned it last.
        late_reports: Episodes that came too late to count, since this start.

    Raises:
        UserError: `saved` is of another curriculum.
    """

    def __init__(
        self,
        curriculum: Curriculum,
        incarnation: int = 0,
        saved: Mapping[str, Any] | None = None,
    ):
        self._curriculum = curriculum
        self._clock = Clock()
        self.late_reports = 0
        self.state = curriculum.initial_state(incarnation)
        self._start_averages()
        if saved is not None:
            self._restore(saved)

    def _restore(self, saved: Mapping[str, Any]) -> None:
        state = State.from_json(saved["state"])
        self._curriculum.check_state(state)
        self.state = dataclasses.replace(state, incarnation=self.state.incarnation)
        self._start_averages()
        self._since = saved["since"]
        for measure in self._gauges:
            self._gauges[measure] = Gauge.from_json(measure, saved["averages"][measure.key])
        for (param, side), gauge in self._ends.items():
            restored = Gauge.from_json(gauge.measure, saved["ends"][param][side])
            self._ends[param, side] = restored

    def to_json(self) -> dict[str, Any]:
        """What the trainer's checkpoint holds: a restart with it resumes the same lesson."""
        ends: dict[str, dict[str, Any]] = {}
        for (param, side), gauge in self._ends.items():
            ends.setdefault(param, {})[side] = gauge.to_json()
        averages = {measure.key: gauge.to_json() for measure, gauge in self._gauges.items()}
        state = self.state.to_json()
        return {"state": state, "since": self._since, "averages": averages, "ends": ends}

    def update(self, clock: Clock, reports: Iterable[Report] = ()) -> State:
        """Counts episodes, moves whatever is due, and returns the state to publish.

        Args:
            clock: How far the run is.
            reports: Episodes that were not reported before, in any batches.
        """
        self._clock = clock
        for report in reports:
            self._count(report)
            self._move()
        self._move()
        self.state = self.state.at(clock)
        return self.state

    def averages(self) -> dict[Measure, float]:
        """The averages that difficulty and lessons wait for, where enough episodes count."""
        known = {measure: gauge.average for measure, gauge in self._gauges.items()}
        return {measure: average for measure, average in known.items() if average is not None}

    def _count(self, report: Report) -> None:
        if report.incarnation != self.state.incarnation or report.version < self._since:
            self.late_reports += 1
            return
        for gauge in self._gauges.values():
            gauge.add(report)
        if report.probe in self._ends:
            self._ends[report.probe].add(report)

    def _start_averages(self) -> None:
        """Forgets what was counted, after a change that every average depends on."""
        self._since = version = self.state.version
        updown = self._curriculum.difficulty
        judged = [updown.measure] if updown else []
        for stages in self._curriculum.stages:
            lesson = stages.lesson(self.state)
            judged += measured.measures(lesson.until) + measured.measures(lesson.fallback)
        self._gauges = {measure: Gauge(measure, version) for measure in judged}
        self._ends: dict[End, Gauge] = {
            (adr.param, side): Gauge(adr.measure, version)
            for adr in self._curriculum.adrs
            for side in SIDES
        }

    def _move(self) -> None:
        """Makes every change that is due.

        It ends: averages start anew with each change, and by clocks alone lessons only advance.
        """
        while self._move_difficulty() or any(map(self._move_lesson, self._curriculum.stages)):
            self._start_averages()
        for adr in self._curriculum.adrs:
            for side in SIDES:
                self._move_range(adr, side)

    def _move_difficulty(self) -> bool:
        updown = self._curriculum.difficulty
        average = self._gauges[updown.measure].average if updown else None
        if updown is None or average is None:
            return False
        return self._change(difficulty=updown.moved(self.state.difficulty, average))

    def _move_lesson(self, stages: Stages) -> bool:
        lesson = stages.lesson(self.state)
        i = stages.names.index(lesson.name)
        if self._holds(lesson.until):
            i += 1
        elif self._holds(lesson.fallback):
            i -= 1
        return self._change(lessons={**self.state.lessons, stages.param: stages.names[i]})

    def _move_range(self, adr: Adr, side: str) -> None:
        gauge = self._ends[adr.param, side]
        if gauge.average is None:
            return
        ends = adr.moved(self.state.ranges[adr.param], side, gauge.average)
        changed = self._change(ranges={**self.state.ranges, adr.param: ends})
        since = self.state.version if changed else gauge.since
        self._ends[adr.param, side] = Gauge(adr.measure, since)

    def _change(self, **fields: Any) -> bool:
        """Replaces fields of the state; the version grows if that makes a difference."""
        changed = dataclasses.replace(self.state, **fields)
        if changed == self.state:
            return False
        self.state = dataclasses.replace(changed, version=self.state.version + 1)
        return True

    def _holds(self, condition: Condition | None) -> bool:
        if condition is None:
            return False
        if isinstance(condition, Combined):
            return (all if condition.every else any)(map(self._holds, condition.parts))
        if isinstance(condition.of, Measure):
            return condition.holds(self._gauges[condition.of].average)
        return condition.holds(condition.of.read(self._clock))


def changes(before: State, after: State) -> list[str]:
    """What moved between two states, one line each, for the log."""
    lines = []
    if after.difficulty != before.difficulty:
        lines.append(f"difficulty {before.difficulty:g} -> {after.difficulty:g}")
    for param, lesson in after.lessons.items():
        if lesson != before.lessons.get(param, lesson):
            lines.append(f"{param}: lesson {before.lessons[param]} -> {lesson}")
    for param, (low, high) in after.ranges.items():
        old = before.ranges.get(param, (low, high))
        if (low, high) != old:
            lines.append(f"{param}: range [{old[0]:g}, {old[1]:g}] -> [{low:g}, {high:g}]")
    return lines
