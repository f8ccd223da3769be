"""An environment that takes time and no CPU: for runs with more collectors than cores.

envs.load.name = 'python:benchmarks.sleeping_env:load'
"""

from __future__ import annotations

import time

import numpy as np
from tf_agents.environments import py_environment
from tf_agents.specs import array_spec
from tf_agents.trajectories import time_step as ts


class Sleeper(py_environment.PyEnvironment):
    """Of cheetah_run's sizes; observations and rewards are noise.

    Args:
        seconds: That a step takes.
        length: Steps of an episode.
        seed: Of the noise.
    """

    def __init__(self, seconds: float, length: int, seed: int):
        super().__init__()
        self._seconds, self._length, self._steps = seconds, length, 0
        self._random = np.random.default_rng(seed)

    def observation_spec(self) -> array_spec.ArraySpec:
        """17 numbers."""
        return array_spec.ArraySpec((17,), np.float32)

    def action_spec(self) -> array_spec.BoundedArraySpec:
        """6 numbers from -1 to 1."""
        return array_spec.BoundedArraySpec((6,), np.float32, -1.0, 1.0)

    def _observe(self) -> np.ndarray:
        return self._random.normal(size=17).astype(np.float32)

    def _reset(self) -> ts.TimeStep:
        self._steps = 0
        return ts.restart(self._observe())

    def _step(self, action: np.ndarray) -> ts.TimeStep:
        time.sleep(self._seconds)
        self._steps += 1
        reward = np.float32(self._random.uniform())
        if self._steps < self._length:
            return ts.transition(self._observe(), reward)
        return ts.truncation(self._observe(), reward)


def load(seconds: float = 0.04, length: int = 1000, seed: int = 0) -> Sleeper:
    """The environment."""
    return Sleeper(seconds, length, seed)
