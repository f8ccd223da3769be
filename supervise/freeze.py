"""Init in a process of its own: building the environment imports TensorFlow, which would stay."""

from __future__ import annotations

import signal
import sys

from sactory import quiet
from sactory.errors import UserError
from sactory.flags import print_error
from sactory.run_dir import RunDir
from sactory.supervision import OK, USER_ERROR


def main(argv: list[str]) -> int:
    """Freezes the run directory `argv[0]` with the configuration `argv[1]` and its overrides."""
    # An exception instead of death: a half-written run directory is then removed.
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    quiet.set_environment()
    from sactory.init_run import init

    where, configuration, *overrides = argv
    sys.argv = ["sactory", "run", configuration, "--run_dir", where]  # what provenance records
    for override in overrides:
        sys.argv += ["--set", override]
    try:
        init(RunDir(where), configuration, overrides)
    except UserError as e:
        print_error(str(e))
        return USER_ERROR
    return OK


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
