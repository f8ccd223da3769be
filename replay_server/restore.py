"""What a server starts from: the newest whole checkpoint, repaired, with the run's settings."""

from __future__ import annotations

from typing import Any

from absl import logging

from replay_server import offline, repair, seed
from replay_server.crashes import Crashes
from replay_server.history import Copy, History
from sactory import settings
from sactory.heartbeat import Heartbeat
from sactory.run_dir import RunDir, read_json
from sactory.tables import REPLAY

# After the first crash bad items are looked for, after as many as these the copy is given up.
_CRASHES = 4


def prepare(
    run_dir: RunDir,
    history: History,
    replay: settings.Replay,
    tables: list[Any],
    heartbeat: Heartbeat,
) -> Copy | None:
    """Leaves in Reverb's root exactly what the server shall start with.

    Args:
        run_dir: The run.
        history: Its checkpoints.
        replay: Its settings.
        tables: The `reverb.Table`s that the server will have.
        heartbeat: Is told how many items were removed.

    Returns:
        The checkpoint that Reverb will find; None: there is none, the tables start empty.

    Raises:
        UserError: The checkpoint's rows are not this run's; or the seed can't be used.
    """
    infos = [offline.info_of(table) for table in tables]
    copy = history.recover()
    asked, crashes = run_dir.repair.exists(), Crashes(run_dir)
    if copy is not None and crashes.count() >= _CRASHES:
        copy = _given_up(history, copy, crashes)
    if copy is not None and (asked or crashes.count() == 1):
        copy = _repaired(run_dir, history, copy, heartbeat)
    if copy is None and replay.seed_from:
        copy = seed.make(run_dir, history, replay, infos)
    if copy is not None:
        copy = history.install(_conformed(history, copy, infos))
    elif history.notes or _had_checkpoint(run_dir):
        history.notes.append("no whole checkpoint of the replay is left: it starts empty")
    if asked:  # one that came meanwhile speaks of what the server has yet to load
        run_dir.repair.unlink(missing_ok=True)
    for note in history.notes:
        logging.error("recovering the replay: %s", note)
    if copy is not None:
        rows = copy.manifest.items(REPLAY) * replay.segment_length
        logging.info("starting from the checkpoint %s with %d rows", copy.path.name, rows)
    return copy


def _given_up(history: History, copy: Copy, crashes: Crashes) -> Copy | None:
    """The copy to go on with instead of one that makes Reverb crash."""
    why = f"Reverb crashed {crashes.count()} times while it loaded it"
    if history.is_last(copy):  # memory may have been short: nothing but an empty start is left
        history.notes.append(f"{copy.path.name}: {why}; it is the last one, so it is tried again")
        return copy
    history.discard(copy, why)
    crashes.forget()
    return history.recover()


def _repaired(run_dir: RunDir, history: History, copy: Copy, heartbeat: Heartbeat) -> Copy:
    reason = (read_json(run_dir.repair) or {}).get("reason", "Reverb crashed while it loaded it")
    logging.warning("repairing the replay: %s", reason)
    copy, removed = repair.clean(history, copy)
    before = (read_json(heartbeat.path) or {}).get("repaired_items") or 0
    heartbeat.update(repaired_items=before + removed)
    return copy


def _conformed(history: History, copy: Copy, infos: list[Any]) -> Copy:
    """The copy with the settings of the server's tables."""
    changes, fill = offline.conform(copy.path, infos)
    if not changes:
        return copy
    logging.warning("carrying changed settings into the checkpoint: %s", "; ".join(changes))
    return history.make("settings changed", fill)


def _had_checkpoint(run_dir: RunDir) -> bool:
    """Whether an earlier server of the run reported a checkpoint."""
    return bool((read_json(run_dir.status("replay_server")) or {}).get("checkpoint_time"))
