"""A curriculum in the programs of a run: decided in one place, applied by all, never forgotten."""

from __future__ import annotations

import json

import numpy as np
import pytest

from eval.parameters import CurriculumParameters
from sactory import client as client_lib
from sactory import config, metrics, progress, sealed, supervision, tables
from sactory import trainer_checkpoints as on_disk
from sactory.curriculum import State, parse
from sactory.curriculum.evaluations import Evaluations
from sactory.curriculum.state import Played
from sactory.metrics import read_log
from tests.lesson_env import LENGTH, make
from tests.test_curriculum_binding import ENV
from tests.trainer_rig import Rig, make_run, stand_ins  # noqa: F401  (a fixture)
from train.learner import Learner

pytestmark = pytest.mark.timeout(180)

UNTIL = {"measure": "success_rate", "op": ">=", "threshold": 0.5, "min_episodes": 4}
STAGES = [
    {"name": "low", "value": 1.0, "until": UNTIL},
    {"name": "middle", "value": 2.0, "until": UNTIL},
    {"name": "high", "value": {"type": "uniform", "low": 3.0, "high": 4.0}},
]
BLOCK = {
    "params": {
        "level": {"type": "stages", "stages": STAGES},
        "slots": {"iters": [10], "range": [7, 7]},
        "friction": {
            "type": "adr", "init": [0.5, 0.5], "limits": [0.0, 1.0], "delta": 0.1,
            "boundary_p": 0.5, "queue": 2, "low": 0.2, "high": 0.8, "measure": "peak_force",
        },
    }
}  # fmt: skip


def curriculum_run(tmp_path, block=BLOCK, *overrides):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"curriculum": block}))
    chosen = (ENV, f"envs.load.curriculum = '{path}'", *overrides)
    return make_run(tmp_path / "run", *chosen)


@pytest.fixture
def rig(tmp_path, stand_ins):  # noqa: F811
    rig = Rig(curriculum_run(tmp_path))
    yield rig
    rig.close()


class Collector:
    """What a collector sends: its episodes, at whatever state it has."""

    def __init__(self, rig, worker=0):
        self.client, self.worker, self.episodes = rig.client, worker, []

    def plays(self, state, count, success=1.0, **metrics_of_all):
        for _ in range(count):
            played = Played(state.incarnation, state.version, None, metrics_of_all)
            episode = progress.Episode(len(self.episodes), 5.0, LENGTH, 0.1, success, played)
            self.episodes.append(episode)
        steps = LENGTH * len(self.episodes)
        record = progress.report(self.worker, 1, steps, steps, self.episodes[-count:])
        client_lib.put_json(self.client, tables.PROGRESS, record)


def heard(rig):
    """What a collector that looks now hears of the curriculum."""
    infos = client_lib.table_infos(rig.client)
    (message,) = client_lib.take_json(rig.client, tables.STATE, infos)
    return progress.RunState.from_json(message).curriculum


def published(rig):
    state = heard(rig)
    assert state is not None
    return state


def crash(start):
    """The trainer is gone from one instruction to the next; nothing is saved."""
    start.end()
    start.learner._heartbeat.close()


def test_the_trainer_decides_by_reports_and_publishes_logs_and_keeps_it(rig):
    learner: Learner = rig.start().learner
    first = published(rig)
    assert (first.version, first.lessons["level"], first.incarnation) == (0, "low", 1)
    collector = Collector(rig)
    collector.plays(first, 3)
    learner._publisher.round()
    assert published(rig).lessons["level"] == "low"
    collector.plays(first, 3)  # the fifth and sixth are late: the fourth has moved the lesson
    learner._publisher.round()
    now = published(rig)
    assert (now.version, now.lessons["level"], now.env_steps) == (1, "middle", 6 * LENGTH)
    kept = sealed.read_file(rig.run_dir.curriculum_state, 1)
    assert kept["state"]["lessons"] == {"level": "middle"} and kept["late_reports"] == 2
    assert kept["parameters"]["level"] == "2.0" and kept["parameters"]["slots"] == "default"
    learner._log_episodes()
    learner._journal.close()
    rows = read_log(rig.run_dir.train_log)
    (event,) = [row for row in rows if row.get("event") == "curriculum"]
    assert event["changes"] == ["level: lesson low -> middle"] and event["version"] == 1
    assert [row["curriculum_version"] for row in rows if "event" not in row] == [0] * 6
    assert learner._journal._writer.unregistered == set()
    shown = b"".join(p.read_bytes() for p in rig.run_dir.tensorboard("train").iterdir())
    for name in ("version", "difficulty", "level/low", "friction/mean", "late_reports"):
        assert b"Curriculum/" + name.encode() in shown
    assert b"Curriculum/slots" not in shown  # it has the environment's own value


@pytest.mark.parametrize("saved", [False, True])
def test_a_restart_resumes_the_same_lesson(rig, saved):
    learner = rig.start().learner
    Collector(rig).plays(published(rig), 4)
    learner._publisher.round()
    Collector(rig, 1).plays(published(rig), 3)
    learner._publisher.round()
    if saved:  # the checkpoint has counted what the file has not
        learner.save()
    crash(rig._starts[-1])
    learner = rig.start().learner
    again = published(rig)
    assert (again.version, again.lessons["level"], again.incarnation) == (1, "middle", 2)
    Collector(rig, 2).plays(State.from_json({**again.to_json(), "incarnation": 1}), 9)
    learner._publisher.round()
    assert published(rig).version == 1  # of the last life: what they were told is not known
    Collector(rig, 3).plays(again, 1 if saved else 4)
    learner._publisher.round()
    assert published(rig).lessons["level"] == "high"


def test_a_change_that_was_kept_but_not_logged_is_logged_by_the_next_start(rig):
    learner = rig.start().learner
    Collector(rig).plays(published(rig), 4)
    learner._publisher.round()
    crash(rig._starts[-1])
    learner._journal.close()
    rig.run_dir.train_log.unlink()  # the crash was faster than its disk
    for _ in range(2):  # once is enough
        learner = rig.start().learner
        learner._journal.close()
        crash(rig._starts[-1])
    events = [r for r in read_log(rig.run_dir.train_log) if r.get("event") == "curriculum"]
    assert [event["changes"] for event in events] == [["level: lesson low -> middle"]]
    assert events[0]["version"] == 1


def test_a_damaged_state_file_gives_way_to_the_checkpoint(rig, caplog):
    learner = rig.start().learner
    Collector(rig).plays(published(rig), 4)
    learner._publisher.round()
    learner.save()
    crash(rig._starts[-1])
    rig.run_dir.curriculum_state.write_text("{}")
    rig.start()
    assert published(rig).lessons["level"] == "middle"
    assert "goes on from the trainer's checkpoint" in caplog.text


def test_a_checkpoint_holds_the_curriculum_only_where_there_is_one(tmp_path, stand_ins):  # noqa: F811
    rig = Rig(make_run(tmp_path / "plain"))
    try:
        start = rig.start()
        assert start.run(1) == supervision.RETRY
        assert heard(rig) is None
    finally:
        rig.close()
    (checkpoint,) = on_disk.find(rig.run_dir.trainer_checkpoints)
    assert "curriculum" not in on_disk.read(checkpoint)["state"]
    assert not rig.run_dir.curriculum_state.exists()


def test_greedy_episodes_decide_where_the_file_asks_for_them(rig, tmp_path):
    stages = [{**STAGES[0], "until": {**UNTIL, "source": "eval"}}, STAGES[2]]
    block = {"params": {"level": {"type": "stages", "stages": stages}}}
    config.clear()
    (tmp_path / "second").mkdir()
    run_dir = curriculum_run(tmp_path / "second", block)
    mine = Rig(run_dir)
    try:
        learner = mine.start().learner
        state = published(mine)
        Collector(mine).plays(state, 9)  # training episodes don't count
        learner._publisher.round()
        assert published(mine).version == 0
        parameters = CurriculumParameters(parse({"curriculum": block}), make())
        parameters.follow({"curriculum": state.to_json()})
        infos = [{"success": 1.0}] * 4
        row = parameters.row(np.ones(4), np.full(4, LENGTH), infos)
        writer = metrics.MetricsWriter(run_dir.eval_log)
        writer.write("eval", {"episode_reward": 1.0, **row}, step=0)
        writer.close()
        learner._publisher.round()
        assert published(mine).lessons == {"level": "high"}
    finally:
        mine.close()


def test_evaluations_before_a_start_and_half_rows_are_left(tmp_path):
    log = tmp_path / "eval.log"
    report = {"incarnation": 1, "version": 0, "episode_return": 1.0, "length": 5, "success": 1.0}
    report.update(metrics={}, source="eval", probe=None)
    row = json.dumps({"reports": [report]}) + "\n"
    log.write_text(row)
    evaluations = Evaluations(log)
    with open(log, "a") as f:
        f.write("garbage\n[1]\n" + json.dumps({"reports": [{}]}) + "\n" + row + row[:20])
    assert len(evaluations.new()) == 1 and evaluations.new() == []
    with open(log, "a") as f:
        f.write(row[20:])
    assert [r.source for r in evaluations.new()] == ["eval"]
