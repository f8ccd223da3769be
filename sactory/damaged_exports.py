"""Exports that are not what was written: who has a whole one, and where the others go."""

from __future__ import annotations

from absl import logging

from sactory import quarantine
from sactory.errors import RetryError, UserError
from sactory.policies import CorruptExport, Export, newest_first, read_meta
from sactory.run_dir import RunDir


def any_whole(run_dir: RunDir, kind: str) -> bool:
    """Whether the run has an export of this kind that one can act with."""
    for export in newest_first(run_dir, kind):
        try:
            read_meta(export.path)
            return True
        except (UserError, RetryError) as e:
            logging.warning("%s", e)
    return False


def set_aside(run_dir: RunDir, export: Export, why: CorruptExport) -> list[str]:
    """Moves a damaged export to quarantine, so that nobody tries it again.

    Returns:
        One line for the heartbeat's `recovered`; none where it can't be moved, or another program
        has done it already.
    """
    try:
        where = quarantine.set_aside(run_dir, export.path, str(why))
    except OSError as e:
        logging.log_every_n_seconds(logging.WARNING, "%s; it can't be moved: %s", 10, why, e)
        return []
    return [f"{export.path.parent.name} export: {why} (now {where.name})"]
