"""Writes the sbatch script of a run: `slurm/run.sbatch` with its settings filled in."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from pathlib import Path

from slurm.plan import Plan
from slurm.site import Site

TEMPLATE = Path(__file__).with_name("run.sbatch")
_START, _END = "# --- settings\n", "# --- end of settings\n"
_SAVE_MARGIN_SECONDS = 20


def script(
    plan: Plan,
    site: Site,
    run_dir: str | Path | None = None,
    *,
    members: str | Path | None = None,
    array: str | None = None,
    name: str = "sactory",
    time: str = "",
    output: str | Path = "slurm-%j.out",
    prepare: str = "",
    kill_wait: int = 30,
) -> str:
    """The script of one run, or with `members` and `array` of many.

    Args:
        plan: The steps.
        site: The site's settings.
        run_dir: The run directory of the one run.
        members: A file with a run directory in each line; that of line n is array task n's.
        array: Which tasks, as `sbatch --array` takes it, such as `1-20%4`.
        name: The job's name.
        time: Its time limit, as `sbatch --time` takes it; "": the site's.
        output: Where SLURM writes what the script says before it knows its run directory.
        prepare: A line of shell that runs before the programs, with `$RUN`; "": nothing.
        kill_wait: The cluster's KillWait in seconds.
    """
    lines = _directives(plan, site, name, time or site.time, output, array)
    lines += site.setup_lines()
    if members is not None:
        where = shlex.quote(str(members))
        lines.append(f'RUN=$(sed -n "${{SLURM_ARRAY_TASK_ID}}p" {where})')
    else:
        lines.append(f"RUN={shlex.quote(str(run_dir))}")
    warn = warn_seconds(site, time or site.time)
    lines += [
        f"GRACE={max(5, warn - _SAVE_MARGIN_SECONDS)}  # seconds to save in before the time limit",
        f"KILL_WAIT={max(5, kill_wait - 5)}  # seconds to save in after scancel",
        f"SACTORY=({shlex.join(site.command())})",
        "prepare() {",
        f"    {prepare or ':'}",
        "}",
        "steps() {  # step NODE CPUS MB PROGRAMS [OPTIONS OF srun]",
        *(f"    {line}" for line in _step_lines(plan, site)),
        "}",
    ]
    return fill(TEMPLATE, lines)


def fill(template: Path, lines: list[str]) -> str:
    """A script of `slurm/` with `lines` for its settings."""
    head, rest = template.read_text().split(_START)
    body = rest.split(_END)[1]
    head += "# Written by `sactory submit`; edit it and `sbatch` it by hand if you like.\n"
    return head + _START + "\n".join(lines) + "\n" + _END + body


def _directives(
    plan: Plan, site: Site, name: str, time: str, output: str | Path, array: str | None
) -> list[str]:
    options = [
        f"--job-name={name}",
        f"--nodes={plan.nodes}",
        "--ntasks-per-node=1",
        f"--cpus-per-task={plan.cpus}",
        f"--mem={plan.memory_mb}",
        f"--time={time}",
        f"--signal=B:USR1@{warn_seconds(site, time)}",
        "--requeue",
        "--open-mode=append",
        f"--output={output}",
        *([f"--gres={site.gpu}"] if plan.gpu else []),
        *([f"--array={array}"] if array else []),
        *site.sbatch_options(),
    ]
    return [f"#SBATCH {option}" for option in options]


def collectors(
    site: Site,
    run_dir: Path,
    first: int,
    tasks: str,
    cpus: int,
    memory_mb: int,
    after: str,
    kill_wait: int = 30,
) -> str:
    """The script of an array job of collectors.

    Args:
        site: The site's settings.
        run_dir: The run directory.
        first: Number of the run's own collectors; task i is collector `first` + i.
        tasks: Which tasks, as `sbatch --array` takes it.
        cpus: CPUs of each.
        memory_mb: Memory of each in megabytes.
        after: The run's own job, which must have started.
        kill_wait: The cluster's KillWait in seconds.
    """
    if site.collectors_partition:
        site = replace(site, partition=site.collectors_partition)
    warn = warn_seconds(site, site.time)
    options = [
        "--job-name=collectors",
        f"--array={tasks}",
        "--nodes=1",
        "--ntasks=1",
        f"--cpus-per-task={cpus}",
        f"--mem={memory_mb}",
        f"--time={site.time}",
        f"--signal=B:USR1@{warn}",
        "--requeue",
        "--open-mode=append",
        f"--output={run_dir}/collectors.out",
        f"--dependency=after:{after}",
        *site.sbatch_options(),
    ]
    lines = [f"#SBATCH {option}" for option in options]
    lines += site.setup_lines()
    lines += [
        f"RUN={shlex.quote(str(run_dir))}",
        f"FIRST={first}  # the run's own collectors have the numbers below",
        f"CPUS={cpus}",
        f"GRACE={max(5, warn - _SAVE_MARGIN_SECONDS)}",
        f"KILL_WAIT={max(5, kill_wait - 5)}",
        f"SACTORY=({shlex.join(site.command())})",
    ]
    return fill(Path(__file__).with_name("collectors.sbatch"), lines)


def _step_lines(plan: Plan, site: Site) -> list[str]:
    lines = []
    for step in plan.steps:
        line = f"step {step.node} {step.cpus} {step.memory_mb} {','.join(step.programs)}"
        if plan.gpu:
            line += f" --gres={site.gpu if 'train' in step.programs else 'none'}"
        lines.append(line)
    return lines


def warn_seconds(site: Site, time: str) -> int:
    """How long before the limit SLURM warns the job: the site's, at most a third of the time."""
    total = seconds(time)
    return site.warn_seconds if total is None else min(site.warn_seconds, total // 3)


def seconds(time: str) -> int | None:
    """A time limit in seconds: `90` are minutes, else SLURM's own forms; None if it is none."""
    match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", time)
    if match is None:
        return None
    days, first, second, third = (None if g is None else int(g) for g in match.groups())
    if days is not None:  # days-hours[:minutes[:seconds]]
        return ((days * 24 + (first or 0)) * 60 + (second or 0)) * 60 + (third or 0)
    if third is not None:  # hours:minutes:seconds
        return ((first or 0) * 60 + (second or 0)) * 60 + third
    return (first or 0) * 60 + (second or 0)  # minutes[:seconds]
