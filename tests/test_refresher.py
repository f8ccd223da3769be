"""What a collector hears from the run: in order whatever the clocks say, and garbage left out."""

import dataclasses
import threading

import numpy as np
import pytest
import reverb

from collect.refresher import Refresher, interval
from sactory import client as client_lib
from sactory import tables, weights
from sactory.curriculum import State
from sactory.progress import RunState
from sactory.rows import RowFormat
from sactory.run_dir import RunDir, write_json

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def refresher(tmp_path):
    limits = tables.ReplayLimits(100, 1, None, 0.0, False)
    server = reverb.Server(tables.build_tables(RowFormat((("reward", ()),)), limits, 1, ""))
    run_dir = RunDir(tmp_path)
    write_json(run_dir.address, {"host": "localhost", "port": server.port})
    client = reverb.Client(f"127.0.0.1:{server.port}")
    yield Refresher(run_dir, client, threading.Event(), 0, 60.0, 1)
    server.stop()


@pytest.mark.parametrize(
    ("chosen", "collectors", "seconds"),
    [(None, 1, 0.25), (None, 32, 0.25), (None, 64, 0.5), (None, 1024, 8.0), (2.0, 1024, 2.0)],
)
def test_many_collectors_look_less_often(chosen, collectors, seconds):
    assert interval(chosen, collectors) == pytest.approx(seconds)


class Pauses(threading.Event):
    """A stop that comes after a number of pauses, none of which takes time."""

    def __init__(self, count):
        super().__init__()
        self.count, self.taken = count, []

    def wait(self, timeout=None):
        self.taken.append(timeout)
        return len(self.taken) > self.count


def test_a_worker_without_a_policy_looks_often(refresher):
    refresher._stop = Pauses(2)
    refresher._loop()
    assert max(refresher._stop.taken) <= 1.0
    refresher.set_version(weights.Version(1, 0))
    refresher._stop = Pauses(2)
    refresher._loop()
    assert refresher._stop.taken == [60.0] * 3


def tell(refresher, state):
    client_lib.put_json(refresher._client, tables.STATE, state.to_json())
    refresher._round()
    return refresher.state == state


def state(rows, clock, incarnation=1, train_step=0, weights_step=0):
    return RunState(2 * rows, rows, train_step, incarnation, weights_step, clock)


def test_a_clock_that_was_set_back_holds_nothing_up(refresher):
    assert tell(refresher, state(10, clock=1e9))
    refresher._state_changed -= 1000
    assert tell(refresher, state(20, clock=5.0))
    assert refresher.trainer_silence < 900
    assert tell(refresher, state(20, clock=4.0))  # a trainer that waits is no silent one
    assert tell(refresher, state(20, clock=3.0, incarnation=2))


def test_the_state_of_a_restored_server_is_no_news(refresher):
    newest = state(10, clock=1.0, incarnation=2, train_step=8)
    assert tell(refresher, newest)
    refresher._state_changed -= 1000
    for _ in range(2):
        assert not tell(refresher, state(9, clock=9.0, incarnation=2, train_step=7))
    assert refresher.state == newest and refresher.trainer_silence >= 1000
    assert tell(refresher, state(10, clock=2.0, incarnation=3, train_step=7))


def test_an_older_version_of_the_curriculum_is_no_news(refresher):
    newest = dataclasses.replace(state(10, clock=1.0), curriculum=State(version=2))
    assert tell(refresher, newest)
    older = dataclasses.replace(newest, curriculum=State(version=1), time=9.0)
    for _ in range(2):
        assert not tell(refresher, older)
    assert refresher.state == newest
    assert tell(refresher, dataclasses.replace(newest, curriculum=State(version=3)))


def test_what_was_never_true_gives_way_to_a_state_that_changes(refresher):
    assert tell(refresher, state(2**50, clock=1e12, incarnation=2**50))
    assert not tell(refresher, state(10, clock=1.0))
    assert tell(refresher, state(11, clock=2.0))
    assert tell(refresher, state(12, clock=3.0))


@pytest.mark.parametrize(
    "message", [b"not json", b"[" * 100_000, b"[1, 2]", b"{}", b'{"rows": Infinity}', b"9" * 5_000]
)
def test_a_malformed_state_is_dropped(refresher, message, caplog):
    client_lib.put(refresher._client, tables.STATE, [np.frombuffer(message, np.uint8)])
    refresher._round()
    assert refresher.state is None and "dropped" in caplog.text
    assert tell(refresher, state(1, clock=1.0))


VECTOR = np.ones(3, np.float32)


@pytest.mark.parametrize(
    "item",
    [
        [VECTOR],
        [VECTOR, VECTOR],
        [np.array([1], np.int64), VECTOR],
        [np.array([1, 5], np.int64), np.float64(VECTOR)],
        [np.array([1, 5], np.int64), VECTOR * np.float32(np.nan)],
        [np.array([2**60, 5], np.int64), VECTOR],  # not what the trainer tells of
    ],
)
def test_malformed_weights_are_left_out(refresher, item):
    client_lib.put(refresher._client, tables.WEIGHTS, item)
    assert tell(refresher, state(1, clock=1.0, weights_step=5))
    assert refresher.take_weights() is None
    weights.publish(refresher._client, weights.Version(1, 6), VECTOR)
    assert tell(refresher, state(1, clock=2.0, weights_step=6))
    version, vector = refresher.take_weights()
    assert version == weights.Version(1, 6)
    np.testing.assert_array_equal(vector, VECTOR)
