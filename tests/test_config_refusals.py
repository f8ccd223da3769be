"""Configurations that are refused: in one line that names the key, its place and what is right."""

from __future__ import annotations

from pathlib import Path

import pytest

from sactory import config
from sactory.errors import UserError

pytestmark = pytest.mark.timeout(60)

CONFIGS = Path(config.__file__).resolve().parent.parent / "configs"


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def refusal(tmp_path: Path, text: str) -> str:
    """The message for a configuration that adds `text` to the defaults in lines 2, 3, ..."""
    path = write(tmp_path / "mine.gin", f"include 'configs/sac.gin'\n{text}\n")
    with pytest.raises(UserError) as caught:
        config.check(config.resolve(path))
    message = str(caught.value)
    assert "\n" not in message
    return message.replace(str(tmp_path), "DIR")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "train.Lerner.batch_size = 8",
            "unknown setting `train.Lerner.batch_size`; did you mean `train.Learner.batch_size`?",
        ),
        (
            "train.Learner.batchsize = 8",
            "train.Learner has no parameter `batchsize`; did you mean `train.Learner.batch_size`?",
        ),
        (
            "Learner.batch_size = 8",
            "unknown setting `Learner.batch_size`; did you mean `train.Learner.batch_size`?",
        ),
        ("seed = 8", "`seed` is a macro nothing uses; did you mean `run.seed`?"),
        (
            "collect.zzz = 8",
            "collect has no parameter `zzz`: it has cpus, refresh_seconds",
        ),
        (
            "train.Learner.batch_size = 'big'",
            "train.Learner.batch_size = 'big': must be an int of at least 1 (rows)",
        ),
        (
            "replay.capacity = 1e6",
            "replay.capacity = 1000000.0: must be an int of at least 1 (rows); write 1_000_000",
        ),
        ("run.seed = True", "run.seed = True: must be an int from 0 to 2147483647"),
        ("train.Learner.xla = 1", "train.Learner.xla = 1: must be True or False"),
        (
            "train.SacAgent.hidden_sizes = 256",
            "train.SacAgent.hidden_sizes = 256: must be a tuple of ints of at least 1 (units); "
            "write (256,)",
        ),
        (
            "train.SacAgent.hidden_sizes = (256, 0)",
            "train.SacAgent.hidden_sizes = (256, 0): must be a tuple of ints of at least 1 (units)",
        ),
        ("replay.gamma = 1.5", "replay.gamma = 1.5: must be a number from 0 to 1"),
        (
            "train.SacAgent.tau = 0",
            "train.SacAgent.tau = 0.0: must be a number above 0 and at most 1",
        ),
        ("run.stop_at_return = 1e999", "run.stop_at_return = inf: must be a number or None"),
        ("replay.gamma = 1e999", "replay.gamma = inf: must be a number from 0 to 1"),
        (
            "train.SacAgent.actor_learning_rate = -1e-3",
            "train.SacAgent.actor_learning_rate = -0.001: must be a number above 0",
        ),
        ("replay.mode = 'sink'", "replay.mode = 'sink': must be 'sync' or 'async'"),
        ("run.seed = None", "run.seed = None: must be an int from 0 to 2147483647"),
        (
            "envs.load.task_kwargs = {1: 2}",
            "envs.load.task_kwargs = {1: 2}: must be a dict with string keys or None",
        ),
        ("run.name = '../x'", "run.name = '../x': must be a string that matches"),
        ("replay.gamma = %DISC", "replay.gamma = %DISC: macro %DISC is not defined"),
        ("replay.gamma = @run()", "replay.gamma = @run: a setting takes a value, not a reference"),
        ("replay.gamma = @nobody", "replay.gamma = @nobody: a setting takes a value"),
        ("import os", "`import os`: a configuration holds values, never code"),
        ("from os import path", "`from os import path`: a configuration holds values, never code"),
        ("x/run.seed = -1", "x/run.seed = -1: must be an int from 0 to 2147483647"),
        (
            "envs.load.name = walker_walk",
            "can't read `envs.load.name = walker_walk`: a string needs quotes: 'walker_walk'",
        ),
        ("train.Learner.xla = true", "can't read `train.Learner.xla = true`: write True"),
        ("run.seed = 2 * 3", "can't read `run.seed = 2 * 3`: one plain value is wanted"),
        ("run.seed 3", "can't read `run.seed 3`: `group.parameter = value` is wanted"),
    ],
)
def test_a_bad_line_is_named_with_its_place(tmp_path, line, message):
    said = refusal(tmp_path, f"\n{line}")
    assert said.startswith(f"DIR/mine.gin:3: {message}"), said


def test_an_unclosed_bracket_is_refused(tmp_path):
    said = refusal(tmp_path, "train.SacAgent.hidden_sizes = (256,")
    assert "a bracket or a string is not closed" in said


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            "train.SacAgent.critic_subset = 3",
            "train.SacAgent.critic_subset = 3 must not exceed train.SacAgent.num_critics = 2",
        ),
        (
            "train.SacAgent.log_std_min = 3.0",
            "train.SacAgent.log_std_min = 3.0 must be below train.SacAgent.log_std_max = 2.0",
        ),
        (
            "replay.segment_length = 24",
            "replay.segment_length = 24 must divide train.Learner.updates_per_call x batch_size "
            "= 16 x 256 = 4096 rows",
        ),
        (
            "replay.segment_length = 128",
            "replay.segment_length = 128 leaves 32 segments in a pool of train.Learner."
            "updates_per_call x batch_size = 16 x 256 = 4096 rows: at least 64 must be mixed",
        ),
        (
            "run.max_env_steps = 20_000\nenvs.load.action_repeat = 4",
            "collect.Worker.random_steps = 5000 rows leave nothing to learn from: "
            "run.max_env_steps = 20000 env steps are 5000 rows",
        ),
        (
            "replay.capacity = 128\ncollect.Worker.random_steps = 100",
            "replay.capacity = 128 rows must hold at least one batch, "
            "train.Learner.batch_size = 256 rows, and one segment",
        ),
        (
            "replay.capacity = 2000",
            "replay.capacity = 2000 rows can't hold more than collect.Worker.random_steps = 5000",
        ),
        ("replay.updates_per_row = None", "replay.updates_per_row = None needs replay.mode = "),
        ("eval.Evaluator.video_width = 65", "eval.Evaluator.video_width = 65 must be even"),
    ],
)
def test_settings_that_contradict_each_other(tmp_path, lines, message):
    said = refusal(tmp_path, lines)
    places, _, rest = said.partition(": ")
    assert "DIR/mine.gin:2" in places
    assert rest.startswith(message), said


def test_missing_files(tmp_path, monkeypatch):
    monkeypatch.chdir(CONFIGS.parent)
    with pytest.raises(UserError, match=r"did you mean `configs/tasks/walker_walk.gin`\?"):
        config.resolve("configs/tasks/walker_wal.gin")
    with pytest.raises(UserError, match="is a folder, not a file"):
        config.resolve("configs")
    write(tmp_path / "a.gin", "run.seed = 1\ninclude 'nobody.gin'\n")
    with pytest.raises(UserError, match=r"a.gin:2: config nobody.gin does not exist"):
        config.resolve(tmp_path / "a.gin")
    write(tmp_path / "b.gin", "include 'b.gin'\n")
    with pytest.raises(UserError, match=r"b.gin includes itself"):
        config.resolve(tmp_path / "b.gin")
    (tmp_path / "c.gin").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match=r"c.gin can't be read"):
        config.resolve(tmp_path / "c.gin")


@pytest.mark.parametrize("override", ["", "run.seed = 1\nrun.name = 'x'", "import os", "# nothing"])
def test_an_override_is_one_binding(override):
    with pytest.raises(UserError, match=r"--set .*: one `group.parameter = value` is wanted"):
        config.resolve(CONFIGS / "sac.gin", [override])
