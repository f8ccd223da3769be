"""K gradient steps as one compiled call on a block of packed rows: the trainer's inner loop."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from sactory.rows import RowFormat
from train.agent import METRICS, SacAgent

Totals = dict[str, tf.Tensor]
_NAMES = (*METRICS, "finite")


class Update:
    """The compiled update.

    Attributes:
        compiled: Rows float32 `[K, B, row]` to one vector of what `__call__` returns. TensorFlow
            under Python 3.11 loses 48 bytes with every eager tensor, so there is but one.
    """

    def __init__(self, compiled: Callable[[tf.Tensor], tf.Tensor]):
        self.compiled = compiled

    def __call__(self, rows: tf.Tensor) -> dict[str, float]:
        """Takes K gradient steps.

        Args:
            rows: float32 `[K, B, row]`, one batch of B rows for each step. Another shape compiles
                the update again.

        Returns:
            The means of `METRICS` over the K steps, and `finite`: 1 if all of them were finite
            numbers, else 0.
        """
        return dict(zip(_NAMES, self.compiled(rows).numpy().tolist()))


def make_update(
    agent: SacAgent, row_format: RowFormat, updates_per_call: int, xla: bool = False
) -> Update:
    """Compiles the update.

    Args:
        agent: What learns.
        row_format: Layout of the rows.
        updates_per_call: Gradient steps K of one call.
        xla: Whether XLA compiles the call.
    """

    @tf.function(jit_compile=xla, autograph=False)
    def update(rows: tf.Tensor) -> tf.Tensor:
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
        means = [totals[name] / updates_per_call for name in METRICS]
        finite = tf.math.is_finite(tf.add_n(means))
        return tf.stack([*means, tf.cast(finite, tf.float32)])

    return Update(update)
