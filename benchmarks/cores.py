"""Runs long jobs side by side, one a core."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterable
from typing import TypeVar

Job = TypeVar("Job")


def share(jobs: Iterable[Job], work: Callable[[Job, int], None]) -> None:
    """Calls `work(job, core)` for each job, as many at a time as this process may use cores.

    Args:
        jobs: In the order in which they are begun.
        work: What to do; it keeps to the core itself.
    """
    waiting: queue.SimpleQueue[Job] = queue.SimpleQueue()
    for job in jobs:
        waiting.put(job)

    failed: list[Exception] = []

    def serve(core: int) -> None:
        while True:
            try:
                job = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                work(job, core)
            except Exception as e:  # the other jobs are worth having
                failed.append(e)

    workers = [threading.Thread(target=serve, args=[c]) for c in sorted(os.sched_getaffinity(0))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if failed:
        raise failed[0]
