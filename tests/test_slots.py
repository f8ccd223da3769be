"""A collector's environments: what they refuse, how episodes join."""

import re

import numpy as np
import pytest
from tf_agents.environments import py_environment
from tf_agents.specs import array_spec
from tf_agents.trajectories import time_step as ts

from collect.adder import NStepAdder
from collect.draws import Draws
from collect.slots import BadStepError, Slots
from sactory import settings
from sactory.rows import LIMIT
from sactory.specs import Specs

LENGTH = 4


class Scripted(py_environment.PyEnvironment):
    """Counts its steps; `faults` replaces what it yields at some of them (counted over all)."""

    action_repeat = 1
    max_episode_steps = LENGTH

    def __init__(self, faults=None, terminal=False):
        super().__init__()
        self.faults, self.terminal = faults or {}, terminal
        self.total = self.count = 0

    def observation_spec(self):
        return array_spec.ArraySpec((2,), np.float32, "observation")

    def action_spec(self):
        return array_spec.BoundedArraySpec((1,), np.float32, -1.0, 1.0, "action")

    def _reset(self):
        self.count = 0
        return ts.restart(np.array([0, self.total], np.float32))

    def _step(self, action):
        self.count += 1
        self.total += 1
        last = self.count == LENGTH
        step = ts.TimeStep(
            np.int32(ts.StepType.LAST if last else ts.StepType.MID),
            np.float32(self.count),
            np.float32(0.0 if last and self.terminal else 1.0),
            np.array([self.count, self.total], np.float32),
        )
        fault = self.faults.get(self.total, {})
        if "raises" in fault:
            raise fault["raises"]
        return step._replace(**fault)


def make_slots(faults=None, n_step=1, terminal=False, others=0):
    """One environment with these faults, and others without."""
    envs = [Scripted(faults, terminal), *(Scripted() for _ in range(others))]
    for number, env in enumerate(envs):
        env.total = 1000 * number
    specs = Specs.of_env(envs[0], settings.Env(name="python:a:b"))
    slots = Slots(envs, specs, NStepAdder(specs.row, n_step, 0.9, len(envs)), Draws())
    slots.begin()
    return slots, specs


def play(slots, steps):
    rows, episodes = [], []
    for t in range(steps):
        actions = np.full((len(slots.observations), 1), t / 10, np.float32)
        new, ended = slots.step(actions, policy_step=7)
        rows += list(new)
        episodes += ended
    return rows, episodes


@pytest.mark.parametrize("n_step", [1, 3])
def test_no_row_joins_two_episodes(n_step):
    slots, specs = make_slots(n_step=n_step)
    rows, episodes = play(slots, 3 * LENGTH)
    assert len(rows) == 3 * LENGTH
    for row in specs.row.unpack(np.stack(rows)).items():
        assert np.isfinite(row[1]).all()
    fields = specs.row.unpack(np.stack(rows))
    start, end = fields["observation"], fields["next_observation"]
    # The second number counts over all episodes: start and end lie in the same one.
    assert (start[:, 1] // LENGTH == (end[:, 1] - 1) // LENGTH).all()
    assert [e["episode_return"] for e in episodes] == [1 + 2 + 3 + 4] * 3
    assert [e["length"] for e in episodes] == [LENGTH] * 3


def test_time_limit_bootstraps_and_terminal_does_not():
    for terminal in (False, True):
        slots, specs = make_slots(terminal=terminal)
        rows, _ = play(slots, LENGTH)
        discount = specs.row.unpack(np.stack(rows))["discount"]
        np.testing.assert_allclose(discount[:-1], 0.9)
        np.testing.assert_allclose(discount[-1], 0.0 if terminal else 0.9)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"observation": np.array([np.nan, 0], np.float32)}, "observation holds NaN, infinity"),
        ({"observation": np.array([0, 2 * LIMIT], np.float32)}, "a number beyond 100,000,000"),
        ({"observation": np.zeros(1, np.float32)}, r"observation has shape \(1,\)"),
        ({"reward": np.float32("inf")}, "reward is inf"),
        ({"reward": np.float32(1e25)}, r"reward is .*e\+24, not from -1e\+08 to 1e\+08"),
        ({"reward": np.zeros(2, np.float32)}, "reward is not one number"),
        ({"discount": np.float32("nan")}, "discount is nan"),
        ({"discount": np.float32(1.5)}, "discount is 1.5, not from 0 to 1"),
        ({"discount": np.float32(-0.5)}, "discount is -0.5"),
        ({"raises": ArithmeticError("it blew up")}, "step.. raised ArithmeticError: it blew up"),
    ],
)
def test_a_bad_step_is_refused_by_name_and_a_new_episode_begins(fault, message, caplog):
    slots, _ = make_slots({2: fault}, n_step=3)
    rows, episodes = play(slots, 2 + LENGTH)
    assert slots.refused == 1
    assert caplog.records and pytest.approx(0) == slots.observations[0, 0]
    assert len(rows) == LENGTH  # of the cut episode no window was whole
    assert np.isfinite(np.stack(rows)).all()
    assert len(episodes) == 1
    assert re.search(message, caplog.text)


@pytest.mark.parametrize("n_step", [1, 3])
def test_a_bad_step_costs_the_other_environments_nothing(n_step):
    faults = {
        2: {"observation": np.array([np.nan, 0], np.float32)},
        3: {"reward": np.float32("inf")},
        4: {"raises": ArithmeticError("it blew up")},
    }
    slots, _ = make_slots(faults, n_step, others=2)
    rows, episodes = play(slots, 3 * LENGTH)
    assert slots.refused == 3 and len(episodes) == 2 * 3 + 2
    rows = np.stack(rows)
    assert np.isfinite(rows).all()
    expected = np.stack(play(make_slots(n_step=n_step)[0], 3 * LENGTH)[0])
    for number in (1, 2):
        mine = rows[rows[:, 1] // 1000 == number]
        np.testing.assert_allclose(
            mine - expected, [[0, 1000 * number, 0, 0, 0, 0, 1000 * number, 0]] * 12
        )


def test_an_environment_may_reuse_its_buffer():
    slots, specs = make_slots()
    buffer, env = np.zeros(2, np.float32), slots._envs[0]

    def reused(step):
        buffer[:] = step.observation
        return step._replace(observation=buffer)

    whole_step, whole_reset = env._step, env._reset
    env._step, env._reset = lambda a: reused(whole_step(a)), lambda: reused(whole_reset())
    rows, _ = play(slots, LENGTH)
    fields = specs.row.unpack(np.stack(rows))
    assert (fields["next_observation"][:, 0] == fields["observation"][:, 0] + 1).all()


def bad_reset():
    return ts.restart(np.array([np.nan, 0], np.float32))


def failing_reset():
    raise RuntimeError("physics")


@pytest.mark.parametrize("reset", [bad_reset, failing_reset])
def test_an_environment_that_never_starts_well_is_an_error(reset):
    env = Scripted()
    env._reset = reset
    specs = Specs.of_env(Scripted(), settings.Env(name="python:a:b"))
    with pytest.raises(BadStepError, match="three resets in a row"):
        Slots([env], specs, NStepAdder(specs.row, 1, 0.9, 1), Draws()).begin()


def test_a_reset_that_raises_is_tried_again(caplog):
    slots, _ = make_slots()
    whole, tries = slots._envs[0]._reset, []

    def reset():
        tries.append(1)
        return failing_reset() if len(tries) < 3 else whole()

    slots._envs[0]._reset = reset
    rows, episodes = play(slots, LENGTH)
    assert (len(rows), len(episodes), len(tries), slots.refused) == (LENGTH, 1, 3, 2)
    assert "reset() raised RuntimeError: physics" in caplog.text
