"""All parameters of a curriculum over the run, as one picture."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sactory.curriculum.plan import Curriculum
from sactory.curriculum.state import CLOCKS, Axis, State
from sactory.curriculum.values import NUMERIC, Node, Schedule, axes, walk

COLUMNS = 3
POINTS = 300
SIGMAS = 2  # how much of a normal distribution is shown
_MARGIN = 1.1  # the picture goes on beyond the last point of any schedule
_COLOUR = "tab:blue"


def draw(curriculum: Curriculum, path: Path) -> None:
    """Writes the picture: one panel for each parameter, over the clock or measure it follows.

    Where a parameter follows several things the others stand at the start of the run.

    Args:
        curriculum: What to draw.
        path: The file; its ending says which kind of picture.

    Raises:
        ValueError: matplotlib has no such kind of picture.
    """
    rows = math.ceil(len(curriculum.params) / COLUMNS)
    columns = min(COLUMNS, len(curriculum.params))
    figure = Figure(figsize=(4.5 * columns, 2.6 * rows), layout="constrained")
    panels = np.ravel(figure.subplots(rows, columns, squeeze=False))
    ends = {axis: points[-1] * _MARGIN for axis, points in curriculum.axes().items() if _time(axis)}
    for panel, (name, node) in zip(panels, curriculum.params.items()):
        panel.set_title(name, fontsize="medium")
        _panel(panel, node, curriculum.initial_state(), ends)
    for panel in panels[len(curriculum.params) :]:
        panel.set_visible(False)
    figure.savefig(path, dpi=120)


def _time(axis: Axis) -> bool:
    return axis[0] in CLOCKS


def _panel(panel: Axes, node: Node, start: State, ends: dict[Axis, float]) -> None:
    axis = _main_axis(node, ends)
    values = _values(node, axis, ends)
    states = [start.moved(axis, value) for value in values]
    x: list[float] = [*range(len(values))]
    stepped = axis[0] == "lessons"
    if stepped:
        panel.set_xticks(x, values)
        panel.set_xlabel(f"lesson of {axis[1]}")
    elif axis[0] == "ranges":
        panel.set_xticks(x, ["init", "limits"])
        panel.set_xlabel("automatic range")
    else:
        clock, unit = _clock(node, axis)
        x = [value / unit for value in values]
        panel.set_xlabel(clock)
        panel.set_xlim(0, x[-1])
        panel.ticklabel_format(axis="x", scilimits=(-3, 4))
    if node.kind in NUMERIC:
        _curves(panel, node, x, states, stepped)
    else:
        _words(panel, node, x, states)


def _main_axis(node: Node, ends: dict[Axis, float]) -> Axis:
    """What a panel is drawn over: a clock if the parameter follows one."""
    found = axes(node)
    if not found:
        return next(iter(ends), ("env_steps",))
    return next(filter(_time, found), next(iter(found)))


def _values(node: Node, axis: Axis, ends: dict[Axis, float]) -> list[Any]:
    """Where along an axis a panel is evaluated: densely, and at both sides of every bend."""
    points = axes(node).get(axis, [])
    if len(axis) > 1:
        return points
    end = ends.get(axis, 1.0)
    before = [np.nextafter(point, 0) for point in points if point > 0]
    return sorted({0.0, *np.linspace(0, end, POINTS).tolist(), *points, *before})


def _clock(node: Node, axis: Axis) -> tuple[str, int]:
    """Name and unit of the clock that a node's schedules read an axis by."""
    for part in walk(node):
        if isinstance(part, Schedule) and (part.timeline.field,) == axis:
            return part.timeline.name, part.timeline.unit
    return axis[0], 1


def _curves(panel: Axes, node: Node, x: list[float], states: list[State], stepped: bool) -> None:
    """One line for each element that is certain, one band for each that is drawn."""
    count = math.prod(node.shape)
    spans = [node.span(state, SIGMAS) for state in states]
    unset = (np.full(count, np.nan),) * 2
    lows, highs = zip(*(unset if s is None else map(np.ravel, s) for s in spans))
    style: dict[str, Any] = {"drawstyle": "steps-mid" if stepped else "default"}
    for low, high in zip(np.transpose(lows), np.transpose(highs)):  # [points], for each element
        if np.array_equal(low, high, equal_nan=True):
            panel.plot(x, low, color=_COLOUR, **style)
            continue
        panel.fill_between(x, low, high, color=_COLOUR, alpha=0.3, step="mid" if stepped else None)
        for edge in (low, high):
            panel.plot(x, edge, color=_COLOUR, linewidth=0.8, **style)


def _words(panel: Axes, node: Node, x: list[float], states: list[State]) -> None:
    """What a parameter without numbers is, from where it begins to be that."""
    texts = [node.text(state) for state in states]
    begins = [i for i, text in enumerate(texts) if i == 0 or text != texts[i - 1]]
    panel.set_yticks([])
    for line, i in enumerate(begins):
        panel.axvline(x[i], color=_COLOUR, linewidth=0.8)
        height = 0.9 - 0.8 * line / max(len(begins), 1)
        panel.text(x[i], height, f" {texts[i]}", transform=panel.get_xaxis_transform(), fontsize=7)
