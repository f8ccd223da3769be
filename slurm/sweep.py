"""A sweep: tasks x seeds as one array job of SLURM; the same command submits what is missing.

runs/<task>/<config>/seed_<i>/     one run each, with its own run.slrm and run.sh
runs/sweeps/<n>/                   the n-th submission: array.slrm, and members: one run
                                   directory in each line, that of line i is array task i's
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sactory import config as config_lib
from sactory.errors import UserError
from sactory.locks import hold_lock
from sactory.run_dir import poll_json, write_atomic
from slurm import cluster, job, plan, run_files
from slurm.members import (
    FAILED,
    FINISHED,
    QUEUED,
    RUNNING,
    STOPPED,
    WANTS_JOB,
    Member,
    make,
    parse_seeds,
    parse_tasks,
    states,
)
from slurm.site import Site
from slurm.submit import overrides


def submit(configuration: str, args: Any, site: Site) -> int:
    """Submits the runs of a sweep that are neither finished nor in SLURM's hands.

    Args:
        configuration: The configuration file.
        args: The flags of `sactory submit`.
        site: The site's settings.
    """
    if args.collectors:
        raise UserError("--collectors is for one run: a sweep's runs have run.num_collectors")
    if args.at_once is not None and args.at_once < 1:
        raise UserError(f"--at_once = {args.at_once} must be at least 1")
    tasks = [None] if args.tasks is None else parse_tasks(args.tasks)
    seeds = [None] if args.seeds is None else parse_seeds(args.seeds)
    root = Path(os.path.abspath(args.run_dir or "runs"))
    members = make(configuration, functools.partial(overrides, args), tasks, seeds, root)
    if args.dry_run:
        print(_script(members, args, site, root / "sweeps" / "members"), end="")
        return 0
    lock = hold_lock(root / "sweeps" / "lock", f"another `sactory submit` is at work in {root}")
    try:
        return _submit(configuration, members, args, site, root)
    finally:
        os.close(lock)


def _submit(
    configuration: str, members: Sequence[Member], args: Any, site: Site, root: Path
) -> int:
    _freeze(configuration, members)
    found = states(members)
    todo = [member for member, state in zip(members, found) if state in WANTS_JOB]
    print(_summary(found))
    for member, state in zip(members, found):
        if state in (FAILED, STOPPED):
            print(f"  {state}, goes on: {member.run}")
    if todo:
        number, directory = _submit_array(todo, args, site, root)
        print(f"job {number}: {len(todo)} runs, listed in {directory / 'members'}")
    print(f"  follow them: sactory status {root}")
    return 0


def _summary(found: Sequence[str]) -> str:
    counts = Counter(found)
    parts = [f"{counts[state]} {state}" for state in (FINISHED, RUNNING, QUEUED) if counts[state]]
    missing = sum(counts[state] for state in WANTS_JOB)
    return f"{len(found)} runs: {', '.join([*parts, f'{missing} to submit'])}"


def _freeze(configuration: str, members: Sequence[Member]) -> None:
    """Freezes the new run directories, and checks that the others hold the same settings."""
    from sactory import init_run

    new = [member for member in members if not member.run.is_frozen]
    if new:
        print(f"freezing {len(new)} run directories", flush=True)
    for member in members:
        # What each needs is printed for the first one only.
        quiet = contextlib.redirect_stdout(io.StringIO()) if member not in new[:1] else None
        with quiet or contextlib.nullcontext():
            init_run.init(member.run, configuration, member.overrides)


def _submit_array(members: Sequence[Member], args: Any, site: Site, root: Path) -> tuple[str, Path]:
    """Writes the scripts and hands them to SLURM; returns the job's id and their directory."""
    directory = _new_directory(root / "sweeps")
    listing, script = directory / "members", directory / "array.slrm"
    write_atomic(listing, "".join(f"{member.run.root}\n" for member in members))
    write_atomic(script, _script(members, args, site, listing))
    steps, wait = _plan(members, args, site), cluster.kill_wait()
    if steps.note:
        print(steps.note)
    for member in members:
        run_files.write(member.run, run_files.job_script(member.run, steps, site, wait), site)
    number = cluster.submit(str(script))
    for line, member in enumerate(members, 1):
        write_atomic(member.run.root / "id", f"{number}_{line}\n")
    return number, directory


def _script(members: Sequence[Member], args: Any, site: Site, listing: Path) -> str:
    at_once = "" if args.at_once is None else f"%{args.at_once}"
    return job.script(
        _plan(members, args, site),
        site,
        members=listing,
        array=f"1-{len(members)}{at_once}",
        name=f"sweep/{listing.parent.name}",
        output=listing.parent / "%a.out",
        kill_wait=cluster.kill_wait(),
    )


def _plan(members: Sequence[Member], args: Any, site: Site) -> plan.Plan:
    """The steps of each job: all of an array are alike, so the largest replay counts.

    Numbers of collectors and CPUs are those of the first run: amend all of them or none.
    """
    records = [poll_json(member.run.provenance) or {} for member in members]
    sizes = [float((r.get("estimate") or {}).get("replay_bytes") or 0.0) for r in records]
    limit = site.cpus or cluster.most_cpus(site.partition)
    first = members[0]
    settings = first.run.config  # frozen, and perhaps amended since
    config = (
        config_lib.check_text(settings.read_text("utf-8"), str(settings))
        if first.run.is_frozen
        else first.config
    )
    return plan.make(config, max(sizes), args.nodes, limit)


def _new_directory(parent: Path) -> Path:
    """The next free number."""
    taken = [int(path.name) for path in parent.iterdir() if path.name.isdecimal()]
    directory = parent / str(max(taken, default=0) + 1)
    directory.mkdir()
    return directory
