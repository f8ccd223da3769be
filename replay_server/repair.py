"""Takes bad items out of a checkpoint: what no trainer can use, or what stops a table for good.

The trainer, which sees bad rows first, asks for it with R/repair.json; the server then saves, ends
and does the work at its next start.
"""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import cramjam
import numpy as np
import tensorflow as tf
from absl import logging
from reverb.cc import schema_pb2

from replay_server import offline
from replay_server.history import Copy, History
from sactory.rows import UNSOUND, sound


class Column(NamedTuple):
    """One column of a chunk: T steps of arrays.

    Attributes:
        dtype: TensorFlow's number of the type.
        shape: Of one step.
        steps: T.
        bad: Steps that can't be learned from; all of them if the data can't be read.
    """

    dtype: int
    shape: tuple[int, ...]
    steps: int
    bad: frozenset[int]


class Judge:
    """Says which items of a checkpoint are bad.

    Attributes:
        faults: How many items were refused for which reason.

    Args:
        directory: The checkpoint.
    """

    def __init__(self, directory: Path):
        self.faults: Counter[str] = Counter()
        self._signatures = {
            table.table_name: [
                (spec.dtype, tuple(dim.size for dim in spec.shape.dim)) for spec in _specs(table)
            ]
            for table in offline.read_tables(directory)
            if table.HasField("signature")
        }
        self._chunks: dict[int, tuple[Column, ...]] = {}
        seen: dict[Any, Any] = {}  # chunks are much alike: equal columns are kept once
        for record in offline.records(directory / offline.CHUNKS):
            chunk = schema_pb2.ChunkData.FromString(record)
            columns = tuple(_column(tensor) for tensor in chunk.data.tensors)
            self._chunks[chunk.chunk_key] = seen.setdefault(columns, columns)

    def is_good(self, item: Any) -> bool:
        """Whether an item (`PrioritizedItem`) may stay."""
        fault = self._fault(item)
        if fault:
            self.faults[f"table {item.table}: {fault}"] += 1
        return fault is None

    def _fault(self, item: Any) -> str | None:
        if not 0 <= item.priority < math.inf:
            return "priority negative or not finite"
        columns = [self._parts(column) for column in item.flat_trajectory.columns]
        if not all(columns):
            return "its data is missing"
        wanted = self._signatures.get(item.table)
        if wanted is None:
            return None
        forms = [_form(c, parts) for c, parts in zip(item.flat_trajectory.columns, columns)]
        if forms != wanted:
            return "wrong shape or type"
        for parts in columns:
            for column, first, length in parts:
                if not column.bad.isdisjoint(range(first, first + length)):
                    return f"{UNSOUND}, or unreadable data"
        return None

    def _parts(self, column: Any) -> list[tuple[Column, int, int]]:
        """The pieces of chunks that one column of an item consists of; [] if one is missing."""
        parts = []
        for piece in column.chunk_slices:
            columns = self._chunks.get(piece.chunk_key, ())
            if piece.index >= len(columns):
                return []
            if not 0 < piece.length <= columns[piece.index].steps - piece.offset:
                return []
            parts.append((columns[piece.index], piece.offset, piece.length))
        return parts


def _specs(table: Any) -> list[Any]:
    """The arrays of a table's signature: our tables have one column."""
    return [table.signature.tensor_spec_value]


def _form(column: Any, parts: list[tuple[Column, int, int]]) -> tuple[int, tuple[int, ...]] | None:
    """Type and shape of one column of an item, or None if its pieces differ."""
    if len({(part.dtype, part.shape) for part, _, _ in parts}) > 1:
        return None
    length = sum(n for _, _, n in parts)
    if column.squeeze and length != 1:
        return None
    part = parts[0][0]
    return part.dtype, part.shape if column.squeeze else (length, *part.shape)


def _column(tensor: Any) -> Column:
    """Looks at one compressed tensor `[T, ...]` of a chunk."""
    shape = tuple(dim.size for dim in tensor.tensor_shape.dim)
    steps, shape = (shape[0], shape[1:]) if shape else (0, ())
    bad: Any = ()
    dtype = tf.as_dtype(tensor.dtype)
    if dtype.is_floating:
        try:
            data = bytes(cramjam.snappy.decompress_raw(tensor.tensor_content))
            flat = np.frombuffer(data, dtype.as_numpy_dtype)
            bad = np.flatnonzero(~sound(flat.reshape(steps, -1))).tolist()
        except (ValueError, cramjam.DecompressionError):
            bad = range(steps)
    return Column(tensor.dtype, shape, steps, frozenset(bad))


def find_bad(directory: Path) -> set[int]:
    """Keys of the bad items of a checkpoint; how many there are of each kind is logged."""
    judge = Judge(directory)
    bad = {item.key for item in offline.items(directory) if not judge.is_good(item)}
    for fault, count in judge.faults.items():
        logging.warning("%d bad items in the replay, %s", count, fault)
    return bad


def clean(history: History, copy: Copy) -> tuple[Copy, int]:
    """Makes a copy without the bad items of `copy`.

    Returns:
        The copy to go on with, which is `copy` itself if nothing is bad, and how many items were
        taken out.
    """
    bad = find_bad(copy.path)
    if not bad:
        logging.warning("every item of the replay is good")
        return copy, 0
    tables = offline.read_tables(copy.path)
    cleaned = history.make(
        "repaired",
        lambda target: offline.rewrite(copy.path, target, tables, lambda i: i.key not in bad),
    )
    return cleaned, len(bad)
