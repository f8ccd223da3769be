"""Which program of a run becomes which step: its node, its CPUs, its memory. Pure functions."""

from __future__ import annotations

from dataclasses import dataclass

from sactory import estimate, settings
from sactory.config import Config
from sactory.errors import UserError

TRAINER_CPUS = 2  # measured: networks of the usual size gain little from more
_MARGIN_MB = 500
_MB = 1e6
PROGRAM_MB = round(estimate.BYTES_PER_PROGRAM / _MB) + _MARGIN_MB
"""Memory of a small program in megabytes."""


@dataclass(frozen=True)
class Step:
    """One step of a job.

    Attributes:
        node: Which of the job's nodes, from 0.
        cpus: CPUs that its programs stay on.
        memory_mb: Memory in megabytes.
        programs: One, or several that share the CPUs.
    """

    node: int
    cpus: int
    memory_mb: int
    programs: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """All steps of a job.

    Attributes:
        steps: In the order of their start.
        nodes: Number of nodes.
        gpu: Whether the trainer's step gets the GPU.
        note: What the user should know, or "".
    """

    steps: tuple[Step, ...]
    nodes: int = 1
    gpu: bool = False
    note: str = ""

    @property
    def cpus(self) -> int:
        """CPUs of each node: SLURM gives all of a job's nodes the same."""
        return max(sum(s.cpus for s in self.steps if s.node == n) for n in range(self.nodes))

    @property
    def memory_mb(self) -> int:
        """Memory of each node."""
        return max(sum(s.memory_mb for s in self.steps if s.node == n) for n in range(self.nodes))


def make(config: Config, replay_bytes: float = 0.0, nodes: int = 1, limit: int = 0) -> Plan:
    """Spreads the programs of a run over a job's nodes.

    One node holds them all. Of two the second holds the collectors; from three on the replay server
    and the evaluator, the trainer, and the collectors are apart.

    Args:
        config: The run's checked settings.
        replay_bytes: Memory of the replay at its largest.
        nodes: Nodes of the job.
        limit: CPUs that a job may have on a node; 0: as many as it wants.
    """
    run, train = config.get(settings.Run), config.get(settings.Train)
    collector_nodes = max(1, nodes - 2)
    if nodes > 1 and run.num_collectors < collector_nodes:
        raise UserError(
            f"--nodes = {nodes} leaves {collector_nodes} nodes to run.num_collectors = "
            f"{run.num_collectors}: fewer nodes, or --set 'run.num_collectors = {collector_nodes}'"
        )
    first = nodes - collector_nodes
    server = config.get(settings.ReplayServer).cpus or 1
    each = config.get(settings.Collect).cpus or 1
    evaluator = config.get(settings.Eval).cpus or 1
    server_mb = PROGRAM_MB + round(1.2 * replay_bytes / _MB)
    steps = [Step(0, server, server_mb, ("replay_server",))]
    steps += [
        Step(0 if nodes == 1 else first + worker % collector_nodes, each, PROGRAM_MB, (name,))
        for worker, name in enumerate(f"collect_{w}" for w in range(run.num_collectors))
    ]
    steps.append(
        Step(1 if nodes > 2 else 0, train.cpus or TRAINER_CPUS, 2 * PROGRAM_MB, ("train",))
    )
    steps.append(Step(0, evaluator, PROGRAM_MB + _MARGIN_MB, ("eval",)))
    plan = Plan(tuple(steps), nodes, train.device == "gpu")
    return _share(plan, limit) if limit and plan.cpus > limit else plan


def _share(plan: Plan, limit: int) -> Plan:
    """The same programs on nodes that have fewer CPUs than they want."""
    steps: list[Step] = []
    notes = []
    for node in range(plan.nodes):
        here = [s for s in plan.steps if s.node == node]
        wanted = sum(s.cpus for s in here)
        if wanted <= limit:
            steps += here
            continue
        trainer = [s for s in here if s.programs == ("train",)]
        others = [s for s in here if s not in trainer]
        if limit == 1 or not trainer:
            steps.append(_join(node, limit, here))
        else:
            alone = min(trainer[0].cpus, limit // 2) if others else limit
            steps.append(Step(node, alone, trainer[0].memory_mb, ("train",)))
            steps += [_join(node, limit - alone, others)] if others else []
        shared = [s for s in steps if s.node == node and len(s.programs) > 1]
        what = "; ".join(f"{', '.join(s.programs)} share {s.cpus}" for s in shared)
        notes.append(f"the programs want {wanted} CPUs and a node has {limit}: {what}")
    return Plan(tuple(steps), plan.nodes, plan.gpu, "\n".join(notes))


def _join(node: int, cpus: int, steps: list[Step]) -> Step:
    memory = sum(s.memory_mb for s in steps)
    return Step(node, cpus, memory, tuple(name for s in steps for name in s.programs))
