"""`make bench-guard`: fails when Sactory has become slower beside what it is compared with.

    python -m benchmarks.guard [--update]

A short side-by-side run on one core. Ratios are compared with those in benchmarks/ratios.json, so
that a slower machine is no alarm; a ratio that fell by more than 15 % is one. Peers take part if
their environment is there (`make bench` makes it). `--update` stores what was measured.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from benchmarks import comparison, sections
from benchmarks.comparison import ALL_SBX, SB3
from benchmarks.peers import environment
from benchmarks.rounds import ROOT
from benchmarks.sections import Plan
from sactory import provenance, quiet
from sactory.flags import Flags, run_script
from sactory.run_dir import read_json, write_json

STORED = ROOT / "benchmarks" / "ratios.json"
TOLERANCE = 0.15


def fallen(stored: Mapping[str, float], present: Mapping[str, float]) -> list[str]:
    """A line for each ratio that fell too far.

    Args:
        stored: Ratios by name, as they were.
        present: As they are; one that was not measured now is no reason.
    """
    return [
        f"'{name}' fell by {1 - present[name] / before:.0%}, from {before:.2f} to "
        f"{present[name]:.2f}"
        for name, before in stored.items()
        if name in present and present[name] < (1 - TOLERANCE) * before
    ]


def measure(plan: Plan) -> dict[str, float]:
    """The ratios now; those of which a side is missing are left out."""
    found = comparison.ratios(
        "learner", sections.learners(plan, 1, (*ALL_SBX, SB3), tf_agents=False)
    )
    sides = {
        "collection": (comparison.COLLECTOR,),
        "sampling": (comparison.SAMPLER, comparison.TF_AGENTS_SAMPLER),
    }
    for name, texts in sides.items():
        contenders = [c for text in texts for c in sections.contenders_of(name, text)]
        found |= comparison.ratios(name, plan.measure(contenders, 2.0))
    return found


def judge(stored: Mapping[str, float], present: Mapping[str, float]) -> int:
    """Says what has become of each ratio; 1 if one fell too far."""
    for name, value in present.items():
        before = stored.get(name)
        print(f"{name}: {value:.2f}" + (f", stored {before:.2f}" if before else ", not stored"))
    for name in sorted(stored.keys() - present.keys()):
        print(f"{name}: not measured")
    lines = fallen(stored, present)
    if lines:
        print(f"bench-guard: {'; '.join(lines)}", file=sys.stderr)
    return 1 if lines else 0


def main(argv: list[str]) -> int:
    """Measures, then compares or stores."""
    flags = Flags("guard", "Fails when a ratio to a peer or to the limit has fallen by 15 %.")
    flags.boolean("update", False, "store the present ratios")
    flags.integer("rounds", 5, "measurements of each contender")
    flags.float("seconds", 2.0, "of each measurement")
    flags.string("peers_dir", str(environment.DEFAULT), "the peers' virtual environment")
    flags.string("stored", str(STORED), "the file of the stored ratios")
    args, _ = flags.parse(argv)
    peers = environment.Peers(Path(args.peers_dir).resolve(), make=False)
    if peers.missing:
        print(f"Without peers: {peers.missing}", flush=True)
    present = measure(Plan(peers, args.rounds, args.seconds))
    path = Path(args.stored)
    stored = (read_json(path) if path.exists() else None) or {"ratios": {}}
    if args.update:
        kept = {**stored["ratios"], **{name: round(v, 3) for name, v in present.items()}}
        write_json(path, {"commit": provenance.commit(), "ratios": kept})
        print(f"stored in {path}")
        return 0
    return judge(stored["ratios"], present)


if __name__ == "__main__":
    quiet.set_environment()
    run_script(main)
