"""Verb `clean`: applies a run's retention rules now, or says what they would remove.

Safe beside a running run: nothing goes that a program may still need.
"""

from __future__ import annotations

import math

from sactory import config as config_lib
from sactory import disk, retention, settings, supervision
from sactory.errors import UserError
from sactory.estimate import GB
from sactory.flags import Flags
from sactory.run_dir import RunDir


def main(argv: list[str]) -> int:
    """Removes what is no longer kept and says how much that was; 1 if something can't go."""
    flags = Flags("clean", "Removes old exports, videos, checkpoints and logs by the run's rules.")
    flags.string("run_dir", None, "the run directory", required=True)
    flags.float("max_disk_gb", None, "GB that the run may hold; default: run.max_disk_gb")
    flags.boolean("dry_run", False, "only say what would go")
    args, _ = flags.parse(argv)
    run_dir = RunDir(args.run_dir).require()
    run = config_lib.load(run_dir).get(settings.Run)
    cap = run.max_disk_gb if args.max_disk_gb is None else args.max_disk_gb
    if cap is not None and not cap > 0:
        raise UserError(f"--max_disk_gb = {cap:g} must be above 0")
    before = disk.files([run_dir.root])
    total = float(sum(before.values()))
    going = retention.by_rule(run_dir, run)
    further, left = disk.plan(run_dir, math.inf if cap is None else cap * GB, going)
    stuck = 0
    for item in [*going, *further]:
        for path in item.paths:
            size = sum(disk.files([path]).values())
            gone = args.dry_run or retention.remove(path)
            note = "" if gone else "  can't be removed"
            stuck += not gone
            print(f"{item.kind:<20}{_size(size):>10}  {path.relative_to(run_dir.root)}{note}")
    if not args.dry_run:  # what is really left, without what programs have written meanwhile
        now = disk.files([run_dir.root])
        left = float(sum(size for inode, size in before.items() if inode in now))
    verb = "would go" if args.dry_run else "gone"
    print(f"{_size(total - left)} {verb}, {_size(left)} stay in {run_dir}")
    if cap is not None and left > cap * GB and not stuck:
        print(f"that is more than {cap:g} GB, but newest, best, unscored or needed")
    return supervision.FAILED if stuck else supervision.OK


def _size(count: float) -> str:
    """`12.3 MB`, `1.2 GB`."""
    return f"{count / 1e6:.1f} MB" if count < GB else f"{count / GB:.1f} GB"
