"""`sactory submit`: a run, or a sweep of tasks and seeds, as SLURM jobs.

The same command again submits what is neither finished nor in SLURM's queue, so it also resumes.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from sactory import config as config_lib
from sactory.errors import UserError
from sactory.flags import Flags
from sactory.run_dir import RunDir, poll_json, write_atomic
from slurm import cluster, job, plan, site

_LISTEN = "replay_server.listen = 'network'"


def main(argv: list[str]) -> int:
    """The command line of `sactory submit`."""
    flags = Flags("submit", "Trains on a SLURM cluster: one run, or a sweep.", "CONFIG")
    flags.string("run_dir", None, "where the run lives; default runs/<task>/<name>/seed_<seed>")
    flags.multi_string("set", [], "one setting, such as 'run.seed = 2'; may be given many times")
    flags.string("seeds", None, "a sweep over seeds, such as 1-10 or 1,3,5")
    flags.string("tasks", None, "a sweep over tasks, such as walker_walk,cheetah_run")
    flags.integer("collectors", None, "more collectors, in an array job that may come and go")
    flags.integer("nodes", 1, "nodes of the run's job")
    flags.string("time", None, "time limit of one start: minutes or SLURM's form; default: site's")
    flags.string("partition", None, "where to run; default: the site's")
    flags.boolean("dry_run", False, "print the script and submit nothing")
    args, words = flags.parse(argv)
    if not words and args.run_dir is None:
        raise UserError("what to train? `sactory submit configs/tasks/cartpole_swingup.gin`")
    here = _site(args)
    if not args.dry_run:
        cluster.require()
    if args.seeds is not None or args.tasks is not None:
        from slurm import sweep

        return sweep.submit(words[0], args, here)
    return _submit(words[0] if words else None, args, here)


def _site(args: Any) -> site.Site:
    """The site's settings with what the command line says instead."""
    given: dict[str, str] = {}
    if args.time is not None:
        if job.seconds(args.time) is None:
            raise UserError(
                f"--time = {args.time} must be minutes or one of SLURM's forms, such as 24:00:00"
            )
        given["time"] = args.time
    if args.partition is not None:
        given["partition"] = args.partition
    if args.nodes < 1:
        raise UserError(f"--nodes = {args.nodes} must be at least 1")
    return dataclasses.replace(site.read(), **given)


def overrides(args: Any) -> list[str]:
    """The `--set` bindings; a run of several hosts gets connections with TLS."""
    bindings: list[str] = args.set
    across = args.nodes > 1 or args.collectors
    if across and not any(b.strip().startswith("replay_server.listen") for b in bindings):
        return [*bindings, _LISTEN]
    return bindings


def _submit(configuration: str | None, args: Any, here: site.Site) -> int:
    run_dir, checked = _run(configuration, args)
    limit = here.cpus or cluster.most_cpus(here.partition)
    needs = (poll_json(run_dir.provenance) or {}).get("estimate") or {}
    steps = plan.make(checked, float(needs.get("replay_bytes") or 0.0), args.nodes, limit)
    text = job.script(
        steps,
        here,
        run_dir,
        name=_name(run_dir),
        output=run_dir.root / "stdout",
        kill_wait=cluster.kill_wait(),
    )
    if args.dry_run:
        print(text, end="")
        return 0
    if run_dir.is_done and run_dir.result.exists():
        print(f"{run_dir} is finished: nothing to submit")
        return 0
    if steps.note:
        print(steps.note)
    current = job_id(run_dir)
    state = cluster.state(current)
    if state:
        print(f"{run_dir} is job {current} already ({state.lower()})")
        return 0
    write_atomic(run_dir.root / "run.slrm", text)
    submitted = cluster.submit(str(run_dir.root / "run.slrm"))
    write_atomic(run_dir.root / "id", submitted + "\n")
    print(f"job {submitted}: {run_dir}\n  follow it: sactory status --run_dir {run_dir} --watch")
    return 0


def _run(configuration: str | None, args: Any) -> tuple[RunDir, config_lib.Config]:
    """The run directory, frozen unless this is a dry run, and its settings."""
    from sactory import init_run

    if configuration is None:
        run_dir = RunDir(args.run_dir).require()
        text = run_dir.config.read_text("utf-8")
        return run_dir, config_lib.check_text(text, str(run_dir.config))
    bindings = overrides(args)
    checked = config_lib.check(config_lib.resolve(configuration, bindings))
    run_dir = RunDir(args.run_dir or init_run.default_run_dir(configuration, bindings))
    if not args.dry_run:
        init_run.init(run_dir, configuration, bindings)
    return run_dir, checked


def job_id(run_dir: RunDir) -> str:
    """The job of a run, as the file `id` names it; "" if there was none."""
    try:
        return (run_dir.root / "id").read_text().strip()
    except OSError:
        return ""


def _name(run_dir: RunDir) -> str:
    """A job's name for `squeue`: the last parts of the run directory."""
    return "/".join(Path(run_dir.root).parts[-3:]).lstrip("/")
