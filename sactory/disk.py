"""What of a run directory may go when it must shrink, and how much space that frees.

Items are listed with their size and age; which are protected is said here, when the cap is applied
in `sactory.retention`. A file with several hard links counts once, and for the one that must stay.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from sactory import policies
from sactory.run_dir import RunDir, read_json
from sactory.takeover import MANIFEST


@dataclasses.dataclass(frozen=True)
class Item:
    """Something that goes or stays as a whole.

    Attributes:
        kind: `export`, `trainer checkpoint`, `replay checkpoint`, `video`, `log`, `quarantine`.
        paths: Its files and directories.
        time: Unix time of its last change: the oldest goes first.
        protected: Whether it must stay.
    """

    kind: str
    paths: tuple[Path, ...]
    time: float
    protected: bool = False


def files(paths: Iterable[Path]) -> dict[tuple[int, int], int]:
    """Bytes on disk of every file at or below `paths`, by device and inode."""
    sizes: dict[tuple[int, int], int] = {}
    for path in _walk(paths):
        try:
            found = path.lstat()
        except OSError:  # gone since it was listed
            continue
        sizes[found.st_dev, found.st_ino] = found.st_blocks * 512
    return sizes


def _walk(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if not path.is_dir() or path.is_symlink():
            yield path
            continue
        for directory, _, names in os.walk(path):
            yield from (Path(directory) / name for name in names)


def inventory(run_dir: RunDir) -> list[Item]:
    """Everything that may go or is protected by name, oldest first."""
    items = [
        *_exports(run_dir),
        *_newest_stays("trainer checkpoint", _numbered(run_dir.trainer_checkpoints), _by_name),
        *_newest_stays("replay checkpoint", _visible(run_dir.replay_history), _by_sequence),
        *_newest_stays("video", run_dir.videos.glob("[0-9]*.mp4"), _by_name),
        *(item_of("log", path) for path in _old_logs(run_dir)),
        *(item_of("quarantine", path) for path in _visible(run_dir.quarantine)),
    ]
    return sorted(items, key=lambda item: item.time)


def _exports(run_dir: RunDir) -> list[Item]:
    """Both kinds of an export are one item: the newest, the best and the unscored ones stay."""
    scores, found = policies.scores(run_dir), {}
    waiting = policies.unscored(run_dir, scores)
    for kind in policies.KINDS:
        exports = policies.list_exports(run_dir, kind)
        valid = [e for e in exports if not e.is_overtaken] or exports
        stay = {e.name for e in [*valid[-1:], *policies.best_of(valid, scores)]}
        for export in exports:
            paths, protected = found.get(export.name, ((), False))
            protected = protected or export.name in stay or export.name in waiting
            found[export.name] = ((*paths, export.path), protected)
    return [item_of("export", *paths, protected=stays) for paths, stays in found.values()]


def _newest_stays(kind: str, paths: Iterable[Path], age: Callable[[Path], Any]) -> list[Item]:
    """The newest is the one that whoever reads them chooses."""
    ordered = sorted(paths, key=age)
    return [item_of(kind, path, protected=path is ordered[-1]) for path in ordered]


def _by_name(path: Path) -> tuple[int, str]:
    """Names are numbers."""
    return len(path.name), path.name


def _by_sequence(path: Path) -> tuple[int, str]:
    """By the manifest, as the replay server chooses: a clock that was set back names them wrong."""
    manifest = read_json(path / MANIFEST)
    sequence = manifest.get("sequence") if isinstance(manifest, dict) else None
    return sequence if isinstance(sequence, int) else -1, path.name


def item_of(kind: str, *paths: Path, protected: bool = False) -> Item:
    """An item with its age."""
    try:
        changed = max(path.stat().st_mtime for path in paths)
    except FileNotFoundError:  # somebody else removes it
        changed = 0.0
    return Item(kind, paths, changed, protected)


def _numbered(directory: Path) -> Iterator[Path]:
    return (path for path in directory.glob("*") if path.name.isdigit())


def _visible(directory: Path) -> Iterator[Path]:
    return directory.glob("[!.]*")


def _old_logs(run_dir: RunDir) -> Iterator[Path]:
    """What multilog has rotated; it writes to `current` alone."""
    return run_dir.services().parent.glob("*/*/log/main/@*")


def plan(run_dir: RunDir, cap: float, going: Sequence[Item] = ()) -> tuple[list[Item], float]:
    """What must go for the run directory to fit `cap` bytes, oldest first.

    Args:
        run_dir: The run.
        cap: Bytes.
        going: What goes anyway.

    Returns:
        The further items, and the bytes of the directory without all of them: above the cap if too
        much is protected.
    """
    gone = {path for item in going for path in item.paths}
    items = [i for i in inventory(run_dir) if not gone.issuperset(i.paths)]
    total = float(sum(files([run_dir.root]).values()) - sum(files(gone).values()))
    further: list[Item] = []
    for item in items:
        if total <= cap:
            break
        gain = 0 if item.protected else freed(item, run_dir, items, further)
        if gain:
            further.append(item)
            total -= gain
    return further, total


def freed(item: Item, run_dir: RunDir, items: Sequence[Item], gone: Sequence[Item] = ()) -> int:
    """Bytes that an item's removal frees: not those of files that others link to."""
    own = files(item.paths)
    if item.kind != "replay checkpoint":
        return sum(own.values())
    others = [i for i in items if i.kind == item.kind and i is not item and i not in gone]
    kept = files([run_dir.replay_checkpoints, *(path for i in others for path in i.paths)])
    return sum(size for inode, size in own.items() if inode not in kept)
