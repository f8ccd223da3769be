"""What each episode of a run with a curriculum is played at, in collectors and evaluations."""

from __future__ import annotations

import json

import numpy as np
import pytest

from collect.draws import CurriculumDraws, Draws, draws_for_run
from eval.evaluator import Evaluator
from eval.parameters import CurriculumParameters
from sactory import config, progress
from sactory.curriculum import State, parse
from sactory.envs import load_for_run
from sactory.errors import UserError
from sactory.metric_names import is_known
from sactory.run_dir import write_json
from tests.lesson_env import LENGTH, make
from tests.test_curriculum_runs import BLOCK, curriculum_run
from tests.trainer_rig import make_run

pytestmark = pytest.mark.timeout(180)


def run_state(state, rows=0):
    return progress.RunState(rows, rows, 0, state.incarnation if state else 0, 0, 1.0, False, state)


@pytest.fixture
def curriculum():
    return parse({"curriculum": BLOCK})


@pytest.fixture
def kept(tmp_path):
    return tmp_path / "curriculum_state.json"


def test_an_episode_is_drawn_from_the_newest_state_and_says_so(curriculum, kept):
    env = make()
    draws = CurriculumDraws(curriculum, env, 3, 2, 1, kept)
    assert not draws.follow(run_state(None))  # nothing begins before there is a state
    state = curriculum.initial_state(incarnation=5)
    assert draws.follow(run_state(state))
    draws.begin(0, env)
    env.reset()
    assert env.get_parameters()["level"] == 1.0 and env.get_parameters()["slots"] == 3
    later = state.moved(("lessons", "level"), "high").moved(("train_steps",), 500)
    later = State.from_json({**later.to_json(), "version": 7})
    assert draws.follow(run_state(later))
    draws.begin(1, env)
    assert env.get_parameters()["level"] == 1.0  # at the next reset
    env.reset()
    assert 3.0 <= env.get_parameters()["level"] <= 4.0 and env.get_parameters()["slots"] == 7
    older, newer = draws.played(0, {"peak_force": 3}), draws.played(1, {"peak_force": np.nan})
    assert older is not None and newer is not None
    assert (older.incarnation, older.version, older.metrics) == (5, 0, {"peak_force": 3.0})
    assert (newer.version, newer.metrics) == (7, {})
    # A trainer that went back to before the first entry: the default again.
    assert draws.follow(run_state(state))
    draws.begin(0, env)
    env.reset()
    assert env.get_parameters()["slots"] == 3


def test_a_new_collector_waits_for_what_the_trainer_is_known_to_have_reached(curriculum, kept):
    """A restored server brings an older state back, until the trainer publishes again."""
    state = curriculum.initial_state()
    newer = State.from_json({**state.to_json(), "version": 2})
    write_json(kept, {"state": newer.to_json()})
    draws = CurriculumDraws(curriculum, make(), 3, 2, 1, kept)
    assert not draws.follow(run_state(state)) and not draws.follow(run_state(state))
    assert draws.follow(run_state(newer))


def test_a_state_of_another_curriculum_is_dropped(curriculum, kept, caplog):
    draws = CurriculumDraws(curriculum, make(), 3, 2, 1, kept)
    assert not draws.follow(run_state(State()))
    assert "dropped a state of the curriculum" in caplog.text
    assert draws.follow(run_state(curriculum.initial_state()))
    assert draws.follow(run_state(State()))


def test_no_two_episodes_of_a_worker_draw_the_same_and_a_start_repeats_itself(curriculum, kept):
    state = run_state(curriculum.initial_state().moved(("lessons", "level"), "high"))

    def levels(worker, start):
        env = make()
        draws = CurriculumDraws(curriculum, env, 3, worker, start, kept)
        draws.follow(state)
        found = []
        for _ in range(5):
            draws.begin(0, env)
            env.reset()
            found.append(env.get_parameters()["level"])
        return found

    every = [level for worker in (0, 1) for start in (1, 2) for level in levels(worker, start)]
    assert len(set(every)) == 20
    assert levels(0, 1) == every[:5]


def test_probes_of_automatic_ranges_are_reported(curriculum, kept):
    env = make()
    draws = CurriculumDraws(curriculum, env, 3, 0, 1, kept)
    draws.follow(run_state(curriculum.initial_state()))
    found = set()
    for _ in range(40):
        draws.begin(0, env)
        played = draws.played(0, {})
        assert played is not None
        found.add(played.probe)
    assert found == {None, ("friction", "low"), ("friction", "high")}


def test_an_environment_that_has_changed_since_init_is_refused(curriculum, kept):
    env = make()
    del env.specs["slots"]
    with pytest.raises(UserError, match="slots: the environment has no such parameter"):
        CurriculumDraws(curriculum, env, 3, 0, 1, kept)


def test_a_run_without_a_curriculum_draws_nothing(tmp_path):
    run_dir = make_run(tmp_path / "run")
    config.load(run_dir)
    draws = draws_for_run(run_dir, load_for_run(run_dir, 1), 0, 1)
    assert type(draws) is Draws and draws.follow(run_state(None))
    assert draws.played(0, {"peak_force": 1.0}) is None


class Still:
    def act(self, observation):
        return np.zeros((len(observation), 1), np.float32)


def test_an_evaluation_has_the_parameters_of_its_export(tmp_path):
    run_dir = curriculum_run(tmp_path, {**BLOCK, "eval": "current"})
    config.load(run_dir)
    evaluator = Evaluator(run_dir, 2)
    state = parse({"curriculum": BLOCK}).initial_state(4)
    rows, levels = [], []
    for lesson in ("low", "middle", "low"):
        moved = state.moved(("lessons", "level"), lesson)
        score = evaluator.score(Still(), meta={"curriculum": moved.to_json()})
        assert score is not None
        rows.append(score.row())
        levels.append([env.get_parameters()["level"] for env in evaluator._envs])
    evaluator.close()
    assert levels == [[1.0, 1.0], [2.0, 2.0], [1.0, 1.0]]
    assert [row["lessons"]["level"] for row in rows] == ["low", "middle", "low"]
    assert rows[0]["success"] == 1.0 and rows[0]["difficulty"] == 0.0


@pytest.mark.parametrize("evaluation", ["hardest", "current", {"level": 6.0}])
def test_the_evaluator_plays_what_the_file_says(evaluation):
    curriculum, env = parse({"curriculum": {**BLOCK, "eval": evaluation}}), make()
    parameters = CurriculumParameters(curriculum, env)
    state = curriculum.initial_state(4).moved(("lessons", "level"), "middle")
    parameters.follow({"curriculum": json.loads(json.dumps(state.to_json()))})

    def played(seed):
        parameters.set(env, seed)
        env.reset()
        return env.get_parameters()

    level = played(1)["level"]
    assert level == played(1)["level"]
    if evaluation == "current":
        assert level == 2.0 and played(1)["slots"] == 3
    elif evaluation == "hardest":
        assert 3.0 <= level <= 4.0 and played(2)["level"] != level and played(1)["slots"] == 7
    else:
        assert level == 6.0
    row = parameters.row(np.ones(2), np.full(2, LENGTH), [{"success": 1.0}, {}])
    assert row == {"curriculum_version": 0, "difficulty": 0.0, "lessons": {"level": "middle"}}
    assert all(is_known("eval", name) for name in row)
    parameters.follow({})
    assert parameters.row(np.ones(1), np.ones(1), [{}])["lessons"] == {"level": "low"}


def test_the_refresher_never_goes_back_behind_a_version(curriculum):
    state = curriculum.initial_state(1)
    newer = State.from_json({**state.to_json(), "version": 3})
    assert run_state(newer).order > run_state(state).order
