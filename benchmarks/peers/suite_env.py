"""dm_control's suite as Gymnasium environments, in the least time that allows."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from dm_control import suite


class SuiteEnv(gymnasium.Env):
    """One task: a flat float32 observation, actions in [-1, 1], no episode ends before its time.

    The entries of the observation stand in sorted order of their keys, as in Sactory's own adapter.

    Args:
        task: `<domain>_<task>`, one whose action bounds are [-1, 1].
        seed: Of the initial states.
    """

    def __init__(self, task: str, seed: int):
        domain, name = task.split("_", 1)
        self._env = suite.load(domain, name, task_kwargs={"random": seed})
        self._keys = sorted(self._env.observation_spec())
        spec = self._env.action_spec()
        if not (np.all(spec.minimum == -1) and np.all(spec.maximum == 1)):
            raise ValueError(f"{task}: actions are not in [-1, 1]")
        size = len(self._flat(self._env.reset()))
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (size,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, spec.shape, np.float32)

    def _flat(self, time_step: Any) -> np.ndarray:
        observation = time_step.observation
        return np.concatenate([observation[k] for k in self._keys], None, dtype=np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Starts an episode; the seed is the constructor's."""
        return self._flat(self._env.reset()), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """One step of the simulator's control."""
        time_step = self._env.step(action)
        is_last = time_step.last()
        terminated = is_last and time_step.discount == 0.0
        return (
            self._flat(time_step),
            time_step.reward,
            terminated,
            is_last and not terminated,
            {},
        )
