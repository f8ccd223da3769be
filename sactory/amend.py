"""Verb `amend`: changes settings of a stopped run that touch neither its rows nor what it learns.

Limits, intervals, cores, the number of collectors, capacity and rate. The new text is frozen like
the old one and every change stands in provenance.json. Anything else makes another run:
`sactory init --from`.
"""

from __future__ import annotations

import contextlib
import fnmatch
import os
import sys
import time
from typing import Any

from sactory import config as config_lib
from sactory import disk, estimate, provenance, settings, status, trainer_checkpoints
from sactory.errors import UserError
from sactory.flags import Flags
from sactory.locks import hold_lock
from sactory.run_dir import RunDir, read_json, write_atomic, write_json
from sactory.specs import Specs

AMENDABLE = (
    "run.max_env_steps",
    "run.max_hours",
    "run.max_disk_gb",
    "run.stop_at_return",
    "run.num_collectors",
    "*.keep_*",
    "*.cpus",
    "*.checkpoint_seconds",
    "replay.capacity",
    "replay.updates_per_row",
    "replay.mode",
    "replay.async_patience",
    "replay_server.port",
    "replay_server.listen",
    "replay_server.checkpoint_on_exit",
    "train.intra_op_threads",
    "train.inter_op_threads",
    "train.device",
    "train.publish_seconds",
    "collect.refresh_seconds",
    "eval.Evaluator.*",
)
"""Full names of the settings that may change, `*` for any part."""


def main(argv: list[str]) -> int:
    """The command line of `sactory amend`."""
    flags = Flags("amend", "Changes a stopped run's limits, intervals, cores, collectors or rate.")
    flags.string("run_dir", None, "the run directory", required=True)
    flags.multi_string("set", [], "one setting, such as 'run.max_env_steps = 200_000'; repeatable")
    args, _ = flags.parse(argv)
    if not args.set:
        raise UserError("--set is missing: what to change, such as 'run.max_env_steps = 200_000'")
    run_dir = RunDir(args.run_dir).require()
    changes = amend(run_dir, args.set)
    for key, (old, new) in changes.items():
        print(f"{key} = {old!r} -> {new!r}")
    if not changes:
        print("nothing changed: the run has these settings already")
    if not run_dir.is_done:
        print(f"`sactory run --run_dir {run_dir}` goes on")
    return 0


def amend(run_dir: RunDir, overrides: list[str]) -> dict[str, list[Any]]:
    """Freezes changed settings into a stopped run.

    A run that was done, and isn't by the new limits, is open again.

    Returns:
        `[old, new]` by the full name of each setting that changed.

    Raises:
        UserError: A setting is wrong or can't be amended, the run can't fit any more, or it runs;
            nothing is changed.
    """
    held = hold_lock(
        run_dir.lock("run"), f"{run_dir} runs: end it with `sactory stop --run_dir {run_dir}` first"
    )
    try:
        _refuse_living(run_dir)
        old = config_lib.check_text(run_dir.config.read_text("utf-8"), str(run_dir.config))
        new = config_lib.check(config_lib.resolve(run_dir.config, overrides))
        changes = _changes(old, new)
        if changes:
            _check_amendable(run_dir, changes)
            needs = _check_fits(run_dir, old, new)
            text = _amended(run_dir.config.read_text("utf-8"), overrides)
            # The record first: should the rest fail, the same command does it all again.
            _record(run_dir, text, changes, needs)
            write_atomic(run_dir.config, text)
        _reopen(run_dir, new)
    except OSError as e:
        raise UserError(f"{run_dir} can't be written: {e.strerror or e}") from e
    finally:
        os.close(held)
    return changes


def _refuse_living(run_dir: RunDir) -> None:
    programs = status.collect(run_dir)["programs"]
    living = [status.full_name(p) for p in programs if p["alive"] or p["state"] == "silent"]
    if living:
        raise UserError(
            f"{run_dir} runs ({', '.join(living)}): end it with `sactory stop --run_dir {run_dir}` "
            "first"
        )


def _changes(old: config_lib.Config, new: config_lib.Config) -> dict[str, list[Any]]:
    return {
        key: [old.values.get(key), value]
        for key, value in new.values.items()
        if old.values.get(key) != value
    }


def _check_amendable(run_dir: RunDir, changes: dict[str, list[Any]]) -> None:
    for key, (_, value) in changes.items():
        if not any(fnmatch.fnmatchcase(key, pattern) for pattern in AMENDABLE):
            raise UserError(
                f"--set {key} = {value!r}: a run keeps its {key}. Make another from this one: "
                f"`sactory init --from {run_dir} --run_dir NEW --set '{key} = {value!r}'`"
            )


def _check_fits(
    run_dir: RunDir, old: config_lib.Config, new: config_lib.Config
) -> estimate.Estimate:
    """Refuses what can't fit; a change that needs less than before is never refused."""
    specs = Specs.load(run_dir)
    before, needs = estimate.estimate(old, specs), estimate.estimate(new, specs)
    if needs.memory_bytes > before.memory_bytes or needs.disk_bytes > before.disk_bytes:
        held = float(sum(disk.files([run_dir.root]).values()))
        print(estimate.check_fits(needs, new, run_dir.root, held))
    return needs


def _amended(text: str, overrides: list[str]) -> str:
    """The frozen text with the changes below it: of two bindings the later one wins."""
    when = time.strftime("%Y-%m-%d %H:%M:%S")
    return "\n".join([text.rstrip("\n"), "", f"# Amended {when}.", *overrides, ""])


def _record(
    run_dir: RunDir, text: str, changes: dict[str, list[Any]], needs: estimate.Estimate
) -> None:
    record = read_json(run_dir.provenance)
    entry = {"time": time.time(), "argv": sys.argv, "changes": changes}
    record["amendments"] = [*record.get("amendments", []), entry]
    record["config_sha256"] = provenance.sha256(text.encode())
    record["estimate"] = vars(needs)
    write_json(run_dir.provenance, record)


def _reopen(run_dir: RunDir, new: config_lib.Config) -> None:
    """Sets the marks of an end aside that the limits no longer ask for."""
    done = read_json(run_dir.done)
    if not isinstance(done, dict) or _is_over(run_dir, done, new.get(settings.Run)):
        return
    steps = int(done.get("env_steps") or 0)
    for path in (run_dir.result, run_dir.done):
        with contextlib.suppress(FileNotFoundError):
            os.replace(path, path.with_name(f"{path.stem}_{steps}{path.suffix}"))


def _is_over(run_dir: RunDir, done: dict[str, Any], run: settings.Run) -> bool:
    """Whether the trainer would end at once by these limits."""
    if int(done.get("env_steps") or 0) >= run.max_env_steps:
        return True
    score = (read_json(run_dir.status("eval")) or {}).get("last_eval_return")
    if run.stop_at_return is not None and score is not None and score >= run.stop_at_return:
        return True
    saved = trainer_checkpoints.find(run_dir.trainer_checkpoints)
    state = trainer_checkpoints.peek(saved[-1]) if saved else None
    hours = float((state or {}).get("elapsed") or 0.0) / 3600
    return run.max_hours is not None and hours >= run.max_hours
