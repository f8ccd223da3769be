"""A configuration as text: includes inlined, overrides appended, statements parsed.

Every line remembers its file and line number, so that a message can name them. What the bindings
mean is `sactory.config`'s business.
"""

from __future__ import annotations

import dataclasses
import os
import tokenize
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gin import config_parser

from sactory.errors import UserError
from sactory.fields import nearest

OVERRIDE = "--set"
_INSTALLED = Path(__file__).resolve().parent.parent  # the folder that holds the `configs` package


@dataclasses.dataclass(frozen=True)
class Source:
    """A whole configuration text and the place that each of its lines came from."""

    lines: tuple[str, ...]
    places: tuple[str, ...]

    @property
    def text(self) -> str:
        """What gin parses."""
        return "\n".join(self.lines) + "\n"

    @classmethod
    def of_text(cls, text: str, origin: str) -> Source:
        """A text that stands in one place, for example a frozen file."""
        lines = tuple(text.splitlines())
        return cls(lines, tuple(f"{origin}:{i + 1}" for i in range(len(lines))))

    def place(self, line: int) -> str:
        """`file:line` of a line, counted from 1 and clipped to the text."""
        return self.places[max(0, min(line, len(self.places)) - 1)] if self.places else "config"


@dataclasses.dataclass(frozen=True)
class Reference:
    """`@name` or `%name` in a value."""

    name: str
    sign: str

    def __repr__(self) -> str:
        return self.sign + self.name


class Delegate(config_parser.ParserDelegate):
    """Keeps references as they stand: nothing is looked up while parsing."""

    def configurable_reference(self, scoped_configurable_name: str, evaluate: bool) -> Any:
        """Keeps `@name`."""
        return Reference(scoped_configurable_name, "@")

    def macro(self, macro_name: str) -> Any:
        """Keeps `%name`."""
        return Reference(macro_name, "%")


def find_file(
    path: str | os.PathLike[str], beside: Path | None = None, suffix: str = ".gin"
) -> Path:
    """Finds a config: beside the including file, from here, or among the shipped ones."""
    wanted = Path(path)
    folders = [*([beside] if beside else []), Path.cwd(), _INSTALLED]
    for folder in folders:
        if (folder / wanted).is_file():
            return Path(os.path.normpath(folder / wanted))
    if any((folder / wanted).is_dir() for folder in folders):
        raise UserError(f"config {path} is a folder, not a file")
    known: set[str] = set()
    for folder in folders:
        known.update(str(p.relative_to(folder)) for p in folder.glob(f"configs/**/*{suffix}"))
        near = (folder / wanted.parent).glob(f"*{suffix}")
        known.update(str(wanted.parent / p.name) for p in near)
    raise UserError(f"config {path} does not exist{nearest(str(path), known)}")


def resolve(config: str | os.PathLike[str], overrides: Sequence[str] = ()) -> Source:
    """Reads a config with its includes inlined and the `--set` bindings appended.

    Raises:
        UserError: A file is missing or a line can't be read.
    """
    lines: list[str] = []
    places: list[str] = []
    _inline(find_file(config), (), lines, places)
    for override in overrides:
        statements = parse(Source((override,), (OVERRIDE,)))
        if "\n" in override or [type(s) for s in statements] != [config_parser.BindingStatement]:
            raise UserError(f"{OVERRIDE} {override!r}: one `group.parameter = value` is wanted")
        lines.append(override)
        places.append(OVERRIDE)
    return Source(tuple(lines), tuple(places))


def resolve_text(config: str | os.PathLike[str], overrides: Sequence[str] = ()) -> str:
    """The text of `resolve`."""
    return resolve(config, overrides).text


def _inline(path: Path, outer: tuple[Path, ...], lines: list[str], places: list[str]) -> None:
    """Appends the lines of a file and of the files it includes."""
    shown = os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
    if path in outer:
        raise UserError(f"config {shown} includes itself")
    try:
        source = Source.of_text(path.read_text(encoding="utf-8"), shown)
    except (OSError, UnicodeDecodeError) as e:
        raise UserError(f"config {shown} can't be read: {e}") from None
    includes = {
        s.location.line_num: s.filename
        for s in parse(source)
        if isinstance(s, config_parser.IncludeStatement)
    }
    for number, (line, place) in enumerate(zip(source.lines, source.places), 1):
        if number not in includes:
            lines.append(line)
            places.append(place)
            continue
        try:
            included = find_file(includes[number], beside=path.parent)
        except UserError as e:
            raise UserError(f"{place}: {e}") from None
        _inline(included, (*outer, path), lines, places)


def parse(source: Source) -> list[Any]:
    """The statements of a text, as gin's own parser sees them."""
    try:
        return list(config_parser.ConfigParser(source.text, Delegate()))
    except tokenize.TokenError as e:
        line, reason = e.args[1][0], str(e.args[0])
    except SyntaxError as e:
        line, reason = e.lineno or 1, str(e.msg)
    text = source.lines[max(0, min(line, len(source.lines)) - 1)].strip() if source.lines else ""
    value = text.partition("=")[2].partition("#")[0].strip()
    if value in ("true", "false", "none", "null"):
        reason = f"write {'None' if value == 'null' else value.capitalize()}"
    elif "Failed to parse token" in reason:
        reason = f"a string needs quotes: '{value}'"
    elif "multi-line" in reason:
        reason = "a bracket or a string is not closed"
    elif reason.startswith("Expected newline"):
        reason = "one plain value is wanted; arithmetic is not worked out"
    elif reason.startswith("Couldn't parse statement"):
        reason = "`group.parameter = value` is wanted"
    reason = reason.strip().rstrip(".")
    raise UserError(f"{source.place(line)}: can't read `{text}`: {reason}")


def references(value: Any) -> list[Reference]:
    """Every `@x` and `%x` inside a value."""
    if isinstance(value, Reference):
        return [value]
    if isinstance(value, dict):
        value = [*value.keys(), *value.values()]
    return [r for v in value for r in references(v)] if isinstance(value, (list, tuple)) else []


def without_references(value: Any, macros: dict[str, Any], outer: tuple[str, ...] = ()) -> Any:
    """The value with its macros replaced.

    Raises:
        UserError: A macro is unknown or contains itself, or a configurable is referred to.
    """
    if isinstance(value, dict):
        return {k: without_references(v, macros, outer) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(without_references(v, macros, outer) for v in value)
    if not isinstance(value, Reference):
        return value
    if value.sign == "@":
        raise UserError(f"a setting takes a value, not a reference such as {value!r}")
    if value.name in outer:
        raise UserError(f"macro {value!r} is defined by itself")
    if value.name not in macros:
        raise UserError(f"macro {value!r} is not defined{nearest(value.name, macros)}")
    return without_references(macros[value.name], macros, (*outer, value.name))
