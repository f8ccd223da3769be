"""The learning curves of a report: one picture, a panel for each task, a line for each config."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from eval.outcomes import Outcome

_COLUMNS = 4
_SPREAD, _SINGLE = 0.18, 0.25  # opacity of the band, and of one run's line


def marks(runs: Sequence[Outcome]) -> tuple[list[int], list[list[float]]]:
    """The returns of several runs at common env steps.

    A run exports its policy at the first step at or after each multiple of the interval, so that
    runs differ by a few steps: each evaluation counts for the multiple it belongs to.

    Args:
        runs: Runs of one task and configuration.

    Returns:
        The multiples at which any run has an evaluation, in env steps, and the runs' returns there:
        fewer where a run is not as far.
    """
    every = max(run.every_env_steps for run in runs)
    values: dict[int, list[float]] = {}
    for run in runs:
        # The last one of several within an interval: what the run ended with.
        for number, value in {step // every: value for step, value in run.curve}.items():
            values.setdefault(number, []).append(value)
    ordered = sorted(values)
    return [number * every for number in ordered], [values[number] for number in ordered]


def draw(outcomes: Sequence[Outcome], out: Path) -> None:
    """Writes the picture: means over the seeds with a band of one standard deviation."""
    outcomes = [run for run in outcomes if run.curve]
    tasks = sorted({run.name.task for run in outcomes}) or [""]
    configs = sorted({run.name.config for run in outcomes})
    columns = min(len(tasks), _COLUMNS)
    rows = math.ceil(len(tasks) / columns)
    figure = Figure(figsize=(4.2 * columns + 0.6, 3.2 * rows + 0.3), layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for task, axes in zip(tasks, panels):
        axes.set_title(task, fontsize="medium")
        for number, config in enumerate(configs):
            wanted = (task, config)
            runs = [run for run in outcomes if (run.name.task, run.name.config) == wanted]
            if runs:
                _line(axes, runs, config, f"C{number}")
        _finish(axes, bool(configs))
    for axes in panels[len(tasks) :]:
        axes.set_visible(False)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=130)


def _line(axes: Axes, runs: Sequence[Outcome], config: str, colour: str) -> None:
    steps, values = marks(runs)
    means = np.array([np.mean(v) for v in values])
    spread = np.array([np.std(v, ddof=1) if len(v) > 1 else 0.0 for v in values])
    counts = sorted({len(v) for v in values})
    seeds = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    label = f"{config} ({seeds} seed{'s' * (counts[-1] > 1)})"
    for run in runs if len(runs) > 1 else ():
        axes.plot(*zip(*run.curve), color=colour, alpha=_SINGLE, linewidth=0.8)
    axes.plot(steps, means, color=colour, label=label)
    axes.fill_between(steps, means - spread, means + spread, color=colour, alpha=_SPREAD, lw=0)


def _finish(axes: Axes, drawn: bool) -> None:
    axes.set_xlabel("env steps")
    axes.set_ylabel("evaluation return")
    axes.xaxis.set_major_formatter(_steps)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if drawn:
        axes.legend(fontsize="small", frameon=False)
    else:
        axes.text(0.5, 0.5, "no evaluations yet", ha="center", transform=axes.transAxes)


def _steps(value: float, _position: Any) -> str:
    """`500k`, `1.5M`."""
    if abs(value) >= 1e6:
        return f"{value / 1e6:g}M"
    return f"{value / 1e3:g}k" if abs(value) >= 1e3 else f"{value:g}"
