"""Whatever stands in a run's small files, `sactory status` answers and `sactory run` goes on."""

from __future__ import annotations

import io
import json
import math
import os
import socket
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console as RichConsole

from sactory import status, status_files, status_table, supervision
from sactory.run_dir import RunDir, write_json
from supervise import progress

pytestmark = pytest.mark.timeout(120)

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
FIELDS = st.sampled_from(sorted(status_files._KINDS))
SENSIBLE = st.sampled_from([1, 10**400, 1e308, "running", "training", ["train"], time.time()])
FILES = VALUES | st.dictionaries(FIELDS, VALUES | SENSIBLE)
HERE = {"host": socket.gethostname(), "pid": os.getpid(), "time": time.time() + 1e6}


def write(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def look(run_dir: RunDir) -> dict:
    """Reads and draws the status, in every form that there is."""
    told = status.collect(run_dir)
    json.dumps(told)
    RichConsole(file=io.StringIO()).print(status_table.render(told, run_dir.root))
    progress.progress_line(told, 100, None)
    return told


@settings(max_examples=150, deadline=None)
@given(st.lists(FILES, min_size=9, max_size=9), st.booleans())
def test_status_stands_any_json(values, alive):
    with tempfile.TemporaryDirectory() as place:
        run_dir = RunDir(Path(place) / "R")
        run_dir.root.mkdir()
        paths = [
            run_dir.services() / supervision.ALIVE_FILE,
            run_dir.services() / "train" / supervision.SERVICE_STATE_FILE,
            *(
                run_dir.status(name)
                for name in ("train", "replay_server", "collect_0", "collect_²")
            ),
            run_dir.address,
            run_dir.done,
            run_dir.failed,
        ]
        for path, value in zip(paths, values):
            write(path, {**value, **HERE} if alive and isinstance(value, dict) else value)
        run_dir.train_log.write_text(json.dumps({"episode_reward": values[0]}) + "\n")
        write(run_dir.trainer_checkpoints / "7" / "state.json", values[1])
        write(run_dir.curriculum_state, {"state": values[2]})
        look(run_dir)


@pytest.mark.parametrize("text", ["[" * 20_000, "9" * 5000, "NaN", '{"time": Infinity}', "\x00"])
def test_status_stands_what_is_hardly_json(tmp_path, text):
    run_dir = RunDir(tmp_path)
    for path in (run_dir.status("train"), run_dir.address, run_dir.done):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    run_dir.eval_log.write_text(f'{{"episode_reward": 3}}\n{text}\n')
    assert look(run_dir)["last_eval_return"] == 3


def test_a_disk_that_can_not_be_read_is_an_unknown_state(tmp_path):
    run_dir = RunDir(tmp_path)
    for path in (run_dir.status("train"), run_dir.address, run_dir.done, run_dir.train_log):
        path.parent.mkdir(exist_ok=True)
        path.symlink_to("/proc/self/mem")  # every read fails with EIO
    assert look(run_dir)["done"] is None


def test_numbers_are_finite_and_of_a_sensible_size():
    for value in (math.nan, math.inf, 10**400, True, "7", None, [1]):
        assert status_files.number(value) is None
    assert [status_files.number(x) for x in (0, -2.5)] == [0, -2.5]


def test_a_display_that_fails_says_so_once_and_goes_on(tmp_path, monkeypatch):
    run_dir, shown = RunDir(tmp_path), io.StringIO()
    write_json(run_dir.provenance, {})
    display = progress.Progress(run_dir, 100, progress.Console(shown))

    def fail(_run_dir):
        raise KeyError("pid")

    with monkeypatch.context() as patch:
        patch.setattr(status, "collect", fail)
        for _ in range(3):
            display.update()
    assert shown.getvalue().count("not all progress is shown: KeyError: 'pid'") == 1
    display.update()
    assert "0 / 100 env steps" in shown.getvalue()
