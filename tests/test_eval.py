"""The evaluator: every export once and in order, fixed seeds, videos, and what the user sees."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
from tf_agents.environments import suite_dm_control, wrappers
from tf_agents.policies import py_tf_eager_policy

from eval import evaluator as evaluator_lib
from eval import main as eval_main
from eval import tensorboard
from eval.evaluator import Evaluator
from eval.service import Service
from eval.video import Film
from sactory import config, envs, init_run, metrics, policies, settings, supervision
from sactory.actor import Actor
from sactory.errors import UserError
from sactory.heartbeat import Heartbeat
from sactory.locks import hold_lock
from sactory.run_dir import RunDir, read_json, write_json
from sactory.specs import Specs, to_tf_agents
from train.agent import SacAgent
from train.export import Exporter

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.timeout(180)

# An episode of 8 to 11 rows of 2 env steps; the reward is 1 - |position - action|.
ENVIRONMENT = """
import numpy as np
from tf_agents.environments import py_environment
from tf_agents.specs import array_spec
from tf_agents.trajectories import time_step as ts


class Toy(py_environment.PyEnvironment):
    control_timestep = 0.02

    def __init__(self, films=True):
        super().__init__()
        self.films = films
        self.random = np.random.default_rng(0)

    def observation_spec(self):
        return array_spec.ArraySpec((2,), np.float32, "observation")

    def action_spec(self):
        return array_spec.BoundedArraySpec((1,), np.float32, -1, 1, "action")

    def seed(self, seed):
        self.random = np.random.default_rng(seed)

    def _reset(self):
        self.position = np.float32(self.random.uniform(-1, 1))
        self.left = int(self.random.integers(16, 23))
        self.solved = self.position > 0
        return ts.restart(self.observe())

    def _step(self, action):
        self.left -= 1
        reward = np.float32(1 - abs(self.position - action[0]))
        if self.left == 0:
            return ts.termination(self.observe(), reward)
        return ts.transition(self.observe(), reward)

    def observe(self):
        return np.array([self.position, self.left / 100], np.float32)

    def get_info(self):
        return {"success": self.solved}

    def render(self, mode="rgb_array"):
        if not self.films:
            raise NotImplementedError("blind")
        return np.full((48, 64, 3), 10 * self.left, np.uint8)


def load(films=True):
    return Toy(films)
"""


@pytest.fixture(scope="module")
def frozen(tmp_path_factory):
    """A run of the toy environment that init has frozen, with three exports."""
    root = tmp_path_factory.mktemp("eval")
    (root / "toy_of_eval.py").write_text(ENVIRONMENT)
    before = os.getcwd()
    os.chdir(root)
    try:
        run_dir = RunDir(root / "run")
        init_run.init(
            run_dir,
            ROOT / "configs" / "sac.gin",
            [
                "envs.load.name = 'python:toy_of_eval:load'",
                "envs.load.action_repeat = 2",
                "train.SacAgent.hidden_sizes = (8,)",
                "eval.Evaluator.num_eval_episodes = 4",
                "eval.Evaluator.video_every_env_steps = 2000",
                "replay.capacity = 20_000",
            ],
        )
    finally:
        os.chdir(before)
    config.load(run_dir)
    _, action_spec, time_step_spec = to_tf_agents(Specs.load(run_dir))
    agent = SacAgent(time_step_spec, action_spec, settings.SacAgent(), 1)
    exporter = Exporter(run_dir, agent)
    for n in range(3):
        exporter.export(agent.policy_vector() * n, 1000 * n, 900 * n, 1)
    assert exporter.close(60) and exporter.error is None
    config.clear()
    return run_dir


@pytest.fixture
def run_dir(frozen, tmp_path):
    """A copy of the frozen run, loaded; its numbers are gone from gin afterwards."""
    run_dir = RunDir(tmp_path / "run")
    shutil.copytree(frozen.root, run_dir.root)
    config.load(run_dir)
    yield run_dir
    config.clear()


def serve(run_dir, stop=None):
    """Runs the evaluator to its end in this thread."""
    stop = stop or supervision.Stop()
    return Service(run_dir, stop, Heartbeat(run_dir, "eval", interval=0.05)).run()


def finish(run_dir):
    write_json(run_dir.done, {"reason": "max_env_steps"})


def actor_of(run_dir, step):
    return Actor(policies.find_export(run_dir, step).path)


def frames(path):
    reader = imageio_ffmpeg.read_frames(str(path))
    meta = next(reader)
    return meta, [np.frombuffer(f, np.uint8).reshape(meta["size"][1], -1, 3) for f in reader]


def test_every_export_is_scored_once_and_in_order(run_dir, capfd):
    finish(run_dir)
    assert serve(run_dir) == supervision.OK
    rows = metrics.read_log(run_dir.eval_log)
    assert [row["step"] for row in rows] == [0, 1000, 2000]
    assert [row["train_step"] for row in rows] == [0, 900, 1800]
    assert [row["export"] for row in rows] == [e.name for e in policies.list_exports(run_dir)]
    for row in rows:
        without_curriculum = set(metrics.REGISTRY["eval"]) - {"difficulty", "curriculum_version"}
        assert set(row) == without_curriculum | {"export", "incarnation"}
        assert row["episodes"] == 4 and 16 <= row["episode_length"] <= 22
        assert 0 <= row["success"] <= 1
        assert row["episode_reward_min"] < row["episode_reward"] < row["episode_reward_max"]
    lines = [line for line in capfd.readouterr().out.splitlines() if line.startswith("| eval")]
    assert lines == [metrics.eval_line(row) for row in rows]
    assert lines[0].startswith("| eval | S: 0 | ER: ")
    assert list(run_dir.tensorboard("eval").glob("events.out.tfevents.*"))
    beat = read_json(run_dir.status("eval"))
    assert beat["state"] == "done" and beat["last_eval_return"] == rows[-1]["episode_reward"]


def test_a_restart_goes_on_where_it_stopped(run_dir, monkeypatch):
    """The first life is stopped within the second evaluation; no export is scored twice."""
    finish(run_dir)
    stop = supervision.Stop()
    score = Evaluator.score
    calls = []

    def stop_at_second(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            stop.request("SIGTERM", 15)
        return score(self, *args, **kwargs)

    monkeypatch.setattr(Evaluator, "score", stop_at_second)
    assert serve(run_dir, stop) == supervision.RETRY
    assert [row["step"] for row in metrics.read_log(run_dir.eval_log)] == [0]
    assert not run_dir.video(1000).exists()
    monkeypatch.undo()
    assert serve(run_dir) == supervision.OK
    assert [row["step"] for row in metrics.read_log(run_dir.eval_log)] == [0, 1000, 2000]
    assert serve(run_dir) == supervision.OK
    assert len(metrics.read_log(run_dir.eval_log)) == 3


def test_it_waits_for_exports_until_the_run_is_done(run_dir):
    greedy = run_dir.policies("greedy")
    held = run_dir.root / "held"
    last = policies.list_exports(run_dir)[-1]
    os.replace(last.path, held)
    codes = []
    thread = threading.Thread(target=lambda: codes.append(serve(run_dir)))
    thread.start()
    waiting = supervision.wait_for(
        lambda: (
            len(policies.scores(run_dir)) == 2
            and read_json(run_dir.status("eval"))["state"] == "waiting"
        ),
        threading.Event(),
        timeout=60,
    )
    assert waiting and thread.is_alive()
    os.replace(held, greedy / last.name)
    finish(run_dir)
    thread.join(60)
    assert codes == [supervision.OK]
    assert [row["step"] for row in metrics.read_log(run_dir.eval_log)] == [0, 1000, 2000]


def test_first_crossing_and_last_policies_are_filmed(run_dir):
    finish(run_dir)
    shutil.rmtree(policies.find_export(run_dir, "2000").path)  # 1000 becomes the last
    serve(run_dir)
    assert sorted(p.name for p in run_dir.videos.iterdir()) == ["0.mp4", "1000.mp4"]
    meta, images = frames(run_dir.video(0))
    assert meta["size"] == (64, 48) and meta["fps"] == 25 and meta["codec"] == "h264"
    # 0.02 s an env step: every second env step is a frame, from the first state to the last.
    brightness = [float(image.mean()) for image in images]
    left = round(brightness[0] / 10)
    np.testing.assert_allclose(brightness, [*range(10 * left, 0, -20), 0], atol=4)


def test_an_export_between_two_videos_is_not_filmed(run_dir):
    finish(run_dir)
    serve(run_dir)
    assert sorted(p.name for p in run_dir.videos.iterdir()) == ["0.mp4", "2000.mp4"]


def test_failing_rendering_is_one_warning(run_dir, monkeypatch, caplog):
    finish(run_dir)
    kwargs = {"films": False}
    with (run_dir.config).open("a") as f:
        f.write(f"\nenvs.load.task_kwargs = {kwargs}\neval.Evaluator.video_every_env_steps = 1\n")
    config.load(run_dir)
    assert serve(run_dir) == supervision.OK
    assert len(metrics.read_log(run_dir.eval_log)) == 3
    assert sum("no videos" in record.getMessage() for record in caplog.records) == 1
    assert not run_dir.videos.exists() or not list(run_dir.videos.iterdir())


def test_a_corrupt_export_is_set_aside_and_the_others_scored(run_dir, caplog):
    finish(run_dir)
    bad = policies.find_export(run_dir, "1000")
    (bad.path / "saved_model.pb").write_bytes(b"nonsense")
    assert serve(run_dir) == supervision.OK
    assert [row["step"] for row in metrics.read_log(run_dir.eval_log)] == [0, 2000]
    assert not bad.path.exists()
    (kept,) = [p for p in run_dir.quarantine.iterdir() if p.name.endswith(bad.name)]
    assert (kept / "saved_model.pb").read_bytes() == b"nonsense"
    (note,) = read_json(run_dir.status("eval"))["recovered"]
    assert "saved_model.pb has changed" in note and kept.name in note
    assert any(str(bad.path) in record.getMessage() for record in caplog.records)


def test_seeds_are_fixed_and_shared_by_shorter_evaluations(run_dir):
    actor = actor_of(run_dir, "1000")
    four, six = Evaluator(run_dir, 4), Evaluator(run_dir, 6)
    first, second, longer = four.score(actor), four.score(actor), six.score(actor)
    assert first and second and longer
    np.testing.assert_array_equal(first.returns, second.returns)
    np.testing.assert_array_equal(first.lengths, second.lengths)
    np.testing.assert_allclose(first.returns, longer.returns[:4], rtol=1e-5)
    assert len(set(first.returns)) == 4  # four episodes, not one played four times
    np.testing.assert_array_equal(first.lengths % 2, 0)  # env steps: rows x action_repeat


def test_scores_are_the_environments_own(run_dir):
    """Against a plain loop over one environment at a time, with a policy that never moves."""

    class Still:
        def act(self, observation):
            return np.zeros((len(observation), 1), np.float32)

    score = Evaluator(run_dir, 3).score(Still())
    assert score is not None and score.successes is not None
    seeds = np.random.SeedSequence([settings.Run().seed, evaluator_lib._SEED_STREAM])
    for i, seed in enumerate(seeds.generate_state(3)):
        random = np.random.default_rng(int(seed))
        position, left = np.float32(random.uniform(-1, 1)), int(random.integers(16, 23))
        assert score.returns[i] == pytest.approx(left * (1 - abs(position)), rel=1e-5)
        assert score.lengths[i] == left + left % 2  # a row is two env steps
        assert score.successes[i] == float(position > 0)


def test_tf_agents_own_environment_gives_the_same_returns(tmp_path):
    """Our export in TF-Agents' own policy class and `suite_dm_control`, from the same seeds."""
    env_settings = settings.Env(name="cartpole_swingup", time_limit=3.0)
    our_env = envs.load(env_settings, seed=0)
    _, action_spec, time_step_spec = to_tf_agents(Specs.of_env(our_env, env_settings))
    agent = SacAgent(time_step_spec, action_spec, settings.SacAgent(), 1)
    run_dir = RunDir(tmp_path)
    exporter = Exporter(run_dir, agent, settings.Run())
    exporter.export(agent.policy_vector() * 1.5, 0, 0, 1)
    assert exporter.close(60) and exporter.error is None
    path = policies.find_export(run_dir, "latest").path
    actor = Actor(path)
    policy = py_tf_eager_policy.SavedModelPyTFEagerPolicy(str(path), load_specs_from_pbtxt=True)
    returns = []
    for seed in (3, 4):
        our_env.seed(seed)
        theirs = suite_dm_control.load(
            "cartpole", "swingup", task_kwargs={"random": seed, "time_limit": 3.0}
        )
        their_env = wrappers.FlattenObservationsWrapper(theirs)
        ours = episode(our_env, lambda step: actor.act(step.observation[None])[0])
        same = episode(their_env, lambda step: policy.action(as_float32(step)).action)
        np.testing.assert_allclose(ours, same, rtol=1e-4)
        returns.append(sum(ours))
    assert returns[0] != returns[1]


def as_float32(step):
    return step._replace(observation=np.float32(step.observation))


def episode(env, act):
    step, rewards = env.reset(), []
    while not step.is_last():
        step = env.step(act(step))
        rewards.append(float(step.reward))
    return rewards


def test_a_stop_ends_an_evaluation(run_dir):
    stop = supervision.Stop()
    stop.request("test")
    with Film(run_dir.video(0)) as film:
        assert Evaluator(run_dir, 2, stop).score(actor_of(run_dir, "0"), film) is None
    assert list(run_dir.videos.iterdir()) == []  # half an episode is no video


def test_a_film_that_fails_leaves_no_file(tmp_path):
    class Screen:
        renders_any_size = False

        def render(self, mode):
            return np.zeros((16, 16, 3), np.uint8)

    with pytest.raises(RuntimeError, match="stop"), Film(tmp_path / "a.mp4") as film:
        film.capture(Screen(), 0)
        raise RuntimeError("stop")
    assert list(tmp_path.iterdir()) == []


def test_user_errors_are_told_before_tensorflow_starts(run_dir):
    where = ["--run_dir", str(run_dir)]
    with pytest.raises(UserError, match="neither latest, best nor"):
        eval_main.main([*where, "--step=newest"])
    with pytest.raises(UserError, match="no score of an export"):
        eval_main.main([*where, "--step=best"])
    with pytest.raises(UserError, match="at least 1"):
        eval_main.main([*where, "--episodes=0"])
    with pytest.raises(UserError, match="not a run directory"):
        eval_main.main(["--run_dir", str(run_dir.policies("greedy"))])
    bad = policies.find_export(run_dir, "1000").path
    (bad / "saved_model.pb").write_bytes(b"nonsense")
    with pytest.raises(UserError, match=f"{bad} is corrupt"):
        eval_main.main([*where, "--step=1999"])
    lock = hold_lock(run_dir.lock("eval"))
    with pytest.raises(UserError, match="another evaluator"):
        eval_main.main(where)
    os.close(lock)


def test_a_finished_and_scored_run_prints_its_result(run_dir, capsys):
    finish(run_dir)
    serve(run_dir)
    capsys.readouterr()
    assert eval_main.main(["--run_dir", str(run_dir)]) == supervision.OK
    last = metrics.read_log(run_dir.eval_log)[-1]
    assert capsys.readouterr().out.splitlines()[-1] == metrics.eval_line(last)


def test_one_export_on_the_command_line(run_dir, tmp_path):
    command = [sys.executable, "-m", "sactory.cli", "eval", "--run_dir", str(run_dir)]
    done = subprocess.run(
        [*command, "--step=1500", "--episodes=2", "--video"],
        capture_output=True,
        text=True,
        cwd=run_dir.root.parent,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=150,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    score = Evaluator(run_dir, 2).score(actor_of(run_dir, "1000"))
    assert score is not None
    assert score.successes is not None
    shown = f"ER: {score.returns.mean():.4f} | SUCCESS: {score.successes.mean():.2f}"
    assert lines[0] == f"| eval | S: 1000 | {shown}"
    assert lines[1].startswith("2 episodes of ") and "std" in lines[1]
    assert lines[3] == f"video {run_dir.video(1000)}"
    assert frames(run_dir.video(1000))[1]
    assert not run_dir.eval_log.exists()  # it is the log of the evaluator beside training


def test_tensorboard_finds_one_run_and_many(tmp_path, monkeypatch):
    runs = [tmp_path / "runs" / task / "sac" for task in ("walk", "swing")]
    for run in runs:
        (run / "tb").mkdir(parents=True)
    assert tensorboard.logdir(str(runs[0])) == ["--logdir", str(runs[0] / "tb")]
    assert tensorboard.logdir(str(tmp_path / "runs")) == ["--logdir", str(tmp_path / "runs")]
    flag, spec = tensorboard.logdir(str(tmp_path / "runs" / "*" / "sac"))
    assert flag == "--logdir_spec"
    assert spec.split(",") == [f"runs/{r.parent.name}/sac:{r / 'tb'}" for r in sorted(runs)]
    with pytest.raises(UserError, match="no such directory"):
        tensorboard.logdir(str(tmp_path / "nowhere"))
    called = []
    monkeypatch.setattr(os, "execv", lambda path, argv: called.append((path, argv)))
    tensorboard.main(["--run_dir", str(runs[0]), "--port", "0"])
    ((path, argv),) = called
    assert path == argv[0] == sys.executable
    assert argv[1:] == ["-m", "tensorboard.main", "--logdir", str(runs[0] / "tb"), "--port", "0"]


def test_status_of_the_evaluator_is_json(run_dir):
    finish(run_dir)
    serve(run_dir)
    beat = json.loads(run_dir.status("eval").read_text())
    assert beat["exports_waiting"] == 0 and beat["last_eval_env_steps"] == 2000
