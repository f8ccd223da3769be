"""The mathematics of SAC (arXiv 1812.05905) as pure functions of tensors: no variables, no state.

Shapes: B rows of a batch, A action dimensions, N critics of the ensemble. Actions are normalised
to [-1, 1]. Numbers in brackets are the paper's equations.
"""

from __future__ import annotations

import math

import tensorflow as tf


def squashed_sample(
    mean: tf.Tensor, log_std: tf.Tensor, noise: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Reparameterised sample of the tanh-squashed Gaussian (8) and its log-density.

    a = tanh(u), u = mean + std * noise,
    log pi(a|s) = sum_i [log N(u_i) - log(1 - tanh(u_i)^2)] (appendix "enforcing action bounds").
    log(1 - tanh(u)^2) = 2 (log 2 - u - softplus(-2u)) is the same number without the
    cancellation that makes the left side infinite from |u| = 9 on in float32.

    Args:
        mean: `[B, A]`.
        log_std: `[B, A]`.
        noise: `[B, A]`, standard normal.

    Returns:
        Actions `[B, A]` and log-densities `[B]`.
    """
    u = mean + tf.exp(log_std) * noise
    log_normal = -0.5 * tf.square(noise) - log_std - 0.5 * math.log(2.0 * math.pi)
    log_det = 2.0 * (math.log(2.0) - u - tf.nn.softplus(-2.0 * u))
    return tf.tanh(u), tf.reduce_sum(log_normal - log_det, axis=-1)


def ensemble_min(q: tf.Tensor, subset: int, seed: tf.Tensor) -> tf.Tensor:
    """Minimum over `subset` critics drawn anew (REDQ, arXiv 2101.05982); all of them if M = N.

    Args:
        q: `[N, B]`.
        subset: M, the number of critics in the minimum.
        seed: `[2]` integers that decide the draw.

    Returns:
        `[B]`.
    """
    num_critics = q.shape[0]
    if subset < num_critics:
        draw = tf.random.stateless_uniform([num_critics], seed, alg="philox")
        order = tf.argsort(draw)
        q = tf.gather(q, order[:subset])
    return tf.reduce_min(q, axis=0)


def soft_target(
    reward: tf.Tensor,
    discount: tf.Tensor,
    next_q: tf.Tensor,
    next_log_prob: tf.Tensor,
    alpha: tf.Tensor,
    reward_scale: float = 1.0,
) -> tf.Tensor:
    """Target of the soft Bellman residual, (2) and (3): y = scale R + D (Q' - alpha log pi').

    Args:
        reward: n-step rewards R `[B]`.
        discount: Bootstrap coefficients D = gamma^n d `[B]`; d is 0 only at a true terminal.
        next_q: Target critics' minimum at s', a' ~ pi(.|s') `[B]`.
        next_log_prob: log pi(a'|s') `[B]`.
        alpha: Temperature, scalar.
        reward_scale: Factor of the rewards.

    Returns:
        `[B]`, through which no gradient flows.
    """
    value = next_q - alpha * next_log_prob
    return tf.stop_gradient(reward_scale * reward + discount * value)


def critic_loss(q: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
    """Soft Bellman residual (5), summed over the ensemble; without the paper's factor 1/2.

    Args:
        q: Q_i(s, a) `[N, B]`.
        target: y `[B]`.

    Returns:
        sum_i mean_b (Q_i - y)^2, scalar.
    """
    return tf.reduce_sum(tf.reduce_mean(tf.math.squared_difference(q, target), axis=1))


def actor_loss(log_prob: tf.Tensor, q: tf.Tensor, alpha: tf.Tensor) -> tf.Tensor:
    """Policy objective (9): mean_b [alpha log pi(a~|s) - min Q(s, a~)], a~ reparameterised.

    Args:
        log_prob: log pi(a~|s) `[B]`.
        q: Critics' minimum at (s, a~) `[B]`.
        alpha: Temperature, scalar; held fixed here.

    Returns:
        Scalar.
    """
    return tf.reduce_mean(tf.stop_gradient(alpha) * log_prob - q)


def alpha_loss(log_alpha: tf.Tensor, log_prob: tf.Tensor, target_entropy: float) -> tf.Tensor:
    """Temperature objective (18), with log alpha in the place of alpha.

    Its gradient on log alpha is the entropy's distance from its target: no factor alpha, so a
    small temperature recovers as fast as a large one.

    Args:
        log_alpha: Scalar.
        log_prob: log pi(a~|s) `[B]`; no gradient flows through it.
        target_entropy: The entropy wanted, in nats; usually -A.

    Returns:
        mean_b [log alpha (-log pi - target_entropy)], scalar.
    """
    return log_alpha * tf.reduce_mean(tf.stop_gradient(-log_prob - target_entropy))
