"""Measures the unit costs of a run with a real replay server and the programs' own parts.

Two servers, one for segments of one row and one for sixteen, and a client of each take turns;
medians of some rounds. Bytes are counted in a pass of their own, through a relay.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.rounds import ROOT, worker_environment
from benchmarks.scaling.model import Connection, Cost, Costs, Line
from benchmarks.scaling.site import Relay, Site, holdings

CONFIG = "configs/tasks/cheetah_run.gin"
LENGTHS = (1, 16)
# Bytes of the actor's weights of cheetah_run with two layers of 256 and of 1024.
WEIGHT_BYTES = (293_936, 4_321_328)
_OVERRIDES = (
    "replay.mode = 'async'",
    "replay.updates_per_row = None",
    "replay.capacity = 100_000",
    "collect.Worker.random_steps = 1000",
)
_FILL_ITEMS = 3000
_DRAINED, _DRAINS = 100, 10  # reports at a time, and how often
_CONNECTED, _IDLE_SECONDS = 64, 5.0
# Calls of each unit in the pass that counts bytes, and the pause in which earlier ones arrive.
_CALLS, _SETTLE_SECONDS = 40, 0.5


class Client:
    """A process that makes units of work, and waits between them.

    Args:
        site: Whose server it talks to.
    """

    def __init__(self, site: Site):
        words = [sys.executable, "-m", "benchmarks.scaling.units"]
        with open(site.run_dir.root.with_name(site.run_dir.root.name + ".units"), "ab") as says:
            self._process = subprocess.Popen(
                [*words, str(site.run_dir), str(site.pid)],
                cwd=ROOT,
                env=worker_environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=says,
                text=True,
            )
        self._log = says.name

    def order(self, unit: str, **how: Any) -> dict[str, float]:
        """Has units made; what they took."""
        assert self._process.stdin is not None and self._process.stdout is not None
        print(json.dumps({"unit": unit, **how}), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"'{unit}' died: see {self._log}")
        return json.loads(line)

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)


def measure(rounds: int, seconds: float) -> Costs:
    """Measures everything.

    Args:
        rounds: Of which medians are taken.
        seconds: Of each unit in each round.
    """
    sites: dict[int, Site] = {}
    clients: dict[int, Client] = {}
    with tempfile.TemporaryDirectory() as place:
        try:
            for length in LENGTHS:
                settings = [*_OVERRIDES, f"replay.segment_length = {length}"]
                sites[length] = Site(Path(place) / f"length_{length}", CONFIG, settings)
                clients[length] = Client(sites[length])
                clients[length].order("insert", calls=_FILL_ITEMS)
                clients[length].order("sample", calls=2)
            one = LENGTHS[0]
            base = _per_second(clients[one].order("idle", seconds=_IDLE_SECONDS))
            connection = _connection(clients[one], sites[one].pid, base)
            taken: dict[str, list[Cost]] = {}
            for _ in range(rounds):
                for name, cost in _round(clients, seconds, base).items():
                    taken.setdefault(name, []).append(cost)
            moved = _bytes(sites)
        finally:
            for worker in (*clients.values(), *sites.values()):
                worker.close()
    units = {name: _median(costs) + moved[name] for name, costs in taken.items()}
    return _costs(units, base, connection)


def _per_second(answer: dict[str, float]) -> float:
    return answer["server"] / answer["wall"]


def _plan(length: int) -> list[tuple[str, int]]:
    """Unit and size of what is measured at the server of this segment length, in order."""
    plan = [("insert", 0), ("sample", 0)]
    if length == LENGTHS[0]:
        plan += [(unit, size) for size in WEIGHT_BYTES for unit in ("publish", "fetch")]
        plan += [(unit, 0) for unit in ("report", "probe", "tell_state", "read_state")]
    return plan


def _name(unit: str, size: int, length: int) -> str:
    return f"{unit} {size} {length}"


def _round(clients: dict[int, Client], seconds: float, base: float) -> dict[str, Cost]:
    """Every unit once, by `unit size length`."""

    def cost(answer: dict[str, float]) -> Cost:
        server = answer["server"] - base * answer["wall"]
        return Cost(server, answer["gate"], answer["client"]) * (1 / answer["units"])

    found = {}
    for length, client in clients.items():
        for unit, size in _plan(length):
            client.order(unit, size=size, calls=3)
            answer = client.order(unit, size=size, seconds=seconds)
            found[_name(unit, size, length)] = cost(answer)
    one = clients[LENGTHS[0]]
    one.order("drain", calls=1)
    drains = []
    for _ in range(_DRAINS):
        one.order("report", calls=_DRAINED)
        drains.append(cost(one.order("drain", calls=1)))
    found[_name("drain", 0, 1)] = _median(drains)
    return found


def _median(costs: list[Cost]) -> Cost:
    fields = Cost.__dataclass_fields__
    return Cost(**{name: statistics.median(getattr(c, name) for c in costs) for name in fields})


def _connection(client: Client, server: int, base: float) -> Connection:
    """What each further collector takes of the server."""
    client.order("connect", calls=2)
    before = holdings(server)
    client.order("connect", calls=_CONNECTED)
    idle = _per_second(client.order("idle", seconds=_IDLE_SECONDS))
    memory, *others = ((now - then) / _CONNECTED for now, then in zip(holdings(server), before))
    return Connection(max(0.0, idle - base) / _CONNECTED, memory, *others)


def _bytes(sites: dict[int, Site]) -> dict[str, Cost]:
    """Bytes of every unit, by `unit size length`."""
    found = {}
    for length, site in sites.items():
        relay = Relay(site.run_dir, site.run_dir.root.with_name(f"relay_{length}"))
        client = Client(site)
        for unit, size in _plan(length):
            client.order(unit, size=size, calls=3)
            client.order("idle", seconds=_SETTLE_SECONDS)
            found[_name(unit, size, length)] = _moved(client, relay, unit, size, _CALLS)
        if length == LENGTHS[0]:
            client.order("drain", calls=1)
            client.order("report", calls=_DRAINED)
            found[_name("drain", 0, 1)] = _moved(client, relay, "drain", 0, 1)
        client.close()
    return found


def _moved(client: Client, relay: Relay, unit: str, size: int, calls: int) -> Cost:
    received, sent = relay.received, relay.sent
    units = client.order(unit, size=size, calls=calls)["units"]
    return Cost(received=(relay.received - received) / units, sent=(relay.sent - sent) / units)


def _costs(units: dict[str, Cost], base: float, connection: Connection) -> Costs:
    def line(names: list[str], sizes: tuple[int, int]) -> Line:
        low, high = (units[name] for name in names)
        return Line.through((sizes[0], low), (sizes[1], high))

    def by_rows(unit: str) -> Line:
        return line([_name(unit, 0, length) for length in LENGTHS], LENGTHS)

    def by_bytes(unit: str) -> Line:
        return line([_name(unit, size, 1) for size in WEIGHT_BYTES], WEIGHT_BYTES)

    return Costs(
        base=base,
        insert=by_rows("insert"),
        sample=by_rows("sample"),
        fetch=by_bytes("fetch"),
        publish=by_bytes("publish"),
        report=units[_name("report", 0, 1)],
        drain=units[_name("drain", 0, 1)],
        probe=units[_name("probe", 0, 1)],
        read_state=units[_name("read_state", 0, 1)],
        tell_state=units[_name("tell_state", 0, 1)],
        connection=connection,
    )
