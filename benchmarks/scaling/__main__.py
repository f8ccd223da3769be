"""Where a run's bottleneck is at 1, 10, 100 and 1000 collectors.

    python -m benchmarks.scaling [--rounds=3] [--check] [--nomeasure]

Measures what each unit of work costs, prints what the model makes of it and, with `--check`, what
real runs of 1, 8 and 32 collectors make of the model. Results: benchmarks/results/scaling.json.
"""

from __future__ import annotations

import dataclasses
import os
import subprocess
from typing import Any

from benchmarks.rounds import ROOT
from benchmarks.scaling import costs as costs_lib
from benchmarks.scaling import tables
from benchmarks.scaling.check import check
from benchmarks.scaling.model import Costs
from sactory.flags import Flags, run_script
from sactory.run_dir import read_json, write_json

RESULT = ROOT / "benchmarks" / "results" / "scaling.json"


def _circumstances() -> dict[str, Any]:
    words = ["git", "describe", "--always", "--dirty"]
    commit = subprocess.run(words, cwd=ROOT, stdout=subprocess.PIPE, text=True).stdout.strip()
    return {"commit": commit, "load": [round(x, 1) for x in os.getloadavg()]}


def main(argv: list[str]) -> int:
    """Measures, predicts, checks and prints."""
    flags = Flags("scaling", "Predicts a run's bottleneck from the costs of its units of work.")
    flags.integer("rounds", 3, "measurements of each unit, of which medians are taken")
    flags.float("seconds", 1.5, "of each measurement of a unit")
    flags.boolean("measure", True, "measure the units; else take the stored costs")
    flags.boolean("check", False, "hold the model against real runs")
    flags.multi_string("collectors", ["1", "8", "32"], "of the runs that check the model")
    flags.float("check_seconds", 30.0, "of each of those runs")
    args, _ = flags.parse(argv)
    result: dict[str, Any] = read_json(RESULT) or {
        "command": "python -m benchmarks.scaling --check"
    }
    if args.measure:
        before = _circumstances()
        costs = costs_lib.measure(args.rounds, args.seconds)
        result["measured"] = {**before, "costs": dataclasses.asdict(costs)}
        write_json(RESULT, result)
    costs = Costs.from_json(result["measured"]["costs"])
    print(tables.costs_table(costs))
    for title, situation in tables.SITUATIONS.items():
        print(f"\n{title}\n\n{tables.predictions_table(costs, situation)}")
    often = tables.predictions_table(costs, tables.SITUATIONS[tables.SLOW_SEGMENTS], 0.25)
    print(f"\n{tables.SLOW_SEGMENTS}, a look every 0.25 s\n\n{often}")
    if args.check:
        before = _circumstances()
        counts = [int(count) for count in args.collectors]
        result["check"] = {**before, "runs": check(costs, counts, args.check_seconds)}
        write_json(RESULT, result)
        print("\n" + tables.check_table(result["check"]["runs"]))
    return 0


if __name__ == "__main__":
    run_script(main)
