"""Soft Actor-Critic (arXiv 1812.05905) as a `TFAgent`: what one gradient step does.

The losses are in `losses`, the networks in `networks`, the compiled loop of K steps in `update`.
The agent knows nothing of replay, processes or files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from tf_agents.agents import tf_agent
from tf_agents.trajectories import time_step as ts

from sactory import settings as settings_lib
from train import losses
from train.networks import Networks, make_networks
from train.optimizers import Adam, polyak_update
from train.policy import ActionScale, CollectPolicy, GreedyPolicy

Batch = Mapping[str, Any]

METRICS = (
    "actor_loss",
    "critic_loss",
    "alpha_loss",
    "alpha",
    "entropy",
    "batch_reward",
    "q_mean",
)
"""What a gradient step reports."""


class SacAgent(tf_agent.TFAgent):
    """SAC with an ensemble of critics, automatic temperature and n-step rewards.

    A batch is a dictionary: `observation` and `next_observation` (nests `[B, ...]`), `action`
    `[B, A]` in the environment's bounds, `reward` `[B]` (n-step R) and `discount` `[B]`
    (D = gamma^n d, 0 only at a true terminal). Other keys are ignored.

    Args:
        time_step_spec: TF-Agents' spec of the environment's time steps, without batch.
        action_spec: Bounded float32 spec of one action vector.
        settings: Numbers of the algorithm.
        seed: Seed of the initial weights and of every random number of the updates.
        networks_fn: Builds the networks from observation spec, A, settings and seed.
    """

    def __init__(
        self,
        time_step_spec: ts.TimeStep,
        action_spec: Any,
        settings: settings_lib.SacAgent,
        seed: int = 0,
        networks_fn: Callable[..., Networks] = make_networks,
    ):
        self.settings = settings
        self._seed = seed
        num_actions = int(np.prod(action_spec.shape))
        observation_spec = time_step_spec.observation
        self._new_networks = lambda: networks_fn(observation_spec, num_actions, settings, seed)
        self._online = self._new_networks()
        self._target = self._new_networks()
        target_entropy = settings.target_entropy
        self._target_entropy = -float(num_actions) if target_entropy is None else target_entropy
        self._scale = ActionScale(action_spec)

        clip = settings.gradient_clip_norm
        self._log_alpha = tf.Variable(np.float32(np.log(settings.initial_alpha)), name="log_alpha")
        self._actor_trained = self._online.actor.trainable_variables
        self._critic_trained = self._online.critic_variables
        self._actor_optimizer = Adam(self._actor_trained, settings.actor_learning_rate, clip)
        self._critic_optimizer = Adam(self._critic_trained, settings.critic_learning_rate, clip)
        self._alpha_optimizer = Adam([self._log_alpha], settings.alpha_learning_rate, clip)

        greedy, collect = self._policies(time_step_spec, action_spec, self._online)
        scalar = tf.TensorSpec([], tf.float32)
        super().__init__(
            time_step_spec,
            action_spec,
            policy=greedy,
            collect_policy=collect,
            train_sequence_length=None,
            num_outer_dims=1,
            training_data_spec={
                "observation": observation_spec,
                "action": action_spec,
                "reward": scalar,
                "discount": scalar,
                "next_observation": observation_spec,
            },
            train_step_counter=tf.Variable(0, trainable=False, dtype=tf.int64, name="train_step"),
        )

    @tf.function(autograph=False)
    def _joined_policy(self) -> tf.Tensor:
        # One eager tensor and not one a variable: TensorFlow on Python 3.11 loses 48 bytes of each.
        return tf.concat([tf.reshape(v, [-1]) for v in self.actor_variables], axis=0)

    @property
    def actor_variables(self) -> tuple[tf.Variable, ...]:
        """What a policy needs to act, in the order of `policy.variables()`."""
        return tuple(self.policy.variables())

    def policy_vector(self) -> np.ndarray:
        """The policy's weights as one flat float32 vector `[W]`, in `actor_variables`' order."""
        return self._joined_policy().numpy()

    def copy_policies(self) -> tuple[GreedyPolicy, CollectPolicy]:
        """Greedy and collect policy on variables of their own (one set), for exports."""
        return self._policies(self.time_step_spec, self.action_spec, self._new_networks())

    def checkpoint_items(self) -> dict[str, Any]:
        """All state of training as trackables by name: restoring them resumes bit for bit."""
        return {
            "encoder": self._online.encoder,
            "actor": self._online.actor,
            "critics": list(self._online.critics),
            "target_encoder": self._target.encoder,
            "target_critics": list(self._target.critics),
            "log_alpha": self._log_alpha,
            "actor_optimizer": self._actor_optimizer,
            "critic_optimizer": self._critic_optimizer,
            "alpha_optimizer": self._alpha_optimizer,
            "train_step": self.train_step_counter,
        }

    def train_step(self, batch: Batch, seed: int | None = None) -> dict[str, tf.Tensor]:
        """One gradient step of critics, actor and temperature from the same parameters.

        All gradients are taken before any variable moves, so that the networks' branches can run
        side by side. Random numbers depend on the seed and the train step alone.

        Args:
            batch: See the class.
            seed: Seed of the step's random numbers; None: the agent's.

        Returns:
            The scalars of `METRICS` by name.
        """
        seed = self._seed if seed is None else seed
        key = tf.stack([tf.constant(seed, tf.int64), self.train_step_counter.read_value()])
        alpha = tf.exp(self._log_alpha)
        action = self._scale.from_environment(batch["action"])
        noise = tf.random.stateless_normal([2, *action.shape], key, alg="philox")

        target = self._target_values(batch, noise[0], alpha, key)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(self._critic_trained)
            features = self._online.encoder(batch["observation"])
            q = tf.stack([critic(features, action) for critic in self._online.critics])
            critic_loss = losses.critic_loss(q, target)
        critic_gradients = tape.gradient(critic_loss, self._critic_trained)

        # The features lie outside this tape: the encoder learns from the critics' loss alone.
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(self._actor_trained)
            actor_loss, log_prob = self._actor_loss(features, noise[1], alpha, key)
        actor_gradients = tape.gradient(actor_loss, self._actor_trained)

        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(self._log_alpha)
            alpha_loss = losses.alpha_loss(self._log_alpha, log_prob, self._target_entropy)
        alpha_gradients = tape.gradient(alpha_loss, [self._log_alpha])

        self._move(critic_gradients, actor_gradients, alpha_gradients)
        return {
            "actor_loss": actor_loss,
            "critic_loss": critic_loss,
            "alpha_loss": alpha_loss,
            "alpha": alpha,
            "entropy": -tf.reduce_mean(log_prob),
            "batch_reward": tf.reduce_mean(batch["reward"]),
            "q_mean": tf.reduce_mean(q),
        }

    def _move(
        self, critic: list[tf.Tensor], actor: list[tf.Tensor], alpha: list[tf.Tensor]
    ) -> None:
        """Moves all variables along their gradients, and the targets after the critics."""
        step = tf.cast(self.train_step_counter.assign_add(1), tf.float32)
        self._critic_optimizer.apply(critic, step)
        self._actor_optimizer.apply(actor, step)
        self._alpha_optimizer.apply(alpha, step)
        polyak_update(self._target.critic_variables, self._critic_trained, self.settings.tau)

    def _actor_loss(
        self, features: tf.Tensor, noise: tf.Tensor, alpha: tf.Tensor, key: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """The policy's loss and the log-probabilities `[B]` of its new actions."""
        mean, log_std = self._online.actor(features)
        action, log_prob = losses.squashed_sample(mean, log_std, noise)
        q = tf.stack([critic(features, action) for critic in self._online.critics])
        q = losses.ensemble_min(q, self.settings.critic_subset, _fold_in(key, 1))
        return losses.actor_loss(log_prob, q, alpha), log_prob

    def _target_values(
        self, batch: Batch, noise: tf.Tensor, alpha: tf.Tensor, key: tf.Tensor
    ) -> tf.Tensor:
        """The critics' targets y `[B]`, from the current policy and the target critics."""
        next_observation = batch["next_observation"]
        mean, log_std = self._online.actor(self._online.encoder(next_observation))
        next_action, next_log_prob = losses.squashed_sample(mean, log_std, noise)
        features = self._target.encoder(next_observation)
        next_q = tf.stack([critic(features, next_action) for critic in self._target.critics])
        next_q = losses.ensemble_min(next_q, self.settings.critic_subset, _fold_in(key, 2))
        return losses.soft_target(
            batch["reward"],
            batch["discount"],
            next_q,
            next_log_prob,
            alpha,
            self.settings.reward_scale,
        )

    def _policies(
        self, time_step_spec: ts.TimeStep, action_spec: Any, networks: Networks
    ) -> tuple[GreedyPolicy, CollectPolicy]:
        parts = (time_step_spec, action_spec, networks.encoder, networks.actor)
        return GreedyPolicy(*parts), CollectPolicy(*parts)

    def _initialize(self) -> None:
        """Makes the target critics equal to the critics."""
        for target, source in zip(self._target.critic_variables, self._critic_trained):
            target.assign(source)

    def _train(self, experience: Batch, weights: Any = None) -> tf_agent.LossInfo:
        if weights is not None:
            raise ValueError("SacAgent.train takes no weights")
        metrics = self.train_step(experience)
        total = metrics["actor_loss"] + metrics["critic_loss"] + metrics["alpha_loss"]
        return tf_agent.LossInfo(total, metrics)


def _fold_in(key: tf.Tensor, stream: int) -> tf.Tensor:
    return tf.random.experimental.stateless_fold_in(key, stream, alg="philox")
