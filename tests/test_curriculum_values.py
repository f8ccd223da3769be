"""What parameters are at a state: schedules, samplers, the original form, what is hardest."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sactory import curriculum
from sactory.curriculum import State, values
from tests import curricula

pytestmark = pytest.mark.timeout(300)

SHIPPED = Path(__file__).resolve().parent.parent / "configs" / "curricula"


def plan(*, difficulty=False, **params):
    """A curriculum of these parameters."""
    block = {"params": params}
    if difficulty:
        updown = {"type": "updown", "measure": "success_rate", "up": 0.75, "down": 0.5}
        block["difficulty"] = {**updown, "step_up": 0.1, "step_down": 0.05}
    return curriculum.parse({"curriculum": block})


def at(made, **fields):
    """The values of a curriculum at a state."""
    state = made.initial_state()
    for field, value in fields.items():
        state = state.moved((field,), value)
    return made.values(state, np.random.default_rng(0))


def draws(spec, count=4000, **kwargs):
    """Many values of one parameter [count, ...]."""
    made, generator = plan(x=spec, **kwargs), np.random.default_rng(1)
    return np.array([made.values(State(), generator)["x"] for _ in range(count)])


def schedule(kind, *points, **more):
    return {"type": "schedule", "kind": kind, "points": [list(p) for p in points], **more}


def test_the_originals_own_file_gives_its_own_sequence():
    block = json.loads((SHIPPED / "contact_insert_original.json").read_text())["curriculum"]
    whole = {"horizon": 128, "policy_lag_range": [7, 13], "curriculum": block, "use_ft": False}
    made = curriculum.parse(whole)
    seen = {}
    for iteration in range(0, 130_000, 1000):
        values_now = at(made, train_steps=50 * iteration)
        assert at(made, train_steps=50 * iteration + 49) == values_now
        for name, value in values_now.items():
            if value not in [v for _, v in seen.setdefault(name, [])]:
                seen[name].append((iteration, value))
    assert seen["noise_level"] == [(0, 0.0), (20000, 0.25), (30000, 0.5), (40000, 0.75), (50000, 1)]
    held = [(50000, 1), (60000, 3), (70000, 5), (90000, 7), (120000, 10)]
    assert seen["goalreach_steps"] == held
    assert all(type(value) is int for _, value in seen["goalreach_steps"])
    assert set(at(made)) == {"noise_level"}, "before its first iteration a parameter is untouched"
    assert at(made, train_steps=20_000 * 50 - 1)["noise_level"] == 0.0


@given(st.lists(st.integers(0, 50), min_size=1, max_size=6), st.integers(-9, 9), st.integers(-9, 9))
def test_the_original_form_is_the_originals_loop(iters, first, last):
    made = curriculum.parse({"curriculum": {"x": {"iters": iters, "range": [first, last]}}})
    waiting = sorted(iters)
    levels = np.linspace(first, last, len(iters)).astype(int).tolist()
    value = None
    for iteration in range(60):
        while waiting and iteration >= waiting[0]:
            waiting.pop(0)
            value = levels.pop(0)
        assert at(made, train_steps=50 * iteration).get("x") == value


def test_iterations_take_as_many_train_steps_as_the_file_says():
    params = {"x": {"iters": [0, 10], "range": [0, 1]}}
    block = {"train_steps_per_iteration": 500, "params": params}
    made = curriculum.parse({"curriculum": block})
    assert [at(made, train_steps=t)["x"] for t in (0, 4999, 5000)] == [0, 0, 1]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("step", [1, 1, 1, 1, 3, 3]),
        ("linear", [1, 1, 1.5, 2, 3, 3]),
        ("cosine", [1, 1, 1 + (1 - math.cos(math.pi / 4)), 2, 3, 3]),
        ("exp", [1, 1, 3**0.25, 3**0.5, 3, 3]),
    ],
)
@pytest.mark.parametrize("clock", ["env_steps", "train_steps", "episodes"])
def test_a_schedule_follows_its_clock_and_stands_still_at_both_ends(kind, expected, clock):
    made = plan(x=schedule(kind, (100, 1.0), (200, 3.0), clock=clock))
    seen = [at(made, **{clock: time})["x"] for time in (0, 100, 125, 150, 200, 9999)]
    assert seen == pytest.approx(expected)
    if clock != "env_steps":
        assert at(made, env_steps=9999)["x"] == 1.0


def test_a_schedule_of_integers_vectors_and_words():
    made = plan(
        whole=schedule("linear", (0, 1), (10, 4), dtype="int"),
        pair=schedule("linear", (0, [0, 0]), (10, [7, 12])),
        word=schedule("step", (0, "box"), (5, "round")),
        steps=schedule("step", (0, 1), (5, 2)),
    )
    assert at(made, env_steps=5) == {"whole": 2, "pair": [3.5, 6.0], "word": "round", "steps": 2}
    assert type(at(made, env_steps=5)["steps"]) is int


def test_lerp_follows_the_difficulty_or_the_lessons_of_another_parameter():
    until = {"measure": "return", "op": ">=", "threshold": 1}
    lessons = [{"name": n, "value": 0, "until": until} for n in ("a", "b")]
    made = plan(
        difficulty=True,
        noise={"type": "lerp", "from": 0, "to": 0.5},
        hold={"type": "lerp", "from": 1, "to": 10, "dtype": "int"},
        lag={"type": "stages", "stages": [*lessons, {"name": "c", "value": 5}]},
        wrench={"type": "lerp", "of": "lag", "from": 1.0, "to": 3.0},
    )
    assert at(made, difficulty=0.4) == {"noise": 0.2, "hold": 5, "lag": 0, "wrench": 1.0}
    state = made.initial_state().moved(("lessons", "lag"), "b")
    assert made.values(state, np.random.default_rng(0))["wrench"] == 2.0


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_the_same_state_and_generator_give_the_same_json_values(data):
    content = data.draw(curricula.files())
    made = curriculum.parse(content)
    state = data.draw(curricula.states(made))
    seed = data.draw(st.integers(0, 2**32))
    first = made.draw(state, np.random.default_rng(seed))
    published = State.from_json(json.loads(json.dumps(state.to_json())))
    again = curriculum.parse(json.loads(json.dumps(content)))
    assert published == state
    assert again.draw(published, np.random.default_rng(seed)) == first
    assert json.loads(json.dumps(first.values)) == first.values
    generators = np.random.default_rng(seed), np.random.default_rng(seed)
    assert made.eval_values(state, generators[0]) == again.eval_values(published, generators[1])


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_every_value_lies_in_its_span_with_its_type_and_shape(data):
    made = curriculum.parse(data.draw(curricula.files()))
    state = data.draw(curricula.states(made))
    drawn = made.draw(state, np.random.default_rng(data.draw(st.integers(0, 99)))).values
    for name, value in drawn.items():
        node = made.params[name]
        assert np.shape(value) == node.shape
        assert {type(v).__name__ for v in np.ravel(np.array(value, object))} == {node.kind}
        span = node.span(state)
        if span is not None:
            assert np.all(span[0] <= np.array(value)), (span, value)
            assert np.all(np.array(value) <= span[1]), (span, value)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_corners_hold_the_extremes_of_every_state(data):
    single = st.one_of(curricula.bounds(-5, 5), curricula.samplers(), curricula.staged())
    made = curriculum.parse(data.draw(curricula.files(params=single)))
    state = data.draw(curricula.states(made))
    for node in made.params.values():
        spans = [node.span(corner) for corner in values.corners(node, made.initial_state())]
        lowest = np.min([span[0] for span in spans if span is not None], axis=0)
        highest = np.max([span[1] for span in spans if span is not None], axis=0)
        low, high = node.span(state) or (lowest, highest)
        assert np.all(lowest <= low + 1e-9)
        assert np.all(high <= highest + 1e-9)


def test_uniform_covers_its_interval_evenly():
    x = draws({"type": "uniform", "low": -1, "high": 3})
    assert np.histogram(x, 4, (-1, 3))[0] == pytest.approx([1000] * 4, rel=0.15)


def test_log_uniform_covers_each_decade_evenly():
    x = draws({"type": "log_uniform", "low": 0.01, "high": 100})
    assert np.histogram(np.log10(x), 4, (-2, 2))[0] == pytest.approx([1000] * 4, rel=0.15)


def test_int_uniform_reaches_both_bounds_equally_often():
    x = draws({"type": "int_uniform", "low": 7, "high": 10})
    assert np.bincount(x)[7:] == pytest.approx([1000] * 4, rel=0.15)


def test_normal_has_its_moments_and_piles_up_at_its_clip():
    x = draws({"type": "normal", "mean": 1, "std": 2})
    assert (x.mean(), x.std()) == pytest.approx((1, 2), abs=0.1)
    assert (draws({"type": "normal", "mean": 1, "std": 0}, 9) == 1).all()
    clipped = draws({"type": "normal", "mean": 0, "std": 1, "clip": [-1, 9], "shape": [3]})
    assert clipped.shape == (4000, 3)
    assert (clipped == -1).mean() == pytest.approx(0.159, abs=0.02)


@pytest.mark.parametrize("sign", [1, -1])
def test_truncated_normal_is_right_in_its_tails_and_piles_up_nowhere(sign):
    low, high = sorted([sign * 3, sign * 8])
    x = sign * draws({"type": "truncated_normal", "mean": 0, "std": 1, "low": low, "high": high})
    assert x.min() >= 3 and (x == 3).sum() < 5
    assert x.mean() == pytest.approx(3.283, abs=0.02)  # phi(3) / (1 - Phi(3))
    far = draws({"type": "truncated_normal", "mean": 0, "std": 1, "low": 60, "high": 61}, 5)
    assert np.all((far >= 60) & (far <= 61))


def test_choice_multirange_and_mixture_follow_their_weights():
    x = draws({"type": "choice", "values": ["a", "b", "c"], "weights": [1, 0, 3]})
    assert (x == "c").mean() == pytest.approx(0.75, abs=0.03) and not (x == "b").any()
    x = draws({"type": "multirange", "intervals": [[0, 1], [10, 13]]})
    assert (x >= 10).mean() == pytest.approx(0.75, abs=0.03) and not ((x > 1) & (x < 10)).any()
    points = draws({"type": "multirange", "intervals": [[1, 1], [2, 2]]})
    assert (points == 1).mean() == pytest.approx(0.5, abs=0.05)
    x = draws({"type": "mixture", "of": [5, {"type": "uniform", "low": 0, "high": 1}]})
    assert (x == 5.0).mean() == pytest.approx(0.5, abs=0.05)


def test_the_bounds_of_a_sampler_may_follow_the_curriculum():
    high = schedule("linear", (0, 0.2), (100, 0.6))
    made = plan(x={"type": "uniform", "low": 0.1, "high": high})
    low, top = made.params["x"].span(made.initial_state().moved(("env_steps",), 50)) or (0, 0)
    assert (float(low), float(top)) == pytest.approx((0.1, 0.4))


def test_automatic_ranges_try_one_end_of_one_parameter_at_a_time():
    adr = {"type": "adr", "init": [1, 2], "limits": [0, 3], "delta": 0.1, "boundary_p": 0.4}
    adr.update(queue=5, low=0.4, high=0.8, measure="success_rate")
    made, generator = plan(a=adr, b=adr), np.random.default_rng(3)
    state = made.initial_state()
    probes = [(d.probe, d.values) for d in (made.draw(state, generator) for _ in range(4000))]
    tried = [(probe, v) for probe, v in probes if probe]
    assert len(tried) / 4000 == pytest.approx(0.4, abs=0.03)
    for (param, side), drawn in tried:
        assert drawn[param] == {"low": 1, "high": 2}[side]
        assert 1 < drawn["b" if param == "a" else "a"] < 2
    ends = {("a", "low"), ("a", "high"), ("b", "low"), ("b", "high")}
    counts = {end: sum(probe == end for probe, _ in tried) for end in ends}
    assert list(counts.values()) == pytest.approx([400] * 4, rel=0.2)
    assert all(1 < made.values(state, generator)["a"] < 2 for _ in range(100))


def test_the_evaluator_plays_the_hardest_the_current_or_named_values():
    content = json.loads((SHIPPED / "every_type.json").read_text())
    made = curriculum.parse(content)
    hardest = made.hardest_state()
    assert hardest.difficulty == 1.0 and hardest.env_steps == 4e6 and hardest.train_steps == 2.5e6
    assert hardest.lessons == {"policy_lag_ms": "real"}
    assert hardest.ranges == {"stiffness_scale": (0.5, 2.0)}
    easy, generator = made.initial_state(), np.random.default_rng(0)
    assert made.eval_values(easy, generator)["noise_level"] == 1.0
    content["curriculum"]["eval"] = {"noise_level": 0.3, "clearance": 0.001}
    named = curriculum.parse(content).eval_values(easy, generator)
    assert (named["noise_level"], named["clearance"]) == (0.3, 0.001)
    assert (named["goalreach_steps"], named["policy_lag_ms"]) == (10, [7, 12])
    content["curriculum"]["eval"] = "current"
    assert curriculum.parse(content).eval_values(easy, generator)["noise_level"] == 0.0


def test_each_episode_of_each_worker_has_its_own_generator():
    keys = [(s, w, e) for s in (1, 2) for w in (0, 1) for e in (0, 1)]
    first = {key: curriculum.episode_generator(*key).random() for key in keys}
    assert len(set(first.values())) == len(keys)
    assert first == {key: curriculum.episode_generator(*key).random() for key in keys}


def test_logs_get_the_range_of_every_number():
    made = curriculum.load(SHIPPED / "every_type.json")
    ranges = made.ranges(made.initial_state())
    assert ranges["force_abort"] == (80.0, 80.0)
    assert ranges["wrench_bias"] == ([-1.0] * 3, [1.0] * 3)
    assert set(made.params) - set(ranges) == {"hole_shape"}
