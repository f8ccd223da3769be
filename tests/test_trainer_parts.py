"""The trainer's checkpoints, publisher and journal, each on its own."""

import resource
import threading

import gin
import numpy as np
import pytest
import reverb
import tensorflow as tf

from sactory import client as client_lib
from sactory import progress, tables, weights
from sactory.cpus import CpuPlan
from sactory.errors import UserError
from sactory.metrics import MetricsWriter, read_log
from sactory.rows import RowFormat
from sactory.run_dir import RunDir, write_json
from train.checkpoint import Checkpoints, next_incarnation
from train.journal import Journal
from train.publisher import Publisher
from train.setup import configure_tensorflow

pytestmark = pytest.mark.timeout(120)


def make_checkpoints(run_dir, value=0.0, keep=3):
    variable = tf.Variable(tf.fill([5000], value))
    return Checkpoints(run_dir, {"weights": variable}, keep), variable


def test_checkpoint_restores_the_newest_and_keeps_the_last_ones(tmp_path):
    run_dir = RunDir(tmp_path)
    checkpoints, variable = make_checkpoints(run_dir, keep=2)
    for step in (5, 10, 15):
        variable.assign(tf.fill([5000], float(step)))
        assert checkpoints.save(step, {"step": step})
    assert [int(p.name) for p in checkpoints.existing()] == [10, 15]
    fresh, variable = make_checkpoints(run_dir)
    state = fresh.restore()
    assert state is not None and state["step"] == 15
    assert variable.numpy()[0] == 15


def test_damaged_checkpoints_are_passed_over_for_an_older_one(tmp_path, caplog):
    run_dir = RunDir(tmp_path)
    checkpoints, _ = make_checkpoints(run_dir, 1.0)
    for step in (5, 10, 15):
        checkpoints.save(step, {"step": step})
    newest, middle = checkpoints.existing()[2], checkpoints.existing()[1]
    (newest / "state.json").write_text("{")
    for part in middle.glob("weights.data*"):
        part.write_bytes(b"")
    fresh, _ = make_checkpoints(run_dir)
    state = fresh.restore()
    assert state is not None and state["step"] == 5
    assert str(newest) in caplog.text and str(middle) in caplog.text


def test_no_readable_checkpoint_is_an_error_and_none_at_all_a_fresh_start(tmp_path):
    run_dir = RunDir(tmp_path)
    checkpoints, _ = make_checkpoints(run_dir)
    assert checkpoints.restore() is None
    checkpoints.save(5, {})
    (checkpoints.existing()[0] / "state.json").unlink()
    with pytest.raises(RuntimeError, match="none of the checkpoints"):
        checkpoints.restore()


def test_a_full_disk_leaves_the_last_good_checkpoint(tmp_path, caplog):
    run_dir = RunDir(tmp_path)
    checkpoints, variable = make_checkpoints(run_dir, 1.0)
    assert checkpoints.save(5, {"step": 5})
    variable.assign(tf.fill([5000], 2.0))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))  # writes fail as on a full disk
    try:
        assert not checkpoints.save(10, {"step": 10})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "checkpoint failed, the previous one stays" in caplog.text
    assert sorted(p.name for p in run_dir.trainer_checkpoints.iterdir()) == [f"{5:012d}"]
    fresh, variable = make_checkpoints(run_dir)
    state = fresh.restore()
    assert state is not None and state["step"] == 5 and variable.numpy()[0] == 1.0


def test_incarnations_count_up(tmp_path):
    assert [next_incarnation(RunDir(tmp_path)) for _ in range(3)] == [1, 2, 3]


@pytest.fixture
def client(tmp_path):
    limits = tables.ReplayLimits(100, 1, None, 0.0, False)
    server = reverb.Server(tables.build_tables(RowFormat((("reward", ()),)), limits, 1, ""))
    write_json(RunDir(tmp_path).address, {"host": "localhost", "port": server.port})
    yield reverb.Client(f"127.0.0.1:{server.port}")
    server.stop()


def make_publisher(tmp_path, client, incarnation=1):
    book = progress.Book()
    run_dir, stop = RunDir(tmp_path), threading.Event()
    return Publisher(run_dir, client, stop, 1, book, incarnation)


def published(client):
    newest = weights.latest(client, client_lib.table_infos(client))
    return newest and newest[0]


def test_restored_weights_are_published_before_anything_else(tmp_path, client):
    weights.publish(client, weights.Version(1, 900), np.zeros(3, np.float32))
    publisher = make_publisher(tmp_path, client, incarnation=2)
    publisher.offer(700, np.ones(3, np.float32))
    publisher.round()
    assert published(client) == weights.Version(2, 700)


def test_weights_are_published_again_when_the_table_lost_them(tmp_path, client):
    publisher = make_publisher(tmp_path, client)
    publisher.offer(5, np.ones(3, np.float32))
    publisher.round()
    before = client_lib.table_infos(client)
    publisher.round()  # nothing new: nothing is sent
    after = client_lib.table_infos(client)
    assert before is not None and after is not None
    counts = [i[tables.WEIGHTS].rate_limiter_info.insert_stats.completed for i in (before, after)]
    assert counts == [1, 1]
    client.reset(tables.WEIGHTS)  # what an emptied server looks like
    publisher.round()
    assert published(client) == weights.Version(1, 5)
    weights.publish(client, weights.Version(1, 2), np.zeros(3, np.float32))  # old ones came back
    publisher.round()
    assert published(client) == weights.Version(1, 5)


def test_reports_reach_the_book_and_garbage_does_not_stop_it(tmp_path, client, caplog):
    publisher = make_publisher(tmp_path, client)
    episode = progress.Episode(0, 7.0, 10, 0.5)
    for record in ({"nonsense": 1}, progress.report(0, 1, 10, 20, [episode]), [1, 2]):
        client_lib.put_json(client, tables.PROGRESS, record)
    publisher.round()
    assert (publisher.book.rows, publisher.book.env_steps) == (10, 20)
    assert list(publisher.episodes) == [(1, episode)]
    assert "can't be read" in caplog.text


def test_the_end_is_told_to_everybody(tmp_path, client):
    publisher = make_publisher(tmp_path, client)
    publisher.finish()
    (message,) = client_lib.take_json(client, tables.STATE, client_lib.table_infos(client))
    assert progress.RunState.from_json(message).stop


def test_journal_writes_means_since_the_last_line(tmp_path):
    log = tmp_path / "train.log"
    journal = Journal(MetricsWriter(log))
    book = progress.Book()
    book.add(progress.report(0, 1, 30, 60, [progress.Episode(0, 1.0, 10, 0.5)]))
    names = [
        "batch_reward",
        "actor_loss",
        "critic_loss",
        "alpha_loss",
        "alpha",
        "entropy",
        "q_mean",
    ]
    for value in (1.0, 2.0, 6.0):
        journal.update(dict.fromkeys(names, value))
    journal.episode(1, progress.Episode(0, 7.5, 20, 0.25), book, train_step=12, ratio=0.5)
    journal.episode(2, progress.Episode(1, 8.5, 20, 0.25), book, train_step=12, ratio=0.5)
    journal.event("restart", book, train_step=12)
    journal.close()
    first, second, event = read_log(log)
    assert first["actor_loss"] == 3.0 and first["episode_reward"] == 7.5 and first["step"] == 60
    assert second["actor_loss"] == 3.0  # ended together: the same means
    assert (first["episode"], second["episode"]) == (1, 2)
    assert (event["event"], event["train_step"]) == ("restart", 12)


def test_a_gpu_that_is_not_there_is_refused_in_one_line():
    if tf.config.list_physical_devices("GPU"):
        pytest.skip("this host has a GPU")
    gin.parse_config("train.device = 'gpu'")
    with pytest.raises(UserError, match=r"train.device = 'gpu', but TensorFlow finds no GPU") as e:
        configure_tensorflow(CpuPlan(None, 1))
    assert "\n" not in str(e.value)
