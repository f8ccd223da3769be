"""The copies of the replay's checkpoints, and which of them a server starts from.

    R/replay/<checkpoint>/            Reverb's own: it keeps one and deletes everything else there
    R/replay_history/<checkpoint>/    hard links of the same files, with manifest.json

What is damaged or foreign goes to quarantine and is named; the newest whole copy is used.
"""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from replay_server import offline
from replay_server.manifest import Manifest
from sactory import retention
from sactory.errors import RetryError
from sactory.quarantine import set_aside
from sactory.run_dir import (
    RunDir,
    fsync_path,
    is_unreadable,
    remove_leftovers,
    whole_directory,
)

SAVED = "saved"
# Reverb's names, with the process in UTC; they sort by time.
_NAME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?\+00:00")


@dataclasses.dataclass(frozen=True)
class Copy:
    """One whole checkpoint: its directory in the history and its manifest."""

    path: Path
    manifest: Manifest


def stamp() -> str:
    """A checkpoint's name for now, as Reverb would give it."""
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{nanoseconds:09d}+00:00"


class History:
    """The checkpoints of a run.

    Attributes:
        directory: R/replay_history.
        notes: What was found damaged or foreign, one line each.

    Args:
        run_dir: The run.
        keep: The newest copies that are kept.
    """

    def __init__(self, run_dir: RunDir, keep: int):
        self._run_dir, self._keep = run_dir, keep
        self._root, self.directory = run_dir.replay_checkpoints, run_dir.replay_history
        self.notes: list[str] = []
        for directory in (self._root, self.directory):
            if directory.exists() and not directory.is_dir():
                self._set_aside(directory, "a directory belongs here")
            directory.mkdir(parents=True, exist_ok=True)
        remove_leftovers(self.directory)

    def recover(self) -> Copy | None:
        """Finds the newest whole checkpoint; sets aside whatever is none.

        Returns:
            The copy to start from, or None if there is none.

        Raises:
            RetryError: None is known to be whole, but some can't be read now.
        """
        found, unreadable = [], []
        for look, directory in ((self._look_at, self._root), (self._checked, self.directory)):
            for path in sorted(directory.iterdir()):
                try:
                    copy = look(path)
                except OSError as e:
                    if not is_unreadable(e):
                        raise
                    unreadable.append((path, f"it can't be read: {e.strerror}"))
                    continue
                found += [copy] if copy else []
        if unreadable and not found:  # it may pass: what is whole must not go to quarantine for it
            path, why = unreadable[0]
            raise RetryError(f"no checkpoint of the replay can be used now ({path}: {why})")
        for path, why in unreadable:
            self._set_aside(path, why)
        whole = {copy.path.name for copy in found}
        for path in self._root.iterdir():
            if path.name not in whole:  # damaged together with its copy: they are the same files
                shutil.rmtree(path, ignore_errors=True)
        return max(found, key=_age) if found else None

    def _look_at(self, path: Path) -> None:
        """Makes sure that what is whole in Reverb's root is in the history too."""
        if not self._is_ours(path):
            return
        linked = self.directory / path.name
        if _same(path, linked):  # looked at there
            return
        manifest = Manifest.read(linked)
        if manifest is None:
            if not (path / offline.DONE).exists():  # cut off while it was saved
                shutil.rmtree(path, ignore_errors=True)
                return
            fault = "its stamp lies in the future" if path.name > stamp() else offline.fault(path)
        else:
            fault = manifest.fault(path)
        if fault:
            self._set_aside(path, fault)
        elif manifest is None or not manifest.vouches_for(linked):
            if linked.exists():
                self._set_aside(linked, "its files or its manifest are damaged")
            self._enter(path, manifest or self._describe(path))

    def _checked(self, path: Path) -> Copy | None:
        """One entry of the history, if it is whole."""
        if not _NAME.fullmatch(path.name):
            return None
        manifest = Manifest.read(path)
        fault = manifest.fault(path) if manifest else offline.fault(path)
        if fault:
            self._set_aside(path, fault)
            return None
        if manifest is None:
            manifest = self._describe(path)
            manifest.save(path)
        return Copy(path, manifest)

    def _is_ours(self, path: Path) -> bool:
        if path.is_dir() and not path.is_symlink() and _NAME.fullmatch(path.name):
            return True
        self._set_aside(path, "it is no checkpoint of the replay")
        return False

    def _set_aside(self, path: Path, why: str) -> None:
        new = set_aside(self._run_dir, path, why)
        self.notes.append(f"{path.relative_to(self._run_dir.root)}: {why} (now {new.name})")

    def _describe(self, path: Path) -> Manifest:
        """The manifest of a checkpoint that lost it: it ranks by its name."""
        older = [c.manifest.sequence for c in self._known() if c.path.name < path.name]
        return Manifest.of(path, self._run_dir, max(older, default=0) + 1, 0.0, "found")

    def _known(self) -> list[Copy]:
        """Entries with a manifest, oldest first; their files are not looked at."""
        pairs = [(path, Manifest.load(path)) for path in self.directory.iterdir()]
        return sorted((Copy(p, m) for p, m in pairs if m), key=_age)

    def _enter(self, source: Path, manifest: Manifest) -> Copy:
        """Links a checkpoint into the history."""
        target = self.directory / source.name
        with whole_directory(target) as temporary:
            for name in offline.FILES:
                offline.link_or_copy(source / name, temporary / name)
            manifest.save(temporary)
        return Copy(target, manifest)

    def add(self, path: Path, duration: float) -> Copy:
        """Vouches for a checkpoint that Reverb has just made, and drops old copies."""
        copy = self._enter(path, self._next(path, duration, SAVED))
        self._prune()
        return copy

    def make(self, origin: str, fill: Callable[[Path], object]) -> Copy:
        """Adds an edited checkpoint as the newest.

        Args:
            origin: What was edited, for its manifest.
            fill: Writes its files into an empty directory.
        """
        target = self.directory / stamp()
        durations = [c.manifest.duration for c in self._known()]
        with whole_directory(target) as temporary:
            fill(temporary)
            self._next(temporary, max(durations, default=0.0), origin).save(temporary)
        manifest = Manifest.load(target)
        assert manifest is not None
        return Copy(target, manifest)

    def _next(self, path: Path, duration: float, origin: str) -> Manifest:
        sequence = max((c.manifest.sequence for c in self._known()), default=0) + 1
        return Manifest.of(path, self._run_dir, sequence, duration, origin)

    def install(self, copy: Copy) -> Copy:
        """Makes a copy the only checkpoint in Reverb's root.

        A copy whose stamp lies in the future, for the clock was set back, gets the present one:
        else Reverb would delete every checkpoint that follows.
        """
        now = stamp()
        if copy.path.name > now:
            self.notes.append(f"{copy.path.name} has a stamp from the future: it is {now} now")
            os.replace(copy.path, self.directory / now)
            copy = Copy(self.directory / now, copy.manifest)
        for path in self._root.iterdir():
            if path.name != copy.path.name:
                shutil.rmtree(path, ignore_errors=True)
        target = self._root / copy.path.name
        if not target.exists():
            with whole_directory(self.directory / f".tmp-{now}") as temporary:
                for name in offline.FILES:
                    offline.link_or_copy(copy.path / name, temporary / name)
            os.replace(self.directory / f".tmp-{now}", target)
            fsync_path(self._root)
        self._prune()
        return copy

    def sweep(self) -> None:
        """Leaves nothing in Reverb's root that it would delete, or that sorts after a new save."""
        now = stamp()
        self._root.mkdir(exist_ok=True)  # else no save would work until the next start
        for path in list(self._root.iterdir()):
            if self._is_ours(path) and path.name > now:
                if Manifest.load(self.directory / path.name):  # the history holds it
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    self._set_aside(path, "its stamp lies in the future")

    def remove_partial(self) -> None:
        """Frees the space of a save that failed; Reverb would never read it."""
        for path in self._root.iterdir():
            if path.is_dir() and not (path / offline.DONE).exists():
                shutil.rmtree(path, ignore_errors=True)

    def is_last(self, copy: Copy) -> bool:
        """Whether there is no other copy to start from."""
        return all(other.path == copy.path for other in self._known())

    def discard(self, copy: Copy, why: str) -> None:
        """Sets a copy aside that turned out to be of no use."""
        shutil.rmtree(self._root / copy.path.name, ignore_errors=True)
        self._set_aside(copy.path, why)

    def _prune(self) -> None:
        for copy in self._known()[: -self._keep]:
            retention.remove(copy.path)


def _same(a: Path, b: Path) -> bool:
    """Whether two directories hold the same files, by hard links."""
    try:
        return all(os.path.samefile(a / name, b / name) for name in offline.FILES)
    except OSError:
        return False


def _age(copy: Copy) -> tuple[int, str]:
    return copy.manifest.sequence, copy.path.name
