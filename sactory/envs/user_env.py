"""What Sactory adds to a user's own `PyEnvironment`: the same contract as its own adapter.

Observations pass through as they are; `sactory.specs` says at init what it can't use.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from tf_agents.environments import py_environment, wrappers
from tf_agents.specs import array_spec
from tf_agents.trajectories import time_step as ts

from sactory.envs import parameters


class UserEnvironment(parameters.Parametrized, wrappers.PyEnvironmentBaseWrapper):
    """A user's `PyEnvironment` with actions in [-1, 1] and with action repeat.

    Attributes of the user's environment stay reachable. `max_episode_steps` [env steps] is the
    user's, if there is such an attribute, else None.

    Args:
        env: The user's environment.
        action_repeat: Env steps that each action is held for. Rewards are summed; an episode's
            end cuts the rest short.
    """

    observation_keys = ()
    renders_any_size = False

    def __init__(self, env: py_environment.PyEnvironment, action_repeat: int = 1):
        super().__init__(env)
        self.action_repeat = action_repeat
        self._more = range(action_repeat - 1)
        self.max_episode_steps = getattr(env, "max_episode_steps", None)
        self._action_spec = spec = env.action_spec()
        self._rescales = _can_rescale(spec)
        if self._rescales:
            self._low, self._high = spec.minimum, spec.maximum
            self._action_spec = array_spec.BoundedArraySpec(
                spec.shape, np.float32, minimum=-1.0, maximum=1.0, name="action"
            )
            self._dtype = spec.dtype
        self._declare_of(env)

    def action_spec(self) -> Any:
        """Float32 in [-1, 1]; the user's own spec where it is not one bounded float array."""
        return self._action_spec

    def _reset(self) -> ts.TimeStep:
        self._current_time_step = None
        return self._env.reset()

    def _step(self, action: Any) -> ts.TimeStep:
        if self._rescales:
            share = (action.astype(np.float64) + 1) / 2
            action = self._low * (1 - share) + self._high * share  # exact at both bounds
            action = action.astype(self._dtype)
        try:
            step = self._env.step(action)
            reward = step.reward
            for _ in self._more:
                if step.step_type != ts.StepType.MID:
                    break
                step = self._env.step(action)
                reward = np.asarray(reward + step.reward, np.asarray(step.reward).dtype)
        except Exception:
            self._current_time_step = None  # the next step starts a new episode
            raise
        return step._replace(reward=reward)

    def seed(self, seed: int) -> None:
        """Seeds the user's environment; the next `step` or `reset` starts an episode."""
        self._env.seed(seed)
        self._current_time_step = None


def _can_rescale(spec: Any) -> bool:
    """Whether the action is one float array with finite bounds."""
    if not isinstance(spec, array_spec.BoundedArraySpec) or spec.dtype.kind != "f":
        return False
    return bool(np.all(np.abs([spec.minimum, spec.maximum]) < 1e10))
