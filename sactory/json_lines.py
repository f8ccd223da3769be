"""Logs of JSON rows, one to a line: appending so that no crash leaves half a row in the middle.

Knows nothing of what the rows mean; `sactory.metrics` does.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def plain(value: Any) -> Any:
    """A value as JSON holds it: numpy and TensorFlow scalars unpacked, non-finite ones null."""
    if hasattr(value, "numpy"):
        value = value.numpy()
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): plain(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return value


def read_log(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSON-lines log; a line that a crash cut short is passed over."""
    try:
        lines = path.read_bytes().split(b"\n")
    except (FileNotFoundError, NotADirectoryError):
        return []
    rows = []
    for line in lines:
        with contextlib.suppress(ValueError):
            row = json.loads(line)
            if isinstance(row, dict):
                rows.append(row)
    return rows


class JsonLines:
    """An appended file of JSON rows: each line is whole, whatever happened before or happens now.

    Args:
        path: The file; its directory is made.
    """

    def __init__(self, path: Path):
        self._path = path
        self._fd: int | None = None

    def append(self, row: Mapping[str, Any]) -> None:
        """Writes one row with one system call.

        Raises:
            OSError: The row is not in the file, nor any part of it.
        """
        if self._fd is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(
                self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600
            )
        size = os.fstat(self._fd).st_size
        cut = size > 0 and os.pread(self._fd, 1, size - 1) != b"\n"  # by a crash
        line = b"\n" * cut + json.dumps(row, allow_nan=False).encode() + b"\n"
        written = os.write(self._fd, line)
        if written < len(line):  # the disk filled up within the line
            os.ftruncate(self._fd, size)
            raise OSError(f"{self._path}: {written} of {len(line)} bytes written, the disk is full")

    def close(self) -> None:
        """Closes the file."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
