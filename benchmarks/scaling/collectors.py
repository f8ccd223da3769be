"""Several collectors in one process, a thread each: 32 processes with TensorFlow need much memory.

`python -m benchmarks.scaling.collectors RUN_DIR FIRST COUNT` takes the worker ids from FIRST on.
"""

from __future__ import annotations

import os
import sys
import threading

from sactory import config, supervision
from sactory.run_dir import RunDir


def main(root: str, first: str, count: str) -> None:
    """Collects until a signal comes."""
    stop = supervision.start_signal_thread()
    run_dir = RunDir(root)
    config.load(run_dir)
    import reverb
    import tensorflow as tf

    from collect.worker import Worker
    from sactory import client as client_lib
    from sactory.heartbeat import Heartbeat

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)

    def make(worker: int) -> Worker:
        client = reverb.Client(client_lib.target(run_dir))
        return Worker(run_dir, worker, stop, Heartbeat(run_dir, "collect", worker), client)

    client_lib.connect(run_dir, stop.event)
    workers = [make(worker) for worker in range(int(first), int(first) + int(count))]
    threads = [threading.Thread(target=worker.run) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os._exit(0)  # Reverb's threads would abort Python's own end


if __name__ == "__main__":
    main(*sys.argv[1:])
