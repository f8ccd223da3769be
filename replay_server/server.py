"""The life of the replay server: tables, checkpoints, end.

The main thread never enters `server.wait()`: a signal would not be seen there.
"""

from __future__ import annotations

import os
import time

import reverb
from absl import logging

from replay_server.checkpoint import Checkpoints
from replay_server.gate import Gate
from replay_server.table_watch import TableWatch
from sactory import client as client_lib
from sactory import settings, status_files, supervision, tables
from sactory.heartbeat import Heartbeat
from sactory.run_dir import RunDir
from sactory.specs import Specs

_TICK_SECONDS = 0.5
_FAREWELL_SECONDS = 30.0
_STALE_SECONDS = 10.0
_REPAIR_AGAIN_SECONDS = 30.0
_SILENT_SECONDS = 120.0  # a server that has not answered for so long is stuck for good
# One question unanswered counts for no more: clocks run on while this process is frozen.
_SILENT_ROUND_SECONDS = _TICK_SECONDS + client_lib.PROBE_SECONDS + 0.5
_FINAL_SAVE_SECONDS = 600.0


class StuckError(Exception):
    """Reverb does not answer any more."""


def serve(run_dir: RunDir, stop: supervision.Stop, heartbeat: Heartbeat, gate: Gate) -> int:
    """Serves until the run is done or `stop` is set.

    Returns:
        The exit code: 0 when the run is done, `RETRY` after a signal.
    """
    replay = settings.Replay()
    limits = tables.replay_limits(
        replay, settings.Learner(), settings.Worker(), settings.Run().num_collectors
    )
    row = Specs.load(run_dir).row
    checkpoints = Checkpoints(run_dir, replay, heartbeat)
    all_tables = tables.build_tables(row, limits, replay.segment_length, run_dir.run_id)
    checkpoints.prepare(all_tables)
    loader = checkpoints.checkpointer
    with checkpoints.loading():
        server = reverb.Server(all_tables, port=gate.reverb_port, checkpointer=loader)
    gate.start()
    client = reverb.Client(f"127.0.0.1:{gate.reverb_port}")
    try:
        return _watch(run_dir, stop, heartbeat, client, checkpoints, limits)
    except StuckError as e:
        logging.error("%s", e)
        gate.close()
        os._exit(supervision.RETRY)  # stopping it would hang too
    finally:
        server.stop()
        gate.close()


def _watch(
    run_dir: RunDir,
    stop: supervision.Stop,
    heartbeat: Heartbeat,
    client: reverb.Client,
    checkpoints: Checkpoints,
    limits: tables.ReplayLimits,
) -> int:
    """Reports and saves until the end; then saves once more."""
    farewell, repair_due, silent = None, 0.0, 0.0
    watch = TableWatch()
    client.reset(tables.STATE)  # a checkpoint may hold the stop of an end that an amendment undid
    while not stop.wait(_TICK_SECONDS):
        asked = time.monotonic()
        infos = client_lib.table_infos(client)
        if infos is not None:
            silent = 0.0
            if not checkpoints.is_loaded(infos):
                heartbeat.close("stopped")
                return supervision.RETRY
            _report(heartbeat, infos)
            heartbeat.update(**watch.fields(infos, time.monotonic()))
            inserts = infos[tables.REPLAY].rate_limiter_info.insert_stats.completed
            if inserts >= limits.min_size:
                checkpoints.save_if_due(client)
        else:
            silent += min(_TICK_SECONDS + time.monotonic() - asked, _SILENT_ROUND_SECONDS)
            if silent > _SILENT_SECONDS:
                heartbeat.close("stopped")
                raise StuckError(f"Reverb has not answered for {silent:.0f} s: starting anew")
        answers = infos is not None  # else a save would hang
        if answers and os.path.exists(run_dir.repair) and time.monotonic() >= repair_due:
            heartbeat.update(state="saving for a repair")
            if checkpoints.save(client):  # nothing waits for it: it may take its time
                heartbeat.close("stopped")
                return supervision.RETRY
            logging.error("a repair waits: what the tables hold can't be saved now")
            repair_due = time.monotonic() + _REPAIR_AGAIN_SECONDS
        if run_dir.is_done:
            farewell = farewell or time.monotonic() + _FAREWELL_SECONDS
            if not _anyone_left(run_dir) or time.monotonic() > farewell:
                break
    _save_at_the_end(stop, heartbeat, client, checkpoints)
    heartbeat.close("done" if run_dir.is_done else "stopped")
    return supervision.OK if run_dir.is_done else supervision.RETRY


def _save_at_the_end(
    stop: supervision.Stop, heartbeat: Heartbeat, client: reverb.Client, checkpoints: Checkpoints
) -> None:
    """Saves once more.

    A save may have been under way when the signal came: the time counts from the signal.
    """
    if not settings.ReplayServer().checkpoint_on_exit:
        return
    heartbeat.update(state="saving")
    left = supervision.grace_seconds() - stop.age if stop.is_set() else _FINAL_SAVE_SECONDS
    checkpoints.save_last(client, left)


def _report(heartbeat: Heartbeat, infos: dict) -> None:
    info = infos[tables.REPLAY]
    length = settings.Replay().segment_length
    inserted = info.rate_limiter_info.insert_stats.completed
    heartbeat.progress(inserted * length)
    heartbeat.update(
        state="running",
        replay_size=info.current_size * length,
        rows_inserted=inserted * length,
        rows_sampled=info.rate_limiter_info.sample_stats.completed * length,
        progress_waiting=infos[tables.PROGRESS].current_size,
    )


def _anyone_left(run_dir: RunDir) -> bool:
    """Whether a collector or the trainer still shows signs of life."""
    now = time.time()
    for path in run_dir.status("x").parent.glob("*.json"):
        status = status_files.read(path)
        if status.get("program") not in ("collect", "train"):
            continue
        if (
            status.get("state") not in ("done", "stopped")
            and now - status.get("time", 0) < _STALE_SECONDS
        ):
            return True
    return False
