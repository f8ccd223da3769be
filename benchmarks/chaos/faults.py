"""What can go wrong, as one function per kind of fault.

A fault hurts the run, waits as long as it lasts, mends what only it can mend (a frozen process,
a full disk), and says in one line what it did. Recovery is the run's own affair.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.chaos import cut
from benchmarks.chaos.subject import PROGRAMS, Subject, kill

SIGNALS = (
    signal.SIGKILL,
    signal.SIGKILL,  # the one that matters most
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGSEGV,
    signal.SIGABRT,
)
_BALLAST = "ballast"


@dataclasses.dataclass(frozen=True)
class Injected:
    """A fault that has happened.

    Attributes:
        kind: Name of its function.
        text: What was done to what.
        restarts: Programs that it makes start anew.
    """

    kind: str
    text: str
    restarts: tuple[str, ...] = ()


Fault = Callable[[Subject, random.Random], "Injected | None"]


def signal_program(subject: Subject, choose: random.Random) -> Injected | None:
    """Any signal to any program."""
    name, number = choose.choice(PROGRAMS), choose.choice(SIGNALS)
    pid = subject.counters().pids.get(name)
    if pid is None or not kill(pid, number):
        return None
    return Injected("signal", f"{number.name} to {name}", (name,))


def kill_supervisor(subject: Subject, choose: random.Random) -> Injected | None:
    """KILL or TERM to a program's service process or its `supervise`."""
    name = choose.choice(PROGRAMS)
    chain = subject.ancestors(name)
    if not chain:
        return None
    which = choose.choice(sorted(chain))
    number = choose.choice((signal.SIGKILL, signal.SIGTERM))
    if not kill(chain[which], number):
        return None
    return Injected("supervisor", f"{number.name} to the {which} of {name}", (name,))


def kill_several(subject: Subject, choose: random.Random) -> Injected | None:
    """KILL to two or more programs in the same moment, as a host's memory killer would."""
    names = choose.sample(PROGRAMS, choose.randint(2, len(PROGRAMS)))
    pids = subject.counters().pids
    hit = tuple(n for n in names if n in pids and kill(pids[n], signal.SIGKILL))
    return Injected("several", f"SIGKILL to {', '.join(hit)}", hit) if hit else None


def freeze(subject: Subject, choose: random.Random) -> Injected | None:
    """STOP, some seconds, CONT."""
    name, seconds = choose.choice(PROGRAMS), choose.uniform(3, 25)
    pid = subject.counters().pids.get(name)
    if pid is None or not kill(pid, signal.SIGSTOP):
        return None
    time.sleep(seconds)
    kill(pid, signal.SIGCONT)
    return Injected("freeze", f"{name} for {seconds:.0f} s")


def cut_port(subject: Subject, choose: random.Random) -> Injected | None:
    """Takes the network away that the replay server listens in, for some seconds."""
    seconds = choose.uniform(3, 30)
    pid = subject.counters().pids.get("replay_server")
    if pid is None or not cut.cut(pid, seconds):
        return None
    return Injected("port cut", f"for {seconds:.0f} s")


def full_disk(subject: Subject, choose: random.Random) -> Injected | None:
    """Fills the file system of the run, which must be a small one, for some seconds."""
    root = subject.run_dir.root.parent
    if shutil.disk_usage(root).total > 4e9:
        return None
    seconds = choose.uniform(5, 20)
    ballast = root / _BALLAST
    end = time.monotonic() + seconds
    try:
        with open(ballast, "wb", buffering=0) as f:
            while time.monotonic() < end:
                try:
                    f.write(bytes(1 << 20))
                except OSError as e:
                    if e.errno != errno.ENOSPC:
                        raise
                    with contextlib.suppress(OSError):  # the last free pages too
                        f.write(bytes(1 << 10))
                    time.sleep(0.05)
    finally:
        ballast.unlink(missing_ok=True)
    return Injected("full disk", f"for {seconds:.0f} s")


def damage(subject: Subject, choose: random.Random) -> Injected | None:
    """Spoils a new file of some kind, and kills its reader, which must get over it.

    The trainer is not killed over a lost heartbeat: its newest count of steps is lost for good
    then, as after a power cut.
    """
    run_dir = subject.run_dir
    places = (
        ("train", run_dir.trainer_checkpoints),
        ("replay_server", run_dir.replay_checkpoints),
        ("replay_server", run_dir.replay_history),
        ("collect_0", run_dir.policies("collect")),
        ("eval", run_dir.policies("greedy")),
        (choose.choice(("replay_server", "collect_0", "eval")), run_dir.status("x").parent),
    )
    reader, place = choose.choice(places)
    files = _newest_files(place)
    pid = subject.counters().pids.get(reader)
    if not files or pid is None or not kill(pid, signal.SIGKILL):
        return None
    path, how = choose.choice(files), choose.choice((truncate, flip_bit, empty, remove))
    with contextlib.suppress(OSError):  # it may be gone by now
        how(path, choose)
    what = f"{how.__name__} {path.relative_to(run_dir.root)}, SIGKILL to {reader}"
    return Injected("damage", what, (reader,))


def foreign_file(subject: Subject, choose: random.Random) -> Injected | None:
    """A name in Reverb's root that is not Reverb's, or a checkpoint stamped in the future."""
    root = subject.run_dir.replay_checkpoints
    pid = subject.counters().pids.get("replay_server")
    if pid is None:
        return None
    name = choose.choice(("notes.txt", "zzz", "2999-01-01T00:00:00.000000000+00:00"))
    with contextlib.suppress(OSError):
        if name.startswith("2"):
            (root / name).mkdir(exist_ok=True)
            (root / name / "DONE").touch()
        else:
            (root / name).write_text("not Reverb's")
    kill(pid, signal.SIGKILL)
    return Injected("foreign file", f"{name} in replay/", ("replay_server",))


def truncate(path: Path, choose: random.Random) -> None:
    """Cuts a file to a part of its size."""
    os.truncate(path, int(path.stat().st_size * choose.random()))


def flip_bit(path: Path, choose: random.Random) -> None:
    """Turns one bit of a file, and so of all its hard links."""
    data = bytearray(path.read_bytes())
    if data:
        data[choose.randrange(len(data))] ^= 1 << choose.randrange(8)
    with open(path, "r+b") as f:
        f.write(data)


def empty(path: Path, choose: random.Random) -> None:
    """Leaves a file of no bytes."""
    os.truncate(path, 0)


def remove(path: Path, choose: random.Random) -> None:
    """Removes a file."""
    path.unlink()


def _newest_files(root: Path, count: int = 4) -> list[Path]:
    dated = []
    for path in root.rglob("*"):
        with contextlib.suppress(OSError):  # being renamed or removed
            if path.is_file() and not path.name.startswith("."):
                dated.append((path.stat().st_mtime, path))
    return [path for _, path in sorted(dated)[-count:]]


# Kind and weight: most faults of a real cluster are deaths.
FAULTS: tuple[tuple[Fault, float], ...] = (
    (signal_program, 6.0),
    (kill_supervisor, 2.0),
    (kill_several, 1.0),
    (freeze, 2.0),
    (cut_port, 1.5),
    (full_disk, 1.0),
    (damage, 3.0),
    (foreign_file, 1.0),
)
