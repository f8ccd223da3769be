"""`sactory run` on programs made of fake_program.py: fake_run.py MODES RUN_ARGUMENTS...

MODES is JSON: the mode of each service, and of the final evaluation under `final`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from sactory import cli, launch
from supervise import run, tree

FAKE = str(Path(__file__).with_name("fake_program.py"))


def main(argv: list[str]) -> int:
    modes = json.loads(argv[0])

    def programs(run_dir, num_collectors, device, insecure_listen):
        return [
            tree.Program(name, [sys.executable, FAKE, name, str(run_dir), *words.split()])
            for name, words in modes.items()
            if name != "final"
        ]

    def command(verb, *arguments):
        return [sys.executable, "-c", modes["final"], verb, *arguments]

    tree.programs = programs
    launch.sactory_command = command
    return run.main(argv[1:])


if __name__ == "__main__":
    cli.end_process(main(sys.argv[1:]))
