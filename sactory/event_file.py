"""A TensorBoard event file, written without TensorFlow and without a thread.

TensorBoard's own writer hides its thread's errors until the next call, and then raises for ever.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class EventFile:
    """Scalars of one program since its start; TensorBoard joins the files of a directory.

    Args:
        directory: Made at the first write.
    """

    def __init__(self, directory: Path):
        self._directory = directory
        self._writer: Any = None
        self._file: Any = None

    def _open(self) -> Any:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._directory.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
        self._file = open(self._directory / name, "ab")  # noqa: SIM115  (open until close)
        writer = RecordWriter(self._file)
        writer.write(Event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString())
        return writer

    def add(self, values: Mapping[str, float], step: int, wall_time: float) -> None:
        """Adds scalars.

        Args:
            values: By tag.
            step: Env steps.
            wall_time: Unix seconds.
        """
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        if self._writer is None:
            self._writer = self._open()
        summary = Summary(
            value=[Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        )
        event = Event(wall_time=wall_time, step=step, summary=summary)
        self._writer.write(event.SerializeToString())

    def flush(self) -> None:
        """Hands what was added to the system."""
        if self._file is not None:
            self._file.flush()

    def close(self) -> None:
        """Flushes and closes."""
        if self._file is not None:
            file, self._file, self._writer = self._file, None, None
            file.close()
