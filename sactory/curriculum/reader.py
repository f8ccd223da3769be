"""A value of a JSON file together with its path, so that every refusal can name both."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn, Union

from sactory.errors import RetryError, UserError
from sactory.fields import nearest
from sactory.run_dir import is_unreadable

NAME = r"[^\s,=]+"
_LONGEST = 60  # characters of a wrong value that a message shows
_LARGEST = 1e300


class Json:
    """One value of a file.

    Attributes:
        value: As the JSON parser gave it.
        path: Where it stands, for example `$.curriculum.params.friction.low`.
    """

    def __init__(self, value: Any, path: str = "$"):
        self.value = value
        self.path = path

    def fail(self, right: str, key: str = "") -> NoReturn:
        """Refuses the value in one line that ends with what would be right.

        Args:
            right: What the value must be; with `key` the whole sentence about that member.
            key: The member that is wrong, for example `points[1]`.
        """
        if key:
            raise UserError(f"{self.path}.{key} {right}")
        text = json.dumps(self.value)
        text = text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
        raise UserError(f"{self.path} = {text}: must be {right}")

    def keys(self, required: Sequence[str], optional: Sequence[str] = ()) -> set[str]:
        """Checks that this is an object with these keys and no others.

        Returns:
            The keys that it has.
        """
        self.object()
        for key in self.value:
            if key not in (*required, *optional):
                known = [*required, *optional]
                hint = nearest(key, known) or f"; it takes {', '.join(known)}"
                raise UserError(f"{self.path} has an unknown key {key!r}{hint}")
        for key in required:
            if key not in self.value:
                raise UserError(f"{self.path} has no {key!r}; it needs {', '.join(required)}")
        return set(self.value)

    def object(self) -> None:
        """Checks that this is an object."""
        if not isinstance(self.value, dict):
            self.fail("an object")

    def items(self) -> Iterator[tuple[str, Json]]:
        """The members of an object."""
        self.object()
        for key in self.value:
            yield key, self[key]

    def list(self, least: int = 1, exactly: int | None = None) -> list[Json]:
        """The elements of an array."""
        wanted = f"an array of {exactly}" if exactly else f"an array of at least {least}"
        if not isinstance(self.value, list):
            self.fail(wanted)
        if len(self.value) < least or (exactly is not None and len(self.value) != exactly):
            self.fail(f"{wanted} elements, not {len(self.value)}")
        return [Json(v, f"{self.path}[{i}]") for i, v in enumerate(self.value)]

    def number(
        self, low: float | None = None, high: float | None = None, above: float | None = None
    ) -> Union[int, float]:
        """A number that a float can hold."""
        value = self.value
        words = "a number"
        if above is not None:
            words += f" above {above:g}" + (f" and at most {high:g}" if high is not None else "")
        elif low is not None:
            words += f" from {low:g} to {high:g}" if high is not None else f" of at least {low:g}"
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            self.fail(words)
        if not abs(value) <= _LARGEST or (above is not None and value <= above):
            self.fail(words)
        if (low is not None and value < low) or (high is not None and value > high):
            self.fail(words)
        return value

    def integer(self, low: int) -> int:
        """A whole number, also one written as 4e2."""
        value = self.value
        numeric = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not numeric or not low <= value <= _LARGEST or value != int(value):
            self.fail(f"a whole number of at least {low}")
        return int(value)

    def word(self, choices: Sequence[str]) -> str:
        """One of several strings."""
        if self.value not in choices:
            near = nearest(self.value, choices) if isinstance(self.value, str) else ""
            self.fail(" or ".join(f'"{choice}"' for choice in choices) + near)
        return self.value

    def name(self) -> str:
        """A word that can stand in `--at NAME=VALUE,...`."""
        if not isinstance(self.value, str) or not re.fullmatch(NAME, self.value):
            self.fail("a name without spaces, commas and '='")
        return self.value

    def flag(self) -> bool:
        """True or false."""
        if not isinstance(self.value, bool):
            self.fail("true or false")
        return self.value

    def __getitem__(self, key: str) -> Json:
        return Json(self.value[key], f"{self.path}{step(key)}")


def step(key: str) -> str:
    """A key as the next part of a path."""
    return f".{key}" if key.isidentifier() else f"[{json.dumps(key)}]"


def read(path: Path, shown: str) -> Json:
    """Reads a file as strict JSON.

    Args:
        path: The file.
        shown: How messages call it.

    Raises:
        RetryError: Its disk can't be read now.
        UserError: It can't be read, isn't JSON, or names a key of an object twice.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        kind = RetryError if isinstance(e, OSError) and is_unreadable(e) else UserError
        raise kind(f"{shown} can't be read: {e}") from None
    try:
        return Json(json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant))
    except json.JSONDecodeError as e:
        raise UserError(f"{shown}:{e.lineno}:{e.colno} is not JSON: {e.msg}") from None
    except (ValueError, RecursionError) as e:
        raise UserError(f"{shown} is not JSON as it should be: {e}") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    twice = [key for key in keys if keys.count(key) > 1]
    if twice:
        raise ValueError(f"the key {twice[0]!r} stands twice in one object")
    return dict(pairs)


def _no_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is no number in JSON")
