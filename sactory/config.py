"""The one way to configure: gin text, checked strictly, frozen into the run directory.

`resolve` inlines includes and appends the overrides, `check` refuses unknown names, wrong types
and wrong ranges with the file and line of the binding, `load` hands a frozen text to gin. None of
them imports a program or TensorFlow: every setting is declared in `sactory.settings`. Where the
text is frozen is `sactory.init_run`'s business.
"""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Iterable
from typing import Any, TypeVar

import gin
from gin import config_parser

from sactory import settings, tables
from sactory.config_text import (
    Reference,
    Source,
    parse,
    references,
    resolve,
    resolve_text,
    without_references,
)
from sactory.errors import RetryError, UserError
from sactory.fields import SETTINGS, check_value, configurable, defaults, field, nearest
from sactory.run_dir import RunDir, is_unreadable, read_json

__all__ = [
    "Config",
    "Source",
    "check",
    "check_text",
    "clear",
    "configurable",
    "field",
    "load",
    "resolve",
    "resolve_text",
]

T = TypeVar("T")
MIN_SEGMENTS_PER_POOL = 64
"""Fewer segments than this in one pool of batches would leave its rows too alike."""


class Config:
    """The checked value of every setting.

    Attributes:
        values: By full name (`train.Learner.batch_size`, scopes in front), defaults included.
        places: Where the bound ones are bound.
    """

    def __init__(self, values: dict[str, Any], places: dict[str, str]):
        self.values = values
        self.places = places

    def get(self, cls: type[T], scope: str = "") -> T:
        """The settings object of a class, independent of gin's state."""
        values: dict[str, Any] = {}
        parts = scope.split("/") if scope else []
        for depth in range(len(parts) + 1):  # a scope inherits what its outer scopes bind
            prefix = "".join(f"{part}/" for part in parts[:depth]) + vars(cls)["gin_name"]
            for name in defaults(cls):
                if f"{prefix}.{name}" in self.values:
                    values[name] = self.values[f"{prefix}.{name}"]
        return cls(**values)


def _keys() -> dict[str, tuple[str, str]]:
    """Every full name of a setting, split into group and parameter."""
    return {f"{g}.{name}": (g, name) for g, cls in SETTINGS.items() for name in defaults(cls)}


def check_text(text: str, origin: str) -> Config:
    """`check` for a text that stands in one file."""
    return check(Source.of_text(text, origin))


def check(source: Source) -> Config:
    """Checks every binding of a configuration: names, types, ranges, and settings together.

    Raises:
        UserError: In one line: key, value, place, and what would be right.
    """
    keys = _keys()
    statements = parse(source)
    macros, bindings, macro_places = _sort(statements, source, keys)
    values: dict[str, Any] = {key: defaults(SETTINGS[g])[name] for key, (g, name) in keys.items()}
    places: dict[str, str] = {}
    for key, (scope, value, place) in bindings.items():
        group, name = keys[key[len(scope) :]]
        try:
            plain = without_references(value, macros)
        except UserError as e:
            raise UserError(f"{place}: {key} = {value!r}: {e}") from None
        try:
            values[key] = check_value(group, SETTINGS[group], name, plain)
        except UserError as e:
            via = ""
            if isinstance(value, Reference):
                via = f" (from {value!r}, {macro_places[value.name]})"
            raise UserError(f"{place}: {scope}{e}{via}") from None
        places[key] = place
    config = Config(values, places)
    try:
        for key, (scope, _, _) in bindings.items():
            config.get(SETTINGS[keys[key[len(scope) :]][0]], scope.rstrip("/"))
        _check_together(config)
    except UserError as e:
        named = [p for key, p in places.items() if f"{key} " in f"{e} "]
        where = ", ".join(dict.fromkeys(named))
        raise UserError(f"{where}: {e}" if where else str(e)) from None
    return config


def task_slug(name: str) -> str:
    """An environment's name as a directory's: `python:a.b:c` -> `python_a_b_c`."""
    return re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")


def max_rows(run: settings.Run, env: settings.Env) -> int:
    """Rows that the whole run collects."""
    return run.max_env_steps // env.action_repeat


def _check_together(config: Config) -> None:
    """Checks what no settings class can check alone."""
    run, replay = config.get(settings.Run), config.get(settings.Replay)
    learner, worker = config.get(settings.Learner), config.get(settings.Worker)
    pool = learner.updates_per_call * learner.batch_size
    length, rows = replay.segment_length, max_rows(run, config.get(settings.Env))
    product = (
        f"train.Learner.updates_per_call x batch_size = "
        f"{learner.updates_per_call} x {learner.batch_size} = {pool} rows"
    )
    if pool % length:
        raise UserError(f"replay.segment_length = {length} must divide {product}")
    if length > 1 and pool // length < MIN_SEGMENTS_PER_POOL:
        raise UserError(
            f"replay.segment_length = {length} leaves {pool // length} segments in a pool of "
            f"{product}: at least {MIN_SEGMENTS_PER_POOL} must be mixed"
        )
    if worker.random_steps >= rows:
        raise UserError(
            f"collect.Worker.random_steps = {worker.random_steps} rows leave nothing to learn "
            f"from: run.max_env_steps = {run.max_env_steps} env steps are {rows} rows"
        )
    if replay.capacity < max(learner.batch_size, length):
        raise UserError(
            f"replay.capacity = {replay.capacity} rows must hold at least one batch, "
            f"train.Learner.batch_size = {learner.batch_size} rows, and one segment"
        )
    tables.check(replay, learner, worker, run.num_collectors)


def _sort(
    statements: Iterable[Any], source: Source, keys: dict[str, tuple[str, str]]
) -> tuple[dict[str, Any], dict[str, tuple[str, Any, str]], dict[str, str]]:
    """Splits statements into macros and bindings; later ones win.

    Returns:
        Macros by name; by full key the scope (with its slash), the value and its place; and the
        places of the macros.
    """
    macros: dict[str, Any] = {}
    macro_places: dict[str, str] = {}
    bindings: dict[str, tuple[str, Any, str]] = {}
    used: set[str] = set()
    for s in statements:
        place = source.place(s.location.line_num)
        if isinstance(s, config_parser.ImportStatement):
            raise UserError(f"{place}: `{s.format()}`: a configuration holds values, never code")
        if isinstance(s, config_parser.IncludeStatement):
            raise UserError(f"{place}: `include` is not allowed here")
        if isinstance(s, config_parser.BlockDeclaration):
            continue
        scope = f"{s.scope}/" if s.scope else ""
        used.update(r.name for r in references(s.value))
        if s.selector in ("macro", "gin.macro") and s.arg_name == "value":
            macros[s.scope], macro_places[s.scope] = s.value, place
        elif not s.arg_name:
            macros[scope + s.selector], macro_places[scope + s.selector] = s.value, place
        elif f"{s.selector}.{s.arg_name}" in keys:
            bindings[f"{scope}{s.selector}.{s.arg_name}"] = (scope, s.value, place)
        else:
            raise UserError(f"{place}: {_unknown(s.selector, s.arg_name, keys)}")
    for name in macros:
        if name not in used:
            hint = nearest(name, keys)
            raise UserError(f"{macro_places[name]}: `{name}` is a macro nothing uses{hint}")
    return macros, bindings, macro_places


def _unknown(group: str, name: str, keys: dict[str, tuple[str, str]]) -> str:
    """The message for a key that does not exist."""
    key = f"{group}.{name}"
    if group not in SETTINGS:
        groups = ", ".join(SETTINGS)
        return f"unknown setting `{key}`{nearest(key, keys) or f': the groups are {groups}'}"
    own = defaults(SETTINGS[group])
    close = difflib.get_close_matches(name, own, n=1)
    hint = f"; did you mean `{group}.{close[0]}`?" if close else nearest(name, keys)
    listing = ", ".join(own)
    return f"{group} has no parameter `{name}`{hint or f': it has {listing}'}"


def load(run_dir: RunDir) -> Config:
    """Hands the frozen configuration of a run to gin, replacing whatever it held.

    Afterwards the settings classes, constructed without arguments, give the run's numbers, and a
    user's own environment can be imported from any working directory.

    Raises:
        RetryError: Its disk can't be read now.
        UserError: The directory is no run, or its configuration was damaged by hand.
    """
    path = run_dir.require().config
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        kind = RetryError if isinstance(e, OSError) and is_unreadable(e) else UserError
        raise kind(f"{path} can't be read: {e}") from None
    config = check_text(text, str(path))
    clear()
    gin.parse_config(text)  # not finalized: TF-Agents registers its own names when imported
    specs = read_json(run_dir.specs)
    import_path = specs.get("env", {}).get("import_path") if isinstance(specs, dict) else None
    if import_path and import_path not in sys.path:
        sys.path.append(import_path)
    return config


def clear() -> None:
    """Forgets every binding: the settings classes give their defaults again."""
    gin.clear_config()
