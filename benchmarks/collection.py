"""Env steps of the collector alone: the raw simulator, ours and TF-Agents' example, side by side.

    python -m benchmarks.collection [--rounds 5] [--seconds 3] [--json FILE] [--only TEXT]

cheetah_run with a policy of 256x256, one core each. Ours is the collector's own loop with a real
replay server, exported policy and weights that are refreshed as in a run, in async mode so that
nothing holds it. TF-Agents' are the loops of its SAC examples: `haarnoja18/sac_train_eval.py`
(`PyTFEagerPolicy`), and the distributed one (exported policy, weights fetched after each step),
both with `suite_dm_control`, `Actor` and `ReverbAddTrajectoryObserver` into a Reverb server.

Cost is CPU time of the collecting process, all threads together; the server's stands beside it.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import Any

from benchmarks import rounds, worker
from benchmarks.served import Run, Served
from sactory import quiet
from sactory.run_dir import RunDir

RAW, TF_AGENTS, DISTRIBUTED = "raw", "tf_agents", "tf_agents_distributed"
NAMES = {
    RAW: "dm_control's own step",
    TF_AGENTS: "TF-Agents' example",
    DISTRIBUTED: "TF-Agents' distributed example",
}
PIECES = ("env", "policy", "writer", "refresh")
OURS = tuple((num_envs, length) for length in (1, 16) for num_envs in (1, 8, 32))
_FREE = {
    "replay.mode": "async",
    "replay.updates_per_row": None,
    "replay.async_patience": 1e6,  # contenders pause while others are measured
    "collect.Worker.random_steps": 0,
    "replay.capacity": 100_000,
}


@dataclasses.dataclass(frozen=True)
class Collector:
    """Sactory's collector.

    Attributes:
        num_envs: E, environments of the process.
        segment_length: L, rows per item.
    """

    num_envs: int
    segment_length: int

    def __str__(self) -> str:
        return f"Sactory, num_envs = {self.num_envs}, segment_length = {self.segment_length}"

    def start(self) -> Served:
        """Starts it with a run of its own."""
        run = Run(
            {
                **_FREE,
                "collect.Worker.num_envs": self.num_envs,
                "replay.segment_length": self.segment_length,
            },
            publishes=True,
        )
        return Served(str(self), (sys.executable, "-m", "benchmarks.collection"), run)


def contenders(only: str = "") -> list[rounds.Worker]:
    """Starts all whose names hold a text; units are env steps."""
    others = [
        rounds.Worker(name, (sys.executable, "-m", "benchmarks.collection", f"--worker={kind}"))
        for kind, name in NAMES.items()
        if kind == RAW or only in name
    ]
    ours = [Collector(*sizes) for sizes in OURS]
    return [*others, *(collector.start() for collector in ours if only in str(collector))]


def collect(run_dir: RunDir, server_pid: int) -> None:
    """Sactory's collector, as `sactory collect` runs it; counts its steps for ever."""
    os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"  # as its main does
    import tensorflow as tf

    from sactory import config

    config.load(run_dir)
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)

    from collect.worker import Worker
    from sactory import client as client_lib
    from sactory import settings, supervision
    from sactory.heartbeat import Heartbeat

    num_envs = settings.Worker().num_envs

    class Counted(Worker):
        def _tell(self) -> None:
            super()._tell()
            meter.add(num_envs)

    stop, heartbeat = supervision.Stop(), Heartbeat(run_dir, "collect", 0)
    client = client_lib.connect(run_dir, stop.event)
    assert client is not None
    collector = Counted(run_dir, 0, stop, heartbeat, client)
    meter = worker.Meter(lambda: {**collector._seconds, "server": worker.cpu_seconds(server_pid)})
    collector.run()


def simulate() -> None:
    """dm_control's own loop with random actions."""
    import numpy as np
    from dm_control import suite

    env = suite.load("cheetah", "run")
    spec = env.action_spec()
    actions = np.random.default_rng(0).uniform(spec.minimum, spec.maximum, (1000, *spec.shape))
    meter = worker.Meter()
    while True:
        for action in actions:
            env.step(action)  # after the last step of an episode it resets
        meter.add(len(actions))


def table(rates: list[rounds.Rates]) -> str:
    """Markdown."""
    raw = next(r for r in rates if r.name == NAMES[RAW])
    theirs = [r for r in rates if r.name in (NAMES[TF_AGENTS], NAMES[DISTRIBUTED])]
    head = ["CPU µs an env step", *PIECES, "server", "share of raw speed"]
    head += [f"times {r.name}" for r in theirs]
    lines = ["| | " + " | ".join(head) + " |", "|---" * (len(head) + 1) + "|"]
    for r in rates:
        pieces = [f"{1e6 * r.per_unit[p]:.1f}" if p in r.per_unit else "" for p in PIECES]
        server = f"{1e6 * r.per_unit['server']:.0f}" if "server" in r.per_unit else ""
        ratios = [f"{r.per_core_second / t.per_core_second:.1f}" for t in theirs]
        share = f"{r.per_core_second / raw.per_core_second:.2f}"
        cells = [r.name, f"{1e6 / r.per_core_second:.1f}", *pieces, server, share, *ratios]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def work(args: argparse.Namespace) -> None:
    """Is one of the benchmark's processes."""
    quiet.set_environment()
    worker.use_cores(1)
    if args.run_dir:
        collect(RunDir(args.run_dir), args.server)
    elif args.worker == RAW:
        simulate()
    else:
        from benchmarks import tf_agents_example

        tf_agents_example.collect(distributed=args.worker == DISTRIBUTED)


def main() -> None:
    """Runs the benchmark or, with --worker or --run_dir, one of its processes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--json", type=Path, help="write the results here")
    parser.add_argument("--only", default="", help="contenders whose name holds this text")
    for internal in ("--worker", "--run_dir"):
        parser.add_argument(internal, help=argparse.SUPPRESS)
    parser.add_argument("--server", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker or args.run_dir:
        work(args)
        return
    rates = rounds.measure(contenders(args.only), args.rounds, args.seconds)
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; pieces are wall time\n")
    print(table(rates))
    if args.json:
        results: list[dict[str, Any]] = [r.to_json() for r in rates]
        args.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
