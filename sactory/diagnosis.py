"""Why a run is slow or stuck, in a few short lines: a pure function of what `status` has read.

The first line is what everything else waits for. Nothing here reads a file.
"""

from __future__ import annotations

from typing import Any

GB = 1e9
MUCH = 0.5  # share of the last minute from which a wait is worth a line
_OLD_WEIGHTS_SECONDS = 60.0
_LITTLE_DISK = 1.0 * GB
_LONGEST_ERROR = 160


def explain(told: dict[str, Any], settings: dict[str, Any]) -> list[str]:
    """The lines, the most important ones first.

    Args:
        told: What `status.collect` prints, without these lines.
        settings: The run's settings by full name; what is missing is not judged.
    """
    if told["state"] == "done":
        return []
    if told["state"] == "failed":
        failed = told["failed"] or {}
        return [f"{failed.get('program')} failed: {_short(failed.get('error'))}", *_disk(told)]
    if told["state"] == "stopped":
        return ["nothing runs: `sactory run --run_dir R` goes on", *_disk(told)]
    return [
        *(_finishing(told) if told["done"] else _waits(told, settings)),
        *_disk(told),
        *_restarts(told),
        *_old_checkpoints(told, settings),
        *_evaluator(told),
        *_damage(told),
        *_access(told),
    ]


def _waits(told: dict[str, Any], settings: dict[str, Any]) -> list[str]:
    """Who waits for whom."""
    server, trainer = _program(told, "replay_server"), _program(told, "train")
    if server and (_is_away(server) or server["state"] != "running"):
        return [f"everybody waits for the replay server: it {_condition(server)}"]
    blocked, rows = told["blocked"], told["replay_size"]
    wanted = settings.get("collect.Worker.random_steps")
    lines = []
    # One that asks for samples is ready, whatever it calls itself before the first rows.
    asks = blocked.get("samples", 0.0) >= MUCH and trainer is not None and trainer["alive"]
    if trainer and not asks and (_is_away(trainer) or trainer["state"] == "starting"):
        lines.append(_absent_trainer(told, trainer))
    elif blocked.get("inserts", 0.0) >= MUCH:
        lines.append(f"collectors wait for the trainer: {_held(blocked, 'inserts')}")
    away = _absent_collectors(told)
    if asks:
        if away:
            lines.append(f"the trainer waits for rows: {away}")
        elif wanted and rows < wanted:
            lines.append(f"the trainer waits for the first rows: {rows:,} of {wanted:,}")
        else:
            lines.append(f"the trainer waits for the collectors: {_held(blocked, 'samples')}")
    elif away:
        lines.append(away)
    if not lines or asks:
        lines += _idle_collectors(told)
    return [*lines, *_old_weights(told, trainer)]


def _absent_trainer(told: dict[str, Any], trainer: dict[str, Any]) -> str:
    held = told["blocked"].get("inserts", 0.0) >= MUCH
    who = "collectors wait for the trainer: it" if held else "the trainer"
    age = told["weights_age"]
    weights = f"; weights are {duration(age)} old" if age is not None and not held else ""
    return f"{who} {_condition(trainer)}{weights}"


def _absent_collectors(told: dict[str, Any]) -> str:
    """`2 of 4 collectors are restarting, last error: ...`; "" if none is away."""
    collectors = [p for p in told["programs"] if p["name"] == "collect"]
    away = [p for p in collectors if _is_away(p)]
    if not away:
        return ""
    if len(collectors) == 1:
        return f"the collector {_condition(away[0])}"
    states = ", ".join(dict.fromkeys(p["state"] for p in away))
    verb = "is" if len(away) == 1 else "are"
    return f"{len(away)} of {len(collectors)} collectors {verb} {states}{_last_error(away)}"


def _idle_collectors(told: dict[str, Any]) -> list[str]:
    """Collectors that live and wait, but not for room, which the limiter's times tell better."""
    states = [p["state"] for p in told["programs"] if p["name"] == "collect" and p["alive"]]
    waits = ("starting", "waiting for the ", "waiting for an ", "paused")  # not `… for room`
    idle = [s for s in states if s.startswith(waits)]
    if not idle:
        return []
    who = "the collector is" if len(states) == 1 else f"{len(idle)} of {len(states)} collectors:"
    return [f"{who} {', '.join(dict.fromkeys(idle))}"]


def _old_weights(told: dict[str, Any], trainer: dict[str, Any] | None) -> list[str]:
    """Weights that nobody gets although the trainer makes new ones."""
    age = told["weights_age"]
    if age is None or age < _OLD_WEIGHTS_SECONDS or trainer is None:
        return []
    if not trainer["alive"] or trainer["state"] != "training":
        return []
    return [f"weights are {duration(age)} old: the trainer trains, but can't publish them"]


def _finishing(told: dict[str, Any]) -> list[str]:
    waiting = told["exports_waiting"]
    reason = told["done"].get("reason", "done")
    if waiting:
        return [f"training has ended ({reason}): {_count(waiting, 'policy', 'policies')} to score"]
    return [f"training has ended ({reason}): the programs save and end"]


def _evaluator(told: dict[str, Any]) -> list[str]:
    evaluator = _program(told, "eval")
    if evaluator and _is_away(evaluator):
        return [f"the evaluator {_condition(evaluator)}"]
    if told["exports_waiting"] > 2 and not told["done"]:
        return [f"the evaluator is {told['exports_waiting']} policies behind"]
    return []


def _restarts(told: dict[str, Any]) -> list[str]:
    """Programs that live, but had to be started again."""
    lines = []
    for name in dict.fromkeys(p["name"] for p in told["programs"]):
        members = [p for p in told["programs"] if p["name"] == name and p["restarts"]]
        members = [p for p in members if not _is_away(p)]
        if members:
            times = _count(sum(p["restarts"] for p in members), "restart", "restarts")
            lines.append(f"{_names(members)}: {times}{_last_error(members)}")
    return lines


def _old_checkpoints(told: dict[str, Any], settings: dict[str, Any]) -> list[str]:
    """Checkpoints that are overdue: by twice their interval and some time for a slow one."""
    lines = []
    for name, group in (("train", "train"), ("replay_server", "replay")):
        program, interval = _program(told, name), settings.get(f"{group}.checkpoint_seconds")
        age, longest = told["checkpoints"].get(name), told["save_seconds"].get(name) or 0.0
        if program is None or interval is None or age is None or not program["alive"]:
            continue
        # One of an earlier life is as old as the pause between: this life's time counts.
        age = min(age, program["up_seconds"] or age)
        if age > 2 * max(interval, 50 * longest) + 60:
            lines.append(f"{name}: no checkpoint for {duration(age)}: see its log")
    return lines


def _disk(told: dict[str, Any]) -> list[str]:
    free = told["disk_free"]
    if free is None:
        return ["the disk of R can't be asked for its free space"]
    return [f"the disk of R has {free / GB:.1f} GB free"] if free < _LITTLE_DISK else []


def _damage(told: dict[str, Any]) -> list[str]:
    """What was lost, mended or refused, and where to read more."""
    lines = []
    for name, notes in told["recovered"].items():
        more = f" (and {len(notes) - 1} more: see its log)" if len(notes) > 1 else ""
        lines.append(f"{name} found damage: {_short(notes[0])}{more}")
    if told["repaired_items"]:
        items = _count(told["repaired_items"], "bad item", "bad items")
        lines.append(f"the replay was repaired: {items} removed")
    if told["refused_steps"]:
        steps = _count(told["refused_steps"], "step", "steps")
        lines.append(f"collectors refused {steps} of their environments: see their logs")
    return lines


def _access(told: dict[str, Any]) -> list[str]:
    if told["access"] != "open":
        return []
    return ["the replay server is open to everybody who can reach this host"]


def _program(told: dict[str, Any], name: str) -> dict[str, Any] | None:
    return next((p for p in told["programs"] if p["name"] == name), None)


def _is_away(program: dict[str, Any]) -> bool:
    return not program["alive"] and program["state"] != "done"


def _condition(program: dict[str, Any]) -> str:
    """`is restarting, last error: ...`, `has been silent for 40 s`."""
    state, seconds = program["state"], program["silent_seconds"]
    if state == "silent" and seconds is not None:
        return f"has been silent for {duration(seconds)}: frozen, or its disk hangs"
    if state == "starting" and program["up_seconds"] is not None:
        return f"is starting, for {duration(program['up_seconds'])} now"
    words = {"failed": "has failed", "stopped": "has stopped", "dead": "has died"}
    return f"{words.get(state, f'is {state}')}{_last_error([program])}"


def _last_error(programs: list[dict[str, Any]]) -> str:
    error = next((p["last_error"] for p in programs if p["last_error"]), None)
    error = error or next((p["last_exit"] for p in programs if p["last_exit"]), None)
    return f", last error: {_short(error)}" if error else ""


def _names(programs: list[dict[str, Any]]) -> str:
    """`train`, `collect_1`, `5 collectors`."""
    first = programs[0]
    if len(programs) > 1:
        return f"{len(programs)} collectors"
    return first["name"] if first["worker"] is None else f"{first['name']}_{first['worker']}"


def _held(blocked: dict[str, float], side: str) -> str:
    seconds = blocked["seconds"]
    when = "the last minute" if seconds > 50 else f"the last {seconds:.0f} s"
    return f"the limiter held {side} {100 * blocked[side]:.0f} % of {when}"


def _count(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"


def _short(text: Any) -> str:
    text = " ".join(str(text or "no message").split())
    return text if len(text) <= _LONGEST_ERROR else f"{text[:_LONGEST_ERROR]}…"


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3 h 05 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
