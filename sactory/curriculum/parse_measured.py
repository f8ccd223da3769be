"""From JSON to what moves by measured success: difficulty, staged lessons, automatic ranges."""

from __future__ import annotations

import difflib
from collections.abc import Callable

from sactory.curriculum.measured import (
    OPERATORS,
    Adr,
    Combined,
    Condition,
    Lesson,
    Measure,
    Reached,
    Stages,
    UpDown,
    needs_measure,
)
from sactory.curriculum.parse_samplers import node
from sactory.curriculum.parse_values import TIMELINES, Context, same_form
from sactory.curriculum.reader import Json
from sactory.curriculum.state import EVAL, TRAIN
from sactory.curriculum.values import Node

MEASURES = ("success_rate", "return", "episode_length")
CLOCK_MEASURES = (*TIMELINES, "progress")
SHARES = ("success_rate", "progress")  # measures that lie between 0 and 1
_AVERAGE_KEYS = ("window", "min_episodes", "smoothing", "source")
_MISTYPED = 0.85  # more alike than this, and a metric's name is a known one mistyped


def difficulty(json: Json, context: Context) -> UpDown:
    """The shared difficulty."""
    given = json.keys(
        ["type", "measure", "up", "down", "step_up", "step_down"], ["init", *_AVERAGE_KEYS]
    )
    json["type"].word(["updown"])
    measure = _measure(json, context)
    up, down = _threshold(json["up"], measure.name), _threshold(json["down"], measure.name)
    if not down < up:
        json["down"].fail(f"below up = {up:g}")
    return UpDown(
        measure=measure,
        init=json["init"].number(0, 1) if "init" in given else 0.0,
        up=up,
        down=down,
        step_up=json["step_up"].number(above=0, high=1),
        step_down=json["step_down"].number(low=0, high=1),
    )


def _measure(json: Json, context: Context) -> Measure:
    """What an object with the key `measure` averages."""
    given = set(json.value)
    source = json["source"].word([TRAIN, EVAL]) if "source" in given else TRAIN
    smoothing = json["smoothing"].number(0, 1) if "smoothing" in given else 0.0
    if smoothing == 1:
        json["smoothing"].fail("below 1: nothing new would count")
    return Measure(
        name=_measured(json["measure"]),
        window=json["window"].integer(1) if "window" in given else context.window,
        min_episodes=(
            json["min_episodes"].integer(1) if "min_episodes" in given else context.min_episodes
        ),
        smoothing=float(smoothing),
        source=source,
    )


def _measured(json: Json) -> str:
    """The name of something that episodes have an average of."""
    own = ", ".join(MEASURES)
    name = json.name()
    if name in CLOCK_MEASURES:
        json.fail(f"{own} or a metric of the environment: {name} has no average")
    if name not in MEASURES:
        close = difflib.get_close_matches(name, (*MEASURES, *CLOCK_MEASURES), 1, _MISTYPED)
        if close:
            json.fail(f"{own} or a metric of the environment; did you mean `{close[0]}`?")
    return name


def _threshold(json: Json, measure: str) -> float:
    """A threshold of a measure, which must be within its reach."""
    return float(json.number(0, 1) if measure in SHARES else json.number())


def condition(json: Json, context: Context) -> Condition:
    """A condition on measures and clocks."""
    json.object()
    for word in ("all", "any"):
        if word in json.value:
            json.keys([word])
            parts = tuple(condition(part, context) for part in json[word].list())
            return Combined(word == "all", parts)
    required = ["measure", "op", "threshold"]
    name = json["measure"].value if "measure" in json.value else None
    json.keys(required, [] if name in CLOCK_MEASURES else _AVERAGE_KEYS)
    op = json["op"].word(list(OPERATORS))
    if name in CLOCK_MEASURES:
        return Reached(context.timeline(name), op, _threshold(json["threshold"], name))
    measure = _measure(json, context)
    return Reached(measure, op, _threshold(json["threshold"], measure.name))


def stages(json: Json, param: str, context: Context) -> Stages:
    """A parameter that goes through lessons."""
    json.keys(["type", "stages"])
    listed = json["stages"].list()
    lessons: list[Lesson] = []
    for i, stage in enumerate(listed):
        lesson = _lesson(stage, context, first=i == 0, last=i + 1 == len(listed))
        if lesson.name in [other.name for other in lessons]:
            stage["name"].fail("another name: an earlier lesson has this one")
        lessons.append(lesson)
    forms = [(lesson.value.kind, lesson.value.shape) for lesson in lessons]
    kind, shape = same_form(json["stages"], forms)
    return Stages(param, tuple(lessons), kind, shape)


def _lesson(json: Json, context: Context, first: bool, last: bool) -> Lesson:
    given = json.keys(["name", "value"], ["until", "fallback"])
    if last and "until" in given:
        json["until"].fail("left out: no lesson follows the last one")
    if not last and "until" not in given:
        json.fail('given an "until": another lesson follows this one')
    if first and "fallback" in given:
        json["fallback"].fail("left out: no lesson comes before the first one")
    until = condition(json["until"], context) if "until" in given else None
    fallback = condition(json["fallback"], context) if "fallback" in given else None
    if fallback is not None and not needs_measure(fallback):
        json["fallback"].fail("about a measure, not a clock alone, which would never stop firing")
    return Lesson(json["name"].name(), node(json["value"], context), until, fallback)


def lesson_names(json: Json) -> tuple[str, ...]:
    """The names of a staged parameter's lessons, before they are parsed."""
    json.object()
    if "stages" not in json.value:
        json.keys(["type", "stages"])
    listed = json["stages"].list()
    for stage in listed:
        stage.object()
    return tuple(stage["name"].name() for stage in listed if "name" in stage.value)


def adr(json: Json, param: str, context: Context) -> Adr:
    """Automatic domain randomisation."""
    numbers = ["init", "limits", "delta", "boundary_p", "queue", "low", "high"]
    json.keys(["type", *numbers, "measure"])
    init = _pair(json["init"])
    limits = _pair(json["limits"])
    if not limits[0] <= init[0] <= init[1] <= limits[1]:
        json["init"].fail(f"within limits = [{limits[0]:g}, {limits[1]:g}]")
    queue, name = json["queue"].integer(1), _measured(json["measure"])
    low, high = _threshold(json["low"], name), _threshold(json["high"], name)
    if not low < high:
        json["low"].fail(f"below high = {high:g}")
    return Adr(
        param=param,
        init=init,
        limits=limits,
        delta=json["delta"].number(above=0),
        boundary_p=json["boundary_p"].number(above=0, high=1),
        low=low,
        high=high,
        measure=Measure(name, window=queue, min_episodes=queue),
    )


def _pair(json: Json) -> tuple[float, float]:
    low, high = (float(end.number()) for end in json.list(exactly=2))
    if low > high:
        json.fail("in order: [low, high]")
    return low, high


MEASURED: dict[str, Callable[[Json, str, Context], Node]] = {"stages": stages, "adr": adr}
