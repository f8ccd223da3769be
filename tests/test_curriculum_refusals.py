"""Curriculum files that are refused: in one line with the JSON path and what would be right."""

from __future__ import annotations

import pytest

from sactory import curriculum
from sactory.curriculum import ParameterSpec
from sactory.errors import UserError

pytestmark = pytest.mark.timeout(60)


def refusal(call, *arguments) -> str:
    with pytest.raises(UserError) as caught:
        call(*arguments)
    message = str(caught.value)
    assert "\n" not in message
    return message


def of_param(spec, **block) -> str:
    """The message for a file whose parameter `x` is wrong."""
    content = {"schema": 2, "curriculum": {"params": {"x": spec}, **block}}
    message = refusal(curriculum.parse, content)
    assert message.startswith("$.curriculum.params.x"), message
    return message.removeprefix("$.curriculum.params.x")


UNIFORM = {"type": "uniform", "low": 0, "high": 1}
CURVE = {"type": "schedule", "kind": "linear"}
ADR = {"type": "adr", "init": [1, 1], "limits": [0, 2], "delta": 0.1, "boundary_p": 0.5}
ADR.update(queue=5, low=0.4, high=0.8, measure="success_rate")
WIN = {"measure": "success_rate", "op": ">=", "threshold": 0.8}
EASY, HARD = {"name": "easy", "value": 0}, {"name": "hard", "value": 1}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (None, " = null: must be a number, a string, true, false or an array of them"),
        ([1, "a"], ' = [1, "a"]: must be of one kind and shape all through, not int and str'),
        (
            [[1, 2], [3]],
            " = [[1, 2], [3]]: must be of one kind and shape all through, not [2] and [1]",
        ),
        ({"type": "fixed", "value": 3}, '.type = "fixed": must be left out: write a fixed value'),
        ({"type": "unifrom"}, '.type = "unifrom": must be "schedule" or "lerp" or "uniform"'),
        ({"type": "unifrom"}, "did you mean `uniform`?"),
        ({"low": 0, "high": 1}, 'must be an object with a "type": schedule, lerp, uniform'),
        ({**UNIFORM, "hihg": 2}, " has an unknown key 'hihg'; did you mean `high`?"),
        ({"type": "uniform", "low": 0}, " has no 'high'; it needs type, low, high"),
        ({**UNIFORM, "low": 2}, ".low is 2.0: must not be above high, which is 1.0"),
        ({**UNIFORM, "low": True}, ".low = true: must be a number, an array of numbers"),
        ({**UNIFORM, "low": dict(UNIFORM)}, '.low.type = "uniform": must be "schedule" or "lerp"'),
        ({**UNIFORM, "low": [0, 0], "shape": [3]}, "bounds and a shape that fit together"),
        ({**UNIFORM, "type": "log_uniform"}, ".low is 0.0: must be above 0"),
        ({"type": "normal", "mean": 0, "std": -1}, ".std is -1: must be at least 0"),
        ({"type": "normal", "mean": 0, "std": 1, "clip": [2, 1]}, ".clip[0] is 2.0: must not be"),
        ({"type": "truncated_normal", "mean": 0, "std": 0, "low": 0, "high": 1}, ".std is 0: must"),
        ({"type": "choice", "values": []}, ".values = []: must be an array of at least 1 elements"),
        ({"type": "choice", "values": [1], "weights": [1, 2]}, ".weights = [1, 2]: must be 1 weig"),
        ({"type": "choice", "values": [1], "weights": [-1]}, ".weights[0] is -1.0: must be at lea"),
        ({"type": "choice", "values": [1], "weights": [0]}, ".weights are all 0: one must be"),
        ({"type": "multirange", "intervals": [[2, 1]]}, ".intervals[0][0] is 2.0: must not be"),
        ({"type": "mixture", "of": [1, [1, 2]]}, "must be of one kind and shape all through"),
        ({"iters": [0], "range": [1]}, ".range = [1]: must be an array of 2 elements, not 1"),
        ({"iters": [0], "rnge": [1]}, " has an unknown key 'rnge'; did you mean `range`?"),
        ({"iters": [-1], "range": [0, 1]}, ".iters[0] = -1: must be a number of at least 0"),
        ({"type": "lerp", "from": 0, "to": 1}, "must be used with a shared difficulty"),
        ({"type": "lerp", "from": 0, "to": 1, "of": "y"}, '.of = "y": must be difficulty or a s'),
    ],
)
def test_values(spec, message):
    assert message in of_param(spec)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"points": [[1, 0], [0, 1]]}, ".points[1][0] = 0: must be above 1: the points are in the"),
        ({"points": [[0, 0, 0]]}, ".points[0] = [0, 0, 0]: must be an array of 2 elements, not 3"),
        ({"points": [[0, 1], [1, "a"]]}, "must be of one kind and shape all through"),
        ({"points": [[0, "a"]]}, 'must be numbers for a linear schedule; "step" takes other'),
        ({"points": [[0, 0], [1, 1]], "kind": "exp"}, "must be values above 0 for an exp schedule"),
        ({"points": [[0, 0]], "kind": "cosin"}, "; did you mean `cosine`?"),
        ({"points": [[0, 0]], "clock": "steps"}, '.clock = "steps": must be "env_steps" or '),
        ({"points": [[0, 0]], "dtype": "long"}, '.dtype = "long": must be "int" or "float"'),
        ({"points": [[0, "a"]], "kind": "step", "dtype": "int"}, '.dtype = "int": must be left'),
    ],
)
def test_schedules(change, message):
    assert message in of_param({**CURVE, **change})


def test_bounds_must_stay_in_order_all_along_the_run():
    low = {**CURVE, "points": [[0, 0], [100, 2]]}
    message = of_param({"type": "uniform", "low": low, "high": 1})
    assert message == ".low is 1.125: must not be above high, which is 1.0 (at env_steps=56.25)"
    same = {**CURVE, "points": [[0, 1], [100, 3]]}
    curriculum.parse({"curriculum": {"params": {"x": {**UNIFORM, "low": low, "high": same}}}})
    other = {**same, "clock": "episodes"}
    message = of_param({**UNIFORM, "low": low, "high": other})
    assert message.endswith("(at env_steps=75, episodes=0)")
    curves = {**low, "kind": "cosine"}, {**low, "points": [[0, 0.05], [100, 2.0]]}
    assert "must not be above high" in of_param({**UNIFORM, "low": curves[0], "high": curves[1]})


@pytest.mark.parametrize(
    ("lessons", "message"),
    [
        ([], ".stages = []: must be an array of at least 1 elements, not 0"),
        ([EASY, HARD], 'must be given an "until": another lesson follows this one'),
        ([{**EASY, "until": WIN}], ".stages[0].until ="),
        ([{**EASY, "until": WIN}, EASY], '.stages[1].name = "easy": must be another name'),
        (
            [{**EASY, "fallback": WIN, "until": WIN}, HARD],
            "must be left out: no lesson comes before",
        ),
        ([{**EASY, "until": {**WIN, "op": "=="}}, HARD], '.op = "==": must be ">=" or ">"'),
        (
            [{**EASY, "until": {**WIN, "threshold": 80}}, HARD],
            ".threshold = 80: must be a number from 0",
        ),
        (
            [{**EASY, "until": {**WIN, "measure": "succes_rate"}}, HARD],
            "did you mean `success_rate`?",
        ),
        (
            [{**EASY, "until": {**WIN, "measure": "episodes", "window": 5}}, HARD],
            "unknown key 'window'",
        ),
        ([{**EASY, "until": {**WIN, "smoothing": 1}}, HARD], ".smoothing = 1: must be below 1"),
        ([{**EASY, "until": {"any": []}}, HARD], ".until.any = []: must be an array of at least 1"),
        ([{"name": "a b", "value": 0}], '.name = "a b": must be a name without spaces'),
        ([{**EASY, "value": dict(ADR)}], '.value.type = "adr": must be "schedule" or'),
        (
            [{**EASY, "until": WIN}, {**HARD, "fallback": {**WIN, "measure": "env_steps"}}],
            ".stages[1].fallback = ",
        ),
    ],
)
def test_stages(lessons, message):
    assert message in of_param({"type": "stages", "stages": lessons})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"init": [-1, 1]}, ".init = [-1, 1]: must be within limits = [0, 2]"),
        ({"limits": [2, 0]}, ".limits = [2, 0]: must be in order: [low, high]"),
        ({"low": 0.8}, ".low = 0.8: must be below high = 0.8"),
        ({"measure": "env_steps"}, "env_steps has no average"),
        ({"queue": 2.5}, ".queue = 2.5: must be a whole number of at least 1"),
        ({"boundary_p": 0}, ".boundary_p = 0: must be a number above 0 and at most 1"),
    ],
)
def test_automatic_ranges(change, message):
    assert message in of_param({**ADR, **change})


UPDOWN = {"type": "updown", "measure": "return", "up": 5, "down": 1, "step_up": 1, "step_down": 0}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "$ = []: must be an object"),
        ({}, '$ = {}: must be an object with the key "curriculum"'),
        ({"curriculum": {}}, '$.curriculum = {}: must be an object with "params"'),
        ({"curriculum": {"params": {}}}, "$.curriculum.params = {}: must be an object with at lea"),
        ({"schema": 1, "curriculum": {}}, "$.schema = 1: must be 2, the one form that this ver"),
        (
            {"env": {}, "curriculum": {"params": {"x": 1}}},
            "$.env takes no settings of the environm",
        ),
        ({"horizon": 9, "curriculum": {"params": {"x": 1}}}, "$ has an unknown key 'horizon'"),
        (
            {"curriculum": {"params": {"x": 1}, "window": 0}},
            "$.curriculum.window = 0: must be a wh",
        ),
        (
            {"curriculum": {"params": {"x": 1}, "clok": 0}},
            "unknown key 'clok'; did you mean `clock`",
        ),
        (
            {"curriculum": {"params": {"x": 1}, "eval": "easy"}},
            '$.curriculum.eval = "easy": must be',
        ),
        (
            {"curriculum": {"params": {"x": 1}, "eval": {"y": 1}}},
            "parameters of this curriculum (x)",
        ),
        ({"curriculum": {"params": {"a b": 1}}}, "must be without the parameter 'a b': a name has"),
        ({"curriculum": {"params": {"a.b": None}}}, '$.curriculum.params["a.b"] = null: must be'),
        (
            {"curriculum": {"x": 0.5}},
            '$.curriculum.x = 0.5: must be an object with "iters" and "ran',
        ),
        ({"curriculum": {"x": dict(UNIFORM)}}, "all other forms stand in $.curriculum.params"),
        (
            {"curriculum": {"params": {"x": 1}, "difficulty": {**UPDOWN, "down": 6}}},
            "$.curriculum.difficulty.down = 6: must be below up = 5",
        ),
    ],
)
def test_files(content, message):
    assert message in refusal(curriculum.parse, content)


@pytest.mark.parametrize("name", ["drop_penalty", "goalreachReward".lower(), "reward.scale"])
def test_rewards_need_permission(name):
    block = {"params": {name: 1.0}}
    if name != "goalreachreward":  # part of a longer word: only the environment knows
        message = refusal(curriculum.parse, {"curriculum": block})
        assert "changes the reward" in message and '"allow_reward_params": true' in message
    made = curriculum.parse({"curriculum": {**block, "allow_reward_params": True}})
    specs = {name: ParameterSpec(0.5, affects_reward=True)}
    curriculum.check_environment(made, specs, [])
    if name == "goalreachreward":
        made = curriculum.parse({"curriculum": block})
        assert "changes the reward" in refusal(curriculum.check_environment, made, specs, [])


def test_rewards_of_the_original_form_need_permission_too():
    spec = {"iters": [0], "range": [0.0, 1.0]}
    message = refusal(curriculum.parse, {"curriculum": {"drop_penalty": spec}})
    assert message.startswith("$.curriculum.drop_penalty changes the reward")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"curriculum": {"params": {"x": 1,}}}', " is not JSON: "),
        ('{"curriculum": {"params": {"x": 1, "x": 2}}}', "the key 'x' stands twice in one object"),
        ('{"curriculum": {"params": {"x": NaN}}}', "NaN is no number in JSON"),
        ('{"curriculum": {"params": {"x": 1e999}}}', "params.x = Infinity: must be a number"),
        ("[" * 100_000, " is not JSON as it should be: "),
        (
            '{"curriculum": {"params": {"x": {"type": 3}}}}',
            ": $.curriculum.params.x.type = 3: must",
        ),
    ],
)
def test_texts(tmp_path, text, message):
    path = tmp_path / "mine.json"
    path.write_text(text)
    told = refusal(curriculum.load, path)
    assert told.startswith(str(path)) and message in told


def test_files_that_can_not_be_read(tmp_path):
    assert "noise_ramp.json" in refusal(curriculum.load, "configs/curricula/noise_rmp.json")
    assert "is a folder" in refusal(curriculum.load, tmp_path)
    (tmp_path / "x.json").write_bytes(b"\xff\xfe")
    assert "can't be read" in refusal(curriculum.load, tmp_path / "x.json")


SPECS = {
    "friction": ParameterSpec(0.3, minimum=0.0, maximum=1.0),
    "hold": ParameterSpec(1, minimum=1),
    "lag": ParameterSpec((0, 0)),
    "shape": ParameterSpec("box"),
}


@pytest.mark.parametrize(
    ("name", "spec", "message"),
    [
        (
            "frictoin",
            0.1,
            "params.frictoin: the environment has no such parameter; did you mean `fr",
        ),
        ("friction", "low", ".friction is str, but the environment's parameter is float"),
        (
            "hold",
            1.5,
            '.hold is float, but the environment\'s parameter is int (add "dtype": "int"',
        ),
        (
            "hold",
            {"type": "int_uniform", "low": 0, "high": 3},
            ".hold reaches 0, but the environment",
        ),
        ("lag", 3, ".lag has shape [], but the environment's has [2]"),
        (
            "friction",
            {**UNIFORM, "high": 1.5},
            ".friction reaches 1.5, but the environment takes at",
        ),
        ("friction", {"type": "normal", "mean": 0.5, "std": 0.1}, 'a "clip" cuts a normal distrib'),
        (
            "friction",
            {**CURVE, "points": [[0, 0.5], [9, -1]]},
            ".friction reaches -1, but the envir",
        ),
    ],
)
def test_environments(name, spec, message):
    made = curriculum.parse({"curriculum": {"params": {name: spec}}})
    assert message in refusal(curriculum.check_environment, made, SPECS, [])


def test_an_environment_that_fits():
    params = {
        "friction": 1,
        "hold": {"iters": [5], "range": [1, 9]},
        "lag": [3, 4],
        "shape": "cone",
    }
    params["friction"] = {"type": "normal", "mean": 0.5, "std": 0.1, "clip": [0, 1]}
    made = curriculum.parse({"curriculum": {"params": params}})
    curriculum.check_environment(made, SPECS, [])


def test_measures_must_be_reported_by_the_environment():
    lessons = [{**EASY, "until": {**WIN, "measure": "peak_force"}}, HARD]
    params = {"hold": {"type": "stages", "stages": [{**s, "value": 1} for s in lessons]}}
    made = curriculum.parse({"curriculum": {"params": params}})
    message = refusal(curriculum.check_environment, made, SPECS, ["success"])
    assert '"measure": "peak_force" needs episodes that report peak_force' in message
    curriculum.check_environment(made, SPECS, ["peak_force"])
    made = curriculum.parse({"curriculum": {"params": {"friction": {**ADR, "limits": [1, 1]}}}})
    assert "report success;" in refusal(curriculum.check_environment, made, SPECS, ["depth"])
    curriculum.check_environment(made, SPECS, ["success"])
