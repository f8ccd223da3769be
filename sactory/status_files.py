"""What may be believed of the small files by which a run's programs tell how they are.

Any file may be half-written, damaged or foreign, and its disk may hang: a field that is not of its
kind counts as absent, so that nothing after this needs to ask.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sactory.run_dir import poll_json

_LARGEST = 1e15  # above it a count or a time is none
_NAME = re.compile(r"[A-Za-z0-9_]{1,64}")
_TAIL_BYTES = 64 * 1024


def number(value: Any) -> float | None:
    """A finite number of a sensible size, or None."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return value if abs(value) < _LARGEST else None  # False for NaN too


def _text(value: Any) -> str | None:
    """One printable line."""
    if not isinstance(value, str):
        return None
    return "".join(c if c.isprintable() else " " for c in value)


def _name(value: Any) -> str | None:
    return value if isinstance(value, str) and _NAME.fullmatch(value) else None


def _list_of(kind: Callable[[Any], Any]) -> Callable[[Any], list[Any] | None]:
    def read_list(value: Any) -> list[Any] | None:
        if not isinstance(value, list):
            return None
        return [x for x in map(kind, value) if x is not None]

    return read_list


def _numbers(value: Any) -> dict[str, float] | None:
    if not isinstance(value, dict):
        return None
    pairs = ((_text(k), number(v)) for k, v in value.items())
    return {k: max(0, v) for k, v in pairs if k is not None and v is not None}


_KINDS: dict[str, Callable[[Any], Any]] = {
    "program": _name,
    "services": _list_of(_name),
    "recovered": _list_of(_text),
    "cpus": _list_of(number),
    "tables": _numbers,
    "table_worker": _numbers,
    **dict.fromkeys(
        ("state", "host", "error", "outcome", "last_exit", "last_error", "access", "log"), _text
    ),
    **dict.fromkeys(("reason", "exit"), _text),
    **dict.fromkeys(("checkpoint_time", "checkpoint_seconds", "exports_waiting"), number),
    **dict.fromkeys(("env_steps", "not_before", "pid", "ratio", "refused_steps"), number),
    **dict.fromkeys(("repaired_items", "replay_size", "restarts", "started", "starts"), number),
    **dict.fromkeys(("steps_per_second", "threads", "time", "train_step"), number),
    **dict.fromkeys(
        ("train_steps", "weights_time", "worker", "failures", "last_eval_return"), number
    ),
}


def believed(value: Any) -> dict[str, Any]:
    """The fields that are of their kind, and those of which no kind is known."""
    if not isinstance(value, dict):
        return {}
    fields = {k: _KINDS[k](v) if k in _KINDS else v for k, v in value.items()}
    return {k: v for k, v in fields.items() if v is not None}


def read(path: Path) -> dict[str, Any]:
    """The believed fields of a JSON file; {} if there are none."""
    return believed(poll_json(path))


def curriculum(path: Path) -> dict[str, Any] | None:
    """Version, difficulty and lessons in R/curriculum_state.json; None if it tells none."""
    record = poll_json(path)
    state = record.get("state") if isinstance(record, dict) else None
    if not isinstance(state, dict) or number(state.get("version")) is None:
        return None
    lessons = state.get("lessons")
    pairs = lessons.items() if isinstance(lessons, dict) else ()
    return {
        "version": state["version"],
        "difficulty": number(state.get("difficulty")),
        "lessons": {k: lesson for k, v in pairs if (lesson := _text(v)) and _text(k) == k},
    }


def found(directory: Path, pattern: str) -> list[Path]:
    """What matches in a directory; [] if it can't be read."""
    try:
        return list(directory.glob(pattern))
    except OSError:
        return []


def last_number(log: Path, key: str) -> float | None:
    """A number in the last row of a JSON-lines log that has it; a half-written row is skipped."""
    try:
        with open(log, "rb") as f:
            f.seek(0, os.SEEK_END)
            f.seek(max(0, f.tell() - _TAIL_BYTES))
            lines = f.read().splitlines()
    except OSError:
        return None
    for line in reversed(lines):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        value = number(row.get(key)) if isinstance(row, dict) else None
        if value is not None:
            return value
    return None
