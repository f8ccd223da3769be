"""The packed float32 row: how one agent step lies in one vector.

`RowFormat` maps field names to slices: the collector's adder fills them with numpy, TensorFlow
unpacks them inside the trainer's compiled step. What the values mean is those two's business.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

FLAT = "flat"
VERSION = 1
LIMIT = 1e8
"""What no number of a row exceeds: squares of gradients that it leads to still fit float32."""
UNSOUND = f"NaN, infinity or a number beyond {LIMIT:,.0f}"


def sound(rows: np.ndarray) -> np.ndarray:
    """Which of the rows `[..., N]` can be learned from, bool `[...]`: finite, none above LIMIT."""
    return (np.abs(rows) <= LIMIT).all(axis=-1)


def all_sound(rows: np.ndarray) -> bool:
    """Whether all of them can; quicker than asking for each."""
    return bool(rows.size == 0 or (rows.max() <= LIMIT and rows.min() >= -LIMIT))


def join_key(name: str, key: str | None) -> str:
    """Field name of one sensor: `observation`, or `observation/<key>` in a dictionary."""
    return name if key is None else f"{name}/{key}"


@dataclasses.dataclass(frozen=True)
class RowFormat:
    """The fields of a row, in order.

    Attributes:
        fields: Pairs of name and shape.
        kind: The item kind. `flat`: an item is `segment_length` self-contained rows.
        version: Changes when a row of the same kind is laid out or computed in another way.
    """

    fields: tuple[tuple[str, tuple[int, ...]], ...]
    kind: str = FLAT
    version: int = VERSION

    @property
    def size(self) -> int:
        """Floats in a row."""
        return sum(math.prod(shape) for _, shape in self.fields)

    @property
    def slices(self) -> dict[str, slice]:
        """Where each field lies in a row."""
        result, start = {}, 0
        for name, shape in self.fields:
            result[name] = slice(start, start + math.prod(shape))
            start += math.prod(shape)
        return result

    def span(self, group: str) -> slice:
        """Where all sensors of `observation` or `next_observation`, or one lone field, lie."""
        parts = [p for name, p in self.slices.items() if name.partition("/")[0] == group]
        return slice(parts[0].start, parts[-1].stop)

    def unpack(self, rows: Any) -> dict[str, Any]:
        """Unpacks rows `[..., size]` (numpy or TensorFlow) into fields `[..., *shape]`.

        Sensors of a dictionary observation come back as a dictionary, in the stored order.
        """
        xp: Any = np
        if not isinstance(rows, np.ndarray):
            import tensorflow as tf

            xp = tf
        result: dict[str, Any] = {}
        for (name, shape), part in zip(self.fields, self.slices.values()):
            value = rows[..., part]
            if len(shape) == 0:
                value = value[..., 0]
            elif len(shape) > 1:
                value = xp.reshape(value, (*rows.shape[:-1], *shape))
            group, _, key = name.partition("/")
            if key:
                result.setdefault(group, {})[key] = value
            else:
                result[name] = value
        return result

    def to_json(self) -> dict[str, Any]:
        """The format as `specs.json` holds it."""
        fields = [{"name": name, "shape": list(shape)} for name, shape in self.fields]
        return {"kind": self.kind, "version": self.version, "size": self.size, "fields": fields}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> RowFormat:
        """Reads `to_json`'s form.

        Raises:
            ValueError: The row was written by a version that this one can't read.
        """
        if (value["kind"], value["version"]) != (FLAT, VERSION):
            raise ValueError(
                f"rows of kind {value['kind']} version {value['version']} are unknown to this "
                f"version of Sactory, which writes {FLAT} version {VERSION}"
            )
        fields = tuple((f["name"], tuple(f["shape"])) for f in value["fields"])
        return cls(fields, value["kind"], value["version"])


def flat_row_format(observation: Any, action: Any) -> RowFormat:
    """The self-contained row `[s, a, R, D, s', policy step]`.

    R is the n-step reward `sum_i gamma^i r_i`, D the bootstrap coefficient `gamma^n d` where d is
    0 only at a true terminal, s' the state n steps on, so that `y = R + D V(s')`.

    Args:
        observation: A spec with `.shape`, or a dictionary of them.
        action: A spec with `.shape`.
    """
    sensors = observation.items() if isinstance(observation, dict) else [(None, observation)]
    shapes = [(key, tuple(spec.shape)) for key, spec in sensors]
    return RowFormat(
        (
            *((join_key("observation", key), shape) for key, shape in shapes),
            ("action", tuple(action.shape)),
            ("reward", ()),
            ("discount", ()),
            *((join_key("next_observation", key), shape) for key, shape in shapes),
            ("policy_step", ()),
        )
    )
