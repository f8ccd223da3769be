"""Finds in a service's log why its program ended."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from pathlib import Path

START_MARK = "start"
END_MARK = "end of start"
_TAIL_BYTES = 64 * 1024
_MAX_LINE = 500
_STAMP = re.compile(r"^@[0-9a-f]{24} ")
_ERROR = re.compile(
    r"^(sactory: error: |Fatal Python error|[A-Za-z_][\w.]*(Error|Exception|Exit|Interrupt)\b)"
)


def log_file(service: Path) -> Path:
    """The log that `multilog` writes for a service."""
    return service / "log" / "main" / "current"


def last_error(service: Path, start: int, timeout: float = 3.0) -> str:
    """The line that explains how the program's start number `start` ended.

    Waits until `multilog` has written the end mark, as it reads a pipe at its own pace.

    Returns:
        The last line that looks like an error, else the last line, else "".
    """
    end_mark = f"service: {END_MARK} {start}:"
    end = time.monotonic() + timeout
    while True:
        lines = tail(log_file(service))
        if any(line.startswith(end_mark) for line in lines) or time.monotonic() > end:
            return find_error(lines, start)
        time.sleep(0.05)


def find_error(lines: Sequence[str], start: int) -> str:
    """As `last_error`, from the lines of a log."""
    first, last = 0, len(lines)
    for i, line in enumerate(lines):
        if line.startswith(f"service: {START_MARK} {start}:"):
            first = i + 1
        elif line.startswith(f"service: {END_MARK} {start}:"):
            last = i
    said = [line for line in lines[first:last] if line.strip()]
    errors = [line for line in said if _ERROR.match(line)]
    line = (errors or said or [""])[-1].strip()
    return line.replace("sactory: error: ", "", 1)[:_MAX_LINE]


def tail(path: Path) -> list[str]:
    """The last lines of a multilog file, without their time stamps; [] if there is none."""
    try:
        with open(path, "rb") as f:
            f.seek(0, 2)
            f.seek(max(0, f.tell() - _TAIL_BYTES))
            text = f.read().decode("utf-8", "replace")
    except OSError:
        return []
    return [_STAMP.sub("", line) for line in text.splitlines()]
