"""n-step rows against sums worked out by hand and by brute force."""

import numpy as np
import pytest

from collect.adder import NStepAdder
from sactory.rows import RowFormat, sound

GAMMA = 0.99
SHAPES = {"observation": (1,), "action": (1,), "reward": (), "discount": ()}
ROW = RowFormat((*SHAPES.items(), ("next_observation", (1,)), ("policy_step", ())))


def run(adder, rewards, discounts, last_at=None):
    """Feeds one episode whose observation at time t is [t]; returns the rows in order."""
    adder.start(np.array([0.0], np.float32))
    rows = []
    for t, (reward, discount) in enumerate(zip(rewards, discounts)):
        rows += adder.step(
            action=np.array([10.0 + t], np.float32),
            reward=reward,
            discount=discount,
            last=last_at == t,
            observation=np.array([t + 1.0], np.float32),
            policy_step=100 + t,
        )
    return rows


def by_hand(rewards, discounts, n, start):
    """(R, D, index of s') of the window that starts at `start`, in float64."""
    total, coefficient, end = 0.0, 1.0, start
    while end < len(rewards) and end < start + n:
        total += coefficient * rewards[end]
        coefficient *= GAMMA * discounts[end]
        end += 1
    return total, coefficient, end


@pytest.mark.parametrize("n", [1, 2, 3, 7])
@pytest.mark.parametrize("terminal", [True, False])
def test_every_step_of_an_episode_becomes_one_row(n, terminal):
    random = np.random.default_rng(n)
    rewards = random.normal(size=6)
    discounts = [1.0] * 5 + [0.0 if terminal else 1.0]
    rows = run(NStepAdder(ROW, n, GAMMA), rewards, discounts, last_at=5)
    assert len(rows) == 6
    for t, row in enumerate(rows):
        total, coefficient, end = by_hand(rewards, discounts, n, t)
        expected = [t, 10 + t, total, coefficient, end, 100 + t]
        np.testing.assert_allclose(row, expected, rtol=1e-6)
    if terminal:  # no bootstrapping through a terminal, whatever the window's length
        assert [row[3] == 0 for row in rows] == [t + n >= 6 for t in range(6)]
    else:  # a time limit keeps bootstrapping, with the shorter window's power of gamma
        np.testing.assert_allclose(rows[-1][3], GAMMA, rtol=1e-6)


def test_three_step_return_of_the_published_vector():
    # gamma .99, r = (1, -.5, 2), V' after the window = .7: 3.14440930 without corrections.
    row = run(NStepAdder(ROW, 3, 0.99), (1.0, -0.5, 2.0), (1.0, 1.0, 1.0))[0]
    assert row[2] + row[3] * 0.7 == pytest.approx(3.14440930, abs=1e-6)


def test_windows_do_not_reach_over_a_cut_episode():
    adder = NStepAdder(ROW, 3, GAMMA)
    assert run(adder, [1.0, 1.0], [1.0, 1.0]) == []  # cut before any window is full
    rows = run(adder, [5.0, 6.0, 7.0], [1.0, 1.0, 1.0], last_at=2)
    assert [row[0] for row in rows] == [0, 1, 2]
    assert rows[0][2] == pytest.approx(5 + GAMMA * 6 + GAMMA**2 * 7, rel=1e-6)


def test_rows_do_not_share_memory():
    first, second = run(NStepAdder(ROW, 1, GAMMA), [1.0, 2.0], [1.0, 1.0])
    assert not np.shares_memory(first, second)


def test_a_train_step_beyond_what_a_row_may_hold_does_not_spoil_it():
    adder = NStepAdder(ROW, 1, GAMMA)
    adder.start(np.zeros(1, np.float32))
    (row,) = adder.step(np.zeros(1), 1.0, 1.0, False, np.zeros(1, np.float32), 10**12)
    assert sound(row)
