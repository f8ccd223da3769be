"""From gymnasium's interface to TF-Agents' `PyEnvironment`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from tf_agents.specs import array_spec
from tf_agents.trajectories import time_step as ts

from sactory.envs import parameters, spaces

_MID, _LAST = ts.StepType.MID, ts.StepType.LAST
_ZERO, _ONE = np.float32(0.0), np.float32(1.0)


class GymnasiumEnvironment(parameters.Parametrized):
    """Any `gymnasium.Env` with continuous actions as a `PyEnvironment`.

    Observations are new float32 arrays at each step, one or a dictionary of them; actions are
    float32 `[A]` in [-1, 1]. `step` after the last step of an episode starts the next one. If the
    environment raises, so does `step`, and the next `step` or `reset` starts a new episode.

    Args:
        env: The environment.
        name: As the user calls it, for messages.
        action_repeat: Env steps that each action is held for. Rewards are summed; an episode's
            end cuts the rest short.
        reset_options: What `reset` gets as `options` at each episode.

    Attributes:
        action_repeat: The same number.
        max_episode_steps: Env steps until its time limit; None if it names none.
        observation_keys: Always (): dictionaries stay dictionaries.
        control_timestep: Seconds of one env step in a video; None if it names no frame rate.
        renders_any_size: Always False: it draws in its own size.
        takes_reset_options: Always True.
    """

    observation_keys = ()
    renders_any_size = False
    takes_reset_options = True

    def __init__(
        self,
        env: gymnasium.Env,
        name: str,
        action_repeat: int = 1,
        reset_options: Mapping[str, Any] | None = None,
    ):
        super().__init__()
        self._env = env
        self.action_repeat = action_repeat
        self._more = range(action_repeat - 1)
        self._options = None if reset_options is None else dict(reset_options)
        self._seed: int | None = None
        self._info: Mapping[str, Any] = {}
        limit = env.spec.max_episode_steps if env.spec else None
        self.max_episode_steps: int | None = (
            getattr(env.unwrapped, "max_episode_steps", None) if limit is None else limit
        )
        fps = env.metadata.get("render_fps")
        self.control_timestep = 1 / fps if fps else None
        where = f"environment {name}"
        self._observation_spec, self._read = spaces.observation(env.observation_space, where)
        self._low, self._high = spaces.action(env.action_space, where)
        self._centre, self._scale = self._low / 2 + self._high / 2, self._high / 2 - self._low / 2
        space: Any = env.action_space
        self._shape, self._dtype = space.shape, space.dtype
        self._action_spec = array_spec.BoundedArraySpec(
            self._low.shape, np.float32, minimum=-1.0, maximum=1.0, name="action"
        )
        self._declare_of(env.unwrapped)

    def observation_spec(self) -> Any:
        """Float32 arrays."""
        return self._observation_spec

    def action_spec(self) -> array_spec.BoundedArraySpec:
        """Float32 `[A]` in [-1, 1]."""
        return self._action_spec

    def get_info(self) -> Any:
        """The info of the last step; `success` stands there under that name."""
        if "is_success" in self._info and "success" not in self._info:
            return {**self._info, "success": self._info["is_success"]}
        return self._info

    def seed(self, seed: int) -> None:
        """Starts the random numbers anew; the next `step` or `reset` starts an episode."""
        self._seed = seed % 2**31
        self._current_time_step = None

    def _apply_parameters(self, changed: Mapping[str, Any]) -> None:
        self._env.unwrapped.set_parameters(dict(changed))

    def _reset(self) -> ts.TimeStep:
        self._current_time_step = None
        seen, self._info = self._env.reset(seed=self._seed, options=self._options)
        self._seed = None  # later episodes go on with the same random numbers
        return ts.TimeStep(ts.StepType.FIRST, _ZERO, _ONE, self._read(seen))

    def _step(self, action: np.ndarray) -> ts.TimeStep:
        before: Any = self._current_time_step
        if before.step_type == _LAST:
            return self.reset()
        if action.shape != self._low.shape:  # NumPy would broadcast it silently
            raise ValueError(f"action of shape {action.shape}, expected {self._low.shape}")
        scaled = action * self._scale
        scaled += self._centre
        np.maximum(scaled, self._low, out=scaled)  # rounding must not carry it over a bound
        np.minimum(scaled, self._high, out=scaled)
        scaled = scaled.astype(self._dtype).reshape(self._shape)
        try:
            seen, reward, terminated, truncated, self._info = self._env.step(scaled)
            for _ in self._more:
                if terminated or truncated:
                    break
                seen, more, terminated, truncated, self._info = self._env.step(scaled)
                reward = float(reward) + float(more)
        except Exception:
            self._current_time_step = None  # the next step starts a new episode
            raise
        if terminated or truncated:
            discount = _ZERO if terminated else _ONE
            return ts.TimeStep(_LAST, np.float32(reward), discount, self._read(seen))
        return ts.TimeStep(_MID, np.float32(reward), _ONE, self._read(seen))

    def render(self, mode: str = "rgb_array") -> np.ndarray:
        """Draws the current state.

        Returns:
            uint8 `[height, width, 3]`, in the environment's own size.
        """
        picture: Any = self._env.render() if self._env.render_mode == mode else None
        if picture is None:
            raise NotImplementedError(f"it has no render_mode '{mode}'")
        return picture

    def close(self) -> None:
        """Frees what the environment holds."""
        self._env.close()
