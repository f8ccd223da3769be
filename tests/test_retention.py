"""Retention: what goes by rule, what by the cap on the disk, and what always stays."""

from __future__ import annotations

import errno
import os

import pytest

from sactory import cli, disk, policies, retention, settings
from sactory.json_lines import JsonLines
from sactory.run_dir import RunDir, write_json

pytestmark = pytest.mark.timeout(60)

KB = 1024


@pytest.fixture
def run_dir(tmp_path):
    run_dir = RunDir(tmp_path / "R")
    write_json(run_dir.provenance, {})
    run_dir.config.write_text("run.keep_videos = 3\nrun.keep_exports_every_env_steps = 1\n")
    return run_dir


def fill(path, kilobytes: int, age: int):
    """A file; a larger age is older."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(os.urandom(kilobytes * KB))
    for changed in (path, path.parent):
        os.utime(changed, (1e9 - age, 1e9 - age))
    return path


def export(run_dir, env_steps: int, age: int, score: float | None = 1.0) -> str:
    name = policies.export_name(env_steps, env_steps, 1)
    for kind in policies.KINDS:
        write_json(run_dir.policies(kind) / name / policies.META, {})
        fill(run_dir.policies(kind) / name / "weights", 100, age)
    if score is not None:
        log = JsonLines(run_dir.eval_log)
        log.append({"export": name, "episode_reward": score})
        log.close()
    return name


@pytest.fixture
def full(run_dir):
    """A run with something of every kind; the ages say who goes first."""
    export(run_dir, 1000, 90, score=5.0)  # the best
    export(run_dir, 2000, 80)
    export(run_dir, 3000, 70, score=None)
    export(run_dir, 4000, 10)
    for step, age in ((500, 60), (1500, 20)):
        fill(run_dir.trainer_checkpoints / f"{step:012d}" / "weights", 100, age)
    for steps, age in ((0, 50), (1000, 40)):
        fill(run_dir.video(steps), 100, age)
    log = run_dir.services("h") / "train" / "log" / "main"
    fill(log / "@4000000065.s", 100, 65)
    fill(log / "current", 100, 100)
    fill(run_dir.root / "quarantine" / "train-7" / "weights", 100, 55)
    current = fill(run_dir.replay_checkpoints / "2024-02" / "chunks", 100, 30)
    history = run_dir.root / "replay_history"
    fill(history / "2024-01" / "chunks", 100, 95)
    (history / "2024-02").mkdir()
    os.link(current, history / "2024-02" / "chunks")
    os.utime(history / "2024-02", (1e9 - 99, 1e9 - 99))
    return run_dir


def going(run_dir, cap: float) -> list[str]:
    return [
        str(path.relative_to(run_dir.root))
        for item in disk.plan(run_dir, cap)[0]
        for path in item.paths
    ]


def total(run_dir) -> float:
    return float(sum(disk.files([run_dir.root]).values()))


def test_nothing_goes_while_the_cap_is_kept(full):
    assert disk.plan(full, total(full)) == ([], total(full))


def test_oldest_goes_first_and_no_more_than_must(full):
    assert going(full, total(full) - 1) == ["replay_history/2024-01"]
    second = policies.export_name(2000, 2000, 1)
    assert going(full, total(full) - 150 * KB) == [
        "replay_history/2024-01",
        f"policies/greedy/{second}",
        f"policies/collect/{second}",
    ]


def test_newest_best_unscored_and_current_stay_whatever_the_cap(full):
    items, left = disk.plan(full, 0.0)
    gone = {str(path.relative_to(full.root)) for item in items for path in item.paths}
    second = policies.export_name(2000, 2000, 1)
    assert gone == {
        "replay_history/2024-01",
        f"policies/greedy/{second}",
        f"policies/collect/{second}",
        "services/h/train/log/main/@4000000065.s",
        "train/000000000500",
        "quarantine/train-7",
        "video/0.mp4",
    }
    retention.apply(full, settings.Run(max_disk_gb=1e-9, keep_exports_every_env_steps=1))
    assert total(full) == pytest.approx(left, abs=64 * KB)  # directories shrink or not
    assert [e.env_steps for e in policies.list_exports(full)] == [1000, 3000, 4000]
    assert (full.replay_checkpoints / "2024-02" / "chunks").exists()
    assert (full.root / "replay_history" / "2024-02" / "chunks").exists()
    assert (full.trainer_checkpoints / "000000001500").exists()


def test_hard_links_count_once(run_dir):
    first = fill(run_dir.replay_checkpoints / "2024" / "chunks", 100, 1)
    alone = total(run_dir)
    (run_dir.root / "replay_history" / "2024").mkdir(parents=True)
    os.link(first, run_dir.root / "replay_history" / "2024" / "chunks")
    assert total(run_dir) == alone


def test_newest_videos_are_kept_by_number_and_the_users_own_stay(run_dir):
    for steps in (500, 1000, 9000, 20_000, 10_000):
        fill(run_dir.video(steps), 1, 1)
    fill(run_dir.videos / "mine.mp4", 1, 99)
    retention.apply(run_dir, settings.Run(keep_videos=2))
    assert {p.name for p in run_dir.videos.glob("*.mp4")} == {"10000.mp4", "20000.mp4", "mine.mp4"}


def test_clean_says_what_would_go_and_then_removes_it(full, capsys):
    for steps in (2000, 3000):
        fill(full.video(steps), 100, 5)
    before = sorted(full.root.rglob("*"))
    words = ["clean", "--run_dir", str(full)]
    assert cli.main([*words, "--dry_run"]) == 0
    said = capsys.readouterr().out
    assert "video/0.mp4" in said and "0.1 MB would go" in said
    assert "video/1000.mp4" not in said and "train/" not in said
    assert sorted(full.root.rglob("*")) == before
    assert cli.main([*words, "--max_disk_gb", "0.000001"]) == 0
    said = capsys.readouterr().out
    assert "train/000000000500" in said and "that is more than 1e-06 GB" in said
    assert not full.video(0).exists() and not (full.root / "quarantine" / "train-7").exists()
    assert cli.main([*words]) == 0
    assert "0.0 MB gone" in capsys.readouterr().out
    assert cli.main([*words, "--max_disk_gb", "0"]) == 2


def refuse(*_args, **_kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("renames", [True, False])
def test_a_full_disk_that_takes_no_new_directory_is_freed_all_the_same(
    tmp_path, monkeypatch, renames
):
    directory, file = tmp_path / "checkpoint", tmp_path / "video.mp4"
    fill(directory / "deep" / "weights", 1, 1)
    fill(file, 1, 1)
    for name in ("mkdir", *(() if renames else ("rename", "replace"))):
        monkeypatch.setattr(os, name, refuse)
    assert retention.remove(directory) and retention.remove(file)
    assert os.listdir(tmp_path) == []


def test_clean_counts_only_what_is_gone(full, capsys, monkeypatch):
    unlink = os.unlink

    def hold(path, *args, **kwargs):
        if str(path).endswith("0.mp4"):
            raise PermissionError(errno.EPERM, "Operation not permitted")
        unlink(path, *args, **kwargs)

    monkeypatch.setattr(os, "unlink", hold)
    for steps in (2000, 3000, 4000):
        fill(full.video(steps), 100, 5)
    before = total(full)
    assert cli.main(["clean", "--run_dir", str(full)]) == 1
    said = capsys.readouterr().out
    assert said.count("can't be removed") == 2 and "video/1000.mp4  can't be removed" in said
    gone = before - total(full)
    assert f"{gone / 1e6:.1f} MB gone, {total(full) / 1e6:.1f} MB stay" in said


def test_the_newest_replay_checkpoint_is_the_one_with_the_largest_sequence(run_dir):
    for name, sequence, age in (("2024-03", 1, 50), ("2024-01", 2, 40), ("2024-02", None, 30)):
        fill(run_dir.replay_history / name / "chunks", 100, age)
        if sequence is not None:
            write_json(run_dir.replay_history / name / "manifest.json", {"sequence": sequence})
    assert sorted(going(run_dir, 0.0)) == ["replay_history/2024-02", "replay_history/2024-03"]


def test_a_disk_that_fails_while_old_things_go_is_only_logged(run_dir, caplog, monkeypatch):
    monkeypatch.setattr(disk, "plan", refuse)
    retention.apply(run_dir, settings.Run(max_disk_gb=1))
    assert "No space left on device" in caplog.text
