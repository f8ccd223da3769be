"""The collectors in jobs of their own: an array that grows and shrinks while the run trains."""

from __future__ import annotations

import contextlib

from sactory import settings
from sactory.config import Config
from sactory.run_dir import RunDir, write_atomic
from slurm import cluster, job, plan
from slurm.site import Site


def resize(run_dir: RunDir, config: Config, site: Site, wanted: int, main_job: str) -> None:
    """Makes the collectors beside the run's own `wanted` many, and says what it did.

    Args:
        run_dir: The run.
        config: Its settings.
        site: The site's settings.
        wanted: Number of tasks that should be in SLURM's queue.
        main_job: The run's own job.
    """
    jobs = run_dir.root / "collectors.ids"
    queued = _queued(_ids(run_dir))
    surplus = [task for number, task in queued.items() if number >= wanted]
    if surplus:
        cluster.call("scancel", *surplus)
    missing = [number for number in range(wanted) if number not in queued]
    kept = {task.split("_")[0] for number, task in queued.items() if number < wanted}
    if missing:
        text = job.collectors(
            site,
            run_dir.root,
            config.get(settings.Run).num_collectors,
            ",".join(map(str, missing)),
            config.get(settings.Collect).cpus or 1,
            plan.PROGRAM_MB,
            main_job,
            cluster.kill_wait(),
        )
        write_atomic(run_dir.root / "collectors.slrm", text)
        kept.add(cluster.submit(str(run_dir.root / "collectors.slrm")))
    write_atomic(jobs, "".join(f"{name}\n" for name in sorted(kept)))
    print(f"collectors beside it: {wanted} ({len(missing)} submitted, {len(surplus)} cancelled)")


def _ids(run_dir: RunDir) -> list[str]:
    with contextlib.suppress(OSError):
        return (run_dir.root / "collectors.ids").read_text().split()
    return []


def _queued(jobs: list[str]) -> dict[int, str]:
    """Tasks that wait or run: {number: id such as `17_3`}."""
    found: dict[int, str] = {}
    for name in jobs:
        for task in cluster.tasks(name):
            found[int(task.split("_")[1])] = task
    return found
