"""How one program of Sactory starts another: with the same Python and the same modules."""

from __future__ import annotations

import os
import site
import sys
from pathlib import Path

import sactory


def sactory_command(*arguments: str) -> list[str]:
    """The argv of `sactory …` with this very Python, whatever the working directory holds."""
    if sys.version_info >= (3, 11):  # PYTHONSAFEPATH keeps the working directory off the path
        return [sys.executable, "-m", "sactory.cli", *arguments]
    launch = "import sys; del sys.path[0]; from sactory.cli import main; sys.exit(main())"
    return [sys.executable, "-c", launch, *arguments]


def program_environment() -> dict[str, str]:
    """The caller's environment with what `sactory_command` needs."""
    return {**os.environ, "PYTHONPATH": python_path(), "PYTHONSAFEPATH": "1"}


def python_path() -> str:
    """PYTHONPATH of the programs: the caller's, made absolute, with Sactory's home in front.

    Sactory may have been found through the working directory, which the programs don't share.
    """
    home = str(Path(sactory.__file__).resolve().parent.parent)
    installed = home in [os.path.realpath(p) for p in [*site.getsitepackages(), _user_site()]]
    given = [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p]
    paths = ([] if installed else [home]) + [os.path.abspath(p) for p in given]
    return os.pathsep.join(dict.fromkeys(paths))


def _user_site() -> str:
    return site.getusersitepackages() if site.ENABLE_USER_SITE else ""
