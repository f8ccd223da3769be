"""An environment that fails in an evaluation ends its episode; evaluation and run go on."""

from collections.abc import Collection

import numpy as np
import pytest

from eval.evaluator import Evaluator, NoEpisodeError
from sactory import config
from tests.trainer_rig import make_run

pytestmark = pytest.mark.timeout(120)
ENV = "envs.load.name = 'python:tests.lesson_env:make'"  # five steps, a reward of 1 each, solved
NAN = np.float32(np.nan)


@pytest.fixture(scope="module")
def frozen(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("eval") / "run", ENV)


@pytest.fixture
def evaluator(frozen):
    config.load(frozen)
    return Evaluator(frozen, 3)


class Still:
    def act(self, observation):
        return np.zeros((len(observation), 1), np.float32)


class Frames:
    """Stands for a film."""

    def __init__(self):
        self.env_steps = []

    def capture(self, env, env_steps):
        self.env_steps.append(env_steps)


def diverge(step):
    raise RuntimeError("Physics state is invalid")


SPOILED = {
    "RuntimeError: Physics state is invalid": diverge,
    "ValueError: observation holds NaN": lambda s: s._replace(observation=s.observation * NAN),
    "ValueError: observation has shape (1,)": lambda s: s._replace(observation=s.observation[:1]),
    "ValueError: the reward is nan": lambda s: s._replace(reward=NAN),
    "AttributeError": lambda s: None,
}


def spoil(env, method, how, calls: Collection[int] = range(100)):
    """Makes some calls of an environment's method fail."""
    original, numbers = getattr(env, method), iter(range(100))
    setattr(env, method, lambda *a: (how if next(numbers) in calls else lambda s: s)(original(*a)))


@pytest.mark.parametrize("message", SPOILED)
def test_a_step_that_fails_ends_its_episode_alone(evaluator, message, caplog):
    spoil(evaluator._envs[1], "_step", SPOILED[message], [2])
    judged = []
    evaluator._parameters.row = lambda *arrays: judged.append(arrays) or {}
    score = evaluator.score(Still())
    np.testing.assert_array_equal(score.returns, [5, 2, 5])
    np.testing.assert_array_equal(score.lengths, [5, 2, 5])
    np.testing.assert_array_equal(score.successes, [1, 0, 1])
    assert f"episode 1 ends early: {message}" in caplog.text
    ((returns, lengths, infos),) = judged  # what a curriculum learns of
    assert list(returns) == list(lengths) == [5, 5] and len(infos) == 2
    np.testing.assert_array_equal(evaluator.score(Still()).returns, [5, 5, 5])


@pytest.mark.parametrize("message", list(SPOILED)[:3])
def test_a_reset_that_fails_is_tried_three_times(evaluator, message, caplog):
    spoil(evaluator._envs[0], "_reset", SPOILED[message], [0, 1])
    spoil(evaluator._envs[1], "_reset", SPOILED[message])
    score = evaluator.score(Still())
    np.testing.assert_array_equal(score.returns, [5, 0, 5])
    assert caplog.text.count(f"can't begin: {message}") == 5
    np.testing.assert_array_equal(evaluator.score(Still()).returns, [5, 5, 5])


def test_no_environment_that_begins_is_no_score(evaluator):
    for env in evaluator._envs:
        spoil(env, "_reset", diverge)
    with pytest.raises(NoEpisodeError, match="no environment can begin"):
        evaluator.score(Still())
    np.testing.assert_array_equal(evaluator.score(Still()).returns, [5, 5, 5])


def test_a_filmed_episode_that_fails_is_filmed_as_far_as_it_goes(evaluator):
    spoil(evaluator.env, "_step", diverge, [2])
    film = Frames()
    np.testing.assert_array_equal(evaluator.score(Still(), film).returns, [2, 5, 5])
    assert film.env_steps == [0, 1, 2]
    whole = Frames()
    evaluator.score(Still(), whole)
    assert whole.env_steps == [0, 1, 2, 3, 4, 5]


def test_methods_that_fail_after_the_last_step_cost_nothing(evaluator):
    for env in evaluator._envs:
        env.get_info = env.close = lambda: diverge(None)
    score = evaluator.score(Still())
    np.testing.assert_array_equal(score.returns, [5, 5, 5])
    assert score.successes is None
    evaluator.close()
