"""n-step rows against sums worked out by hand and by brute force."""

import numpy as np
import pytest

from collect.adder import NStepAdder
from sactory.rows import LIMIT, RowFormat, sound

GAMMA = 0.99
SHAPES = {"observation": (1,), "action": (1,), "reward": (), "discount": ()}
ROW = RowFormat((*SHAPES.items(), ("next_observation", (1,)), ("policy_step", ())))


def run(adder, rewards, discounts, last_at=None):
    """Feeds one episode whose observation at time t is [t]; returns the rows in order."""
    rows = []
    for t, (reward, discount) in enumerate(zip(rewards, discounts)):
        rows += list(step(adder, t, [reward], [discount], [last_at == t]))
    return rows


def step(adder, t, rewards, discounts, last, taken=None):
    """One step of all environments; environment e adds 1000 e to what tells the times apart."""
    offsets = 1000 * np.arange(len(rewards), dtype=np.float32)[:, None]
    return adder.step(
        observations=offsets + t,
        actions=offsets + 10 + t,
        rewards=np.array(rewards),
        discounts=np.array(discounts),
        last=np.array(last),
        next_observations=offsets + t + 1,
        policy_step=100 + t,
        taken=np.ones(len(rewards), bool) if taken is None else np.array(taken),
    )


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
    rows = run(NStepAdder(ROW, n, GAMMA, 1), rewards, discounts, last_at=5)
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
    row = run(NStepAdder(ROW, 3, 0.99, 1), (1.0, -0.5, 2.0), (1.0, 1.0, 1.0))[0]
    assert row[2] + row[3] * 0.7 == pytest.approx(3.14440930, abs=1e-6)


def test_windows_do_not_reach_over_a_cut_episode():
    adder = NStepAdder(ROW, 3, GAMMA, 1)
    assert run(adder, [1.0, 1.0], [1.0, 1.0]) == []  # cut before any window is full
    adder.cut(0)
    rows = run(adder, [5.0, 6.0, 7.0], [1.0, 1.0, 1.0], last_at=2)
    assert [row[0] for row in rows] == [0, 1, 2]
    assert rows[0][2] == pytest.approx(5 + GAMMA * 6 + GAMMA**2 * 7, rel=1e-6)


def test_rows_do_not_share_memory():
    first, second = run(NStepAdder(ROW, 1, GAMMA, 1), [1.0, 2.0], [1.0, 1.0])
    assert not np.shares_memory(first, second)


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_environments_that_step_together_do_not_mix(n):
    """Their episodes end and are cut at different times; each alone would make the same rows."""
    random, count, steps = np.random.default_rng(n), 3, 40
    rewards = random.normal(size=(steps, count))
    discounts = np.where(random.random((steps, count)) < 0.1, 0.0, 1.0)
    last = (discounts == 0) | (random.random((steps, count)) < 0.1)
    cut = random.random((steps, count)) < 0.1
    together, alone = NStepAdder(ROW, n, GAMMA, count), [[] for _ in range(count)]
    for e in range(count):
        adder = NStepAdder(ROW, n, GAMMA, 1)
        for t in range(steps):
            if cut[t, e]:
                adder.cut(0)
            told = [rewards[t, e]], [discounts[t, e]], [last[t, e] and not cut[t, e]]
            rows = step(adder, t, *told, taken=[not cut[t, e]])
            alone[e].append(rows + np.array([1000 * e, 1000 * e, 0, 0, 1000 * e, 0], np.float32))
    for t in range(steps):
        for e in np.flatnonzero(cut[t]):
            together.cut(e)
        rows = step(together, t, rewards[t], discounts[t], last[t] & ~cut[t], ~cut[t])
        np.testing.assert_array_equal(rows, np.concatenate([alone[e][t] for e in range(count)]))


def test_a_train_step_beyond_what_a_row_may_hold_does_not_spoil_it():
    adder = NStepAdder(ROW, 1, GAMMA, 1)
    (row,) = step(adder, 10**12, [1.0], [1.0], [False])
    assert row[-1] == LIMIT and sound(row[-1:])
