"""Updates per second of the learner alone: K, XLA and threads, side by side.

    python -m benchmarks.learner [--rounds 5] [--seconds 1.5] [--json FILE] [--only TEXT]

cheetah-run's sizes: 17 observations, 6 actions, 256x256 networks, batches of 256, one block that
stays in memory. Variants are measured in turn (`rounds`); on a busy machine only the rates per
second of CPU mean much. `limit` is the share of what a 256x256x256 product alone would allow,
measured in the same rounds.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import rounds, worker

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
    worker.use_cores(variant.cores)
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


def contender(variant: Variant) -> rounds.Worker:
    """The process that measures a variant."""
    words = ("-m", "benchmarks.learner", "--worker", json.dumps(dataclasses.asdict(variant)))
    return rounds.Worker(str(variant), (sys.executable, *words))


def show(results: list[tuple[Variant, rounds.Rates]]) -> None:
    """Prints the table."""
    products = [r.per_core_second for v, r in results if v.k == 0]
    limit = 2.0 * 256**3 * products[0] / update_flops() if products else float("nan")
    print(f"{update_flops() / 1e6:.0f} MFLOP an update; products alone: {limit:.0f} a core-second")
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print(f"{'variant':<44}{'first call':>11}{'per s':>8}{'per core-s':>12}{'limit':>8}")
    for variant, r in results:
        if variant.k == 0:
            continue
        rates = f"{r.per_second:8.1f}{r.per_core_second:12.1f}"
        share = f"{r.per_core_second / limit:8.2f}"
        print(f"{r.name:<44}{r.first_seconds:9.1f} s{rates}{share}")


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
        variant = Variant(**json.loads(args.worker))
        worker.serve(build(variant), variant.k or 100)
    cores = len(os.sched_getaffinity(0))
    possible = [v for v in VARIANTS if v.cores <= cores]
    chosen = [v for v in possible if v == PRODUCT or args.only in str(v)]
    rates = rounds.measure([contender(v) for v in chosen], args.rounds, args.seconds)
    show(list(zip(chosen, rates)))
    if args.json:
        results = [{**dataclasses.asdict(v), **r.to_json()} for v, r in zip(chosen, rates)]
        args.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
