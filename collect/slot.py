"""One environment of a collector with its adder: steps in, rows and finished episodes out."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
from absl import logging
from tf_agents.environments import py_environment
from tf_agents.trajectories import time_step as ts

from collect.adder import NStepAdder
from sactory.rows import LIMIT, UNSOUND
from sactory.specs import Specs


class BadStepError(Exception):
    """An environment yielded what no row may hold; the message names the field."""


class Slot:
    """One environment, from the worker's view.

    Args:
        env: The environment.
        specs: The run's frozen specs.
        adder: Builds this environment's rows.
        out: Where the newest flat observation is kept for the policy, float32 `[O]`: a view
            into the worker's batch.
    """

    def __init__(
        self, env: py_environment.PyEnvironment, specs: Specs, adder: NStepAdder, out: np.ndarray
    ):
        self._env, self._adder, self._out = env, adder, out
        observation = specs.observation
        self._sensors = list(observation.items()) if isinstance(observation, dict) else None
        self._shape = None if isinstance(observation, dict) else tuple(observation.shape)
        self._repeat = specs.env["action_repeat"]
        try:
            env.get_info()
            self._has_info = True
        except NotImplementedError:  # the base class's method only raises
            self._has_info = False
        self.refused = 0
        self._begin()

    def step(
        self, action: np.ndarray, policy_step: int
    ) -> tuple[list[np.ndarray], dict[str, Any] | None]:
        """Takes one agent step; a new episode begins where one ended.

        Args:
            action: `[A]` in [-1, 1].
            policy_step: Train step of the weights that chose it; -1 for random actions.

        Returns:
            The rows that are whole now, and the finished episode's fields (without its sequence)
            or None.
        """
        try:
            step = self._stepped(action)
            last = step.step_type == ts.StepType.LAST
            observation = self._flat(step.observation)
            reward = self._scalar("reward", step.reward, -LIMIT, LIMIT)
            discount = self._scalar("discount", step.discount, 0.0, 1.0)
        except BadStepError as e:
            self.refused += 1
            logging.error("refused a step of the environment: %s; a new episode begins", e)
            self._begin()
            return [], None
        self._return += reward
        self._length += self._repeat
        rows = self._adder.step(action, reward, discount, last, observation, policy_step)
        if not last:
            self._out[:] = observation
            return rows, None
        episode = {
            "episode_return": self._return,
            "length": self._length,
            "duration": time.monotonic() - self._began,
            "success": self._success(),
        }
        self._begin()
        return rows, episode

    def _stepped(self, action: np.ndarray) -> ts.TimeStep:
        """The environment's step; whatever it raises (a diverged simulation) cuts the episode."""
        try:
            return self._env.step(action)
        except Exception as e:
            raise BadStepError(f"step() raised {type(e).__name__}: {e}") from e

    def _begin(self) -> None:
        for _ in range(3):
            try:
                observation = self._flat(self._first().observation)
                break
            except BadStepError as e:
                self.refused += 1
                logging.error("refused a first step of the environment: %s", e)
        else:
            raise BadStepError("three resets in a row gave no first step that a row may hold")
        self._adder.start(observation)
        self._out[:] = observation
        self._return, self._length, self._began = 0.0, 0, time.monotonic()

    def _first(self) -> ts.TimeStep:
        """An episode's first step; whatever reset() raises is a try that failed."""
        try:
            return self._env.reset()
        except Exception as e:
            raise BadStepError(f"reset() raised {type(e).__name__}: {e}") from e

    def _flat(self, observation: Any) -> np.ndarray:
        """The observation as one float32 vector `[O]`, checked."""
        if self._sensors is None:
            return self._checked("observation", observation, self._shape)
        parts = []
        for key, spec in self._sensors:
            try:
                value = observation[key]
            except (KeyError, TypeError, IndexError) as e:
                raise BadStepError(f"observation/{key} is missing") from e
            parts.append(self._checked(f"observation/{key}", value, tuple(spec.shape)))
        return np.concatenate(parts)

    @staticmethod
    def _checked(name: str, value: Any, shape: tuple[int, ...] | None) -> np.ndarray:
        try:
            value = np.array(value, np.float32)  # a copy: environments may reuse their buffers
        except (TypeError, ValueError) as e:
            raise BadStepError(f"{name} is not an array of numbers: {e}") from e
        if value.shape != shape:
            raise BadStepError(f"{name} has shape {value.shape}, its spec says {shape}")
        if not (np.abs(value) <= LIMIT).all():
            raise BadStepError(f"{name} holds {UNSOUND}: {value.ravel()[:8]}")
        return value.ravel()

    @staticmethod
    def _scalar(name: str, value: Any, low: float, high: float) -> float:
        try:
            number = float(value)
        except (TypeError, ValueError) as e:
            raise BadStepError(f"{name} is not one number but {value!r}") from e
        if not low <= number <= high:  # also false for NaN
            raise BadStepError(f"{name} is {number}, not from {low:g} to {high:g}")
        return number

    def _success(self) -> float | None:
        """Where the environment tells, through `get_info()['success']`."""
        if not self._has_info:
            return None
        try:
            success = float(self._env.get_info()["success"])
        except Exception:  # a user's code; an episode without a verdict is no mistake
            return None
        return success if math.isfinite(success) else None
