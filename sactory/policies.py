"""Exported policies on disk: their names, how they are found, and acting with one.

    R/policies/{greedy,collect}/<env_steps>-<train_step>-<incarnation>/
        saved_model.pb variables/ policy_specs.pbtxt    what TF-Agents' own eager policy loads
        meta.json                                       counters, variable order, hashes of all
        overtaken.json                                  only if a restart went back behind it

An export is written by `train.export`, whole or absent, and never changed; what the evaluator has
scored stands in eval.log, which exports are kept in `sactory.retention`. Only `Actor` needs
TensorFlow.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np

from sactory import metrics, sealed
from sactory.errors import UserError
from sactory.run_dir import RunDir, require_private, write_json

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
        UserError: Another version of Sactory wrote it, or somebody else could have.
    """
    try:
        require_private(path)
        meta = sealed.read_file(path / META, FORMAT)
        sealed.check_files(path, meta["files"], _NOT_HASHED)
    except sealed.OtherFormatError as e:
        raise UserError(f"the export {path} {e}") from e
    except sealed.DamagedError as e:
        raise CorruptExport(f"the export {path} is corrupt: {e}") from e
    except OSError as e:  # it went away meanwhile, or the disk can't read it
        raise CorruptExport(f"the export {path} is corrupt: {e.strerror}") from e
    return meta


class Actor:
    """An exported policy that acts on a batch of observations.

    The SavedModel's bare function is called with flat tensors: TF-Agents' eager wrapper costs
    1.1 ms a call, this a quarter of a millisecond, nearly the same for 1 environment and for 8.

    Args:
        path: The export's directory.
        seed: Of the exploration noise: calls are numbered, and the noise of call n is a function
            of this seed, n and nothing else. Without meaning for a greedy policy.

    Attributes:
        meta: The export's meta.json.
        train_step: Gradient steps that the weights have seen.

    Raises:
        CorruptExport: The files are not what was written.
        UserError: Others can write to them.
    """

    def __init__(self, path: Path | str, seed: int = 0):
        import tensorflow as tf
        import tensorflow_probability as tfp

        _ = tfp.distributions.Distribution  # registers the types that the SavedModel refers to
        path = Path(path)
        self.meta = read_meta(path)
        try:
            self._model = tf.saved_model.load(str(path))
            concrete = getattr(self._model, ACT).concrete_functions[0]
            self._variables = list(self._model.model_variables)
        except Exception as e:  # the loader raises nearly anything
            text = " ".join(str(e).split())[:200]
            raise CorruptExport(f"the export {path} is corrupt: {type(e).__name__}: {text}") from e
        self.train_step: int = self.meta["train_step"]
        self._keys: list[str] | None = self.meta["observation_keys"]
        self._tensor = tf.constant
        self._call = concrete.inference_fn.call_flat
        self._captures = list(concrete.captured_inputs)
        self._sizes = [int(np.prod(v.shape)) for v in self._variables]
        self._seed = np.array([seed & 0x7FFFFFFF, 0], np.int32)

    def act(self, observation: Any, seed: tuple[int, int] | None = None) -> np.ndarray:
        """Actions for a batch of observations.

        Args:
            observation: Array `[B, ...]`, or a dictionary of them by sensor.
            seed: Two integers that the noise is a function of; None: the next in turn.

        Returns:
            float32 `[B, A]`.
        """
        if seed is None:
            seed_array = self._seed
            seed_array[1] = (int(seed_array[1]) + 1) & 0x7FFFFFFF
        else:
            seed_array = np.array(seed, np.int32)
        tensor = self._tensor
        if self._keys is None:
            inputs = [tensor(observation), tensor(seed_array)]
        else:
            inputs = [*(tensor(observation[key]) for key in self._keys), tensor(seed_array)]
        return self._call(*inputs, *self._captures)[0].numpy()

    def variables_vector(self) -> np.ndarray:
        """The weights as one vector, float32 `[W]`, in the order of meta.json."""
        return np.concatenate([v.numpy().ravel() for v in self._variables], dtype=np.float32)

    def assign(self, vector: np.ndarray, train_step: int | None = None) -> None:
        """Replaces the weights.

        Args:
            vector: float32 `[W]` in the order of meta.json.
            train_step: Gradient steps that these weights have seen.

        Raises:
            ValueError: The vector has another length: it belongs to another network.
        """
        if vector.shape != (sum(self._sizes),):
            raise ValueError(f"weights of shape {vector.shape}, not ({sum(self._sizes)},)")
        parts = np.split(vector, np.cumsum(self._sizes)[:-1])
        for variable, part in zip(self._variables, parts):
            variable.assign(part.reshape(variable.shape))
        if train_step is not None:
            self.train_step = train_step
