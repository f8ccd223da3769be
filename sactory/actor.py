"""Acting with an exported policy, hundreds of times a second and for days.

TensorFlow under Python 3.11 loses 48 bytes with every eager tensor (its issue 62551). So a call
makes none: observations and actions lie in tensors that stay, whose memory NumPy shares, and the
graph writes its actions in place. That is also half as dear as making them anew. Nor is a second
SavedModel loaded where new weights do: each leaves 4 MB behind.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from sactory.policies import ACT, CorruptExport, read_meta

_ = tfp.distributions.Distribution  # registers the types that a SavedModel refers to
_SEED_MASK = 0x7FFFFFFF
_NO_ROOM = (MemoryError, tf.errors.ResourceExhaustedError)  # says nothing about the files


class _Batch:
    """Where the inputs and actions of a batch lie.

    Attributes:
        tensors: The graph's arguments: inputs, row numbers, actions.
        inputs: The inputs' memory.
        actions: The actions' memory.

    Args:
        specs: Of the graph's arguments.
        shapes: Of the inputs.
    """

    def __init__(self, specs: list[tf.TensorSpec], shapes: list[tuple[int, ...]]):
        *inputs, _, actions = specs
        rows = shapes[0][0]
        shapes = [*shapes, (rows, *actions.shape[1:])]
        with tf.device("CPU"):
            tensors = [
                tf.raw_ops.Empty(shape=shape, dtype=spec.dtype, init=True)
                for shape, spec in zip(shapes, [*inputs, actions])
            ]
            self.tensors = [*tensors[:-1], tf.range(rows), tensors[-1]]
        *self.inputs, self.actions = [tensor._numpy() for tensor in tensors]


class Actor:
    """An exported policy that acts on a batch of observations, for one thread.

    The SavedModel's bare function is called: TF-Agents' eager wrapper costs 1.1 ms a call, this a
    seventh of a millisecond, nearly the same for 1 environment and for 8.

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
        path = Path(path)
        self.meta = read_meta(path)
        try:
            self._model = tf.saved_model.load(str(path))
            concrete = getattr(self._model, ACT).concrete_functions[0]
            self._variables = list(self._model.model_variables)
        except _NO_ROOM:
            raise
        except Exception as e:  # the loader raises nearly anything
            raise _corrupt(path, e) from e
        self.train_step: int = self.meta["train_step"]
        self._keys: list[str] | None = self.meta["observation_keys"]
        self._sizes = [int(np.prod(v.shape)) for v in self._variables]
        self._seed = np.array([seed & _SEED_MASK, 0], np.int32)
        self._function, self._specs = _in_place(concrete)
        self._call = self._function.inference_fn.call_flat
        self._captures = list(self._function.captured_inputs)
        self._batches: dict[tuple[tuple[int, ...], ...], _Batch] = {}

    def load(self, path: Path | str) -> None:
        """Takes the weights of another export of the same run.

        Args:
            path: The export's directory.

        Raises:
            CorruptExport: The files are not what was written.
            UserError: Others can write to them.
        """
        path = Path(path)
        meta = read_meta(path)
        prefix = path / tf.saved_model.VARIABLES_DIRECTORY / tf.saved_model.VARIABLES_FILENAME
        try:
            checkpoint = tf.train.Checkpoint(root=self._model)
            checkpoint.read(str(prefix)).assert_existing_objects_matched()
        except _NO_ROOM:
            raise
        except Exception as e:
            raise _corrupt(path, e) from e
        self.meta, self.train_step = meta, meta["train_step"]

    def act(self, observation: Any, seed: tuple[int, int] | None = None) -> np.ndarray:
        """Actions for a batch of observations.

        Args:
            observation: Array `[B, ...]`, or a dictionary of them by sensor.
            seed: Two integers that the noise is a function of; None: the next in turn.

        Returns:
            float32 `[B, A]`.
        """
        if seed is None:
            self._seed[1] = (int(self._seed[1]) + 1) & _SEED_MASK
        values = [observation] if self._keys is None else [observation[k] for k in self._keys]
        values.append(self._seed if seed is None else np.array(seed, np.int32))
        shapes = tuple([value.shape for value in values])
        batch = self._batches.get(shapes)
        if batch is None:
            batch = self._batches[shapes] = _Batch(self._specs, list(shapes))
        for place, value in zip(batch.inputs, values):
            np.copyto(place, value)
        self._call(*batch.tensors, *self._captures)
        return batch.actions.copy()

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


def _in_place(concrete: Any) -> tuple[Any, list[tf.TensorSpec]]:
    """The policy as a function without results, and the specs of its arguments.

    Those are the policy's inputs, the numbers of the batch's rows, and a tensor that it overwrites
    with the actions.
    """
    inputs = tf.nest.flatten(concrete.structured_input_signature)
    actions = tf.nest.flatten(concrete.structured_outputs)[0]
    specs = [*(tf.TensorSpec(spec.shape, spec.dtype) for spec in inputs)]
    specs += [tf.TensorSpec([None], tf.int32), tf.TensorSpec(actions.shape, actions.dtype)]

    def call(*arguments: tf.Tensor) -> None:
        *inputs, rows, actions = arguments
        flat = concrete.inference_fn.call_flat(*inputs, *concrete.captured_inputs)
        with tf.device("CPU"):
            written = tf.raw_ops.InplaceUpdate(x=actions, i=rows, v=flat[0])
        with tf.control_dependencies([written]):
            tf.timestamp()  # what has no result is kept only for an operation with an effect

    return tf.function(call, autograph=False).get_concrete_function(*specs), specs


def _corrupt(path: Path, error: Exception) -> CorruptExport:
    text = " ".join(str(error).split())[:200]
    return CorruptExport(f"the export {path} is corrupt: {type(error).__name__}: {text}")
