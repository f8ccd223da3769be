"""Reads and edits Reverb's checkpoints while no server runs.

A checkpoint is three zlib-compressed TFRecord files and an empty DONE:

    tables.tfrecord   a PriorityTableCheckpoint each: settings and the limiter's counters
    items.tfrecord    a PrioritizedItem each, the oldest of a table first; they refer to chunks
    chunks.tfrecord   a ChunkData each: the tensors, compressed with Snappy

Reverb restores the settings from the file and ignores the program's in silence, so that changed
ones must be written into it. Files are read and written record by record: memory stays a small
part of the checkpoint's size.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import tensorflow as tf
from google.protobuf.message import DecodeError
from reverb.cc import schema_pb2
from reverb.cc.checkpointing import checkpoint_pb2

from sactory.errors import UserError
from sactory.tables import REPLAY, identity

TABLES, ITEMS, CHUNKS, DONE = "tables.tfrecord", "items.tfrecord", "chunks.tfrecord", "DONE"
FILES = (TABLES, ITEMS, CHUNKS, DONE)

_BLOCK, _BLOCK_BYTES = 1024, 1 << 20
# Chunks hardly compress any further: more effort takes thrice the time for a few percent.
_COMPRESSION_LEVEL = 1


def records(path: Path) -> Iterator[bytes]:
    """The records of one file.

    Raises:
        tf.errors.OpError: The file is damaged or absent.
    """
    for block in tf.data.TFRecordDataset(str(path), "ZLIB").batch(_BLOCK):
        yield from block.numpy()


@contextlib.contextmanager
def writer(path: Path) -> Iterator[Callable[[bytes], None]]:
    """Yields a function that appends a record to a new file."""
    options = tf.io.TFRecordOptions("ZLIB", compression_level=_COMPRESSION_LEVEL)
    with tf.io.TFRecordWriter(str(path), options) as f:
        yield f.write


def link_or_copy(source: Path, target: Path) -> None:
    """Makes `target` the same file as `source`, or a copy where the file system has no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def read_tables(directory: Path) -> list[Any]:
    """The `PriorityTableCheckpoint` of every table."""
    parse = checkpoint_pb2.PriorityTableCheckpoint.FromString
    return [parse(record) for record in records(directory / TABLES)]


def items(directory: Path) -> Iterator[Any]:
    """The `PrioritizedItem`s of all tables."""
    return map(schema_pb2.PrioritizedItem.FromString, records(directory / ITEMS))


def items_in(table: Any) -> int:
    """Items of a table by the limiter's counters."""
    return table.rate_limiter.insert_count - table.rate_limiter.delete_count


def chunk_keys(item: Any) -> Iterator[int]:
    """Keys of the chunks that an item refers to."""
    for column in item.flat_trajectory.columns:
        for part in column.chunk_slices:
            yield part.chunk_key


def fault(directory: Path) -> str | None:
    """Reads a checkpoint to its end; why Reverb could not restore it, or None.

    For one that no manifest vouches for: its server was killed before it could write it.

    Raises:
        OSError: The disk or its server fails; nothing proves that the checkpoint is damaged.
    """
    missing = [name for name in FILES if not (directory / name).is_file()]
    if missing:
        return f"{', '.join(missing)} missing"
    for name in FILES:  # TensorFlow calls many a failing disk damage
        _read_through(directory / name)
    try:
        chunk = schema_pb2.ChunkData.FromString
        keys = {chunk(record).chunk_key for record in records(directory / CHUNKS)}
        found: Counter[str] = Counter()
        for item in items(directory):
            found[item.table] += 1
            if not keys.issuperset(chunk_keys(item)):
                return f"an item of table {item.table} refers to a chunk that is missing"
        tables = read_tables(directory)
    except (tf.errors.OpError, DecodeError, OSError) as e:
        return f"it can't be read: {str(e).splitlines()[0]}"
    if not tables:
        return f"{TABLES} is empty"
    for table in tables:
        if found[table.table_name] < items_in(table):
            return (
                f"table {table.table_name} has {found[table.table_name]} items, "
                f"its counters say {items_in(table)}"
            )
    return None


def _read_through(path: Path) -> None:
    with open(path, "rb") as f:
        while f.read(_BLOCK_BYTES):
            pass


def rewrite(
    source: Path, target: Path, tables: Iterable[Any], keep: Callable[[Any], bool] | None = None
) -> int:
    """Writes an edited copy of a checkpoint.

    Args:
        source: The checkpoint; it stays as it is.
        target: An empty directory.
        tables: The tables as they shall be. What a table loses counts as deleted.
        keep: Whether an item (`PrioritizedItem`) stays, asked from the oldest of each table to
            its newest; None keeps all.

    Returns:
        Items left out.
    """
    tables, dropped = list(tables), 0
    used: set[int] = set()  # chunks
    if keep is not None:
        kept: Counter[str] = Counter()
        with writer(target / ITEMS) as write:
            for record in records(source / ITEMS):
                item = schema_pb2.PrioritizedItem.FromString(record)
                if keep(item):
                    kept[item.table] += 1
                    used.update(chunk_keys(item))
                    write(record)
                else:
                    dropped += 1
        for table in tables:
            limiter = table.rate_limiter
            limiter.delete_count = limiter.insert_count - kept[table.table_name]
    if dropped:
        with writer(target / CHUNKS) as write:
            for record in records(source / CHUNKS):
                if schema_pb2.ChunkData.FromString(record).chunk_key in used:
                    write(record)
    else:
        (target / ITEMS).unlink(missing_ok=True)
        for name in (ITEMS, CHUNKS):
            link_or_copy(source / name, target / name)
    write_tables(target, tables)
    return dropped


def write_tables(target: Path, tables: Iterable[Any]) -> None:
    """Writes the tables' file and DONE: the last step of a checkpoint."""
    with writer(target / TABLES) as write:
        for table in tables:
            write(table.SerializeToString())
    (target / DONE).touch()


def info_of(table: Any) -> Any:
    """A `reverb.Table`'s settings as a `TableInfo` message."""
    return schema_pb2.TableInfo.FromString(table.internal_table.info())


def table_of(info: Any) -> Any:
    """A `TableInfo`'s settings as a `PriorityTableCheckpoint` with counters of zero."""
    table = checkpoint_pb2.PriorityTableCheckpoint(
        table_name=info.name,
        max_size=info.max_size,
        max_times_sampled=info.max_times_sampled,
        sampler=info.sampler_options,
        remover=info.remover_options,
    )
    for name in ("samples_per_insert", "min_diff", "max_diff", "min_size_to_sample"):
        setattr(table.rate_limiter, name, getattr(info.rate_limiter_info, name))
    if info.HasField("signature"):
        table.signature.CopyFrom(info.signature)
    return table


def conform(source: Path, infos: Iterable[Any]) -> tuple[list[str], Callable[[Path], object]]:
    """Compares a checkpoint's settings with the server's.

    Counters are carried over; where a table got smaller its oldest items go; tables that the
    server doesn't have any more go with their items.

    Args:
        source: The checkpoint.
        infos: The server's tables (`info_of`).

    Returns:
        What must change, in words (nothing if the checkpoint conforms), and a function that writes
        the conforming copy into an empty directory.

    Raises:
        UserError: The items have another form than the run's.
    """
    wanted = {info.name: info for info in infos}
    tables, changes = [], []
    overflow: Counter[str] = Counter()
    found = read_tables(source)
    # Another run's weights, state and reports would pass for this run's: its end, say.
    is_fork = any(
        t.table_name not in wanted and t.table_name.startswith(identity("")) for t in found
    )
    for old in found:
        name = old.table_name
        if name not in wanted:
            changes.append(f"table {name} is gone")
            overflow[name] = items_in(old)
            continue
        new = _conformed(old, wanted[name], source)
        if new != old:
            changes.append(f"table {name}: {_difference(old, new)}")
        overflow[name] = max(0, items_in(old) - new.max_size)
        if is_fork and name != REPLAY:
            changes.append(f"table {name}: emptied")
            overflow[name] = items_in(old)
        tables.append(new)

    def keep(item: Any) -> bool:
        overflow[item.table] -= 1
        return overflow[item.table] < 0

    only_newest = keep if any(overflow.values()) else None
    return changes, lambda target: rewrite(source, target, tables, only_newest)


def _conformed(old: Any, info: Any, source: Path) -> Any:
    """A table's checkpoint with the settings of `info` and its own counters."""
    new = table_of(info)
    if new.signature != old.signature:
        raise UserError(
            f"{source} holds items of {_form(old)} in table {old.table_name}, the run's are "
            f"{_form(new)}: what rows are can't change on the way; start another run directory"
        )
    new.num_deleted_episodes = old.num_deleted_episodes
    new.num_unique_samples = old.num_unique_samples
    limiter, before = new.rate_limiter, old.rate_limiter
    limiter.insert_count, limiter.delete_count = before.insert_count, before.delete_count
    limiter.sample_count = before.sample_count
    rates = before.samples_per_insert, limiter.samples_per_insert
    beyond = before.insert_count - limiter.min_size_to_sample
    if rates[0] != rates[1] and beyond > 0 and not _is_free(limiter):
        # With another rate the samples drawn so far would look like a debt or a credit of the
        # trainer, of hours: it keeps the lead or lag that it has.
        lead = 0 if _is_free(before) else before.sample_count - round(rates[0] * beyond)
        limiter.sample_count = max(0, round(rates[1] * beyond) + lead)
    return new


def _is_free(limiter: Any) -> bool:
    """Whether a limiter bounds the ratio of samples to inserts on no side."""
    return limiter.min_diff < -1e300 and limiter.max_diff > 1e300


def _difference(old: Any, new: Any) -> str:
    """The fields that differ, as `max_size 100 -> 50`."""
    parts = []
    for a, b in ((old, new), (old.rate_limiter, new.rate_limiter)):
        for field in a.DESCRIPTOR.fields:
            if field.name == "rate_limiter" or field.label == field.LABEL_REPEATED:
                continue
            was, now = getattr(a, field.name), getattr(b, field.name)
            if was != now:
                words = (" ".join(str(value).split()) for value in (was, now))
                parts.append(f"{field.name} {' -> '.join(words)}")
    return ", ".join(parts)


def _form(table: Any) -> str:
    spec = table.signature.tensor_spec_value
    return f"{tf.as_dtype(spec.dtype).name} {[dim.size for dim in spec.shape.dim]}"
