"""Predicts who is the bottleneck of a run, from the costs of its units of work.

Pure arithmetic. Every load is a sum of rates times unit costs:

    server  = base + C connection + C/refresh (probe + read_state) + reports (report + drain)
              + fetches fetch(W) + (probe + tell_state)/publish + publications publish(W)
              + R/L insert(L) + U B/L sample(L)
    trainer = U (update + B/L sample(L)) + reports drain
              + (probe + tell_state)/publish + publications publish(W)

with C collectors, R rows/s, U updates/s, segments of L rows, batches of B rows, W bytes of weights,
fetches = C times whichever is rarer: looks for newer weights, or publications.
What is held against a limit: the server's cores, its gate (one thread, one core), the trainer's
cores, its thread that publishes (one core), and the busier direction of the server's network.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

_STEPS = 50  # of the search for the largest rates: exact to 1e-15 of them


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a unit of work takes.

    Attributes:
        server: CPU seconds of the replay server, its gate included.
        gate: CPU seconds of the gate's thread.
        client: CPU seconds of the program at the other end.
        received: Bytes that the server receives.
        sent: Bytes that the server sends.
    """

    server: float = 0.0
    gate: float = 0.0
    client: float = 0.0
    received: float = 0.0
    sent: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        mine, theirs = dataclasses.astuple(self), dataclasses.astuple(other)
        return Cost(*(a + b for a, b in zip(mine, theirs)))

    def __mul__(self, times: float) -> Cost:
        return Cost(*(times * value for value in dataclasses.astuple(self)))


@dataclasses.dataclass(frozen=True)
class Line:
    """A unit of work whose cost grows with its size.

    Attributes:
        fixed: What it takes however small it is.
        each: What each row or byte of it adds.
    """

    fixed: Cost
    each: Cost

    def of(self, size: float) -> Cost:
        """The cost of a unit of `size` rows or bytes."""
        return self.fixed + self.each * size

    @classmethod
    def through(cls, small: tuple[float, Cost], large: tuple[float, Cost]) -> Line:
        """The line through two measurements `(size, cost)`; what shrinks with size is noise."""
        (a, low), (b, high) = small, large
        each = (high + low * -1) * (1 / (b - a))
        each = Cost(*(max(0.0, value) for value in dataclasses.astuple(each)))
        fixed = low + each * -a
        return cls(Cost(*(max(0.0, value) for value in dataclasses.astuple(fixed))), each)


@dataclasses.dataclass(frozen=True)
class Connection:
    """What a collector that only stays connected takes of the server.

    Attributes:
        seconds: CPU seconds per second.
        memory: Bytes.
        descriptors: Open files.
        threads: Of the server's process.
    """

    seconds: float = 0.0
    memory: float = 0.0
    descriptors: float = 0.0
    threads: float = 0.0


@dataclasses.dataclass(frozen=True)
class Costs:
    """The unit costs of one machine.

    Attributes:
        base: CPU seconds of an idle server per second.
        insert: An item of so many rows, written by a collector that waits for each answer.
        sample: An item of so many rows, sampled, checked and mixed by the trainer's feeder.
        fetch: Weights of so many bytes on their way to a collector.
        publish: Weights of so many bytes on their way from the trainer.
        report: A collector's report of progress.
        drain: That report read and booked by the trainer.
        probe: The question how the server is; every round of collectors and trainer begins so.
        read_state: The run's state, read by a collector.
        tell_state: The run's state, published by the trainer.
        connection: A collector that only stays connected.
    """

    base: float
    insert: Line
    sample: Line
    fetch: Line
    publish: Line
    report: Cost
    drain: Cost
    probe: Cost
    read_state: Cost
    tell_state: Cost
    connection: Connection = Connection()

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Costs:
        """Reads what `dataclasses.asdict` makes."""

        def cost(v: Any) -> Any:
            return Line(Cost(**v["fixed"]), Cost(**v["each"])) if "fixed" in v else Cost(**v)

        others = {"base": value["base"], "connection": Connection(**value["connection"])}
        return cls(**others, **{name: cost(v) for name, v in value.items() if name not in others})


@dataclasses.dataclass(frozen=True)
class Situation:
    """A run and its machines.

    Attributes:
        collectors: C.
        rows_per_second: That one collector makes if nothing holds it up.
        segment_length: L, rows of an item.
        batch_size: B, rows of an update.
        updates_per_row: The ratio, or None: as many updates as the trainer can.
        sync: Whether collectors wait for the trainer.
        refresh_seconds: Between two rounds of a collector.
        publish_seconds: Between two rounds of the trainer.
        updates_per_call: K; weights are published at most once a call.
        weight_bytes: W, of the policy.
        update_seconds: CPU seconds of an update.
        server_cores: Cores of the server.
        trainer_cores: Cores of the trainer.
        network: Bytes per second to the server, and from it.
    """

    collectors: int
    rows_per_second: float
    segment_length: int = 1
    batch_size: int = 256
    updates_per_row: float | None = 1.0
    sync: bool = True
    refresh_seconds: float = 0.25
    publish_seconds: float = 0.25
    updates_per_call: int = 16
    weight_bytes: float = 294e3
    update_seconds: float = 1 / 149
    server_cores: float = 2.0
    trainer_cores: float = 2.0
    network: float = 1.25e8


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What comes of a situation.

    Attributes:
        rows_per_second: Of all collectors.
        updates_per_second: Of the trainer.
        refresh_seconds: Between two rounds of a collector; longer than wished where the server,
            its gate or the network is full.
        loads: Share of each resource that is used at these rates.
        rows_limit: What holds the rows: a resource, or `collectors`.
        updates_limit: What holds the updates: a resource, or `rows`.
        collector_seconds: CPU seconds per second that each collector spends on rounds and inserts.
    """

    rows_per_second: float
    updates_per_second: float
    refresh_seconds: float
    loads: dict[str, float]
    rows_limit: str
    updates_limit: str
    collector_seconds: float


def batch(costs: Costs, situation: Situation) -> Cost:
    """What sampling for one update costs."""
    length = situation.segment_length
    return costs.sample.of(length) * (situation.batch_size / length)


def _collectors(costs: Costs, s: Situation, rows: float, updates: float) -> Cost:
    """All collectors' work per second: rounds and inserts."""
    rounds = s.collectors / s.refresh_seconds
    publications = _publications(s, updates)
    work = (costs.probe + costs.read_state) * rounds
    work += costs.report * min(rounds, rows)
    work += costs.fetch.of(s.weight_bytes) * min(rounds, publications * s.collectors)
    return work + costs.insert.of(s.segment_length) * (rows / s.segment_length)


def _publications(s: Situation, updates: float) -> float:
    return min(1 / s.publish_seconds, updates / s.updates_per_call)


def _publisher(costs: Costs, s: Situation, rows: float, updates: float) -> Cost:
    """The work per second of the trainer's thread that drains and publishes."""
    work = (costs.probe + costs.tell_state) * (1 / s.publish_seconds)
    work += costs.drain * min(s.collectors / s.refresh_seconds, rows)
    return work + costs.publish.of(s.weight_bytes) * _publications(s, updates)


def loads(costs: Costs, s: Situation, rows: float, updates: float) -> dict[str, float]:
    """Share of each resource that so many rows and updates per second use.

    Args:
        costs: Of the units.
        s: The situation.
        rows: Per second, of all collectors.
        updates: Per second.
    """
    publisher = _publisher(costs, s, rows, updates)
    sampling = batch(costs, s) * updates
    total = _collectors(costs, s, rows, updates) + publisher + sampling
    idle = costs.base + s.collectors * costs.connection.seconds
    trainer = updates * s.update_seconds + sampling.client + publisher.client
    return {
        "server": (idle + total.server) / s.server_cores,
        "gate": total.gate,
        "trainer": trainer / s.trainer_cores,
        "publisher": publisher.client,
        "network": max(total.received, total.sent) / s.network,
    }


def predict(costs: Costs, s: Situation) -> Prediction:
    """The rates that a run reaches, and what holds it.

    First the trainer takes what it can of what the collectors make. Where the server, its gate or
    the network can't carry that, all that share it slow down alike: rows, updates and rounds.
    """
    ratio = s.updates_per_row
    rows = s.collectors * s.rows_per_second
    if s.sync:
        if ratio is None:
            raise ValueError("a synchronous run has a ratio")
        rows, own = _largest(lambda x: _of(_TRAINERS, loads(costs, s, x, ratio * x)), rows)
        updates = ratio * rows
    else:
        most = s.trainer_cores / s.update_seconds if ratio is None else ratio * rows
        updates, own = _largest(lambda x: _of(_TRAINERS, loads(costs, s, rows, x)), most)

    def slowed(x: float) -> Situation:
        return dataclasses.replace(s, refresh_seconds=s.refresh_seconds / x)

    pace, shared = _largest(
        lambda x: _of(_SHARED, loads(costs, slowed(x), x * rows, x * updates)), 1.0
    )
    reached = slowed(pace)
    work = _collectors(costs, reached, pace * rows, pace * updates)
    return Prediction(
        rows_per_second=pace * rows,
        updates_per_second=pace * updates,
        refresh_seconds=reached.refresh_seconds,
        loads=loads(costs, reached, pace * rows, pace * updates),
        rows_limit=shared or (own if s.sync else None) or "collectors",
        updates_limit=shared or own or "rows",
        collector_seconds=work.client / s.collectors,
    )


_TRAINERS, _SHARED = ("trainer", "publisher"), ("server", "gate", "network")


def _of(names: tuple[str, ...], used: dict[str, float]) -> dict[str, float]:
    return {name: used[name] for name in names}


def _largest(load: Callable[[float], dict[str, float]], most: float) -> tuple[float, str | None]:
    """The largest rate up to `most` that fits every resource, and the resource that holds it."""
    if max(load(most).values()) <= 1:
        return most, None
    low, high = 0.0, most
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if max(load(middle).values()) <= 1 else (low, middle)
    at_limit = load(high)
    return high, max(at_limit, key=lambda name: at_limit[name])
