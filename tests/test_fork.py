"""`sactory init --from`: what a new run takes from another, and what is refused."""

from __future__ import annotations

import hashlib
import os
import shutil

import numpy as np
import pytest

from sactory import init_run, takeover, trainer_checkpoints
from sactory.errors import UserError
from sactory.fork import Origin
from sactory.metrics import read_log
from sactory.progress import Book, report
from sactory.run_dir import RunDir, read_json, write_json
from sactory.sealed import seal
from tests.trainer_rig import ENV, Rig, make_run, stand_ins  # noqa: F401  (a fixture)

pytestmark = pytest.mark.timeout(120)


def add_checkpoint(run_dir, train_step, env_steps, incarnation=2):
    """A checkpoint whose weights are a few bytes."""
    path = run_dir.trainer_checkpoints / trainer_checkpoints.directory_name(train_step)
    path.mkdir(parents=True)
    (path / "weights.index").write_bytes(b"index %d" % train_step)
    (path / "weights.data-00000-of-00001").write_bytes(b"data")
    book = Book()
    book.add(report(0, 17, env_steps, env_steps))
    counters = {"train_step": train_step, "env_steps": env_steps, "book": book.to_json()}
    trainer_checkpoints.seal(path, {**counters, "elapsed": 99.0, "incarnation": incarnation})
    write_json(run_dir.trainer_checkpoints / "incarnation.json", {"count": 5})
    return path


def add_replay(run_dir, name, sequence, rows=b"rows"):
    path = run_dir.replay_history / name
    path.mkdir(parents=True)
    contents = {"items.tfrecord": rows, "DONE": b""}
    for file, data in contents.items():
        (path / file).write_bytes(data)
    files = {
        file: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for file, data in contents.items()
    }
    write_json(path / "manifest.json", {"format": 1, "sequence": sequence, "files": files})
    return path


@pytest.fixture
def old(tmp_path):
    """A run with three checkpoints."""
    run_dir = make_run(tmp_path / "old")
    for train_step, env_steps in ((100, 1_000), (200, 2_000), (300, 3_000)):
        add_checkpoint(run_dir, train_step, env_steps)
    return run_dir


def fork(old, name, *overrides, step=None, parts=None):
    new = RunDir(old.root.parent / name)
    origin = Origin.parse(str(old), step, parts)
    init_run.init(new, old.config, overrides, origin)
    return new


def refuse(old, *overrides, **kwargs):
    """The message of a refused fork, which must leave nothing behind."""
    with pytest.raises(UserError) as caught:
        fork(old, "refused", *overrides, **kwargs)
    assert not (old.root.parent / "refused").exists() and "\n" not in str(caught.value)
    assert not list(old.root.parent.glob(".tmp-*"))
    return str(caught.value)


@pytest.mark.parametrize(("step", "taken"), [(None, 300), (200, 200)])
def test_a_fork_goes_on_from_a_checkpoint(old, step, taken):
    write_json(old.status("train"), {"book": {"0:99": {"rows": 9_000}}, "env_steps": 9_000})
    old.diverged.write_text("{}")
    new = fork(old, "new", "train.SacAgent.tau = 0.01", step=step)
    path = new.trainer_checkpoints / trainer_checkpoints.directory_name(taken)
    state = trainer_checkpoints.read(path)["state"]
    assert (path / "weights.index").read_bytes() == b"index %d" % taken
    assert state["env_steps"] == 10 * taken and Book.from_json(state["book"]).rows == 10 * taken
    assert state["elapsed"] == 0.0  # run.max_hours is the fork's own
    assert trainer_checkpoints.find(new.trainer_checkpoints) == [path]
    assert read_json(new.trainer_checkpoints / "incarnation.json") == {"count": 5}
    record = read_json(new.provenance)["forked_from"]
    assert record == {
        "run_dir": str(old),
        "run_id": old.run_id,
        "with": ["weights"],
        "train_step": taken,
        "env_steps": 10 * taken,
    }
    assert new.run_id != old.run_id
    assert not new.diverged.exists() and not new.status("train").exists()
    assert "train.SacAgent.tau = 0.01" in new.config.read_text()
    # The same again changes nothing; another origin or step is refused.
    before = new.provenance.read_bytes()
    assert (
        fork(old, "new", "train.SacAgent.tau = 0.01", step=step).provenance.read_bytes() == before
    )
    with pytest.raises(UserError, match=r"holds a run already, a fork of .*old"):
        fork(old, "new", "train.SacAgent.tau = 0.01", step=100)
    with pytest.raises(UserError, match="holds a run already, no fork"):
        init_run.init(old, old.config, (), Origin.parse(str(new), None, None))


def test_a_fork_of_a_fork_names_both(old):
    first = fork(old, "first", step=100)
    second = fork(first, "second")
    record = read_json(second.provenance)["forked_from"]
    assert record["run_id"] == first.run_id and record["train_step"] == 100
    assert record["forked_from"]["run_id"] == old.run_id


def test_a_step_that_does_not_exist_lists_those_that_do(old):
    said = refuse(old, step=250)
    assert "--step=250 is no checkpoint of" in said
    assert "there are 100 (1000 env steps), 200 (2000 env steps), 300 (3000 env steps)" in said


def test_damaged_checkpoints(old, capsys):
    newest = old.trainer_checkpoints / trainer_checkpoints.directory_name(300)
    (newest / "weights.index").write_bytes(b"")
    said = refuse(old, step=300)
    assert f"{newest} is damaged: its weights.index has changed" in said
    assert "there are 100 (1000 env steps), 200 (2000 env steps)" in said and "300 (" not in said
    new = fork(old, "new")
    assert read_json(new.provenance)["forked_from"]["train_step"] == 200
    assert "an older one is taken" in capsys.readouterr().out
    for path in trainer_checkpoints.find(old.trainer_checkpoints):
        (path / "state.json").unlink()
    assert "is damaged: its state.json is missing" in refuse(old)
    shutil.rmtree(old.trainer_checkpoints)
    assert "it has no checkpoint of the trainer yet" in refuse(old)


@pytest.mark.parametrize(
    ("overrides", "parts", "message"),
    [
        (["train.SacAgent.hidden_sizes = (8,)"], None, "hidden_sizes = (8,) (there (16,))"),
        (["train.SacAgent.critic_hidden_sizes = (8,)"], None, "critic_hidden_sizes = (8,)"),
        (["train.SacAgent.num_critics = 3"], None, "train.SacAgent.num_critics = 3 (there 1)"),
        (
            ["envs.load.task_kwargs = {'dtype': 'float16'}"],
            None,
            "observation is float16 [3] (there float32 [3])",
        ),
        (["run.max_env_steps = 3_000"], None, "run.max_env_steps = 3000 leaves nothing to do"),
        (["replay.n_step = 3"], "replay", "replay.n_step = 3 (there 1)"),
        (["replay.gamma = 0.9"], "replay,weights", "replay.gamma = 0.9 (there 0.99)"),
        ([], "replay", "has no whole checkpoint of its replay yet"),
        ([], "everything", "--with=everything must be weights, replay or replay,weights"),
    ],
)
def test_what_would_not_fit_is_refused(old, overrides, parts, message):
    assert message in refuse(old, *overrides, parts=parts)


def test_settings_that_fit_are_taken(old):
    # The same sizes in other words, and what only weights are indifferent to.
    chosen = ["train.SacAgent.critic_hidden_sizes = (16,)", "replay.n_step = 3", "run.seed = 9"]
    assert fork(old, "new", *chosen).is_frozen


def test_the_replay_is_linked_whole(old):
    add_replay(old, "2026-01-02", 1)
    newest = add_replay(old, "2026-01-01", 2)  # the clock was set back: the sequence counts
    broken = add_replay(old, "2026-01-03", 3)
    (broken / "items.tfrecord").write_bytes(b"sow!")
    new = fork(old, "new", parts="weights,replay")
    (copy,) = new.replay_history.iterdir()
    assert copy.name == newest.name
    assert os.path.samefile(copy / "items.tfrecord", newest / "items.tfrecord")
    assert sorted(os.listdir(copy)) == ["DONE", "items.tfrecord", "manifest.json"]
    record = read_json(new.provenance)["forked_from"]
    assert record["with"] == ["weights", "replay"] and record["replay"] == newest.name
    alone = fork(old, "alone", parts="replay")
    assert trainer_checkpoints.find(alone.trainer_checkpoints) == []
    assert read_json(alone.trainer_checkpoints / "incarnation.json") == {"count": 5}


def test_without_links_the_replay_is_copied(old, monkeypatch):
    def other_file_system(source, target):
        raise OSError(18, "Invalid cross-device link")

    add_replay(old, "2026-01-01", 1)
    monkeypatch.setattr(os, "link", other_file_system)
    new = fork(old, "new", parts="replay")
    assert (new.replay_history / "2026-01-01/items.tfrecord").read_bytes() == b"rows"


def test_a_running_run_prunes_while_it_is_copied(old, monkeypatch):
    copytree, pruned = shutil.copytree, []

    def pruning(source, target, **kwargs):
        if not pruned:  # the trainer makes room for a newer one just now
            pruned.append(source)
            shutil.rmtree(source)
            add_checkpoint(old, 400, 4_000)
        return copytree(source, target, **kwargs)

    monkeypatch.setattr(takeover.shutil, "copytree", pruning)
    new = fork(old, "new")
    assert read_json(new.provenance)["forked_from"]["train_step"] == 400
    pruned.clear()
    assert "--step=200 is no checkpoint" in refuse(old, step=200)


def test_a_run_of_another_format_is_refused(old, monkeypatch):
    monkeypatch.setattr(trainer_checkpoints, "FORMAT", 9)
    assert "has format 2, this Sactory reads 9" in refuse(old)
    monkeypatch.undo()
    record = read_json(old.provenance)
    write_json(old.provenance, {**record, "format": 9, "sactory": "7.0"})
    assert "provenance.json has format 9, this Sactory reads 1 (Sactory 7.0" in refuse(old)


def test_the_command_line(old, tmp_path, capsys):
    def init(*words):
        return init_run.main([str(word) for word in words])

    new = tmp_path / "new"
    assert init("--from", old, "--step", 200, "--run_dir", new, "--set", "run.seed = 7") == 0
    assert f"{new} is ready, start it with\n  sactory run --run_dir {new}\n" in (
        capsys.readouterr().out
    )
    assert init("--from", old, "--step", 200, "--run_dir", new, "--set", "run.seed = 7") == 0
    assert "nothing to do" in capsys.readouterr().out
    for words, message in (
        ([], "--config is missing"),
        (["--step", 3, "--config", old.config], "--step needs --from"),
        (["--from", old], "--from needs --run_dir"),
        (["--from", old, "--run_dir", old], "are the same run"),
        (["--from", tmp_path / "nowhere", "--run_dir", new], "there is no"),
        (["--from", old, "--run_dir", new, "--with", "replay", "--step", 3], "takes none"),
    ):
        with pytest.raises(UserError, match=message):
            init(*words)


def test_the_trainer_of_a_fork_starts_where_the_other_stood(tmp_path, stand_ins):  # noqa: F811
    first = Rig(make_run(tmp_path / "first"))
    try:
        start = first.start()
        start.learner.book.add(report(0, 1, 400, 400))
        start.learner._agent.train_step_counter.assign(80)
        start.learner._train_step = 80
        start.run(0)
        # It goes on for a while and beats: a fork must not hear of that.
        write_json(
            first.run_dir.status("train"), {"book": seal(Book().to_json()), "incarnation": 1}
        )
        later = first.start()
        later.learner.book.add(report(0, 1, 900, 900))
        later.learner._heartbeat.update(**later.learner._counters())
    finally:
        first.close()
    origin = Origin.parse(str(first.run_dir), None, None)
    second = Rig(make_run(tmp_path / "second", "run.seed = 2", origin=origin))
    try:
        forked = second.start()
        for was, now in zip(start.variables, forked.variables):
            np.testing.assert_array_equal(was, now)
        learner = forked.learner
        assert (learner.book.env_steps, learner._train_step) == (400, 80)
        assert learner._incarnation == 3  # its weights supersede the other run's
        forked.run(0)
    finally:
        second.close()
    (event,) = read_log(second.run_dir.train_log)
    assert (event["event"], event["step"], event["train_step"]) == ("fork", 400, 80)
    assert event["run_dir"] == str(first.run_dir)


def test_the_environment_is_found_from_anywhere(old, tmp_path, monkeypatch):
    assert ENV in old.config.read_text()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert fork(old, "new").is_frozen
