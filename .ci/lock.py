"""Writes requirements.lock and conda_env.yml from setup.py's requirements; `make lock` runs it.

One lock serves Python 3.9, 3.10 and 3.11: where their versions differ, a marker tells them apart.
Versions already in the lock are kept; `make lock ARGS=--upgrade` takes the newest ones.
`--conda-only` rewrites conda_env.yml from the lock as it is.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements.lock"
CONDA_ENV = ROOT / "conda_env.yml"
HEADER = """\
# Every version Sactory installs, with hashes, for CPython 3.9-3.11 on x86-64 Linux.
# Written by `make lock` from setup.py; don't edit.
"""
CONDA_HEADER = """\
# The lock as a conda environment: `conda env create -f conda_env.yml`, in this directory.
# Written by `make lock` from requirements.lock; don't edit. It has no daemontools: install the
# distribution's package.
name: sactory
dependencies:
  - python>=3.9,<3.12
  - pip
  - pip:
"""
# True on every machine that gets as far as the lock (.ci/setup refuses the others): only noise.
ALWAYS_TRUE = (
    "platform_machine == 'x86_64'",
    "platform_python_implementation == 'CPython'",
    "implementation_name != 'PyPy'",
    "sys_platform == 'linux'",
    "python_full_version < '3.12'",
)


def resolve(flags: list[str]) -> str:
    """Runs uv on setup.py; the platforms are in pyproject.toml.

    Returns:
        The text of the lock, with only the markers that tell the Pythons apart.
    """
    command = ["uv", "pip", "compile", "setup.py", "--extra=dev", "--universal", "--quiet"]
    command += ["--python-version=3.9", "--generate-hashes", "--no-emit-index-url", "--no-header"]
    subprocess.run([*command, f"--output-file={LOCK}", *flags], cwd=ROOT, check=True)
    return HEADER + "".join(simplify(line) + "\n" for line in LOCK.read_text().splitlines())


def simplify(line: str) -> str:
    """Drops the clauses of a requirement's marker that are always true here."""
    found = re.fullmatch(r"(\S+==\S+) ; (.*?)( \\)?", line)
    if found is None:
        return line
    requirement, marker, end = found.groups()
    clauses = [clause for clause in marker.split(" and ") if clause not in ALWAYS_TRUE]
    return requirement + (f" ; {' and '.join(clauses)}" if clauses else "") + (end or "")


def requirements(lock: str) -> list[str]:
    """The requirements of a lock's text, each `name==version` with its marker, no hashes."""
    return re.findall(r"^([a-z0-9].*?)(?: \\)?$", lock, re.MULTILINE)


def conda_env(lock: str) -> str:
    """The text of conda_env.yml for a lock's text."""
    return CONDA_HEADER + "".join(f'      - "{line}"\n' for line in [*requirements(lock), "-e ."])


if __name__ == "__main__":
    if sys.argv[1:] != ["--conda-only"]:
        LOCK.write_text(resolve(sys.argv[1:]))
    CONDA_ENV.write_text(conda_env(LOCK.read_text()))
