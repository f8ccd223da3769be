"""Where damaged files go: out of the way, under a unique name, with the reason beside them.

Nothing here is ever read back; a person may look, or delete the directory.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from pathlib import Path

from absl import logging

from sactory.run_dir import RunDir, fsync_path


def set_aside(run_dir: RunDir, path: Path, why: str) -> Path:
    """Moves a file or directory into R/quarantine.

    Args:
        run_dir: The run.
        path: What is damaged or doesn't belong where it lies.
        why: The reason; it is logged and stands in `<new name>.why`.

    Returns:
        The new path.

    Raises:
        OSError: It can't be moved, or is gone.
    """
    run_dir.quarantine.mkdir(parents=True, exist_ok=True)
    new = _claim(run_dir.quarantine, path.name)
    reason = _reason(new)
    with contextlib.suppress(OSError):  # a full disk has no room for it, but a move needs none
        reason.write_text(f"{path}\n{why}\n")
    try:
        shutil.move(str(path), str(new))
    except OSError:
        reason.unlink(missing_ok=True)
        raise
    fsync_path(run_dir.quarantine)
    logging.warning("%s: %s; moved to %s", path, why, new)
    return new


def _claim(directory: Path, name: str) -> Path:
    """A new path; the empty file of its reason keeps other programs from taking it, too."""
    stamp, count = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()), 0
    while True:
        new = directory / f"{stamp}-{count}-{name}"
        try:
            _reason(new).touch(exist_ok=False)
            return new
        except FileExistsError:
            count += 1


def _reason(path: Path) -> Path:
    return Path(f"{path}.why")
