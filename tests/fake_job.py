"""`sactory` for the job scripts of tests, on programs made of fake_program.py.

fake_job.py MODES VERB ARGUMENTS...: MODES is as for fake_run.py; a collector's mode is that of
`collect`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from sactory import cli
from supervise import step, tree
from tests import fake_run

FAKE = str(Path(__file__).with_name("fake_program.py"))


def main(argv: list[str]) -> int:
    modes = json.loads(argv[0])
    if argv[1] != "step":
        return fake_run.main([argv[0], *argv[2:]])

    def program(run_dir, name, device, insecure_listen):
        mode = modes.get(name) or modes[name.partition("_")[0]]
        return tree.Program(name, [sys.executable, FAKE, name, str(run_dir), *mode.split()], {})

    tree.program = program
    return step.main(argv[2:])


if __name__ == "__main__":
    cli.end_process(main(sys.argv[1:]))
