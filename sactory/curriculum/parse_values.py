"""From JSON to the values that a state alone decides: fixed, schedules, lerp, the original form."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from sactory.curriculum.plan import TRAIN_STEPS_PER_ITERATION
from sactory.curriculum.reader import Json
from sactory.curriculum.state import CLOCKS
from sactory.curriculum.values import (
    NUMERIC,
    Fixed,
    Lerp,
    Schedule,
    Timeline,
    Value,
    show,
    to_plain,
)

CURVES = ("step", "linear", "cosine", "exp")
TIMELINES = (*CLOCKS, "iterations")


@dataclasses.dataclass(frozen=True)
class Context:
    """What the rest of the file says that a value's meaning depends on.

    Attributes:
        clock: Of schedules that name none.
        train_steps_per_iteration: The clock `iterations` in train steps.
        window: Of measures that name none, in episodes.
        min_episodes: Likewise.
        has_difficulty: Whether the file has a shared difficulty.
        lessons: Names of the lessons, by staged parameter.
    """

    clock: str = "env_steps"
    train_steps_per_iteration: int = TRAIN_STEPS_PER_ITERATION
    window: int = 400
    min_episodes: int = 200
    has_difficulty: bool = False
    lessons: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)

    def timeline(self, name: str) -> Timeline:
        """A clock by its name in the file."""
        if name == "iterations":
            return Timeline(name, "train_steps", self.train_steps_per_iteration)
        return Timeline(name, name)


def value(json: Json, context: Context) -> Value:
    """A bound of a sampler: numbers, fixed or following the curriculum, but never random."""
    found = by_type(json, VALUES)(json, context) if isinstance(json.value, dict) else plain(json)
    if found.kind not in NUMERIC:
        json.fail("a number, an array of numbers, a schedule or a lerp")
    return found


def by_type(json: Json, known: Mapping[str, Callable[..., Any]]) -> Callable[..., Any]:
    """The parser of an object's `type`, one of those known."""
    if "type" not in json.value:
        json.fail(f'an object with a "type": {", ".join(known)}')
    kind = json["type"]
    if kind.value == "fixed":
        kind.fail("left out: write a fixed value as it is, without an object")
    return known[kind.word(list(known))]


def plain(json: Json) -> Fixed:
    """A fixed value: a number, string or boolean, or an array of them with equal rows."""
    kind, shape = form(json)
    # [0, 0.5] is all floats; integers stay exact however large
    return Fixed(to_plain(json.value, kind) if kind == "float" else json.value, kind, shape)


def form(json: Json) -> tuple[str, tuple[int, ...]]:
    """Kind and shape of a plain value."""
    if isinstance(json.value, bool):
        return "bool", ()
    if isinstance(json.value, str):
        return "str", ()
    if isinstance(json.value, (int, float)):
        return type(json.number()).__name__, ()
    if not isinstance(json.value, list):
        json.fail("a number, a string, true, false or an array of them")
    elements = json.list()
    kind, shape = same_form(json, [form(element) for element in elements])
    return kind, (len(elements), *shape)


def same_form(
    json: Json, forms: Iterable[tuple[str, tuple[int, ...]]]
) -> tuple[str, tuple[int, ...]]:
    """Kind and shape that several values share; integers beside floats count as floats."""
    kinds, shapes = (list(dict.fromkeys(column)) for column in zip(*forms))
    if len(kinds) > 1 and set(kinds) <= set(NUMERIC):
        kinds = ["float"]
    if len(kinds) > 1 or len(shapes) > 1:
        found = " and ".join(kinds if len(kinds) > 1 else [str(list(shape)) for shape in shapes])
        json.fail(f"of one kind and shape all through, not {found}")
    return kinds[0], shapes[0]


def _schedule(json: Json, context: Context) -> Schedule:
    given = json.keys(["type", "kind", "points"], ["clock", "dtype"])
    curve = json["kind"].word(CURVES)
    times, values, forms = [], [], []
    for point in json["points"].list():
        time, element = point.list(exactly=2)
        times.append(time.number(low=0))
        if len(times) > 1 and not times[-1] > times[-2]:
            time.fail(f"above {show(times[-2])}: the points are in the order of time")
        values.append(element.value)
        forms.append(form(element))
    kind, shape = same_form(json["points"], forms)
    if curve != "step" and kind not in NUMERIC:
        json["points"].fail(f'numbers for a {curve} schedule; "step" takes other values too')
    if curve == "exp" and not all(np.min(v) > 0 for v in values):
        json["points"].fail("values above 0 for an exp schedule")
    clock = json["clock"].word(TIMELINES) if "clock" in given else context.clock
    kind = _dtype(json, kind, kind if curve == "step" else "float")
    timeline = context.timeline(clock)
    return Schedule(curve, timeline, tuple(times), tuple(values), kind, shape)


def _dtype(json: Json, kind: str, default: str) -> str:
    """The kind of numbers that a schedule or lerp yields."""
    if "dtype" not in json.value:
        return default
    if kind not in NUMERIC:
        json["dtype"].fail("left out where the values are no numbers")
    return json["dtype"].word(NUMERIC)


def _lerp(json: Json, context: Context) -> Lerp:
    given = json.keys(["type", "from", "to"], ["of", "dtype"])
    ends = [json["from"], json["to"]]
    kind, shape = same_form(json, [form(end) for end in ends])
    if kind not in NUMERIC:
        json["from"].fail("a number or an array of numbers")
    of = json["of"].name() if "of" in given else "difficulty"
    if of == "difficulty" and not context.has_difficulty:
        json.fail(
            "used with a shared difficulty in $.curriculum.difficulty, or with the name of a "
            'staged parameter as "of"'
        )
    if of != "difficulty" and of not in context.lessons:
        json["of"].fail(
            f"difficulty or a staged parameter ({', '.join(context.lessons) or 'none'})"
        )
    names = () if of == "difficulty" else context.lessons[of]
    kind = _dtype(json, kind, "float")
    return Lerp(ends[0].value, ends[1].value, kind, shape, of, names)


def original(json: Json, context: Context) -> Schedule:
    """The form `{"iters": [i0, i1, ...], "range": [first, last]}`.

    The values are `linspace(first, last, number of iters)`, cut to integers if `first` is one,
    each valid from its iteration on; before the first the environment keeps its own.
    """
    json.keys(["iters", "range"])
    iters = sorted(iteration.number(low=0) for iteration in json["iters"].list())
    first, last = (end.number() for end in json["range"].list(exactly=2))
    values = np.linspace(first, last, len(iters)).astype(type(first)).tolist()
    timeline, kind = context.timeline("iterations"), type(first).__name__
    return Schedule("step", timeline, tuple(iters), tuple(values), kind, begins=True)


VALUES: dict[str, Callable[[Json, Context], Value]] = {"schedule": _schedule, "lerp": _lerp}
