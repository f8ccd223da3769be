"""cartpole_swingup that counts its steps in a file: what a killed collector had really done."""

from __future__ import annotations

import mmap
import os
import struct
from typing import Any

from sactory import settings
from sactory.envs import suite

_COUNT = struct.Struct("<Q")


def load(counter: str, seed: int = 0) -> suite.DmEnvironment:
    """The environment; each agent step adds 1 to the 8 bytes of the file `counter`.

    The evaluator steps environments too: only a program whose command is `collect` counts.
    """
    # All settings given: what is left out, gin would take from the run.
    env = suite.load(settings.Env("cartpole_swingup", 1, None, None), seed)
    if "collect" in _command_line():
        _count_steps(env, counter)
    return env


def _count_steps(env: Any, counter: str) -> None:
    with open(counter, "r+b") as f:
        memory = mmap.mmap(f.fileno(), _COUNT.size)
    step = env._step

    def counted(action: Any) -> Any:
        # Before the step: a row that arrives was counted, whenever the process dies.
        _COUNT.pack_into(memory, 0, _COUNT.unpack_from(memory, 0)[0] + 1)
        return step(action)

    env._step = counted


def make_counter(path: str | os.PathLike[str]) -> None:
    """Makes a counter that stands at 0, unless it is there."""
    if not os.path.exists(path):
        with open(path, "wb") as f:
            f.write(bytes(_COUNT.size))


def read_counter(path: str | os.PathLike[str]) -> int:
    """Agent steps that all collectors together have taken."""
    with open(path, "rb") as f:
        return _COUNT.unpack(f.read(_COUNT.size))[0]


def _command_line() -> list[str]:
    with open("/proc/self/cmdline", "rb") as f:
        return [word.decode() for word in f.read().split(b"\0")]
