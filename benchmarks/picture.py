"""One picture of `make bench` for the README: the learner alone, and whole systems."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks import comparison

OURS, THEIRS, TEXT = "#e07b39", "#8fa3b8", "#7d8590"  # seen on white and on black alike
_PANELS = (
    ("learner", "per_core_second", "updates per core-second, 1 core"),
    ("end_to_end", "per_second", "env steps per second, whole systems on 2 cores"),
)


def bars(section: Mapping[str, Any], figure: str) -> list[tuple[str, float]]:
    """Names and figures, the best first; what is no contender is left out."""
    found = [
        (entry["name"].removesuffix(", 1 core"), entry[figure])
        for entry in section.get("entries", [])
        if entry["name"] != comparison.PRODUCT and not entry["name"].endswith(", 2 cores")
    ]
    return sorted(found, key=lambda pair: pair[1], reverse=True)


def draw(bench: Mapping[str, Any], out: Path) -> bool:
    """Draws the sections that have been measured.

    Args:
        bench: The content of bench.json.
        out: The picture.

    Returns:
        Whether there was anything to draw.
    """
    panels = [(bars(bench[s], f), title) for s, f, title in _PANELS if s in bench]
    if not panels:
        return False
    figure = Figure(figsize=(5.2 * len(panels), 3.4), layout="constrained")
    for axes, (pairs, title) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels):
        _panel(axes, pairs, title)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=130, transparent=True)
    return True


def _panel(axes: Axes, pairs: list[tuple[str, float]], title: str) -> None:
    names = [name for name, _ in pairs]
    values = [value for _, value in pairs]
    colours = [OURS if name.startswith(comparison.SACTORY) else THEIRS for name in names]
    drawn = axes.barh(names, values, color=colours)
    axes.bar_label(drawn, fmt="%.0f", padding=3, color=TEXT)
    axes.invert_yaxis()
    axes.set_title(title, fontsize="medium", color=TEXT)
    axes.margins(x=0.12)
    axes.tick_params(length=0, labelbottom=False, colors=TEXT)
    axes.spines[:].set_visible(False)
