"""Numbers that are not finite: never saved, exported or published; one rollback, then the end."""

import errno

import numpy as np
import pytest

from sactory import cli, supervision, weights
from sactory import client as client_lib
from sactory.errors import RetryError, UserError
from sactory.metrics import MetricsWriter, read_log
from sactory.progress import Book, Entry, Episode
from sactory.run_dir import RunDir, read_json
from tests.trainer_rig import CALL, Rig, make_run, stand_ins  # noqa: F401  (a fixture)
from train import divergence, setup
from train.divergence import DivergedError
from train.journal import Journal

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def rig(tmp_path, stand_ins):  # noqa: F811
    rig = Rig(make_run(tmp_path / "run"))
    yield rig
    rig.close()


def spoil(items):
    items["log_alpha"].assign(np.nan)
    return "no signal comes"


def spoil_and_stop(items):
    items["log_alpha"].assign(np.nan)


def steps_in(run_dir):
    return [int(p.name) for p in run_dir.trainer_checkpoints.iterdir() if p.name.isdigit()]


def events(run_dir, name):
    return [row for row in read_log(run_dir.train_log) if row.get("event") == name]


def test_the_first_time_it_goes_back_to_the_last_checkpoint_and_then_it_gives_up(rig):
    run_dir = rig.run_dir
    assert rig.start().run(3) == supervision.RETRY
    first = rig.start()
    good = first.variables
    assert first.run(2, spoil) == supervision.RETRY
    assert steps_in(run_dir) == [3 * CALL]
    record = read_json(run_dir.diverged)
    assert (record["metric"], record["value"], record["incarnation"]) == ("actor_loss", "nan", 2)
    assert 5 * CALL < record["train_step"] <= 6 * CALL
    published = weights.latest(rig.client, client_lib.table_infos(rig.client))
    assert published is not None and np.isfinite(published[1]).all()

    second = rig.start()
    for was, now in zip(good, second.variables):
        np.testing.assert_array_equal(was, now)
    assert read_json(run_dir.diverged)["restored_train_step"] == 3 * CALL
    (event,) = events(run_dir, "rollback")
    assert (event["metric"], event["train_step"]) == ("actor_loss", 3 * CALL)
    assert event["diverged_train_step"] == record["train_step"]
    assert [e["train_step"] for e in events(run_dir, "restart")] == [3 * CALL, 3 * CALL]

    with pytest.raises(UserError, match=r"diverged again: log_alpha .* at train step 12\. ") as e:
        second.run(0, spoil_and_stop)
    text = str(e.value)
    assert f"to train step {3 * CALL}. Go on in `sactory init --from {run_dir} " in text
    assert "\n" not in text
    assert steps_in(run_dir) == [3 * CALL]
    rig.start()  # a user may try again; the log is told of the rollback once
    assert len(events(run_dir, "rollback")) == 1


def test_before_the_first_checkpoint_it_begins_again_from_the_initial_weights(rig, caplog):
    caplog.set_level("INFO", "absl")
    first = rig.start()
    initial = first.variables
    assert first.run(0, spoil_and_stop) == supervision.RETRY
    assert steps_in(rig.run_dir) == []
    second = rig.start()
    for was, now in zip(initial, second.variables):
        np.testing.assert_array_equal(was, now)
    assert "the initial weights, for there was no checkpoint yet" in caplog.text
    assert events(rig.run_dir, "rollback")[0]["train_step"] == 0
    with pytest.raises(UserError, match=r"diverged again.* Go on in a new run with steadier"):
        second.run(0, spoil_and_stop)


@pytest.mark.parametrize("name", ["critic_optimizer", "target_critics"])
def test_what_no_metric_shows_yet_is_found_before_it_is_saved(rig, name):
    def spoil_one(items):
        variables = items[name].second if name == "critic_optimizer" else items[name][0].variables
        variables[0].assign(np.full(variables[0].shape, np.inf))

    start = rig.start()
    assert start.run(0, spoil_one) == supervision.RETRY  # as if the signal came just then
    assert steps_in(rig.run_dir) == []
    record = read_json(rig.run_dir.diverged)
    assert record["metric"].startswith(name) and record["value"] == "not finite"


def test_a_policy_that_is_not_finite_is_neither_published_nor_exported(rig):
    learner = rig.start().learner
    variable = learner._agent.actor_variables[0]
    variable.assign(np.full(variable.shape, np.nan))
    for action in (learner.export, learner.save, learner._policy_vector):
        with pytest.raises(DivergedError):
            action()


def test_a_divergence_that_can_not_be_recorded_does_not_count(tmp_path, monkeypatch):
    def full(path, value):
        raise OSError(errno.ENOSPC, "No space left on device")

    run_dir, error = RunDir(tmp_path), DivergedError("q_mean", np.nan, 7)
    with monkeypatch.context() as m:
        m.setattr(divergence, "write_json", full)
        with pytest.raises(OSError, match="No space"):
            divergence.record(run_dir, error, 1)
    divergence.record(run_dir, error, 2)
    run_dir.diverged.write_text("cut of")  # whatever it says, there has been one
    with pytest.raises(UserError, match="diverged again"):
        divergence.record(run_dir, error, 3)


@pytest.mark.parametrize(
    ("error", "exit_code", "state"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), supervision.RETRY, "stopped"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), supervision.RETRY, "stopped"),
        (RetryError("can't be read now"), supervision.RETRY, "stopped"),
        (RuntimeError("3: /x; No space left on device"), supervision.RETRY, None),
        (client_lib.ServerGoneError("silent"), supervision.RETRY, "stopped"),
        (UserError("diverged again"), supervision.USER_ERROR, "failed"),
        (OSError(errno.EACCES, "Permission denied"), supervision.RETRY, "stopped"),
        (OSError(errno.EINVAL, "Invalid argument"), None, "stopped"),
    ],
)
def test_what_the_program_makes_of_errors(tmp_path, monkeypatch, error, exit_code, state):
    def broken(*_):
        raise error

    run_dir = make_run(tmp_path / "run")
    monkeypatch.setattr(setup, "make_learner", broken)
    words = ["train", "--run_dir", str(run_dir)]
    if exit_code is None:
        with pytest.raises(type(error)):
            cli.main(words)
    else:
        assert cli.main(words) == exit_code
    beat = read_json(run_dir.status("train"))
    if state is not None:
        assert beat["state"] == state and str(error) in beat["error"]


def test_means_since_the_last_row_survive_a_restart(tmp_path):
    names = (
        "batch_reward",
        "actor_loss",
        "critic_loss",
        "alpha_loss",
        "alpha",
        "entropy",
        "q_mean",
    )
    first = Journal(MetricsWriter(tmp_path / "train.log"))
    first.update(dict.fromkeys(names, 1.0))
    first.close()
    second = Journal(MetricsWriter(tmp_path / "train.log"), first.to_json())
    second.update(dict.fromkeys(names, 3.0))
    second.episode(Entry(1, "0:1:0", Episode(0, 7.5, 20, 0.25)), Book(), train_step=2, ratio=1.0)
    second.close()
    (row,) = read_log(tmp_path / "train.log")
    assert row["actor_loss"] == 2.0 and second.to_json()["last_return"] == 7.5
