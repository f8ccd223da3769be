"""The sections of `make bench`: who is measured in each, and for how long."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from benchmarks import comparison, learner, rounds, to_return
from benchmarks.comparison import CLEANRL, SACTORY, SB3, SBX, SBX_16, SBX_64
from benchmarks.learner import Variant
from benchmarks.peers.environment import Peers
from benchmarks.peers.job import Job
from benchmarks.whole_run import WholeRun
from sactory.errors import UserError

Entries = list[dict[str, Any]]
_PEERS = {
    SBX: ("sbx", 1),
    SBX_16: ("sbx", 16),
    SBX_64: ("sbx", 64),
    SB3: ("sb3", 1),
    CLEANRL: ("cleanrl", 1),
}


@dataclasses.dataclass(frozen=True)
class Plan:
    """How a section is measured.

    Attributes:
        peers: The other projects.
        rounds: Measurements of each contender.
        seconds: Length of one; None: the section's own.
        commit: What is measured.
        before: What earlier runs have found, by section.
    """

    peers: Peers
    rounds: int = 5
    seconds: float | None = None
    commit: Any = None
    before: dict[str, Any] = dataclasses.field(default_factory=dict)

    def measure(self, contenders: list[Any], seconds: float) -> Entries:
        """Lets contenders take turns."""
        rates = rounds.measure(contenders, self.rounds, self.seconds or seconds)
        return [r.to_json() for r in rates]


def peers_that(plan: Plan, mode: str, cores: int, names: tuple[str, ...]) -> list[rounds.Worker]:
    """The peers of the second environment."""
    wanted = {name: Job(mode, cores, _PEERS[name][1]) for name in names}
    modules = {name: (_PEERS[name][0], job) for name, job in wanted.items()}
    return plan.peers.workers(modules)


def learners(plan: Plan, cores: int, names: tuple[str, ...], tf_agents: bool = True) -> Entries:
    """Gradient steps on data in memory."""
    contenders = [learner.contender(Variant(cores, 1, cores, 16))]
    contenders[0].name = SACTORY
    if tf_agents:
        for name, xla in zip(comparison.TF_AGENTS, (False, True)):
            words = Job("learner", cores, 16, xla).words("tf_agents")
            contenders.append(rounds.Worker(name, (sys.executable, *words)))
    contenders += peers_that(plan, "learner", cores, names)
    for contender in contenders:
        (contender.name,) = comparison.on(cores, contender.name)
    if cores == 1:
        contenders.insert(0, learner.contender(learner.PRODUCT))
        contenders[0].name = comparison.PRODUCT
    return [_as_updates(entry) for entry in plan.measure(contenders, 3.0)]


def _as_updates(entry: dict[str, Any]) -> dict[str, Any]:
    """Products a second as the updates that they would suffice for."""
    if entry["name"] != comparison.PRODUCT:
        return entry
    share = 2.0 * 256**3 / learner.update_flops()
    turned = [[rate * share for rate in both] for both in entry["rounds"]]
    rates = {k: entry[k] * share for k in ("per_second", "per_core_second")}
    return {**entry, **rates, "rounds": turned, "first_seconds": None}


def learner_section(plan: Plan) -> Entries:
    """All learners, on one core and on two."""
    require_cores(2)
    return [entry for cores in (1, 2) for entry in learners(plan, cores, tuple(_PEERS))]


def whole_systems(plan: Plan) -> Entries:
    """Training of cheetah_run at one update per env step on 2 cores."""
    require_cores(2)
    peers = peers_that(plan, "train", 2, tuple(_PEERS))
    return plan.measure([*peers, WholeRun(SACTORY)], 30.0)


def until_return(plan: Plan) -> Entries:
    """Wall time to a return of 700 on walker_walk."""
    require_cores(2)
    best = to_return.best_sbx(plan.before)
    return to_return.measure(plan.peers, best, (plan.commit or {}).get("commit"))


def environments(plan: Plan) -> Entries:
    """What the environment adapter costs, CPU time."""
    words = ["-m", "benchmarks.env_overhead", f"--episodes={3 * plan.rounds}"]
    done = subprocess.run(
        [sys.executable, *words], cwd=rounds.ROOT, stdout=subprocess.PIPE, text=True, check=True
    )
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return [{"name": entry.pop("task"), **entry} for entry in found]


def contenders_of(module: str, *only: str) -> list[Any]:
    """What a module of this folder enters; `only` those whose names hold a text."""
    return importlib.import_module(f"benchmarks.{module}").contenders(*only)


def require_cores(count: int) -> None:
    """Keeps this process and all that it starts to so many cores."""
    usable = sorted(os.sched_getaffinity(0))
    if len(usable) < count:
        raise UserError(f"this section needs {count} cores and may use {len(usable)}")
    os.sched_setaffinity(0, usable[:count])


@dataclasses.dataclass(frozen=True)
class Section:
    """A section of the benchmark.

    Attributes:
        title: For the report.
        unit: Of the rates.
        run: Measures it.
        needs_peers: Whether peers of the second environment take part.
    """

    title: str
    unit: str
    run: Callable[[Plan], Entries]
    needs_peers: bool = False


SECTIONS = {
    "learner": Section("The learner alone", "updates", learner_section, True),
    "collection": Section(
        "Collection alone",
        "env steps",
        lambda plan: plan.measure(contenders_of("collection"), 3.0),
    ),
    "sampling": Section(
        "Sampling alone",
        "batches of 256",
        lambda plan: plan.measure(contenders_of("sampling"), 3.0),
    ),
    "environments": Section("The environment adapter", "task", environments),
    "end_to_end": Section(
        "Whole systems, one update per env step", "env steps", whole_systems, True
    ),
    "to_return": Section("Until walker_walk returns 700", "until then", until_return, True),
}
