"""A real, private SLURM on this host, from Debian's packages slurm-wlm and munge.

As root each node is a `slurmd` with a host name of its own, so programs see different hosts; they
share network and disk. Everything lies in one short directory: sockets live there.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from replay_server import isolation

SBIN = "/usr/sbin"
MISSING = [
    name
    for name in ("slurmctld", "slurmd", "sbatch", "munged", "munge")
    if shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:{SBIN}") is None
]
slurm_only = pytest.mark.skipif(
    bool(MISSING), reason=f"no SLURM here: apt-get install slurm-wlm munge ({', '.join(MISSING)})"
)
_CONF = """\
ClusterName=sactory
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
# A requeued job waits cred_expire seconds before it starts again.
AuthInfo=socket={dir}/munge.sock,cred_expire=5
StateSaveLocation={dir}/state
SlurmdSpoolDir={dir}/spool-%n
SlurmctldPidFile={dir}/slurmctld.pid
SlurmdPidFile={dir}/slurmd-%n.pid
SlurmctldLogFile={dir}/slurmctld.log
SlurmdLogFile={dir}/slurmd-%n.log
ProctrackType=proctrack/{proctrack}
TaskPlugin={task}
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=3,bf_interval=3,batch_sched_delay=0,sched_min_interval=0
# Believe this file's CPUs, not the hardware's.
SlurmdParameters=config_overrides
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
ReturnToService=2
KillWait={kill_wait}
InactiveLimit=0
MinJobAge=3600
SlurmctldTimeout=30
SlurmdTimeout=60
TmpFS=/tmp
MailProg=/bin/true
DefMemPerCPU=100
{nodes}
PartitionName=main Nodes=ALL Default=YES PriorityTier=10 PreemptMode=OFF DefaultTime=60
PartitionName=low Nodes=ALL PriorityTier=1 PreemptMode=REQUEUE DefaultTime=60
"""


class Cluster:
    """A cluster that lives until `stop`; its nodes have host names if `own_names`.

    Args:
        directory: Where its files lie; `stop` removes it.
        port: The first of 1 + nodes TCP ports.
        nodes: Number of nodes.
        cpus: CPUs that each claims; more than the hardware has are shared.
        affinity: Whether SLURM binds steps to their CPUs, which must then exist.
        proctrack: How SLURM finds a job's processes; None: by cgroup if it can.
        kill_wait: Seconds from its TERM to its KILL.
    """

    def __init__(
        self,
        directory: Path,
        port: int,
        nodes: int = 1,
        cpus: int = 8,
        *,
        affinity: bool = False,
        proctrack: str | None = None,
        kill_wait: int = 25,
    ):
        self.dir, self.port = directory, port
        # Of no other cluster: they name cgroups.
        self.names = [f"c{port}-node{i + 1}" for i in range(nodes)]
        self.environment = {
            **os.environ,
            "PATH": f"{os.environ.get('PATH', os.defpath)}:{SBIN}",
            "SLURM_CONF": str(directory / "slurm.conf"),
        }
        self.own_names = os.getuid() == 0 and isolation.refusal() is None
        self.proctrack = proctrack or ("cgroup" if _freezer_works() else "linuxproc")
        host = socket.gethostname()
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * 9 // 10 // 2**20
        lines = [
            f"NodeName={name} NodeHostname={name if self.own_names else host} "
            f"NodeAddr=127.0.0.1 Port={port + 1 + i} CPUs={cpus} RealMemory={memory // nodes}"
            for i, name in enumerate(self.names)
        ]
        text = _CONF.format(
            dir=directory,
            host=host,
            port=port,
            user=_user(),
            proctrack=self.proctrack,
            task="task/affinity" if affinity else "task/none",
            kill_wait=kill_wait,
            nodes="\n".join(lines),
        )
        (directory / "slurm.conf").write_text(text)
        cgroup = "CgroupPlugin=cgroup/v1\nCgroupMountpoint=/sys/fs/cgroup\n"
        (directory / "cgroup.conf").write_text(cgroup)
        hosts = Path("/etc/hosts").read_text() + f"127.0.0.1 {' '.join(self.names)}\n"
        (directory / "hosts").write_text(hosts)

    def start(self) -> None:
        """Starts all daemons and waits until every node is up."""
        key = self.dir / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        files = {"key-file": key, "socket": self.dir / "munge.sock", "seed-file": self.dir / "seed"}
        files |= {"pid-file": self.dir / "munged.pid", "log-file": self.dir / "munged.log"}
        self._start("munged", *(f"--{name}={path}" for name, path in files.items()))
        (self.dir / "state").mkdir()
        self._start("slurmctld", "-f", str(self.dir / "slurm.conf"))
        until(lambda: "UP" in self.run("scontrol", "ping", check=False), 20)
        for name in self.names:
            (self.dir / f"spool-{name}").mkdir()
            self.start_node(name)
        until(lambda: self.run("sinfo", "-hNp", "main", "-o", "%T").split() == self._all_idle, 60)

    def start_node(self, name: str) -> None:
        """Starts one node's slurmd, as root with a host name of its own."""
        command = [shutil.which("slurmd", path=self.environment["PATH"]) or "slurmd", "-N", name]
        if not self.own_names:
            return self._start(*command)
        script = f'mount --bind {self.dir}/hosts /etc/hosts && hostname {name} && exec "$@"'
        self._start("unshare", "--uts", "--mount", "sh", "-c", script, "sh", *command)

    @property
    def _all_idle(self) -> list[str]:
        return ["idle"] * len(self.names)

    def _start(self, *command: str) -> None:
        log = self.dir / f"{Path(command[0]).name}.out"
        with open(log, "ab") as out:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=self.environment
            )
        assert done.returncode == 0, f"{command}: {log.read_text()}"

    def run(self, *command: str, check: bool = True) -> str:
        """What one of SLURM's commands prints."""
        done = subprocess.run(
            command, capture_output=True, text=True, env=self.environment, timeout=60
        )
        assert not (check and done.returncode), f"{command}: {done.stderr}"
        return done.stdout

    def job(self, job_id: str) -> dict[str, str]:
        """`scontrol show job`, also of a job that has ended."""
        said = self.run("scontrol", "show", "job", "-o", job_id)
        return dict(f.split("=", 1) for f in said.splitlines()[0].split() if "=" in f)

    def wait_for(self, job_id: str, states: tuple[str, ...], seconds: float) -> str:
        """Waits until a job is in one of `states`."""

        def reached() -> str:
            now = self.job(job_id)["JobState"]
            return now if now in states else ""

        return str(until(reached, seconds, lambda: str(self.job(job_id))))

    def stop(self) -> None:
        """Ends all jobs, all daemons, and removes the directory."""
        jobs = self.run("squeue", "-h", "-o", "%A", check=False).split()
        if jobs:
            self.run("scancel", *sorted(set(jobs)), check=False)
        until(lambda: not self.run("squeue", "-h", check=False).strip(), 60)
        for pid_file in [*self.dir.glob("slurmd-*.pid"), self.dir / "slurmctld.pid"]:
            _end(pid_file)
        _end(self.dir / "munged.pid")
        for group in Path("/sys/fs/cgroup").glob(f"*/slurm_c{self.port}-*"):
            for directory in sorted(group.rglob("*"), reverse=True):
                if directory.is_dir():
                    _remove_empty(directory)
            _remove_empty(group)
        shutil.rmtree(self.dir)


@contextlib.contextmanager
def running(**settings: Any) -> Iterator[Cluster]:
    """A cluster in a place of its own that runs until the end of the block."""
    place = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))
    place.chmod(0o755)  # munge demands that everybody reach its socket
    cluster = Cluster(place, free_ports(1 + settings.get("nodes", 1)), **settings)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


def free_ports(count: int) -> int:
    """The first of `count` free ports in a row."""
    for first in range(20_000 + os.getpid() % 5_000, 32_000, count):
        with contextlib.ExitStack() as stack:
            try:
                for port in range(first, first + count):
                    stack.enter_context(socket.create_server(("127.0.0.1", port)))
            except OSError:
                continue
            return first
    raise AssertionError("no free ports")


def until(reached: Callable[[], object], seconds: float, why: Callable[[], str] = str):
    """Waits for a true value and returns it."""
    end = time.monotonic() + seconds
    while not (value := reached()):
        assert time.monotonic() < end, f"not within {seconds:g} s {why()}"
        time.sleep(0.2)
    return value


def _user() -> str:
    import pwd

    return pwd.getpwuid(os.getuid()).pw_name


def _freezer_works() -> bool:
    trial = Path(f"/sys/fs/cgroup/freezer/sactory_{os.getpid()}")
    try:
        trial.mkdir()
        trial.rmdir()
        return True
    except OSError:
        return False


def _remove_empty(directory: Path) -> None:
    with contextlib.suppress(OSError):  # still in use
        directory.rmdir()


def _end(pid_file: Path) -> None:
    """Ends the daemon that wrote a pid file, if that process still is one of SLURM's or munge's."""
    try:
        pid = int(pid_file.read_text())
        comm = Path(f"/proc/{pid}/comm").read_text().strip()
    except (OSError, ValueError):
        return
    if comm not in ("slurmd", "slurmctld", "munged"):
        return
    os.kill(pid, 15)
    until(lambda: not Path(f"/proc/{pid}/comm").exists() or _is_zombie(pid), 15)


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True
