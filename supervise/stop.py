"""`sactory stop`: ends a run cleanly, checkpoints first; `sactory run` resumes it later.

The request to a tree is a file in its directory, so it works from every host that sees the run.
Programs of this host that somebody started by hand get signals.
"""

from __future__ import annotations

import signal
import socket
import time

from sactory import status, status_files
from sactory.errors import UserError
from sactory.flags import Flags
from sactory.locks import is_locked
from sactory.run_dir import RunDir, read_json
from supervise import processes, tree

_POLL_SECONDS = 0.2
_MARGIN_SECONDS = 30.0  # a tree kills after its grace, then reads its logs to the end
_KILL_SECONDS = 10.0


def is_held(run_dir: RunDir) -> bool:
    """Whether a `sactory run`, or the tree it left behind, works on the run."""
    return is_locked(run_dir.lock("run"))


def main(argv: list[str]) -> int:
    """Stops a run and waits until its programs have saved and ended."""
    flags = Flags("stop", "Ends a running run: the programs save and end, or are killed.")
    flags.string("run_dir", None, "the run directory", required=True)
    flags.float("grace", None, "seconds until what is left is killed; default and most: the run's")
    args, _ = flags.parse(argv)
    if args.grace is not None and args.grace < 0:
        raise UserError(f"--grace = {args.grace:g} must be at least 0 seconds")
    run_dir = RunDir(args.run_dir).require()
    found = is_held(run_dir)
    if found:
        _stop_trees(run_dir, args.grace)
    alone = by_hand(run_dir)
    if alone:
        _stop_by_hand(run_dir, tree.DEFAULT_GRACE_SECONDS if args.grace is None else args.grace)
    now = status.collect(run_dir)
    print(
        f"{now['state']}: {run_dir}, {now['env_steps']:,} env steps"
        if found or alone
        else f"nothing runs in {run_dir} ({now['state']})"
    )
    for program in now["programs"]:
        if program["alive"]:
            name, pid, host = status.full_name(program), program["pid"], program["host"]
            print(f"{name} still runs on {host}: `kill -TERM {pid}` there ends it")
    return 0


def _stop_trees(run_dir: RunDir, grace: float | None) -> None:
    """Asks every tree of the run to end, and waits.

    Raises:
        UserError: One still runs when it should have killed its programs.
    """
    trees = run_dir.services().parent
    given = [read_json(path) or {} for path in trees.glob(f"*/{tree.TREE_FILE}")]
    longest = max((float(t.get("grace_seconds") or 0) for t in given), default=0.0)
    longest = longest or tree.DEFAULT_GRACE_SECONDS
    wait = (longest if grace is None else min(grace, longest)) + _MARGIN_SECONDS
    end = time.monotonic() + wait
    while is_held(run_dir):
        if time.monotonic() > end:
            raise UserError(
                f"{run_dir} still runs after {wait:.0f} s: see the logs in {run_dir.services()}"
            )
        # Again and again: a run that is just starting removes the file with the old tree.
        for directory in trees.glob("*"):
            tree.ask_to_stop(directory, grace)
        time.sleep(_POLL_SECONDS)


def by_hand(run_dir: RunDir) -> dict[str, int]:
    """The run's programs that live on this host, by name with their process.

    A program's heartbeat, its lock's text and the lock itself must agree: the process that an old
    file names may be anybody's by now.
    """
    found = {}
    for path in run_dir.status("").parent.glob("*.json"):
        beat = status_files.read(path)
        if beat.get("host") != socket.gethostname():
            continue
        name, pid = path.stem, int(beat.get("pid") or 0)
        try:
            named = int(run_dir.lock(name).read_text())
        except (OSError, ValueError):
            continue
        alive = processes.start_time(pid) is not None
        if pid == named and alive and is_locked(run_dir.lock(name)):
            found[name] = pid
    return found


def _stop_by_hand(run_dir: RunDir, grace: float) -> None:
    """Ends what no tree looks after: the replay server last, and by force after the grace."""
    began, told = time.monotonic(), set()
    while True:
        left = by_hand(run_dir)
        waited = time.monotonic() - began
        if not left or waited > grace + _KILL_SECONDS:
            return
        others = [pid for name, pid in left.items() if name != tree.LAST_TO_STOP]
        now = others if others and waited < grace / 3 else list(left.values())
        if waited > grace:
            processes.send(left.values(), signal.SIGKILL)
        else:
            processes.send([pid for pid in now if pid not in told], signal.SIGTERM)
            told.update(now)
        time.sleep(_POLL_SECONDS)
