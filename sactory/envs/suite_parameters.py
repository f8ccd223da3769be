"""The parameters that every task of dm_control has: its physics, noise, latency, first states.

Values of the model are scaled, so 1 is the task as it is. They are put in place when the task
has set up an episode, since some tasks write to their model then.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import mujoco
import numpy as np
from tf_agents.trajectories import time_step as ts

from sactory.curriculum.environment import ParameterSpec
from sactory.envs.suite import DmEnvironment

SPECS = {
    "gravity_scale": ParameterSpec(1.0),
    "damping_scale": ParameterSpec(1.0, minimum=0.0),
    "friction_scale": ParameterSpec(1.0, minimum=0.0),
    "mass_scale": ParameterSpec(1.0, minimum=0.01),
    "actuator_gain_scale": ParameterSpec(1.0, minimum=0.0),
    "observation_noise": ParameterSpec(0.0, minimum=0.0),
    "action_noise": ParameterSpec(0.0, minimum=0.0),
    "latency": ParameterSpec(0, minimum=0, maximum=100),
    "initial_spread": ParameterSpec(0.0, minimum=0.0),
}
_STREAM = 0x50415241  # keeps this noise apart from the task's own random numbers
_LINEAR_GAINS = (int(mujoco.mjtGain.mjGAIN_FIXED), int(mujoco.mjtGain.mjGAIN_AFFINE))
_HINGE_OR_SLIDE = (int(mujoco.mjtJoint.mjJNT_HINGE), int(mujoco.mjtJoint.mjJNT_SLIDE))
_FREE = int(mujoco.mjtJoint.mjJNT_FREE)


class SuiteEnvironment(DmEnvironment):
    """A task of `dm_control.rl.control.Environment` with parameters; see `DmEnvironment`.

    `latency` counts rows; before the first action arrives the task gets the middle of its range.
    """

    def __init__(self, env: Any, action_repeat: int = 1, *, exact_dtype: bool = True):
        super().__init__(env, action_repeat, exact_dtype=exact_dtype)
        self._declare(SPECS)
        self._noise = np.random.default_rng(_STREAM)
        self._delayed: collections.deque[np.ndarray] = collections.deque()
        self._physics: _Physics | None = None

    def seed(self, seed: int) -> None:
        """Starts the random numbers anew; the next `step` or `reset` starts an episode."""
        super().seed(seed)
        self._noise = np.random.default_rng([seed % 2**32, _STREAM])

    def _apply_parameters(self, changed: Mapping[str, Any]) -> None:
        values = {**self._parameters, **changed}
        if self._physics is None:
            self._physics = _Physics(self._env, self._normal)
        self._physics.values = values
        if values["observation_noise"] or values["action_noise"] or values["latency"]:
            self.__dict__["_step"] = self._varied_step  # others go on with the short way
        else:
            self.__dict__.pop("_step", None)

    def _normal(self, scale: float, shape: int | tuple[int, ...]) -> np.ndarray:
        return self._noise.normal(0.0, scale, shape)

    def _reset(self) -> ts.TimeStep:
        return self._observed(super()._reset())

    def _varied_step(self, action: np.ndarray) -> ts.TimeStep:
        noise = self._parameters["action_noise"]
        if noise:
            action = np.clip(action + self._normal(noise, action.shape), -1, 1).astype(np.float32)
        self._delayed.append(action)
        return self._observed(super()._step(self._delayed.popleft()))

    def _observed(self, step: ts.TimeStep) -> ts.TimeStep:
        """The step as the policy gets to see it."""
        if step.step_type == ts.StepType.FIRST:
            nothing = np.zeros(self._action_shape, np.float32)
            self._delayed = collections.deque([nothing] * self._parameters["latency"])
        noise = self._parameters["observation_noise"]
        if not noise:
            return step
        seen = step.observation + self._normal(noise, step.observation.shape)
        return step._replace(observation=seen.astype(np.float32))


class _Physics:
    """Puts parameters into a task's model and state, whenever the task begins an episode.

    Args:
        env: A `dm_control.rl.control.Environment`.
        normal: Draws normal numbers of a scale and shape.

    Attributes:
        values: Every parameter's value.
    """

    def __init__(self, env: Any, normal: Callable[[float, int], np.ndarray]):
        self.values: Mapping[str, Any] = {}
        self._normal = normal
        self._saved: list[tuple[np.ndarray, np.ndarray]] = []
        self._mean_inertia = env.physics.model.ptr.stat.meaninertia
        self._begin = env.task.initialize_episode
        env.task.initialize_episode = self._initialize_episode

    def _initialize_episode(self, physics: Any) -> None:
        model, data = physics.model.ptr, physics.data.ptr
        if self._saved:  # the task sets up its episode in its own physics
            for array, unscaled in self._saved:
                array[:] = unscaled
            model.stat.meaninertia = self._mean_inertia
            physics.reset()  # the one before saw the scaled physics
        self._begin(physics)
        changed = [a for name, a in _scaled_arrays(model) if self.values[name] != 1.0]
        derived = _derived_arrays(model) if self.values["mass_scale"] != 1.0 else []
        self._saved = [(array, array.copy()) for array in (*changed, *derived)]
        for name, array in _scaled_arrays(model):
            array *= self.values[name]
        if derived:
            mujoco.mj_setConst(model, mujoco.MjData(model))
        if self.values["initial_spread"]:
            self._spread(model, data, self.values["initial_spread"])

    def _spread(self, model: Any, data: Any, scale: float) -> None:
        """Moves every joint's position and velocity at random, free bodies excepted."""
        joints = np.asarray(model.jnt_type)
        moves = joints[model.dof_jntid] != _FREE  # [nv]
        moved = np.array(data.qpos)
        mujoco.mj_integratePos(model, moved, self._normal(scale, model.nv) * moves, 1.0)
        for joint in np.flatnonzero(np.isin(joints, _HINGE_OR_SLIDE) & (model.jnt_limited == 1)):
            place = model.jnt_qposadr[joint]
            moved[place] = np.clip(moved[place], *model.jnt_range[joint])
        data.qpos[:] = moved
        data.qvel[:] += self._normal(scale, model.nv) * moves


def _derived_arrays(model: Any) -> list[np.ndarray]:
    """What MuJoCo computes from the masses when it compiles a model, as views."""
    return [
        model.body_subtreemass,
        model.body_invweight0,
        model.dof_M0,
        model.dof_invweight0,
        model.tendon_invweight0,
        model.actuator_acc0,
    ]


def _scaled_arrays(model: Any) -> Iterator[tuple[str, np.ndarray]]:
    """The arrays of an `MjModel` that each scale multiplies, as views."""
    yield "gravity_scale", model.opt.gravity
    yield "damping_scale", model.dof_damping
    yield "friction_scale", model.geom_friction
    yield "friction_scale", model.pair_friction
    yield "mass_scale", model.body_mass
    yield "mass_scale", model.body_inertia
    # gain x control + bias, so both; a muscle's parameters mean something else
    for actuator in np.flatnonzero(np.isin(model.actuator_gaintype, _LINEAR_GAINS)):
        yield "actuator_gain_scale", model.actuator_gainprm[actuator]
        yield "actuator_gain_scale", model.actuator_biasprm[actuator]
