"""The trainer's part in the curriculum: counts reported episodes, keeps and tells what moves.

What decides is `sactory.curriculum.Coordinator`; here are its files, logs and clocks. A run without
a curriculum has `Lessons`, too, which do nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from typing import Any

import numpy as np
from absl import logging

from sactory import sealed, settings
from sactory.curriculum import Clock, Coordinator, Curriculum, Report, State, changes
from sactory.curriculum.binding import load_for_run
from sactory.curriculum.evaluations import Evaluations
from sactory.curriculum.state import EVAL
from sactory.metrics import CURRICULUM, read_log
from sactory.progress import Book, Entry
from sactory.run_dir import RunDir
from sactory.triggers import Every
from train.journal import Journal

FORMAT = 1
_TELL_SECONDS = 10.0
_KEEP_SECONDS = 30.0
_DRAWS = 32


class Lessons:
    """Of a run without a curriculum: nothing is counted, nothing published."""

    def count(self, entries: Iterable[Entry]) -> None:
        """Takes in episodes that were not reported before."""

    def update(self, book: Book, train_step: int) -> State | None:
        """Moves what is due; the state to publish."""
        return None

    def meta(self) -> dict[str, Any]:
        """What an export's meta.json tells."""
        return {}

    def to_json(self) -> dict[str, Any]:
        """What the trainer's checkpoint holds."""
        return {}


class CurriculumLessons(Lessons):
    """Of a run with a curriculum.

    Each change is on the disk before anybody hears of it, so no restart goes back behind it.

    Args:
        run_dir: The run.
        curriculum: What to follow.
        incarnation: Count of the trainer's starts, this one included.
        saved: What `to_json` gave for the restored checkpoint; None if it holds nothing.
        journal: Where changes and values are told.
    """

    def __init__(
        self,
        run_dir: RunDir,
        curriculum: Curriculum,
        incarnation: int,
        saved: dict[str, Any] | None,
        journal: Journal,
    ):
        self._path = run_dir.curriculum_state
        self._curriculum, self._journal = curriculum, journal
        newest = max(filter(None, [saved, self._kept()]), key=_order, default=None)
        self._changes: list[str] = (newest or {}).get("changes", [])
        self._told_version = _told_version(run_dir)
        self._coordinator = Coordinator(curriculum, incarnation, newest)
        self._max_env_steps = settings.Run().max_env_steps
        self._lock = threading.Lock()
        self._reports: list[Report] = []
        by_eval = any(measure.source == EVAL for measure in curriculum.measures)
        self._evaluations = Evaluations(run_dir.eval_log) if by_eval else None
        self._kept_version: int | None = None
        self._keep_due = Every(_KEEP_SECONDS, start=time.monotonic())
        self._tell_due = Every(_TELL_SECONDS, start=time.monotonic())

    def _kept(self) -> dict[str, Any] | None:
        """What an earlier start kept, as far as it is whole."""
        if not self._path.exists():
            return None
        try:
            return sealed.read_file(self._path, FORMAT)
        except (sealed.DamagedError, sealed.OtherFormatError) as e:
            logging.error("the curriculum goes on from the trainer's checkpoint: %s", e)
            return None

    def count(self, entries: Iterable[Entry]) -> None:
        """Takes in episodes that were not reported before."""
        for entry in entries:
            episode = entry.episode
            if episode.played is not None:
                outcome = (episode.episode_return, episode.length, episode.success)
                self._reports.append(Report.of(episode.played, *outcome))

    def update(self, book: Book, train_step: int) -> State:
        """Moves what is due; the state to publish."""
        with self._lock:
            reports, self._reports = self._reports, []
            if self._evaluations is not None:
                reports += self._evaluations.new()
            progress = min(book.env_steps / self._max_env_steps, 1.0)
            clock = Clock(book.env_steps, train_step, book.episodes, progress)
            before = self._coordinator.state
            state = self._coordinator.update(clock, reports)
            now = time.monotonic()
            if state.version != before.version:
                self._changes = changes(before, state)
            if state.version != self._kept_version or self._keep_due(now):
                self._keep()
            if state.version != self._told_version:  # or a start that was killed made the change
                self._tell_changes(book)
            if state.version != before.version or self._tell_due(now):
                self._journal.scalars(CURRICULUM, self._values(), book)
            return state

    def meta(self) -> dict[str, Any]:
        """The state that the exported weights were learning at."""
        return {"curriculum": self._coordinator.state.to_json()}

    def to_json(self) -> dict[str, Any]:
        """The coordinator's state."""
        with self._lock:
            return {"curriculum": self._coordinator.to_json()}

    def _keep(self) -> None:
        """Writes R/curriculum_state.json, for the next start and for people."""
        state = self._coordinator.state
        record = {
            "format": FORMAT,
            **self._coordinator.to_json(),
            "changes": self._changes,
            "late_reports": self._coordinator.late_reports,
            "parameters": {n: node.text(state) for n, node in self._curriculum.params.items()},
            "time": time.time(),
        }
        try:
            sealed.write_file(self._path, record)
        except OSError as e:
            logging.error("%s can't be written, going on: %s", self._path, e)
        self._kept_version = state.version

    def _tell_changes(self, book: Book) -> None:
        state = self._coordinator.state
        self._told_version = state.version
        logging.info("curriculum, version %d: %s", state.version, "; ".join(self._changes))
        self._journal.event(
            "curriculum",
            book,
            version=state.version,
            changes=self._changes,
            difficulty=state.difficulty,
            lessons=state.lessons,
            incarnation=state.incarnation,
        )

    def _values(self) -> dict[str, float]:
        """What TensorBoard shows."""
        state = self._coordinator.state
        values = {
            "version": state.version,
            "difficulty": state.difficulty,
            "late_reports": self._coordinator.late_reports,
        }
        for measure, average in self._coordinator.averages().items():
            source = "eval_" if measure.source == EVAL else ""
            values[f"{source}{measure.name}_window"] = average
        draws = [
            self._curriculum.values(state, np.random.default_rng(number))
            for number in range(_DRAWS)
        ]
        for name, (low, high) in self._curriculum.ranges(state).items():
            values[f"{name}/low"], values[f"{name}/high"] = float(np.min(low)), float(np.max(high))
            values[f"{name}/mean"] = float(np.mean([draw[name] for draw in draws]))
        return values


def _told_version(run_dir: RunDir) -> int:
    """The version that the log's newest `curriculum` event told of."""
    events = [row for row in read_log(run_dir.train_log) if row.get("event") == "curriculum"]
    return events[-1].get("version", 0) if events else 0


def _order(saved: dict[str, Any]) -> tuple[int, ...]:
    """Of two saved states the later one is larger."""
    state = saved["state"]
    return tuple(state[name] for name in ("version", "episodes", "env_steps"))


def lessons_for_run(run_dir: RunDir, incarnation: int, state: Any, journal: Journal) -> Lessons:
    """The lessons of a run whose configuration is loaded.

    Args:
        run_dir: The run.
        incarnation: Count of the trainer's starts, this one included.
        state: What the restored checkpoint held beside the weights.
        journal: Where changes and values are told.
    """
    curriculum = load_for_run(run_dir)
    if curriculum is None:
        return Lessons()
    return CurriculumLessons(run_dir, curriculum, incarnation, state.get("curriculum"), journal)
