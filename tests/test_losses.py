"""The losses against plain numpy in float64, and their gradients against finite differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf

from train import losses

RNG = np.random.default_rng(7)
BATCH, ACTIONS, CRITICS = 5, 3, 4
pytestmark = pytest.mark.timeout(120)


def np_squashed_log_prob(mean, log_std, u):
    """log of the density of tanh(u), from the density's definition."""
    std = np.exp(log_std)
    normal = np.exp(-0.5 * ((u - mean) / std) ** 2) / (std * math.sqrt(2 * math.pi))
    return np.log(normal / (1 - np.tanh(u) ** 2)).sum(-1)


def np_actor_objective(mean, log_std, noise, alpha, slope):
    """(9) for a critic that is linear in the action."""
    u = mean + np.exp(log_std) * noise
    return (alpha * np_squashed_log_prob(mean, log_std, u) - np.tanh(u) @ slope).mean()


def finite_difference(function, x, eps=1e-6):
    """Central differences of a scalar function of an array, float64."""
    gradient = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[i] = eps
        gradient[i] = (function(x + step) - function(x - step)) / (2 * eps)
    return gradient


def tf_gradients(function, *arrays):
    tensors = [tf.constant(a, tf.float64) for a in arrays]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        value = function(*tensors)
    return value.numpy(), tape.gradient(value, tensors)


def test_log_prob_of_known_values():
    def log_prob(u):
        noise = tf.constant([[(u - 0.2) / 0.5]], tf.float64)
        mean = tf.constant([[0.2]], tf.float64)
        log_std = tf.constant([[math.log(0.5)]], tf.float64)
        return losses.squashed_sample(mean, log_std, noise)[1].numpy()[0]

    assert log_prob(0.7) == pytest.approx(-0.27125089, abs=1e-8)
    assert log_prob(4.0) == pytest.approx(-22.49141, abs=1e-5)


def test_sample_and_log_prob_match_the_definition():
    mean, log_std, noise = RNG.normal(size=(3, BATCH, ACTIONS))
    action, log_prob = losses.squashed_sample(*map(tf.constant, (mean, log_std, noise)))
    u = mean + np.exp(log_std) * noise
    np.testing.assert_allclose(action, np.tanh(u), rtol=1e-12)
    np.testing.assert_allclose(log_prob, np_squashed_log_prob(mean, log_std, u), rtol=1e-8)


def test_density_integrates_to_one():
    a = np.linspace(-1, 1, 200_001)[1:-1]
    u = np.arctanh(a)
    mean, log_std = np.full((len(a), 1), 0.3), np.full((len(a), 1), -0.4)
    noise = (u[:, None] - mean) / np.exp(log_std)
    _, log_prob = losses.squashed_sample(*map(tf.constant, (mean, log_std, noise)))
    assert np.trapz(np.exp(log_prob.numpy()), a) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("u", [-50.0, -12.0, 12.0, 50.0])
def test_saturated_actions_stay_finite_in_float32(u):
    mean = tf.Variable([[u]])
    with tf.GradientTape() as tape:
        action, log_prob = losses.squashed_sample(mean, tf.zeros([1, 1]), tf.zeros([1, 1]))
    exact = -0.5 * math.log(2 * math.pi) - 2 * (math.log(2) - abs(u))
    assert log_prob.numpy()[0] == pytest.approx(exact, rel=1e-6)
    assert abs(action.numpy()[0, 0]) <= 1.0
    # d/du of -2 (log 2 - |u|) is 2 sign(u): a saturated action is still pulled back.
    assert tape.gradient(log_prob, mean).numpy()[0, 0] == pytest.approx(2 * np.sign(u), rel=1e-5)


def test_actor_loss_and_its_gradients():
    mean, log_std, noise = RNG.normal(size=(3, BATCH, ACTIONS))
    slope, alpha = RNG.normal(size=ACTIONS), 0.3

    def loss(mean, log_std):
        action, log_prob = losses.squashed_sample(mean, log_std, tf.constant(noise))
        return losses.actor_loss(log_prob, tf.linalg.matvec(action, slope), np.float64(alpha))

    value, (d_mean, d_log_std) = tf_gradients(loss, mean, log_std)
    reference = lambda m, s: np_actor_objective(m, s, noise, alpha, slope)  # noqa: E731
    assert value == pytest.approx(reference(mean, log_std), rel=1e-9)
    expected = finite_difference(lambda m: reference(m, log_std), mean)
    np.testing.assert_allclose(d_mean, expected, atol=1e-7)
    expected = finite_difference(lambda s: reference(mean, s), log_std)
    np.testing.assert_allclose(d_log_std, expected, atol=1e-7)


def test_actor_loss_does_not_move_alpha():
    ones = tf.ones([2], tf.float64)
    _, gradients = tf_gradients(lambda alpha: losses.actor_loss(ones, ones, alpha), 0.5)
    assert gradients == [None]


def test_critic_loss_and_its_gradient():
    q, y = RNG.normal(size=(CRITICS, BATCH)), RNG.normal(size=BATCH)
    value, (gradient,) = tf_gradients(lambda q: losses.critic_loss(q, tf.constant(y)), q)
    assert value == pytest.approx(sum(((q[i] - y) ** 2).mean() for i in range(CRITICS)))
    np.testing.assert_allclose(gradient, 2 * (q - y) / BATCH, rtol=1e-12)


def test_soft_target():
    reward, next_q, log_prob = RNG.normal(size=(3, 4))
    discount = np.array([0.99, 0.99**3, 0.0, 1.0])  # one step, three steps, terminal, no discount
    alpha, scale = 0.2, 5.0
    values = []

    def target(reward, next_q, log_prob):
        values[:] = [losses.soft_target(reward, discount, next_q, log_prob, alpha, scale)]
        return tf.reduce_sum(values[0])

    _, gradients = tf_gradients(target, reward, next_q, log_prob)
    assert gradients == [None, None, None]
    np.testing.assert_allclose(values[0], 5 * reward + discount * (next_q - 0.2 * log_prob))
    assert values[0][2].numpy() == 5 * reward[2]


def test_alpha_loss_and_its_gradient():
    log_prob = RNG.normal(size=BATCH)
    for log_alpha in (-6.0, 0.5):
        value, (gradient, d_log_prob) = tf_gradients(
            lambda a, p: losses.alpha_loss(a, p, -3.0), log_alpha, log_prob
        )
        entropy = -log_prob.mean()
        assert value == pytest.approx(log_alpha * (entropy + 3.0))
        assert gradient.numpy() == pytest.approx(entropy + 3.0)  # too much entropy: alpha falls
        assert d_log_prob is None


def test_ensemble_min_over_all():
    q = RNG.normal(size=(CRITICS, BATCH))
    result = losses.ensemble_min(tf.constant(q), CRITICS, tf.constant([1, 2]))
    np.testing.assert_array_equal(result, q.min(axis=0))


def test_ensemble_min_gradient_goes_to_the_minimum():
    q = RNG.normal(size=(CRITICS, BATCH))
    _, (gradient,) = tf_gradients(
        lambda q: tf.reduce_sum(losses.ensemble_min(q, CRITICS, tf.constant([1, 2]))), q
    )
    np.testing.assert_array_equal(gradient, q == q.min(axis=0))


def test_ensemble_min_draws_every_subset_equally_often():
    draw = tf.function(lambda seed: losses.ensemble_min(q, 2, seed))
    # Every pair of rows has another minimum.
    q = tf.constant([[1.0, 4.0], [2.0, 3.0], [3.0, 2.0], [4.0, 1.0]])
    draws = 1200
    counts: dict[tuple[float, ...], int] = {}
    for i in range(draws):
        pair = tuple(draw(tf.constant([5, i])).numpy())
        counts[pair] = counts.get(pair, 0) + 1
    assert len(counts) == 6  # of 4 critics, no critic twice
    assert min(counts.values()) > draws / 6 * 0.75  # 3.7 sigma
    again = [tuple(draw(tf.constant([5, i])).numpy()) for i in range(20)]
    assert again == [tuple(draw(tf.constant([5, i])).numpy()) for i in range(20)]
