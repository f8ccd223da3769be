"""A curriculum's way into a run: checked and frozen by init, compared ever after, never amended."""

from __future__ import annotations

import hashlib
import json

import pytest

from sactory import amend, config, init_run, provenance, settings, trainer_checkpoints
from sactory.curriculum import binding, load
from sactory.errors import UserError
from sactory.fork import Origin
from sactory.run_dir import RunDir, read_json
from tests.test_fork import add_checkpoint
from tests.trainer_rig import SAC, SETTINGS

pytestmark = pytest.mark.timeout(120)

ENV = "envs.load.name = 'python:tests.lesson_env:make'"
PARAMS = {"level": {"type": "schedule", "kind": "linear", "points": [[0, 1.0], [100, 3.0]]}}


def write(path, params=PARAMS, **block):
    path.write_text(json.dumps({"curriculum": {"params": params, **block}}, indent=1))
    return path


def init(root, *overrides, file=SAC, origin=None):
    run_dir = RunDir(root)
    chosen = [] if origin else [*SETTINGS, ENV, *overrides]
    return init_run.init(run_dir, file, chosen or overrides, origin), run_dir


def named(path):
    return f"envs.load.curriculum = '{path}'"


def test_init_freezes_the_file_and_the_run_reads_its_copy(tmp_path):
    path = write(tmp_path / "mine.json")
    made, run_dir = init(tmp_path / "run", named(path))
    assert made and run_dir.curriculum.read_text() == path.read_text()
    record = read_json(run_dir.provenance)
    assert record["curriculum"] == str(path)
    assert record["curriculum_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    frozen = load(path)
    path.unlink()
    config.load(run_dir)
    assert settings.Env().curriculum == "curriculum.json"
    assert binding.load_for_run(run_dir) == frozen
    assert provenance.check_sources(run_dir) == []
    run_dir.curriculum.write_text(run_dir.curriculum.read_text().replace("3.0", "4.0"))
    (warning,) = provenance.check_sources(run_dir)
    assert "curriculum.json was edited since init" in warning
    run_dir.curriculum.unlink()  # never a silent run without one
    with pytest.raises(UserError, match=r"curriculum.json does not exist"):
        binding.load_for_run(run_dir)


def test_a_run_without_a_curriculum_has_none(tmp_path):
    _, run_dir = init(tmp_path / "run")
    config.load(run_dir)
    assert binding.load_for_run(run_dir) is None and not run_dir.curriculum.exists()
    assert "curriculum" not in read_json(run_dir.provenance)


def test_a_file_is_found_beside_the_configuration_that_names_it(tmp_path):
    (tmp_path / "task").mkdir()
    write(tmp_path / "task" / "mine.json")
    chosen = [*SETTINGS, ENV, named("mine.json")]
    (tmp_path / "task" / "inner.gin").write_text("\n".join([f"include '{SAC}'", *chosen]))
    (tmp_path / "outer.gin").write_text("include 'task/inner.gin'\n")
    run_dir = RunDir(tmp_path / "run")
    assert init_run.init(run_dir, tmp_path / "outer.gin")
    assert run_dir.curriculum.exists()


@pytest.mark.parametrize(
    ("params", "arguments", "message"),
    [
        ({"levle": 1.0}, {}, "$.curriculum.params.levle: the environment has no such parameter"),
        ({"level": "high"}, {}, "$.curriculum.params.level is str"),
        ({"level": 11.0}, {}, "reaches 11, but the environment takes at most 10"),
        ({"level": {"type": "unifrom"}}, {}, '$.curriculum.params.level.type = "unifrom": must be'),
        ({"penalty_scale": 1.0}, {"reward": True}, "changes the reward"),
    ],
)
def test_what_does_not_fit_the_environment_is_refused_before_anything_is_written(
    tmp_path, params, arguments, message
):
    path = write(tmp_path / "mine.json", params)
    with pytest.raises(UserError) as caught:
        init(tmp_path / "run", named(path), f"envs.load.task_kwargs = {arguments}")
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert "envs.load.curriculum" in str(caught.value) and not (tmp_path / "run").exists()


def test_measures_that_the_environment_does_not_report_are_refused(tmp_path):
    updown = {"type": "updown", "up": 9.0, "down": 1.0, "step_up": 0.1, "step_down": 0.1}
    params = {"level": {"type": "lerp", "from": 0.0, "to": 1.0}}
    path = write(tmp_path / "mine.json", params, difficulty={**updown, "measure": "peak_torque"})
    with pytest.raises(UserError, match="needs episodes that report peak_torque"):
        init(tmp_path / "run", named(path))
    write(path, params, difficulty={**updown, "measure": "peak_force"})
    assert init(tmp_path / "run", named(path))[0]


def test_an_environment_without_parameters_is_refused(tmp_path):
    path = write(tmp_path / "mine.json")
    toy = "envs.load.name = 'python:tests.toy_env:make'"
    with pytest.raises(UserError, match="has no parameters that a curriculum could set"):
        init(tmp_path / "run", toy, named(path))


def test_a_missing_file_is_named_with_its_place(tmp_path):
    with pytest.raises(UserError, match=r"--set: envs.load.curriculum: .*gone.json does not exist"):
        init(tmp_path / "run", named(tmp_path / "gone.json"))


def test_the_same_content_resumes_and_another_is_refused(tmp_path):
    path = write(tmp_path / "mine.json")
    _, run_dir = init(tmp_path / "run", named(path))
    path.write_text(json.dumps(json.loads(path.read_text())))  # the same in one line
    assert init(tmp_path / "run", named(path))[0] is False
    other = write(tmp_path / "other.json", {"level": 2.0})
    with pytest.raises(UserError, match=r"\+ envs.load.curriculum: .*other.json"):
        init(tmp_path / "run", named(other))
    with pytest.raises(UserError, match=r"- envs.load.curriculum = 'curriculum.json'"):
        init(tmp_path / "run")
    with pytest.raises(UserError, match=r"a run keeps its envs.load.curriculum"):
        amend.amend(run_dir, [named(other)])
    assert amend.amend(run_dir, ["run.max_env_steps = 200_000"])
    assert run_dir.curriculum.read_text() != other.read_text()


@pytest.mark.parametrize("change", [None, "other", "none"])
def test_a_fork_goes_on_with_its_lesson_or_begins_another_curriculum(tmp_path, change):
    _, old = init(tmp_path / "old", named(write(tmp_path / "mine.json")))
    checkpoint = add_checkpoint(old, 100, 1_000)
    state = trainer_checkpoints.read(checkpoint)["state"]
    trainer_checkpoints.seal(checkpoint, {**state, "curriculum": {"state": "of the lesson"}})
    other = write(tmp_path / "other.json", {"level": 2.0})
    overrides = {"other": [named(other)], "none": ["envs.load.curriculum = None"]}.get(change, [])
    origin = Origin.parse(str(old), None, None)
    made, new = init(tmp_path / "new", *overrides, file=old.config, origin=origin)
    assert made
    taken = trainer_checkpoints.read(new.trainer_checkpoints / checkpoint.name)["state"]
    assert taken["curriculum"] == (None if change else {"state": "of the lesson"})
    assert taken["elapsed"] == 0.0 and taken["foreign_rows"] is None
    frozen = {None: old.curriculum, "other": other}.get(change)
    assert new.curriculum.exists() == (frozen is not None)
    assert frozen is None or new.curriculum.read_text() == frozen.read_text()
    again = init(tmp_path / "new", *overrides, file=old.config, origin=origin)
    assert again[0] is False
