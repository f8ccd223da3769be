"""When an episode ends, and what each of its steps is worth."""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from sactory.envs.contact_insert.simulation import Simulation
from sactory.envs.contact_insert.variants import BLOCK_WIDTH, Variant

_FORCE_STEPS = 3  # env steps in a row above the force limit that end an episode
_ROTATION_SCALE = 0.5  # rad, at which the cost of rotation is whole
_FORCE_MIDDLE = 10.0  # N, at which the cost of force is half


class Done(enum.IntEnum):
    """Why an episode ended."""

    RUNNING = -1
    FAILED = 0
    TIME = 1
    SUCCESS = 2


class Judge:
    """Rewards and the end of one episode.

    Args:
        variant: What is judged.
        parameters: Their values in this episode.

    Attributes:
        done: Whether and why the episode has ended.
        steps: Env steps so far.
        inside: Whether the part is where it belongs now.
        peak_force: The largest force so far, N.
    """

    def __init__(self, variant: Variant, parameters: Mapping[str, Any]):
        self._variant, self._parameters = variant, parameters
        self.done = Done.RUNNING
        self.steps = 0
        self.inside = False
        self.peak_force = 0.0
        self._held = 0
        self._overloaded = 0

    def step(
        self, simulation: Simulation, rotation: float, action: np.ndarray, before: np.ndarray
    ) -> float:
        """Judges an env step.

        Args:
            simulation: The state after it.
            rotation: Angle to the true goal, rad.
            action: What was done.
            before: What was done the step before.

        Returns:
            The reward.
        """
        variant, parameters = self._variant, self._parameters
        self.steps += 1
        point = simulation.point
        force = float(np.linalg.norm(simulation.wrench[: variant.num_slides]))
        if not math.isfinite(force) or simulation.broken:
            self.done = Done.FAILED
            return -parameters["reward_failure"]
        self.peak_force = max(self.peak_force, force)
        self.inside = point[2] <= variant.success and all(
            abs(offset) <= limit for offset, limit in zip(point, variant.offset_limits)
        )
        self._held = self._held + 1 if self.inside else 0
        self._overloaded = self._overloaded + 1 if force > parameters["force_abort"] else 0
        self.done = self._outcome(simulation)
        reward = -self._cost(point, rotation, force, action - before)
        if self.done == Done.SUCCESS:
            reward += parameters["reward_success"] * self._quality(point)
        elif self.done == Done.FAILED:
            reward -= parameters["reward_failure"]
        return reward

    def _outcome(self, simulation: Simulation) -> Done:
        if self._held >= self._parameters["goalreach_steps"]:
            return Done.SUCCESS
        lost = any(slip > limit for slip, limit in zip(simulation.slip, self._variant.slip_limit))
        if lost or self._overloaded >= _FORCE_STEPS:
            return Done.FAILED
        return Done.RUNNING

    def _cost(self, point: np.ndarray, rotation: float, force: float, change: np.ndarray) -> float:
        variant, parameters = self._variant, self._parameters
        cost = parameters["reward_time"]
        if not self.inside:
            offset = math.hypot(point[0], point[1]) / variant.cost_scales[0]
            height = max(point[2] - variant.goal, 0.0) / variant.cost_scales[1]
            cost += parameters["reward_offset"] * min(offset, 1.0)
            cost += parameters["reward_height"] * min(height, 1.0)
            cost += parameters["reward_rotation"] * min(rotation / _ROTATION_SCALE, 1.0)
        cost += parameters["reward_force"] / (1.0 + math.exp(_FORCE_MIDDLE - min(force, 100.0)))
        return cost + parameters["reward_action"] * float(change @ change)

    def _quality(self, point: np.ndarray) -> float:
        """1, or half as much for each slot that a plate is away from the middle one."""
        if self._variant.name != "plate":
            return 1.0
        pitch = self._parameters["slot_gap"] + BLOCK_WIDTH
        return 0.5 ** round(abs(point[1]) / pitch)
