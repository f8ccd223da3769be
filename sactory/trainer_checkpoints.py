"""The trainer's checkpoints on disk: how they are found, checked and thinned out.

    R/train/<train_step>/weights.*     networks, targets, optimizers, temperature, train step
    R/train/<train_step>/state.json    counters, the book of progress, hashes of the files

`train.checkpoint` writes and restores them, `sactory.fork` copies one into another run. What the
state means is the learner's business. Needs no TensorFlow.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from sactory import sealed
from sactory.errors import UserError
from sactory.sealed import DamagedError

FORMAT = 2
STATE = "state.json"


def directory_name(train_step: int) -> str:
    """The train step, padded so that names sort as numbers."""
    return f"{train_step:012d}"


def find(root: Path) -> list[Path]:
    """All checkpoints in R/train, oldest first, whole or damaged."""
    try:
        found = [p for p in root.iterdir() if p.name.isdigit()]
    except FileNotFoundError:
        return []
    return sorted(found, key=lambda p: int(p.name))


def seal(directory: Path, state: dict[str, Any], files: dict[str, str] | None = None) -> None:
    """Writes the state beside the weights, with hashes by which `read` knows both again.

    Args:
        directory: The checkpoint.
        state: JSON value with `train_step`, `env_steps` and the trainer's other counters.
        files: Hashes of the weights' files where they are known; None: of the files as they are.
    """
    files = sealed.file_hashes(directory, (STATE,)) if files is None else files
    sealed.write_file(directory / STATE, {"format": FORMAT, "files": files, "state": state})


def read(path: Path) -> dict[str, Any]:
    """What `seal` wrote, after comparing every file with its hash: `state` and `files`.

    Raises:
        DamagedError: The files are not what was written.
        UnreadableError: The disk or its server fails.
        UserError: Another version of Sactory wrote it.
    """
    record = _read_record(path)
    sealed.check_files(path, record["files"], (STATE,))
    return record


def _read_record(path: Path) -> dict[str, Any]:
    try:
        record = sealed.read_file(path / STATE, FORMAT)
    except sealed.OtherFormatError as e:
        raise UserError(
            f"the checkpoint {path} {e}: go on with the Sactory that wrote it (provenance.json "
            "names it)"
        ) from e
    if record["state"]["train_step"] != int(path.name):
        raise DamagedError(f"it was written as train step {record['state']['train_step']}")
    return record


def peek(path: Path) -> dict[str, Any] | None:
    """The state, without a look at the weights; None if it can't be read."""
    try:
        return _read_record(path)["state"]
    except (DamagedError, UserError):
        return None


def env_steps(path: Path) -> int | None:
    """Env steps of the run when a checkpoint was written; None if it can't say."""
    state = peek(path)
    return None if state is None else int(state["env_steps"])


def listing(root: Path, besides: Collection[Path] = ()) -> str:
    """The checkpoints that exist, for a message."""
    words = []
    for path in find(root):
        steps = env_steps(path)
        if path not in besides and steps is not None:
            words.append(f"{int(path.name)} ({steps} env steps)")
    return f"there are {', '.join(words)}" if words else "there is no other"


def surplus(root: Path, keep_last: int, keep_every_env_steps: int) -> list[Path]:
    """The checkpoints that may go.

    Kept are the newest `keep_last`, the first of each stretch of `keep_every_env_steps` env steps,
    and what can't be read: that is for `restore` to judge.
    """
    older = find(root)[:-keep_last]
    steps = {path: env_steps(path) for path in older}
    stretches: set[int] = set()
    may_go = []
    for path in older:
        at = steps[path]
        if at is None:
            continue
        if at // keep_every_env_steps in stretches:
            may_go.append(path)
        stretches.add(at // keep_every_env_steps)
    return may_go
