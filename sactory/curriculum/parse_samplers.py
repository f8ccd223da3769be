"""From JSON to samplers; refuses whatever could not be drawn at some time of the run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from sactory.curriculum.choices import Choice, Mixture, MultiRange
from sactory.curriculum.parse_values import (
    VALUES,
    Context,
    by_type,
    form,
    plain,
    same_form,
    value,
)
from sactory.curriculum.reader import Json
from sactory.curriculum.samplers import (
    IntUniform,
    LogUniform,
    Normal,
    TruncatedNormal,
    Uniform,
)
from sactory.curriculum.state import State
from sactory.curriculum.values import Node, Value, axes, corners


def node(json: Json, context: Context) -> Node:
    """A value or a sampler: all that may also stand inside another one."""
    if not isinstance(json.value, dict):
        return plain(json)
    return by_type(json, {**VALUES, **SAMPLERS})(json, context)


def checked(json: Json, made: Node) -> Node:
    """The sampler, refused if there is a time of the run at which nothing could be drawn."""
    for state in corners(made, State()):
        problem = made.problem(state)
        if problem is not None:
            places = [f"{axis[-1]}={_at(state, axis)}" for axis in axes(made)]
            json.fail(problem[1] + (f" (at {', '.join(places)})" if places else ""), problem[0])
    return made


def _at(state: State, axis: tuple[str, ...]) -> Any:
    found = getattr(state, axis[0])
    return found[axis[1]] if len(axis) > 1 else f"{found:g}"


def _shape(json: Json, bounds: Iterable[Node]) -> tuple[int, ...]:
    """The shape of a sampler's values: what all bounds fit, and `shape` where it is given."""
    shapes = [bound.shape for bound in bounds]
    given = None
    if "shape" in json.value:
        given = tuple(n.integer(1) for n in json["shape"].list(least=0))
        shapes.append(given)
    try:
        shape = np.broadcast_shapes(*shapes)
    except ValueError:
        shape = None
    if shape is None or (given is not None and shape != given):
        listed = ", ".join(str(list(s)) for s in shapes)
        json.fail(f"of bounds and a shape that fit together, not {listed}")
    return shape


def _between(made: type[Uniform]) -> Callable[[Json, Context], Node]:
    def parse(json: Json, context: Context) -> Node:
        json.keys(["type", "low", "high"], ["shape"])
        low, high = value(json["low"], context), value(json["high"], context)
        return checked(json, made(low, high, _shape(json, [low, high])))

    return parse


def _normal(json: Json, context: Context) -> Node:
    given = json.keys(["type", "mean", "std"], ["clip", "shape"])
    mean, std = value(json["mean"], context), value(json["std"], context)
    clip = None
    if "clip" in given:
        low, high = (value(end, context) for end in json["clip"].list(exactly=2))
        clip = low, high
    return checked(json, Normal(mean, std, clip, _shape(json, [mean, std, *(clip or ())])))


def _truncated_normal(json: Json, context: Context) -> Node:
    json.keys(["type", "mean", "std", "low", "high"], ["shape"])
    mean, std = value(json["mean"], context), value(json["std"], context)
    low, high = value(json["low"], context), value(json["high"], context)
    shape = _shape(json, [mean, std, low, high])
    return checked(json, TruncatedNormal(mean, std, low, high, shape))


def _weights(json: Json, count: int, context: Context) -> tuple[Value, ...]:
    """As many weights as there are possibilities, or none."""
    if "weights" not in json.value:
        return ()
    weights = json["weights"].list()
    if len(weights) != count:
        json["weights"].fail(f"{count} weights, as many as there are possibilities")
    return tuple(_number(weight, context) for weight in weights)


def _number(json: Json, context: Context) -> Value:
    found = value(json, context)
    if found.shape:
        json.fail("one number, or a schedule or lerp of one")
    return found


def _choice(json: Json, context: Context) -> Node:
    json.keys(["type", "values"], ["weights"])
    values = json["values"].list()
    kind, shape = same_form(json["values"], map(form, values))
    weights = _weights(json, len(values), context)
    return checked(json, Choice(tuple(v.value for v in values), weights, kind, shape))


def _multirange(json: Json, context: Context) -> Node:
    json.keys(["type", "intervals"])
    pairs = [interval.list(exactly=2) for interval in json["intervals"].list()]
    intervals = tuple((_number(low, context), _number(high, context)) for low, high in pairs)
    return checked(json, MultiRange(intervals))


def _mixture(json: Json, context: Context) -> Node:
    json.keys(["type", "of"], ["weights"])
    parts = [node(part, context) for part in json["of"].list()]
    kind, shape = same_form(json["of"], [(part.kind, part.shape) for part in parts])
    weights = _weights(json, len(parts), context)
    return checked(json, Mixture(tuple(parts), weights, kind, shape))


SAMPLERS: dict[str, Callable[[Json, Context], Node]] = {
    "uniform": _between(Uniform),
    "log_uniform": _between(LogUniform),
    "int_uniform": _between(IntUniform),
    "normal": _normal,
    "truncated_normal": _truncated_normal,
    "choice": _choice,
    "multirange": _multirange,
    "mixture": _mixture,
}
