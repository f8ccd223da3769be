"""The greedy policy's episodes, on their way from the evaluator to the coordinator: by eval.log."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sactory.curriculum.state import Report

KEY = "reports"
"""The label of an evaluation's row that holds its episodes."""


class Evaluations:
    """Reads the episodes that are logged from now on; those of an earlier start come too late.

    Args:
        log: R/eval.log.
    """

    def __init__(self, log: Path):
        self._log = log
        self._offset = len(self._read(0))

    def new(self) -> list[Report]:
        """The episodes of the evaluations that were logged since the last call."""
        data = self._read(self._offset)
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        return [report for line in whole.splitlines() for report in _reports(line)]

    def _read(self, offset: int) -> bytes:
        try:
            with open(self._log, "rb") as f:
                f.seek(offset)
                return f.read()
        except OSError:
            return b""


def _reports(line: bytes) -> list[Report]:
    try:
        row: Any = json.loads(line)
        return [Report.from_json(report) for report in row.get(KEY, [])]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return []
