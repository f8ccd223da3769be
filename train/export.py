"""Writes the policy to disk as SavedModels, on a thread of its own, whole or absent.

The graph of a policy never changes, so it is traced and saved once; an export is those same files
plus a small checkpoint of the weights (5 ms; saving the SavedModel anew costs 150 ms of Python and
leaks 2 MB). What exports are called and how they are read again is `sactory.policies`'.
"""

from __future__ import annotations

import contextlib
import logging as python_logging
import tempfile
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import tensorflow as tf
from absl import logging
from tf_agents.policies import policy_saver

from sactory import policies as exports
from sactory import retention, settings
from sactory.run_dir import RunDir, remove_leftovers, whole_directory

MAX_QUEUED = 32  # a disk that hangs for hours must not fill the memory
_TIDY_SECONDS = 60.0  # the run grows between two exports too


class ActingPolicy(Protocol):
    """A TF-Agents `TFPolicy` with a bare core that takes the seed of its noise."""

    time_step_spec: Any

    def act(self, observation: Any, seed: tf.Tensor) -> tf.Tensor:
        """Actions `[B, A]` for observations `[B, ...]` and a seed int32 `[2]`."""
        ...

    def variables(self) -> Sequence[tf.Variable]:
        """What the policy needs to act."""
        ...


class ExportedAgent(Protocol):
    """What the exporter asks of an agent."""

    def copy_policies(self) -> tuple[ActingPolicy, ActingPolicy]:
        """Greedy and collect policy on variables of their own."""
        ...


class _Snapshot(NamedTuple):
    vector: np.ndarray  # float32 [W]
    env_steps: int
    train_step: int
    incarnation: int
    more: dict[str, Any]  # of meta.json


def _act_function(policy: ActingPolicy) -> Any:
    """The bare `(observation [B, ...], seed int32 [2]) -> actions [B, A]` of a policy.

    The seed is an argument, not a state: the same seed gives the same noise in any process.
    """

    def act(observation: Any, seed: tf.Tensor) -> tf.Tensor:
        return policy.act(observation, seed)

    batched = tf.nest.map_structure(
        lambda s: tf.TensorSpec([None, *s.shape], s.dtype, s.name),
        policy.time_step_spec.observation,
    )
    function = tf.function(act, autograph=False)
    function.get_concrete_function(batched, tf.TensorSpec([2], tf.int32, "seed"))
    return function


@contextlib.contextmanager
def _no_news() -> Iterator[None]:
    """Hides what TF-Agents says at every save and nobody can mend."""
    news = ("is not a valid tf.function parameter name", "Could not serialize policy.distribution")

    def tells(record: python_logging.LogRecord) -> bool:
        return not any(words in record.getMessage() for words in news)

    logger = logging.get_absl_logger()
    logger.addFilter(tells)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Encoding a StructuredValue")
            yield
    finally:
        logger.removeFilter(tells)


class _Template:
    """One kind of policy: its traced graph as files, and the variables to fill in."""

    def __init__(self, kind: str, policy: ActingPolicy, workspace: Path):
        self.kind = kind
        self._variables = list(policy.variables())
        self._train_step = tf.Variable(-1, dtype=tf.int64, trainable=False)
        with _no_news():
            saver = policy_saver.PolicySaver(policy, batch_size=None, train_step=self._train_step)
        saver.register_concrete_function(exports.ACT, _act_function(policy))
        observation = policy.time_step_spec.observation
        self._keys = sorted(observation) if isinstance(observation, Mapping) else None
        with tempfile.TemporaryDirectory(prefix=".tmp-", dir=workspace) as directory:
            with _no_news():
                saver.save(directory)
            files = [p for p in Path(directory).iterdir() if p.is_file()]
            self._files = {p.name: p.read_bytes() for p in files}
        self._checkpoint = tf.train.Checkpoint(root=saver.policy)
        self.size = sum(int(np.prod(v.shape)) for v in self._variables)
        if any(v.dtype != tf.float32 for v in self._variables):
            raise ValueError("a policy's variables must be float32 to travel as one vector")

    def write(self, snapshot: _Snapshot, directory: Path) -> None:
        """Fills `directory` with a whole export."""
        sizes = [int(np.prod(v.shape)) for v in self._variables]
        parts = np.split(snapshot.vector, np.cumsum(sizes)[:-1])
        for variable, part in zip(self._variables, parts):
            variable.assign(part.reshape(variable.shape))
        self._train_step.assign(snapshot.train_step)
        for name, data in self._files.items():
            (directory / name).write_bytes(data)
        (directory / tf.saved_model.ASSETS_DIRECTORY).mkdir()
        prefix = directory / tf.saved_model.VARIABLES_DIRECTORY / tf.saved_model.VARIABLES_FILENAME
        self._checkpoint.write(str(prefix))
        meta = {
            "kind": self.kind,
            "env_steps": snapshot.env_steps,
            "train_step": snapshot.train_step,
            "incarnation": snapshot.incarnation,
            "time": time.time(),
            "observation_keys": self._keys,
            "variables": [{"name": v.name, "shape": v.shape.as_list()} for v in self._variables],
            **snapshot.more,
        }
        exports.write_meta(directory, meta)


class Exporter:
    """Exports the greedy and the collect policy whenever it is given their weights.

    After each export, and once a minute without one, it applies the run's rules of retention.

    Args:
        run_dir: The run.
        agent: Whose policies to export: a copy of them, on variables of the exporter's own.
        run: What is kept; default: the settings that gin has bound.
        more: What meta.json says beside the counters, asked at each export.

    Attributes:
        written: Names of the exports written by this process.
        error: Why the last export failed (a full disk, say); None if it did not.
        skipped: Snapshots given up because the disk lagged `MAX_QUEUED` behind.
    """

    def __init__(
        self,
        run_dir: RunDir,
        agent: ExportedAgent,
        run: settings.Run | None = None,
        more: Callable[[], dict[str, Any]] = dict,
    ):
        run = settings.Run() if run is None else run
        self._run_dir = run_dir
        self._run, self._more = run, more
        self._templates = []
        for kind, policy in zip((exports.GREEDY, exports.COLLECT), agent.copy_policies()):
            run_dir.policies(kind).mkdir(parents=True, exist_ok=True)
            remove_leftovers(run_dir.policies(kind))
            template = _Template(kind, policy, run_dir.policies(kind))
            self._templates.append(template)
        self.written: list[str] = []
        self.error: str | None = None
        self.skipped = 0
        self._queue: deque[_Snapshot] = deque()
        self._busy = False
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._loop, name="exporter", daemon=True)
        self._thread.start()

    def export(self, vector: np.ndarray, env_steps: int, train_step: int, incarnation: int) -> None:
        """Queues an export and returns at once.

        Args:
            vector: The policy's weights, float32 `[W]`; copied.
            env_steps: Simulator steps of the run.
            train_step: Gradient steps that the weights have seen.
            incarnation: Count of the trainer's starts.

        Raises:
            ValueError: The vector does not fit the policy, or holds a non-finite number: a
                diverged policy is never exported.
        """
        vector = np.array(vector, np.float32)
        if vector.shape != (self._templates[0].size,):
            raise ValueError(f"weights of shape {vector.shape}, not ({self._templates[0].size},)")
        if not np.isfinite(vector).all():
            raise ValueError(f"the weights at train step {train_step} are not finite")
        with self._changed:
            self._queue.append(_Snapshot(vector, env_steps, train_step, incarnation, self._more()))
            if len(self._queue) > MAX_QUEUED:
                self._queue.popleft()
                self.skipped += 1
            self._changed.notify_all()

    def wait(self, timeout: float) -> bool:
        """Waits until everything queued is on disk or has failed; False after `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._queue and not self._busy, timeout)

    def close(self, timeout: float) -> bool:
        """Finishes the queue and ends the thread; False if that took over `timeout` seconds."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _loop(self) -> None:
        while True:
            with self._changed:
                self._busy = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._queue or self._closed, _TIDY_SECONDS)
                if self._closed and not self._queue:
                    return
                snapshot = self._queue.popleft() if self._queue else None
                self._busy = snapshot is not None
            if snapshot is not None:
                self._write(snapshot)
            retention.apply(self._run_dir, self._run)

    def _write(self, snapshot: _Snapshot) -> None:
        name = exports.export_name(*snapshot[1:4])
        try:
            for template in self._templates:
                path = self._run_dir.policies(template.kind) / name
                if not path.exists():
                    with whole_directory(path) as directory:
                        template.write(snapshot, directory)
            self.written.append(name)
            self.error = None
        except Exception as e:  # the learner goes on without this export, whatever it was
            self.error = f"export {name} failed: {type(e).__name__}: {e}"
            logging.error("%s", self.error)
