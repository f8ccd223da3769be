"""The agent: one step against an independent numpy SAC, its policies, checkpoints and learning."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tf_agents.policies import policy_saver, py_tf_eager_policy
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import time_step as ts

from sactory import rows, settings
from sactory.errors import UserError
from train import losses, networks, optimizers
from train.agent import SacAgent
from train.update import make_update

OBSERVATION = tf.TensorSpec([3], tf.float32)
SENSORS = {"touch": tf.TensorSpec([], tf.float32), "arm": tf.TensorSpec([2, 2], tf.float32)}
ACTION = tensor_spec.BoundedTensorSpec([2], tf.float32, -1.0, 1.0)
# With (-1, 0.7) the centre plus half the width is above 0.7 in float32.
ODD_ACTION = tensor_spec.BoundedTensorSpec([2], tf.float32, [-1.0, 2.0], [0.7, 7.0])
SMALL: dict[str, Any] = {"hidden_sizes": (8, 7), "critic_hidden_sizes": (6, 9)}
pytestmark = pytest.mark.timeout(180)


def make_agent(observation=OBSERVATION, action=ACTION, seed=3, **kwargs):
    agent_settings = settings.SacAgent(**{**SMALL, **kwargs})
    agent = SacAgent(ts.time_step_spec(observation), action, agent_settings, seed)
    agent.initialize()
    return agent


def make_batch(batch=16, seed=0, action=ACTION):
    rng = np.random.default_rng(seed)
    low, high = np.broadcast_to(action.minimum, 2), np.broadcast_to(action.maximum, 2)
    return {
        "observation": np.float32(rng.normal(size=(batch, 3))),
        "action": np.float32(rng.uniform(low, high, size=(batch, 2))),
        "reward": np.float32(rng.normal(size=batch)),
        "discount": np.float32(rng.choice([0.0, 0.99, 0.97], size=batch)),
        "next_observation": np.float32(rng.normal(size=(batch, 3))),
    }


def make_rows(steps, batch=16, seed=0):
    row_format = rows.flat_row_format(OBSERVATION, ACTION)
    block = np.random.default_rng(seed).uniform(-1, 1, (steps, batch, row_format.size))
    return row_format, block.astype(np.float32)


def all_variables(agent):
    return tf.nest.flatten([getattr(i, "variables", i) for i in _items(agent)])


def _items(agent):
    return tf.nest.flatten(list(agent.checkpoint_items().values()))


def values(agent):
    return [v.numpy() for v in all_variables(agent)]


class NumpyMLP:
    """A ReLU network in float64 with hand-written gradients."""

    def __init__(self, mlp):
        self.w = [np.array(w, np.float64) for w in mlp.weights]
        self.b = [np.array(b, np.float64) for b in mlp.biases]

    @property
    def parameters(self):
        return self.b + self.w

    def forward(self, x):
        inputs = []
        for i, (w, b) in enumerate(zip(self.w, self.b)):
            inputs.append(x)
            x = x @ w + b
            if i < len(self.w) - 1:
                x = np.maximum(x, 0)
        return x, inputs

    def backward(self, inputs, d):
        """Gradients of the parameters, in their order, and of the input."""
        d_w, d_b = [], []
        for i in reversed(range(len(self.w))):
            d_w.insert(0, inputs[i].T @ d)
            d_b.insert(0, d.sum(0))
            d = d @ self.w[i].T
            if i > 0:
                d = d * (inputs[i] > 0)
        return d_b + d_w, d


class NumpySAC:
    """One SAC step in float64, written from the paper; shares no code with the agent."""

    def __init__(self, agent, config):
        items = agent.checkpoint_items()
        self.c = config
        self.actor = NumpyMLP(items["actor"].mlp)
        self.critics = [NumpyMLP(c.mlp) for c in items["critics"]]
        self.targets = [NumpyMLP(c.mlp) for c in items["target_critics"]]
        self.log_alpha = np.float64(items["log_alpha"])
        self.moments = {}

    def policy(self, observation, noise):
        out, cache = self.actor.forward(observation)
        mean, raw = np.split(out, 2, axis=1)
        low, high = self.c.log_std_min, self.c.log_std_max
        log_std = low + 0.5 * (high - low) * (np.tanh(raw) + 1)
        action = np.tanh(mean + np.exp(log_std) * noise)
        normal = -0.5 * noise**2 - log_std - 0.5 * np.log(2 * np.pi)
        return action, (normal - np.log(1 - action**2)).sum(1), (cache, raw, log_std)

    def adam(self, name, values_, gradients, rate, t):
        for i, (value, g) in enumerate(zip(values_, gradients)):
            m, v = self.moments.get((name, i), (0.0, 0.0))
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
            self.moments[name, i] = m, v
            value -= rate * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)

    def step(self, batch, noise, actor_subset, target_subset, t):
        s, a, s2 = batch["observation"], batch["action"], batch["next_observation"]
        size, alpha = len(s), np.exp(self.log_alpha)
        a2, log_prob2, _ = self.policy(s2, noise[0])
        q2 = np.stack([q.forward(np.hstack([s2, a2]))[0][:, 0] for q in self.targets])
        v2 = q2[target_subset].min(0) - alpha * log_prob2
        y = self.c.reward_scale * batch["reward"] + batch["discount"] * v2

        critic_gradients, critic_loss = [], 0.0
        for q in self.critics:
            out, cache = q.forward(np.hstack([s, a]))
            critic_loss += ((out[:, 0] - y) ** 2).mean()
            critic_gradients.append(q.backward(cache, 2 * (out - y[:, None]) / size)[0])

        new_a, log_prob, (cache, raw, log_std) = self.policy(s, noise[1])
        outs = [q.forward(np.hstack([s, new_a])) for q in self.critics]
        q_new = np.stack([out[:, 0] for out, _ in outs])
        chosen = np.array(actor_subset)[q_new[actor_subset].argmin(0)]
        d_action = np.zeros_like(new_a)
        for i, (q, (_, q_cache)) in enumerate(zip(self.critics, outs)):
            d_out = (chosen == i)[:, None] * (-1.0 / size)
            d_action += q.backward(q_cache, d_out)[1][:, s.shape[1] :]
        # d log pi / du = 2 tanh(u) and d log pi / d log_std = -1 besides the way through u.
        d_u = d_action * (1 - new_a**2) + alpha / size * 2 * new_a
        d_log_std = d_u * np.exp(log_std) * noise[1] - alpha / size
        span = 0.5 * (self.c.log_std_max - self.c.log_std_min)
        d_raw = d_log_std * span * (1 - np.tanh(raw) ** 2)
        actor_gradients, _ = self.actor.backward(cache, np.hstack([d_u, d_raw]))
        actor_loss = (alpha * log_prob - q_new[actor_subset].min(0)).mean()
        d_alpha = (-log_prob + new_a.shape[1]).mean()

        for i, (q, gradients) in enumerate(zip(self.critics, critic_gradients)):
            self.adam(f"q{i}", q.parameters, gradients, self.c.critic_learning_rate, t)
        self.adam("pi", self.actor.parameters, actor_gradients, self.c.actor_learning_rate, t)
        log_alpha = np.array(self.log_alpha)
        self.adam("alpha", [log_alpha], [d_alpha], self.c.alpha_learning_rate, t)
        self.log_alpha = log_alpha
        for target, q in zip(self.targets, self.critics):
            for old, new in zip(target.parameters, q.parameters):
                old += self.c.tau * (new - old)
        return {"critic_loss": critic_loss, "actor_loss": actor_loss, "alpha": alpha,
                "entropy": -log_prob.mean(), "batch_reward": batch["reward"].mean()}  # fmt: skip


def subset_of(num_critics, subset, key, stream):
    """The draw, from the same random bits."""
    key = tf.random.experimental.stateless_fold_in(key, stream, alg="philox")
    draw = tf.random.stateless_uniform([num_critics], key, alg="philox").numpy()
    return list(np.argsort(draw)[:subset]) if subset < num_critics else list(range(num_critics))


@pytest.mark.parametrize("critics,subset", [(2, 2), (3, 2), (1, 1)])
def test_steps_match_numpy(critics, subset):
    agent = make_agent(
        num_critics=critics, critic_subset=subset, actor_learning_rate=1e-3,
        critic_learning_rate=2e-3, alpha_learning_rate=5e-3, reward_scale=3.0, tau=0.02,
    )  # fmt: skip
    reference = NumpySAC(agent, agent.settings)
    for t in (1, 2, 3):
        batch = make_batch(seed=t)
        key = np.array([3, t - 1])
        noise = np.float64(tf.random.stateless_normal([2, 16, 2], key, alg="philox"))
        metrics = agent.train_step({k: tf.constant(v) for k, v in batch.items()})
        expected = reference.step(
            {k: np.float64(v) for k, v in batch.items()},
            noise,
            subset_of(critics, subset, key, stream=1),
            subset_of(critics, subset, key, stream=2),
            t,
        )
        for name, value in expected.items():
            assert metrics[name].numpy() == pytest.approx(value, rel=1e-4, abs=1e-6), name
        items = agent.checkpoint_items()
        # The first moments are the gradients, up to a factor.
        for optimizer, names in (
            ("actor_optimizer", ["pi"]),
            ("critic_optimizer", [f"q{i}" for i in range(critics)]),
            ("alpha_optimizer", ["alpha"]),
        ):
            moments = [m for key, (m, _) in reference.moments.items() if key[0] in names]
            for got, value in zip(items[optimizer].first, moments):
                np.testing.assert_allclose(got, value, rtol=2e-4, atol=2e-6)
        pairs = [(items["actor"], reference.actor)]
        pairs += zip(items["critics"], reference.critics)
        pairs += zip(items["target_critics"], reference.targets)
        for module, net in pairs:
            # Adam divides by the gradient's size, so one near 0 turns float32's rounding into
            # a part of the step: hence a tolerance of 2.5 % of a step.
            for got, value in zip(module.mlp.biases + module.mlp.weights, net.parameters):
                np.testing.assert_allclose(got, value, rtol=1e-5, atol=5e-5)
        assert items["log_alpha"].numpy() == pytest.approx(reference.log_alpha, rel=1e-5)


def test_adam_and_polyak_match_numpy_in_float64():
    rng = np.random.default_rng(1)
    x, target = rng.normal(size=(2, 4, 3))
    variable, average = tf.Variable(x), tf.Variable(target)
    adam = optimizers.Adam([variable], 0.01)
    m, v = np.zeros((2, 4, 3))
    for t in (1, 2, 3):
        g = rng.normal(size=(4, 3)) * 10.0 ** rng.integers(-9, 3, size=(4, 3))
        adam.apply([tf.constant(g)], tf.constant(t, tf.float64))
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        x = x - 0.01 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        np.testing.assert_allclose(variable, x, rtol=1e-6)
        optimizers.polyak_update([average], [variable], 0.1)
        target = target + 0.1 * (x - target)
        np.testing.assert_allclose(average, target, rtol=1e-6)


def test_actions_of_any_bounds_are_the_same_problem():
    batch = make_batch()
    odd = dict(batch)
    low, high = np.array(ODD_ACTION.minimum), np.array(ODD_ACTION.maximum)
    odd["action"] = np.float32(low + (batch["action"] + 1) / 2 * (high - low))
    plain, scaled = make_agent(), make_agent(action=ODD_ACTION)
    first, second = (a.train_step({k: tf.constant(v) for k, v in b.items()})
                     for a, b in ((plain, batch), (scaled, odd)))  # fmt: skip
    for name in first:
        assert second[name].numpy() == pytest.approx(first[name].numpy(), rel=1e-5), name


def test_clipping_bounds_each_global_norm():
    free, clipped = make_agent(), make_agent(gradient_clip_norm=1e-3)
    for agent in (free, clipped):
        agent.train_step({k: tf.constant(v) for k, v in make_batch().items()})
    for name in ("actor_optimizer", "critic_optimizer", "alpha_optimizer"):
        raw = [v.numpy() * 10 for v in free.checkpoint_items()[name].first]
        cut = [v.numpy() * 10 for v in clipped.checkpoint_items()[name].first]
        norm = np.sqrt(sum(np.sum(g**2) for g in raw))
        assert norm > 1e-3
        for before, after in zip(raw, cut):
            np.testing.assert_allclose(after, before * 1e-3 / norm, rtol=1e-4, atol=1e-9)


def test_initialize_copies_critics_to_targets():
    agent = make_agent()
    items = agent.checkpoint_items()
    for critic, target in zip(items["critics"], items["target_critics"]):
        target.mlp.weights[0].assign_add(tf.ones_like(target.mlp.weights[0]))
        agent.initialize()
        for v, w in zip(critic.variables, target.variables):
            np.testing.assert_array_equal(v, w)
    first, second = items["critics"]
    assert not np.array_equal(first.mlp.weights[0], second.mlp.weights[0])


@pytest.mark.parametrize("shape", [(17, 256), (256, 256), (256, 12)])
def test_initial_weights_are_orthogonal(shape):
    w = networks.orthogonal(np.random.default_rng(0), shape)
    small = w @ w.T if shape[0] < shape[1] else w.T @ w
    np.testing.assert_allclose(small, np.eye(min(shape)), atol=1e-5)


def test_fused_steps_equal_single_steps():
    fused, single = make_agent(), make_agent()
    row_format, block = make_rows(6)
    means = make_update(fused, row_format, 6)(block)
    one = make_update(single, row_format, 1)
    singles = [one(block[k : k + 1]) for k in range(6)]
    assert fused.train_step_counter.numpy() == single.train_step_counter.numpy() == 6
    for a, b in zip(values(fused), values(single)):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
    for name, mean in means.items():
        expected = np.mean([s[name].numpy() for s in singles])
        assert mean.numpy() == pytest.approx(expected, rel=1e-4, abs=1e-6), name
    assert means["finite"].numpy() == 1.0


def test_xla_computes_the_same():
    # XLA draws other normal numbers from the same key, so the policy here hardly has any noise.
    still: dict[str, Any] = {"log_std_min": -20.0, "log_std_max": -19.0, "initial_alpha": 1e-9}
    plain, compiled = make_agent(**still), make_agent(**still)
    row_format, block = make_rows(3)
    expected = make_update(plain, row_format, 3)(block)
    means = make_update(compiled, row_format, 3, xla=True)(block)
    for name in ("actor_loss", "critic_loss", "q_mean", "batch_reward"):
        assert means[name].numpy() == pytest.approx(expected[name].numpy(), rel=1e-3), name


def test_same_seed_same_bits_and_no_retracing():
    row_format, block = make_rows(4)
    results = []
    for seed in (3, 3, 4):
        agent = make_agent(seed=seed)
        update: Any = make_update(agent, row_format, 4)
        for _ in range(3):
            update(block)
        assert update.experimental_get_tracing_count() == 1
        results.append(values(agent))
    assert all(np.array_equal(a, b) for a, b in zip(results[0], results[1]))
    assert not all(np.array_equal(a, b) for a, b in zip(results[0], results[2]))


def test_restored_checkpoint_resumes_bit_for_bit(tmp_path):
    row_format, block = make_rows(5)
    agent = make_agent(num_critics=3, critic_subset=2)
    update = make_update(agent, row_format, 5)
    for _ in range(2):
        update(block)
    path = tf.train.Checkpoint(**agent.checkpoint_items()).save(str(tmp_path / "ckpt"))
    for _ in range(2):
        update(block[::-1])
    restored = make_agent(num_critics=3, critic_subset=2)
    for v in all_variables(restored):  # whatever the checkpoint lacks would show
        v.assign(tf.cast(tf.fill(v.shape, 7), v.dtype))
    status = tf.train.Checkpoint(**restored.checkpoint_items()).restore(path)
    status.assert_consumed().assert_existing_objects_matched()
    update = make_update(restored, row_format, 5)
    for _ in range(2):
        update(block[::-1])
    assert restored.train_step_counter.numpy() == 20
    assert len(values(agent)) > 60
    for a, b in zip(values(agent), values(restored)):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_finite_flag_falls(bad):
    row_format, block = make_rows(2)
    agent = make_agent()
    update = make_update(agent, row_format, 2)
    assert update(block)["finite"].numpy() == 1.0
    block[1, 3, row_format.slices["reward"]] = bad
    assert update(block)["finite"].numpy() == 0.0


def test_tf_agents_contract():
    agent = make_agent(SENSORS)
    batch = make_batch()
    sensors = {"arm": tf.ones([16, 2, 2]), "touch": tf.zeros([16])}
    batch = {k: tf.constant(v) for k, v in batch.items()}
    batch.update(observation=sensors, next_observation=sensors)
    tf.nest.assert_same_structure(batch, agent.training_data_spec)
    info = agent.train(batch)
    assert np.isfinite(info.loss.numpy()) and agent.train_step_counter.numpy() == 1
    with pytest.raises(ValueError, match="weights"):
        agent.train(batch, weights=tf.ones([16]))


def test_dict_observations_do_not_depend_on_insertion_order():
    a = make_agent(SENSORS)
    b = make_agent(dict(reversed(SENSORS.items())))
    observation = {"touch": tf.constant([0.3]), "arm": tf.constant([[[1.0, 2.0], [3.0, 4.0]]])}
    backwards = dict(reversed(observation.items()))
    seed = tf.constant([1, 2])
    np.testing.assert_array_equal(a.policy.act(observation, seed), b.policy.act(backwards, seed))


def test_policies_act_as_the_actor_says():
    agent = make_agent(action=ODD_ACTION)
    observation = tf.constant(make_batch()["observation"])
    mean, log_std = agent.checkpoint_items()["actor"](observation)
    low, high = np.array(ODD_ACTION.minimum), np.array(ODD_ACTION.maximum)
    to_spec = lambda u: low + (np.tanh(u) + 1) / 2 * (high - low)  # noqa: E731
    step = ts.restart(observation, batch_size=16)
    greedy = agent.policy.action(step).action
    np.testing.assert_allclose(greedy, to_spec(mean.numpy()), rtol=1e-5)
    seed = tf.constant([4, 5])
    noise = tf.random.stateless_normal([16, 2], seed, alg="philox").numpy()
    sample = agent.collect_policy.act(observation, seed)
    expected = to_spec(mean.numpy() + np.exp(log_std.numpy()) * noise)
    np.testing.assert_allclose(sample, expected, rtol=1e-4, atol=1e-5)
    first, second = (agent.collect_policy.action(step).action.numpy() for _ in range(2))
    assert not np.array_equal(first, second)
    # TFPolicy's distribution is the same one, in the environment's units.
    distribution = agent.collect_policy.distribution(step).action
    _, log_prob = losses.squashed_sample(mean, log_std, noise)
    expected = log_prob - np.sum(np.log((high - low) / 2))
    np.testing.assert_allclose(distribution.log_prob(sample), expected, rtol=1e-3, atol=1e-3)
    np.testing.assert_array_equal(agent.policy.distribution(step).action.sample(), greedy)


def test_actions_never_leave_the_bounds():
    agent = make_agent(action=ODD_ACTION)
    for v in agent.actor_variables:
        v.assign(v * 1000)
    observation = tf.constant(make_batch()["observation"])
    for policy in (agent.policy, agent.collect_policy):
        action = policy.act(observation, tf.constant([0, 1])).numpy()
        assert action.dtype == np.float32
        assert np.all(action >= np.float32(ODD_ACTION.minimum))
        assert np.all(action <= np.float32(ODD_ACTION.maximum))
        assert np.all(np.any(action == np.float32(ODD_ACTION.maximum), axis=0))


def test_policy_vector_moves_between_policies():
    agent = make_agent()
    agent.train_step({k: tf.constant(v) for k, v in make_batch().items()})
    vector = agent.policy_vector()
    assert vector.dtype == np.float32 and vector.shape == (3 * 8 + 8 + 8 * 7 + 7 + 7 * 4 + 4,)
    greedy, collect = agent.copy_policies()
    observation, seed = tf.constant(make_batch()["observation"]), tf.constant([1, 2])
    assert not np.array_equal(greedy.act(observation, seed), agent.policy.act(observation, seed))
    start = 0
    for v in greedy.variables():
        v.assign(tf.reshape(vector[start : start + v.shape.num_elements()], v.shape))
        start += v.shape.num_elements()
    for copied, original in ((greedy, agent.policy), (collect, agent.collect_policy)):
        expected = original.act(observation, seed)
        np.testing.assert_array_equal(copied.act(observation, seed), expected)


@pytest.mark.parametrize("greedy", [True, False])
def test_policies_load_as_saved_model_py_policy(tmp_path, greedy):
    agent = make_agent(SENSORS, ODD_ACTION)
    policy = agent.policy if greedy else agent.collect_policy
    saver = policy_saver.PolicySaver(policy, train_step=agent.train_step_counter)
    saver.save(str(tmp_path / "policy"))
    loaded = py_tf_eager_policy.SavedModelPyTFEagerPolicy(
        str(tmp_path / "policy"), agent.time_step_spec, ODD_ACTION
    )
    observation = {"touch": np.float32(0.2), "arm": np.ones((2, 2), np.float32)}
    action = loaded.action(ts.restart(observation)).action
    assert action.shape == (2,) and action.dtype == np.float32
    assert np.all(action >= np.float32(ODD_ACTION.minimum))
    assert np.all(action <= np.float32(ODD_ACTION.maximum))
    batched = {k: tf.constant(v)[None] for k, v in observation.items()}
    same = np.allclose(action, agent.policy.act(batched, tf.constant([0, 0]))[0], rtol=1e-5)
    assert same == greedy
    assert len(loaded.variables()) >= len(agent.actor_variables)


@pytest.mark.parametrize(
    "spec",
    [
        tensor_spec.BoundedTensorSpec([2], tf.float32, -np.inf, 1.0),
        tensor_spec.BoundedTensorSpec([2], tf.float32, 1.0, 1.0),
        tensor_spec.BoundedTensorSpec([2, 2], tf.float32, -1.0, 1.0),
    ],
)
def test_unusable_action_specs_are_refused(spec):
    with pytest.raises(UserError, match="finite bounds"):
        make_agent(action=spec)


class LinearEncoder(tf.Module):
    """An encoder with variables, as images or memory would bring."""

    output_size = 4

    def __init__(self):
        super().__init__("linear")
        self.w = tf.Variable(np.float32(np.random.default_rng(0).normal(size=(3, 4))))

    def __call__(self, observation):
        return tf.matmul(observation, self.w)


def make_encoded(observation_spec, num_actions, agent_settings, seed):
    features = tf.TensorSpec([4], tf.float32)
    base = networks.make_networks(features, num_actions, agent_settings, seed)
    return networks.Networks(LinearEncoder(), base.actor, base.critics)


@pytest.mark.parametrize("critic_rate", [1e-2, 1e-30])
def test_encoder_learns_from_the_critics_alone(critic_rate):
    agent_settings = settings.SacAgent(**SMALL, critic_learning_rate=critic_rate, tau=0.5)
    spec = ts.time_step_spec(OBSERVATION)
    agent = SacAgent(spec, ACTION, agent_settings, networks_fn=make_encoded)
    agent.initialize()
    items = agent.checkpoint_items()
    before, actor_before = items["encoder"].w.numpy(), items["actor"].mlp.weights[0].numpy()
    agent.train_step({k: tf.constant(v) for k, v in make_batch().items()})
    after, target = items["encoder"].w.numpy(), items["target_encoder"].w.numpy()
    assert np.any(items["actor"].mlp.weights[0].numpy() != actor_before)
    assert np.all((after != before) == (critic_rate > 1e-3))
    np.testing.assert_allclose(target, (before + after) / 2, rtol=1e-5)
    assert any(v is items["encoder"].w for v in agent.actor_variables)


def test_solves_a_one_step_problem():
    """Reward -(a - 0.5)^2: the greedy action finds 0.5, the entropy its target."""
    action = tensor_spec.BoundedTensorSpec([1], tf.float32, -1.0, 1.0)
    observation = tf.TensorSpec([1], tf.float32)
    rate = 3e-3
    agent = make_agent(
        observation, action, hidden_sizes=(32, 32), critic_hidden_sizes=None,
        actor_learning_rate=rate, critic_learning_rate=rate, alpha_learning_rate=rate,
    )  # fmt: skip
    row_format = rows.flat_row_format(observation, action)
    update = make_update(agent, row_format, 10)
    rng = np.random.default_rng(0)
    block = np.zeros((10, 64, row_format.size), np.float32)
    metrics = {}
    for _ in range(60):
        a = rng.uniform(-1, 1, (10, 64))
        block[..., row_format.slices["action"].start] = a
        block[..., row_format.slices["reward"].start] = -((a - 0.5) ** 2)
        metrics = update(block)
    greedy = agent.policy.act(tf.zeros([1, 1]), tf.constant([0, 0])).numpy().item()
    assert greedy == pytest.approx(0.5, abs=0.1)
    assert metrics["entropy"].numpy() == pytest.approx(-1.0, abs=0.5)
    assert metrics["critic_loss"].numpy() < 0.01


def test_rows_at_the_limit_leave_every_number_finite():
    agent = make_agent()
    row_format, block = make_rows(4)
    for name in ("observation", "next_observation", "reward"):
        part = row_format.span(name)
        block[..., part] = np.sign(block[..., part]) * rows.LIMIT
    block[..., row_format.span("discount")] = 0.99
    metrics = make_update(agent, row_format, 4, False)(tf.constant(block))
    assert metrics["finite"] and all(np.isfinite(v).all() for v in values(agent))
