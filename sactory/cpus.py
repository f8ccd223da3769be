"""Gives each program its CPUs: cores of its own where there are enough, else only fewer threads.

A core is claimed by binding an abstract unix socket that carries its number: one lock per host
for all users, freed by the kernel however the process ends, with no file to own or clean up.
"""

from __future__ import annotations

import math
import os
import socket
from dataclasses import dataclass
from pathlib import Path

_PIN_FROM = 4  # cores; with fewer, pinning only keeps idle cores from busy threads
_TRAINER_MOST = 8  # cores it takes by itself: networks of this size gain nothing from more
GIVEN_VARIABLE = "SACTORY_CPUS"  # whoever started the program has placed it on that many
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class CpuPlan:
    """What a program got.

    Attributes:
        pinned: The cores that it alone runs on, or None: the scheduler may place it anywhere.
        threads: How many threads its numerical libraries may use.
        note: Why it is not what was asked for, or "".
    """

    pinned: frozenset[int] | None
    threads: int
    note: str = ""

    def __str__(self) -> str:
        where = "not pinned" if self.pinned is None else f"cores {sorted(self.pinned)}"
        return f"{where}, {self.threads} threads" + (f" ({self.note})" if self.note else "")


_held: list[socket.socket] = []  # claims live as long as the process
_current: CpuPlan | None = None


def current() -> CpuPlan | None:
    """The plan that this process applied, if any; its heartbeat reports it."""
    return _current


def claim(
    program: str,
    wanted: int | None,
    num_collectors: int | None = None,
    namespace: str = "sactory-cpu",
) -> CpuPlan:
    """Claims cores, pins this process to them and limits its threads.

    Call it before TensorFlow or numpy is imported: they read the thread variables once.

    Args:
        program: `train` and `eval` have shares of their own; any other gets one core.
        wanted: Number of cores; None chooses by the number of cores this process may use.
        num_collectors: Collectors of the run, for which the trainer leaves a core each; None:
            as configured.
        namespace: Prefix of the locks.
    """
    global _current
    usable = usable_cores()
    if num_collectors is None:
        from sactory import settings

        num_collectors = settings.Run().num_collectors
    given = os.environ.get(GIVEN_VARIABLE, "")
    if given.isdecimal():
        plan = _given_plan(usable, int(given))
    else:
        plan = _plan(program, wanted, num_collectors, usable, namespace)
    if plan.pinned is not None:
        os.sched_setaffinity(0, plan.pinned)
    for name in _THREAD_VARIABLES:
        os.environ[name] = str(plan.threads)
    os.environ["TF_NUM_INTRAOP_THREADS"] = str(plan.threads)
    # One inter-op thread could wait for ever for itself when an op blocks.
    os.environ["TF_NUM_INTEROP_THREADS"] = str(max(2, plan.threads))
    _current = plan
    return plan


def confine(wanted: int | None, namespace: str = "sactory-cpu") -> CpuPlan:
    """Confines this process, and so all that it starts, to `wanted` cores.

    Where SLURM has bound a job's step to its cores nothing is left to do. Elsewhere free ones are
    claimed; if there aren't enough, the programs share the host's cores and use fewer threads.
    """
    usable = usable_cores()
    if wanted is None or len(usable) <= wanted:
        return CpuPlan(
            frozenset(usable),
            len(usable),
            "" if wanted in (None, len(usable)) else f"{wanted} wanted: they are shared",
        )
    pinned = _take(usable, wanted, wanted, namespace)
    if pinned is None:
        return CpuPlan(None, wanted, "other programs hold the cores: they are shared")
    os.sched_setaffinity(0, pinned)
    return CpuPlan(pinned, wanted)


def _given_plan(usable: list[int], given: int) -> CpuPlan:
    """What a program has that was placed by `confine`."""
    return CpuPlan(frozenset(usable) if len(usable) <= given else None, min(given, len(usable)))


def usable_cores() -> list[int]:
    """Cores this process may use, best first: one thread of each physical core before siblings.

    A container's CPU quota shortens the list.
    """
    cores = sorted(os.sched_getaffinity(0), key=lambda core: (_sibling_rank(core), core))
    quota = _cgroup_quota()
    return cores if quota is None else cores[: max(1, math.ceil(quota))]


def automatic_share(program: str, cores: int, num_collectors: int) -> int:
    """Cores that `program` takes by itself on a machine with `cores` cores; 0 shares them all."""
    if cores < _PIN_FROM or program == "eval":
        return 0
    if program != "train":
        return 1
    return min(max(1, cores - 1 - num_collectors), _TRAINER_MOST)


def _plan(
    program: str, wanted: int | None, num_collectors: int, usable: list[int], namespace: str
) -> CpuPlan:
    total = len(usable)
    if wanted is not None:
        share = min(wanted, total)
        note = f"{wanted} cores wanted, {total} usable" if wanted > total else ""
        pinned = _take(usable, share, share, namespace)
        return CpuPlan(pinned, share, note or ("" if pinned else "other programs hold the cores"))
    share = automatic_share(program, total, num_collectors)
    if share == 0:
        return CpuPlan(None, max(1, total) if program == "train" else 1)
    pinned = _take(usable, share, 1, namespace)
    if pinned is None:
        return CpuPlan(None, max(1, share // 2), "other programs hold the cores")
    return CpuPlan(pinned, len(pinned))


def _take(cores: list[int], most: int, least: int, namespace: str) -> frozenset[int] | None:
    """Locks up to `most` free cores; None, with nothing held, if fewer than `least` are free."""
    taken: dict[int, socket.socket] = {}
    for core in cores:
        if len(taken) == most:
            break
        lock = _lock(f"{namespace}-{core}")
        if lock is not None:
            taken[core] = lock
    if len(taken) < max(1, least):
        for lock in taken.values():
            lock.close()
        return None
    _held.extend(taken.values())
    return frozenset(taken)


def _lock(name: str) -> socket.socket | None:
    """Binds the abstract name; None if somebody has it or the system refuses."""
    lock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        lock.bind(f"\0{name}")
    except OSError:
        lock.close()
        return None
    return lock


def _sibling_rank(core: int) -> int:
    """0 for the first hardware thread of a physical core, 1 for the second, ..."""
    path = Path(f"/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list")
    try:
        return sorted(_parse_list(path.read_text())).index(core)
    except (OSError, ValueError):
        return 0


def _parse_list(text: str) -> set[int]:
    """Cores of a kernel list such as `0-3,8`."""
    cores: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        cores.update(range(int(first), int(last or first) + 1))
    return cores


def _cgroup_quota() -> float | None:
    """Cores that the container's quota allows (cgroup v2, then v1), or None if it sets none."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        pass
    try:
        quota = int(Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us").read_text())
        period = int(Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us").read_text())
        return quota / period if quota > 0 and period > 0 else None
    except (OSError, ValueError):
        return None
