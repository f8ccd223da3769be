"""What Stable-Baselines3 and SBX share: data, one training loop, callbacks for its two uses."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor

from benchmarks import worker
from benchmarks.peers import job as job_lib
from benchmarks.peers.job import Job
from benchmarks.peers.suite_env import SuiteEnv

EVALUATION_SEED = 1_000
_WARM_CALLS = 4  # of the update, before the first measurement


def random_batch(rows: int) -> dict[str, np.ndarray]:
    """Rows of cheetah_run's sizes with made-up numbers; nothing is terminal."""
    rng = np.random.default_rng(0)
    sizes = {
        "observations": job_lib.OBSERVATIONS,
        "actions": job_lib.ACTIONS,
        "next_observations": job_lib.OBSERVATIONS,
        "dones": 1,
        "rewards": 1,
    }
    batch = {k: rng.uniform(-1, 1, (rows, n)).astype(np.float32) for k, n in sizes.items()}
    batch["dones"][:] = 0.0
    return batch


def settings(job: Job) -> dict[str, Any]:
    """Arguments of either library's `SAC`: our numbers, at one update per env step."""
    return {
        "env": SuiteEnv(job.task, job.seed),
        "learning_rate": job_lib.LEARNING_RATE,
        "learning_starts": job_lib.RANDOM_STEPS,
        "batch_size": job_lib.BATCH,
        "tau": job_lib.TAU,
        "gamma": job_lib.GAMMA,
        "train_freq": job.fused,
        "gradient_steps": job.fused,
        "ent_coef": f"auto_{job_lib.INITIAL_ALPHA}",
        "policy_kwargs": {"net_arch": [job_lib.HIDDEN, job_lib.HIDDEN]},
        "seed": job.seed,
    }


class Metered(BaseCallback):
    """Tells the meter of whole turns, collection and update, once both are compiled."""

    def __init__(self, job: Job):
        super().__init__()
        self._fused = job.fused
        self._warm = job_lib.RANDOM_STEPS + _WARM_CALLS * job.fused
        self._meter = worker.Meter()

    def _on_rollout_start(self) -> None:
        if self.num_timesteps > self._warm:
            self._meter.add(self._fused)

    def _on_step(self) -> bool:
        return True


class Evaluations:
    """Plays the policy every so many env steps and keeps account of the time that takes.

    Attributes:
        is_over: Whether the target or the last env step is reached.
    """

    def __init__(self, job: Job, score: Callable[[], float]):
        self._job, self._score = job, score
        self._due, self._paused = job.every, 0.0
        self._curve: list[tuple[int, float]] = []
        self.is_over = False

    def look(self, env_steps: int) -> None:
        """Evaluates if it is time."""
        if env_steps < self._due or self.is_over:
            return
        self._due += self._job.every
        began = time.time()
        score = float(self._score())
        self._paused += time.time() - began
        self._curve.append((env_steps, score))
        is_last = env_steps >= self._job.max_env_steps
        self.is_over = score >= self._job.target or is_last

    def tell(self) -> None:
        """Answers what came out and ends the process."""
        worker.answer(
            {
                "reached": self._curve[-1][1] >= self._job.target,
                "end_time": time.time(),
                "evaluation_seconds": self._paused,
                "env_steps": self._curve[-1][0],
                "curve": self._curve,
                "cpu_seconds": time.process_time(),
            }
        )
        os._exit(0)  # a library's threads may not end by themselves


class UntilReturn(BaseCallback):
    """Ends the training when an evaluation reaches the target."""

    def __init__(self, job: Job):
        super().__init__()
        self._job = job
        self._evaluations = Evaluations(job, self._play)
        self._env = Monitor(SuiteEnv(job.task, EVALUATION_SEED))

    def _play(self) -> float:
        score, _ = evaluate_policy(self.model, self._env, self._job.episodes, deterministic=True)
        return float(score)

    def _on_rollout_start(self) -> None:
        self._evaluations.look(self.num_timesteps)
        if self._evaluations.is_over:
            self._evaluations.tell()

    def _on_step(self) -> bool:
        return True


def learn(model: Any, job: Job) -> None:
    """The library's own `learn()`, for ever or until the target return."""
    model.learn(10**9, callback=Metered(job) if job.mode == "train" else UntilReturn(job))
