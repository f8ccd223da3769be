"""From a curriculum file to a `Curriculum`, or one line that says what is wrong with the file.

A file is either of the present form, or the original one: an environment's settings with a
`curriculum` of nothing but `{"iters", "range"}`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from sactory.config_text import find_file
from sactory.curriculum import parse_measured
from sactory.curriculum.parse_samplers import SAMPLERS, node
from sactory.curriculum.parse_values import TIMELINES, VALUES, Context, original
from sactory.curriculum.plan import CURRENT, HARDEST, Curriculum
from sactory.curriculum.reader import NAME, Json, read
from sactory.curriculum.values import Node
from sactory.errors import UserError

SCHEMA = 2
REWARD_WORDS = ("reward", "rewards", "penalty", "penalties", "bonus")
"""A parameter with one of these in its name belongs to the reward."""

_OPTIONS = (
    "clock",
    "train_steps_per_iteration",
    "window",
    "min_episodes",
    "eval",
    "difficulty",
    "allow_reward_params",
)


def load(path: str | os.PathLike[str]) -> Curriculum:
    """Reads a curriculum file, from here or among the shipped ones.

    Raises:
        UserError: In one line: the file, the JSON path, the wrong value, and what would be right.
    """
    content = read(find_file(path, suffix=".json"), str(path)).value
    try:
        return parse(content)
    except UserError as e:
        raise UserError(f"{path}: {e}") from None


def parse(value: Any) -> Curriculum:
    """Checks a curriculum file's content.

    Args:
        value: As Python's JSON parser gives it.

    Raises:
        UserError: In one line: the JSON path, the wrong value, and what would be right.
    """
    file = Json(value)
    file.object()
    if "curriculum" not in file.value:
        file.fail('an object with the key "curriculum"')
    block = file["curriculum"]
    block.object()
    if "schema" in file.value or "params" in block.value:
        return _present(file)
    if not block.value:
        block.fail('an object with "params"')
    params = {name: _original_param(block, name) for name in block.value}
    _check_rewards(block, params)
    return Curriculum(params, path=block.path)


def _original_param(block: Json, name: str) -> Node:
    _check_name(block, name)
    spec = block[name]
    if not isinstance(spec.value, dict) or not {"iters", "range"} & set(spec.value):
        spec.fail(
            'an object with "iters" and "range" in a file without "params"; all other forms stand '
            "in $.curriculum.params"
        )
    return original(spec, Context())


def _present(file: Json) -> Curriculum:
    if "env" in file.value:
        file.fail("takes no settings of the environment: they stand in gin, envs.load", key="env")
    given = file.keys(["curriculum"], ["schema", "$schema"])
    if "schema" in given and file["schema"].value != SCHEMA:
        file["schema"].fail(f"{SCHEMA}, the one form that this version reads")
    block = file["curriculum"]
    given = block.keys(["params"], _OPTIONS)
    listed = block["params"]
    listed.object()
    if not listed.value:
        listed.fail("an object with at least one parameter")
    context = _context(block, given)
    updown = block["difficulty"] if "difficulty" in given else None
    params = {name: _param(listed, name, context) for name in listed.value}
    allowed = "allow_reward_params" in given and block["allow_reward_params"].flag()
    if not allowed:
        _check_rewards(listed, params)
    return Curriculum(
        params,
        listed.path,
        parse_measured.difficulty(updown, context) if updown else None,
        _evaluation(block["eval"], params, context) if "eval" in given else HARDEST,
        context.train_steps_per_iteration,
        allowed,
    )


def _context(block: Json, given: set[str]) -> Context:
    """What the block says for all of its values."""
    defaults = vars(Context())
    numbers = {
        key: block[key].integer(1) if key in given else defaults[key]
        for key in ("train_steps_per_iteration", "window", "min_episodes")
    }
    return Context(
        clock=block["clock"].word(TIMELINES) if "clock" in given else defaults["clock"],
        has_difficulty="difficulty" in given,
        lessons={
            name: parse_measured.lesson_names(spec)
            for name, spec in block["params"].items()
            if isinstance(spec.value, dict) and spec.value.get("type") == "stages"
        },
        **numbers,
    )


def _check_name(params: Json, name: str) -> None:
    if not re.fullmatch(NAME, name):
        params.fail(f"without the parameter {name!r}: a name has no spaces, commas and '='")


def _param(params: Json, name: str, context: Context) -> Node:
    """A parameter: all that `node` takes, the original form, and what moves by success."""
    _check_name(params, name)
    spec = params[name]
    if isinstance(spec.value, dict):
        if "type" not in spec.value and {"iters", "range"} & set(spec.value):
            return original(spec, context)
        kind = spec.value.get("type")
        if isinstance(kind, str) and kind in parse_measured.MEASURED:
            return parse_measured.MEASURED[kind](spec, name, context)
        if isinstance(kind, str) and kind not in (*VALUES, *SAMPLERS, "fixed"):
            spec["type"].word([*VALUES, *SAMPLERS, *parse_measured.MEASURED])
    return node(spec, context)


def _evaluation(json: Json, params: Mapping[str, Node], context: Context) -> Any:
    """What the evaluator plays."""
    if not isinstance(json.value, dict):
        return json.word([HARDEST, CURRENT])
    for name in json.value:
        if name not in params:
            json.fail(f"about parameters of this curriculum ({', '.join(params)}), not {name!r}")
    return {name: node(spec, context) for name, spec in json.items()}


def _check_rewards(json: Json, params: Mapping[str, Node]) -> None:
    """Refuses parameters that their names make ones of the reward."""
    for name in params:
        if {*re.split(r"[^a-z]+", name.lower())} & {*REWARD_WORDS}:
            refuse_reward(json[name].path)


def refuse_reward(path: str) -> None:
    """Raises `UserError` for a parameter of the reward that the file doesn't allow."""
    raise UserError(
        f"{path} changes the reward, but the replay holds rewards of the old kind, too: leave it "
        'out, or allow it with "allow_reward_params": true beside "params"'
    )
