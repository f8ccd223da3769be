"""Progress survives loss, repetition and reordering of reports; triggers survive jumps."""

import dataclasses
import json
import math
import random

import pytest

from sactory.curriculum.state import Played, State
from sactory.progress import Book, Episode, RunState, report
from sactory.triggers import Every


def history(worker, incarnation, length):
    """All reports one incarnation sends: an episode every third report."""
    reports, episodes = [], []
    for i in range(1, length + 1):
        if i % 3 == 0:
            episodes.append(Episode(len(episodes), float(i), 10, 0.5))
        reports.append(report(worker, incarnation, 5 * i, 10 * i, episodes[-4:]))
    return reports


@pytest.mark.parametrize("seed", range(5))
def test_lost_repeated_and_reordered_reports_do_no_harm(seed):
    rng = random.Random(seed)
    sent = history(0, 11, 30) + history(0, 12, 20) + history(1, 13, 10)
    finals = [sent[29], sent[49], sent[59]]
    kept = [r for r in sent if r in finals or rng.random() < 0.5]
    kept += rng.choices(kept, k=20)
    rng.shuffle(kept)
    book = Book()
    for r in kept:
        book.add(r)
    assert book.rows == 5 * (30 + 20 + 10)
    assert book.env_steps == 10 * (30 + 20 + 10)


def test_each_episode_is_new_exactly_once():
    book, seen = Book(), []
    for r in history(3, 7, 30):
        seen += book.add(r) + book.add(r)
    assert [e.episode.sequence for e in seen] == list(range(10))
    assert [e.number for e in seen] == list(range(1, 11))
    assert [e.source for e in seen] == [f"3:7:{i}" for i in range(10)]
    assert book.episodes == 10


def test_a_restored_book_makes_up_for_what_was_not_logged_and_repeats_nothing():
    book = Book()
    reports = history(3, 7, 30)
    logged = [entry for r in reports[:12] for entry in book.add(r)]
    restored = Book.from_json(book.to_json())
    logged += [entry for r in reports[12:24] for entry in book.add(r)]
    for r in reports[24:]:
        book.add(r)  # and then the trainer was killed
    restored.merge(book)
    restored.add_logged([None, "x", 3, "1:2", *(entry.source for entry in logged)])
    assert (restored.rows, restored.env_steps) == (book.rows, book.env_steps)
    again = [entry for r in reports for entry in restored.add(r)]
    assert [e.number for e in (*logged, *again)] == list(range(1, 11))


def test_totals_never_step_back_when_an_old_book_meets_newer_reports():
    book = Book()
    reports = history(0, 1, 10)
    for r in reports[:4]:
        book.add(r)
    restored = Book.from_json(book.to_json())
    for r in reports[4:8]:
        book.add(r)
    restored.merge(book)
    assert (restored.rows, restored.env_steps) == (40, 80)
    restored.add(reports[2])
    assert restored.env_steps == 80


EPISODE = {"sequence": 0, "episode_return": 1.0, "length": 5, "duration": 0.5, "success": None}
REPORT = {"worker": 0, "incarnation": 2**60, "rows": 5, "env_steps": 10, "episodes": [EPISODE]}
PLAYED = {"incarnation": 2, "version": 3, "probe": ["mass", "low"], "metrics": {"force": 1.5}}
STATE = State(2, 3, 4, 5, 6, 0.5, {"lag": "short"}, {"mass": (0.5, 2)}).to_json()
NO_COUNTS = (math.inf, math.nan, 1.0, 1e12, True, None, "5", -1, 2**53)
NO_NUMBERS = (math.inf, math.nan, True, None, "abc", 10**400, [])
NOT_PLAYED = [
    *({k: v} for k in ("incarnation", "version") for v in (-1, 1.0, True, None, "5")),
    *({"probe": v} for v in ("mass", ["mass"], [1, 2], {}, ["a", "b", "c"])),
    *({"metrics": v} for v in (None, [], {"force": "x"}, {"force": math.nan}, {"force": None})),
    {"more": 1},
]
NO_STATES = [
    *({k: v} for k in ("version", "env_steps", "episodes") for v in NO_COUNTS),
    *({"difficulty": v} for v in NO_NUMBERS),
    *({"lessons": v} for v in (None, [], {"lag": 1})),
    *({"ranges": v} for v in (None, [], {"mass": 1}, {"mass": [2, 1]}, {"mass": [0, math.nan]})),
]


@pytest.mark.parametrize(
    "bad",
    [
        *({**REPORT, k: v} for k in ("worker", "rows", "env_steps") for v in NO_COUNTS),
        {**REPORT, "incarnation": 2**63},
        *({**REPORT, "episodes": v} for v in (None, {}, [None], [{}], 7)),
        *({**REPORT, "episodes": [EPISODE, {**EPISODE, "sequence": v}]} for v in NO_COUNTS),
        *({**REPORT, "episodes": [{**EPISODE, "length": v}]} for v in NO_COUNTS),
        *({**REPORT, "episodes": [{**EPISODE, "episode_return": v}]} for v in NO_NUMBERS),
        *({**REPORT, "episodes": [{**EPISODE, "duration": v}]} for v in NO_NUMBERS),
        *({**REPORT, "episodes": [{**EPISODE, "played": {**PLAYED, **v}}]} for v in NOT_PLAYED),
        {**REPORT, "more": 1},
        {**REPORT, "episodes": [{**EPISODE, "more": 1}]},
        {k: v for k, v in REPORT.items() if k != "rows"},
        [REPORT],
    ],
)
def test_nothing_of_a_malformed_report_is_entered(bad):
    book = Book()
    with pytest.raises(ValueError, match=r"is |fields"):
        book.add(bad)
    assert book.to_json() == {}
    assert [entry.episode for entry in book.add(REPORT)] == [Episode(**EPISODE)]


@pytest.mark.parametrize("bad", [{"0:1": None}, {"0:1": {"rows": 1}}])
def test_a_malformed_book_is_refused(bad):
    with pytest.raises(ValueError, match="fields rows, env_steps, episodes"):
        Book.from_json(bad)


@pytest.mark.parametrize(
    "bad",
    [
        *({"train_step": v} for v in NO_COUNTS),
        *({"time": v} for v in NO_NUMBERS),
        *({"stop": v} for v in (None, 1, "no")),
    ],
)
def test_a_malformed_run_state_is_refused(bad):
    with pytest.raises(ValueError, match="is "):
        RunState.from_json({**RunState(1, 2, 3, 4, 5, 6.0).to_json(), **bad})
    with pytest.raises(ValueError, match="fields"):
        RunState.from_json(bad)


@pytest.mark.parametrize("bad", [*({**STATE, **v} for v in NO_STATES), {}, [1], "x", 5, True])
def test_a_malformed_state_of_the_curriculum_is_refused(bad):
    with pytest.raises(ValueError, match=r"is |fields"):
        RunState.from_json({**RunState(1, 2, 3, 4, 5, 6.0).to_json(), "curriculum": bad})


def test_what_a_curriculum_adds_to_messages_arrives():
    state = RunState(1, 2, 3, 4, 5, 6.0)
    assert "curriculum" not in state.to_json()
    state = dataclasses.replace(state, curriculum=State.from_json(STATE))
    message = json.loads(json.dumps(state.to_json()))
    message["curriculum"]["of_a_newer_version"] = 1
    assert RunState.from_json(message) == state
    plain, played = Episode(**EPISODE), Episode(**EPISODE, played=Played.from_json(PLAYED))
    assert plain.to_json() == EPISODE
    sent = json.loads(json.dumps(report(0, 1, 5, 10, [played])))
    (entry,) = Book().add(sent)
    assert entry.episode == played and played.played is not None
    assert played.played.probe == ("mass", "low")


def test_run_state_ignores_fields_of_a_newer_version():
    state = RunState(1, 2, 3, 4, 5, 6.0)
    assert RunState.from_json({**state.to_json(), "lesson": 3}) == state


def test_trigger_fires_on_crossing_also_when_steps_jump():
    due = Every(10)
    assert [due(x) for x in (3, 9, 10, 11, 35, 39, 40)] == [
        False,
        False,
        True,
        False,
        True,
        False,
        True,
    ]


def test_trigger_does_not_fire_again_after_a_restart_or_a_step_back():
    due = Every(10, start=25)
    assert not due(26) and due(30)
    assert not due(12) and not due(31) and due(40)


def test_trigger_refuses_an_interval_of_nothing():
    with pytest.raises(ValueError, match="above 0"):
        Every(0)
