"""Reverb's tables: their names, the rate limiter's arithmetic, and how the server builds them.

Counting: an item of the replay table is one segment of `segment_length` rows, so a limit given in
rows becomes items here, and nowhere else.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

from sactory import settings
from sactory.errors import UserError

if TYPE_CHECKING:  # numpy must not be loaded before a program has claimed its cores
    from sactory.rows import RowFormat

REPLAY = "replay"  # segments of packed rows
WEIGHTS = "weights"  # one item: version and flat vector of the collect policy
PROGRESS = "progress"  # what collectors report, drained by the trainer
STATE = "state"  # one item: the run's counters, published by the trainer

MAX_PROGRESS_RECORDS = 10_000
_UNLIMITED = 1e15


@dataclasses.dataclass(frozen=True)
class ReplayLimits:
    """The replay table's numbers in items.

    Attributes:
        max_size: Items kept; the oldest goes first.
        min_size: Items before the first sample.
        samples_per_insert: Samples drawn per item inserted; None samples freely.
        error_buffer: Samples that either side may run ahead of the exact ratio.
        holds_inserts: Whether collectors wait when the trainer is behind (mode `sync`).
    """

    max_size: int
    min_size: int
    samples_per_insert: float | None
    error_buffer: float
    holds_inserts: bool


def pool_items(learner: settings.Learner, segment_length: int) -> int:
    """Items in one pool: what one call of the compiled update consumes."""
    return learner.updates_per_call * learner.batch_size // segment_length


def replay_limits(
    replay: settings.Replay,
    learner: settings.Learner,
    worker: settings.Worker,
    num_collectors: int,
) -> ReplayLimits:
    """Works out the replay table's limits from the settings.

    One item in and `samples_per_insert` items out means `segment_length` rows in and
    `updates_per_row * batch_size * segment_length` rows out, so the length cancels.

    Raises:
        UserError: The table couldn't hold the random steps, or nothing could ever be sampled.
    """
    length = replay.segment_length
    max_size = replay.capacity // length
    min_size = max(1, math.ceil(worker.random_steps / length))
    if max_size <= min_size:
        raise UserError(
            f"replay.capacity = {replay.capacity} rows can't hold more than collect.Worker."
            f"random_steps = {worker.random_steps} rows in segments of {length}: raise the "
            "capacity or lower the random steps"
        )
    if replay.updates_per_row is None:
        return ReplayLimits(max_size, min_size, None, 0.0, False)
    samples_per_insert = replay.updates_per_row * learner.batch_size
    # Two pools may be under way to the trainer while it works on a third, and all writers may
    # deliver what they hold at once; less than this and both sides could wait for each other.
    burst = samples_per_insert * math.ceil(worker.num_envs / length) * num_collectors
    error_buffer = max(1.0, 2.0 * pool_items(learner, length) + burst)
    return ReplayLimits(max_size, min_size, samples_per_insert, error_buffer, replay.mode == "sync")


def check(
    replay: settings.Replay,
    learner: settings.Learner,
    worker: settings.Worker,
    num_collectors: int,
) -> None:
    """Raises `UserError` where the settings make no working table. Needs no Reverb."""
    replay_limits(replay, learner, worker, num_collectors)


def rate_limiter(limits: ReplayLimits) -> Any:
    """The Reverb rate limiter of the replay table."""
    from reverb import rate_limiters

    if limits.samples_per_insert is None:
        return rate_limiters.MinSize(limits.min_size)
    offset = limits.samples_per_insert * limits.min_size
    return rate_limiters.RateLimiter(
        samples_per_insert=limits.samples_per_insert,
        min_size_to_sample=limits.min_size,
        min_diff=offset - limits.error_buffer,
        max_diff=offset + limits.error_buffer if limits.holds_inserts else _UNLIMITED,
    )


def identity(run_id: str) -> str:
    """Name of the empty table by which clients know their run's server from another's."""
    return f"run-{run_id}"


def build_tables(
    row: RowFormat, limits: ReplayLimits, segment_length: int, run_id: str
) -> list[Any]:
    """All tables of the replay server.

    Only the replay table has a signature; the others hold small messages of varying size.
    """
    import reverb
    import tensorflow as tf

    def newest_only(name: str) -> Any:
        fifo = reverb.selectors.Fifo
        return reverb.Table(name, fifo(), fifo(), 1, reverb.rate_limiters.MinSize(1))

    return [
        reverb.Table(
            REPLAY,
            sampler=reverb.selectors.Uniform(),
            remover=reverb.selectors.Fifo(),
            max_size=limits.max_size,
            rate_limiter=rate_limiter(limits),
            signature=tf.TensorSpec([segment_length, row.size], tf.float32),
        ),
        newest_only(WEIGHTS),
        newest_only(STATE),
        newest_only(identity(run_id)),
        reverb.Table(
            PROGRESS,
            sampler=reverb.selectors.Fifo(),
            remover=reverb.selectors.Fifo(),
            max_size=MAX_PROGRESS_RECORDS,
            max_times_sampled=1,
            rate_limiter=reverb.rate_limiters.MinSize(1),
        ),
    ]
