"""Updates per second of the learner alone: K, XLA and threads, side by side.

    python benchmarks/learner.py [--rounds 5] [--seconds 1.5] [--json FILE] [--only TEXT]

cheetah-run's sizes: 17 observations, 6 actions, 256x256 networks, batches of 256, one block that
stays in memory. Every variant is a process of its own; all are started first and then measured in
turn, round after round, so that a noisy machine hurts them alike. Rates are medians of the rounds,
per second of wall clock and per second of CPU; only the latter means much on a busy machine.
`limit` is the share of what a 256x256x256 product alone would allow, measured in the same rounds.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

OBSERVATIONS, ACTIONS, HIDDEN, BATCH = 17, 6, 256, 256


@dataclasses.dataclass(frozen=True)
class Variant:
    """One way to run the update.

    Attributes:
        cores: Cores the process may use.
        intra: TensorFlow's threads inside one operation.
        inter: TensorFlow's operations side by side.
        k: Gradient steps of one call; 0: the matrix product instead of an update.
        xla: Whether XLA compiles the call.
    """

    cores: int
    intra: int
    inter: int
    k: int
    xla: bool = False

    def __str__(self) -> str:
        threads = (
            f"{self.cores} core{'s' * (self.cores > 1)}, {self.intra} intra, {self.inter} inter"
        )
        what = f"K = {self.k}{', XLA' * self.xla}" if self.k else "256x256x256 product"
        return f"{threads}, {what}"


PRODUCT = Variant(1, 1, 1, 0)
VARIANTS = (
    PRODUCT,
    *(Variant(1, 1, 1, k) for k in (1, 4, 16, 64)),
    Variant(1, 1, 1, 16, xla=True),
    Variant(1, 1, 2, 16),
    *(Variant(2, intra, inter, 16) for intra, inter in ((1, 1), (1, 2), (1, 3), (2, 1), (2, 2))),
    Variant(2, 1, 2, 64),
    Variant(2, 2, 2, 16, xla=True),
)


def update_flops() -> float:
    """Floating-point operations of the products of one update."""
    policy = OBSERVATIONS * HIDDEN + HIDDEN * HIDDEN + HIDDEN * 2 * ACTIONS
    critic = (OBSERVATIONS + ACTIONS) * HIDDEN + HIDDEN * HIDDEN + HIDDEN
    # Policy: s and s' forward, s backward (weights and input). Each critic: target forward,
    # forward and backward at (s, a), forward and backward to the input at (s, a~).
    first = OBSERVATIONS * HIDDEN + 2 * (OBSERVATIONS + ACTIONS) * HIDDEN  # no input gradient
    return 2.0 * BATCH * (4 * policy + 2 * (3 + 2 + 1) * critic - first)


def build(variant: Variant) -> Callable[[], Any]:
    """What the worker of a variant calls; each call is `max(k, 1)` updates or 100 products."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: variant.cores])
    import numpy as np
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(variant.intra)
    tf.config.threading.set_inter_op_parallelism_threads(variant.inter)
    rng = np.random.default_rng(0)
    if variant.k == 0:
        a = tf.constant(rng.normal(size=(256, 256)) / 16, tf.float32)

        @tf.function(autograph=False)
        def products() -> tf.Tensor:
            x = a
            for _ in range(100):
                x = tf.matmul(x, a)
            return x

        return products

    from tf_agents.specs import tensor_spec
    from tf_agents.trajectories import time_step as ts

    from sactory import settings
    from sactory.rows import flat_row_format
    from train.agent import SacAgent
    from train.update import make_update

    observation = tf.TensorSpec([OBSERVATIONS], tf.float32)
    action = tensor_spec.BoundedTensorSpec([ACTIONS], tf.float32, -1.0, 1.0)
    agent_settings = settings.SacAgent(hidden_sizes=(HIDDEN, HIDDEN))
    agent = SacAgent(ts.time_step_spec(observation), action, agent_settings)
    agent.initialize()
    row_format = flat_row_format(observation, action)
    rows = rng.uniform(-1, 1, (variant.k, BATCH, row_format.size)).astype(np.float32)
    block = tf.constant(rows)
    update = make_update(agent, row_format, variant.k, variant.xla)
    return lambda: update(block)


def work(variant: Variant) -> None:
    """A worker: prints the first call's seconds, then a pair of rates for every line it reads."""
    call = build(variant)
    began = time.perf_counter()
    call()
    print(time.perf_counter() - began, flush=True)
    call()
    units = variant.k or 100
    for line in sys.stdin:
        calls, wall, cpu = 0, time.perf_counter(), time.process_time()
        while time.perf_counter() - wall < float(line):
            call()
            calls += 1
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        print(json.dumps([units * calls / wall, units * calls / cpu]), flush=True)


class Worker:
    """The parent's side of one variant's process."""

    def __init__(self, variant: Variant):
        self.variant = variant
        self.rates: list[tuple[float, float]] = []
        root = Path(__file__).resolve().parent.parent
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--worker", json.dumps(dataclasses.asdict(variant))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "PYTHONPATH": str(root)},
        )
        self.first_call = float(self._read())

    def _read(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(
                f"the worker of '{self.variant}' died: run it with --worker to see why"
            )
        return line

    def measure(self, seconds: float) -> None:
        """Runs the variant for a while."""
        assert self._process.stdin is not None
        print(seconds, file=self._process.stdin, flush=True)
        self.rates.append(tuple(json.loads(self._read())))

    def close(self) -> None:
        """Ends the process."""
        self._process.communicate()


def run(variants: list[Variant], rounds: int, seconds: float) -> list[dict[str, Any]]:
    """Measures all variants in turn and returns one result for each."""
    workers: list[Worker] = []
    try:
        workers.extend(Worker(variant) for variant in variants)
        for _ in range(rounds):
            for worker in workers:
                worker.measure(seconds)
    finally:
        for worker in workers:
            worker.close()
    results = []
    for worker in workers:
        wall, cpu = (statistics.median(rates) for rates in zip(*worker.rates))
        results.append(
            {
                "name": str(worker.variant),
                **dataclasses.asdict(worker.variant),
                "first_call_seconds": worker.first_call,
                "per_second": wall,
                "per_core_second": cpu,
                "rounds": worker.rates,
            }
        )
    return results


def show(results: list[dict[str, Any]]) -> None:
    """Prints the table."""
    products = [r["per_core_second"] for r in results if r["k"] == 0]
    limit = 2.0 * 256**3 * products[0] / update_flops() if products else float("nan")
    print(f"{update_flops() / 1e6:.0f} MFLOP an update; products alone: {limit:.0f} a core-second")
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print(f"{'variant':<44}{'first call':>11}{'per s':>8}{'per core-s':>12}{'limit':>8}")
    for r in results:
        if r["k"] == 0:
            continue
        rates = f"{r['per_second']:8.1f}{r['per_core_second']:12.1f}"
        share = f"{r['per_core_second'] / limit:8.2f}"
        print(f"{r['name']:<44}{r['first_call_seconds']:9.1f} s{rates}{share}")


def main() -> None:
    """Runs the benchmark or, with --worker, one of its processes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.5, help="of each measurement")
    parser.add_argument("--json", type=Path, help="write the results here")
    parser.add_argument("--only", default="", help="variants whose name holds this text")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        work(Variant(**json.loads(args.worker)))
        return
    cores = len(os.sched_getaffinity(0))
    possible = [v for v in VARIANTS if v.cores <= cores]
    results = run(
        [v for v in possible if v == PRODUCT or args.only in str(v)], args.rounds, args.seconds
    )
    show(results)
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
