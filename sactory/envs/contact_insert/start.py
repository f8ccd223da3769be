"""How an episode begins: where everything is, and what the hand believes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from sactory.envs.contact_insert.variants import Variant


@dataclasses.dataclass(frozen=True)
class Start:
    """The random part of an episode.

    Attributes:
        fixture: Where the fixture's middle is, along x and y, m.
        yaw: Of the fixture, rad.
        height: Of the part's lowest point above the mouth, m.
        angles: Of the hand's hinges, rad.
        upright: The hinges' angles at the true goal.
        goal: Where the hand believes that the judged point belongs, one number for each axis.
        bias: Of the wrench, one number for each axis, N and Nm.
    """

    fixture: np.ndarray
    yaw: float
    height: float
    angles: np.ndarray
    upright: np.ndarray
    goal: np.ndarray
    bias: np.ndarray


def draw(variant: Variant, values: Mapping[str, Any], random: np.random.Generator) -> Start:
    """Draws a start; it takes the same random numbers whatever the values are.

    Args:
        variant: What begins.
        values: Its parameters.
        random: Where the numbers come from.
    """
    place, tilt, place_noise, angle_noise, bias = random.uniform(-1.0, 1.0, (5, 3))
    height = values["init_z_offset"] + values["init_z_spread"] * random.random()
    sideways, hinges = variant.num_slides - 1, len(variant.hinges)
    # A part that starts inside stands straight above the fixture.
    spread = 0.0 if height < 0 else 1.0
    fixture = np.zeros(2)
    fixture[:sideways] = spread * values["init_xy_offset"] * place[:sideways]
    yaw = spread * values.get("init_yaw", 0.0) * place[2]
    upright = np.array([yaw if axis == "z" else 0.0 for axis in variant.hinges])
    level = values["noise_level"]
    believed = np.array([*fixture[:sideways], variant.goal])
    believed[:-1] += level * values["goal_pos_noise"] * place_noise[:sideways]
    noisy = np.array([axis in variant.noisy_hinges for axis in variant.hinges])
    turned = upright + level * values["goal_rot_noise"] * noisy * angle_noise[:hinges]
    forces = np.array(values["wrench_bias"]) + values["wrench_bias_spread"] * bias
    return Start(
        fixture=fixture,
        yaw=yaw,
        height=height,
        angles=spread * values["init_tilt"] * tilt[:hinges],
        upright=upright,
        goal=np.concatenate([believed, turned]),
        bias=np.array([*forces[["xyz".index(axis) for axis in variant.slides]], *np.zeros(hinges)]),
    )
