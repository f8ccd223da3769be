"""Exported policies on disk: their names, how they are found, and acting with one.

    R/policies/{greedy,collect}/<env_steps>-<train_step>-<incarnation>/
        saved_model.pb variables/ policy_specs.pbtxt    what TF-Agents' own eager policy loads
        meta.json                                       counters, variable order, hashes of all
        overtaken.json                                  only if a restart went back behind it

An export is written by `train.export`, whole or absent, and never changed; what the evaluator has
scored stands in eval.log, which exports are kept in `sactory.retention`. `sactory.actor` acts with
one.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

from sactory import metrics, sealed
from sactory.errors import RetryError, UserError
from sactory.run_dir import RunDir, is_unreadable, require_private, write_json

GREEDY = "greedy"
COLLECT = "collect"
KINDS = (GREEDY, COLLECT)
META = "meta.json"
OVERTAKEN = "overtaken.json"
FORMAT = 2
_NOT_HASHED = (META, OVERTAKEN)
ACT = "act"  # the SavedModel's bare function (observation, seed) -> actions
_NAME = re.compile(r"(\d{12,})-(\d{12,})-(\d{6,})")


class CorruptExport(UserError):  # noqa: N818  (a user reads it as a fact, not as an error's name)
    """An export's files are not what was written."""


@dataclasses.dataclass(frozen=True, order=True)
class Export:
    """One exported policy; exports sort by env steps, then train step, then incarnation.

    Attributes:
        env_steps: Simulator steps of the run when it was made.
        train_step: Gradient steps its weights have seen.
        incarnation: Count of the trainer's starts in this run.
        path: Its directory.
    """

    env_steps: int
    train_step: int
    incarnation: int
    path: Path = dataclasses.field(compare=False)

    @property
    def name(self) -> str:
        """The directory's name; the same for both kinds."""
        return export_name(self.env_steps, self.train_step, self.incarnation)

    @property
    def is_overtaken(self) -> bool:
        """Whether a restarted trainer has gone back behind this export's train step."""
        return (self.path / OVERTAKEN).exists()


def export_name(env_steps: int, train_step: int, incarnation: int) -> str:
    """`<env_steps>-<train_step>-<incarnation>`, padded so that names sort as numbers."""
    return f"{env_steps:012d}-{train_step:012d}-{incarnation:06d}"


def parse_name(path: Path) -> Export | None:
    """The export that a directory's name tells of; None if it is not an export's name."""
    match = _NAME.fullmatch(path.name)
    if match is None:
        return None
    env_steps, train_step, incarnation = (int(group) for group in match.groups())
    return Export(env_steps, train_step, incarnation, path)


def list_exports(run_dir: RunDir, kind: str = GREEDY) -> list[Export]:
    """The whole exports of one kind, oldest first; foreign directories are passed over."""
    try:
        paths = list(run_dir.policies(kind).iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    exports = [e for e in map(parse_name, paths) if e and (e.path / META).exists()]
    return sorted(exports)


def newest_first(run_dir: RunDir, kind: str) -> list[Export]:
    """The exports in the order in which one would act with them; overtaken ones come last."""
    exports = [(not e.is_overtaken, e) for e in list_exports(run_dir, kind)]
    return [export for _, export in sorted(exports, reverse=True)]


def latest_export(run_dir: RunDir, kind: str = COLLECT) -> Export | None:
    """The newest export, or None; overtaken ones only if there is no other."""
    return next(iter(newest_first(run_dir, kind)), None)


def has_no_export(run_dir: RunDir) -> bool:
    """Whether the run has lost its last export; False where the disk can't be read now."""
    try:
        return latest_export(run_dir) is None
    except OSError:
        return False


def scores(run_dir: RunDir) -> dict[str, float]:
    """Mean evaluation return of every export that the evaluator beside training has scored."""
    return {
        row["export"]: float("-inf") if row.get("episode_reward") is None else row["episode_reward"]
        for row in metrics.read_log(run_dir.eval_log)
        if isinstance(row.get("export"), str)
    }


def unscored(run_dir: RunDir, known: dict[str, float]) -> set[str]:
    """Names of the exports that wait for a score.

    Where the greedy half is gone, damaged and in quarantine, none will come.
    """
    return {export.name for export in list_exports(run_dir, GREEDY)} - set(known)


def best_of(exports: list[Export], known: dict[str, float]) -> list[Export]:
    """The export with the highest score, the newer of equals, as a list of one; [] if none has."""
    scored = [e for e in exports if e.name in known]
    return [max(scored, key=lambda e: (known[e.name], e))] if scored else []


def find_export(run_dir: RunDir, step: str, kind: str = GREEDY) -> Export:
    """The export that `--step` names.

    Args:
        run_dir: The run.
        step: `latest`, `best` (highest mean evaluation return), or a number of env steps: the
            nearest export at or below it.
        kind: `greedy` or `collect`.

    Raises:
        UserError: There is none; the message lists those that exist.
    """
    exports = list_exports(run_dir, kind)
    if not exports:
        raise UserError(f"{run_dir.policies(kind)} holds no exported policy yet: train first")
    exports = [e for e in exports if not e.is_overtaken] or exports
    if step == "latest":
        return exports[-1]
    if step == "best":
        best = best_of(exports, scores(run_dir))
        if not best:
            raise UserError(
                f"{run_dir.eval_log} has no score of an export that still exists, so there is no "
                "best one: use --step=latest"
            )
        return best[0]
    if not re.fullmatch(r"\d+", step):
        raise UserError(f"--step={step} is neither latest, best nor a number of env steps")
    below = [e for e in exports if e.env_steps <= int(step)]
    if not below:
        have = ", ".join(dict.fromkeys(str(e.env_steps) for e in exports))
        raise UserError(f"no export at or below {step} env steps; there are exports at {have}")
    return below[-1]


def mark_overtaken(run_dir: RunDir, train_step: int, incarnation: int) -> list[str]:
    """Marks what a restart has gone back behind, so that reports and `latest` drop it.

    Args:
        run_dir: The run.
        train_step: The train step that was restored.
        incarnation: Of the restarted trainer; only exports of earlier ones can be overtaken.

    Returns:
        Names of the exports marked now.
    """
    marked = set()
    for kind in KINDS:
        for export in list_exports(run_dir, kind):
            if export.incarnation >= incarnation or export.train_step <= train_step:
                continue
            if not export.is_overtaken:
                mark = {"restored_train_step": train_step, "incarnation": incarnation}
                write_json(export.path / OVERTAKEN, mark)
                marked.add(export.name)
    return sorted(marked)


def write_meta(directory: Path, meta: dict[str, Any]) -> None:
    """Writes an export's meta.json beside its other files, with the hashes of all of them."""
    files = sealed.file_hashes(directory, _NOT_HASHED)
    sealed.write_file(directory / META, {"format": FORMAT, **meta, "files": files})


def read_meta(path: Path) -> dict[str, Any]:
    """An export's meta.json, after comparing the files with the hashes in it.

    Raises:
        CorruptExport: The files are not what was written.
        RetryError: They can't be read now; nothing proves that they are damaged.
        UserError: Another version of Sactory wrote it, or somebody else could have.
    """
    try:
        require_private(path)
        meta = sealed.read_file(path / META, FORMAT)
        sealed.check_files(path, meta["files"], _NOT_HASHED)
    except sealed.OtherFormatError as e:
        raise UserError(f"the export {path} {e}") from e
    except sealed.UnreadableError as e:
        raise RetryError(f"the export {path} can't be used now: {e}") from e
    except sealed.DamagedError as e:
        raise CorruptExport(f"the export {path} is corrupt: {e}") from e
    except OSError as e:
        if is_unreadable(e):
            raise RetryError(f"the export {path} can't be used now: {e.strerror}") from e
        raise CorruptExport(f"the export {path} is corrupt: {e.strerror}") from e  # it went away
    return meta
