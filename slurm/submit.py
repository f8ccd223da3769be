"""`sactory submit`: a run, or a sweep of tasks and seeds, as SLURM jobs.

The same command again submits what is neither finished nor in SLURM's queue, so it also resumes.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from sactory import config as config_lib
from sactory import settings
from sactory.errors import UserError
from sactory.flags import Flags
from sactory.run_dir import RunDir, poll_json, write_atomic
from slurm import cluster, collectors, job, plan, run_files, site


def main(argv: list[str]) -> int:
    """The command line of `sactory submit`."""
    flags = Flags("submit", "Trains on a SLURM cluster: one run, or a sweep.", "CONFIG")
    flags.string("run_dir", None, "where the run lives, or a sweep's runs; default runs/…")
    flags.multi_string("set", [], "one setting, such as 'run.seed = 2'; may be given many times")
    flags.string("seeds", None, "a sweep over seeds, such as 1-10 or 1,3,5")
    flags.string("tasks", None, "a sweep over tasks, such as walker_walk,cheetah_run")
    flags.integer("at_once", None, "runs of a sweep that may run at the same time; default: all")
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

        if not words:
            raise UserError("a sweep needs a configuration: `sactory submit CONFIG --seeds 1-10`")
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
    if args.collectors is not None and args.collectors < 0:
        raise UserError(f"--collectors = {args.collectors} must be 0 or more")
    return dataclasses.replace(site.read(), **given)


def overrides(args: Any, run_dir: RunDir | None = None) -> list[str]:
    """The `--set` bindings, and how the replay server listens if they don't say it.

    A run of several hosts gets connections with TLS; one that exists keeps what it has.
    """
    bindings: list[str] = args.set
    if any(b.strip().startswith("replay_server.listen") for b in bindings):
        return bindings
    if run_dir is not None and run_dir.is_frozen:
        return [*bindings, f"replay_server.listen = {_listen(run_dir)!r}"]
    return [*bindings, "replay_server.listen = 'network'"] if _is_across(args) else bindings


def _is_across(args: Any) -> bool:
    return args.nodes > 1 or bool(args.collectors)


def _listen(run_dir: RunDir) -> str:
    return _frozen(run_dir).get(settings.ReplayServer).listen


def _frozen(run_dir: RunDir) -> config_lib.Config:
    return config_lib.check_text(run_dir.config.read_text("utf-8"), str(run_dir.config))


def _submit(configuration: str | None, args: Any, here: site.Site) -> int:
    run_dir, checked = _run(configuration, args)
    limit = here.cpus or cluster.most_cpus(here.partition)
    needs = (poll_json(run_dir.provenance) or {}).get("estimate") or {}
    steps = plan.make(checked, float(needs.get("replay_bytes") or 0.0), args.nodes, limit)
    text = run_files.job_script(run_dir, steps, here, cluster.kill_wait())
    if args.dry_run:
        print(text, end="")
        return 0
    if run_dir.is_done and run_dir.result.exists():
        print(f"{run_dir} is finished: nothing to submit")
        return 0
    current = job_id(run_dir)
    state = cluster.state(current)
    if state:
        print(f"{run_dir} is job {current} already ({state.lower()})")
    else:
        if steps.note:
            print(steps.note)
        run_files.write(run_dir, text, here)
        current = cluster.submit(str(run_dir.root / "run.slrm"))
        write_atomic(run_dir.root / "id", current + "\n")
        print(f"job {current}: {run_dir}")
        print(f"  follow it: sactory status --run_dir {run_dir} --watch")
    if args.collectors is not None:
        collectors.resize(run_dir, checked, here, args.collectors, current)
    return 0


def _run(configuration: str | None, args: Any) -> tuple[RunDir, config_lib.Config]:
    """The run directory, frozen unless this is a dry run, and its settings.

    Raises:
        UserError: The run is confined to one host, and this command wants several.
    """
    from sactory import init_run

    if configuration is None:
        run_dir = RunDir(args.run_dir).require()
        checked = _frozen(run_dir)
    else:
        where = args.run_dir or init_run.default_run_dir(configuration, args.set)
        run_dir = RunDir(where)
        bindings = overrides(args, run_dir)
        if run_dir.is_frozen or not args.dry_run:
            init_run.init(run_dir, configuration, bindings)
            checked = _frozen(run_dir)
        else:
            checked = config_lib.check(config_lib.resolve(configuration, bindings))
    if _is_across(args) and checked.get(settings.ReplayServer).listen != "network":
        raise UserError(
            f"{run_dir} takes connections on one host only (replay_server.listen = 'local'): end "
            f"its job, then `sactory amend --run_dir {run_dir} --set "
            "\"replay_server.listen = 'network'\"`"
        )
    return run_dir, checked


def job_id(run_dir: RunDir) -> str:
    """The job of a run, as the file `id` names it; "" if there was none."""
    try:
        return (run_dir.root / "id").read_text().strip()
    except OSError:
        return ""
