"""How a program's end is judged: finished, failed, or started again after a pause that grows.

Pure functions and the two small files of a service directory that hold their data.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from sactory import supervision
from sactory.run_dir import read_json
from sactory.supervision import SERVICE_STATE_FILE as STATE_FILE

SETTINGS_FILE = "service.json"


@dataclass(frozen=True)
class Settings:
    """How one service behaves; the tree writes it to `service.json`.

    Attributes:
        name: Name of the service, for example `collect_0`.
        failed_file: Where the run's failure is reported.
        directory: Where the program runs.
        max_failures: Quick failures in a row after which the service gives up.
        quick_seconds: A program that fails sooner than this has failed quickly.
        first_pause: Seconds before the first restart; it doubles with each quick failure.
        longest_pause: Limit of the pause in seconds.
        grace_seconds: What the program has from its stop signal to its own hard end.
    """

    name: str
    failed_file: str
    directory: str
    max_failures: int = 10
    quick_seconds: float = 60.0
    first_pause: float = 1.0
    longest_pause: float = 30.0
    grace_seconds: float = supervision.DEFAULT_GRACE_SECONDS


@dataclass
class State:
    """What a service remembers from one start to the next, in `state.json`.

    Attributes:
        outcome: `finished` or `failed` once the service is down for good, else "".
        starts: How often the program was started.
        failures: Quick failures in a row.
        quick_ends: Quick failures and quick requests for a retry in a row.
        not_before: Unix time of the next start.
        last_exit: How the program ended last, for example `exit code 1`.
        last_error: Its last error line.
        time: Unix time of the last change.
    """

    outcome: str = ""
    starts: int = 0
    failures: int = 0
    quick_ends: int = 0
    not_before: float = 0.0
    last_exit: str = ""
    last_error: str = ""
    time: float = 0.0


def read_settings(directory: Path) -> Settings:
    """The settings in a service directory."""
    return _from_json(Settings, read_json(directory / SETTINGS_FILE))


def read_state(directory: Path) -> State:
    """The state in a service directory; a fresh one if there is none."""
    values = read_json(directory / STATE_FILE)
    return _from_json(State, values) if isinstance(values, dict) else State()


def _from_json(cls: type[Any], values: dict[str, Any]) -> Any:
    known = {f.name for f in fields(cls)}
    return cls(**{k: v for k, v in values.items() if k in known})


def judge(state: State, settings: Settings, exit_code: int, uptime: float, now: float) -> None:
    """Updates `state` after the program ended by itself.

    Args:
        state: Changed in place.
        settings: The service's.
        exit_code: Negative for death by a signal, as in `subprocess`.
        uptime: Seconds the program ran.
        now: Unix time.
    """
    state.time = now
    state.last_exit = describe_exit(exit_code)
    if exit_code == supervision.OK:
        state.outcome = "finished"
        return
    quick = uptime < settings.quick_seconds
    state.quick_ends = state.quick_ends + 1 if quick else 0
    if exit_code != supervision.RETRY:
        state.failures = state.failures + 1 if quick else 0
    if exit_code == supervision.USER_ERROR or state.failures >= settings.max_failures:
        state.outcome = "failed"
    doublings = min(max(0, state.quick_ends - 1), 30)
    state.not_before = now + min(settings.first_pause * 2.0**doublings, settings.longest_pause)


def describe_exit(exit_code: int) -> str:
    """`exit code 1`, or `killed by SIGKILL` for -9."""
    if exit_code >= 0:
        return f"exit code {exit_code}"
    try:
        return f"killed by {signal.Signals(-exit_code).name}"
    except ValueError:
        return f"killed by signal {-exit_code}"
