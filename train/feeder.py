"""Brings sampled rows to the learner: a background thread fills pools of K batches.

It owns the connection that samples; the learner only takes whole blocks from a short queue.
"""

from __future__ import annotations

import queue
import threading

import reverb
import tensorflow as tf
from absl import logging

from sactory import settings, tables
from sactory.tables import REPLAY
from train.poison import Poison, PoisonError

_QUEUED_BLOCKS = 1


class Feeder:
    """Samples segments uniformly and mixes their rows into blocks `[K, B, row]`.

    Every row of a pool is used once. With segments of one row this is classic uniform replay.

    Args:
        target: The replay server, as Reverb's objects name it.
        learner: K = `updates_per_call`, B = `batch_size`, and how many samples to ask for ahead.
        segment_length: L, rows per item; divides K B.
        row_size: Floats per row.
        seed: Of the mixing.
        poison: What to do about rows that can't be learned from.
    """

    def __init__(
        self,
        target: str,
        learner: settings.Learner,
        segment_length: int,
        row_size: int,
        seed: int,
        poison: Poison,
    ):
        self._shape = (learner.updates_per_call, learner.batch_size, row_size)
        self._length = segment_length
        self._items = tables.pool_items(learner, segment_length)
        self._in_flight = learner.max_in_flight or max(2, min(self._items, 2 * learner.batch_size))
        self._seed = seed
        self._blocks: queue.Queue[tf.Tensor] = queue.Queue(_QUEUED_BLOCKS)
        self._target = target
        self.poison = poison
        self.error: Exception | None = None
        threading.Thread(target=self._fill, name="feeder", daemon=True).start()

    def get(self, timeout: float) -> tf.Tensor | None:
        """The next block, float32 `[K, B, row]`, or None if none came in time.

        Raises:
            RuntimeError: The stream broke for good.
        """
        try:
            return self._blocks.get(timeout=timeout)
        except queue.Empty:
            if self.error is not None:
                raise RuntimeError(f"sampling from the replay server failed: {self.error}") from (
                    self.error
                )
            return None

    def _dataset(self) -> tf.data.Dataset:
        dataset = reverb.TrajectoryDataset(
            server_address=self._target,
            table=REPLAY,
            dtypes=tf.float32,
            shapes=tf.TensorShape([self._length, self._shape[-1]]),
            max_in_flight_samples_per_worker=self._in_flight,
            num_workers_per_iterator=1,
        )
        dataset = dataset.batch(self._items, drop_remainder=True).map(self._mix)
        options = tf.data.Options()
        options.threading.private_threadpool_size = 1
        options.autotune.enabled = False
        return dataset.with_options(options)

    def _fill(self) -> None:
        try:
            while True:
                try:
                    for block in self._dataset():
                        self.poison.check(block)
                        self._blocks.put(block)
                    raise RuntimeError("the stream ended")
                except tf.errors.InvalidArgumentError as e:
                    self.poison.drop(f"an item of another shape or type: {e.message}")
                except PoisonError as e:
                    self.poison.drop(str(e))
        except Exception as e:  # whatever it is must reach `get`, not only end this thread
            logging.error("the sampling stream broke: %s", e)
            self.error = e

    def _mix(self, sample: reverb.ReplaySample) -> tf.Tensor:
        """Segments `[N, L, row]` to a block; rows of one segment spread over the pool."""
        rows = tf.reshape(sample.data, [-1, self._shape[-1]])
        if self._length > 1:
            rows = tf.random.shuffle(rows, seed=self._seed)
        return tf.reshape(rows, self._shape)
