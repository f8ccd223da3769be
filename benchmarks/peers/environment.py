"""The peers' own virtual environment, made from `requirements.txt` on first use.

Its place is .bench/peers in the checkout. It is made anew when the pins have changed.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.peers.job import Job
from benchmarks.rounds import ROOT, Worker
from sactory.errors import UserError

DEFAULT = ROOT / ".bench" / "peers"
PINS = Path(__file__).with_name("requirements.txt")
_MARK = "made-from"  # file in the environment that says from which pins
_REMEDY = (
    "torch==...+cpu is found where pip knows the PyTorch CPU index "
    "(PIP_EXTRA_INDEX_URL); the benchmarks go on without peers"
)


def python(place: Path) -> Path:
    """The environment's Python."""
    return place / "bin" / "python"


def is_ready(place: Path) -> bool:
    """Whether the environment is there and made from today's pins."""
    mark = place / _MARK
    return python(place).exists() and mark.exists() and mark.read_text().strip() == _digest()


def _digest() -> str:
    return hashlib.sha256(PINS.read_bytes()).hexdigest()


def prepare(place: Path, say: Callable[[str], None] = print) -> Path:
    """Makes the environment if need be.

    Args:
        place: Its directory: absent, empty or made by this function.
        say: Takes a line of progress.

    Returns:
        Its Python.

    Raises:
        UserError: It can't be made.
    """
    if is_ready(place):
        return python(place)
    if place.exists() and any(place.iterdir()) and not (place / _MARK).exists():
        raise UserError(f"{place} holds something else: give --peers_dir an empty place")
    say(f"installing the peers into {place}: 2 GB, some minutes")
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    (place / _MARK).write_text("unfinished\n")  # an interrupted one may be removed, too
    words: list[list[str]] = [
        [_base_python(), "-m", "venv", str(place)],
        [str(python(place)), "-m", "pip", "install", "--quiet", "-r", str(PINS)],
    ]
    for command in words:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            lines = (done.stderr + done.stdout).strip().splitlines() or ["no word why"]
            error = next((x for x in reversed(lines) if x.startswith("ERROR")), lines[-1])
            raise UserError(f"the peers can't be installed: {error}; {_REMEDY}")
    (place / _MARK).write_text(_digest() + "\n")
    return python(place)


def _base_python() -> str:
    """A Python that the pinned versions support."""
    if sys.version_info >= (3, 11):
        return sys.executable
    for name in ("python3.11", "python3.12", "python3.13"):
        found = shutil.which(name)
        if found:
            return found
    raise UserError("the peers need Python 3.11 or newer on PATH; the benchmarks go on without")


class Peers:
    """Starts peers in their environment.

    Attributes:
        missing: Why there are none; None if there are.

    Args:
        place: The environment's directory.
        make: Whether it may be made; else only one that is ready is used.
    """

    def __init__(self, place: Path, make: bool):
        self.place = place
        self.missing: str | None = None
        if not make and not is_ready(place):
            self.missing = f"no environment of the peers in {place}: `make bench` makes it"
        elif make:
            try:
                prepare(place)
            except UserError as e:
                self.missing = str(e)

    def command(self, module: str, job: Job) -> list[str]:
        """The command line of one job."""
        return [str(python(self.place)), *job.words(module)]

    def workers(self, wanted: dict[str, tuple[str, Job]]) -> list[Worker]:
        """Contenders by name, each a module and its job; none if the peers are missing."""
        if self.missing:
            return []
        return [Worker(name, self.command(*of)) for name, of in wanted.items()]
