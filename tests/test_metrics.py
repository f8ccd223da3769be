"""Metrics: names against the docs, whole lines whatever happens, and a caller that never waits."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import threading
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sactory import json_lines, metrics
from sactory.event_file import EventFile
from sactory.json_lines import JsonLines
from sactory.metrics import MetricsWriter, eval_line, read_log, train_line

DOCS = Path(__file__).parents[1] / "docs" / "metrics.md"
pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def log(tmp_path):
    return tmp_path / "train.log"


def write_rows(writer, count, start=0):
    for i in range(start, start + count):
        writer.write("train", {"episode": i}, step=10 * i)


def test_console_lines_are_the_ones_the_field_knows():
    row = {"episode": 1, "step": 1000, "duration": 0.84, "episode_reward": 0.0}
    assert train_line({**row, "batch_reward": 0, "actor_loss": 0.0, "critic_loss": 0.0}) == (
        "| train | E: 1 | S: 1000 | D: 0.8 s | R: 0.0000 | BR: 0.0000 | ALOSS: 0.0000 | "
        "CLOSS: 0.0000 | RATIO: 0.0000"
    )
    assert eval_line({"step": 0, "episode_reward": 21.16761}) == "| eval | S: 0 | ER: 21.1676"
    solved = eval_line({"step": 0, "episode_reward": 1.5, "success": 0.9166})
    assert solved == "| eval | S: 0 | ER: 1.5000 | SUCCESS: 0.92"
    colored = eval_line({"step": 0, "episode_reward": 1.0}, color=True)
    assert re.sub("\033\\[\\d+m", "", colored) == "| eval | S: 0 | ER: 1.0000" != colored


def test_console_shows_divergence():
    assert "CLOSS: nan" in train_line({"critic_loss": float("nan")})
    assert "CLOSS: nan" in train_line({"critic_loss": None})  # as the log holds it
    assert "R: nan" in train_line({"episode_reward": "abc"})  # whoever wrote that into it
    assert "E: 0" in train_line({})


def test_registry_holds_the_fixed_keys_of_the_logs():
    train = "step time train_step episode episode_reward duration batch_reward actor_loss"
    train += " critic_loss alpha ratio"
    assert set(train.split()) <= set(metrics.REGISTRY["train"])
    assert set(["step", "time", "episode_reward", "episode_length"]) <= set(
        metrics.REGISTRY["eval"]
    )


def test_docs_explain_every_metric_and_no_other():
    documented: dict[str, dict[str, str]] = {}
    kind = ""
    for line in DOCS.read_text().splitlines():
        if line.startswith("## "):
            kind = line.split("`")[1] if "`" in line else ""
        match = re.match(r"\| `([\w<>/]+)` \| ([^|]+) \| (.+) \|$", line)
        if kind and match:
            name, unit, formula = (part.strip() for part in match.groups())
            assert formula, f"{kind}/{name} has no formula"
            documented.setdefault(kind, {})[name] = unit
    assert documented == metrics.REGISTRY


def test_rows_hold_plain_json(log):
    writer = MetricsWriter(log)
    row = {"episode": np.int64(3), "alpha": np.float32(0.5), "critic_loss": np.float32("nan")}
    writer.write("train", {**row, "actor_loss": float("-inf")}, step=7)
    assert writer.close(10)
    (line,) = log.read_text().splitlines()
    assert "NaN" not in line and "Infinity" not in line
    row = json.loads(line)
    assert list(row)[:2] == ["step", "time"]
    assert row.pop("time") > 1.6e9
    assert row == {"step": 7, "episode": 3, "alpha": 0.5, "critic_loss": None, "actor_loss": None}


def test_a_resumed_log_is_appended_to_and_a_cut_line_stays_alone(log):
    first = MetricsWriter(log)
    write_rows(first, 2)
    assert first.close(10)
    with log.open("a") as f:
        f.write('{"step": 20, "epis')  # killed while writing
    second = MetricsWriter(log)
    second.event("restart", {"incarnation": 2}, step=20)
    write_rows(second, 1, start=2)
    assert second.close(10)
    rows = read_log(log)
    assert [row.get("episode") for row in rows] == [0, 1, None, 2]
    assert rows[2]["event"] == "restart" and rows[2]["incarnation"] == 2


def test_read_log_of_a_missing_file_is_empty(tmp_path):
    assert read_log(tmp_path / "eval.log") == []


def test_a_disk_that_fills_up_within_a_line_leaves_no_part_of_it(log, monkeypatch):
    lines = JsonLines(log)
    lines.append({"step": 1})
    real = os.write
    monkeypatch.setattr(json_lines.os, "write", lambda fd, data: real(fd, data[:5]))
    with pytest.raises(OSError, match="disk is full"):
        lines.append({"step": 2})
    monkeypatch.undo()
    lines.append({"step": 3})
    lines.close()
    assert log.read_text() == '{"step": 1}\n{"step": 3}\n'


def test_a_slow_disk_never_delays_the_caller(log, tmp_path, monkeypatch):
    """The disk hangs until the caller has come all the way through."""
    entered, released = threading.Event(), threading.Event()
    append = JsonLines.append

    def hang(self, row):
        entered.set()
        assert released.wait(30)
        append(self, row)

    monkeypatch.setattr(JsonLines, "append", hang)
    writer = MetricsWriter(log, tmp_path / "tb")
    write_rows(writer, 1)
    assert entered.wait(30)
    write_rows(writer, 1000, start=1)  # would dead-lock here if it waited for the disk
    assert not writer.flush(timeout=0.01)
    assert not log.exists() or log.read_text() == ""
    released.set()
    assert writer.close(30)
    assert [row["episode"] for row in read_log(log)] == list(range(1001))


def test_a_full_disk_loses_no_row_and_is_told_once(log, monkeypatch, caplog):
    append, left = JsonLines.append, [3]

    def full(self, row):
        if left[0]:
            left[0] -= 1
            raise OSError(errno.ENOSPC, "No space left on device")
        append(self, row)

    monkeypatch.setattr(JsonLines, "append", full)
    monkeypatch.setattr(metrics, "RETRY_SECONDS", 0.01)
    writer = MetricsWriter(log)
    write_rows(writer, 5)
    assert writer.flush(30)
    assert [row["episode"] for row in read_log(log)] == list(range(5))
    assert writer.close(10)
    assert sum("No space left" in record.getMessage() for record in caplog.records) == 1


def test_close_gives_up_on_a_disk_that_stays_full(log, monkeypatch):
    def full(self, row):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(JsonLines, "append", full)
    writer = MetricsWriter(log)
    write_rows(writer, 1)
    assert writer.close(30)  # the thread ends although the row could not be written
    assert not writer.flush(0)


def test_tensorboard_rows_are_dropped_rather_than_piled_up(tmp_path, monkeypatch):
    entered, released = threading.Event(), threading.Event()
    add = EventFile.add

    def hang(self, *args):
        entered.set()
        assert released.wait(30)
        add(self, *args)

    monkeypatch.setattr(EventFile, "add", hang)
    monkeypatch.setattr(metrics, "MAX_SCALARS", 5)
    writer = MetricsWriter(tmp_path / "log", tmp_path / "tb")
    write_rows(writer, 1)
    assert entered.wait(30)
    write_rows(writer, 8, start=1)
    assert writer.dropped == 3
    released.set()
    assert writer.close(30)
    assert len(read_log(tmp_path / "log")) == 9  # the log has them all
    assert [s.step for s in scalars(tmp_path / "tb", "train/episode")] == [0, 40, 50, 60, 70, 80]


def scalars(directory, tag):
    accumulator = EventAccumulator(str(directory), size_guidance={"scalars": 0})
    accumulator.Reload()
    return accumulator.Scalars(tag)


def test_tensorboard_reads_what_two_starts_wrote(tmp_path):
    for start in (0, 2):
        writer = MetricsWriter(None, tmp_path / "tb")
        write_rows(writer, 2, start)
        writer.scalars("train", {"alpha": 0.25 * start, "critic_loss": float("nan")}, step=99)
        assert writer.close(10)
    assert len(list((tmp_path / "tb").iterdir())) == 2
    read = scalars(tmp_path / "tb", "train/episode")
    assert [(s.step, s.value) for s in read] == [(0, 0), (10, 1), (20, 2), (30, 3)]
    assert [s.value for s in scalars(tmp_path / "tb", "train/alpha")] == [0.0, 0.5]


def test_console_lines_come_from_the_writer(log):
    stream = io.StringIO()
    writer = MetricsWriter(log, console=stream)
    writer.write("eval", {"episode_reward": 5.0, "export": "x"}, step=20)
    writer.write("collect", {"episode_reward": 5.0}, step=20)  # has no console line
    assert writer.close(10)
    assert stream.getvalue() == "| eval | S: 20 | ER: 5.0000\n"


def test_an_unregistered_metric_is_written_and_told_once(log, caplog):
    writer = MetricsWriter(log)
    for step in (1, 2):
        writer.write("train", {"new_loss": 1.0}, step)
    assert writer.close(10)
    assert [row["new_loss"] for row in read_log(log)] == [1.0, 1.0]
    assert writer.unregistered == {"new_loss"}
    assert sum("new_loss" in record.getMessage() for record in caplog.records) == 1
