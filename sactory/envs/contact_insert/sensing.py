"""What a policy senses: noisy frames of wrench, error and velocity, and their history."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from sactory.envs.contact_insert.simulation import Simulation
from sactory.envs.contact_insert.variants import Variant

_LIMIT = 100.0  # of an observation; far beyond what a sound simulation shows


class Senses:
    """The latest frames of one environment.

    A frame is the wrench, the error to the believed goal and, if wanted, the velocity, each with
    one number for each of the hand's axes, scaled to about 1; wrenches by sign(x) log(1 + |x|).

    Args:
        variant: Whose hand senses.
        history: Frames that are kept.
        velocity: Whether frames have the velocity.
    """

    def __init__(self, variant: Variant, history: int, velocity: bool):
        self._variant, self._velocity = variant, velocity
        self._frames = np.zeros((history, variant.num_axes * (3 if velocity else 2)))
        self.wrench_scale = np.array(variant.per_axis(1.0, variant.scales[2]))
        self.error_scale = np.array(variant.per_axis(*variant.scales[:2]))
        self._velocity_scale = np.array(variant.per_axis(*variant.step)) / variant.control_timestep
        self._torque_noise = np.array(variant.per_axis(1.0, variant.torque_noise))

    @property
    def shape(self) -> tuple[int, int]:
        """Frames and their size."""
        frames, size = self._frames.shape
        return frames, size

    def begin(self, values: Mapping[str, Any], bias: np.ndarray) -> None:
        """Starts an episode with these parameters; `sense` comes next."""
        self._values, self._bias = values, bias
        self._empty = True

    def sense(self, simulation: Simulation, error: np.ndarray, random: np.random.Generator) -> None:
        """Takes a frame; an episode's first one fills the history."""
        values = self._values
        wrench = simulation.wrench + self._bias
        if values["wrench_noise"]:
            noise = random.standard_normal(wrench.size) * self._torque_noise
            wrench += values["wrench_noise"] * noise
        wrench /= self.wrench_scale
        if any(values["pose_noise"]):
            sigma = self._variant.per_axis(*values["pose_noise"])
            error = error + random.standard_normal(error.size) * sigma
        parts = [np.sign(wrench) * np.log1p(np.abs(wrench)), error / self.error_scale]
        if self._velocity:
            parts.append(simulation.velocity / self._velocity_scale)
        frame = np.concatenate(parts)
        if self._empty:
            self._frames[:] = frame
            self._empty = False
        else:
            self._frames[:-1] = self._frames[1:]
            self._frames[-1] = frame

    @property
    def observation(self) -> np.ndarray:
        """Float32 [history x frame], the newest frame last; a new array."""
        # The last step of a simulation that blew up must still be a row.
        finite = np.nan_to_num(self._frames, nan=0.0, posinf=_LIMIT, neginf=-_LIMIT)
        return np.clip(finite, -_LIMIT, _LIMIT).ravel().astype(np.float32)
