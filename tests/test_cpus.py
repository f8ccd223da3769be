"""Which cores a program gets, and that two runs never get the same."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid

import pytest

from sactory import cpus

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def namespace():
    held = len(cpus._held)
    yield f"sactory-test-{uuid.uuid4().hex}"
    while len(cpus._held) > held:
        cpus._held.pop().close()


@pytest.mark.parametrize("cores", range(1, 130))
@pytest.mark.parametrize("num_collectors", [1, 2, 7])
def test_automatic_shares_fit_or_share_everything(cores, num_collectors):
    server = cpus.automatic_share("replay_server", cores, num_collectors)
    collector = cpus.automatic_share("collect_0", cores, num_collectors)
    trainer = cpus.automatic_share("train", cores, num_collectors)
    assert cpus.automatic_share("eval", cores, num_collectors) == 0
    if cores < 4:
        assert (server, collector, trainer) == (0, 0, 0)
        return
    assert (server, collector) == (1, 1)
    assert 1 <= trainer <= 8
    if num_collectors + 2 <= cores:
        assert server + num_collectors * collector + trainer <= cores


@pytest.mark.parametrize(
    ("cores", "trainer_threads"), [(1, 1), (2, 2), (3, 3)], ids=["one", "two", "three"]
)
def test_few_cores_are_not_pinned(cores, trainer_threads, namespace):
    usable = list(range(cores))
    assert cpus._plan("train", None, 1, usable, namespace) == cpus.CpuPlan(None, trainer_threads)
    for program in ("replay_server", "collect_0", "eval"):
        assert cpus._plan(program, None, 1, usable, namespace) == cpus.CpuPlan(None, 1)


def test_one_run_gets_cores_of_its_own_and_the_second_only_threads(namespace):
    usable = list(range(8))
    programs = ("train", "replay_server", "collect_0", "collect_1", "eval")
    first = {p: cpus._plan(p, None, 2, usable, namespace) for p in programs}
    pinned = [p.pinned for p in first.values() if p.pinned is not None]
    assert sorted(core for cores in pinned for core in cores) == usable
    assert first["train"].threads == 5
    assert first["eval"].pinned is None
    second = cpus._plan("train", None, 2, usable, namespace)
    assert (second.pinned, second.threads) == (None, 2)
    assert "hold" in second.note


def test_trainer_takes_what_is_free(namespace):
    usable = list(range(16))
    assert cpus._plan("replay_server", 13, 1, usable, namespace).threads == 13
    plan = cpus._plan("train", None, 1, usable, namespace)
    assert plan.pinned == frozenset({13, 14, 15})
    assert plan.threads == 3


def test_wanted_cores_come_all_or_not_at_all(namespace):
    usable = [0, 1, 2]
    assert cpus._plan("train", 2, 1, usable, namespace).pinned == {0, 1}
    other = cpus._plan("train", 2, 1, usable, namespace)
    assert (other.pinned, other.threads) == (None, 2)
    assert cpus._plan("collect_0", 1, 1, usable, namespace).pinned == {2}


def test_more_wanted_than_usable_says_so(namespace):
    plan = cpus._plan("train", 99, 1, [0, 1], namespace)
    assert (plan.pinned, plan.threads) == ({0, 1}, 2)
    assert plan.note == "99 cores wanted, 2 usable"


CLAIM = """
import os, sys
from sactory import cpus
plan = cpus.claim("collect_0", 1, 1, sys.argv[1])
assert cpus.current() is plan
print(*sorted(os.sched_getaffinity(0)) if plan.pinned else ["none"], os.environ["OMP_NUM_THREADS"],
      os.environ["TF_NUM_INTRAOP_THREADS"], "numpy" in sys.modules, flush=True)
sys.stdin.read()
"""


def start_claimer(namespace: str) -> tuple[subprocess.Popen[str], str]:
    program = subprocess.Popen(
        [sys.executable, "-c", CLAIM, namespace],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert program.stdout is not None
    core, *rest = program.stdout.readline().split()
    assert rest == ["1", "1", "False"]
    return program, core


def test_processes_get_different_cores_until_none_is_left(namespace):
    total = len(cpus.usable_cores())
    claimers = [start_claimer(namespace) for _ in range(total + 1)]
    try:
        cores = [core for _, core in claimers]
        assert sorted(map(int, cores[:-1])) == sorted(cpus.usable_cores())
        assert cores[-1] == "none"
        claimers[0][0].kill()
        claimers[0][0].wait()
        claimers.append(start_claimer(namespace))
        assert claimers[-1][1] == cores[0]
    finally:
        for program, _ in claimers:
            program.kill()
            program.communicate()


def test_usable_cores_are_within_the_affinity():
    assert set(cpus.usable_cores()) <= os.sched_getaffinity(0)
    assert cpus.usable_cores()


def test_quota_shortens_the_list(monkeypatch):
    monkeypatch.setattr(cpus, "_cgroup_quota", lambda: 0.5)
    assert len(cpus.usable_cores()) == 1


def test_kernel_lists():
    assert cpus._parse_list("0-2,8\n") == {0, 1, 2, 8}


CONFINE = """
import os, sys
from sactory import cpus
plan = cpus.confine(int(sys.argv[2]), sys.argv[1])
os.environ[cpus.GIVEN_VARIABLE] = str(plan.threads)
program = cpus.claim("train", 7, 1, sys.argv[1])
print(len(os.sched_getaffinity(0)), plan.threads, program.threads, program.pinned is not None)
print(plan, flush=True)
"""


def confined(namespace: str, wanted: int) -> list[str]:
    command = [sys.executable, "-c", CONFINE, namespace, str(wanted)]
    return subprocess.check_output(command, text=True).splitlines()


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
def test_a_program_stays_where_its_step_was_confined(namespace):
    assert confined(namespace, 1)[0] == "1 1 1 True"


def test_a_step_that_wants_more_than_there_is_shares_and_says_so(namespace):
    usable = len(cpus.usable_cores())
    numbers, said = confined(namespace, usable + 1)
    assert numbers == f"{len(os.sched_getaffinity(0))} {usable} {usable} True"
    assert f"{usable + 1} wanted: they are shared" in said
    assert "shared" not in confined(namespace, usable)[1]


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
def test_a_step_finds_no_free_cores_and_shares_them(namespace):
    usable = cpus.usable_cores()
    assert cpus._take(usable, len(usable), len(usable), namespace) is not None
    numbers, said = confined(namespace, 1)
    assert numbers == f"{len(usable)} 1 1 False"
    assert "other programs hold the cores" in said
