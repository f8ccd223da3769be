"""Settings classes: frozen dataclasses whose fields gin may bind, checked for type and range.

Gin itself checks neither; `configurable` does so whenever a settings class is constructed, and
`sactory.config` does so for a whole configuration before anything is started. This module knows
nothing of files.
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import math
import re
import typing
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import gin

from sactory.errors import UserError

T = TypeVar("T")

SETTINGS: dict[str, type] = {}
"""Every settings class by its gin name."""


def field(
    default: T,
    *,
    unit: str = "",
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    choices: tuple[str, ...] = (),
    pattern: str = "",
) -> T:
    """One setting of a settings class.

    Args:
        default: The value where no configuration binds it.
        unit: What the number counts, for messages and documentation.
        low: Smallest value allowed (of each element, for tuples).
        high: Largest value allowed.
        above: The value must be larger than this.
        choices: The only strings allowed.
        pattern: A regular expression that the whole string must match.
    """
    metadata = {
        "unit": unit,
        "low": low,
        "high": high,
        "above": above,
        "choices": choices,
        "pattern": pattern,
    }
    return dataclasses.field(default=default, metadata=metadata)


def configurable(gin_name: str) -> Callable[[type[T]], type[T]]:
    """Class decorator: lets gin bind the fields of a dataclass under `gin_name`.

    Keyword arguments win over gin, gin wins over the defaults. Values are checked before the
    class's own `__post_init__` runs, which is the place for checks between fields.
    """

    def decorate(cls: type[T]) -> type[T]:
        fields = {f.name: f for f in dataclasses.fields(typing.cast(Any, cls))}
        hints = typing.get_type_hints(cls)
        construct = cls.__init__

        # gin wraps this function instead of the class: its wrapper rewrites every exception that
        # passes through it, and a user's mistake must reach the user as it was worded.
        def bindings(**values: Any) -> dict[str, Any]:
            return values

        typing.cast(Any, bindings).__signature__ = inspect.signature(cls)
        bindings.__module__ = typing.cast(Any, None)  # else gin would prefix `sactory.settings`
        gin_values: Any = typing.cast(Any, gin.configurable)(gin_name)(bindings)

        def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
            explicit = dict(zip(fields, args))
            explicit.update(kwargs)
            unknown = set(explicit) - set(fields)
            if unknown:
                raise TypeError(f"{cls.__name__} has no field {sorted(unknown)[0]!r}")
            values = gin_values(**explicit)
            construct(self, **{k: check_value(gin_name, cls, k, v) for k, v in values.items()})

        typing.cast(Any, cls).__init__ = __init__
        typing.cast(Any, cls).gin_name = gin_name
        typing.cast(Any, cls).field_types = {name: hints[name] for name in fields}
        SETTINGS[gin_name] = cls
        return cls

    return decorate


def defaults(cls: type) -> dict[str, Any]:
    """The default of every field of a settings class."""
    return {f.name: f.default for f in dataclasses.fields(cls)}


def check_value(gin_name: str, cls: type, name: str, value: Any) -> Any:
    """Returns `value` as the field's type, or raises.

    Raises:
        UserError: The value has the wrong type or lies outside the field's range.
    """
    f = next(f for f in dataclasses.fields(cls) if f.name == name)
    hint = typing.cast(Any, cls).field_types[name]
    try:
        value = _as_type(hint, value)
        _check_range(f.metadata, value)
    except ValueError as e:
        extra = f"; {e}" if str(e) else ""
        raise UserError(
            f"{gin_name}.{name} = {value!r}: must be {describe(f.metadata, hint)}{extra}"
        ) from None
    return value


def describe(metadata: typing.Mapping[str, Any], hint: Any) -> str:
    """What a field accepts, in words: `an int of at least 1 rows, or None`."""
    if metadata["choices"]:
        return " or ".join(repr(c) for c in metadata["choices"])
    base, optional = _strip_optional(hint)
    words = {
        int: "an int",
        float: "a number",
        bool: "True or False",
        str: "a string",
        tuple: "a tuple of ints",
        dict: "a dict with string keys",
    }[typing.get_origin(base) or base]
    unit = f" ({metadata['unit']})" if metadata["unit"] else ""
    low, high, above = metadata["low"], metadata["high"], metadata["above"]
    if above is not None:
        words += f" above {above}" + (f" and at most {high}" if high is not None else "")
    elif low is not None:
        words += f" of at least {low}" if high is None else f" from {low} to {high}"
    elif high is not None:
        words += f" of at most {high}"
    if metadata["pattern"]:
        words += f" that matches {metadata['pattern']}"
    return words + unit + (" or None" if optional else "")


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean ...?` with the closest of the known words, or nothing."""
    known = sorted(known)
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if not close:  # `Learner.batch_size` or `batch_size`: the right words without their prefix
        close = [k for k in known if k.split(".")[-1] == word.split(".")[-1]][:1]
    return f"; did you mean `{close[0]}`?" if close else ""


def _strip_optional(hint: Any) -> tuple[Any, bool]:
    """`Optional[X]` -> (X, True)."""
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is typing.Union and type(None) in arguments:
        return next(a for a in arguments if a is not type(None)), True
    return hint, False


def _as_type(hint: Any, value: Any) -> Any:
    base, optional = _strip_optional(hint)
    if value is None and optional:
        return None
    kind = typing.get_origin(base) or base
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is int and isinstance(value, float) and value.is_integer():
        raise ValueError(f"write {int(value):_}")
    if isinstance(value, (list, tuple)) and kind is tuple:
        if not all(isinstance(v, int) and not isinstance(v, bool) for v in value):
            raise ValueError
        return tuple(value)
    if kind is tuple and isinstance(value, int) and not isinstance(value, bool):
        raise ValueError(f"write ({value},)")
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ValueError
    if isinstance(value, dict) and not all(isinstance(key, str) for key in value):
        raise ValueError
    return value


def _check_range(metadata: typing.Mapping[str, Any], value: Any) -> None:
    low, high, above = metadata["low"], metadata["high"], metadata["above"]
    if isinstance(value, str):
        allowed, pattern = metadata["choices"], metadata["pattern"]
        if (allowed and value not in allowed) or (pattern and not re.fullmatch(pattern, value)):
            raise ValueError
    elif isinstance(value, tuple):
        for element in value:
            _check_range(metadata, element)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        too_low = (low is not None and value < low) or (above is not None and value <= above)
        if too_low or (high is not None and value > high) or not math.isfinite(value):
            raise ValueError


__all__ = ["SETTINGS", "check_value", "configurable", "defaults", "field", "nearest"]
