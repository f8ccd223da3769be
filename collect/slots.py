"""The environments of a collector with their adder: steps in, rows and finished episodes out."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging
from tf_agents.environments import py_environment
from tf_agents.trajectories import time_step as ts

from collect.adder import NStepAdder
from collect.draws import Draws
from sactory.curriculum.state import scalar_of
from sactory.rows import LIMIT, UNSOUND, all_sound, join_key, sound
from sactory.specs import Specs

_LAST = int(ts.StepType.LAST)


class BadStepError(Exception):
    """An environment yielded what no row may hold; the message names the field."""


class Slots:
    """E environments, from the worker's view.

    Args:
        envs: The environments.
        specs: The run's frozen specs.
        adder: Builds their rows.
        draws: What the parameters of each episode are.

    Attributes:
        observations: The newest flat observations, float32 `[E, O]`, what the policy acts on next;
            zeros before `begin`.
        refused: Steps that were refused since the start.
    """

    def __init__(
        self,
        envs: Sequence[py_environment.PyEnvironment],
        specs: Specs,
        adder: NStepAdder,
        draws: Draws,
    ):
        self._envs, self._adder, self._draws = list(envs), adder, draws
        keys = specs.observation if isinstance(specs.observation, dict) else [None]
        self._sensors, size = [], 0
        for key, spec in zip(keys, specs.sensors.values()):
            span = slice(size, size + math.prod(spec.shape))
            self._sensors.append((key, tuple(spec.shape), span))
            size = span.stop
        self._repeat = specs.env["action_repeat"]
        self._has_info = [_has_info(env) for env in self._envs]
        self.refused = 0
        count = len(self._envs)
        self.observations = np.zeros((count, size), np.float32)
        self._next = np.zeros((count, size), np.float32)
        self._returns, self._lengths = [0.0] * count, [0] * count
        self._began = [0.0] * count
        self._has_begun = False

    def begin(self) -> None:
        """Begins the first episodes, unless they have begun."""
        if not self._has_begun:
            for number in range(len(self._envs)):
                self._begin(number)
            self._has_begun = True

    def step(
        self, actions: np.ndarray, policy_step: int
    ) -> tuple[np.ndarray, list[dict[str, Any]]]:
        """Takes one agent step in each environment; a new episode begins where one ended.

        Args:
            actions: `[E, ...]` in [-1, 1].
            policy_step: Train step of the weights that chose them; -1 for random actions.

        Returns:
            The rows that are whole now, float32 `[M, N]`, time-major, and the fields of each
            finished episode (without its sequence).
        """
        # reward, discount and whether it was the last one; of a refused step neutral numbers
        told, refused = [], []
        for number, action in enumerate(actions):
            try:
                told.append(self._stepped(number, action))
            except BadStepError as e:
                refused.append((number, e))
                told.append((0.0, 1.0, False))
                self._next[number] = 0.0
        refused += self._unsound()
        rewards, discounts, last = zip(*told)
        taken, ended = np.ones(len(told), bool), np.array(last)
        for number, error in refused:
            taken[number] = ended[number] = False
            self.refused += 1
            logging.error("refused a step of the environment: %s; a new episode begins", error)
            self._adder.cut(number)
        rows = self._adder.step(
            self.observations,
            actions,
            np.array(rewards),
            np.array(discounts),
            ended,
            self._next,
            policy_step,
            taken,
        )
        self.observations[:] = self._next
        return rows, self._go_on(rewards, last, taken)

    def _go_on(self, rewards: Any, last: Any, taken: np.ndarray) -> list[dict[str, Any]]:
        """Counts the step and begins new episodes; the fields of those that have finished."""
        episodes = []
        for number, is_taken in enumerate(taken.tolist()):
            if is_taken:
                self._returns[number] += rewards[number]
                self._lengths[number] += self._repeat
                if not last[number]:
                    continue
                info = self._info(number)
                episode = {
                    "episode_return": self._returns[number],
                    "length": self._lengths[number],
                    "duration": time.monotonic() - self._began[number],
                    "success": scalar_of(info, "success"),
                    "played": self._draws.played(number, info),
                }
                episodes.append(episode)
            self._begin(number)
        return episodes

    def _stepped(self, number: int, action: np.ndarray) -> tuple[float, float, bool]:
        """One environment's step; whatever it raises (a diverged simulation) cuts the episode.

        Its observation is put in its place, but not looked at yet.
        """
        try:
            step = self._envs[number].step(action)
        except Exception as e:
            raise BadStepError(f"step() raised {type(e).__name__}: {e}") from e
        self._put(step.observation, self._next[number])
        reward = _scalar("reward", step.reward, -LIMIT, LIMIT)
        discount = _scalar("discount", step.discount, 0.0, 1.0)
        return reward, discount, int(step.step_type) == _LAST

    def _put(self, observation: Any, place: np.ndarray) -> None:
        """Copies an observation into a flat float32 vector `[O]`: environments reuse buffers."""
        for key, shape, span in self._sensors:
            value = observation
            if key is not None:
                try:
                    value = observation[key]
                except (KeyError, TypeError, IndexError) as e:
                    raise BadStepError(f"{join_key('observation', key)} is missing") from e
            try:
                value = np.asarray(value, np.float32)
            except (TypeError, ValueError) as e:
                name = join_key("observation", key)
                raise BadStepError(f"{name} is not an array of numbers: {e}") from e
            if value.shape != shape:
                name = join_key("observation", key)
                raise BadStepError(f"{name} has shape {value.shape}, its spec says {shape}")
            place[span] = value.ravel()

    def _unsound(self) -> list[tuple[int, BadStepError]]:
        """Which environments' next observations no row may hold, all checked at once."""
        if all_sound(self._next):
            return []
        numbers = np.flatnonzero(~sound(self._next)).tolist()
        return [(number, self._what_is_wrong(self._next[number])) for number in numbers]

    def _what_is_wrong(self, observation: np.ndarray) -> BadStepError:
        for key, _, span in self._sensors:
            if not all_sound(observation[span]):
                name, values = join_key("observation", key), observation[span][:8]
                return BadStepError(f"{name} holds {UNSOUND}: {values}")
        raise AssertionError("nothing is wrong with it")

    def _begin(self, number: int) -> None:
        """Begins an episode."""
        place = self.observations[number]
        for _ in range(3):
            try:
                self._put(self._first(number).observation, place)
                if not all_sound(place):
                    raise self._what_is_wrong(place)
                break
            except BadStepError as e:
                self.refused += 1
                logging.error("refused a first step of the environment: %s", e)
        else:
            raise BadStepError("three resets in a row gave no first step that a row may hold")
        self._returns[number], self._lengths[number] = 0.0, 0
        self._began[number] = time.monotonic()

    def _first(self, number: int) -> ts.TimeStep:
        """An episode's first step; whatever the environment raises is a try that failed."""
        call = "set_parameters()"
        try:
            self._draws.begin(number, self._envs[number])
            call = "reset()"
            return self._envs[number].reset()
        except Exception as e:
            raise BadStepError(f"{call} raised {type(e).__name__}: {e}") from e

    def _info(self, number: int) -> Mapping[str, Any]:
        """What the environment tells of the episode that has ended."""
        if not self._has_info[number]:
            return {}
        try:
            info: Any = self._envs[number].get_info()
        except Exception:  # a user's code; an episode without a verdict is no mistake
            return {}
        return info if isinstance(info, Mapping) else {}


def _has_info(env: py_environment.PyEnvironment) -> bool:
    try:
        env.get_info()
        return True
    except NotImplementedError:  # the base class's method only raises
        return False


def _scalar(name: str, value: Any, low: float, high: float) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError) as e:
        raise BadStepError(f"{name} is not one number but {value!r}") from e
    if not low <= number <= high:  # also false for NaN
        raise BadStepError(f"{name} is {number}, not from {low:g} to {high:g}")
    return number
