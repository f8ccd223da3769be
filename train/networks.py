"""The networks of SAC: encoder, squashed-Gaussian actor and critics, as small `tf.Module`s.

Plain variables and matrix products, no Keras layers: a call costs only its operations. Another
encoder (images, memory, a user's file) is another class with the same call; nothing else changes.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from sactory import settings as settings_lib


class Encoder(Protocol):
    """Turns an observation nest `[B, ...]` into features `[B, F]`; a `tf.Module`."""

    output_size: int
    variables: Sequence[tf.Variable]

    def __call__(self, observation: Any) -> tf.Tensor:
        """Features of a batch of observations."""
        ...


class FlatEncoder(tf.Module):
    """Flattens every leaf of an observation and joins them in `tf.nest` order; has no variables.

    Args:
        observation_spec: A nest of specs with `.shape`, without the batch dimension.
    """

    def __init__(self, observation_spec: Any, name: str = "flat_encoder"):
        super().__init__(name)
        self.output_size = sum(math.prod(spec.shape) for spec in tf.nest.flatten(observation_spec))

    def __call__(self, observation: Any) -> tf.Tensor:
        """Features `[B, F]` of observations `[B, ...]`."""
        leaves = [tf.cast(leaf, tf.float32) for leaf in tf.nest.flatten(observation)]
        flat = [leaf if leaf.shape.rank == 2 else _flatten(leaf) for leaf in leaves]
        return flat[0] if len(flat) == 1 else tf.concat(flat, axis=1)


class MLP(tf.Module):
    """Fully connected layers with ReLU between them and a linear last one.

    Weights are orthogonal with gain 1 and biases zero, as in pytorch_sac.

    Args:
        sizes: Units of the input, of each hidden layer and of the output.
        rng: Source of the initial weights.
        name: Prefix of the variables' names.
    """

    def __init__(self, sizes: Sequence[int], rng: np.random.Generator, name: str = "mlp"):
        super().__init__(name)
        self.weights, self.biases = [], []
        with self.name_scope:
            for i, shape in enumerate(zip(sizes[:-1], sizes[1:])):
                self.weights.append(tf.Variable(orthogonal(rng, shape), name=f"w{i}"))
                self.biases.append(tf.Variable(tf.zeros(shape[1]), name=f"b{i}"))

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        """Maps `[B, sizes[0]]` to `[B, sizes[-1]]`."""
        last = len(self.weights) - 1
        for i, (w, b) in enumerate(zip(self.weights, self.biases)):
            x = tf.nn.bias_add(tf.matmul(x, w), b)
            x = x if i == last else tf.nn.relu(x)
        return x


class Actor(tf.Module):
    """Mean and log standard deviation of a Gaussian over the unsquashed actions.

    Args:
        features: Units F of the encoder's output.
        num_actions: Dimensions A of the action.
        settings: Sizes and bounds.
        rng: Source of the initial weights.
    """

    def __init__(
        self,
        features: int,
        num_actions: int,
        settings: settings_lib.SacAgent,
        rng: np.random.Generator,
    ):
        super().__init__("actor")
        self.mlp = MLP((features, *settings.hidden_sizes, 2 * num_actions), rng, "actor")
        self._low, self._high = settings.log_std_min, settings.log_std_max

    def __call__(self, features: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Mean and log standard deviation `[B, A]` for features `[B, F]`."""
        mean, raw = tf.split(self.mlp(features), 2, axis=-1)
        # A smooth bound keeps a gradient everywhere, which clipping does not.
        log_std = self._low + 0.5 * (self._high - self._low) * (tf.tanh(raw) + 1.0)
        return mean, log_std


class Critic(tf.Module):
    """One soft Q-function of features and normalised actions.

    Args:
        features: Units F of the encoder's output.
        num_actions: Dimensions A of the action.
        hidden_sizes: Units of each hidden layer.
        rng: Source of the initial weights.
        name: Prefix of the variables' names.
    """

    def __init__(
        self,
        features: int,
        num_actions: int,
        hidden_sizes: Sequence[int],
        rng: np.random.Generator,
        name: str = "critic",
    ):
        super().__init__(name)
        self.mlp = MLP((features + num_actions, *hidden_sizes, 1), rng, name)

    def __call__(self, features: tf.Tensor, action: tf.Tensor) -> tf.Tensor:
        """Values `[B]` of features `[B, F]` and actions `[B, A]` in [-1, 1]."""
        return tf.squeeze(self.mlp(tf.concat([features, action], axis=1)), axis=1)


@dataclasses.dataclass(frozen=True)
class Networks:
    """One set of networks.

    Attributes:
        encoder: Features of an observation; trained by the critics' loss alone.
        actor: The policy's head on features.
        critics: The ensemble, N separate modules so that they can run side by side.
    """

    encoder: Any
    actor: Actor
    critics: tuple[Critic, ...]

    @property
    def critic_variables(self) -> tuple[tf.Variable, ...]:
        """What the critics' loss trains: the encoder and the ensemble."""
        critics = [v for critic in self.critics for v in critic.trainable_variables]
        return (*self.encoder.trainable_variables, *critics)


def make_networks(
    observation_spec: Any,
    num_actions: int,
    settings: settings_lib.SacAgent,
    seed: int,
) -> Networks:
    """Builds the networks of plain SAC; the same seed gives the same weights.

    Args:
        observation_spec: A nest of specs with `.shape`, without the batch dimension.
        num_actions: Dimensions A of the action.
        settings: Sizes and bounds.
        seed: Seed of the initial weights.
    """
    rng = np.random.default_rng(seed)
    encoder = FlatEncoder(observation_spec)
    sizes = settings.critic_hidden_sizes
    sizes = settings.hidden_sizes if sizes is None else sizes
    features = encoder.output_size
    actor = Actor(features, num_actions, settings, rng)
    critics = tuple(
        Critic(features, num_actions, sizes, rng, f"critic_{i}")
        for i in range(settings.num_critics)
    )
    return Networks(encoder, actor, critics)


def orthogonal(rng: np.random.Generator, shape: tuple[int, int], gain: float = 1.0) -> np.ndarray:
    """A matrix with orthonormal rows or columns (whichever are fewer) times `gain`, float32."""
    rows, columns = shape
    q, r = np.linalg.qr(rng.standard_normal((max(shape), min(shape))))
    q = q * np.sign(np.diag(r))  # makes the distribution uniform over orthogonal matrices
    return (gain * (q if rows >= columns else q.T)).astype(np.float32)


def _flatten(leaf: tf.Tensor) -> tf.Tensor:
    return tf.reshape(leaf, [-1, math.prod(leaf.shape[1:])])
