"""The verb `sactory curriculum check|show|plot FILE`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from sactory.curriculum.parse import load
from sactory.curriculum.parse_values import TIMELINES
from sactory.curriculum.plan import Curriculum
from sactory.curriculum.state import Axis, State
from sactory.curriculum.values import axes, show
from sactory.errors import UserError
from sactory.fields import nearest
from sactory.flags import Flags

USAGE = """usage: sactory curriculum check|show|plot FILE [flags]

  check  say whether a curriculum file is sound, and if not what would be right
  show   print each parameter at a given progress, one line `name value` each
  plot   draw all parameters over the run as a picture

`sactory curriculum show --help` explains one of them."""


def main(argv: list[str]) -> int:
    """Runs one of the three."""
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(USAGE)
        return 0
    word, *rest = argv
    if word not in _COMMANDS:
        hint = nearest(word, _COMMANDS) or "; there are check, show and plot"
        raise UserError(f"`sactory curriculum {word}` is unknown{hint}")
    return _COMMANDS[word](rest)


def _load(flags: Flags, argv: list[str], word: str) -> tuple[Any, str, Curriculum]:
    args, words = flags.parse(argv)
    if not words:
        raise UserError(f"which file? `sactory curriculum {word} FILE`")
    return args, words[0], load(words[0])


def _check(argv: list[str]) -> int:
    flags = Flags("curriculum check", "Says whether a curriculum file is sound.", "FILE")
    _, path, curriculum = _load(flags, argv, "check")
    count = len(curriculum.params)
    lines = [f"{path} is sound: {count} parameter{'s' * (count > 1)}"]
    followed = ", ".join(sorted(_axis_name(axis) for axis in curriculum.axes()))
    if followed:
        lines.append(f"they follow {followed}")
    if curriculum.measures:
        names = sorted({measure.name for measure in curriculum.measures})
        lines.append(f"judged by {', '.join(names)}")
    print("; ".join(lines))
    return 0


def _axis_name(axis: Axis) -> str:
    return axis[0] if len(axis) == 1 else f"{axis[0]} of {axis[1]}"


def _show(argv: list[str]) -> int:
    flags = Flags("curriculum show", "Prints each parameter, one line `name value` each.", "FILE")
    flags.string(
        "at",
        "",
        f"where in the run: {', '.join(TIMELINES)} and difficulty, such as "
        "env_steps=2e6,difficulty=0.4; a staged parameter takes the name of a lesson; default: "
        "the start",
    )
    args, _, curriculum = _load(flags, argv, "show")
    given = _parse_at(args.at)
    state = state_at(curriculum, given)
    for note in _notes(curriculum, given):
        print(f"note: {note}", file=sys.stderr)
    for name, node in curriculum.params.items():
        print(name, node.text(state))
    return 0


def _parse_at(text: str) -> dict[str, str]:
    """Splits `env_steps=2e6,difficulty=0.4`."""
    given: dict[str, str] = {}
    for pair in filter(None, text.split(",")):
        key, equals, value = (word.strip() for word in pair.partition("="))
        if not (key and equals and value):
            _refuse_at(pair, "NAME=VALUE is wanted, such as env_steps=2e6")
        if key in given:
            _refuse_at(pair, f"{key} stands twice")
        given[key] = value
    return given


def _refuse_at(pair: str, right: str) -> NoReturn:
    raise UserError(f"--at {pair}: {right}")


def state_at(curriculum: Curriculum, given: dict[str, str]) -> State:
    """The state at a point of the run; what isn't given is as at the start.

    Args:
        curriculum: The curriculum.
        given: By clock, `difficulty` or staged parameter, as the user typed it.

    Raises:
        UserError: An unknown name, or a value that it can't have.
    """
    state = curriculum.initial_state()
    lessons = {stages.param: stages.names for stages in curriculum.stages}
    if {"iterations", "train_steps"} <= set(given):
        _refuse_at(f"iterations={given['iterations']}", "it is the same clock as train_steps")
    for key, text in given.items():
        pair = f"{key}={text}"
        if key in lessons:
            if text not in lessons[key]:
                _refuse_at(pair, f"its lessons are {', '.join(lessons[key])}")
            state = state.moved(("lessons", key), text)
        elif key == "difficulty":
            state = state.moved((key,), _number(pair, text, 1))
        elif key == "iterations":
            iterations = int(_number(pair, text))
            train_steps = iterations * curriculum.train_steps_per_iteration
            state = state.moved(("train_steps",), train_steps)
        elif key in TIMELINES:
            state = state.moved((key,), int(_number(pair, text)))
        else:
            known = [*TIMELINES, "difficulty", *lessons]
            _refuse_at(pair, f"there is {', '.join(known)}{nearest(key, known)}")
    return state


def _number(pair: str, text: str, high: float = 1e15) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= high:
        _refuse_at(pair, f"a number from 0 to {high:g} is wanted")
    return value


def _notes(curriculum: Curriculum, given: dict[str, str]) -> list[str]:
    """What the user may have overlooked in `--at`."""
    if not given:
        return []
    named = {"train_steps" if key == "iterations" else key for key in given}
    followed: dict[str, list[str]] = {}
    for name, node in curriculum.params.items():
        for axis in axes(node):
            if axis[0] != "ranges":
                followed.setdefault(axis[-1], []).append(name)
    start = curriculum.initial_state()
    missing = [
        f"{', '.join(names)} follows {key}, which --at does not give: {_at_start(start, key)}"
        for key, names in followed.items()
        if key not in named
    ]
    return missing + [f"nothing here follows {key}" for key in named if key not in followed]


def _at_start(start: State, key: str) -> str:
    value = start.lessons.get(key)
    return f"lesson {value}" if value else f"it is {show(getattr(start, key))}"


def _plot(argv: list[str]) -> int:
    flags = Flags("curriculum plot", "Draws all parameters over the run as a picture.", "FILE")
    flags.string("out", None, "the picture (.png, .svg, .pdf); default: FILE's name, here")
    args, path, curriculum = _load(flags, argv, "plot")
    out = Path(args.out or f"{Path(path).stem}.png")
    from sactory.curriculum import plot  # takes a second that the others spare

    try:
        plot.draw(curriculum, out)
    except (OSError, ValueError) as e:
        raise UserError(f"--out {out} can't be written: {e}") from None
    print(out)
    return 0


_COMMANDS: dict[str, Callable[[list[str]], int]] = {"check": _check, "show": _show, "plot": _plot}
