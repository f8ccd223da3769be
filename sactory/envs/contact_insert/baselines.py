"""Scripted policies that need no training: what a learnt one must beat.

A policy acts on a batch of observations of episodes that began together, one call an env step;
make a new one for each batch. They see what a learnt policy sees.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from sactory.envs.contact_insert.environment import ContactInsert

BASE_GAIN = 0.5  # share of the error to the noisy goal that the base controller asks for a step
_LIGHT = 5.0  # N with which the search presses
_TOUCHING = 1.5  # N from which something is touched


class Baseline(Protocol):
    """Acts as `sactory.actor.Actor` does."""

    def act(self, observation: np.ndarray) -> np.ndarray:
        """Actions float32 [B, A] for observations [B, O]."""
        ...


class Straight:
    """Adds nothing: the base controller goes straight to the noisy goal."""

    def __init__(self, env: ContactInsert, seed: int = 0):
        del seed  # nothing is random
        self._size = env.action_spec().shape[0]

    def act(self, observation: np.ndarray) -> np.ndarray:
        """Zeros [B, A]."""
        return np.zeros((len(observation), self._size), np.float32)


class Jiggle:
    """Adds white noise."""

    def __init__(self, env: ContactInsert, seed: int = 0):
        self._size = env.action_spec().shape[0]
        self._random = np.random.default_rng(seed)

    def act(self, observation: np.ndarray) -> np.ndarray:
        """Uniform numbers [B, A] in [-1, 1]."""
        return self._random.uniform(-1, 1, (len(observation), self._size)).astype(np.float32)


class Search:
    """Presses lightly and sweeps, or spirals with a peg, around the noisy goal.

    Once the part is in, the base controller goes on alone.

    Args:
        env: Where it acts.
        seed: Without meaning: nothing is random.
        yields: Whether it moves with the forces sideways once the part is in.
    """

    def __init__(self, env: ContactInsert, seed: int = 0, yields: bool = False):
        del seed
        self._yields = yields
        self._variant = env.variant
        self._senses = env.senses
        self._size = env.action_spec().shape[0]
        values = env.get_parameters()
        self._base_weight, self._residual_weight = values["base_weight"], values["residual_weight"]
        self._axes, self._slides = env.variant.num_axes, env.variant.num_slides
        self._step = np.array(env.variant.per_axis(*env.variant.step))
        self._stiffness = np.array(env.variant.per_axis(*env.variant.stiffness))
        self._time: np.ndarray | None = None

    def act(self, observation: np.ndarray) -> np.ndarray:
        """Actions [B, A]."""
        frames = observation.reshape(len(observation), *self._senses.shape)[:, -1]
        n, z = self._axes, self._slides - 1
        logs = frames[:, :n]
        wrench = np.sign(logs) * np.expm1(np.abs(logs)) * self._senses.wrench_scale
        error = frames[:, n : 2 * n] * self._senses.error_scale
        pressing = np.negative(wrench[:, z])
        lowest = self._variant.goal - error[:, z] - self._variant.tip
        inside = lowest < -0.003
        base = np.clip(BASE_GAIN * error / self._step, -1, 1)
        base[:, z] *= self._variant.descent
        base *= self._base_weight
        touching = (pressing > _TOUCHING) & ~inside
        offset, change = self._pattern(self._searching(touching))
        wanted = base.copy()
        wanted[:, :z] = (0.5 * (error[:, :z] + offset) + change) / self._step[:z]
        lightly = 0.5 * (pressing - _LIGHT) / self._stiffness[z] / self._step[z]
        wanted[:, z] = np.where(touching, lightly, wanted[:, z])
        entered = base
        if self._yields:
            entered = -0.3 * wrench / self._stiffness / self._step
            entered[:, z] = base[:, z]
        wanted = np.where(inside[:, None], entered, wanted)
        action = np.zeros((len(frames), self._size), np.float32)
        action[:, :n] = np.clip((wanted - base) / max(self._residual_weight, 1e-6), -1, 1)
        return action

    def _searching(self, touching: np.ndarray) -> np.ndarray:
        """For how many env steps each episode has pressed and not been inside [B]."""
        before = np.zeros(len(touching)) if self._time is None else self._time
        self._time = now = before + touching
        return now

    def _pattern(self, time: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Offset from the noisy goal and its change in an env step, m [B, slides - 1]."""
        if self._variant.name == "plate":
            sweep = _sweep(time, 0.08, 0.005)
            return np.stack([0 * sweep, sweep], 1), np.zeros((len(time), 2))
        if self._variant.name == "planar":
            return _sweep(time, 0.015, 0.001)[:, None], np.zeros((len(time), 1))
        # A spiral of constant speed v and pitch p: radius r = sqrt(p v t / pi), angle 2 pi r / p.
        speed, pitch = 0.0010, 0.0015
        radius = np.sqrt(pitch * speed * time / np.pi)
        angle = 2 * np.pi * radius / pitch
        place = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
        along = np.stack([-np.sin(angle), np.cos(angle)], 1)
        return place, speed * along


def _sweep(time: np.ndarray, width: float, speed: float) -> np.ndarray:
    """To one side, to the other, and so on, each time farther, up to this width."""
    # The k-th turning point lies at k quarters of the width; the way there is the sum of all.
    way = speed * time
    quarter = width / 4
    turn = np.floor((np.sqrt(1 + 4 * way / quarter) - 1) / 2)  # full legs: quarter (k^2 + k)
    left = way - quarter * (turn**2 + turn)
    sign = np.where(turn % 2 == 0, 1.0, -1.0)
    return np.clip(sign * (left - quarter * turn), -width, width)


BASELINES: dict[str, Callable[..., Baseline]] = {
    "straight": Straight,
    "search": Search,
    "jiggle": Jiggle,
    "comply": functools.partial(Search, yields=True),
}
