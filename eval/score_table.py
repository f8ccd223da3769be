"""The table of a report: each task's final scores over its seeds, as lines, CSV and Markdown."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eval import statistics
from eval.outcomes import FINISHED, Outcome

ALL_TASKS = "all tasks"
_HEADER = ("task", "config", "runs", "mean", "std", "IQM", "95 % interval")


@dataclass(frozen=True)
class Line:
    """The scores of one task, or of all tasks of a configuration.

    Attributes:
        task: Its name.
        config: The configuration's name.
        runs: Runs that there should be.
        scores: Of those that count.
        interval: The 95 % interval of the interquartile mean; None: too few runs.
    """

    task: str
    config: str
    runs: int
    scores: tuple[float, ...]
    interval: tuple[float, float] | None

    @property
    def mean(self) -> float | None:
        """Mean over the runs."""
        return float(np.mean(self.scores)) if self.scores else None

    @property
    def std(self) -> float | None:
        """Sample standard deviation over the runs, as papers print it."""
        return float(np.std(self.scores, ddof=1)) if len(self.scores) > 1 else None

    @property
    def iqm(self) -> float | None:
        """Interquartile mean over the runs."""
        return float(statistics.iqm(np.array(self.scores))) if self.scores else None


def lines(outcomes: Sequence[Outcome], at: int | None) -> list[Line]:
    """The table: tasks of one configuration after another, then all of them together.

    Args:
        outcomes: The runs.
        at: As for `Outcome.score`.
    """
    table = []
    for config in sorted({run.name.config for run in outcomes}):
        runs = [run for run in outcomes if run.name.config == config]
        tasks = sorted({run.name.task for run in runs})
        groups = {task: [run for run in runs if run.name.task == task] for task in tasks}
        scored = {task: _scores(group, at) for task, group in groups.items()}
        for task, group in groups.items():
            table.append(_line(task, config, len(group), [scored[task]]))
        if len(tasks) > 1:
            table.append(_line(ALL_TASKS, config, len(runs), list(scored.values())))
    return table


def _scores(runs: Sequence[Outcome], at: int | None) -> list[float]:
    return [score for run in runs if (score := run.score(at)) is not None]


def _line(task: str, config: str, runs: int, scores: Sequence[Sequence[float]]) -> Line:
    tasks = [np.array(s) for s in scores if s]
    together = tuple(float(value) for values in tasks for value in values)
    return Line(task, config, runs, together, statistics.iqm_interval(tasks))


def cells(table: Sequence[Line]) -> list[tuple[str, ...]]:
    """The table as text, its header first."""
    rows: list[tuple[str, ...]] = [_HEADER]
    for line in table:
        interval = "-" if line.interval is None else " to ".join(map(_number, line.interval))
        numbers = map(_number, (line.mean, line.std, line.iqm))
        counted = f"{len(line.scores)} of {line.runs}"
        rows.append((line.task, line.config, counted, *numbers, interval))
    return rows


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"


def score_csv(table: Sequence[Line]) -> str:
    """The table with all digits."""
    names = ("task", "config", "runs", "counted", "mean", "std", "iqm", "iqm_low", "iqm_high")
    rows = [
        (x.task, x.config, x.runs, len(x.scores), x.mean, x.std, x.iqm, *(x.interval or ("", "")))
        for x in table
    ]
    return _csv([names, *rows])


def run_csv(outcomes: Sequence[Outcome], at: int | None) -> str:
    """One line for each run."""
    names = ("task", "config", "seed", "state", "env_steps", "score", "why")
    rows = [
        (x.name.task, x.name.config, x.name.seed, x.state, x.env_steps, x.score(at), x.why)
        for x in outcomes
    ]
    return _csv([names, *rows])


def _csv(rows: Sequence[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def markdown(table: Sequence[Line], outcomes: Sequence[Outcome], at: int | None, image: str) -> str:
    """A page with the table, the runs that are not finished and the picture."""
    header, *rows = cells(table)
    text = [f"# Scores\n\n{explain(at)}\n", _row(header), _row(["---"] * len(header))]
    text += [_row(row) for row in rows]
    problems = [f"- {line}" for line in unfinished(outcomes)]
    if problems:
        text += ["", "Runs that are not finished:", "", *problems]
    return "\n".join([*text, "", f"![Learning curves]({image})", ""])


def _row(row: Sequence[str]) -> str:
    return f"| {' | '.join(row)} |"


def explain(at: int | None) -> str:
    """What a score is, in one sentence."""
    which = "of each finished run" if at is None else f"at or before {at:,} env steps"
    return (
        f"Return of the last evaluation {which}; mean, sample standard deviation and interquartile "
        "mean over the runs, with its 95 % bootstrap interval."
    )


def unfinished(outcomes: Sequence[Outcome]) -> list[str]:
    """One line for each run that is not finished: missing, crashed, on its way."""
    return [f"{x.name}: {x.state}, {x.why}" for x in outcomes if x.state != FINISHED]
