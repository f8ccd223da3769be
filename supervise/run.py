"""`sactory run`: init, all programs, live progress, final evaluation.

This process holds the run's lock, shows what happens and reports how it ended; the programs live
under the reaper in a session of their own. It never imports TensorFlow.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from sactory import config, launch, settings, status_files
from sactory.errors import UserError
from sactory.flags import Flags, print_error
from sactory.locks import LockedError, hold_lock
from sactory.run_dir import RunDir, read_json
from supervise import processes, reaper, results, tree
from supervise.interrupts import Interrupts
from supervise.progress import Console, Progress

_POLL_SECONDS = 0.5


def main(argv: list[str]) -> int:
    """Runs or resumes a run; 0 only if it finished."""
    flags = Flags("run", "Trains: init if needed, all programs, final evaluation.", "CONFIG")
    flags.string("run_dir", None, "where the run lives; default runs/<task>/<name>/seed_<seed>")
    flags.multi_string("set", [], "one setting, such as 'run.seed = 2'; may be given many times")
    flags.float("grace", tree.DEFAULT_GRACE_SECONDS, "seconds the programs get to save at a stop")
    flags.boolean("insecure_listen", False, "open the replay server's port to everybody")
    args, words = flags.parse(argv)
    if args.grace < 5:
        raise UserError(f"--grace = {args.grace:g} must be at least 5 seconds: programs must save")
    processes.become_subreaper()  # should the reaper be killed, its orphans come here
    interrupts = Interrupts()
    console = Console()
    run_dir = _init(words[0] if words else None, args.run_dir, args.set, interrupts, console)
    if isinstance(run_dir, int):
        return run_dir
    if results.print_stored(run_dir, console):
        return 0
    lock = _hold(run_dir, args.grace, console)
    try:
        return _run(run_dir, lock, args, interrupts, console)
    finally:
        console.close()
        os.close(lock)


def _init(
    configuration: str | None,
    where: str | None,
    overrides: list[str],
    interrupts: Interrupts,
    console: Console,
) -> RunDir | int:
    """Freezes the run directory, or checks that it holds a run with the same settings.

    Returns:
        The run directory, or the exit code if that failed.
    """
    if configuration is None:
        if where is None:
            raise UserError(
                "what to train? `sactory run configs/tasks/cartpole_swingup.gin`, or "
                "`sactory run --run_dir R` to resume"
            )
        if overrides:
            raise UserError("--set needs the configuration that it changes: `sactory run CONFIG …`")
        return _check(RunDir(where).require(), console)
    from sactory.init_run import default_run_dir, init

    run_dir = RunDir(where or default_run_dir(configuration, overrides))
    if run_dir.is_frozen:
        init(run_dir, configuration, overrides)  # only compares
        return _check(run_dir, console)
    exit_code = _freeze(run_dir, configuration, overrides, interrupts)
    return exit_code or run_dir


def _check(run_dir: RunDir, console: Console) -> RunDir:
    from sactory.provenance import check_sources

    for warning in check_sources(run_dir):
        console.say(f"sactory: warning: {warning}")
    return run_dir


def _freeze(
    run_dir: RunDir, configuration: str, overrides: list[str], interrupts: Interrupts
) -> int:
    child = subprocess.Popen(
        [sys.executable, "-m", "supervise.freeze", str(run_dir.root), configuration, *overrides],
        stderr=subprocess.PIPE,
        text=True,
        env=launch.program_environment(),
        preexec_fn=processes.child_setup(),
    )
    said = _wait_for(child, interrupts)
    if interrupts.count:
        return interrupts.exit_code
    print(said.strip(), end="\n" if said.strip() else "", file=sys.stderr)
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


def _wait_for(child: subprocess.Popen[str], interrupts: Interrupts) -> str:
    """Waits for a child and returns what it wrote to standard error; passes a stop on to it."""
    told = False
    while True:
        try:
            return child.communicate(timeout=_POLL_SECONDS)[1] or ""
        except subprocess.TimeoutExpired:
            if interrupts.count and not told:
                child.terminate()
                told = True


def _hold(run_dir: RunDir, grace: float, console: Console) -> int:
    """Takes the run's lock. The reaper inherits it, so a dying tree is waited for."""
    began, told = time.monotonic(), False
    while True:
        try:
            return hold_lock(run_dir.lock("run"))
        except LockedError:
            pass
        owner = read_lock_owner(run_dir)
        waited = time.monotonic() - began
        if waited > 2.0 and (job := read_lock_job(run_dir)):
            raise UserError(
                f"SLURM's {job} works on {run_dir}: `sactory stop --run_dir {run_dir}` ends it"
            )
        if waited > 2.0 and owner is not None and processes.start_time(owner) is not None:
            raise UserError(
                f"another `sactory run`, process {owner}, holds {run_dir}: wait for it, or end it "
                f"with `sactory stop --run_dir {run_dir}`"
            )
        if waited > grace + 30:
            raise UserError(f"{run_dir} is still held by an earlier run, maybe on another host")
        if waited > 2.0 and not told:
            told = True
            console.say("sactory: waiting for the programs of an earlier run to save and end")
        time.sleep(0.2)


def read_lock_owner(run_dir: RunDir) -> int | None:
    """The process that took the run's lock, as the lock file names it."""
    try:
        return int(run_dir.lock("run").read_text())
    except (OSError, ValueError):
        return None


def read_lock_job(run_dir: RunDir) -> str:
    """`job 17` if that job of SLURM took the run's lock; else ""."""
    with contextlib.suppress(OSError):
        text = run_dir.lock("run").read_text().strip()
        return text if text.startswith("job ") else ""
    return ""


def _run(run_dir: RunDir, lock: int, args: Any, interrupts: Interrupts, console: Console) -> int:
    config.load(run_dir)
    run = settings.Run()
    run_dir.failed.unlink(missing_ok=True)
    provenance = read_json(run_dir.provenance)
    device = settings.Train().device
    members = tree.programs(run_dir, run.num_collectors, device, args.insecure_listen)
    root = tree.write_tree(run_dir, members, _directory(provenance), args.grace)
    console.say(f"sactory: run directory {run_dir}")
    console.say(f"sactory: logs {root}/*/log/main/current")
    process = reaper.start(root, keep=(lock,))
    result = _watch(process, Progress(run_dir, run.max_env_steps, console), interrupts, console)
    console.close()
    if result not in (reaper.FINISHED, reaper.FAILED, reaper.STOPPED):
        # The reaper was killed or broke: its orphans are ours now, and told to end.
        processes.end_descendants(args.grace)
    if interrupts.count or result == reaper.STOPPED:
        console.say(f"sactory: stopped; `sactory run --run_dir {run_dir}` resumes")
        return interrupts.exit_code
    if not run_dir.is_done:
        return _report_failure(run_dir, root, result)
    if result != reaper.FINISHED:
        failed = status_files.read(run_dir.failed)
        console.say(f"sactory: warning: after the end {results.failure_text(failed)}")
    return results.final_evaluation(run_dir, root, interrupts, console)


def _directory(provenance: Any) -> str | None:
    """Where init was called, so that a user's code finds its files where it did then."""
    return provenance.get("cwd") if isinstance(provenance, dict) else None


def _watch(
    process: subprocess.Popen[bytes], progress: Progress, interrupts: Interrupts, console: Console
) -> int:
    """Shows progress until the reaper ends, passing stops on to it; returns its exit code."""
    told = 0
    while process.poll() is None:
        if interrupts.count > told:
            told += 1
            # Signals that wait to be taken don't add up: the second must be another one.
            process.send_signal(signal.SIGTERM if told == 1 else signal.SIGINT)
            if told == 1:
                console.say("sactory: stopping: the programs save and end (again: at once)")
        progress.update()
        try:
            process.wait(_POLL_SECONDS)
        except subprocess.TimeoutExpired:
            continue
    progress.update()
    return process.returncode


def _report_failure(run_dir: RunDir, root: Path, result: int) -> int:
    failed = status_files.read(run_dir.failed)
    if failed:
        print_error(results.failure_text(failed))
        print(f"its log: {failed.get('log')}", file=sys.stderr)
        return 2 if failed.get("user_error") else 1
    why = "was killed" if result < 0 else f"ended with {result}"
    print_error(f"the reaper of the programs {why}: see {root / 'reaper.log'}")
    print(f"`sactory run --run_dir {run_dir}` resumes", file=sys.stderr)
    return 1
