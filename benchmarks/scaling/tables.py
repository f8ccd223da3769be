"""The model's situations and results as Markdown."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from benchmarks.scaling.model import Cost, Costs, Line, Situation, batch, predict
from collect.refresher import interval

COLLECTORS = (1, 10, 100, 1000)
CHEAP, SLOW = 2_000.0, 20.0  # rows per second of a collector

SLOW_SEGMENTS = "free-running, slow simulator, segments of 16"
_SLOW = Situation(1, SLOW, updates_per_row=None, sync=False)
SITUATIONS = {
    "one update a row, cheap simulator": Situation(1, CHEAP),
    "one update a row, slow simulator": Situation(1, SLOW),
    "free-running, slow simulator": _SLOW,
    SLOW_SEGMENTS: replace(_SLOW, segment_length=16),
    "free-running, slow simulator, segments of 16, 1024x1024": replace(
        _SLOW, segment_length=16, weight_bytes=4.32e6, update_seconds=12 / 149
    ),
    "free-running, cheap simulator, segments of 16": replace(
        _SLOW, rows_per_second=CHEAP, segment_length=16
    ),
    "free-running, cheap simulator, segments of 64": replace(
        _SLOW, rows_per_second=CHEAP, segment_length=64
    ),
}


def _markdown(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(head)]
    lines += [["---"] * len(lines[0]), *map(list, rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def costs_table(costs: Costs) -> str:
    """Every unit, in microseconds of CPU and bytes."""

    def row(name: str, cost: Cost) -> list[str]:
        seconds = [f"{1e6 * s:.0f}" for s in (cost.server, cost.gate, cost.client)]
        return [name, *seconds, f"{cost.received:.0f}", f"{cost.sent:.0f}"]

    rows = []
    for field in dataclasses.fields(costs):
        cost = getattr(costs, field.name)
        if isinstance(cost, Cost):
            rows.append(row(field.name, cost))
        elif isinstance(cost, Line):
            of_rows = field.name in ("insert", "sample")
            sizes = (1, 16) if of_rows else (294e3, 4.32e6)
            unit = "rows" if of_rows else "bytes"
            rows += [row(f"{field.name}, {size:g} {unit}", cost.of(size)) for size in sizes]
    for length in (1, 16):
        of_batch = batch(costs, Situation(1, 1.0, segment_length=length))
        rows.append(row(f"a batch of 256, segments of {length}", of_batch))
    held = costs.connection
    memory = f"{held.memory / 1e3:.0f} kB, {held.descriptors:.0f} open files"
    idle = f"{1e6 * held.seconds:.0f}"
    rows.append([f"a connected collector, a second ({memory})", idle, "", "", "", ""])
    rows.append(["the server alone, a second", f"{1e6 * costs.base:.0f}", "", "", "", ""])
    head = ["unit", "server, µs", "of it gate, µs", "client, µs", "bytes received", "bytes sent"]
    return _markdown(head, rows)


def predictions_table(costs: Costs, situation: Situation, refresh: float | None = None) -> str:
    """What 1 to 1000 collectors reach, with `collect.refresh_seconds` as `refresh` says."""
    rows = []
    for count in COLLECTORS:
        seconds = interval(refresh, count)
        told = predict(costs, replace(situation, collectors=count, refresh_seconds=seconds))
        shares = [f"{100 * told.loads[name]:.0f} %" for name in told.loads]
        rates = [f"{told.rows_per_second:.0f}", f"{told.updates_per_second:.0f}"]
        limits = [told.rows_limit, told.updates_limit]
        rows.append([str(count), *rates, f"{told.refresh_seconds:.2g}", *shares, *limits])
    names = list(predict(costs, situation).loads)
    head = ["collectors", "rows/s", "updates/s", "s between rounds", *names]
    return _markdown([*head, "rows held by", "updates by"], rows)


def check_table(records: list[dict[str, Any]]) -> str:
    """Predicted and measured beside each other."""
    rows = []
    for record in records:
        cells = [str(record["collectors"]), str(record["load"])]
        for name in ("rows_per_second", "server", "updates_per_second"):
            predicted, measured = record["predicted"][name], record["measured"][name]
            cells += [f"{predicted:.3g}", f"{measured:.3g}", f"{measured / predicted:.2f}"]
        rows.append(cells)
    head = ["collectors", "load"]
    for name in ("rows/s", "server's cores", "updates/s"):
        head += [f"{name}, predicted", "measured", "ratio"]
    return _markdown(head, rows)
