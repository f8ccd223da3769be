"""K gradient steps as one compiled call on a block of packed rows: the trainer's inner loop."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from sactory.rows import RowFormat
from train.agent import METRICS, SacAgent

Update = Callable[[tf.Tensor], dict[str, tf.Tensor]]
Totals = dict[str, tf.Tensor]


def make_update(
    agent: SacAgent, row_format: RowFormat, updates_per_call: int, xla: bool = False
) -> Update:
    """Compiles the update.

    Args:
        agent: What learns.
        row_format: Layout of the rows.
        updates_per_call: Gradient steps K of one call.
        xla: Whether XLA compiles the call.

    Returns:
        A function of rows float32 `[K, B, row]`, one batch of B rows for each step. It returns
        the means of `METRICS` over the K steps, and `finite`: 1 if all of them were finite
        numbers, else 0. A block of another shape compiles the function again.
    """

    @tf.function(jit_compile=xla, autograph=False)
    def update(rows: tf.Tensor) -> dict[str, tf.Tensor]:
        def step(k: tf.Tensor, totals: Totals) -> tuple[tf.Tensor, Totals]:
            metrics = agent.train_step(row_format.unpack(rows[k]))
            return k + 1, {name: totals[name] + metrics[name] for name in METRICS}

        # A loop and not K copies of the step: as fast, and the graph is built in one second.
        _, totals = tf.while_loop(
            lambda k, totals: k < updates_per_call,
            step,
            (tf.constant(0), {name: tf.zeros([]) for name in METRICS}),
            parallel_iterations=1,
            maximum_iterations=updates_per_call,
        )
        means = {name: totals[name] / updates_per_call for name in METRICS}
        finite = tf.math.is_finite(tf.add_n(list(means.values())))
        return {**means, "finite": tf.cast(finite, tf.float32)}

    return update
