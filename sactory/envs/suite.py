"""The lean adapter from dm_env (dm_control's interface) to TF-Agents' `PyEnvironment`.

It does in one object, for a few microseconds a step, what TF-Agents does with four wrappers:
flat float32 observations, actions in [-1, 1], action repeat. Time limits are dm_control's own:
the last step has discount 1, a true terminal 0.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import math
import operator
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import dm_env
import numpy as np
from dm_env import specs
from tf_agents.specs import array_spec
from tf_agents.trajectories import time_step as ts

from sactory import envs, rendering, settings
from sactory.envs import parameters
from sactory.errors import UserError

_FLOAT32_HOLDS = ("float16", "float32", "float64", "bool", "int8", "uint8", "int16", "uint16")
_UNBOUNDED = 1e10  # how dm_control writes "no limit" in an action spec
_DM_MID = dm_env.StepType.MID
_MID = ts.StepType.MID
_ZERO = np.float32(0.0)
_ONE = np.float32(1.0)
# short ways to what every step needs
_TimeStep = ts.TimeStep
_new = tuple.__new__
_float32 = np.float32
_concatenate = np.concatenate


class DmEnvironment(parameters.Parametrized):
    """Any `dm_env.Environment` as a `PyEnvironment`.

    Observations are one float32 vector [O], a fresh array each step: the entries of the
    environment's observation dictionary in sorted order of their keys, each flattened row by
    row, scalars as one element. That is the order of TF-Agents' `FlattenObservationsWrapper`, so
    an exported policy runs in `suite_dm_control` as it is.

    Actions are float32 [A] in [-1, 1], mapped linearly to the environment's own bounds. An
    action without bounds (dm_control's lqr) is passed on as it is.

    `step` after the last step of an episode starts the next one. If the environment raises, so
    does `step`, and the next `step` or `reset` starts a new episode.

    Args:
        env: The environment to adapt.
        action_repeat: Env steps that each action is held for. Rewards are summed; an episode's
            end cuts the rest short.
        exact_dtype: Hand actions over in the dtype that the environment's spec names. The
            suite's tasks don't mind: they copy the numbers into an array of their own.

    Attributes:
        action_repeat: The same number.
        max_episode_steps: Env steps until the time limit; None if there is none.
        observation_keys: The order of the entries; () if the environment has a single one.
        control_timestep: Simulated seconds of one env step; None if unknown.
        renders_any_size: `render` takes a height and a width.
    """

    renders_any_size = True

    def __init__(
        self, env: dm_env.Environment, action_repeat: int = 1, *, exact_dtype: bool = True
    ):
        super().__init__()
        self._env = env
        self._exact_dtype = exact_dtype
        self.action_repeat = action_repeat
        self._more = action_repeat - 1
        self.max_episode_steps = _max_episode_steps(env)
        timestep: Any = getattr(env, "control_timestep", None)
        self.control_timestep: Any = timestep() if callable(timestep) else None
        self._set_observation(env.observation_spec())
        self._set_action(env.action_spec())
        self._declare_of(env)

    def get_info(self) -> Any:
        """What the environment's own `get_info` tells, if it has one."""
        tell = getattr(self._env, "get_info", None)
        return tell() if callable(tell) else {}

    def _set_observation(self, spec: Any) -> None:
        entries = spec if isinstance(spec, dict) else {"": spec}
        for key, entry in entries.items():
            if not isinstance(entry, specs.Array) or entry.dtype.name not in _FLOAT32_HOLDS:
                raise UserError(
                    f"observation '{key}' is {entry}: float32 can't hold it exactly; "
                    f"use one of {', '.join(_FLOAT32_HOLDS)}"
                )
        self.observation_keys = tuple(sorted(entries)) if isinstance(spec, dict) else ()
        keys = self.observation_keys
        # itemgetter returns a tuple only for two keys and more
        self._entries = operator.itemgetter(*keys) if len(keys) > 1 else self._single_entry
        size = sum(math.prod(entry.shape) for entry in entries.values())
        self._observation_spec = array_spec.ArraySpec((size,), np.float32, "observation")

    def _single_entry(self, observation: Any) -> tuple[Any]:
        return (observation[self.observation_keys[0]] if self.observation_keys else observation,)

    def _set_action(self, spec: Any) -> None:
        if not isinstance(spec, specs.BoundedArray) or spec.dtype.kind != "f" or not spec.shape:
            raise UserError(
                f"the action spec is {spec}: Sactory needs one bounded array of floats [A]"
            )
        self._action_dtype, self._action_shape = spec.dtype, spec.shape
        low = np.broadcast_to(np.asarray(spec.minimum, np.float64), spec.shape)
        high = np.broadcast_to(np.asarray(spec.maximum, np.float64), spec.shape)
        bounded = (low > -_UNBOUNDED) & (high < _UNBOUNDED)
        self._centre = np.where(bounded, low / 2 + high / 2, 0.0)
        scale = np.where(bounded, high / 2 - low / 2, 1.0)
        while True:  # rounding must not carry ±1 over a bound that the environment may check
            over = bounded & ((self._centre + scale > high) | (self._centre - scale < low))
            if not over.any():
                break
            scale = np.where(over, np.nextafter(scale, 0.0), scale)
        self._scale = scale
        self._rescales = bool((self._centre != 0).any() or (scale != 1).any())
        ours = np.float64 if self._rescales else np.float32
        self._casts = self._exact_dtype and spec.dtype != ours
        self._action_spec = array_spec.BoundedArraySpec(
            spec.shape, np.float32, minimum=-1.0, maximum=1.0, name="action"
        )

    @property
    def physics(self) -> Any:
        """The simulator's state, for environments that have one (all of dm_control's)."""
        env: Any = self._env  # dm_env's interface knows no physics
        return env.physics

    def observation_spec(self) -> array_spec.ArraySpec:
        """Float32 [O]."""
        return self._observation_spec

    def action_spec(self) -> array_spec.BoundedArraySpec:
        """Float32 [A] in [-1, 1]."""
        return self._action_spec

    def should_reset(self, current_time_step: ts.TimeStep) -> bool:
        """Never: the adapted environment resets itself."""
        return False

    def _reset(self) -> ts.TimeStep:
        self._current_time_step = None
        _, _, _, observation = self._env.reset()
        return ts.TimeStep(ts.StepType.FIRST, _ZERO, _ONE, self._flat(observation))

    def _step(self, action: np.ndarray) -> ts.TimeStep:
        if action.shape != self._action_shape:  # NumPy would broadcast it silently
            raise ValueError(f"action of shape {action.shape}, expected {self._action_shape}")
        if self._rescales:
            action = action * self._scale
            action += self._centre
        if self._casts:
            action = action.astype(self._action_dtype)
        try:
            step_type, reward, discount, observation = self._env.step(action)
            if self._more and step_type == _DM_MID:
                step_type, reward, discount, observation = self._repeat(action, reward)
        except Exception:
            self._current_time_step = None  # the next step starts a new episode
            raise
        # the same as _flat
        flat = _concatenate(self._entries(observation), None, dtype=_float32)
        if step_type == _DM_MID and discount == 1.0:
            # Nearly every step ends here: names of this module only and no namedtuple's
            # constructor, because a simulator's step leaves the caches cold.
            return _new(_TimeStep, (_MID, _float32(reward), _ONE, flat))
        if step_type == dm_env.StepType.FIRST:
            return ts.TimeStep(ts.StepType.FIRST, _ZERO, _ONE, flat)
        return ts.TimeStep(ts.StepType(step_type), _float32(reward), _float32(discount), flat)

    def _repeat(self, action: np.ndarray, reward: float) -> dm_env.TimeStep:
        """Holds the action for the other env steps, or to the episode's end; sums the rewards."""
        step = None
        for _ in range(self._more):
            step = self._env.step(action)
            reward += step.reward
            if step.step_type != _DM_MID:
                break
        return typing.cast(dm_env.TimeStep, step)._replace(reward=reward)

    def _flat(self, observation: Any) -> np.ndarray:
        return _concatenate(self._entries(observation), None, dtype=_float32)

    def seed(self, seed: int) -> None:
        """Starts the random numbers anew; the next `step` or `reset` starts an episode.

        Raises:
            NotImplementedError: The environment has no generator in one of dm_control's places.
        """
        generator = getattr(getattr(self._env, "task", None), "random", None)  # the suite's
        if generator is None:
            generator = getattr(self._env, "random_state", None)  # dm_control.composer's
        if not isinstance(generator, np.random.RandomState):
            raise NotImplementedError("this environment can't be seeded")
        generator.seed(seed % 2**32)
        self._current_time_step = None

    def render(
        self, mode: str = "rgb_array", *, height: int = 240, width: int = 320, camera_id: int = 0
    ) -> np.ndarray:
        """Draws the current state, seen by a camera of the model; always from the same thread.

        Returns:
            uint8 [height, width, 3].
        """
        if mode != "rgb_array":
            raise ValueError(f"mode '{mode}': only 'rgb_array' is supported")
        try:
            physics = self.physics
            camera_id = min(camera_id, physics.model.ncam - 1)  # -1 is the free camera
        except AttributeError:
            raise NotImplementedError("it has no MuJoCo physics to draw") from None
        rendering.fit_buffer(physics, height, width)
        return physics.render(height, width, camera_id=camera_id)

    def close(self) -> None:
        """Frees what the environment holds; after rendering, call it before the program ends."""
        if hasattr(self._env, "physics"):
            rendering.free(self.physics)
        self._env.close()


def _max_episode_steps(env: Any) -> int | None:
    """Env steps until the time limit, as dm_control counts them; None if there is no limit."""
    limit = getattr(env, "max_episode_steps", None)  # a user's own environment may say it
    if limit is None:
        limit = getattr(env, "_step_limit", None)  # dm_control.rl.control, and so the suite
    if limit is None and hasattr(env, "_time_limit"):  # dm_control.composer; seconds
        limit = env._time_limit / env.control_timestep() - 1e-6
    return None if limit is None or math.isinf(limit) else math.ceil(limit)


def load(env: settings.Env, seed: int, search: Sequence[Path] = ()) -> DmEnvironment:
    """Builds a task of dm_control's suite.

    A task whose model itself is drawn at random (lqr) has the same model under every seed;
    `task_kwargs = {'random': 5}` draws another.
    """
    del search  # nothing of the user's
    from dm_control import suite  # `envs.load` has kept OpenGL out

    from sactory.envs.suite_parameters import SuiteEnvironment  # builds on this module

    domain, task = envs.suite_tasks()[env.name]
    kwargs = {"random": 0, **(env.task_kwargs or {})}
    if env.time_limit is not None:
        if "time_limit" in kwargs:
            raise UserError("envs.load.time_limit is given in envs.load.task_kwargs as well")
        kwargs["time_limit"] = env.time_limit
    factory = importlib.import_module(f"dm_control.suite.{domain}").SUITE[task]
    envs.check_kwargs(env.name, factory, kwargs)
    with _no_deprecations():
        dm_environment = suite.load(domain, task, task_kwargs=kwargs)
    rendering.lighten(dm_environment.physics.model)
    adapted = SuiteEnvironment(dm_environment, env.action_repeat, exact_dtype=False)
    adapted.seed(seed)
    return adapted


@contextlib.contextmanager
def _no_deprecations() -> Iterator[None]:
    """Hides MuJoCo's notes about the suite's own models, which no user can mend."""

    def is_news(record: logging.LogRecord) -> bool:
        return "is deprecated" not in record.getMessage()

    logger = logging.getLogger("absl")
    logger.addFilter(is_news)
    try:
        yield
    finally:
        logger.removeFilter(is_news)
