"""What the replay server's protection costs: a private socket and mutual TLS beside the plain port.

    python -m benchmarks.connections [--rounds=5] [--env_steps=2500]

Raw: a writer that waits for each answer and a sampling stream, each by itself, segments of one row.
End to end: whole runs of cheetah_run, one update a row; on one host those take the socket, so TLS
is measured raw only. All ways take turns; medians are compared with the plain port's. Results:
benchmarks/results/connections.json.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.chaos.subject import ROOT, Subject
from sactory import init_run, quiet
from sactory.errors import UserError
from sactory.flags import Flags, run_script
from sactory.run_dir import RunDir, write_json

RESULT = ROOT / "benchmarks" / "results" / "connections.json"
CONFIG = "configs/tasks/cheetah_run.gin"
_FREE = (
    "replay.mode = 'async'",
    "replay.updates_per_row = None",
    "collect.Worker.random_steps = 100",
)
_BATCH, _WARM_UP_UPDATES = 256, 200


@dataclasses.dataclass(frozen=True)
class Way:
    """A way to connect.

    Attributes:
        name: For the table.
        link: Which of `other_links` the programs use; empty: their own.
        listen: `replay_server.listen`.
        flags: Of the program that starts the server.
        whole_runs: Whether they are measured too.
    """

    name: str
    link: str = ""
    listen: str = "local"
    flags: tuple[str, ...] = ()
    whole_runs: bool = True

    @property
    def environment(self) -> dict[str, str]:
        """Of all processes."""
        if not self.link:
            return {**os.environ, "PYTHONPATH": str(ROOT)}
        path = f"{ROOT / 'benchmarks' / 'other_links'}:{ROOT}"
        return {**os.environ, "PYTHONPATH": path, "LINK": self.link}


PLAIN = Way("plain port", "plain", flags=("--insecure_listen",))
WAYS = (PLAIN, Way("private socket"), Way("mutual TLS", "tls", "network", whole_runs=False))


def raw(way: Way, seconds: float, place: Path) -> dict[str, float]:
    """Rates of a server and one client, each a process of its own.

    Returns:
        Rows inserted and batches sampled per second, and the client's CPU seconds for each.
    """
    run_dir = RunDir(place / "run")
    init_run.init(run_dir, ROOT / CONFIG, [*_FREE, f"replay_server.listen = '{way.listen}'"])
    words = [sys.executable, "-m", "sactory.cli", "replay-server", "--run_dir", str(run_dir)]
    server = subprocess.Popen([*words, *way.flags], cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        while not run_dir.address.exists():
            if server.poll() is not None:
                raise UserError(f"the replay server ended with {server.returncode}")
            time.sleep(0.1)
        words = [sys.executable, "-m", "benchmarks.connections"]
        words += [f"--client={run_dir}", f"--seconds={seconds}"]
        done = subprocess.run(
            words,
            cwd=ROOT,
            env=way.environment,
            check=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        return json.loads(done.stdout.splitlines()[-1])
    finally:
        server.send_signal(signal.SIGKILL)
        server.wait()


def client(run_dir: RunDir, seconds: float) -> None:
    """Inserts, then samples, each for some seconds, and prints the rates."""
    quiet.set_environment()  # a proxy would cut gRPC off from the plain port
    import numpy as np
    import reverb
    import tensorflow as tf

    from collect.writer import SegmentWriter
    from sactory import client as client_lib
    from sactory import supervision, tables
    from sactory.specs import Specs

    connected = client_lib.connect(run_dir, supervision.Stop().event)
    assert connected is not None
    size = Specs.load(run_dir).row.size
    writer = SegmentWriter(connected, 1, size)
    row = np.random.default_rng(0).normal(size=(1, size)).astype(np.float32)

    def insert() -> None:
        while not writer.flush(10.0):
            continue
        writer.add(row)

    def rate(call: Any) -> tuple[float, float]:
        for _ in range(20):
            call()
        calls, wall, cpu = 0, time.perf_counter(), time.process_time()
        while (passed := time.perf_counter() - wall) < seconds:
            call()
            calls += 1
        return calls / passed, (time.process_time() - cpu) / calls

    inserts, insert_cpu = rate(insert)
    writer.flush(10.0)
    stream = reverb.TrajectoryDataset(
        server_address=client_lib.target(run_dir),
        table=tables.REPLAY,
        dtypes=tf.float32,
        shapes=tf.TensorShape([1, size]),
        max_in_flight_samples_per_worker=2 * _BATCH,
        num_workers_per_iterator=1,
    )
    batches = iter(stream.batch(_BATCH))
    samples, sample_cpu = rate(lambda: next(batches))
    told = {"inserts": inserts, "insert_cpu": insert_cpu}
    print(json.dumps({**told, "batches": samples, "batch_cpu": sample_cpu}), flush=True)
    os._exit(0)  # Reverb's threads would abort Python's own end


def end_to_end(way: Way, env_steps: int, place: Path) -> float:
    """Env steps per second of a whole run that trains."""
    settings = {
        "run.max_env_steps": 10_000_000,
        "replay_server.listen": way.listen,
        "collect.Worker.random_steps": 1_000,
        "eval.Evaluator.every_env_steps": 1_000_000,
        "eval.Evaluator.video": False,
    }
    subject = Subject(place / "run", CONFIG, settings)
    subject.words += way.flags
    subject.environment = way.environment
    subject.start()
    try:
        first = subject.wait_until(lambda now: now.train_steps >= _WARM_UP_UPDATES, 900)
        began = time.monotonic()
        if first is None:
            raise UserError(f"the run did not begin: see {subject.console}")
        due = first.env_steps + env_steps
        last = subject.wait_until(lambda now: now.env_steps >= due, 1800)
        if last is None:
            raise UserError(f"the run did not go on: see {subject.console}")
        return (last.env_steps - first.env_steps) / (time.monotonic() - began)
    finally:
        subject.end()


def table(rounds: dict[str, list[dict[str, float]]]) -> str:
    """Medians as Markdown, rates as shares of the plain port's."""
    middle = {
        name: {k: statistics.median(r[k] for r in mine) for k in mine[0]}
        for name, mine in rounds.items()
        if mine
    }
    plain = middle[PLAIN.name]
    lines = [
        "| | inserts | collector's CPU an insert | batches of 256 | trainer's CPU a batch "
        "| env steps/s, whole run |",
        "|---|---|---|---|---|---|",
    ]
    for name, m in middle.items():
        whole = "-"
        if "env_steps" in m:
            whole = f"{m['env_steps']:.0f} ({m['env_steps'] / plain['env_steps']:.2f})"
        lines.append(
            f"| {name} | {m['inserts'] / plain['inserts']:.2f} | {1e6 * m['insert_cpu']:.0f} µs "
            f"| {m['batches'] / plain['batches']:.2f} | {1e3 * m['batch_cpu']:.2f} ms "
            f"| {whole} |"
        )
    return "\n".join(lines)


def main(argv: list[str]) -> int:
    """Measures all ways in turn and prints the table."""
    flags = Flags("connections", "Compares the ways to connect to the replay server.")
    flags.integer("rounds", 5, "repeats, of which medians are taken")
    flags.float("seconds", 3.0, "of each raw measurement")
    flags.integer("env_steps", 2_500, "of each whole run")
    flags.string("client", None, "be the client of this run directory (used by itself)")
    args, _ = flags.parse(argv)
    if args.client:
        client(RunDir(args.client), args.seconds)
        return 0
    load = os.getloadavg()
    rounds: dict[str, list[dict[str, float]]] = {way.name: [] for way in WAYS}
    for number in range(args.rounds):
        for way in WAYS:
            with tempfile.TemporaryDirectory() as place:
                rates = raw(way, args.seconds, Path(place))
            if way.whole_runs:
                with tempfile.TemporaryDirectory() as place:
                    rates["env_steps"] = end_to_end(way, args.env_steps, Path(place))
            rounds[way.name].append(rates)
            print(f"round {number + 1}, {way.name}: {json.dumps(rates)}", flush=True)
            result = {
                "rounds": rounds,
                "load_at_start_and_end": [round(load[0], 1), round(os.getloadavg()[0], 1)],
                "command": "python -m benchmarks.connections",
            }
            write_json(RESULT, result)
    print(table(rounds))
    return 0


if __name__ == "__main__":
    run_script(main)
