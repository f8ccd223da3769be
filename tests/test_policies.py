"""Exports: whole or absent, readable by TF-Agents, found, kept and pruned by the rules."""

from __future__ import annotations

import errno
import gc
import json
import os
import shutil
import subprocess
import threading
import tracemalloc

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from tf_agents.policies import py_tf_eager_policy
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import time_step as ts

from sactory import damaged_exports, disk, policies, retention, sealed, settings
from sactory.actor import Actor
from sactory.errors import UserError
from sactory.json_lines import JsonLines
from sactory.policies import CorruptExport
from sactory.run_dir import RunDir, write_json
from train import export as export_lib
from train.agent import SacAgent
from train.export import Exporter

FLAT = tf.TensorSpec([3], tf.float32)
# Neither sorted nor of one shape: the order of the inputs must not be left to chance.
SENSORS = {"touch": tf.TensorSpec([2], tf.float32), "arm": tf.TensorSpec([2, 2], tf.float32)}
ACTION = tensor_spec.BoundedTensorSpec([2], tf.float32, [-1.0, 0.0], [1.0, 4.0])
pytestmark = pytest.mark.timeout(180)


def make_agent(observation=FLAT):
    spec = ts.time_step_spec(observation)
    return SacAgent(spec, ACTION, settings.SacAgent(hidden_sizes=(8, 8)), seed=3)


@pytest.fixture(scope="module")
def agent():
    return make_agent()


@pytest.fixture
def run_dir(tmp_path):
    return RunDir(tmp_path / "run")


@pytest.fixture(scope="module")
def exported(tmp_path_factory, agent):
    """A run with one export of the agent."""
    run_dir = RunDir(tmp_path_factory.mktemp("exported"))
    exporter = Exporter(run_dir, agent, settings.Run(), lambda: {"curriculum": {"version": 3}})
    exporter.export(agent.policy_vector(), 2000, 1900, 1)
    assert exporter.wait(60) and exporter.error is None
    assert exporter.close(10)
    return run_dir


def one(run_dir, kind):
    (export,) = policies.list_exports(run_dir, kind)
    return export


def test_an_export_tells_what_was_true_when_it_was_made(exported):
    for kind in policies.KINDS:
        meta = policies.read_meta(one(exported, kind).path)
        assert (meta["env_steps"], meta["curriculum"]) == (2000, {"version": 3})


def fake(run_dir, *exports):
    """Exports of both kinds without their SavedModels."""
    for numbers in exports:
        for kind in policies.KINDS:
            directory = run_dir.policies(kind) / policies.export_name(*numbers)
            write_json(directory / policies.META, {})


def score(run_dir, *rows):
    log = JsonLines(run_dir.eval_log)
    for numbers, value in rows:
        log.append({"export": policies.export_name(*numbers), "episode_reward": value})
    log.close()


def steps(run_dir, kind="greedy"):
    return [e.env_steps for e in policies.list_exports(run_dir, kind)]


NUMBERS = st.tuples(st.integers(0, 10**12 - 1), st.integers(0, 10**12 - 1), st.integers(0, 999))


@given(st.lists(NUMBERS, unique=True))
def test_names_sort_as_the_numbers_and_read_back(numbers):
    names = [policies.export_name(*n) for n in numbers]
    assert sorted(names) == [policies.export_name(*n) for n in sorted(numbers)]
    for name, n in zip(names, numbers):
        export = policies.parse_name(RunDir("r").policies("greedy") / name)
        assert export is not None and (*n, name) == (
            export.env_steps,
            export.train_step,
            export.incarnation,
            export.name,
        )


def test_export_is_whole(exported, agent):
    for kind in policies.KINDS:
        export = one(exported, kind)
        assert export.name == export.path.name == "000000002000-000000001900-000001"
        files = {p.name for p in export.path.iterdir()}
        assert files >= {"saved_model.pb", "variables", "policy_specs.pbtxt", "meta.json"}
        meta = json.loads((export.path / "meta.json").read_text())
        assert [meta[k] for k in ("format", "kind", "env_steps", "train_step", "incarnation")] == [
            2,
            kind,
            2000,
            1900,
            1,
        ]
        assert sum(np.prod(v["shape"]) for v in meta["variables"]) == agent.policy_vector().size
        assert [p.name for p in export.path.parent.iterdir()] == [export.name]  # nothing temporary


@pytest.mark.parametrize("kind", policies.KINDS)
def test_tf_agents_own_class_loads_it(exported, agent, kind):
    path = one(exported, kind).path
    theirs = py_tf_eager_policy.SavedModelPyTFEagerPolicy(str(path), load_specs_from_pbtxt=True)
    assert theirs.get_train_step() == 1900
    observation = np.array([0.3, -0.2, 0.9], np.float32)
    action = theirs.action(ts.restart(observation)).action
    assert action.shape == (2,) and np.all(action >= [-1, 0]) and np.all(action <= [1, 4])
    if kind == policies.GREEDY:
        ours = Actor(path).act(observation[None])[0]
        expected = agent.policy.action(ts.restart(observation[None], 1)).action[0]
        np.testing.assert_allclose(action, ours, rtol=1e-6)
        np.testing.assert_allclose(ours, expected, rtol=1e-6)
    else:
        again = [theirs.action(ts.restart(observation)).action for _ in range(3)]
        assert len({tuple(a) for a in again}) == 3  # it explores


def test_noise_is_a_function_of_seed_and_call(exported, agent):
    path = one(exported, policies.COLLECT).path
    observation = np.zeros((4, 3), np.float32)
    first, same, other = Actor(path, seed=5), Actor(path, seed=5), Actor(path, seed=6)
    calls = [first.act(observation) for _ in range(3)]
    np.testing.assert_array_equal(calls, [same.act(observation) for _ in range(3)])
    assert not np.array_equal(calls[0], other.act(observation))
    rows = {tuple(row) for call in calls for row in call}
    assert len(rows) == 12  # every environment and every call has noise of its own
    np.testing.assert_allclose(
        first.act(observation, seed=(7, 9)),
        agent.collect_policy.act(tf.constant(observation), tf.constant([7, 9])),
        rtol=1e-5,
    )


def test_batches_of_several_sizes_take_turns(exported, agent):
    """Inputs and actions stay in memory of their own for each size."""
    actor = Actor(one(exported, policies.GREEDY).path)
    rng = np.random.default_rng(0)
    batches = [rng.normal(size=(size, 3)).astype(np.float32) for size in (4, 1, 4, 2, 1)]
    actions = [actor.act(batch) for batch in batches]  # no call overwrites another's
    for batch, got in zip(batches, actions):
        expected = agent.policy.action(ts.restart(batch, len(batch))).action
        np.testing.assert_allclose(got, expected, rtol=1e-5)
    with pytest.raises(tf.errors.InvalidArgumentError):
        actor.act(np.zeros((2, 5), np.float32))


def test_weights_can_be_swapped(exported):
    actor = Actor(one(exported, policies.GREEDY).path)
    vector = actor.variables_vector()
    observation = np.ones((2, 3), np.float32)
    before = actor.act(observation)
    actor.assign(vector * 2, train_step=77)
    assert actor.train_step == 77
    assert not np.allclose(before, actor.act(observation))
    np.testing.assert_array_equal(actor.variables_vector(), vector * 2)
    actor.assign(vector)
    np.testing.assert_array_equal(before, actor.act(observation))
    with pytest.raises(ValueError, match="shape"):
        actor.assign(vector[:-1])


def test_sensors_reach_their_own_inputs(run_dir):
    agent = make_agent(SENSORS)
    exporter = Exporter(run_dir, agent, settings.Run())
    exporter.export(agent.policy_vector(), 0, 0, 1)
    assert exporter.wait(60) and exporter.error is None
    rng = np.random.default_rng(0)
    touch, arm = np.float32(rng.normal(size=(5, 2))), np.float32(rng.normal(size=(5, 2, 2)))
    actor = Actor(one(run_dir, policies.GREEDY).path)
    expected = agent.policy.act({"touch": touch, "arm": arm}, tf.constant([0, 0]))
    for observation in ({"touch": touch, "arm": arm}, {"arm": arm, "touch": touch}):
        np.testing.assert_allclose(actor.act(observation), expected, rtol=1e-5)
    assert exporter.close(10)


def cut_weights(path):
    data = path / "variables" / "variables.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:-40])


def flip_bit(path):
    file = path / "saved_model.pb"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))


def edit_specs(path):
    """Nothing that TensorFlow itself would notice."""
    with (path / "policy_specs.pbtxt").open("a") as f:
        f.write("\n")


def lose_graph(path):
    (path / "saved_model.pb").unlink()


def cut_meta(path):
    (path / "meta.json").write_text('{"format": 2, "fi')


def edit_meta(path, old, new):
    text = (path / "meta.json").read_text()
    assert text.count(old) == 1
    (path / "meta.json").write_text(text.replace(old, new))


def misspell_files(path):
    edit_meta(path, '"files"', '"giles"')


def flip_format(path):
    edit_meta(path, '"format": 2', '"format": 3')


def flip_format_back(path):
    edit_meta(path, '"format": 2', '"format": 1')


def no_train_step(path):
    edit_meta(path, '"train_step": 1900', '"train_step": null')


def meta_is_a_directory(path):
    (path / "meta.json").unlink()
    (path / "meta.json").mkdir()


@pytest.mark.parametrize(
    "damage",
    [
        *(cut_weights, flip_bit, edit_specs, lose_graph, cut_meta),
        *(misspell_files, flip_format, flip_format_back, no_train_step, meta_is_a_directory),
    ],
)
def test_a_corrupt_export_is_named(run_dir, exported, damage):
    source = one(exported, policies.GREEDY).path
    path = run_dir.policies("greedy") / source.name
    copy_tree(source, path)
    Actor(path)  # the copy is sound
    damage(path)
    with pytest.raises(CorruptExport, match=str(path)) as caught:
        Actor(path)
    assert "corrupt" in str(caught.value) and isinstance(caught.value, UserError)


def copy_tree(source, path):
    path.parent.mkdir(parents=True)
    shutil.copytree(source, path)


def test_an_export_that_others_can_write_to_is_not_loaded(public_place, exported):
    path = public_place / "export"
    shutil.copytree(one(exported, policies.GREEDY).path, path)
    subprocess.run(["chmod", "-R", "u=rwX,go=rX", path], check=True)
    policies.read_meta(path)
    for part, mode in (
        (path / "saved_model.pb", 0o664),
        (path / "variables", 0o777),
        (path, 0o775),
    ):
        before = part.stat().st_mode
        part.chmod(mode)
        with pytest.raises(UserError, match=f"others can write to {part}") as e:
            Actor(path)
        assert "\n" not in str(e.value)
        public_place.chmod(0o700)  # nobody else gets in: it doesn't matter
        policies.read_meta(path)
        public_place.chmod(0o755)
        part.chmod(before)
    if os.getuid() == 0:
        os.chown(path / policies.META, 65534, 65534)
        with pytest.raises(UserError, match=r"meta\.json belongs to user 65534"):
            Actor(path)


@pytest.mark.parametrize("meta", [sealed.seal({"format": 99}), {"format": 1, "files": {}}])
def test_an_export_of_another_format_is_refused(run_dir, meta):
    """Whole by its digest, or from before there were any."""
    fake(run_dir, (0, 0, 1))
    write_json(one(run_dir, "greedy").path / policies.META, meta)
    with pytest.raises(UserError, match=f"has format {meta['format']}, this Sactory reads 2") as e:
        Actor(one(run_dir, "greedy").path)
    assert not isinstance(e.value, CorruptExport) and "\n" not in str(e.value)


def test_find_export(run_dir):
    with pytest.raises(UserError, match="no exported policy yet"):
        policies.find_export(run_dir, "latest")
    fake(run_dir, (1000, 900, 1), (2000, 1900, 1), (3000, 2900, 1))
    (run_dir.policies("greedy") / ".tmp-abc").mkdir()
    (run_dir.policies("greedy") / "000000009000-000000009000-000001").mkdir()  # has no meta.json
    find = policies.find_export
    assert find(run_dir, "latest").env_steps == 3000
    assert find(run_dir, "2999").env_steps == 2000
    assert find(run_dir, "3000").env_steps == 3000
    assert find(run_dir, "99999").env_steps == 3000
    with pytest.raises(UserError, match="1000, 2000, 3000"):
        find(run_dir, "999")
    for wrong in ("newest", "-5", "1e3"):
        with pytest.raises(UserError, match="neither latest, best nor a number"):
            find(run_dir, wrong)


def test_find_best(run_dir):
    fake(run_dir, (1000, 900, 1), (2000, 1900, 1), (3000, 2900, 1))
    with pytest.raises(UserError, match="no score"):
        policies.find_export(run_dir, "best")
    score(run_dir, ((500, 400, 1), 99.0), ((1000, 900, 1), 7.0), ((2000, 1900, 1), 8.0))
    score(run_dir, ((3000, 2900, 1), None))  # its score was not finite
    assert policies.find_export(run_dir, "best").env_steps == 2000


def test_overtaken_exports(run_dir):
    fake(run_dir, (1000, 900, 1), (2000, 1900, 1), (2500, 2400, 2), (2600, 2000, 3))
    marked = policies.mark_overtaken(run_dir, train_step=1900, incarnation=3)
    assert marked == [policies.export_name(2500, 2400, 2)]
    assert policies.mark_overtaken(run_dir, 1900, 3) == []
    for kind in policies.KINDS:
        flags = [e.is_overtaken for e in policies.list_exports(run_dir, kind)]
        assert flags == [False, False, True, False]
    assert policies.find_export(run_dir, "2599").env_steps == 2000
    policies.mark_overtaken(run_dir, 0, 4)
    latest = policies.latest_export(run_dir)  # better an overtaken one than none
    assert latest is not None and latest.env_steps == 2600


def test_prune_keeps_newest_spaced_best_and_unscored(run_dir):
    numbers = [(n * 1000, n * 900, 1) for n in range(10)]
    fake(run_dir, *numbers)
    score(run_dir, *((n, float(n[0] == 3000)) for n in numbers if n[0] != 6000))
    retention.apply(run_dir, settings.Run(keep_exports=2, keep_exports_every_env_steps=5000))
    kept = [0, 3000, 5000, 6000, 8000, 9000]  # 0 and 5000 by stretch, 3000 best, 6000 unscored
    assert steps(run_dir) == steps(run_dir, "collect") == kept
    score(run_dir, ((6000, 5400, 1), 0.0))
    retention.apply(run_dir, settings.Run(keep_exports=2, keep_exports_every_env_steps=5000))
    assert steps(run_dir) == [0, 3000, 5000, 8000, 9000]
    assert [p.name for p in run_dir.policies("greedy").iterdir() if p.name[0] == "."] == []


def test_prune_drops_scored_overtaken_exports(run_dir):
    fake(run_dir, (1000, 900, 1), (2000, 1900, 1), (2100, 2000, 1), (2200, 1000, 2))
    policies.mark_overtaken(run_dir, 950, 2)
    score(run_dir, ((1000, 900, 1), 1.0), ((2000, 1900, 1), 2.0), ((2200, 1000, 2), 1.0))
    retention.apply(run_dir, settings.Run())
    assert steps(run_dir) == [1000, 2100, 2200]  # 2100 is overtaken too, but not scored yet


def test_prune_drops_the_collect_half_of_a_damaged_export(run_dir):
    numbers = [(n * 1000, n * 900, 1) for n in range(5)]
    fake(run_dir, *numbers)
    score(run_dir, *((n, float(n[0] == 0)) for n in numbers if n[0] != 1000))
    export = policies.list_exports(run_dir)[1]
    (note,) = damaged_exports.set_aside(run_dir, export, CorruptExport("nonsense"))
    assert "nonsense" in note and export.name in note
    retention.apply(run_dir, settings.Run(keep_exports=2, keep_exports_every_env_steps=10_000))
    assert steps(run_dir) == steps(run_dir, "collect") == [0, 3000, 4000]
    assert any(item.kind == "quarantine" for item in disk.inventory(run_dir))


def test_the_caller_never_waits_for_the_disk(run_dir, agent, monkeypatch):
    entered, released = threading.Event(), threading.Event()
    write = export_lib._Template.write

    def hang(self, snapshot, directory):
        entered.set()
        assert released.wait(60)
        write(self, snapshot, directory)

    monkeypatch.setattr(export_lib._Template, "write", hang)
    monkeypatch.setattr(export_lib, "MAX_QUEUED", 3)
    exporter = Exporter(run_dir, agent, settings.Run())
    vector = agent.policy_vector()
    exporter.export(vector, 0, 0, 1)
    assert entered.wait(60)
    for n in range(1, 6):  # would dead-lock here if it waited
        exporter.export(vector, n, n, 1)
    vector[:] = np.nan  # the learner goes on with its own array
    assert not exporter.wait(0.01)
    released.set()
    assert exporter.close(60) and exporter.error is None
    assert exporter.skipped == 2
    assert steps(run_dir) == [0, 3, 4, 5]
    assert np.isfinite(Actor(one_at(run_dir, 5)).variables_vector()).all()


def one_at(run_dir, env_steps):
    return policies.find_export(run_dir, str(env_steps)).path


def test_a_full_disk_leaves_no_part_and_the_next_export_succeeds(run_dir, agent, monkeypatch):
    run_dir.policies("greedy").mkdir(parents=True)
    (run_dir.policies("greedy") / ".tmp-killed").mkdir()  # what a killed trainer left
    exporter = Exporter(run_dir, agent, settings.Run())
    write = export_lib._Template.write

    def full(self, snapshot, directory):
        if snapshot.env_steps == 0 and self.kind == policies.COLLECT:
            (directory / "saved_model.pb").write_bytes(b"part")
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, snapshot, directory)

    monkeypatch.setattr(export_lib._Template, "write", full)
    exporter.export(agent.policy_vector(), 0, 0, 1)
    assert exporter.wait(60)
    assert exporter.error is not None and "No space left" in exporter.error
    assert exporter.written == [] and steps(run_dir, "collect") == []
    exporter.export(agent.policy_vector(), 10, 9, 1)
    assert exporter.close(60)
    assert exporter.error is None and exporter.written == [policies.export_name(10, 9, 1)]
    for kind in policies.KINDS:
        assert not list(run_dir.policies(kind).glob(".tmp-*"))


def test_diverged_or_foreign_weights_are_never_exported(run_dir, agent):
    exporter = Exporter(run_dir, agent, settings.Run())
    vector = agent.policy_vector()
    with pytest.raises(ValueError, match="shape"):
        exporter.export(vector[1:], 0, 0, 1)
    vector[3] = np.inf
    with pytest.raises(ValueError, match="not finite"):
        exporter.export(vector, 0, 0, 1)
    assert exporter.close(10) and steps(run_dir) == []


def test_each_export_holds_its_own_weights_and_old_ones_are_pruned(run_dir, agent):
    run = settings.Run(keep_exports=2, keep_exports_every_env_steps=1000)
    exporter = Exporter(run_dir, agent, run)
    vector = agent.policy_vector()
    for n in range(4):
        score(run_dir, ((100 * n, n, 1), float(-n)))
        exporter.export(vector * n, 100 * n, n, 1)
    assert exporter.close(60) and exporter.error is None
    assert steps(run_dir) == [0, 200, 300]  # 0 is the best and the first of its stretch
    for n in (0, 2, 3):
        actor = Actor(one_at(run_dir, 100 * n))
        assert actor.train_step == n
        np.testing.assert_array_equal(actor.variables_vector(), vector * n)
    for n in (0, 3, 2):  # one actor takes the weights of each
        actor.load(one_at(run_dir, 100 * n))
        assert actor.train_step == n == actor.meta["train_step"]
        np.testing.assert_array_equal(actor.variables_vector(), vector * n)
    weights = one_at(run_dir, 300) / "variables" / "variables.data-00000-of-00001"
    weights.write_bytes(weights.read_bytes()[:-40])
    with pytest.raises(CorruptExport, match="has changed"):
        actor.load(one_at(run_dir, 300))


def test_acting_loses_no_memory(exported):
    """An eager tensor costs 48 bytes for good under Python 3.11."""
    actor, observation = Actor(one(exported, policies.COLLECT).path), np.ones((2, 3), np.float32)
    actor.act(observation)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(500):
            actor.act(observation)
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 500 * 24
