"""What may be believed of a message of another program: fields are of their kind, or refused."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

COUNTS_BELOW = 2**53  # what a float64 counts exactly; also keeps sums and logs sane
INCARNATIONS_BELOW = 2**63  # nanoseconds since 1970
_NAMES_MOST = 1_000


def fields(value: Any, names: Iterable[str], optional: Iterable[str] = ()) -> dict[str, Any]:
    """The value, if it is an object with exactly these fields.

    Args:
        value: Of a message.
        names: What it must have.
        optional: What it may have.

    Raises:
        ValueError: It isn't.
    """
    if not isinstance(value, dict) or set(value) - set(optional) != set(names):
        raise ValueError(f"{short(value)} doesn't have the fields {', '.join(names)}")
    return value


def count(value: dict[str, Any], name: str, below: int = COUNTS_BELOW) -> int:
    """A whole number from 0 on.

    Raises:
        ValueError: It isn't.
    """
    number = value[name]
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < below:
        raise ValueError(f"{name} is {short(number)}, not a count")
    return number


def number(value: dict[str, Any], name: str) -> float:
    """A finite number.

    Raises:
        ValueError: It isn't.
    """
    found = value[name]
    if isinstance(found, int) and not isinstance(found, bool) and abs(found) < COUNTS_BELOW:
        return float(found)
    if not isinstance(found, float) or not math.isfinite(found):
        raise ValueError(f"{name} is {short(found)}, not a finite number")
    return found


def numbers(value: dict[str, Any], name: str) -> dict[str, float]:
    """Finite numbers by name.

    Raises:
        ValueError: It isn't.
    """
    found = value[name]
    if not isinstance(found, dict) or len(found) > _NAMES_MOST:
        raise ValueError(f"{name} is {short(found)}, not an object of numbers")
    return {key: number(found, key) for key in found}


def short(value: Any) -> str:
    """For a message: a stranger's value may be long."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]} …"
