"""Curriculum files made by hypothesis, all of them sound, and states that they can be in."""

from __future__ import annotations

from hypothesis import strategies as st

from sactory.curriculum import Curriculum, State

CLOCKS = ("env_steps", "train_steps", "episodes", "iterations")
MEASURES = ("success_rate", "return", "episode_length", "peak_force")
TIMES = st.lists(st.integers(0, 10**6), min_size=1, max_size=4, unique=True).map(sorted)


def numbers(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high).map(lambda x: round(x, 6))


@st.composite
def schedules(draw, low: float, high: float, curves=("step", "linear", "cosine", "exp")):
    curve = draw(st.sampled_from(curves))
    least = max(low, 0.01) if curve == "exp" else low
    if least > high:
        curve, least = "linear", low
    points = [[time, draw(numbers(least, high))] for time in draw(TIMES)]
    made = {"type": "schedule", "kind": curve, "points": points}
    if draw(st.booleans()):
        made["clock"] = draw(st.sampled_from(CLOCKS))
    return made


def lerps(low: float, high: float):
    return st.builds(lambda a, b: {"type": "lerp", "from": a, "to": b}, *[numbers(low, high)] * 2)


def bounds(low: float, high: float) -> st.SearchStrategy:
    return st.one_of(numbers(low, high), schedules(low, high), lerps(low, high))


@st.composite
def samplers(draw, depth: int = 1):
    low, high = draw(bounds(-5, 0)), draw(bounds(0, 5))
    kinds = ["uniform", "log_uniform", "int_uniform", "normal", "truncated_normal", "multirange"]
    kind = draw(st.sampled_from([*kinds, "mixture"] if depth else kinds))
    made = {"type": kind}
    if kind in ("uniform", "int_uniform"):
        made.update(low=low, high=high)
    elif kind == "log_uniform":
        made.update(low=draw(bounds(0.1, 1)), high=draw(bounds(1, 10)))
    elif kind == "normal":
        made.update(mean=low, std=draw(bounds(0.01, 2)), clip=[low, high])
    elif kind == "truncated_normal":
        made.update(mean=draw(bounds(-9, 9)), std=draw(bounds(0.1, 2)), low=low, high=high)
    elif kind == "multirange":
        made.update(intervals=[[low, high], [6, draw(bounds(6, 7))]])
    else:
        parts = draw(st.lists(samplers(depth=0), min_size=1, max_size=3))
        made.update(of=parts, weights=[draw(bounds(0.1, 1)) for _ in parts])
    if kind in ("uniform", "log_uniform", "int_uniform", "normal", "truncated_normal") and depth:
        made.update(draw(st.sampled_from([{}, {"shape": [2]}, {"shape": [2, 3]}])))
    return made


@st.composite
def conditions(draw, depth: int = 1):
    if depth and draw(st.booleans()):
        word = draw(st.sampled_from(["all", "any"]))
        return {word: draw(st.lists(conditions(depth=0), min_size=1, max_size=2))}
    made = {"measure": draw(st.sampled_from(MEASURES)), "op": draw(st.sampled_from([">=", "<"]))}
    made["threshold"] = draw(numbers(0, 1))
    if draw(st.booleans()):
        made.update(window=draw(st.integers(1, 5)), smoothing=draw(numbers(0, 0.9)))
    return made


@st.composite
def staged(draw):
    count = draw(st.integers(1, 4))
    lessons = []
    for i in range(count):
        value = draw(st.one_of(numbers(-1, 1), bounds(-1, 1), samplers(depth=0)))
        lesson = {"name": f"lesson{i}", "value": value}
        if i + 1 < count:
            lesson["until"] = draw(conditions())
        if i and draw(st.booleans()):
            lesson["fallback"] = draw(conditions())
        lessons.append(lesson)
    return {"type": "stages", "stages": lessons}


@st.composite
def adrs(draw):
    low, high = sorted([draw(numbers(-1, 1)), draw(numbers(-1, 1))])
    return {
        "type": "adr",
        "init": [low, high],
        "limits": [low - draw(numbers(0, 1)), high + draw(numbers(0, 1))],
        "delta": draw(numbers(0.01, 1)),
        "boundary_p": draw(numbers(0.1, 1)),
        "queue": draw(st.integers(1, 4)),
        "low": draw(numbers(0, 0.4)),
        "high": draw(numbers(0.5, 1)),
        "measure": draw(st.sampled_from(MEASURES)),
    }


ORIGINALS = st.builds(
    lambda iters, a, b: {"iters": iters, "range": [a, b]},
    TIMES,
    st.one_of(st.integers(-9, 9), numbers(-9, 9)),
    numbers(-9, 9),
)
CHOICES = st.lists(st.sampled_from(["box", "round"]), min_size=1).map(
    lambda values: {"type": "choice", "values": values}
)
PLAIN = st.one_of(
    st.booleans(), st.integers(-9, 9), numbers(-9, 9), st.text(max_size=3), st.just([[1, 2.5]])
)
PARAMS = st.one_of(PLAIN, bounds(-5, 5), samplers(), CHOICES, staged(), adrs(), ORIGINALS)


@st.composite
def files(draw, params=PARAMS):
    """The content of a curriculum file."""
    names = st.sampled_from(["mass", "arm.gain", "noise", "lag", "grip/x", "tilt"])
    updown = {"type": "updown", "measure": draw(st.sampled_from(MEASURES)), "up": 0.75, "down": 0.5}
    updown.update(init=draw(numbers(0, 1)), step_up=0.3, step_down=draw(numbers(0, 1)))
    return {
        "schema": 2,
        "curriculum": {
            "params": draw(st.dictionaries(names, params, min_size=1, max_size=4)),
            "difficulty": updown,
            "clock": draw(st.sampled_from(CLOCKS)),
            "train_steps_per_iteration": draw(st.integers(1, 100)),
            "min_episodes": draw(st.integers(1, 5)),
            "window": draw(st.integers(1, 5)),
            "eval": draw(st.sampled_from(["hardest", "current"])),
        },
    }


@st.composite
def states(draw, curriculum: Curriculum) -> State:
    """Some state that the curriculum can be in."""
    state = curriculum.initial_state()
    for clock in ("env_steps", "train_steps", "episodes"):
        state = state.moved((clock,), draw(st.integers(0, 10**8)))
    state = state.moved(("difficulty",), draw(st.floats(0, 1)))
    for stages in curriculum.stages:
        state = state.moved(("lessons", stages.param), draw(st.sampled_from(stages.names)))
    for adr in curriculum.adrs:
        ends = (adr.limits[0], adr.init[0]), (adr.init[1], adr.limits[1])
        drawn = tuple(draw(st.floats(*end)) for end in ends)
        state = state.moved(("ranges", adr.param), drawn)
    return state
