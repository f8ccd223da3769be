"""The ContactInsert environment: insertion by touch, as a `PyEnvironment`.

What it is and why: docs/contact_insert.md.
"""

from __future__ import annotations

import math
import typing
from collections.abc import Mapping
from typing import Any

import numpy as np
from tf_agents.environments import py_environment
from tf_agents.specs import array_spec
from tf_agents.trajectories import time_step as ts

from sactory.curriculum.environment import ParameterSpec
from sactory.envs.contact_insert.baselines import BASE_GAIN, BASELINES, Baseline
from sactory.envs.contact_insert.judge import Done, Judge
from sactory.envs.contact_insert.models import Geometry
from sactory.envs.contact_insert.parameters import DEFAULT_LEVEL, checked, specs
from sactory.envs.contact_insert.pictures import Pictures
from sactory.envs.contact_insert.sensing import Senses
from sactory.envs.contact_insert.simulation import Simulation
from sactory.envs.contact_insert.start import draw
from sactory.envs.contact_insert.variants import PHYSICS_STEP, VARIANTS

_ZERO = np.float32(0.0)
_ONE = np.float32(1.0)


class ContactInsert(py_environment.PyEnvironment):
    """One of the variants `planar`, `peg` and `plate`.

    Observations are float32 [history x frame], the newest frame last; a frame is the wrench, the
    error to the noisy goal, and the hand's velocity, each of the hand's axes. Actions are float32
    [axes] in [-1, 1]; they are added to a base controller that pulls towards the noisy goal.

    Args:
        variant: `planar`, `peg` or `plate`.
        level: `easy`, `medium` or `hard`: the parameters' defaults.
        seed: Two environments with the same seed behave alike.
        history: Frames of an observation.
        velocity: Whether a frame has the hand's velocity.
        variable_impedance: Whether actions also scale the hand's stiffness, axis by axis.
        parameters: Values that differ from the level's.
        max_episode_steps: Env steps until the time limit; None: the variant's own.
        action_repeat: Env steps that each action is held for. Rewards are summed.

    Attributes:
        action_repeat: The same number.
        max_episode_steps: Env steps until the time limit.
        control_timestep: Simulated seconds of one env step.
        observation_keys: (): observations are one array.
        variant: The variant's numbers.
        senses: What scales observations.
        simulation: The physics; None before the first reset.
        info_metrics: Scalars of an episode that a curriculum may be judged by.
        baselines: Names of the scripted policies that `baseline` makes.
    """

    renders_any_size = True
    observation_keys = ()
    info_metrics = ("success", "peak_force", "depth")
    baselines = tuple(BASELINES)

    def __init__(
        self,
        variant: str,
        level: str = DEFAULT_LEVEL,
        seed: int = 0,
        *,
        history: int = 4,
        velocity: bool = True,
        variable_impedance: bool = False,
        parameters: Mapping[str, Any] | None = None,
        max_episode_steps: int | None = None,
        action_repeat: int = 1,
    ):
        super().__init__()
        self.variant = v = VARIANTS[variant]
        self.action_repeat = action_repeat
        self.max_episode_steps = max_episode_steps or v.max_episode_steps
        self.control_timestep = v.control_timestep
        self._variable_impedance = variable_impedance
        self._action_size = v.num_axes * (2 if variable_impedance else 1)
        self._specs = specs(variant, level)
        self._wanted = {name: spec.default for name, spec in self._specs.items()}
        self.set_parameters(parameters or {})
        self.senses = Senses(v, history, velocity)
        self._step_size = np.array(v.per_axis(*v.step))
        self._descent = np.ones(v.num_axes)
        self._descent[v.num_slides - 1] = v.descent
        self.simulation: Simulation | None = None
        self._judge = Judge(v, self._wanted)
        self._pictures: Pictures | None = None
        self.seed(seed)

    def observation_spec(self) -> array_spec.ArraySpec:
        """Float32 [history x frame]."""
        return array_spec.ArraySpec((math.prod(self.senses.shape),), np.float32, "observation")

    def action_spec(self) -> array_spec.BoundedArraySpec:
        """Float32 [axes] in [-1, 1]; twice as many with variable impedance."""
        return array_spec.BoundedArraySpec((self._action_size,), np.float32, -1.0, 1.0, "action")

    def seed(self, seed: int) -> None:
        """Starts the random numbers anew; the next `step` or `reset` starts an episode."""
        self._random = np.random.default_rng(seed)
        self._current_time_step = None

    def parameter_specs(self) -> dict[str, ParameterSpec]:
        """What `set_parameters` takes; the same for all values."""
        return dict(self._specs)

    def get_parameters(self) -> dict[str, Any]:
        """The values that hold from the next reset on."""
        return dict(self._wanted)

    def set_parameters(self, values: Mapping[str, Any]) -> None:
        """Sets parameters by name, for the episodes from the next reset on.

        Raises:
            KeyError: There is no such parameter.
            ValueError: A value has another type or shape, or lies outside its range.
        """
        self._wanted = {**self._wanted, **checked(self._specs, values)}

    set_state = set_parameters  # as the original's environments call it
    get_state = get_parameters

    def get_info(self) -> dict[str, Any]:
        """Of the episode so far: whether it succeeded, why it ended, and the truth of its state."""
        judge, simulation = self._judge, self.simulation
        point = np.zeros(3) if simulation is None else simulation.point
        return {
            "success": judge.done == Done.SUCCESS,
            "done_reason": int(judge.done),
            "inside": judge.inside,
            "peak_force": judge.peak_force,
            "depth": float(self.variant.tip - point[2]),
            "point": point,
        }

    def baseline(self, name: str, seed: int = 0) -> Baseline:
        """A scripted policy for this environment; a new one for each batch of episodes."""
        return BASELINES[name](self, seed)

    def should_reset(self, current_time_step: ts.TimeStep) -> bool:
        """After the last step."""
        return bool(current_time_step.step_type == ts.StepType.LAST)

    def _reset(self) -> ts.TimeStep:
        self._values = values = self._wanted
        self.simulation = simulation = self._prepared(values)
        self._start = start = draw(self.variant, values, self._random)
        simulation.reset(start.fixture, start.yaw, start.height, start.angles)
        self._judge = Judge(self.variant, values)
        self._before = np.zeros(self._action_size)
        self._error = start.goal - simulation.pose
        self.senses.begin(values, start.bias)
        self.senses.sense(simulation, self._error, self._random)
        return ts.TimeStep(ts.StepType.FIRST, _ZERO, _ONE, self.senses.observation)

    def _prepared(self, values: Mapping[str, Any]) -> Simulation:
        """The simulation with these parameters; compiled again if its shapes differ."""
        geometry = Geometry(
            clearance=values.get("clearance", 0.0),
            chamfer=values.get("chamfer", 0.0),
            slot_gap=values.get("slot_gap", 0.0),
            hole_shape=values.get("hole_shape", "box"),
        )
        simulation = self.simulation
        if simulation is None or simulation.geometry != geometry:
            simulation = Simulation(self.variant, geometry)
        simulation.configure(
            values["friction"], values["mass_scale"], values["grip_stiffness_scale"]
        )
        simulation.set_stiffness(values["stiffness_scale"])
        return simulation

    def _step(self, action: np.ndarray) -> ts.TimeStep:
        if action.shape != (self._action_size,):  # NumPy would broadcast it silently
            raise ValueError(f"action of shape {action.shape}, expected ({self._action_size},)")
        reward = 0.0
        for _ in range(self.action_repeat):
            reward += self._env_step(action.astype(np.float64))
            if self._judge.done != Done.RUNNING:
                break
        done = self._judge.done
        step_type = ts.StepType.MID if done == Done.RUNNING else ts.StepType.LAST
        discount = _ONE if done in (Done.RUNNING, Done.TIME) else _ZERO
        return ts.TimeStep(step_type, np.float32(reward), discount, self.senses.observation)

    def _env_step(self, action: np.ndarray) -> float:
        """Simulates one env step; returns its reward."""
        v, values, random = self.variant, self._values, self._random
        simulation = typing.cast(Simulation, self.simulation)  # `_reset` made it
        if values["action_noise"]:
            action = action + values["action_noise"] * random.standard_normal(action.size)
        if self._variable_impedance:  # from a quarter to twice the stiffness
            scale = 2.0 ** (1.5 * np.clip(action[v.num_axes :], -1.0, 1.0) - 0.5)
            simulation.set_stiffness(values["stiffness_scale"] * scale)
        base = np.clip(BASE_GAIN * self._error / self._step_size, -1.0, 1.0) * self._descent
        low, high = values["policy_lag_ms"]
        lag = random.integers(low, high + 1) * 0.001 / PHYSICS_STEP if high else 0.0
        residual = values["residual_weight"] * action[: v.num_axes]
        simulation.step(values["base_weight"] * base + residual, round(lag))
        pose = simulation.pose
        self._error = self._start.goal - pose
        self.senses.sense(simulation, self._error, random)
        rotation = float(np.linalg.norm(self._start.upright - pose[v.num_slides :]))
        reward = self._judge.step(simulation, rotation, action, self._before)
        self._before = action
        if self._judge.done == Done.RUNNING and self._judge.steps >= self.max_episode_steps:
            self._judge.done = Done.TIME
        return reward

    def render(
        self, mode: str = "rgb_array", *, height: int = 240, width: int = 320, camera: str = "both"
    ) -> np.ndarray:
        """Draws the current state: the scene on the left, the mouth from close by on the right.

        Args:
            mode: `rgb_array`.
            height: Pixels.
            width: Pixels.
            camera: `both`, `overview` or `closeup`.

        Returns:
            uint8 [height, width, 3].
        """
        if mode != "rgb_array":
            raise ValueError(f"mode '{mode}': only 'rgb_array' is supported")
        if self.simulation is None:
            self.reset()
        simulation = typing.cast(Simulation, self.simulation)
        if self._pictures is None:
            self._pictures = Pictures()
        return self._pictures.draw(simulation.model, simulation.data, height, width, camera)

    def close(self) -> None:
        """Frees what drawing holds."""
        if self._pictures is not None:
            self._pictures.close()
            self._pictures = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_pictures": None}
