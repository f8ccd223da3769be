"""What a run is estimated to need."""

from __future__ import annotations

from pathlib import Path

import pytest

from sactory import config, estimate
from sactory.errors import UserError
from sactory.rows import flat_row_format
from sactory.specs import ArraySpec, Specs

pytestmark = pytest.mark.timeout(60)

SAC = Path(config.__file__).resolve().parent.parent / "configs/sac.gin"
CHEETAH = (ArraySpec((17,), "float32"), ArraySpec((6,), "float32", -1.0, 1.0))
SPECS = Specs(*CHEETAH, flat_row_format(*CHEETAH))


def needs(*overrides: str) -> estimate.Estimate:
    return estimate.estimate(config.check(config.resolve(SAC, overrides)), SPECS, cores=2)


def test_memory_follows_the_rows_kept():
    base = needs()
    row_bytes = 4 * (17 + 6 + 1 + 1 + 17 + 1)
    assert base.replay_bytes == 100_000 * (1700 + row_bytes), "no more rows than the run's"
    assert needs("replay.capacity = 10_000").replay_bytes == base.replay_bytes / 10
    assert needs("envs.load.action_repeat = 2").replay_bytes == base.replay_bytes / 2
    longer = needs("replay.segment_length = 16").replay_bytes
    assert longer == 100_000 * (1700 / 16 + row_bytes)
    assert needs("run.num_collectors = 5").memory_bytes == base.memory_bytes + 4 * 0.5e9
    more = needs("replay.keep_checkpoints = 4").disk_bytes - base.disk_bytes
    assert more == pytest.approx(2 * 100_000 * (60 + row_bytes)), "two checkpoints more"


def test_time_follows_the_work():
    base = needs()
    assert needs("replay.updates_per_row = 4.0").hours > 3 * base.hours
    assert needs("run.max_env_steps = 200_000").hours == pytest.approx(2 * base.hours, rel=0.05)
    assert needs("run.max_hours = 0.01").hours == 0.01
    free = needs("replay.mode = 'async'", "replay.updates_per_row = None")
    assert free.steps_per_second > base.steps_per_second, "nobody waits for the trainer"


def test_operations_of_an_update():
    # cheetah_run, 256 x 256, batches of 256: 590 MFLOP counted by hand.
    assert needs().update_flop == pytest.approx(590e6, rel=0.02)
    assert needs("train.Learner.batch_size = 128").update_flop == needs().update_flop / 2


def test_what_can_not_fit_is_refused(tmp_path, monkeypatch):
    checked = config.check(config.resolve(SAC))
    said = estimate.check_fits(needs(), checked, tmp_path / "not" / "yet")
    assert len(said.splitlines()) == 3
    monkeypatch.setattr(estimate, "available_memory", lambda: 1e9)
    with pytest.raises(UserError, match=r"about 2.2 GB of memory, 1.0 GB are available: replay\."):
        estimate.check_fits(needs(), checked, tmp_path)


def test_what_is_available_is_read_from_the_machine(tmp_path):
    assert 1e7 < estimate.available_memory() < 1e14
    assert estimate.available_disk(tmp_path / "a/b") == estimate.available_disk(tmp_path)


def test_a_container_limit_counts(tmp_path):
    machine = estimate.available_memory(tmp_path)
    (tmp_path / "memory.max").write_text("3000000\n")
    (tmp_path / "memory.current").write_text("1000000\n")
    (tmp_path / "memory.stat").write_text("anon 5\ninactive_file 500000\n")
    assert estimate.available_memory(tmp_path) == 2.5e6 < machine
    (tmp_path / "memory.max").write_text("max\n")
    assert estimate.available_memory(tmp_path) > 2.5e6
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory/memory.limit_in_bytes").write_text("4000000\n")
    (tmp_path / "memory/memory.usage_in_bytes").write_text("1000000\n")
    (tmp_path / "memory/memory.stat").write_text("inactive_file 0\n")
    assert estimate.available_memory(tmp_path) == 3e6
