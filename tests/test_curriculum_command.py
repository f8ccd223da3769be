"""`sactory curriculum check|show|plot FILE` as a user types it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sactory import cli

pytestmark = pytest.mark.timeout(120)

ROOT = Path(__file__).resolve().parent.parent
ORIGINAL = "configs/curricula/contact_insert_original.json"
EVERY_TYPE = "configs/curricula/every_type.json"


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch, tmp_path):
    """The shipped files are found from anywhere."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run(capsys):
    def call(*words):
        code = cli.main(["curriculum", *map(str, words)])
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.mark.parametrize(
    ("at", "noise", "hold"),
    [
        ("iterations=0", "0.0", "default"),
        ("iterations=35000", "0.5", "default"),
        ("iterations=1e5", "1.0", "7"),
        ("train_steps=1749999", "0.5", "default"),
        ("train_steps=6000000", "1.0", "10"),
    ],
)
def test_show_prints_one_line_for_each_parameter(run, at, noise, hold):
    assert run("show", ORIGINAL, "--at", at) == (
        0,
        f"noise_level {noise}\ngoalreach_steps {hold}\n",
        "",
    )


def test_show_prints_distributions_at_the_time_asked_for(run):
    at = "env_steps=2e6,difficulty=0.4,train_steps=0,policy_lag_ms=short"
    code, out, err = run("show", EVERY_TYPE, f"--at={at}")
    lines = dict(line.split(" ", 1) for line in out.splitlines())
    assert (code, err) == (0, "")
    assert len(lines) == len(json.loads((ROOT / EVERY_TYPE).read_text())["curriculum"]["params"])
    assert lines["noise_level"] == "0.4" and lines["goalreach_steps"] == "5"
    assert lines["friction"] == "uniform(0.1, 0.466666666667)"
    assert lines["wrench_bias"] == "normal(0.0, 0.5) in [-1.5, 1.5]"
    assert lines["mass_scale"] == "truncated_normal(1.0, 0.15) in [0.7, 1.3]"
    assert lines["hole_shape"] == 'choice("box" 0.5, "cylinder" 0.5)'
    assert lines["latency_ms"] == "int_uniform(0, 2)"
    assert lines["policy_lag_ms"] == "[3, 6]" and lines["wrench_noise"] == "0.25"
    assert lines["stiffness_scale"] == "adr(1.0, 1.0)"


def test_show_says_what_at_leaves_open_or_names_in_vain(run):
    code, out, err = run("show", EVERY_TYPE, "--at", "iterations=30000,episodes=5")
    assert code == 0 and "hand_speed 0.75\n" in out
    assert "note: noise_level, clearance, latency_ms follows difficulty, which --at does not" in err
    assert "policy_lag_ms, which --at does not give: lesson none" in err
    assert "note: nothing here follows episodes" in err
    assert run("show", EVERY_TYPE)[2] == "", "the start of the run leaves nothing open"


@pytest.mark.parametrize(
    ("at", "message"),
    [
        ("env_steps", "--at env_steps: NAME=VALUE is wanted, such as env_steps=2e6"),
        ("env_steps=a", "--at env_steps=a: a number from 0 to 1e+15 is wanted"),
        ("env_steps=nan", "a number from 0"),
        ("difficulty=40", "--at difficulty=40: a number from 0 to 1 is wanted"),
        ("env_step=1", "did you mean `env_steps`?"),
        ("iterations=1,train_steps=1", "it is the same clock as train_steps"),
        ("difficulty=0,difficulty=1", "difficulty stands twice"),
        ("policy_lag_ms=long", "--at policy_lag_ms=long: its lessons are none, short, real"),
    ],
)
def test_show_refuses_what_it_can_not_place(run, at, message):
    code, out, err = run("show", EVERY_TYPE, "--at", at)
    assert (code, out) == (2, "") and message in err and err.count("\n") == 1


def test_check_says_what_a_file_follows_and_is_judged_by(run):
    code, out, err = run("check", EVERY_TYPE)
    assert (code, err) == (0, "")
    assert out.startswith(
        f"{EVERY_TYPE} is sound: 17 parameters; they follow difficulty, env_steps"
    )
    assert out.endswith("; judged by success_rate\n")


def test_check_refuses_in_one_line(run, tmp_path):
    wrong = tmp_path / "wrong.json"
    wrong.write_text('{"curriculum": {"params": {"x": {"type": "uniform", "low": 2, "high": 1}}}}')
    message = "$.curriculum.params.x.low is 2.0: must not be above high, which is 1.0"
    assert run("check", wrong) == (2, "", f"sactory: error: {wrong}: {message}\n")


@pytest.mark.parametrize("path", [ORIGINAL, EVERY_TYPE])
def test_plot_draws_every_parameter(run, path, tmp_path):
    code, out, err = run("plot", path)
    assert (code, out, err) == (0, f"{Path(path).stem}.png\n", "")
    picture = np.asarray(Image.open(tmp_path / out.strip()).convert("RGB"), int)
    blue = (picture[..., 2] - picture[..., 0] > 60).any(axis=0)
    assert blue.mean() > 0.5, "lines and bands fill the panels"


def test_plot_refuses_a_kind_of_picture_that_does_not_exist(run):
    code, _, err = run("plot", ORIGINAL, "--out", "picture.doc")
    assert code == 2 and err.startswith("sactory: error: --out picture.doc can't be written: ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["shwo", ORIGINAL], "did you mean `show`?"),
        (["show"], "which file? `sactory curriculum show FILE`"),
        (["check", "nowhere.json"], "nowhere.json does not exist"),
    ],
)
def test_wrong_words_are_refused(run, words, message):
    code, _, err = run(*words)
    assert code == 2 and message in err


def test_help(run):
    assert "check|show|plot" in run()[1] == run("--help")[1]
    assert "  curriculum " in cli.usage()


def test_no_tensorflow_and_no_matplotlib_where_none_is_needed():
    code = (
        "import sys\nfrom sactory import cli\n"
        f"assert cli.main(['curriculum', 'show', {ORIGINAL!r}]) == 0\n"
        "heavy = {'tensorflow', 'tf_agents', 'reverb', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
