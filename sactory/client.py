"""Talking to the replay server: finding it, waiting for it, and small messages in its tables.

Blocking Reverb calls can't be interrupted, so everything here asks `server_info` with a time-out
first and only then reads what is known to be there.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterable
from typing import Any

import numpy as np
import reverb
from absl import logging

from sactory import supervision, tables
from sactory.run_dir import RunDir, read_json

PROBE_SECONDS = 2  # whole ones
PATIENCE_SECONDS = 600.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0


class ServerGoneError(Exception):
    """The replay server didn't answer within the patience: restart and look again."""


def address_of(run_dir: RunDir) -> str | None:
    """`host:port` of the run's replay server, or None before it first started."""
    address = read_json(run_dir.address)
    if address is None:
        return None
    host = "127.0.0.1" if address["host"] == socket.gethostname() else address["host"]
    return f"{host}:{address['port']}"


def table_infos(client: reverb.Client, run_dir: RunDir | None = None) -> dict[str, Any] | None:
    """Reverb's information on every table.

    Args:
        client: The server to ask.
        run_dir: Whose server it must be: an address may have passed to another run's.

    Returns:
        Information by table; None if the server doesn't answer in time or isn't this run's.
    """
    try:
        infos = client.server_info(timeout=PROBE_SECONDS)
    except (reverb.DeadlineExceededError, RuntimeError):
        return None
    return infos if run_dir is None or tables.identity(run_dir.run_id) in infos else None


def connect(
    run_dir: RunDir, stop: threading.Event, patience: float = PATIENCE_SECONDS
) -> reverb.Client | None:
    """Waits for the run's replay server with back-off.

    Returns:
        A client whose server has answered; None if `stop` was set or the run ended meanwhile.

    Raises:
        ServerGoneError: Nothing answered for `patience` seconds.
    """
    found: list[tuple[str, reverb.Client]] = []

    def answers() -> bool:
        address = address_of(run_dir)
        if address is not None:
            if not found or found[0][0] != address:
                found[:] = [(address, reverb.Client(address))]
            if table_infos(found[0][1], run_dir) is not None:
                return True
        logging.log_every_n_seconds(logging.INFO, "waiting for the server of %s", 60, run_dir)
        return run_dir.is_done

    if not supervision.wait_for(answers, stop, patience, _FIRST_PAUSE, _LONGEST_PAUSE):
        if stop.is_set():
            return None
        raise ServerGoneError(f"no replay server of {run_dir} answered for {patience:.0f} s")
    return None if run_dir.is_done or not found else found[0][1]


def put(client: reverb.Client, table: str, data: Iterable[np.ndarray]) -> None:
    """Inserts one item."""
    client.insert(list(data), {table: 1.0})


def put_json(client: reverb.Client, table: str, value: Any) -> None:
    """Inserts a JSON value as bytes: readable by any version, and never code."""
    encoded = json.dumps(value, allow_nan=False).encode()
    put(client, table, [np.frombuffer(encoded, np.uint8)])


def take(client: reverb.Client, table: str, infos: dict[str, Any] | None) -> list[list[np.ndarray]]:
    """Reads every item that `infos` says the table holds; an empty list if there is none."""
    size = infos[table].current_size if infos else 0
    if not size:
        return []
    return [list(item[0].data) for item in client.sample(table, num_samples=size)]


def take_json(client: reverb.Client, table: str, infos: dict[str, Any] | None) -> list[Any]:
    """Reads every JSON message of a table; what isn't one is logged and left out."""
    messages = []
    for item in take(client, table, infos):
        try:
            messages.append(json.loads(item[0].tobytes()))
        except (UnicodeDecodeError, json.JSONDecodeError, IndexError) as e:
            logging.warning("table %s: dropped a message that is not JSON: %s", table, e)
    return messages
