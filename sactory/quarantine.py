"""Where damaged files go: out of the way, under a unique name, with the reason beside them.

Nothing here is ever read back; a person may look, or delete the directory.
"""

from __future__ import annotations

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
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    count = 0
    while True:
        new = run_dir.quarantine / f"{stamp}-{count}-{path.name}"
        try:  # the reason's file claims the name, so that two programs never take the same
            with open(f"{new}.why", "x") as f:
                f.write(f"{path}\n{why}\n")
            break
        except FileExistsError:
            count += 1
    try:
        shutil.move(str(path), str(new))
    except OSError:
        Path(f"{new}.why").unlink(missing_ok=True)
        raise
    fsync_path(run_dir.quarantine)
    logging.warning("%s: %s; moved to %s", path, why, new)
    return new
