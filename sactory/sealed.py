"""Records that carry a digest of themselves and of files: damage is told from another format.

A sealed record is a JSON object with `sha256` over all its other fields. `read_file` looks at the
digest before the format: one flipped bit must not pass for another version's file.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from sactory.run_dir import is_unreadable, read_json, write_json

_DIGEST = "sha256"
_FORMAT_WITHOUT_DIGEST = 1


class DamagedError(Exception):
    """Something is not what was written; the message says what is wrong."""


class UnreadableError(DamagedError):
    """Something can't be read now; nothing proves that it is damaged."""


class OtherFormatError(Exception):
    """Another version of Sactory wrote it; the message names both formats."""


def seal(record: dict[str, Any]) -> dict[str, Any]:
    """The record with its digest."""
    return {**record, _DIGEST: _digest(record)}


def unseal(value: Any) -> dict[str, Any]:
    """The record without its digest.

    Raises:
        DamagedError: It is not what was sealed.
    """
    if not isinstance(value, dict):
        raise DamagedError("is missing or not JSON")
    record = {key: part for key, part in value.items() if key != _DIGEST}
    if value.get(_DIGEST) != _digest(record):
        raise DamagedError("has changed since it was written")
    return record


def write_file(path: Path, record: dict[str, Any]) -> None:
    """Writes a record, which has a `format`, with its digest."""
    write_json(path, seal(record))


def read_file(path: Path, known_format: int) -> dict[str, Any]:
    """What `write_file` wrote.

    Raises:
        DamagedError: It is not what was written.
        UnreadableError: The disk or its server fails.
        OtherFormatError: It is whole, or from before there were digests, but of another format.
    """
    was = None
    try:
        value = read_json(path)
        was = value.get("format") if isinstance(value, dict) else None
        if was == _FORMAT_WITHOUT_DIGEST != known_format and _DIGEST not in value:
            raise OtherFormatError(f"has format {was}, this Sactory reads {known_format}")
        record = unseal(value)
    except OSError as e:
        raise _can_not_read(path.name, e) from e
    except DamagedError as e:
        newer = isinstance(was, int) and was > known_format
        hint = f", or is of format {was}: this Sactory reads {known_format}" if newer else ""
        raise DamagedError(f"its {path.name} {e}{hint}") from None
    if was != known_format:
        raise OtherFormatError(f"has format {was}, this Sactory reads {known_format}")
    return record


def file_hashes(directory: Path, left_out: tuple[str, ...]) -> dict[str, str]:
    """SHA-256 of every file below `directory`, by relative path, some names left out."""
    files = sorted(p for p in directory.rglob("*") if p.is_file())
    return {
        str(p.relative_to(directory)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in files
        if p.name not in left_out
    }


def check_files(directory: Path, hashes: dict[str, str], left_out: tuple[str, ...]) -> None:
    """Compares the files below `directory` with their hashes.

    Raises:
        DamagedError: One is not what was written.
        UnreadableError: The disk or its server fails.
    """
    try:
        found = file_hashes(directory, left_out)
    except OSError as e:
        raise _can_not_read("files", e) from e
    for name, digest in hashes.items():
        if found.get(name) != digest:
            what = "is missing" if name not in found else "has changed since it was written"
            raise DamagedError(f"its {name} {what}")


def _can_not_read(what: str, error: OSError) -> DamagedError:
    kind = UnreadableError if is_unreadable(error) else DamagedError
    return kind(f"its {what} can't be read: {error.strerror}")


def _digest(record: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
