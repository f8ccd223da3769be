"""Adam and the Polyak average on plain variables, one fused kernel each; no schedules."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8


class Adam(tf.Module):
    """Adam (arXiv 1412.6980) with TensorFlow's fused kernel; its moments exist from the start.

    Args:
        variables: What it trains.
        learning_rate: Step size.
        clip_norm: Largest global norm of the gradients; None: not clipped.
        name: Prefix of the moments' names.
    """

    def __init__(
        self,
        variables: Sequence[tf.Variable],
        learning_rate: float,
        clip_norm: float | None = None,
        name: str = "adam",
    ):
        super().__init__(name)
        self._trained = list(variables)
        self._learning_rate = learning_rate
        self._clip_norm = clip_norm
        with self.name_scope:
            self.first = [tf.Variable(tf.zeros_like(v), trainable=False) for v in variables]
            self.second = [tf.Variable(tf.zeros_like(v), trainable=False) for v in variables]

    def apply(self, gradients: Sequence[tf.Tensor], step: tf.Tensor) -> None:
        """Moves the variables against the gradients.

        Args:
            gradients: One for each variable, of its shape.
            step: Number of this update, float32, 1 for the first.
        """
        if self._clip_norm is not None:
            gradients, _ = tf.clip_by_global_norm(gradients, self._clip_norm)
        power_1, power_2 = tf.pow(BETA_1, step), tf.pow(BETA_2, step)
        # The kernel adds epsilon before it corrects the second moment's bias, the paper after.
        epsilon = EPSILON * tf.sqrt(1.0 - power_2)
        for v, m, s, g in zip(self._trained, self.first, self.second, gradients):
            tf.raw_ops.ResourceApplyAdam(
                var=v.handle,
                m=m.handle,
                v=s.handle,
                beta1_power=power_1,
                beta2_power=power_2,
                lr=self._learning_rate,
                beta1=BETA_1,
                beta2=BETA_2,
                epsilon=epsilon,
                grad=g,
            )


def polyak_update(
    targets: Sequence[tf.Variable], sources: Sequence[tf.Variable], tau: float
) -> None:
    """Moves each target by the share `tau` of its distance to its source."""
    for target, source in zip(targets, sources):
        # The gradient-descent kernel is target -= tau * delta in one pass, in place.
        tf.raw_ops.ResourceApplyGradientDescent(var=target.handle, alpha=tau, delta=target - source)
