"""Gymnasium's spaces as float32 arrays.

Numbers stay arrays of their shape; what is a choice becomes one-hot. A Dict is one sensor for
each key, a Tuple for each place (`0`, `1`, ...), with `.` between the levels of nested ones.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from gymnasium import spaces
from tf_agents.specs import array_spec

from sactory.errors import UserError
from sactory.specs import MAX_EXACT

Read = Callable[[Any], np.ndarray]
"""From what the environment returns to one float32 array that belongs to nobody else."""


def observation(space: spaces.Space, where: str) -> tuple[Any, Callable[[Any], Any]]:
    """The spec of an observation space, and what makes such observations.

    Args:
        space: The observation space.
        where: The environment, for messages.

    Returns:
        A spec, or a dictionary of them; and a function from the environment's observation to
        float32 arrays of that form, new ones at each call.

    Raises:
        UserError: Float32 arrays of a fixed size can't hold such a space.
    """
    if not isinstance(space, (spaces.Dict, spaces.Tuple)):
        size, read = _leaf(space, where)
        return array_spec.ArraySpec(size, np.float32, "observation"), read
    specs: dict[str, Any] = {}
    parts: list[tuple[str, tuple[Any, ...], Read]] = []
    for path, leaf in _leaves(space):
        key = ".".join(str(step).replace("/", ".") for step in path)
        if key in specs:
            raise UserError(f"{where}: two parts of the observation are called '{key}'")
        size, read = _leaf(leaf, f"{where}: part '{key}'")
        specs[key] = array_spec.ArraySpec(size, np.float32, key)
        parts.append((key, path, read))
    if not specs:
        raise UserError(f"{where}: the observation is empty")
    return specs, functools.partial(_read_parts, parts)


def _read_parts(parts: list[tuple[str, tuple[Any, ...], Read]], seen: Any) -> dict[str, Any]:
    return {key: read(_at(seen, path)) for key, path, read in parts}


def _leaves(space: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    if isinstance(space, spaces.Dict):
        for key, part in space.spaces.items():
            yield from _leaves(part, (*path, key))
    elif isinstance(space, spaces.Tuple):
        for i, part in enumerate(space.spaces):
            yield from _leaves(part, (*path, i))
    else:
        yield path, space


def _at(seen: Any, path: tuple[Any, ...]) -> Any:
    for step in path:
        seen = seen[step]
    return seen


def _leaf(space: Any, where: str) -> tuple[tuple[int, ...], Read]:
    """Shape and reader of a space without parts."""
    if isinstance(space, spaces.Discrete):
        return _one_hot(np.array([space.n]), np.array([space.start]))
    if isinstance(space, spaces.MultiDiscrete):
        return _one_hot(space.nvec.ravel(), np.asarray(space.start).ravel())
    if isinstance(space, spaces.MultiBinary):
        return space.shape, _floats
    if isinstance(space, spaces.Box):
        largest = max(float(np.max(space.high)), -float(np.min(space.low)))
        if space.dtype.kind in "iu" and largest > MAX_EXACT:
            raise UserError(
                f"{where}: {space} holds integers beyond 2**24 = {MAX_EXACT}, which float32 "
                "can't: bound them, or observe floats"
            )
        return space.shape, _floats
    raise UserError(
        f"{where}: a {type(space).__name__} space can't be observed: Box, Discrete, "
        "MultiDiscrete, MultiBinary, Dict and Tuple can"
    )


def _floats(seen: Any) -> np.ndarray:
    return np.array(seen, np.float32)


def _one_hot(sizes: np.ndarray, start: np.ndarray) -> tuple[tuple[int, ...], Read]:
    """One after another, for each number as many places as it has values, a 1 at its own."""
    offsets = np.concatenate([[0], np.cumsum(sizes)[:-1]]) - start
    total = int(np.sum(sizes))
    return (total,), functools.partial(_hot, total, offsets)


def _hot(total: int, offsets: np.ndarray, seen: Any) -> np.ndarray:
    hot = np.zeros(total, np.float32)
    hot[np.ravel(seen) + offsets] = 1.0
    return hot


def action(space: Any, where: str) -> tuple[np.ndarray, np.ndarray]:
    """The range that actions in [-1, 1] are mapped to.

    It is the space's own. An element without bounds gets [-1, 1]; one with a single bound gets
    what lies within 2 of it.

    Returns:
        Lowest and highest action, float64 `[A]`.

    Raises:
        UserError: The actions are discrete, or not one array.
    """
    if not isinstance(space, spaces.Box) or space.dtype.kind != "f":
        kind = "not one array" if isinstance(space, (spaces.Dict, spaces.Tuple)) else "discrete"
        raise UserError(
            f"{where}: its actions are {kind}, {space}: so far Sactory acts with continuous "
            "numbers only, a Box of floats"
        )
    if math.prod(space.shape) == 0:
        raise UserError(f"{where}: it takes no actions ({space})")
    low, high = space.low.astype(np.float64).ravel(), space.high.astype(np.float64).ravel()
    no_low, no_high = np.isinf(low), np.isinf(high)
    lowest = np.where(no_low, np.where(no_high, -1.0, high - 2.0), low)
    return lowest, np.where(no_high, lowest + 2.0, high)
