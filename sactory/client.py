"""Talking to the replay server: finding it, waiting for it, and small messages in its tables.

Blocking Reverb calls can't be interrupted, so everything here has a time limit.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import reverb
from absl import logging

from sactory import supervision, tables
from sactory.link import Link
from sactory.run_dir import RunDir

PROBE_SECONDS = 2  # whole ones
PATIENCE_SECONDS = 600.0
_CALL_SECONDS = 20.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0

_T = TypeVar("_T")
_links: dict[Path, Link] = {}
_links_lock = threading.Lock()


class ServerGoneError(Exception):
    """The replay server didn't answer within the patience: restart and look again."""


class CallTimeoutError(RuntimeError):
    """A Reverb call took too long; Reverb's own errors are RuntimeErrors too."""


def link(run_dir: RunDir) -> Link:
    """This process's link to the run's server."""

    def is_ours(target: str) -> bool:
        return table_infos(reverb.Client(target), run_dir) is not None

    with _links_lock:
        if run_dir.root not in _links:
            _links[run_dir.root] = Link(run_dir, is_ours)
        return _links[run_dir.root]


def target(run_dir: RunDir) -> str:
    """The address of the run's server for Reverb's objects; it never changes in this process."""
    return link(run_dir).target


def table_infos(client: reverb.Client, run_dir: RunDir | None = None) -> dict[str, Any] | None:
    """Reverb's information on every table.

    Args:
        client: The server to ask.
        run_dir: Whose server it must be.

    Returns:
        Information by table; None if the server doesn't answer in time or isn't this run's.
    """
    try:
        infos = client.server_info(timeout=PROBE_SECONDS)
    except (reverb.DeadlineExceededError, RuntimeError):
        return None
    return infos if run_dir is None or tables.identity(run_dir.run_id) in infos else None


class Watchdog:
    """Asks the run's server how it is, and gives up when it has been silent for too long.

    Args:
        client: The server.
        run_dir: Whose it must be.
        patience: Seconds.
    """

    def __init__(self, client: reverb.Client, run_dir: RunDir, patience: float = PATIENCE_SECONDS):
        self._client, self._run_dir, self._patience = client, run_dir, patience
        self._answered = time.monotonic()

    def infos(self) -> dict[str, Any] | None:
        """As `table_infos`.

        Raises:
            ServerGoneError: Nothing has answered for the patience.
        """
        infos = table_infos(self._client, self._run_dir)
        if infos is not None:
            self._answered = time.monotonic()
        elif time.monotonic() - self._answered > self._patience:
            raise gone(self._run_dir, self._patience)
        return infos


def gone(run_dir: RunDir, patience: float) -> ServerGoneError:
    """The error that says why nothing answers."""
    problem = link(run_dir).problem or "it doesn't answer"
    return ServerGoneError(
        f"no replay server of {run_dir} answered for {patience:.0f} s: {problem}"
    )


def connect(
    run_dir: RunDir, stop: threading.Event, patience: float = PATIENCE_SECONDS
) -> reverb.Client | None:
    """Waits for the run's replay server with back-off.

    Returns:
        A client whose server has answered, and which outlives the server's outages and moves; None
        if `stop` was set or the run ended meanwhile.

    Raises:
        ServerGoneError: Nothing answered for `patience` seconds.
    """
    client = reverb.Client(target(run_dir))

    def answers() -> bool:
        if table_infos(client, run_dir) is not None:
            return True
        logging.log_every_n_seconds(logging.INFO, "waiting for the server of %s", 60, run_dir)
        return run_dir.is_done

    if not supervision.wait_for(answers, stop, patience, _FIRST_PAUSE, _LONGEST_PAUSE):
        if stop.is_set():
            return None
        raise gone(run_dir, patience)
    return None if run_dir.is_done else client


def within(seconds: float, call: Callable[[], _T]) -> _T:
    """Runs a call that a lost server could hold for ever on a thread of its own.

    Raises:
        CallTimeoutError: It took longer; it may still go through later.
    """
    result: list[_T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            result.append(call())
        except BaseException as e:
            errors.append(e)

    thread = threading.Thread(target=run, name="call", daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not result:
        raise CallTimeoutError(f"the replay server didn't finish a call within {seconds:g} s")
    return result[0]


def put(client: reverb.Client, table: str, data: Iterable[np.ndarray]) -> None:
    """Inserts one item."""
    item = list(data)
    within(_CALL_SECONDS, lambda: client.insert(item, {table: 1.0}))


def put_json(client: reverb.Client, table: str, value: Any) -> None:
    """Inserts a JSON value as bytes: readable by any version, and never code."""
    encoded = json.dumps(value, allow_nan=False).encode()
    put(client, table, [np.frombuffer(encoded, np.uint8)])


def take(client: reverb.Client, table: str, infos: dict[str, Any] | None) -> list[list[np.ndarray]]:
    """Reads every item that `infos` says the table holds; an empty list if there is none."""
    size = infos[table].current_size if infos else 0
    if not size:
        return []
    # A server that has lost the items since would wait for others.
    items = within(_CALL_SECONDS, lambda: list(client.sample(table, num_samples=size)))
    return [list(item[0].data) for item in items]


def take_json(client: reverb.Client, table: str, infos: dict[str, Any] | None) -> list[Any]:
    """Reads every JSON message of a table; what isn't one is logged and left out."""
    messages = []
    for item in take(client, table, infos):
        try:
            messages.append(json.loads(item[0].tobytes()))
        except (ValueError, RecursionError, IndexError) as e:
            logging.warning("table %s: dropped a message that is not JSON: %s", table, e)
    return messages
