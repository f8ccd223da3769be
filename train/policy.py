"""SAC's policies as `TFPolicy`s: the greedy one and the one that explores.

Both share the agent's encoder and actor (or a copy's), list their variables in the same order and
can be saved by TF-Agents' `PolicySaver`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from tf_agents.policies import tf_policy
from tf_agents.trajectories import policy_step
from tf_agents.trajectories import time_step as ts

from sactory.errors import UserError
from train import losses
from train.networks import Actor


class ActionScale:
    """Between normalised actions in [-1, 1], which the agent learns in, and the environment's.

    Args:
        spec: The environment's bounded float action spec.

    Raises:
        UserError: The action has no finite bounds or isn't one vector.
    """

    def __init__(self, spec: Any):
        low = np.broadcast_to(spec.minimum, spec.shape)
        high = np.broadcast_to(spec.maximum, spec.shape)
        if spec.shape.rank != 1 or not np.all(np.isfinite(low) & np.isfinite(high) & (low < high)):
            raise UserError(
                f"the action spec has shape {tuple(spec.shape)} and bounds {low.tolist()} to "
                f"{high.tolist()}: SAC needs one vector with finite bounds"
            )
        self._center = np.float32((low + high) / 2.0)
        self._half = np.float32((high - low) / 2.0)
        self._low, self._high = np.float32(low), np.float32(high)
        self._identity = bool(np.all(low == -1.0) and np.all(high == 1.0))

    def to_environment(self, action: tf.Tensor) -> tf.Tensor:
        """Actions `[B, A]` in [-1, 1] within the spec's bounds, to the last bit."""
        if self._identity:
            return action
        return tf.clip_by_value(self._center + self._half * action, self._low, self._high)

    def from_environment(self, action: tf.Tensor) -> tf.Tensor:
        """The environment's actions `[B, A]` in [-1, 1]."""
        return action if self._identity else (action - self._center) / self._half

    def squash(self) -> tfp.bijectors.Bijector:
        """From unsquashed actions to the environment's."""
        affine = (tfp.bijectors.Shift(self._center), tfp.bijectors.Scale(self._half))
        return tfp.bijectors.Chain([*affine, tfp.bijectors.Tanh()])


class _ActorPolicy(tf_policy.TFPolicy):
    """What both policies share: observation -> encoder -> actor -> normalised action."""

    def __init__(self, time_step_spec: ts.TimeStep, action_spec: Any, encoder: Any, actor: Actor):
        # Bounds hold by construction; clipping would be two more operations for every action.
        super().__init__(time_step_spec, action_spec, clip=False)
        self._encoder = encoder
        self._actor = actor
        self._scale = ActionScale(action_spec)

    def act(self, observation: Any, seed: tf.Tensor) -> tf.Tensor:
        """The environment's actions `[B, A]` for observations `[B, ...]`: TFPolicy's bare core.

        Args:
            observation: The observation nest.
            seed: `[2]` integers that decide the sample; a greedy policy ignores them.
        """
        mean, log_std = self._actor(self._encoder(observation))
        return self._scale.to_environment(self._squash(mean, log_std, seed))

    def _squash(self, mean: tf.Tensor, log_std: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        raise NotImplementedError

    def _action(
        self, time_step: ts.TimeStep, policy_state: Any, seed: Any = None
    ) -> policy_step.PolicyStep:
        action = self.act(time_step.observation, tfp.random.sanitize_seed(seed))
        return policy_step.PolicyStep(action, policy_state, ())


class GreedyPolicy(_ActorPolicy):
    """Acts with tanh(mean), the mode of the unsquashed Gaussian."""

    def _squash(self, mean: tf.Tensor, log_std: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        del log_std, seed
        return tf.tanh(mean)

    def _distribution(self, time_step: ts.TimeStep, policy_state: Any) -> policy_step.PolicyStep:
        action = self.act(time_step.observation, tf.zeros([2], tf.int32))
        return policy_step.PolicyStep(tfp.distributions.Deterministic(action), policy_state, ())


class CollectPolicy(_ActorPolicy):
    """Acts with a sample of the squashed Gaussian."""

    def _squash(self, mean: tf.Tensor, log_std: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        noise = tf.random.stateless_normal(tf.shape(mean), seed, alg="philox")
        return losses.squashed_sample(mean, log_std, noise)[0]

    def _distribution(self, time_step: ts.TimeStep, policy_state: Any) -> policy_step.PolicyStep:
        mean, log_std = self._actor(self._encoder(time_step.observation))
        normal = tfp.distributions.Normal(mean, tf.exp(log_std))
        squashed = tfp.distributions.TransformedDistribution(normal, self._scale.squash())
        action = tfp.distributions.Independent(squashed, reinterpreted_batch_ndims=1)
        return policy_step.PolicyStep(action, policy_state, ())
