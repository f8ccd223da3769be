"""Which exported policies are kept, and how the others go.

Kept are the newest ones, one for each stretch of env steps, the best, and every one that the
evaluator has not scored yet. Deciding needs only the run directory.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

from sactory import policies
from sactory.run_dir import RunDir


def prune(run_dir: RunDir, keep_last: int, keep_every_env_steps: int) -> list[str]:
    """Removes old exports of both kinds.

    Kept are the newest `keep_last`, the first of each stretch of `keep_every_env_steps` env steps,
    the best by mean evaluation return, and all that are not scored yet. Overtaken ones count as
    neither newest nor first.

    Returns:
        Names of the exports removed.
    """
    scores = policies.scores(run_dir)
    removed = set()
    for kind in policies.KINDS:
        exports = policies.list_exports(run_dir, kind)
        valid = [e for e in exports if not e.is_overtaken]
        stretches = {e.env_steps // keep_every_env_steps: e for e in reversed(valid)}
        best = policies.best_of(valid, scores)
        keep = {e.name for e in [*valid[-keep_last:], *stretches.values(), *best]}
        for export in exports:
            if export.name in scores and export.name not in keep:
                remove(export.path)
                removed.add(export.name)
    return sorted(removed)


def remove(path: Path) -> None:
    """Removes a directory; readers see it whole or not at all."""
    with contextlib.suppress(OSError):
        doomed = Path(tempfile.mkdtemp(prefix=".tmp-", dir=path.parent))
        os.replace(path, doomed / path.name)
        shutil.rmtree(doomed, ignore_errors=True)
