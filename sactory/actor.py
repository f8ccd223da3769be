"""Acting with an exported policy, hundreds of times a second and for days.

TensorFlow under Python 3.11 loses 48 bytes with every eager tensor (its issue 62551). So a call
makes none: observations and actions pass through two Python functions inside the graph, which costs
no more. Nor is a second SavedModel loaded where new weights do: each leaves 4 MB behind.
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


class Actor:
    """An exported policy that acts on a batch of observations, for one thread.

    The SavedModel's bare function is called: TF-Agents' eager wrapper costs 1.1 ms a call, this a
    quarter of a millisecond, nearly the same for 1 environment and for 8.

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
        self._inputs: list[np.ndarray] = []
        self._actions = np.zeros(0, np.float32)
        self._function = self._without_tensors(concrete)
        self._call = self._function.inference_fn.call_flat
        self._captures = list(self._function.captured_inputs)

    def _without_tensors(self, concrete: Any) -> Any:
        """The policy as a function of nothing, which takes `_inputs` and leaves `_actions`."""
        specs = tf.nest.flatten(concrete.structured_input_signature)

        def put(actions: np.ndarray) -> np.int32:
            self._actions = actions.copy()
            return np.int32(0)

        def call() -> None:
            inputs = tf.numpy_function(lambda: self._inputs, [], [spec.dtype for spec in specs])
            for tensor, spec in zip(inputs, specs):
                tensor.set_shape(spec.shape)
            flat = concrete.inference_fn.call_flat(*inputs, *concrete.captured_inputs)
            tf.numpy_function(put, [flat[0]], tf.int32)

        return tf.function(call, autograph=False).get_concrete_function()

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
            seed_array = self._seed
            seed_array[1] = (int(seed_array[1]) + 1) & _SEED_MASK
        else:
            seed_array = np.array(seed, np.int32)
        if self._keys is None:
            self._inputs = [observation, seed_array]
        else:
            self._inputs = [*(observation[key] for key in self._keys), seed_array]
        self._call(*self._captures)
        return self._actions

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


def _corrupt(path: Path, error: Exception) -> CorruptExport:
    text = " ".join(str(error).split())[:200]
    return CorruptExport(f"the export {path} is corrupt: {type(error).__name__}: {text}")
