"""Copies checkpoints from one run to another, whole or not at all.

The other run may be running meanwhile and prunes its checkpoints, so what is taken is checked
after it was copied.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from sactory import sealed, trainer_checkpoints
from sactory.errors import UserError
from sactory.run_dir import RunDir, read_json

T = TypeVar("T")
MANIFEST = "manifest.json"
_BLOCK_BYTES = 1 << 20


class _GoneError(Exception):
    """The other run removed what was being copied."""


def take_weights(
    candidates: Callable[[], list[Path]], new: RunDir, own: dict[str, Any]
) -> dict[str, Any]:
    """Copies a checkpoint of the trainer.

    Args:
        candidates: Finds the checkpoints that may be taken, the best choice first.
        new: The run that takes it.
        own: What stands in its state instead of what stood there.

    Returns:
        Its state.

    Raises:
        UserError: All are damaged, or another Sactory wrote them.
    """
    return _again_if_gone(lambda: _take_weights(candidates(), new, own))


def _take_weights(candidates: list[Path], new: RunDir, own: dict[str, Any]) -> dict[str, Any]:
    damaged = []
    for source in candidates:
        target = new.trainer_checkpoints / source.name
        _copy(source, target, shutil.copy2)
        try:
            record = trainer_checkpoints.read(target)
        except sealed.DamagedError as e:
            shutil.rmtree(target)
            if not source.exists():
                raise _GoneError(str(source)) from e
            damaged.append(f"the checkpoint {source} is damaged: {e}")
            continue
        for warning in damaged:
            print(f"warning: {warning}; an older one is taken")
        state = {**record["state"], **own}
        trainer_checkpoints.seal(target, state, record["files"])
        return state
    whole = trainer_checkpoints.listing(candidates[0].parent, set(candidates))
    raise UserError(f"{damaged[0]}; {whole}")


def take_replay(old: RunDir, new: RunDir) -> str:
    """Links the newest whole checkpoint of the replay; returns its name.

    Raises:
        UserError: There is none.
    """
    return _again_if_gone(lambda: _take_replay(old, new))


def _take_replay(old: RunDir, new: RunDir) -> str:
    found = []
    for path in old.replay_history.glob("*"):
        manifest = read_json(path / MANIFEST)
        if isinstance(manifest, dict):
            found.append((manifest["sequence"], path, manifest["files"]))
    for _, source, files in sorted(found, reverse=True, key=lambda entry: entry[:2]):
        target = new.replay_history / source.name
        _copy(source, target, _link)
        if files == {name: _facts(target / name) for name in files}:
            return source.name
        shutil.rmtree(target)
        print(f"warning: the replay's checkpoint {source} is damaged; an older one is looked for")
    raise UserError(f"--with replay: {old} has no whole checkpoint of its replay yet")


def _copy(source: Path, target: Path, copy_file: Callable[[str, str], Any]) -> None:
    """Copies a directory, or leaves nothing.

    Raises:
        _GoneError: The other run has removed it meanwhile.
    """
    try:
        shutil.copytree(source, target, copy_function=copy_file)
    except OSError as e:
        shutil.rmtree(target, ignore_errors=True)
        if not source.exists():
            raise _GoneError(str(source)) from e
        raise


def _link(source: str, target: str) -> None:
    """Links a file that is never written again; copies it where the file system is another."""
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copy2(source, target)


def _facts(path: Path) -> dict[str, Any]:
    """Size and hash of a file as the replay's manifest names them."""
    if not path.is_file():
        return {}
    digest = hashlib.sha256()
    with path.open("rb") as f:
        while block := f.read(_BLOCK_BYTES):
            digest.update(block)
    return {"size": path.stat().st_size, "sha256": digest.hexdigest()}


def _again_if_gone(take: Callable[[], T]) -> T:
    """The other run may prune what was chosen: then there is a newer one."""
    for _ in range(3):
        with contextlib.suppress(_GoneError):
            return take()
    raise UserError("the other run removed its checkpoints while they were copied: try again")
