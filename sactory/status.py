"""`sactory status`: what a run is doing, read from the files in its run directory.

It talks to no program and never imports TensorFlow, so it answers at once, for a stuck run too.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import time
from pathlib import Path
from typing import Any

from sactory import diagnosis, run_list, slurm_view, status_files
from sactory.errors import UserError
from sactory.flags import Flags
from sactory.run_dir import RunDir
from sactory.supervision import ALIVE_FILE, SERVICE_STATE_FILE

SILENT_AFTER_SECONDS = 15.0  # importing TensorFlow on a busy core holds a heartbeat for seconds
WATCH_SECONDS = 1.0
_ENDED = ("done", "stopped", "failed")


def collect(run_dir: RunDir, now: float | None = None) -> dict[str, Any]:
    """Everything `sactory status --json` prints.

    Args:
        run_dir: The run directory.
        now: Unix time; None: the clock's.
    """
    now = time.time() if now is None else now
    beats = {p.stem: b for p in _beats(run_dir) if (b := status_files.read(p))}
    trees = [_tree(path, now) for path in _tree_paths(run_dir)]
    alive = any(tree["alive"] for tree in trees)
    services: dict[str, Path] = {}
    for tree in sorted(trees, key=lambda t: t["time"]):
        services.update({name: tree["path"] / name for name in tree["services"]})
    programs = [
        _program(name, beats.get(name, {}), services.get(name), now)
        for name in sorted({*beats, *services}, key=_order)
    ]
    # A collector that an earlier start had, and this one doesn't, is of no interest.
    programs = [p for p in programs if not services or full_name(p) in services or p["alive"]]
    done = status_files.read(run_dir.done)
    server = beats.get("replay_server", {})
    trained = beats.get("train", {})
    if trained.get("env_steps") is None:  # lost with its disk, or a fork's first start
        trained = {**trained, **_last_saved(run_dir)}
    train = {**trained, **done}
    told = {
        "state": _state(run_dir, alive, programs),
        "env_steps": int(train.get("env_steps") or 0),
        "train_steps": int(train.get("train_steps") or 0),
        "ratio": train.get("ratio"),
        "replay_size": _first(train.get("replay_size"), server.get("replay_size"), 0),
        "last_train_return": status_files.last_number(run_dir.train_log, "episode_reward"),
        "last_eval_return": status_files.last_number(run_dir.eval_log, "episode_reward"),
        "curriculum": status_files.curriculum(run_dir.curriculum_state),
        "programs": programs,
        "done": done or None,
        "failed": status_files.read(run_dir.failed) or None,
        "time": now,
        **_health(run_dir, beats, now),
    }
    return {**told, "why": diagnosis.explain(told, run_list.read_settings(run_dir))}


def _last_saved(run_dir: RunDir) -> dict[str, Any]:
    """Counts of the newest trainer checkpoint."""
    from sactory import trainer_checkpoints  # brings numpy, which a healthy run's status spares

    try:
        newest_first = reversed(trainer_checkpoints.find(run_dir.trainer_checkpoints))
    except OSError:
        return {}
    states = map(trainer_checkpoints.peek, newest_first)
    state = status_files.believed(next(filter(None, states), {}))
    return {"env_steps": state.get("env_steps"), "train_steps": state.get("train_step")}


def _health(run_dir: RunDir, beats: dict[str, dict[str, Any]], now: float) -> dict[str, Any]:
    """What tells why a run is slow or stuck, as far as its programs have said it."""
    server, train = beats.get("replay_server", {}), beats.get("train", {})
    address = status_files.read(run_dir.address)
    published = train.get("weights_time")
    refused = [int(beat.get("refused_steps") or 0) for beat in beats.values()]
    return {
        "access": _first(server.get("access"), address.get("access")),
        "weights_age": None if published is None else max(0.0, now - published),
        "checkpoints": {
            name: max(0.0, now - beat["checkpoint_time"])
            for name, beat in beats.items()
            if beat.get("checkpoint_time") is not None
        },
        "save_seconds": {
            name: beat["checkpoint_seconds"]
            for name, beat in beats.items()
            if beat.get("checkpoint_seconds") is not None
        },
        "tables": server.get("tables") or {},
        "blocked": _blocked(server, now),
        "disk_free": _disk_free(run_dir),
        "recovered": {n: beat["recovered"] for n, beat in beats.items() if beat.get("recovered")},
        "repaired_items": int(server.get("repaired_items") or 0),
        "refused_steps": sum(refused),
        "exports_waiting": int(beats.get("eval", {}).get("exports_waiting") or 0),
    }


def _disk_free(run_dir: RunDir) -> float | None:
    try:
        return float(shutil.disk_usage(run_dir.root).free)
    except OSError:
        return None


def _blocked(server: dict[str, Any], now: float) -> dict[str, float]:
    """Share of the last minute in which the limiter held inserts, and samples; {} if unknown."""
    worker = server.get("table_worker") or {}
    total = sum(worker.values())
    # One that starts or restores still shows the times of its last life.
    if not total or server.get("state") != "running" or not is_alive(server, now):
        return {}
    return {
        "inserts": worker.get("waiting_for_sampling", 0) / total,
        "samples": worker.get("waiting_for_inserts", 0) / total,
        "seconds": total / 1000,
    }


def _beats(run_dir: RunDir) -> list[Path]:
    paths = status_files.found(run_dir.status("").parent, "*.json")
    return [p for p in paths if not p.name.startswith(".")]


def _tree_paths(run_dir: RunDir) -> list[Path]:
    return [p.parent for p in status_files.found(run_dir.services("*").parent, f"*/{ALIVE_FILE}")]


def _tree(path: Path, now: float) -> dict[str, Any]:
    beat = status_files.read(path / ALIVE_FILE)
    alive = beat.get("state") in ("running", "stopping") and is_alive(beat, now)
    services = beat.get("services") or []
    return {"path": path, "alive": alive, "services": services, "time": beat.get("time", 0.0)}


def is_alive(beat: dict[str, Any], now: float) -> bool:
    """Whether the process behind a heartbeat lives: it beats and, on this host, it exists."""
    if now - float(beat.get("time") or 0.0) > SILENT_AFTER_SECONDS:
        return False
    return beat.get("host") != socket.gethostname() or process_exists(int(beat.get("pid") or 0))


def process_exists(pid: int) -> bool:
    """Whether a process of this host lives; a zombie does not."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return text[text.rindex(")") + 2] not in "ZX"


def _program(name: str, beat: dict[str, Any], service: Path | None, now: float) -> dict[str, Any]:
    """One program's line."""
    memory = status_files.read(service / SERVICE_STATE_FILE) if service else {}
    alive = bool(beat) and beat.get("state") not in _ENDED and is_alive(beat, now)
    program, _, worker = name.partition("_") if name.startswith("collect_") else (name, "", "")
    return {
        "name": beat.get("program", program),
        "worker": beat.get("worker", int(worker) if worker.isdecimal() else None),
        "pid": beat.get("pid") if alive else None,
        "state": _program_state(beat, memory, alive, now),
        "restarts": _restarts(beat, memory, service),
        "steps_per_second": beat.get("steps_per_second") if alive else 0.0,
        "alive": alive,
        "silent_seconds": max(0.0, now - float(beat["time"])) if beat.get("time") else None,
        "up_seconds": max(0.0, now - float(beat["started"])) if beat.get("started") else None,
        "host": beat.get("host"),
        "cpus": beat.get("cpus"),
        "threads": beat.get("threads"),
        "last_exit": memory.get("last_exit") or None,
        "last_error": memory.get("last_error") or beat.get("error"),
    }


def _restarts(beat: dict[str, Any], memory: dict[str, Any], service: Path | None) -> int:
    """Since `sactory run` began: what an earlier one left in a heartbeat doesn't count."""
    if service is None:  # started by hand
        return int(beat.get("restarts") or 0)
    return max(0, int(memory.get("starts") or 0) - 1)


def _program_state(beat: dict[str, Any], memory: dict[str, Any], alive: bool, now: float) -> str:
    if memory.get("outcome") == "failed":
        return "failed"
    if alive:
        return str(beat.get("state"))
    if memory.get("outcome") == "finished":
        return "done"
    if float(memory.get("not_before") or 0.0) > now:
        return "restarting"
    if not beat:
        return "starting" if memory else "stopped"
    if beat.get("state") in _ENDED:
        return str(beat["state"])
    exists = beat.get("host") == socket.gethostname() and process_exists(int(beat.get("pid") or 0))
    return "silent" if exists else "dead"


def _state(run_dir: RunDir, tree_alive: bool, programs: list[dict[str, Any]]) -> str:
    """State of the whole run."""
    active = tree_alive or any(p["alive"] for p in programs)
    if run_dir.is_done and not active:
        return "done"
    if os.path.exists(run_dir.failed) and not run_dir.is_done:
        return "failed"
    if not active:
        return "stopped"
    trainer = next((p for p in programs if p["name"] == "train"), None)
    if trainer is None:
        return "starting"
    begun = trainer["restarts"] or trainer["state"] == "silent"
    begun = begun or (trainer["alive"] and trainer["state"] != "starting")
    return "running" if begun or run_dir.is_done else "starting"


def _first(*values: Any) -> Any:
    return next((v for v in values if v is not None), None)


def full_name(program: dict[str, Any]) -> str:
    """Name of a program's service: `train`, `collect_0`."""
    worker = program["worker"]
    return program["name"] if worker is None else f"{program['name']}_{worker}"


def _order(name: str) -> tuple[int, int, str]:
    """The order of the data's path: server, collectors, trainer, evaluator."""
    order = ["replay_server", "collect", "train", "eval"]
    program, _, worker = name.partition("_") if name.startswith("collect_") else (name, "", "")
    place = order.index(program) if program in order else len(order)
    return place, int(worker) if worker.isdecimal() else 0, name


def main(argv: list[str]) -> int:
    """Prints the status of runs, as a table or as JSON; once, or until Ctrl-C."""
    flags = Flags("status", "Says what runs are doing, and why one is slow or stuck.", "RUNS...")
    flags.string("run_dir", None, "one run directory; or name runs, or patterns such as 'runs/*'")
    flags.boolean("watch", False, "go on each second until Ctrl-C")
    flags.boolean("json", False, "print one JSON value (with --watch one a second, each a line)")
    args, words = flags.parse(argv)
    runs = _runs(args.run_dir, words)
    jobs = slurm_view.Jobs(runs)
    if not args.json:
        from sactory import status_table

        status_table.show(status_table.picture(runs, jobs.look), args.watch)
        return 0
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            print(json.dumps(_told(runs, jobs.look(), many=bool(words))), flush=True)
            if not args.watch:
                break
            time.sleep(WATCH_SECONDS)
    return 0


def _runs(run_dir: str | None, words: list[str]) -> list[RunDir]:
    """The runs that a command line names.

    Raises:
        UserError: It names none, or both ways, or what it names isn't there.
    """
    if run_dir is None and not words:
        raise UserError("--run_dir is missing: `sactory status --run_dir R`, or `status 'runs/*'`")
    if run_dir is not None and words:
        raise UserError(f"--run_dir {run_dir} and {words[0]}: name runs in one way")
    return run_list.find(words) if run_dir is None else [RunDir(run_dir).require()]


def _told(runs: list[RunDir], view: slurm_view.View, many: bool) -> Any:
    """What `--json` prints: an object for --run_dir, a list for named runs."""
    if many:
        from sactory import status_list

        return status_list.collect(runs, view)
    job = view.jobs.get(runs[0].root)
    return {**collect(runs[0]), "job": None if job is None else vars(job)}
