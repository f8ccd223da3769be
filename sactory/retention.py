"""Which exports and videos are kept, how large a run may grow, and how the others go.

Kept are the newest exports, one for each stretch of env steps, the best, and every one that the
evaluator has not scored yet; the newest videos; and below a cap on the whole directory whatever
`sactory.disk` lists, from the newest on. Deciding needs only the run directory.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from pathlib import Path

from absl import logging

from sactory import disk, policies, settings
from sactory.estimate import GB
from sactory.run_dir import RunDir


def apply(run_dir: RunDir, run: settings.Run) -> None:
    """Applies every rule of a run; what can't be removed stays.

    What fails meanwhile is only logged: the caller's own work is done.
    """
    try:
        _apply(run_dir, run)
    except Exception as e:  # a disk that fails, a log with a row of another kind
        logging.warning("what the run no longer keeps was not all removed: %r", e)


def _apply(run_dir: RunDir, run: settings.Run) -> None:
    going = by_rule(run_dir, run)
    if run.max_disk_gb is not None:
        further, left = disk.plan(run_dir, run.max_disk_gb * GB, going)
        going += further
        if left > run.max_disk_gb * GB:
            logging.log_every_n_seconds(
                logging.WARNING,
                "the run holds %.2f GB, above run.max_disk_gb = %g: nothing more may go",
                600,
                left / GB,
                run.max_disk_gb,
            )
    for path in (path for item in going for path in item.paths):
        remove(path)


def by_rule(run_dir: RunDir, run: settings.Run) -> list[disk.Item]:
    """The exports and videos that the run no longer keeps, whatever its size."""
    exports = old_exports(run_dir, run.keep_exports, run.keep_exports_every_env_steps)
    videos = [path for path in run_dir.videos.glob("*.mp4") if path.stem.isdigit()]
    videos = sorted(videos, key=lambda path: int(path.stem))[: -run.keep_videos]
    return [
        *(disk.item_of("export", export.path) for export in exports),
        *(disk.item_of("video", path) for path in videos),
    ]


def old_exports(
    run_dir: RunDir, keep_last: int, keep_every_env_steps: int
) -> list[policies.Export]:
    """The exports of both kinds that the rule no longer keeps.

    Kept are the newest `keep_last`, the first of each stretch of `keep_every_env_steps` env steps,
    the best by mean evaluation return, and all that are not scored yet. Overtaken ones count as
    neither newest nor first.
    """
    scores = policies.scores(run_dir)
    waiting = policies.unscored(run_dir, scores)
    old = []
    for kind in policies.KINDS:
        exports = policies.list_exports(run_dir, kind)
        valid = [e for e in exports if not e.is_overtaken]
        stretches = {e.env_steps // keep_every_env_steps: e for e in reversed(valid)}
        best = policies.best_of(valid, scores)
        keep = {e.name for e in [*valid[-keep_last:], *stretches.values(), *best]}
        old += [e for e in exports if e.name not in waiting and e.name not in keep]
    return old


def remove(path: Path) -> bool:
    """Removes a file or a directory; readers see it whole or not at all.

    Nothing is made first, for a full disk may refuse that; where it refuses the new name too,
    readers may see a directory go.

    Returns:
        Whether it is gone.
    """
    doomed = path
    if os.path.isdir(path) and not os.path.islink(path):
        with contextlib.suppress(OSError):
            doomed = path.rename(path.with_name(f".tmp-{uuid.uuid4().hex}"))
        shutil.rmtree(doomed, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            os.unlink(path)
    return not os.path.lexists(doomed)
