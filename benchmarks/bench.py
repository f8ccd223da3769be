"""`make bench`: Sactory and its peers side by side, in tables, as JSON and as one picture.

    python -m benchmarks.bench [--sections=learner,end_to_end] [--rounds=5] [--seconds=S]

All contenders of a section take turns; figures are medians of the rounds. Results are
benchmarks/results/bench.json, where sections that are not run keep what they had, and
docs/images/bench.png. The peers' environment is made on first use; without it the sections go on
and say who is missing.
"""

from __future__ import annotations

import os
import shlex
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import comparison, picture, to_return
from benchmarks.peers import environment
from benchmarks.rounds import ROOT
from benchmarks.sections import SECTIONS, Plan
from sactory import provenance, quiet
from sactory.errors import UserError
from sactory.flags import Flags, run_script
from sactory.run_dir import read_json, write_json

RESULT = ROOT / "benchmarks" / "results" / "bench.json"
PICTURE = ROOT / "docs" / "images" / "bench.png"


def chosen_sections(text: str) -> list[str]:
    """The sections of a flag, in their order.

    Raises:
        UserError: There is no such section.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in SECTIONS:
            raise UserError(f"--sections: '{name}' is none of {', '.join(SECTIONS)}")
    return [name for name in SECTIONS if name in names]


def _told(words: list[str]) -> list[str]:
    """The flags that say how it was measured; the others name places of this machine."""
    return [w for w in words if w.lstrip("-").startswith(("sections", "rounds", "seconds"))]


def run_section(name: str, plan: Plan) -> dict[str, Any]:
    """Measures one section and prints its tables; what is kept of it."""
    section, load, began = SECTIONS[name], os.getloadavg()[0], time.time()
    print(f"\n## {section.title}\n", flush=True)
    missing = plan.peers.missing if section.needs_peers else None
    if missing:
        print(f"Without SBX, Stable-Baselines3 and CleanRL: {missing}\n", flush=True)
    entries = section.run(plan)
    found = comparison.ratios(name, entries)
    print(comparison.table(section.unit, entries))
    if found:
        print(f"\n{comparison.ratio_table(found)}")
    loads = [round(load, 1), round(os.getloadavg()[0], 1)]
    print(f"\nLoad {loads[0]} at the start, {loads[1]} at the end.", flush=True)
    return {
        "unit": section.unit,
        "entries": entries,
        "ratios": {name: round(value, 3) for name, value in found.items()},
        "missing": missing,
        "rounds": plan.rounds,
        "commit": plan.commit,
        "command": f"python -m benchmarks.bench {shlex.join(_told(sys.argv[1:]))}".strip(),
        "load_at_start_and_end": loads,
        "time": began,
        "seconds": round(time.time() - began),
    }


def run(names: list[str], plan: Plan, result: Path) -> list[str]:
    """Runs sections and stores each when it is over.

    Args:
        names: Which.
        plan: How.
        result: The JSON file; other sections in it stay.

    Returns:
        Those that failed.
    """
    failed = []
    for name in names:
        try:
            kept = run_section(name, plan)
        except (UserError, SystemExit, ImportError) as e:
            print(f"\nThe section '{name}' failed: {e}", flush=True)
            failed.append(name)
            continue
        plan.before[name] = kept
        write_json(result, plan.before)
        if name == "to_return":
            to_return.forget_parts()
    return failed


def main(argv: list[str]) -> int:
    """Measures and reports; 1 if a section failed."""
    flags = Flags("bench", "Measures Sactory beside its peers.")
    flags.string("sections", ",".join(SECTIONS), "which, by comma")
    flags.integer("rounds", 5, "measurements of each contender, of which medians are taken")
    flags.float("seconds", None, "of each measurement; default: the section's own")
    flags.string("peers_dir", str(environment.DEFAULT), "the peers' virtual environment")
    flags.string("json", str(RESULT), "where the results go")
    flags.string("picture", str(PICTURE), "the picture of what was measured")
    args, _ = flags.parse(argv)
    names = chosen_sections(args.sections)
    needed = any(SECTIONS[name].needs_peers for name in names)
    peers = environment.Peers(Path(args.peers_dir).resolve(), make=needed)
    result = Path(args.json)
    before = read_json(result) if result.exists() else {}
    plan = Plan(peers, args.rounds, args.seconds, provenance.commit(), before or {})
    failed = run(names, plan, result)
    if picture.draw(plan.before, Path(args.picture)):
        print(f"\n{args.picture} shows it.")
    return 1 if failed else 0


if __name__ == "__main__":
    quiet.set_environment()
    run_script(main)
