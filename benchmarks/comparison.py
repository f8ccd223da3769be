"""What is to be compared with what, and how much faster Sactory ought to be: pure arithmetic.

An entry is a dictionary with the contender's `name` and its figures.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

Entry = Mapping[str, Any]

SACTORY_1, SACTORY_2 = "Sactory, 1 core", "Sactory, 2 cores"
PRODUCT = "products of 256x256x256 alone, 1 core"
SACTORY = "Sactory"
SBX, SBX_16, SBX_64 = "SBX", "SBX, 16 fused", "SBX, 64 fused"
SB3, CLEANRL = "Stable-Baselines3", "CleanRL"
TF_AGENTS = ("TF-Agents, 16 fused", "TF-Agents, 16 fused, XLA")
COLLECTOR = "Sactory, num_envs = 8, segment_length = 1"
SAMPLER = "batches, segment_length = 1"
TF_AGENTS_SAMPLER = "TF-Agents' example, batches"


def on(cores: int, *names: str) -> tuple[str, ...]:
    """The names with their cores."""
    return tuple(f"{name}, {cores} core{'s' * (cores > 1)}" for name in names)


@dataclasses.dataclass(frozen=True)
class Wanted:
    """One ratio.

    Attributes:
        name: For tables and for the guard.
        section: Where both are measured.
        ours: Name of the entry.
        theirs: Names of the entries of which the best counts.
        figure: Key of the figure. Of seconds fewer are better.
        at_least: What the ratio must be; None: only told.
        goal: What would be good.
    """

    name: str
    section: str
    ours: str
    theirs: tuple[str, ...]
    figure: str = "per_core_second"
    at_least: float | None = None
    goal: float | None = None


ALL_SBX = (SBX, SBX_16, SBX_64)
WANTED = (
    Wanted("learner / SB3", "learner", SACTORY_1, on(1, SB3), at_least=2.4),
    Wanted("learner / SBX one by one", "learner", SACTORY_1, on(1, SBX), at_least=1.4),
    Wanted("learner / best SBX", "learner", SACTORY_1, on(1, *ALL_SBX), at_least=1.0, goal=1.15),
    Wanted("learner / CleanRL", "learner", SACTORY_1, on(1, CLEANRL)),
    Wanted("learner / best TF-Agents", "learner", SACTORY_1, on(1, *TF_AGENTS), at_least=1.35),
    Wanted("learner / products", "learner", SACTORY_1, (PRODUCT,), at_least=0.65, goal=0.8),
    Wanted(
        "learner on 2 cores / best SBX",
        "learner",
        SACTORY_2,
        on(2, *ALL_SBX),
        "per_second",
        at_least=1.0,
        goal=1.2,
    ),
    Wanted(
        "learner, 2 cores / 1 core",
        "learner",
        SACTORY_2,
        (SACTORY_1,),
        "per_second",
        at_least=1.4,
        goal=1.7,
    ),
    Wanted("whole / SBX", "end_to_end", SACTORY, (SBX,), "per_second", at_least=1.4),
    Wanted("whole / best SBX", "end_to_end", SACTORY, ALL_SBX, "per_second", at_least=1.15),
    Wanted("whole / SB3", "end_to_end", SACTORY, (SB3,), "per_second", at_least=3.0),
    Wanted("whole / CleanRL", "end_to_end", SACTORY, (CLEANRL,), "per_second"),
    Wanted("to a return of 700 / best SBX", "to_return", SACTORY, ALL_SBX, "seconds", at_least=1.2),
    Wanted(
        "collection / TF-Agents' example",
        "collection",
        COLLECTOR,
        ("TF-Agents' example", "TF-Agents' distributed example"),
        at_least=30.0,
    ),
    Wanted(
        "collection / raw simulator",
        "collection",
        COLLECTOR,
        ("dm_control's own step",),
        at_least=0.33,
    ),
    Wanted(
        "sampling / TF-Agents' as_dataset",
        "sampling",
        SAMPLER,
        (TF_AGENTS_SAMPLER,),
        at_least=20.0,
    ),
)


def ratio(wanted: Wanted, entries: Sequence[Entry]) -> float | None:
    """How many times better ours is than the best of theirs; None if either is missing."""
    figures = {e["name"]: e[wanted.figure] for e in entries if e.get(wanted.figure) is not None}
    theirs = [figures[name] for name in wanted.theirs if name in figures]
    if wanted.ours not in figures or not theirs:
        return None
    if wanted.figure == "seconds":
        return min(theirs) / figures[wanted.ours]
    return figures[wanted.ours] / max(theirs)


def ratios(section: str, entries: Sequence[Entry]) -> dict[str, float]:
    """All ratios of a section that can be told from what was measured."""
    found = {w.name: ratio(w, entries) for w in WANTED if w.section == section}
    return {name: value for name, value in found.items() if value is not None}


HEADS = {
    "per_second": "per second",
    "per_core_second": "per core-second",
    "first_seconds": "seconds to the first",
    "seconds": "seconds, median",
    "each": "seconds of each seed",
    "raw_us": "raw, µs",
    "sactory_us": "Sactory, µs",
    "overhead_us": "overhead, µs",
}


def table(unit: str, entries: Sequence[Entry]) -> str:
    """The figures as Markdown.

    Args:
        unit: Of what, for the first column's head.
        entries: One line each.
    """
    keys = [k for k in HEADS if any(e.get(k) is not None for e in entries)]
    pieces = list(dict.fromkeys(k for e in entries for k in e.get("per_unit", {})))
    heads = [unit, *(HEADS[k] for k in keys), *(f"{k}, µs each" for k in pieces)]
    lines = [_line(heads), "|---" * len(heads) + "|"]
    for entry in entries:
        cells = [entry["name"], *(_text(entry.get(k)) for k in keys)]
        costs = [entry.get("per_unit", {}).get(k) for k in pieces]
        lines.append(_line([*cells, *(_text(None if c is None else 1e6 * c) for c in costs)]))
    return "\n".join(lines)


def ratio_table(found: Mapping[str, float]) -> str:
    """The ratios as Markdown, beside what they ought to be."""
    lines = [_line(["ratio", "measured", "wanted", "goal", ""]), "|---|---|---|---|---|"]
    for wanted in WANTED:
        if wanted.name in found:
            value = found[wanted.name]
            lines.append(
                _line(
                    [
                        wanted.name,
                        f"{value:.2f}",
                        _text(wanted.at_least),
                        _text(wanted.goal),
                        _verdict(wanted, value),
                    ]
                )
            )
    return "\n".join(lines)


def _verdict(wanted: Wanted, value: float) -> str:
    if wanted.at_least is None:
        return ""
    return "reached" if value >= wanted.at_least else "missed"


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
    return str(value)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
