"""CleanRL's continuous SAC, written anew from its published settings: CleanRL is no library.

Settings (sac_continuous_action): 256x256, Adam with 3e-4 for the policy and 1e-3 for critics and
temperature, gamma 0.99, tau 0.005, batch 256, temperature from 1, log std squashed into [-5, 2],
every second step the policy and the temperature move twice. One environment, one update per env
step, Stable-Baselines3's replay buffer. Only the random steps at the start are as few as
everyone's here. `learner` updates on one batch in memory.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from torch import nn

from benchmarks import worker
from benchmarks.peers import job as job_lib
from benchmarks.peers import loops
from benchmarks.peers.job import Job
from benchmarks.peers.suite_env import SuiteEnv

_POLICY_EVERY = 2  # steps; it then moves as many times
_CAPACITY = 1_000_000


def mlp(inputs: int, outputs: int) -> nn.Sequential:
    """Two hidden layers."""
    width = job_lib.HIDDEN
    first, second = nn.Linear(inputs, width), nn.Linear(width, width)
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.Linear(width, outputs))


class Agent:
    """Networks, optimizers and one gradient step.

    Args:
        observations: Size of an observation.
        actions: Size of an action, all in [-1, 1].
    """

    def __init__(self, observations: int, actions: int):
        self._actions = actions
        self._policy = mlp(observations, 2 * actions)
        self._critics = nn.ModuleList([mlp(observations + actions, 1) for _ in range(2)])
        self._targets = nn.ModuleList([mlp(observations + actions, 1) for _ in range(2)])
        self._targets.load_state_dict(self._critics.state_dict())
        self._log_alpha = torch.zeros(1, requires_grad=True)
        self._policy_adam = torch.optim.Adam(self._policy.parameters(), lr=3e-4)
        self._critic_adam = torch.optim.Adam(self._critics.parameters(), lr=1e-3)
        self._alpha_adam = torch.optim.Adam([self._log_alpha], lr=1e-3)
        self._steps = 0

    def sample(self, observation: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Actions `[B, A]` and their log-densities `[B, 1]`."""
        mean, raw = self._policy(observation).chunk(2, -1)
        log_std = -5.0 + 3.5 * (torch.tanh(raw) + 1.0)
        normal = torch.distributions.Normal(mean, log_std.exp())
        before = normal.rsample()
        action = torch.tanh(before)
        log_prob = normal.log_prob(before) - torch.log(1.0 - action.pow(2) + 1e-6)
        return action, log_prob.sum(1, keepdim=True)

    @torch.no_grad()
    def act(self, observation: np.ndarray, greedy: bool = False) -> np.ndarray:
        """One action."""
        batch = torch.from_numpy(observation)[None]
        if greedy:
            return torch.tanh(self._policy(batch)[0, : self._actions]).numpy()
        return self.sample(batch)[0][0].numpy()

    def update(self, batch: Any) -> None:
        """One gradient step."""
        alpha = self._log_alpha.exp().item()
        with torch.no_grad():
            action, log_prob = self.sample(batch.next_observations)
            state = torch.cat([batch.next_observations, action], 1)
            soft = self._lowest(self._targets, state) - alpha * log_prob
            target = batch.rewards + (1.0 - batch.dones) * job_lib.GAMMA * soft
        state = torch.cat([batch.observations, batch.actions], 1)
        mse = nn.functional.mse_loss
        loss = mse(self._critics[0](state), target) + mse(self._critics[1](state), target)
        _step(self._critic_adam, loss)
        self._steps += 1
        if self._steps % _POLICY_EVERY == 0:
            for _ in range(_POLICY_EVERY):
                self._move_policy(batch.observations)
        with torch.no_grad():
            for slow, fast in zip(self._targets.parameters(), self._critics.parameters()):
                slow.lerp_(fast, job_lib.TAU)

    def _move_policy(self, observation: torch.Tensor) -> None:
        action, log_prob = self.sample(observation)
        q = self._lowest(self._critics, torch.cat([observation, action], 1))
        _step(self._policy_adam, (self._log_alpha.exp().item() * log_prob - q).mean())
        surplus = (log_prob - self._actions).detach()
        _step(self._alpha_adam, (-self._log_alpha.exp() * surplus).mean())

    def _lowest(self, critics: nn.ModuleList, state: torch.Tensor) -> torch.Tensor:
        return torch.minimum(critics[0](state), critics[1](state))


def _step(optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def train(agent: Agent, env: SuiteEnv, job: Job) -> None:
    """One environment, one update per env step, for ever or until the target return."""
    spaces = (env.observation_space, env.action_space)
    buffer = ReplayBuffer(_CAPACITY, *spaces, "cpu", handle_timeout_termination=False)
    meter, evaluations = worker.Meter(), loops.Evaluations(job, lambda: play(agent, job))
    rng = np.random.default_rng(job.seed)
    observation, steps = env.reset()[0], 0
    while not evaluations.is_over:
        if steps < job_lib.RANDOM_STEPS:
            action = rng.uniform(-1, 1, env.action_space.shape).astype(np.float32)
        else:
            action = agent.act(observation)
        following, reward, terminated, truncated, _ = env.step(action)
        ended = np.array([terminated])
        buffer.add(observation, following, action, np.array([reward]), ended, [{}])
        observation = env.reset()[0] if terminated or truncated else following
        steps += 1
        if steps > job_lib.RANDOM_STEPS:
            agent.update(buffer.sample(job_lib.BATCH))
        if job.mode == "to_return":
            evaluations.look(steps)
        elif steps > job_lib.RANDOM_STEPS + 100:
            meter.add()
    evaluations.tell()


def play(agent: Agent, job: Job) -> float:
    """Mean return of greedy episodes."""
    env, total = SuiteEnv(job.task, loops.EVALUATION_SEED), 0.0
    for _ in range(job.episodes):
        observation, is_over = env.reset()[0], False
        while not is_over:
            observation, reward, _, is_over, _ = env.step(agent.act(observation, greedy=True))
            total += reward
    return total / job.episodes


def main() -> None:
    """Does the job of the command line."""
    job = job_lib.from_command_line()
    worker.use_cores(job.cores)
    torch.set_num_threads(job.cores)
    torch.manual_seed(job.seed)
    env = SuiteEnv(job.task, job.seed)
    agent = Agent(env.observation_space.shape[0], env.action_space.shape[0])
    if job.mode != "learner":
        train(agent, env, job)
    rows = {k: torch.from_numpy(v) for k, v in loops.random_batch(job_lib.BATCH).items()}
    batch = ReplayBufferSamples(**rows)

    def two_updates() -> None:
        for _ in range(_POLICY_EVERY):
            agent.update(batch)

    worker.serve(two_updates, _POLICY_EVERY)


if __name__ == "__main__":
    main()
