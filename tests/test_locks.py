"""Locks of a run: held on a full disk too, and asked for without a trace."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from sactory.errors import UserError
from sactory.locks import LockedError, hold_lock, is_locked
from sactory.run_dir import RunDir
from supervise import stop

pytestmark = pytest.mark.timeout(60)
HOLD = "import sys; from pathlib import Path; from sactory.locks import hold_lock as h; "


def test_a_second_holder_is_refused_until_the_first_one_ends(tmp_path):
    path = tmp_path / "locks" / "train"
    held = hold_lock(path)
    assert path.read_text() == f"{os.getpid()}\n" and is_locked(path)
    with pytest.raises(LockedError):
        hold_lock(path)
    with pytest.raises(UserError, match="another trainer"):
        hold_lock(path, "another trainer")
    os.close(held)
    assert not is_locked(path)


def test_a_full_disk_does_not_stop_who_takes_a_lock(tmp_path):
    path = tmp_path / "run"
    path.write_text("4711\n")
    done = subprocess.run(
        [sys.executable, "-c", f"{HOLD} h(Path(sys.argv[1])); print('held')", str(path)],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)),
    )
    assert (done.stdout, done.stderr) == ("held\n", "")
    assert path.read_text() == "", "a wrong owner is worse than none"


def test_stop_asks_for_a_lock_without_writing_to_it(tmp_path):
    run_dir = RunDir(tmp_path)
    assert not stop.is_held(run_dir)
    assert not run_dir.lock("run").parent.exists()
    os.close(hold_lock(run_dir.lock("run")))
    run_dir.lock("run").write_text("4711\n")
    assert not stop.is_held(run_dir)
    assert run_dir.lock("run").read_text() == "4711\n"
    held = hold_lock(run_dir.lock("run"))
    assert stop.is_held(run_dir)
    os.close(held)
