"""What a curriculum may set, with the values of the three levels.

Lengths are metres, angles radians, forces newtons.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from sactory.curriculum.environment import ParameterSpec
from sactory.envs.contact_insert.variants import VARIANTS

LEVELS = ("easy", "medium", "hard")
DEFAULT_LEVEL = "medium"
HOLE_SHAPES = ("box", "cylinder")

_SCALE = (0.05, 20.0)

# name: default, minimum, maximum
_SHARED: dict[str, tuple[Any, float | None, float | None]] = {
    "noise_level": (1.0, 0.0, 1.0),
    "goal_pos_noise": (0.0, 0.0, 0.5),
    "goal_rot_noise": (0.0, 0.0, 1.0),
    "init_xy_offset": (0.02, 0.0, 0.3),
    "init_z_offset": (0.01, -0.16, 0.5),
    "init_z_spread": (0.03, 0.0, 0.5),
    "init_tilt": (0.15, 0.0, 0.5),
    "friction": (0.3, 0.0, 5.0),
    "stiffness_scale": (1.0, *_SCALE),
    "grip_stiffness_scale": (1.0, *_SCALE),
    "mass_scale": (1.0, *_SCALE),
    "wrench_noise": (0.0, 0.0, None),
    "wrench_bias": ((0.0, 0.0, 0.0), None, None),
    "wrench_bias_spread": (0.0, 0.0, None),
    "pose_noise": ((0.0, 0.0), 0.0, None),
    "action_noise": (0.0, 0.0, None),
    "policy_lag_ms": ((0, 0), 0, 1000),
    "goalreach_steps": (5, 1, 1000),
    "force_abort": (80.0, 0.0, None),
    "base_weight": (0.5, 0.0, 1.0),
    "residual_weight": (0.5, 0.0, 1.0),
    "reward_time": (0.0, 0.0, None),
    "reward_offset": (0.0, 0.0, None),
    "reward_height": (0.0, 0.0, None),
    "reward_rotation": (0.0, 0.0, None),
    "reward_force": (0.0, 0.0, None),
    "reward_action": (0.0, 0.0, None),
    "reward_success": (2.0, 0.0, None),
    "reward_failure": (5.0, 0.0, None),
}
_HOLE: dict[str, tuple[Any, float | None, float | None]] = {
    "clearance": (0.001, 0.0, 0.015),
    "chamfer": (0.002, 0.0001, 0.01),
}
_OWN: dict[str, dict[str, tuple[Any, float | None, float | None]]] = {
    "planar": _HOLE,
    "peg": {**_HOLE, "hole_shape": ("box", None, None)},
    "plate": {"slot_gap": (0.1, 0.03, 0.3), "init_yaw": (0.349, 0.0, 1.0)},
}

_PLATE_START = {"init_xy_offset": 0.1, "init_z_offset": 0.0134, "init_z_spread": 0.2}
_LEVEL_VALUES: dict[tuple[str, str], dict[str, Any]] = {
    ("planar", "easy"): {"clearance": 0.002, "chamfer": 0.003, "friction": 0.1},
    ("planar", "medium"): {
        "clearance": 0.0005,
        "chamfer": 0.001,
        "goal_pos_noise": 0.005,
        "goal_rot_noise": 0.1,
    },
    ("planar", "hard"): {
        "clearance": 0.00025,
        "chamfer": 0.0005,
        "goal_pos_noise": 0.010,
        "goal_rot_noise": 0.15,
    },
    ("peg", "easy"): {
        "clearance": 0.002,
        "chamfer": 0.003,
        "goal_pos_noise": 0.002,
        "goal_rot_noise": 0.02,
    },
    ("peg", "medium"): {"goal_pos_noise": 0.004, "goal_rot_noise": 0.1},
    ("peg", "hard"): {
        "clearance": 0.0005,
        "chamfer": 0.001,
        "goal_pos_noise": 0.003,
        "goal_rot_noise": 0.1,
    },
    ("plate", "easy"): {"init_tilt": 0.0, "friction": 0.95, "goalreach_steps": 10},
    ("plate", "medium"): {
        "init_tilt": 0.0,
        "friction": 0.95,
        "goalreach_steps": 10,
        "goal_pos_noise": 0.05,
        "goal_rot_noise": 0.087,
    },
    ("plate", "hard"): {
        "init_tilt": 0.1,
        "friction": 0.95,
        "goalreach_steps": 10,
        "goal_pos_noise": 0.05,
        "goal_rot_noise": 0.087,
        "slot_gap": 0.06,
    },
}
# Sensing gets worse with the level, in the same steps for all variants.
_SENSING: dict[str, dict[str, Any]] = {
    "easy": {"force_abort": 120.0},
    "medium": {
        "wrench_noise": 0.25,
        "wrench_bias_spread": 0.5,
        "policy_lag_ms": (3, 6),
        "force_abort": 80.0,
    },
    "hard": {
        "wrench_noise": 0.5,
        "wrench_bias_spread": 1.0,
        "policy_lag_ms": (7, 12),
        "force_abort": 40.0,
    },
}


def specs(variant: str, level: str) -> dict[str, ParameterSpec]:
    """All parameters of a variant; the defaults are the level's values."""
    time, offset, height = VARIANTS[variant].costs
    values = {"reward_time": time, "reward_offset": offset, "reward_height": height}
    values.update(_SENSING[level])
    if variant == "plate":  # twice as heavy a hand's load, twice the noise
        values.update(_PLATE_START)
        values.update({"wrench_noise": 2 * values.get("wrench_noise", 0.0)})
        values["force_abort"] = max(values["force_abort"], 50.0)
    values.update(_LEVEL_VALUES[variant, level])
    return {
        name: ParameterSpec(
            default=values.get(name, default),
            minimum=low,
            maximum=high,
            affects_reward=name.startswith("reward_"),
        )
        for name, (default, low, high) in {**_SHARED, **_OWN[variant]}.items()
    }


def checked(specs: Mapping[str, ParameterSpec], values: Mapping[str, Any]) -> dict[str, Any]:
    """Values as the environment uses them.

    Raises:
        KeyError: There is no such parameter.
        ValueError: A value has another type or shape, or lies outside its range.
    """
    return {name: _checked(name, specs, value) for name, value in values.items()}


def _checked(name: str, specs: Mapping[str, ParameterSpec], value: Any) -> Any:
    if name not in specs:
        raise KeyError(f"no parameter '{name}'; there are {', '.join(specs)}")
    spec = specs[name]
    if isinstance(spec.default, str):
        if value not in HOLE_SHAPES:
            raise ValueError(f"{name} = {value!r}: must be {' or '.join(HOLE_SHAPES)}")
        return value
    default, array = np.asarray(spec.default), np.asarray(value)
    if (
        array.shape != default.shape
        or array.dtype.kind not in {"i": "iu", "f": "iuf"}[default.dtype.kind]
    ):
        kind = "integer" if default.dtype.kind == "i" else "number"
        count = f"{default.size} {kind}s" if default.shape else f"one {kind}"
        raise ValueError(f"{name} = {value!r}: must be {count}")
    low = -np.inf if spec.minimum is None else spec.minimum
    high = np.inf if spec.maximum is None else spec.maximum
    if not (np.isfinite(array) & (array >= low) & (array <= high)).all():
        raise ValueError(f"{name} = {value!r}: must be finite and from {low:g} to {high:g}")
    result = array.astype(default.dtype).tolist()
    return tuple(result) if default.shape else result
