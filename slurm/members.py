"""The members of a sweep: a run for each task and seed, and which of them still want a job."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sactory import config as config_lib
from sactory import settings, slurm_view, status
from sactory.errors import UserError
from sactory.run_dir import RunDir

FINISHED, RUNNING, QUEUED = "finished", "running", "queued"
FAILED, STOPPED, NEW = "failed", "stopped", "new"
WANTS_JOB = (FAILED, STOPPED, NEW)
_ENDING_SECONDS = 120.0
_POLL_SECONDS = 1.0
_MOST_SEEDS = 1000


@dataclass(frozen=True)
class Member:
    """One run of a sweep.

    Attributes:
        run: Its directory.
        overrides: The `--set` bindings that make it.
        config: Its checked settings.
    """

    run: RunDir
    overrides: tuple[str, ...]
    config: config_lib.Config


def parse_seeds(text: str) -> list[int]:
    """The seeds that `1-10` or `1,3,5-7` names, each once, in their order."""
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if last < first:
            raise UserError(f"--seeds = {text}: '{part}' must be a seed, or a range such as 1-10")
        if last - first >= _MOST_SEEDS:
            raise UserError(f"--seeds = {text}: {part} are more than {_MOST_SEEDS} runs of a task")
        seeds += range(first, last + 1)
    return list(dict.fromkeys(seeds))


def parse_tasks(text: str) -> list[str]:
    """The environments that `walker_walk,cheetah_run` names."""
    tasks = [part.strip() for part in text.split(",")]
    if not all(tasks):
        raise UserError(f"--tasks = {text} must be environments with commas between them")
    return list(dict.fromkeys(tasks))


def make(
    configuration: str,
    bindings: Callable[[RunDir | None], Sequence[str]],
    tasks: Sequence[str | None],
    seeds: Sequence[int | None],
    root: Path,
) -> list[Member]:
    """The members, task after task: `root/<task>/<run.name>/seed_<seed>`.

    Args:
        configuration: The configuration file.
        bindings: The `--set` bindings of all members, and what a certain one adds.
        tasks: Environments; None: the configuration's own.
        seeds: Seeds; None: the configuration's own.
        root: Where the directories of the tasks lie.
    """
    members = []
    for task in tasks:
        for seed in seeds:
            own: list[str] = []
            own += [] if task is None else [f"envs.load.name = {task!r}"]
            own += [] if seed is None else [f"run.seed = {seed}"]
            checked = config_lib.check(config_lib.resolve(configuration, [*bindings(None), *own]))
            run, env = checked.get(settings.Run), checked.get(settings.Env)
            place = root / config_lib.task_slug(env.name) / run.name / f"seed_{run.seed}"
            member = RunDir(place)
            members.append(Member(member, (*bindings(member), *own), checked))
    return members


def states(members: Sequence[Member]) -> list[str]:
    """What each member is; waits for jobs that are ending, for they may yet be requeued.

    Raises:
        UserError: SLURM gives no answer, so that a second job of a run could not be told.
    """
    runs = [member.run for member in members]
    end = time.monotonic() + _ENDING_SECONDS
    while True:
        view = slurm_view.look(runs)
        if view.trouble:
            raise UserError(f"{view.trouble}: try again when SLURM answers")
        ending = [job for job in view.jobs.values() if job.state == "COMPLETING"]
        if not ending or time.monotonic() > end:
            return [state(run, view.jobs.get(run.root)) for run in runs]
        time.sleep(_POLL_SECONDS)


def state(run: RunDir, job: slurm_view.Job | None) -> str:
    """One of `finished`, `running`, `queued`, `failed`, `stopped` and `new`."""
    if run.is_done and run.result.exists():
        return FINISHED
    if not run.is_frozen:
        return NEW
    told = slurm_view.joined(status.collect(run)["state"], job)
    if job is not None and not job.is_over:
        return QUEUED if told == "queued" else RUNNING
    if told in ("running", "starting"):  # outside of SLURM
        return RUNNING
    if told == "failed":
        return FAILED
    return STOPPED if slurm_view.job_id(run) or run.train_log.exists() else NEW
