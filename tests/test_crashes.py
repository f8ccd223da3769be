"""What counts as a crash while a checkpoint is loaded, and what does not."""

import subprocess
import sys

import pytest

from replay_server.crashes import Crashes
from sactory.run_dir import RunDir

pytestmark = pytest.mark.timeout(60)

LOAD = """
import os, resource, signal, sys
from replay_server.crashes import Crashes
from sactory.run_dir import RunDir

resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
with Crashes(RunDir(sys.argv[1])).watched():
    exec(sys.argv[2])
"""
COUNTED = {
    "os.abort()": 1,
    "os.kill(os.getpid(), signal.SIGSEGV)": 1,
    "raise RuntimeError": 1,
    "os.kill(os.getpid(), signal.SIGKILL)": 0,
    "os._exit(75)": 0,
    "pass": 0,
}


def load(run_dir, end):
    subprocess.run([sys.executable, "-c", LOAD, str(run_dir), end], stderr=subprocess.DEVNULL)


@pytest.mark.parametrize("end", COUNTED)
def test_only_a_crash_counts(tmp_path, end):
    run_dir = RunDir(tmp_path)
    load(run_dir, end)
    assert Crashes(run_dir).count() == COUNTED[end]


def test_crashes_are_counted_over_kills_until_a_load_goes_well(tmp_path):
    run_dir = RunDir(tmp_path)
    for end in ("os.abort()", "os._exit(75)", "os.abort()"):
        load(run_dir, end)
    assert Crashes(run_dir).count() == 2
    load(run_dir, "pass")
    assert Crashes(run_dir).count() == 0
