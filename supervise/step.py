"""`sactory step`: some of a run's programs on this host, under supervise: a step of a job.

The job's script starts a step for each program, on the node and with the CPUs that are its own.
Who coordinates them is the script; a step only keeps its programs alive and ends them in order.
"""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from sactory import config, cpus, settings, status, status_files
from sactory.errors import UserError
from sactory.flags import Flags, print_error
from sactory.locks import LockedError, hold_lock
from sactory.run_dir import RunDir, read_json
from sactory.supervision import RETRY
from supervise import processes, reaper, results, tree
from supervise.interrupts import Interrupts

_NAME = re.compile(r"replay_server|train|eval|collect_\d+")
_POLL_SECONDS = 0.2


def main(argv: list[str]) -> int:
    """Runs the programs until they have finished (0), one has failed, or a signal comes (75)."""
    flags = Flags("step", "Keeps some of a run's programs alive here: one step of a SLURM job.")
    flags.string("run_dir", None, "the run directory", required=True)
    flags.string("programs", None, "such as train or collect_0,collect_1", required=True)
    flags.integer("cpus", None, "CPUs that they stay on; default: all that this step may use")
    flags.float("grace", tree.DEFAULT_GRACE_SECONDS, "seconds to save in after HUP")
    flags.float("kill_wait", 25.0, "seconds to save in after TERM: less than SLURM's KillWait")
    flags.boolean("insecure_listen", False, "open the replay server's port to everybody")
    args, _ = flags.parse(argv)
    run_dir = RunDir(args.run_dir).require()
    names = _names(args.programs)
    processes.become_subreaper()  # should the reaper be killed, its orphans come here
    interrupts = Interrupts()
    config.load(run_dir)
    lock = _hold(run_dir, f"step_{names[0]}", args.grace, interrupts)
    if lock is None:
        return RETRY
    given = cpus.confine(args.cpus)
    print(f"sactory: {', '.join(names)} on {socket.gethostname()}: {given}", flush=True)
    device = settings.Train().device
    members = [tree.program(run_dir, name, device, args.insecure_listen) for name in names]
    for member in members:
        member.environment[cpus.GIVEN_VARIABLE] = str(given.threads)
    directory = (read_json(run_dir.provenance) or {}).get("cwd")
    place = f"{socket.gethostname()}.{names[0]}"
    root = tree.write_tree(run_dir, members, directory, args.grace, name=place)
    process = reaper.start(root, keep=(lock,))
    is_last = tree.LAST_TO_STOP in names
    watch = _Watch(process, root, lambda: is_last and _others_live(run_dir, names))
    result = watch.until_end(interrupts, args.grace, args.kill_wait)
    processes.end_descendants(args.kill_wait)  # of a reaper that was killed or broke
    if result == reaper.STOPPED or interrupts.count:
        return RETRY
    if result == reaper.FINISHED:
        return 0
    failed = status_files.read(run_dir.failed)
    print_error(results.failure_text(failed) if failed else f"see {root / 'reaper.log'}")
    return 2 if failed.get("user_error") else 1


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if not _NAME.fullmatch(name):
            raise UserError(
                f"--programs: '{name}' is none of replay_server, train, eval, collect_<number>"
            )
    return names


def _hold(run_dir: RunDir, name: str, grace: float, interrupts: Interrupts) -> int | None:
    """Takes the step's lock, which its reaper inherits; None if a stop came meanwhile.

    A node that was given up may still be ending the step of an earlier start.

    Raises:
        UserError: It is still held when nothing of an earlier start can be alive.
    """
    end = time.monotonic() + grace + 30.0
    while not interrupts.count:
        try:
            return hold_lock(run_dir.lock(name))
        except LockedError:
            if time.monotonic() > end:
                raise UserError(
                    f"{run_dir.lock(name)} is held: another job works on {run_dir}, see `squeue`"
                ) from None
        time.sleep(_POLL_SECONDS)
    return None


class _Watch:
    """Waits for a tree's end and passes a stop on to it, the replay server's after the others.

    Args:
        process: The reaper.
        root: The tree's directory.
        waits_for: Programs on whatever host that may still want to hand this step their last rows.
    """

    def __init__(self, process: subprocess.Popen[bytes], root: Path, waits_for: Callable[[], bool]):
        self._process, self._root, self._waits_for = process, root, waits_for
        self._last_moment = 0.0
        self._told = False

    def until_end(self, interrupts: Interrupts, grace: float, kill_wait: float) -> int:
        """Returns the reaper's exit code."""
        while self._process.poll() is None:
            if interrupts.count and not self._told:
                # HUP is the job script's: the time limit is near. SLURM's TERM leaves less time.
                self._stop(grace if interrupts.signal == signal.SIGHUP else kill_wait)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_POLL_SECONDS)
        return self._process.returncode

    def _stop(self, grace: float) -> None:
        self._last_moment = self._last_moment or time.monotonic() + grace / 3
        if time.monotonic() > self._last_moment or not self._waits_for():
            tree.ask_to_stop(self._root, grace)
            self._told = True


def _others_live(run_dir: RunDir, names: list[str]) -> bool:
    """Whether a program of the run's own job that is not in `names` is alive on any host."""
    workers = range(settings.Run().num_collectors)
    others = {"train", "eval", *(f"collect_{worker}" for worker in workers)} - {*names}
    programs = status.collect(run_dir)["programs"]
    return any(p["alive"] for p in programs if status.full_name(p) in others)
