"""`sactory collect`: flags and wiring of program 2."""

from __future__ import annotations

import contextlib
import itertools
import os

from sactory import config, cpus, settings, supervision
from sactory.errors import RetryError, UserError
from sactory.flags import Flags
from sactory.heartbeat import Heartbeat
from sactory.locks import LockedError, hold_lock
from sactory.run_dir import RunDir


def main(argv: list[str]) -> int:
    """Collects experience until the run ends or a signal comes."""
    flags = Flags("collect", "Acts in environments with the newest policy and writes rows.")
    flags.string("run_dir", None, "the run directory", required=True)
    flags.integer("worker", None, "its id; default: the lowest free one beyond `sactory run`'s")
    args, _ = flags.parse(argv)
    run_dir = RunDir(args.run_dir).require()
    if run_dir.is_done:
        print(f"the run in {run_dir} is finished")
        return supervision.OK
    config.load(run_dir)
    worker = take_worker_id(run_dir, args.worker)
    stop = supervision.start_signal_thread()
    cpus.claim(f"collect_{worker}", settings.Collect().cpus)
    heartbeat = Heartbeat(run_dir, "collect", worker)
    return _collect(run_dir, worker, stop, heartbeat)


def _collect(run_dir: RunDir, worker: int, stop: supervision.Stop, heartbeat: Heartbeat) -> int:
    # A few rows through small layers: oneDNN's way of choosing a kernel costs more than it saves.
    os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"
    import tensorflow as tf
    from absl import logging

    from sactory.provenance import check_sources

    for warning in check_sources(run_dir):
        logging.warning("%s", warning)
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)

    from collect.worker import Worker
    from sactory import client as client_lib

    try:
        client = client_lib.connect(run_dir, stop.event)
        if client is None:
            heartbeat.close("done" if run_dir.is_done else "stopped")
            return supervision.OK if run_dir.is_done else supervision.RETRY
        return Worker(run_dir, worker, stop, heartbeat, client).run()
    except client_lib.ServerGoneError as e:
        heartbeat.update(error=str(e))
        heartbeat.close("stopped")
        return supervision.RETRY


def take_worker_id(run_dir: RunDir, wanted: int | None) -> int:
    """Takes a worker's id for as long as this process lives.

    Raises:
        RetryError: A supervised collector's is taken: the other one may end.
        UserError: Another process on a host of this run has `wanted`, or it is negative.
    """
    if wanted is not None and wanted < 0:
        raise UserError(f"--worker = {wanted} must be 0 or more")
    first = settings.Run().num_collectors  # a supervised one may just be between two starts
    for worker in itertools.count(first) if wanted is None else (wanted,):
        with contextlib.suppress(LockedError):
            hold_lock(run_dir.lock(f"collect_{worker}"))
            return worker
    taken = f"--worker = {wanted} is taken by another collector of {run_dir}"
    if supervision.RESTARTS_VARIABLE in os.environ:
        raise RetryError(taken)
    raise UserError(f"{taken}: leave --worker out to get a free id")
