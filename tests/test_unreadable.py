"""A disk that can't be read now is no damage: older checkpoints are used, or all is tried again."""

import errno
import fcntl
import os

import numpy as np
import pytest
import tensorflow as tf

from replay_server import manifest, offline
from replay_server.history import History
from sactory import clean, cli, config, supervision, trainer_checkpoints
from sactory.curriculum import binding
from sactory.errors import RetryError, UserError
from sactory.locks import hold_lock
from sactory.run_dir import RunDir, poll_json, read_json, write_json
from sactory.tables import REPLAY
from tests.replay_site import Site, make_run, own_time_zone, row
from train.checkpoint import Checkpoints

pytestmark = pytest.mark.timeout(120)
EIO = "/proc/self/mem"  # opens, and every read of its first page fails with EIO


def hide(path):
    """Makes a file impossible to read; returns what undoes it."""
    kept = path.with_name(f"{path.name}.kept")
    path.rename(kept)
    path.symlink_to(EIO)
    return lambda: kept.replace(path)


def in_quarantine(run_dir):
    return run_dir.quarantine.exists() and os.listdir(run_dir.quarantine)


@pytest.fixture
def trained(tmp_path):
    run_dir = RunDir(tmp_path)
    variable = tf.Variable(np.zeros(3, np.float32))
    checkpoints = Checkpoints(run_dir, {"weights": variable}, 3, 1_000_000)
    for step in (5, 10):
        assert checkpoints.save({"train_step": step, "env_steps": 2 * step})
    return run_dir, checkpoints


def state_file(run_dir, step):
    name = trainer_checkpoints.directory_name(step)
    return run_dir.trainer_checkpoints / name / trainer_checkpoints.STATE


def test_an_older_checkpoint_is_used_where_the_newest_can_not_be_read(trained):
    run_dir, checkpoints = trained
    hide(state_file(run_dir, 10))
    assert checkpoints.restore()["train_step"] == 5
    (note,) = checkpoints.recovered
    assert "can't be read: Input/output error" in note


@pytest.mark.parametrize("name", ["state.json", "weights.index"])
def test_the_trainer_tries_again_where_no_checkpoint_can_be_read(trained, name):
    run_dir, checkpoints = trained
    undo = [hide(state_file(run_dir, step).with_name(name)) for step in (5, 10)]
    with pytest.raises(RetryError, match=r"can be used now .*Input/output error"):
        checkpoints.restore()
    assert not in_quarantine(run_dir)
    for give_back in undo:
        give_back()
    assert checkpoints.restore()["train_step"] == 10


def test_what_is_no_file_is_damaged_for_good(trained):
    run_dir, checkpoints = trained
    path = state_file(run_dir, 10)
    path.unlink()
    path.mkdir()
    assert checkpoints.restore()["train_step"] == 5
    assert in_quarantine(run_dir)


@pytest.fixture
def served(tmp_path):
    """A run with two checkpoints of its replay."""
    run_dir = make_run(tmp_path / "run")
    with own_time_zone():
        site = Site(run_dir).start()
        for i in range(2):
            site.write([row(10 * i + k) for k in range(10)])
            assert site.checkpoints.save(site.client)
        site.stop()
    return run_dir


@pytest.mark.parametrize("name", [manifest.NAME, offline.DONE])
def test_the_replay_waits_or_uses_an_older_checkpoint(served, name):
    older, newest = sorted(p for p in served.replay_history.iterdir() if p.is_dir())
    undo = [hide(path / name) for path in (older, newest)]
    roots = os.listdir(served.replay_checkpoints)
    if name == offline.DONE:
        (served.replay_checkpoints / newest.name / name).unlink()
        (served.replay_checkpoints / newest.name / name).symlink_to(EIO)
    with pytest.raises(RetryError, match=r"can be used now .*Input/output error"):
        History(served, 3).recover()
    assert not in_quarantine(served)
    assert os.listdir(served.replay_checkpoints) == roots
    undo[0]()
    copy = History(served, 3).recover()
    assert copy is not None and copy.path == older
    assert any(entry.endswith(newest.name) for entry in in_quarantine(served))


@pytest.mark.parametrize("how", ["unreadable", "deleted"])
def test_a_save_that_fails_keeps_the_server_and_the_next_one_works(served, how):
    root = served.replay_checkpoints
    with own_time_zone():
        site = Site(served).start()
        try:
            site.write([row(20)])
            away = root.rename(root.with_name("away"))
            if how == "unreadable":
                root.symlink_to(root.name)  # every look at it fails, with ELOOP
                assert not site.checkpoints.save(site.client)
                root.unlink()
                away.rename(root)
            assert site.checkpoints.save(site.client)
            assert site.info.current_size == 21
        finally:
            site.stop()
        copy = History(served, 3).recover()
    assert copy is not None and copy.manifest.items(REPLAY) == 21


def test_retry_is_one_line_and_its_own_exit_code(monkeypatch, capsys):
    def fail(_argv):
        raise RetryError("the disk is away")

    monkeypatch.setattr(clean, "main", fail)
    assert cli.main(["clean"]) == supervision.RETRY
    assert capsys.readouterr().err == "sactory: error: the disk is away\n"


def test_a_read_that_fails_anywhere_else_is_tried_again_too(tmp_path, monkeypatch, capsys):
    (tmp_path / "beat.json").symlink_to(EIO)
    monkeypatch.setattr(clean, "main", lambda _argv: read_json(tmp_path / "beat.json"))
    assert cli.main(["clean"]) == supervision.RETRY
    (line,) = capsys.readouterr().err.splitlines()
    assert "Input/output error" in line and "then run the same command again" in line
    monkeypatch.setattr(clean, "main", lambda _argv: os.listdir(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError):
        cli.main(["clean"])


def test_settings_and_curriculum_that_can_not_be_read_now_are_no_mistake(tmp_path):
    run_dir = make_run(tmp_path, text="envs.load.curriculum = 'curriculum.json'\n")
    write_json(run_dir.curriculum, {"curriculum": {"params": {"level": 1.0}}})
    undo = hide(run_dir.config)
    with pytest.raises(RetryError, match=r"config.gin can't be read: .*Input/output error"):
        config.load(run_dir)
    undo()
    config.load(run_dir)
    hide(run_dir.curriculum)
    with pytest.raises(RetryError, match=r"curriculum.json can't be read: .*Input/output error"):
        binding.load_for_run(run_dir)
    run_dir.config.write_bytes(b"\xff")
    with pytest.raises(UserError, match=r"config.gin can't be read"):
        config.load(run_dir)


@pytest.mark.parametrize(
    ("number", "error"),
    [(errno.ENOLCK, RetryError), (errno.ESTALE, RetryError), (errno.ENOTSUP, UserError)],
)
def test_a_server_of_locks_that_is_away_is_waited_for(tmp_path, monkeypatch, number, error):
    def fail(_fd, _how):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", fail)
    with pytest.raises(error, match="must support flock"):
        hold_lock(tmp_path / "train")


def test_who_polls_sees_nothing_where_others_see_the_error(tmp_path, monkeypatch):
    path = tmp_path / "done.json"
    path.symlink_to(EIO)
    assert poll_json(path) is None
    with pytest.raises(OSError, match="Input/output"):
        read_json(path)

    def stale(*_args, **_kwargs):
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr(os, "stat", stale)
    assert not RunDir(tmp_path).is_done
