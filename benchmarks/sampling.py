"""What the replay path costs: batches to the trainer, rows to the server, ours and TF-Agents'.

    python -m benchmarks.sampling [--rounds 5] [--seconds 3] [--json FILE] [--only TEXT]

Rows of cheetah_run. Ours are the trainer's feeder, checks included, and the collector's writer, as
it waits for the server's answer to one step of its environments before it sends the next; both
reach a real replay server the way a run's programs do on one host. Nothing else is done meanwhile.
TF-Agents' is `ReverbReplayBuffer.as_dataset` of its SAC example.

Costs are CPU time: of the process that samples or writes, all threads together, and of the server.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from benchmarks import rounds, worker
from benchmarks.served import Run, Served
from sactory import quiet
from sactory.run_dir import RunDir

LENGTHS = (1, 4, 8, 16, 32)
TF_AGENTS = "TF-Agents' example, batches"
_ROWS = 40_960
_FREE = {
    "replay.mode": "async",
    "replay.updates_per_row": None,
    "replay.capacity": 100_000,
    "replay.checkpoint_seconds": 1e6,
    "collect.Worker.random_steps": 0,
}


def sampler_name(length: int) -> str:
    """Of the contender."""
    return f"batches, segment_length = {length}"


def writer_name(length: int, num_envs: int) -> str:
    """Of the contender."""
    return f"rows, segment_length = {length}, num_envs = {num_envs}"


def _start(name: str, length: int, *words: str) -> Served:
    run = Run({**_FREE, "replay.segment_length": length}, publishes=False)
    return Served(name, (sys.executable, "-m", "benchmarks.sampling", *words), run)


def contenders(only: str = "") -> list[rounds.Worker]:
    """Starts those whose names hold a text; units are batches of 256 rows."""
    found: list[rounds.Worker] = []
    if only in TF_AGENTS:
        words = (sys.executable, "-m", "benchmarks.sampling", "--worker=tf_agents")
        found.append(rounds.Worker(TF_AGENTS, words))
    for length in LENGTHS:
        if only in sampler_name(length):
            found.append(_start(sampler_name(length), length, "--worker=sample"))
    return found


def writers(only: str = "") -> list[rounds.Worker]:
    """Starts those whose names hold a text; units are rows."""
    return [
        _start(writer_name(length, num_envs), length, f"--worker=write{num_envs}")
        for num_envs in (1, 8)
        for length in LENGTHS
        if only in writer_name(length, num_envs)
    ]


def work(kind: str, run_dir: RunDir, server_pid: int) -> None:
    """Is a contender of ours."""
    import numpy as np
    import tensorflow as tf

    from sactory import config

    config.load(run_dir)
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)

    from collect.writer import SegmentWriter
    from sactory import client as client_lib
    from sactory import settings, supervision
    from sactory.specs import Specs
    from train.feeder import Feeder
    from train.poison import Poison

    client = client_lib.connect(run_dir, supervision.Stop().event)
    assert client is not None
    length, learner = settings.Replay().segment_length, settings.Learner()
    size = Specs.load(run_dir).row.size
    rows = np.random.default_rng(0).normal(size=(_ROWS, size)).astype(np.float32)
    writer = SegmentWriter(client, length, size)

    def write(num_envs: int, meter: worker.Meter | None) -> None:
        for start in range(0, _ROWS, num_envs):
            while not writer.flush(10.0):
                continue
            writer.add(rows[start : start + num_envs])
            if meter:
                meter.add(num_envs)

    meter = worker.Meter(lambda: {"server": worker.cpu_seconds(server_pid)})
    if kind.startswith("write"):
        while True:
            write(int(kind[len("write") :]), meter)
    write(256, None)
    target = client_lib.target(run_dir)
    feeder = Feeder(target, learner, length, size, 0, Poison(run_dir))
    while True:
        if feeder.get(10.0) is not None:
            meter.add(learner.updates_per_call)


def table(unit: str, scale: float, rates: list[rounds.Rates], base: str | None) -> str:
    """Markdown.

    Args:
        unit: What costs are given in.
        scale: Those in a second.
        rates: What was measured.
        base: The contender that others are compared with.
    """
    lines = [f"| | client's CPU, {unit} | server's CPU, {unit} | per second |", "|---|---|---|---|"]
    theirs = [r for r in rates if r.name == base]
    if theirs:
        lines = [f"{lines[0]} times {base} |", f"{lines[1]}---|"]
    for r in rates:
        costs = (scale / r.per_core_second, scale * r.per_unit["server"])
        cells = [r.name, *(f"{cost:.2f}" for cost in costs), f"{r.per_second:.0f}"]
        cells += [f"{r.per_core_second / t.per_core_second:.1f}" for t in theirs]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Runs the benchmark or, with --worker, one of its processes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--json", type=Path, help="write the results here")
    parser.add_argument("--only", default="", help="contenders whose name holds this text")
    for internal in ("--worker", "--run_dir"):
        parser.add_argument(internal, help=argparse.SUPPRESS)
    parser.add_argument("--server", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        quiet.set_environment()
        worker.use_cores(1)
        if args.run_dir:
            work(args.worker, RunDir(args.run_dir), args.server)
        from benchmarks import tf_agents_example

        tf_agents_example.sample()
    batches = rounds.measure(contenders(args.only), args.rounds, args.seconds)
    rows = rounds.measure(writers(args.only), args.rounds, args.seconds)
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores\n")
    print(table("ms a batch of 256", 1e3, batches, TF_AGENTS))
    print("\n" + table("µs a row", 1e6, rows, None))
    if args.json:
        results: list[dict[str, Any]] = [r.to_json() for r in (*batches, *rows)]
        args.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
