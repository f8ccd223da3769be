"""curriculum.schema.json and the parser agree, and every shipped curriculum is sound."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sactory import curriculum
from sactory.curriculum import measured, parse_measured, parse_samplers, parse_values
from sactory.curriculum.reader import NAME
from sactory.errors import UserError
from tests import curricula

pytestmark = pytest.mark.timeout(300)

FOLDER = Path(__file__).resolve().parent.parent / "configs" / "curricula"
SCHEMA = json.loads((FOLDER / "curriculum.schema.json").read_text())
VALIDATOR = jsonschema.Draft7Validator(SCHEMA)
SHIPPED = sorted(set(FOLDER.glob("*.json")) - {FOLDER / "curriculum.schema.json"})
EVERY_TYPE = json.loads((FOLDER / "every_type.json").read_text())

FORM = re.compile(r"unknown key|has no '|must be (an? (object|array|whole number)|true or false)")
"""Refusals that are about the form alone, so that the schema must refuse, too."""


def refusal(content) -> str | None:
    try:
        curriculum.parse(content)
    except UserError as e:
        return str(e)
    return None


def places(value, path=()):
    """Every place in a JSON value: (path to the container, key or index)."""
    if isinstance(value, (dict, list)):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield path, key
            yield from places(value[key], (*path, key))


def changed(content, place, make):
    """A copy with one place changed by `make(container, key)`."""
    content = copy.deepcopy(content)
    container = content
    for key in place[0]:
        container = container[key]
    make(container, place[1])
    return content


def small_files():
    """Files that together use every key there is, each with the places to try."""
    params = EVERY_TYPE["curriculum"]["params"]
    for name, spec in params.items():
        used = {name: spec}
        if spec == params["wrench_noise"]:
            used[spec["of"]] = params[spec["of"]]
        content = copy.deepcopy(EVERY_TYPE)
        content["curriculum"]["params"] = used
        inside = ("curriculum", "params", name)
        for path, key in places(content):
            if (*path, key)[:3] == inside or (name == "noise_level" and path[:2] != inside[:2]):
                yield content, (path, key)


CASES = [case for case in small_files() if case[1][1] != "$schema"]


def put(value):
    return lambda container, key: container.__setitem__(key, value)


def remove(container, key):
    del container[key]


def test_the_schema_is_a_schema():
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    assert len(SHIPPED) >= 4


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_shipped_files_are_sound(path):
    curriculum.load(path)
    VALIDATOR.validate(json.loads(path.read_text()))
    assert curriculum.load(f"configs/curricula/{path.name}").params


@settings(max_examples=60, deadline=None)
@given(curricula.files())
def test_sound_files_fit_the_schema(content):
    assert refusal(content) is None
    VALIDATOR.validate(content)


def test_the_words_of_the_parser_are_those_of_the_schema():
    defined = SCHEMA["definitions"]
    types = set()
    for definition in defined.values():
        kind = definition.get("properties", {}).get("type", {})
        types |= {kind["const"]} if "const" in kind else set(kind.get("enum", []))
    parsed = {*parse_values.VALUES, *parse_samplers.SAMPLERS, *parse_measured.MEASURED, "updown"}
    assert types == parsed
    assert defined["timeline"]["enum"] == list(parse_values.TIMELINES)
    assert defined["schedule"]["properties"]["kind"]["enum"] == list(parse_values.CURVES)
    assert defined["op"]["enum"] == list(measured.OPERATORS)
    assert defined["measure"]["allOf"][1]["not"]["enum"] == list(parse_measured.CLOCK_MEASURES)
    assert defined["name"]["pattern"] == f"^{NAME}$"


@pytest.mark.parametrize(
    ("whole", "place"), CASES, ids=[".".join(map(str, (*path, key))) for _, (path, key) in CASES]
)
def test_wrong_forms_are_refused_by_both(whole, place):
    """At every place where a key or an element can stand."""
    nothing = changed(whole, place, put(None))
    assert refusal(nothing) and not VALIDATOR.is_valid(nothing)
    if isinstance(place[1], str):
        extra = changed(whole, place, lambda container, _: container.__setitem__("zz z", None))
        assert refusal(extra) and not VALIDATOR.is_valid(extra)
    for wrong in ({}, [], "a word", True, -1, 0, 0.5, [1, 2]):
        content = changed(whole, place, put(wrong))
        told = refusal(content)
        if not VALIDATOR.is_valid(content):
            assert told, f"only the schema refuses {wrong}"
        elif told:
            assert not FORM.search(told), f"only the parser refuses {wrong}: {told}"
    content = changed(whole, place, remove)
    told = refusal(content)
    assert told or VALIDATOR.is_valid(content)
    assert not (told and FORM.search(told)) or not VALIDATOR.is_valid(content)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_the_schema_refuses_nothing_that_the_parser_takes(data):
    content = data.draw(curricula.files())
    place = data.draw(st.sampled_from([*places(content)]))
    other = data.draw(st.sampled_from([*places(EVERY_TYPE)]))
    value = EVERY_TYPE
    for key in (*other[0], other[1]):
        value = value[key]
    content = changed(content, place, put(value))
    if not VALIDATOR.is_valid(content):
        assert refusal(content)


@pytest.mark.parametrize(
    "content",
    [
        {"horizon": 128, "curriculum": {"x": {"iters": [0, 9], "range": [0, 1]}}},
        {"curriculum": {"x": {"iters": [0, 9], "range": [0, 1, 2]}}},
        {"curriculum": {"x": {"type": "uniform", "low": 0, "high": 1}}},
        {"curriculum": {}},
        {"curriculum": 3},
        {"horizon": 128, "curriculum": {"params": {"x": 1}}},
        {"horizon": 128},
        [],
    ],
)
def test_both_tell_the_original_form_from_the_present_one(content):
    assert VALIDATOR.is_valid(content) == (refusal(content) is None)
