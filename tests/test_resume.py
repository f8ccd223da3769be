"""A trainer that was interrupted learns exactly what one that was not would have learned."""

import numpy as np
import pytest

from sactory import supervision
from sactory import trainer_checkpoints as on_disk
from sactory.run_dir import read_json
from tests.trainer_rig import CALL, Rig, make_run, stand_ins  # noqa: F401  (a fixture)

pytestmark = pytest.mark.timeout(180)


def train(rig, *lengths):
    """Starts the trainer once for each length in calls; returns its last numbers and state."""
    variables = []
    for calls in lengths:
        start = rig.start()
        assert start.run(calls) == supervision.RETRY
        variables = start.variables
    newest = on_disk.find(rig.run_dir.trainer_checkpoints)[-1]
    return variables, on_disk.read(newest)["state"]


def test_resuming_is_exact_to_the_last_bit(tmp_path, stand_ins):  # noqa: F811
    found = []
    for name, lengths in (("whole", [6]), ("interrupted", [2, 4])):
        rig = Rig(make_run(tmp_path / name))
        try:
            found.append(train(rig, *lengths))
        finally:
            rig.close()
        beat = read_json(rig.run_dir.status("train"))
        assert beat["checkpoint_seconds"] < 60 and beat["checkpoint_time"] > 1e9
        assert beat["recovered"] == [] and beat["dropped_blocks"] == 0
    (whole, state), (interrupted, state_after) = found
    assert len(whole) > 20
    for a, b in zip(whole, interrupted):
        np.testing.assert_array_equal(a, b)
    assert state["train_step"] == 6 * CALL
    for key in ("train_step", "env_steps", "book", "journal"):
        assert state[key] == state_after[key], key
    assert state_after["elapsed"] > 0 and state_after["incarnation"] == 2
