"""What `sactory submit` writes: the plan of steps, the scripts, the site's settings, refusals."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sactory import config
from sactory.errors import UserError
from sactory.run_dir import RunDir
from slurm import job, plan, run_files, site, submit

ROOT = Path(__file__).resolve().parent.parent
TASK = "configs/tasks/cartpole_balance.gin"
pytestmark = pytest.mark.timeout(60)


@pytest.fixture(autouse=True)
def default_site(monkeypatch):
    monkeypatch.delenv(site.SITE_VARIABLE, raising=False)


def settings(*overrides: str) -> config.Config:
    return config.check(config.resolve(TASK, list(overrides)))


def where(steps: plan.Plan) -> dict[str, tuple[int, int]]:
    """Node and CPUs of the step that each program is in."""
    return {name: (step.node, step.cpus) for step in steps.steps for name in step.programs}


def test_on_one_node_every_program_is_a_step_with_its_cpus():
    steps = plan.make(settings("train.cpus = 3", "run.num_collectors = 2", "eval.cpus = 2"))
    assert where(steps) == {
        "replay_server": (0, 1),
        "collect_0": (0, 1),
        "collect_1": (0, 1),
        "train": (0, 3),
        "eval": (0, 2),
    }
    assert (steps.cpus, steps.note) == (8, "")
    assert all(len(step.programs) == 1 for step in steps.steps)


def test_over_several_nodes_server_trainer_and_collectors_are_apart():
    two = where(plan.make(settings(), nodes=2))
    assert {name: node for name, (node, _) in two.items()} == {
        "replay_server": 0,
        "train": 0,
        "eval": 0,
        "collect_0": 1,
    }
    many = where(plan.make(settings("run.num_collectors = 5"), nodes=4))
    assert (many["replay_server"][0], many["train"][0], many["eval"][0]) == (0, 1, 0)
    assert [many[f"collect_{i}"][0] for i in range(5)] == [2, 3, 2, 3, 2]
    with pytest.raises(UserError, match=r"--nodes = 4 leaves 2 nodes to run.num_collectors = 1"):
        plan.make(settings(), nodes=4)


@pytest.mark.parametrize(("limit", "trainer", "others"), [(4, 2, 2), (3, 1, 2), (2, 1, 1)])
def test_on_a_small_node_all_but_the_trainer_share_cpus_and_it_is_said(limit, trainer, others):
    steps = plan.make(settings(), limit=limit)
    found = where(steps)
    assert found.pop("train") == (0, trainer)
    assert set(found.values()) == {(0, others)}
    assert steps.cpus == limit
    assert steps.note == (
        f"the programs want 5 CPUs and a node has {limit}: "
        f"replay_server, collect_0, eval share {others}"
    )


def test_on_one_cpu_everything_shares_it():
    steps = plan.make(settings(), limit=1)
    assert [step.cpus for step in steps.steps] == [1]
    assert "replay_server, collect_0, train, eval share 1" in steps.note


def test_memory_holds_the_replay_where_the_server_is():
    steps = plan.make(settings(), replay_bytes=10e9, nodes=3)
    server = next(s for s in steps.steps if "replay_server" in s.programs)
    assert server.memory_mb >= 12_000
    assert steps.memory_mb >= server.memory_mb


def test_the_script_asks_for_what_its_steps_use():
    steps = plan.make(settings("train.device = 'gpu'"), nodes=3)
    here = site.Site(account="me", partition="long", options="--exclusive", gpu="gpu:a100:1")
    text = job.script(steps, here, "/runs/my run", name="mine", time="90")
    for line in (
        "#SBATCH --nodes=3",
        "#SBATCH --ntasks-per-node=1",
        "#SBATCH --cpus-per-task=2",
        "#SBATCH --time=90",
        "#SBATCH --signal=B:USR1@180",
        "#SBATCH --requeue",
        "#SBATCH --account=me",
        "#SBATCH --partition=long",
        "#SBATCH --exclusive",
        "#SBATCH --gres=gpu:a100:1",
        "RUN='/runs/my run'",
        "    step 1 2 2000 train --gres=gpu:a100:1",
        "    step 2 1 1000 collect_0 --gres=none",
    ):
        assert line in text.splitlines(), line


def test_a_script_of_many_runs_takes_its_own_from_the_list_of_members(tmp_path):
    members = tmp_path / "members"
    members.write_text("/runs/a\n/runs/b\n")
    text = job.script(plan.make(settings()), site.Site(), members=members, array="1-2%1")
    assert "#SBATCH --array=1-2%1" in text
    (line,) = [line for line in text.splitlines() if line.startswith("RUN=")]
    said = subprocess.check_output(["bash", "-c", f"SLURM_ARRAY_TASK_ID=2; {line}; echo $RUN"])
    assert said == b"/runs/b\n"


@pytest.mark.parametrize(
    ("time", "seconds"),
    [
        ("90", 5400),
        ("90:30", 5430),
        ("2:00:00", 7200),
        ("1-12", 129_600),
        ("1-12:30", 131_400),
        ("1-00:00:01", 86_401),
        ("soon", None),
        ("1h", None),
    ],
)
def test_time_limits_are_read_as_slurm_reads_them(time, seconds):
    assert job.seconds(time) == seconds


def test_the_warning_of_a_short_job_leaves_time_to_train():
    assert job.warn_seconds(site.Site(), "3") == 60
    assert job.warn_seconds(site.Site(), "24:00:00") == 180


def test_site_settings_become_options_and_lines(tmp_path, monkeypatch):
    path = tmp_path / "site.ini"
    path.write_text(
        "[job]\naccount = a  \nwarn_seconds = 300\n[environment]\nmodules = python cuda/12\n"
        "script = /opt/env.sh\nscratch = /scratch/$USER\ncontainer = apptainer exec s.sif\n"
        "sactory = sactory\n"
    )
    monkeypatch.setenv(site.SITE_VARIABLE, str(path))
    here = site.read()
    assert here.sbatch_options() == ["--account=a"]
    assert here.warn_seconds == 300
    assert here.command() == ["apptainer", "exec", "s.sif", "sactory"]
    assert here.setup_lines() == [
        "module load python cuda/12",
        "source /opt/env.sh",
        "export TMPDIR=/scratch/$USER",
        'mkdir -p "$TMPDIR"',
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[job]\naccuont = a\n", r"\[job\] has no setting `accuont`: did you mean `account`"),
        ("[job]\ncpus = many\n", "cpus = many must be a whole number above 0"),
        ("account = a\n", "can't be read"),
    ],
)
def test_wrong_site_settings_are_one_line(tmp_path, monkeypatch, text, message):
    (tmp_path / "site.ini").write_text(text)
    monkeypatch.setenv(site.SITE_VARIABLE, str(tmp_path / "site.ini"))
    with pytest.raises(UserError, match=message):
        site.read()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "what to train"),
        ([TASK, "--time", "soon"], "--time = soon must be minutes"),
        ([TASK, "--nodes", "0"], "--nodes = 0 must be at least 1"),
        ([TASK, "--collectors", "-1"], "--collectors = -1 must be 0 or more"),
    ],
)
def test_wrong_flags_are_one_line(words, message):
    with pytest.raises(UserError, match=message):
        submit.main([*words, "--dry_run"])


def test_without_slurm_only_a_dry_run_works_and_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", "/nowhere")
    run = tmp_path / "R"
    with pytest.raises(UserError, match="sbatch is not found"):
        submit.main([TASK, "--run_dir", str(run)])
    assert submit.main([TASK, "--run_dir", str(run), "--nodes", "3", "--dry_run"]) == 0
    assert "    step 2 1 1000 collect_0\n" in capsys.readouterr().out
    assert not run.exists()


def test_several_hosts_get_tls_unless_the_user_says_otherwise(tmp_path):
    code = "import sys; from slurm import submit; submit.main(sys.argv[1:])"
    flags = [TASK, "--dry_run", "--run_dir", str(tmp_path / "R")]
    local = "replay_server.listen = 'local'"
    done = subprocess.run(
        [sys.executable, "-c", code, *flags, "--collectors", "2", "--set", local],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert "takes connections on one host only" in done.stderr


def scripts() -> list[Path]:
    folders = ("slurm", "supervise")
    found = [p for f in folders for e in ("sbatch", "sh") for p in (ROOT / f).glob(f"*.{e}")]
    return sorted([*found, ROOT / ".ci" / "run", ROOT / ".ci" / "setup"])


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_scripts_pass_shellcheck(tmp_path):
    steps = plan.make(settings("run.num_collectors = 3"), nodes=3)
    written = tmp_path / "run.sbatch"
    written.write_text(job.script(steps, site.Site(), tmp_path))
    more = tmp_path / "collectors.sbatch"
    more.write_text(job.collectors(site.Site(), tmp_path, 1, "0-3", 1, 1000, "17"))
    array = tmp_path / "array.slrm"
    members = tmp_path / "a place" / "members"
    array.write_text(job.script(steps, site.Site(), members=members, array="1-6%2"))
    run = RunDir(tmp_path / "another place")
    run.root.mkdir()
    run_files.write(run, run_files.job_script(run, steps, site.Site(), kill_wait=30), site.Site())
    ours = (run.root / "run.slrm", run.root / "run.sh", ROOT / "tests" / "fake_sactory.sh")
    subprocess.run(["shellcheck", *scripts(), written, more, array, *ours], check=True)
