"""The whole system as a user runs it: real programs, real Reverb, real daemontools."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from sactory import policies
from sactory.metrics import read_log
from sactory.run_dir import RunDir, read_json
from sactory.specs import Specs

SMALL = {
    "run.max_env_steps": 12_000,
    "collect.Worker.random_steps": 200,
    "train.Learner.batch_size": 16,
    "eval.Evaluator.every_env_steps": 5_000,
    "eval.Evaluator.num_eval_episodes": 1,
    "eval.Evaluator.video": False,
}


def command(verb, run_dir, **settings):
    words = [sys.executable, "-m", "sactory.cli", verb]
    if verb == "run":
        words.append("configs/debug.gin")
        for name, value in {**SMALL, **settings}.items():
            words += ["--set", f"{name} = {value!r}"]
    return [*words, "--run_dir", str(run_dir)]


def start(verb, run_dir, **settings):
    return subprocess.Popen(
        command(verb, run_dir, **settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_until(condition, seconds, process=None):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        assert process is None or process.poll() is None, process.stdout.read()
        time.sleep(0.2)
    raise AssertionError(f"nothing came of {condition} within {seconds} s")


def status_of(run_dir):
    found = subprocess.run(
        [*command("status", run_dir), "--json"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return json.loads(found.stdout)


def trained(run_dir, steps):
    def condition():
        beat = read_json(RunDir(run_dir).status("train")) or {}
        return beat if (beat.get("train_steps") or 0) >= steps else None

    return condition


def check_logs(run_dir, checkpoint):
    """Of a run that was stopped once, when its newest checkpoint was of train step `checkpoint`."""
    log = read_log(run_dir.train_log)
    (restart,) = [row for row in log if row.get("event") == "restart"]
    assert restart["train_step"] == checkpoint  # nothing trained was lost by a clean stop
    rows = [row for row in log if "event" not in row]
    keys = {"step", "time", "train_step", "episode", "episode_reward", "duration"}
    keys |= {"batch_reward", "actor_loss", "critic_loss", "alpha", "ratio"}
    assert all(keys <= set(row) for row in rows)
    steps = [row["step"] for row in log]
    assert steps == sorted(steps)

    evaluations = read_log(run_dir.eval_log)
    assert evaluations[0]["step"] == 0
    assert {"step", "time", "episode_reward", "episode_length"} <= set(evaluations[0])
    exports = policies.list_exports(run_dir)
    assert [e.name for e in exports] == [row["export"] for row in evaluations]
    tb = run_dir.tensorboard("train").parent
    assert sorted(p.name for p in tb.iterdir()) == ["collect_0", "eval", "train"]


@pytest.mark.timeout(600)
def test_a_run_is_interrupted_resumed_and_ends_by_itself(tmp_path):
    where = tmp_path / "run"
    run_dir = RunDir(where)
    process = start("run", where)
    try:
        wait_until(trained(where, 500), 240, process)
        told = status_of(where)
        assert told["state"] == "running"
        assert told["tables"]["replay"] > 0 and set(told["blocked"]) >= {"inserts", "samples"}
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130
    stopped = status_of(where)
    assert stopped["state"] == "stopped"
    assert 500 <= stopped["train_steps"] < 12_000
    checkpoint = max(int(p.name) for p in run_dir.trainer_checkpoints.iterdir() if p.name.isdigit())

    amend = [*command("amend", where), "--set", "run.max_env_steps = 10_000"]
    subprocess.run(amend, timeout=60, check=True)
    again = start("run", where)  # the command that started it still resumes it
    try:
        text, _ = again.communicate(timeout=300)
    finally:
        again.kill()
    assert again.returncode == 0, text
    for noise in ("cuDNN", "Gym has been", "TensorRT", "Traceback"):
        assert noise not in text
    assert "| eval | S: " in text and "| train | E: " in text

    done = status_of(where)
    assert done["state"] == "done"
    assert 10_000 <= done["env_steps"] < 12_000
    assert done["ratio"] == pytest.approx(1.0, rel=0.02)
    assert {p["state"] for p in done["programs"]} == {"done"}
    assert done["last_eval_return"] is not None

    check_logs(run_dir, checkpoint)
    finished = subprocess.run(
        command("run", where), capture_output=True, text=True, timeout=60, check=False
    )
    assert finished.returncode == 0 and "| eval |" in finished.stdout
    for verb in ("train", "collect", "replay-server", "eval"):
        program = subprocess.run(
            command(verb, where), capture_output=True, text=True, timeout=60, check=False
        )
        assert program.returncode == 0, program.stderr


@pytest.mark.timeout(600)
def test_async_collectors_go_on_while_the_trainer_stands_still(tmp_path):
    where = tmp_path / "run"
    process = start("run", where, **{"run.max_env_steps": 10**6, "replay.mode": "async"})
    try:
        beat = wait_until(trained(where, 50), 240, process)
        os.kill(beat["pid"], signal.SIGSTOP)

        def inserted():
            return (read_json(RunDir(where).status("replay_server")) or {})["rows_inserted"]

        before = inserted()
        # Far more than the buffer of a synchronous run would let in.
        wait_until(lambda: inserted() > before + 3_000, 50, process)
        os.kill(beat["pid"], signal.SIGCONT)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_runs_side_by_side_do_not_disturb_each_other(tmp_path):
    processes = [start("run", tmp_path / str(i), **{"run.seed": i}) for i in range(2)]
    try:
        texts = [p.communicate(timeout=600)[0] for p in processes]
    finally:
        for p in processes:
            p.kill()
    assert [p.returncode for p in processes] == [0, 0], texts
    addresses = [read_json(RunDir(tmp_path / str(i)).address)["socket"] for i in range(2)]
    assert addresses[0] != addresses[1]
    for i in range(2):
        done = read_json(RunDir(tmp_path / str(i)).done)
        assert done["ratio"] == pytest.approx(1.0, rel=0.02)
        assert done["rows"] < 12_400  # the other run's collector wrote nowhere else


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_dictionary_of_two_vectors_trains(tmp_path):
    """Its sensors go through specs, rows, exports, acting and evaluation by their names."""
    pytest.importorskip("gymnasium")
    run_dir = RunDir(tmp_path / "run")
    name = "python:tests.two_vectors:Reach"
    wanted = {"envs.load.name": name, "run.max_env_steps": 2_000, "train.Learner.batch_size": 64}
    wanted |= {"eval.Evaluator.every_env_steps": 1_000, "eval.Evaluator.num_eval_episodes": 5}
    process = start("run", run_dir.root, **wanted)
    try:
        output, _ = process.communicate(timeout=840)
    finally:
        process.kill()
    assert process.returncode == 0, output
    specs = Specs.load(run_dir)
    assert {key: spec.shape for key, spec in specs.sensors.items()} == {"point": (2,), "way": (3,)}
    scores = [row for row in read_log(run_dir.eval_log) if "export" in row]
    assert all("success" in row for row in scores)
    assert scores[-1]["episode_reward"] > scores[0]["episode_reward"]
