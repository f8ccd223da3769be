"""What vouches for a checkpoint of the replay: the size and hash of each file, and what is in it.

Reverb takes a missing or empty file for "no checkpoint" and starts empty in silence, so nothing is
handed to it that does not match its manifest.
"""

from __future__ import annotations

import dataclasses
import hashlib
import time
from pathlib import Path
from typing import Any

from replay_server import offline
from sactory import provenance
from sactory.run_dir import RunDir, is_unreadable, read_json, write_json

FORMAT = 1
NAME = "manifest.json"
_BLOCK_BYTES = 1 << 20


@dataclasses.dataclass(frozen=True)
class Manifest:
    """The content of `manifest.json`.

    Attributes:
        sequence: Counts the run's checkpoints; the largest is the newest, whatever clocks say.
        time: When it was made, unix seconds.
        duration: Seconds that a save of these tables takes.
        config_sha256: Of the run's configuration then.
        files: Name to `size` in bytes and `sha256`.
        tables: Name to `items` and the limiter's `inserts`, `samples` and `deletes`.
        origin: How it came about: `saved`, or what was edited.
    """

    sequence: int
    time: float
    duration: float
    config_sha256: str
    files: dict[str, dict[str, Any]]
    tables: dict[str, dict[str, int]]
    origin: str
    format: int = FORMAT

    @classmethod
    def of(
        cls, directory: Path, run_dir: RunDir, sequence: int, duration: float, origin: str
    ) -> Manifest:
        """Describes the files of a checkpoint."""
        config = run_dir.config.read_bytes() if run_dir.config.exists() else b""
        return cls(
            sequence=sequence,
            time=time.time(),
            duration=duration,
            config_sha256=provenance.sha256(config),
            files={name: _file(directory / name) for name in offline.FILES},
            tables={t.table_name: _table(t) for t in offline.read_tables(directory)},
            origin=origin,
        )

    @classmethod
    def read(cls, directory: Path) -> Manifest | None:
        """Reads a checkpoint's manifest; None if it is absent or damaged.

        Raises:
            OSError: It can't be read now.
        """
        value = read_json(directory / NAME)
        try:
            manifest = cls(**value)
            names = {name for name, was in manifest.files.items() if {"size", "sha256"} <= set(was)}
            whole = manifest.format == FORMAT and names == set(offline.FILES)
            return manifest if whole and isinstance(manifest.sequence, int) else None
        except (TypeError, AttributeError):
            return None

    @classmethod
    def load(cls, directory: Path) -> Manifest | None:
        """As `read`; None also if it can't be read now."""
        try:
            return cls.read(directory)
        except OSError:
            return None

    def save(self, directory: Path) -> None:
        """Writes it into a checkpoint's directory."""
        write_json(directory / NAME, dataclasses.asdict(self))

    def fault(self, directory: Path) -> str | None:
        """What is wrong with the files of a checkpoint, or None if they are as they were.

        Raises:
            OSError: The disk or its server fails; nothing proves that they are damaged.
        """
        for name, was in self.files.items():
            path = directory / name
            try:
                size = path.stat().st_size
                if size != was["size"]:
                    return f"{name} has {size} bytes instead of {was['size']}"
                if _sha256(path) != was["sha256"]:
                    return f"the content of {name} has changed"
            except FileNotFoundError:
                return f"{name} is missing"
            except OSError as e:
                if is_unreadable(e):
                    raise
                return f"{name} can't be read: {e.strerror}"
        return None

    def vouches_for(self, directory: Path) -> bool:
        """Whether the files of a checkpoint can be read and are as they were."""
        try:
            return self.fault(directory) is None
        except OSError:
            return False

    def items(self, table: str) -> int:
        """Items of a table."""
        return self.tables.get(table, {}).get("items", 0)


def _file(path: Path) -> dict[str, Any]:
    return {"size": path.stat().st_size, "sha256": _sha256(path)}


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as f:
        while block := f.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _table(table: Any) -> dict[str, int]:
    limiter = table.rate_limiter
    return {
        "items": offline.items_in(table),
        "inserts": limiter.insert_count,
        "samples": limiter.sample_count,
        "deletes": limiter.delete_count,
    }
