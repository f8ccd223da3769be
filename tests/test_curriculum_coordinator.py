"""When difficulty, lessons and ranges move: streams of episodes, restarts, late reports."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sactory import curriculum
from sactory.curriculum import Clock, Coordinator, Report, State, changes
from sactory.errors import UserError
from tests import curricula

pytestmark = pytest.mark.timeout(300)

NOW = Clock()


def plan(params=None, **block):
    return curriculum.parse({"curriculum": {"params": params or {"x": 1}, **block}})


def played(coordinator, count, success, **fields):
    """Lets `count` episodes finish, each begun at the state of its time."""
    for _ in range(count):
        state = coordinator.state
        report = Report(state.incarnation, state.version, 0.0, 10, success, **fields)
        coordinator.update(NOW, [report])
    return coordinator.state


def updown(**changes):
    made = {"type": "updown", "measure": "success_rate", "up": 0.75, "down": 0.5, "init": 0.3}
    made.update(step_up=0.1, step_down=0.05, min_episodes=4, window=4)
    return {**made, **changes}


def stages(*conditions):
    """Lessons 0, 1, ... from (until, fallback) of each."""
    lessons = []
    for i, (until, fallback) in enumerate([*conditions]):
        lesson = {"name": str(i), "value": i, "until": until, "fallback": fallback}
        lessons.append({key: value for key, value in lesson.items() if value is not None})
    return {"type": "stages", "stages": lessons}


def reached(threshold, measure="success_rate", op=">=", **more):
    return {"measure": measure, "op": op, "threshold": threshold, **more}


ADR = {"type": "adr", "init": [1, 1], "limits": [0.8, 2], "delta": 0.3, "boundary_p": 1.0}
ADR.update(queue=3, low=0.4, high=0.8, measure="success_rate")


def test_difficulty_goes_up_and_down_with_hysteresis():
    coordinator = Coordinator(plan(difficulty=updown()))
    assert played(coordinator, 3, 1.0).difficulty == 0.3
    assert played(coordinator, 1, 1.0).difficulty == 0.4
    assert coordinator.state.version == 1
    assert played(coordinator, 3, 0.0).difficulty == 0.4, "each change begins a new average"
    assert played(coordinator, 1, 0.0).difficulty == 0.35
    assert played(coordinator, 40, 0.6).difficulty == 0.35, "between the thresholds it stays"
    assert played(coordinator, 200, 0.0).difficulty == 0.0
    version = coordinator.state.version
    assert played(coordinator, 20, 0.0).version == version, "at the end there is nothing to change"
    assert played(coordinator, 200, 1.0).difficulty == 1.0


@pytest.mark.parametrize(
    ("success", "difficulty"), [(0.75, 0.4), (0.74, 0.3), (0.5, 0.3), (0.49, 0.25)]
)
def test_up_is_reached_by_its_threshold_and_down_by_less_than_its(success, difficulty):
    coordinator = Coordinator(plan(difficulty=updown()))
    assert played(coordinator, 4, success).difficulty == difficulty


def test_the_window_forgets_and_min_episodes_may_be_longer():
    coordinator = Coordinator(plan(difficulty=updown(window=2, min_episodes=6)))
    played(coordinator, 4, 0.0)
    assert played(coordinator, 1, 1.0).difficulty == 0.3
    assert played(coordinator, 1, 1.0).difficulty == 0.4


def test_smoothing_keeps_a_share_of_the_average_before():
    lessons = stages((reached(0.9, smoothing=0.5), None), (None, None))
    coordinator = Coordinator(plan({"x": lessons}, window=1, min_episodes=1))
    played(coordinator, 1, 0.0)
    seen = []
    while coordinator.state.lessons["x"] == "0":
        played(coordinator, 1, 1.0)
        seen += coordinator.averages().values()
    assert seen == [0.5, 0.75, 0.875]


def test_lessons_advance_and_fall_back():
    lessons = stages(
        (reached(0.8), None),
        (reached(0.8, min_episodes=5), reached(0.3, op="<")),
        (None, reached(-5, "return", "<=")),
    )
    coordinator = Coordinator(plan({"x": lessons}, window=3, min_episodes=3))
    assert played(coordinator, 3, 1.0).lessons == {"x": "1"}
    assert played(coordinator, 3, 0.0).lessons == {"x": "0"}
    assert played(coordinator, 3, 1.0).lessons == {"x": "1"}
    assert played(coordinator, 4, 1.0).lessons == {"x": "1"}
    assert played(coordinator, 1, 1.0).lessons == {"x": "2"}
    assert played(coordinator, 50, 0.0).lessons == {"x": "2"}
    assert coordinator.state.version == 4
    state = coordinator.state
    bad = [Report(state.incarnation, state.version, -5.0, 10)] * 3
    assert coordinator.update(NOW, bad).lessons == {"x": "1"}


@pytest.mark.parametrize(
    ("condition", "lesson"),
    [
        ({"all": [reached(0.8), reached(100, "env_steps")]}, "0"),
        ({"any": [reached(0.8), reached(100, "env_steps")]}, "1"),
        ({"any": [reached(3, "peak_force", "<"), reached(5, "iterations")]}, "1"),
        ({"any": [reached(9, "episode_length", "<="), reached(6, "iterations")]}, "0"),
        (reached(0.5, "progress"), "0"),
    ],
)
def test_conditions_on_measures_and_clocks(condition, lesson):
    made = plan({"x": stages((condition, None), (None, None))}, window=2, min_episodes=2)
    coordinator = Coordinator(made)
    clock = Clock(env_steps=99, train_steps=299, progress=0.49)
    report = Report(0, 0, 0.0, 10, 1.0, {"peak_force": 2.5})
    assert coordinator.update(clock, [report, report]).lessons == {"x": lesson}
    assert coordinator.update(Clock(100, 300, 9, 0.5)).lessons == {"x": "1"}


def test_by_clocks_alone_several_lessons_may_pass_at_once():
    conditions = [(reached(n, "env_steps"), None) for n in (10, 20, 30)]
    coordinator = Coordinator(plan({"x": stages(*conditions, (None, None))}))
    assert coordinator.update(Clock(env_steps=25)).lessons == {"x": "2"}
    assert coordinator.state.version == 2


def test_greedy_episodes_count_only_where_they_are_asked_for():
    lessons = stages((reached(0.8, source="eval"), None), (None, None))
    coordinator = Coordinator(plan({"x": lessons}, min_episodes=2))
    assert played(coordinator, 9, 1.0).lessons == {"x": "0"}
    assert played(coordinator, 2, 1.0, source="eval").lessons == {"x": "1"}


def test_an_episode_without_the_measure_does_not_count():
    coordinator = Coordinator(plan(difficulty=updown(measure="peak_force")))
    assert played(coordinator, 9, 1.0).difficulty == 0.3
    assert played(coordinator, 9, 1.0, metrics={"peak_force": float("nan")}).difficulty == 0.3
    assert played(coordinator, 4, 0.0, metrics={"peak_force": 9.0}).difficulty == 0.4


def test_an_end_of_a_range_moves_by_its_own_tries():
    coordinator = Coordinator(plan({"x": ADR, "y": ADR}))
    assert played(coordinator, 50, 1.0).version == 0
    high, low = {"probe": ("x", "high")}, {"probe": ("x", "low")}
    played(coordinator, 2, 1.0, **high)
    played(coordinator, 2, 1.0, **low)
    assert played(coordinator, 1, 1.0, **high).ranges == {"x": (1, 1.3), "y": (1, 1)}
    assert played(coordinator, 1, 1.0, **low).ranges["x"] == (0.8, 1.3), "limits hold"
    assert played(coordinator, 3, 0.6, **high).ranges["x"] == (0.8, 1.3)
    assert played(coordinator, 3, 1.0, **high).ranges["x"] == (0.8, 1.6)
    assert played(coordinator, 3, 0.0, **high).ranges["x"] == (0.8, 1.3)
    assert played(coordinator, 9, 0.0, **high).ranges["x"] == (0.8, 1.0), "no smaller than init"
    assert played(coordinator, 30, 1.0, **high).ranges["x"] == (0.8, 2.0)


def test_a_new_range_of_one_parameter_leaves_other_averages_alone():
    made = plan({"x": ADR, "y": 1}, difficulty=updown())
    coordinator = Coordinator(made)
    played(coordinator, 3, 1.0, probe=("x", "high"))
    assert coordinator.state.ranges["x"] == (1, 1.3)
    assert played(coordinator, 1, 1.0).difficulty == 0.4
    played(coordinator, 2, 1.0, probe=("x", "high"))
    coordinator = Coordinator(made, 1, coordinator.to_json())
    assert played(coordinator, 1, 1.0, probe=("x", "high")).ranges["x"] == (1, 1.6)


def test_late_reports_do_not_count():
    coordinator = Coordinator(plan(difficulty=updown()), incarnation=7)
    late = Report(7, 0, 0.0, 10, 1.0)
    foreign = Report(6, 9, 0.0, 10, 1.0)
    coordinator.update(NOW, [foreign] * 10)
    assert (coordinator.late_reports, coordinator.state.version) == (10, 0)
    coordinator.update(NOW, [late] * 4)
    assert coordinator.state.difficulty == 0.4
    coordinator.update(NOW, [late] * 10)
    assert coordinator.state.difficulty == 0.4 and coordinator.late_reports == 20
    assert coordinator.averages() == {}


def test_schedules_move_without_a_new_version():
    made = plan({"x": {"type": "schedule", "kind": "linear", "points": [[0, 0], [10, 1]]}})
    state = Coordinator(made).update(Clock(env_steps=5, train_steps=3, episodes=2))
    assert made.values(state, np.random.default_rng(0)) == {"x": 0.5}
    assert (state.version, state.train_steps, state.episodes) == (0, 3, 2)


def test_a_restart_resumes_the_same_lesson_and_average():
    made = plan({"x": stages((reached(0.8), None), (None, None))}, min_episodes=4)
    before = Coordinator(made, incarnation=1)
    played(before, 3, 1.0)
    saved = json.loads(json.dumps(before.to_json()))
    after = Coordinator(made, incarnation=2, saved=saved)
    after.update(NOW, [Report(1, 0, 0.0, 10, 1.0)])
    assert after.state.lessons == {"x": "0"} and after.late_reports == 1
    assert played(after, 1, 1.0).lessons == {"x": "1"}
    assert (after.state.incarnation, after.state.version) == (2, 1)


def test_a_state_of_another_curriculum_is_refused():
    saved = Coordinator(plan({"x": stages((reached(0.8), None), (None, None))})).to_json()
    for params in ({"y": 1}, {"x": ADR}):
        with pytest.raises(UserError, match="of another curriculum"):
            Coordinator(plan(params), saved=saved)
    saved["state"]["lessons"]["x"] = "gone"
    with pytest.raises(UserError, match="'gone', which is none of 0, 1"):
        Coordinator(plan({"x": stages((reached(0.8), None), (None, None))}), saved=saved)


def test_changes_are_told_in_one_line_each():
    before = State(difficulty=0.1, lessons={"x": "a", "y": "a"}, ranges={"z": (1.0, 1.0)})
    after = State(difficulty=0.2, lessons={"x": "b", "y": "a"}, ranges={"z": (1.0, 1.5)})
    assert changes(before, after) == [
        "difficulty 0.1 -> 0.2",
        "x: lesson a -> b",
        "z: range [1, 1] -> [1, 1.5]",
    ]
    assert changes(before, before.at(Clock(env_steps=5))) == []


@st.composite
def streams(draw, made):
    """Reports as workers may send them: any version near the present one, any order."""
    ends = [(adr.param, side) for adr in made.adrs for side in ("low", "high")]
    one = st.builds(
        Report,
        incarnation=st.sampled_from([3, 3, 3, 2]),
        version=st.integers(0, 6),
        episode_return=st.floats(-1, 1),
        length=st.integers(1, 9),
        success=st.sampled_from([None, 0.0, 1.0, 1.0, 1.0]),
        metrics=st.sampled_from([{}, {"peak_force": 0.5}]),
        source=st.sampled_from(["train", "train", "eval"]),
        probe=st.sampled_from([None, *ends]),
    )
    return draw(st.lists(one, max_size=30))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_batches_and_restarts_make_no_difference(data):
    made = curriculum.parse(data.draw(curricula.files()))
    reports = data.draw(streams(made))
    clock = Clock(env_steps=10, train_steps=5, episodes=len(reports), progress=0.1)
    at_once = Coordinator(made, incarnation=3)
    at_once.update(clock, reports)
    one_by_one = Coordinator(made, incarnation=3)
    for report in reports:
        sent = Report.from_json(json.loads(json.dumps(report.to_json())))
        one_by_one.update(clock, [sent])
        saved = json.loads(json.dumps(one_by_one.to_json()))
        one_by_one = Coordinator(made, incarnation=3, saved=saved)
    one_by_one.update(clock)
    assert one_by_one.to_json() == at_once.to_json()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_states_stay_within_what_the_file_allows(data):
    made = curriculum.parse(data.draw(curricula.files()))
    coordinator = Coordinator(made, incarnation=3)
    last = coordinator.state
    for report in data.draw(streams(made)):
        state = coordinator.update(NOW, [report])
        assert (state.version > last.version) == bool(changes(last, state))
        assert 0 <= state.difficulty <= 1
        for adr in made.adrs:
            low, high = state.ranges[adr.param]
            assert adr.limits[0] <= low <= adr.init[0]
            assert adr.init[1] <= high <= adr.limits[1]
        made.draw(state, np.random.default_rng(0))
        last = state
