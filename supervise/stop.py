"""`sactory stop`: ends a running tree cleanly; `sactory run` resumes it later.

The request is a file in the tree's directory, so it works from every host that sees the run.
"""

from __future__ import annotations

import os
import time

from sactory import status
from sactory.errors import UserError
from sactory.flags import Flags
from sactory.run_dir import LockedError, RunDir, hold_lock
from supervise import tree

_POLL_SECONDS = 0.2


def is_held(run_dir: RunDir) -> bool:
    """Whether a `sactory run`, or the tree it left behind, works on the run."""
    try:
        os.close(hold_lock(run_dir.lock("run")))
        return False
    except LockedError:
        return True


def main(argv: list[str]) -> int:
    """Stops a run and waits until its programs have saved and ended."""
    flags = Flags("stop", "Ends a running run: the programs save and end.")
    flags.string("run_dir", None, "the run directory", required=True)
    flags.float("timeout", 120.0, "seconds to wait")
    args, _ = flags.parse(argv)
    run_dir = RunDir(args.run_dir).require()
    end = time.monotonic() + args.timeout
    was_held = held = is_held(run_dir)
    while held and time.monotonic() < end:
        # Again and again: a run that is just starting removes the file with the old tree.
        for directory in run_dir.services().parent.iterdir():
            (directory / tree.STOP_FILE).touch()
        time.sleep(_POLL_SECONDS)
        held = is_held(run_dir)
    if held:
        raise UserError(
            f"{run_dir} still runs after --timeout = {args.timeout:g} s: see the logs in "
            f"{run_dir.services()}"
        )
    now = status.collect(run_dir)
    print(
        f"{now['state']}: {run_dir}, {now['env_steps']:,} env steps"
        if was_held
        else f"nothing runs in {run_dir} ({now['state']})"
    )
    for program in now["programs"]:
        if program["alive"]:
            name = status.full_name(program)
            print(f"{name} was started by hand and still runs: kill -TERM {program['pid']}")
    return 0
