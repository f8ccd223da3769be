"""The trainer's checkpoints, publisher and journal, each on its own."""

import json
import resource
import shutil
import threading

import gin
import numpy as np
import pytest
import reverb
import tensorflow as tf

from sactory import client as client_lib
from sactory import progress, tables, trainer_checkpoints, weights
from sactory.cpus import CpuPlan
from sactory.errors import UserError
from sactory.metrics import MetricsWriter, read_log
from sactory.rows import RowFormat
from sactory.run_dir import RunDir, write_json
from train.checkpoint import Checkpoints, next_incarnation
from train.journal import Journal
from train.lessons import Lessons
from train.publisher import Publisher
from train.setup import configure_tensorflow

pytestmark = pytest.mark.timeout(120)


def make_checkpoints(run_dir, value=0.0, keep=3, every=1_000_000):
    variable = tf.Variable(tf.fill([5000], value))
    return Checkpoints(run_dir, {"weights": variable}, keep, every), variable


def state_at(train_step, env_steps=0):
    return {"train_step": train_step, "env_steps": env_steps}


def steps_in(run_dir):
    return [int(p.name) for p in trainer_checkpoints.find(run_dir.trainer_checkpoints)]


def test_checkpoint_restores_the_newest_and_keeps_the_last_ones(tmp_path):
    run_dir = RunDir(tmp_path)
    checkpoints, variable = make_checkpoints(run_dir, keep=2)
    for step in (5, 10, 15, 20):
        variable.assign(tf.fill([5000], float(step)))
        assert checkpoints.save(state_at(step))
    assert steps_in(run_dir) == [5, 15, 20]  # the first of its stretch stays
    fresh, variable = make_checkpoints(run_dir)
    assert fresh.restore() == state_at(20)
    assert variable.numpy()[0] == 20 and fresh.recovered == []


def test_one_checkpoint_of_each_stretch_of_env_steps_is_kept(tmp_path):
    run_dir = RunDir(tmp_path)
    checkpoints, _ = make_checkpoints(run_dir, keep=2, every=100)
    for step in range(1, 13):
        assert checkpoints.save(state_at(step, env_steps=30 * step))
    # Env steps 30, (100) 120, (200) 210, (300) 300 and the two newest.
    assert steps_in(run_dir) == [1, 4, 7, 10, 11, 12]


def damage(path, how):
    part = next(path.glob("weights.data*"))
    if how == "truncated":
        part.write_bytes(part.read_bytes()[:-100])
    elif how == "bit-flipped":
        data = bytearray(part.read_bytes())
        data[1000] ^= 1
        part.write_bytes(data)
    elif how == "empty":
        part.write_bytes(b"")
    elif how == "missing":
        part.unlink()
    elif how == "state cut":
        (path / "state.json").write_text("{")
    elif how == "state edited":
        text = (path / "state.json").read_text()
        (path / "state.json").write_text(text.replace('"env_steps": 7', '"env_steps": 8'))
    elif how == "format flipped":
        text = (path / "state.json").read_text()
        (path / "state.json").write_text(text.replace('"format": 2', '"format": 3'))
    elif how == "a file":
        shutil.rmtree(path)
        path.write_text("no directory")
    elif how == "from another step":
        shutil.rmtree(path)
        shutil.copytree(path.parent / f"{5:012d}", path)


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("truncated", "has changed since it was written"),
        ("bit-flipped", "has changed since it was written"),
        ("empty", "has changed since it was written"),
        ("missing", "weights.data-00000-of-00001 is missing"),
        ("state cut", "state.json is missing or not JSON"),
        ("state edited", "state.json has changed since it was written"),
        ("format flipped", "state.json has changed since it was written, or is of format 3"),
        ("a file", "state.json is missing or not JSON"),
        ("from another step", "it was written as train step 5"),
        ("not finite", "its weights Variable holds NaN or infinity"),
    ],
)
def test_a_damaged_checkpoint_goes_to_quarantine_and_an_older_one_is_used(tmp_path, how, why):
    run_dir = RunDir(tmp_path)
    checkpoints, variable = make_checkpoints(run_dir, 1.0)
    checkpoints.save(state_at(5, 7))
    if how == "not finite":
        variable.assign(tf.fill([5000], np.inf))
    checkpoints.save(state_at(10, 7))
    newest = run_dir.trainer_checkpoints / f"{10:012d}"
    damage(newest, how)
    fresh, variable = make_checkpoints(run_dir)
    assert fresh.restore() == state_at(5, 7)
    assert variable.numpy()[0] == 1.0
    (note,) = fresh.recovered
    assert newest.name in note and why in note
    assert steps_in(run_dir) == [5]
    (kept,) = [p for p in run_dir.quarantine.iterdir() if p.name.endswith(newest.name)]
    assert kept.exists()
    again, _ = make_checkpoints(run_dir)
    assert again.restore() == state_at(5, 7) and again.recovered == []


def test_no_whole_checkpoint_is_refused_again_and_again_and_none_at_all_a_fresh_start(tmp_path):
    run_dir = RunDir(tmp_path)
    checkpoints, _ = make_checkpoints(run_dir)
    assert checkpoints.restore() is None
    checkpoints.save(state_at(5))
    damage(run_dir.trainer_checkpoints / f"{5:012d}", "missing")
    for _ in range(2):  # nothing was moved away that would let the next start begin anew
        with pytest.raises(UserError, match=r"none of the 1 checkpoints .*data.* is missing"):
            make_checkpoints(run_dir)[0].restore()


def test_a_checkpoint_of_another_format_is_refused_and_stays(tmp_path, monkeypatch):
    run_dir = RunDir(tmp_path)
    make_checkpoints(run_dir)[0].save(state_at(5))
    monkeypatch.setattr(trainer_checkpoints, "FORMAT", 99)
    with pytest.raises(UserError, match=r"has format 2, this Sactory reads 99"):
        make_checkpoints(run_dir)[0].restore()
    assert steps_in(run_dir) == [5] and not run_dir.quarantine.exists()


def test_a_checkpoint_from_before_there_were_digests_is_refused_as_another_format(tmp_path):
    run_dir = RunDir(tmp_path)
    make_checkpoints(run_dir)[0].save(state_at(5))
    write_json(run_dir.trainer_checkpoints / f"{5:012d}" / "state.json", {"format": 1})
    with pytest.raises(UserError, match=r"has format 1, this Sactory reads 2: go on with") as e:
        make_checkpoints(run_dir)[0].restore()
    assert "\n" not in str(e.value) and steps_in(run_dir) == [5]


def test_a_checkpoint_removed_or_damaged_while_running_is_written_again(tmp_path):
    run_dir = RunDir(tmp_path)
    checkpoints, _ = make_checkpoints(run_dir)
    assert checkpoints.save(state_at(5))
    shutil.rmtree(run_dir.trainer_checkpoints)
    assert checkpoints.save(state_at(5))
    damage(run_dir.trainer_checkpoints / f"{5:012d}", "truncated")
    assert checkpoints.save(state_at(5, 1))
    assert len(checkpoints.recovered) == 1
    assert checkpoints.save(state_at(5, 2))  # no update since: only the counters move on
    assert make_checkpoints(run_dir)[0].restore() == state_at(5, 2)


def test_a_full_disk_leaves_the_last_good_checkpoint(tmp_path, caplog):
    run_dir = RunDir(tmp_path)
    checkpoints, variable = make_checkpoints(run_dir, 1.0)
    assert checkpoints.save(state_at(5))
    variable.assign(tf.fill([5000], 2.0))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))  # writes fail as on a full disk
    try:
        assert not checkpoints.save(state_at(10))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "checkpoint failed, the previous one stays" in caplog.text
    assert sorted(p.name for p in run_dir.trainer_checkpoints.iterdir()) == [f"{5:012d}"]
    fresh, variable = make_checkpoints(run_dir)
    assert fresh.restore() == state_at(5) and variable.numpy()[0] == 1.0


def test_incarnations_count_up_whatever_is_lost(tmp_path):
    run_dir = RunDir(tmp_path)
    assert [next_incarnation(run_dir) for _ in range(3)] == [1, 2, 3]
    (run_dir.trainer_checkpoints / "incarnation.json").write_text("")
    write_json(run_dir.status("train"), {"incarnation": 3})
    assert next_incarnation(run_dir) == 4


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
    return Publisher(run_dir, client, stop, 1, book, incarnation, Lessons())


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
    good = progress.report(0, 1, 10, 20, [episode])
    for record in ({"nonsense": 1}, good, [1, 2], {**good, "rows": np.inf}):
        message = json.dumps(record).encode()  # with Infinity, as a stranger's may be
        client_lib.put(client, tables.PROGRESS, [np.frombuffer(message, np.uint8)])
    for message in (b"[" * 100_000, b'{"rows": ' + b"9" * 5_000 + b"}"):
        client_lib.put(client, tables.PROGRESS, [np.frombuffer(message, np.uint8)])
    publisher.round()
    assert (publisher.book.rows, publisher.book.env_steps) == (10, 20)
    assert list(publisher.episodes) == [progress.Entry(1, "0:1:0", episode)]
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
    entry = progress.Entry(1, "0:1:0", progress.Episode(0, 7.5, 20, 0.25))
    journal.episode(entry, book, train_step=12, ratio=0.5)
    entry = progress.Entry(2, "0:1:1", progress.Episode(1, 8.5, 20, 0.25))
    journal.episode(entry, book, train_step=12, ratio=0.5)
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
