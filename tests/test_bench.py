"""What of the benchmarks can be tested without measuring: protocol, arithmetic, reports."""

import json
import struct
import sys
from pathlib import Path

import pytest

from benchmarks import bench, comparison, guard, picture, rounds, sections, to_return
from benchmarks.comparison import SACTORY_1, SBX, Wanted
from benchmarks.peers import environment, job
from sactory import settings
from sactory.errors import UserError

pytestmark = pytest.mark.timeout(60)

TRIVIAL = "from benchmarks import worker; print('noise'); worker.serve(lambda: 0, 3)"
DEAD = "from benchmarks import worker; raise RuntimeError('no such thing')"


def trivial(name: str = "trivial", text: str = TRIVIAL) -> rounds.Worker:
    return rounds.Worker(name, (sys.executable, "-c", text))


def entry(name: str, rate: float, **more) -> dict:
    return {"name": name, "per_second": rate, "per_core_second": rate, **more}


def test_contenders_take_turns_and_prints_are_no_answers():
    one, two = rounds.measure([trivial("one"), trivial("two")], rounds=3, seconds=0.01)
    assert (one.name, two.name) == ("one", "two")
    assert one.per_second > 0 and two.per_core_second > 0
    assert len(one.rounds) == 3
    assert one.first_seconds is not None
    json.dumps(one.to_json())


def test_a_contender_that_dies_says_why():
    with pytest.raises(SystemExit, match="'dead' died") as death:
        rounds.measure([trivial(), trivial("dead", DEAD)], rounds=1, seconds=0.01)
    assert "no such thing" in str(death.value)


def test_the_best_of_the_others_counts():
    wanted = Wanted("ours / theirs", "learner", "a", ("b", "c", "absent"))
    entries = [entry("a", 30.0), entry("b", 10.0), entry("c", 20.0)]
    assert comparison.ratio(wanted, entries) == 1.5
    assert comparison.ratio(wanted, entries[1:]) is None
    assert comparison.ratio(wanted, entries[:1]) is None


def test_of_seconds_fewer_are_better():
    wanted = Wanted("time", "to_return", "a", ("b", "c"), "seconds")
    entries = [{"name": "a", "seconds": 100.0}, {"name": "b", "seconds": 150.0}]
    assert comparison.ratio(wanted, [*entries, {"name": "c", "seconds": None}]) == 1.5
    assert comparison.ratio(wanted, [{"name": "a", "seconds": None}, entries[1]]) is None


def test_ratios_of_a_section_by_what_was_measured():
    entries = [entry(SACTORY_1, 140.0), entry("SBX, 1 core", 100.0), entry("SBX, 2 cores", 1.0)]
    assert comparison.ratios("learner", entries) == {
        "learner / SBX one by one": 1.4,
        "learner / best SBX": 1.4,
    }


def test_every_ratio_has_a_name_of_its_own_and_a_section():
    assert len({w.name for w in comparison.WANTED}) == len(comparison.WANTED)
    assert {w.section for w in comparison.WANTED} <= set(sections.SECTIONS)


def test_tables_show_what_is_there():
    entries = [entry("a", 123.4, per_unit={"env": 2.5e-5}), entry("b", 1.234)]
    assert comparison.table("updates", entries).splitlines() == [
        "| updates | per second | per core-second | env, µs each |",
        "|---|---|---|---|",
        "| a | 123 | 123 | 25 |",
        "| b | 1.23 | 1.23 |  |",
    ]
    found = {"learner / SB3": 2.5, "learner / products": 0.6, "learner / CleanRL": 2.0}
    assert comparison.ratio_table(found).splitlines()[2:] == [
        "| learner / SB3 | 2.50 | 2.4 |  | reached |",
        "| learner / CleanRL | 2.00 |  |  |  |",
        "| learner / products | 0.60 | 0.65 | 0.8 | missed |",
    ]


def test_products_are_shown_as_the_updates_they_would_suffice_for():
    product = entry(comparison.PRODUCT, 1000.0, rounds=[(1000.0, 1000.0)], first_seconds=0.1)
    turned = sections._as_updates(product)
    assert turned["per_second"] == pytest.approx(1000 * 2 * 256**3 / 590e6, rel=0.02)
    assert turned["rounds"] == [[turned["per_second"]] * 2]


def test_the_guard_sees_a_fall_of_more_than_15_percent():
    stored = {"a": 2.0, "b": 1.0, "not measured now": 1.0}
    assert guard.fallen(stored, {"a": 1.71, "b": 0.86, "new": 1.0}) == []
    (line,) = guard.fallen(stored, {"a": 1.69, "b": 1.5})
    assert line == "'a' fell by 16%, from 2.00 to 1.69"


def test_the_guard_fails_in_one_line(capsys):
    assert guard.judge({"a": 2.0, "b": 1.0, "c": 1.0}, {"a": 1.0, "b": 0.5}) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "'a' fell by 50%" in line and "'b' fell by 50%" in line
    assert guard.judge({"a": 2.0, "c": 1.0}, {"a": 2.0}) == 0
    assert "c: not measured" in capsys.readouterr().out


def test_peers_get_the_numbers_of_the_shipped_settings():
    ours = settings.SacAgent()
    assert ours.hidden_sizes == (job.HIDDEN, job.HIDDEN)
    assert job.LEARNING_RATE == ours.actor_learning_rate == ours.critic_learning_rate
    assert ours.alpha_learning_rate == job.ALPHA_LEARNING_RATE
    assert (ours.initial_alpha, ours.tau) == (job.INITIAL_ALPHA, job.TAU)
    assert settings.Replay().gamma == job.GAMMA
    assert settings.Learner().batch_size == job.BATCH
    assert "random_steps = 1_000" in Path("configs/tasks/walker_walk.gin").read_text()


def test_a_job_survives_its_command_line(monkeypatch):
    wanted = job.Job("train", cores=2, fused=16)
    words = wanted.words("sbx")
    assert words[:2] == ["-m", "benchmarks.peers.sbx"]
    monkeypatch.setattr(sys, "argv", words[1:])
    assert job.from_command_line() == wanted


def test_a_run_is_judged_by_its_first_evaluation_that_reaches_the_return():
    curve = [(5000, 100.0), (10000, 710.0), (15000, 400.0)]
    reached = to_return.outcome(curve, [10.0, 20.04, 30.0], 700.0)
    assert reached == {
        "seconds": 20.0,
        "env_steps": 10000,
        "curve": [[5000, 100.0], [10000, 710.0]],
    }
    assert to_return.outcome(curve, [10.0, 20.0, 30.0], 900.0)["seconds"] is None


def test_the_median_of_runs_counts_one_that_failed_as_the_slowest():
    runs = [
        {"seconds": s, "env_steps": 1, "curve": [], "load_at_start": 0} for s in (9.0, None, 5.0)
    ]
    entry = to_return.entry("Sactory", runs)
    assert (entry["seconds"], entry["each"]) == (9.0, "9, not reached, 5")
    assert to_return.entry("Sactory", [runs[1], runs[1], runs[0]])["seconds"] is None


def test_only_known_sections_run_and_in_their_order():
    assert bench.chosen_sections("end_to_end, learner") == ["learner", "end_to_end"]
    with pytest.raises(UserError, match="--sections: 'speed' is none of learner"):
        bench.chosen_sections("speed")


@pytest.fixture
def plan(monkeypatch, tmp_path):
    def fails(plan):
        raise UserError("nothing works")

    known = {
        "learner": sections.Section("Good", "updates", lambda p: [entry(SACTORY_1, 2.0)], True),
        "sampling": sections.Section("Bad", "batches", fails),
    }
    monkeypatch.setattr(bench, "SECTIONS", known)
    peers = environment.Peers(tmp_path / "no peers", make=False)
    return sections.Plan(peers, before={"end_to_end": {"old": 1}}, commit={"commit": "abc"})


def test_a_section_that_fails_leaves_the_others(plan, tmp_path, capsys):
    result = tmp_path / "bench.json"
    assert bench.run(["learner", "sampling"], plan, result) == ["sampling"]
    kept = json.loads(result.read_text())
    assert kept["end_to_end"] == {"old": 1}
    assert "sampling" not in kept
    assert kept["learner"]["commit"] == {"commit": "abc"}
    assert kept["learner"]["entries"][0]["per_second"] == 2.0
    assert len(kept["learner"]["load_at_start_and_end"]) == 2
    out = capsys.readouterr().out
    assert "Without SBX, Stable-Baselines3 and CleanRL: no environment" in out
    assert "The section 'sampling' failed: nothing works" in out


@pytest.mark.parametrize("section", ["learner", "end_to_end"])
def test_contenders_have_the_names_that_ratios_ask_for(section, monkeypatch, tmp_path):
    class Whole:
        def __init__(self, name: str):
            self.name = name

    def measured(contenders, count, seconds):
        found = [rounds.Rates(c.name, 2.0, 1.0, None, [(2.0, 1.0)]) for c in contenders]
        for contender in contenders:
            if isinstance(contender, rounds.Worker):
                contender.close()
        return found

    monkeypatch.setattr(sections, "WholeRun", Whole)
    monkeypatch.setattr(sections.rounds, "measure", measured)
    monkeypatch.setattr(sections, "require_cores", lambda count: None)
    peers = environment.Peers(tmp_path, make=False)
    monkeypatch.setattr(peers, "missing", None)
    entries = sections.SECTIONS[section].run(sections.Plan(peers))
    wanted = {w.name for w in comparison.WANTED if w.section == section}
    assert set(comparison.ratios(section, entries)) == wanted
    assert len({e["name"] for e in entries}) == len(entries)


def test_runs_to_the_return_are_not_repeated_until_the_section_is_whole(monkeypatch, tmp_path):
    done: list[int] = []

    def ran(of):
        if of.seed == 2 and len(done) == 1:
            raise UserError("interrupted")
        done.append(of.seed)
        return {"seconds": 10.0, "env_steps": 5000, "curve": []}

    monkeypatch.setattr(to_return, "PARTS", tmp_path)
    monkeypatch.setattr(to_return, "run_ours", ran)
    nobody = environment.Peers(tmp_path / "none", make=False)
    with pytest.raises(UserError, match="interrupted"):
        to_return.measure(nobody, SBX, "abc")
    done.append(0)
    (ours,) = to_return.measure(nobody, SBX, "abc")
    assert done == [1, 0, 2, 3]
    assert (ours["seconds"], len(ours["runs"])) == (10.0, 3)
    to_return.measure(nobody, SBX, "another commit")
    assert done == [1, 0, 2, 3, 1, 2, 3]
    to_return.forget_parts()
    assert list(tmp_path.glob("*.json")) == []


def test_missing_peers_leave_ours(tmp_path):
    peers = environment.Peers(tmp_path / "none", make=False)
    assert "`make bench` makes it" in (peers.missing or "")
    assert sections.peers_that(sections.Plan(peers), "learner", 1, (SBX,)) == []


def test_an_environment_of_others_is_left_alone(tmp_path):
    (tmp_path / "bin").mkdir()
    with pytest.raises(UserError, match="holds something else"):
        environment.prepare(tmp_path)
    assert (tmp_path / "bin").exists()


def test_peers_that_cannot_be_installed_are_one_line(monkeypatch, tmp_path, capsys):
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho fetching\necho 'ERROR: No matching torch' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(environment, "_base_python", lambda: str(broken))
    peers = environment.Peers(tmp_path / "peers", make=True)
    assert peers.missing is not None and "\n" not in peers.missing
    assert "can't be installed: ERROR: No matching torch" in peers.missing
    assert "PyTorch CPU index" in peers.missing
    assert len(capsys.readouterr().out.splitlines()) == 1
    assert not environment.is_ready(tmp_path / "peers")
    environment.Peers(tmp_path / "peers", make=True)  # what it left is no obstacle


def test_the_environment_is_ready_only_for_todays_pins(monkeypatch, tmp_path):
    environment.python(tmp_path).parent.mkdir()
    environment.python(tmp_path).touch()
    (tmp_path / "made-from").write_text(environment._digest())
    assert environment.prepare(tmp_path) == tmp_path / "bin" / "python"
    pins = tmp_path / "requirements.txt"
    pins.write_text("something==2\n")
    monkeypatch.setattr(environment, "PINS", pins)
    assert not environment.is_ready(tmp_path)


def test_the_picture_shows_what_was_measured(tmp_path):
    names = [*comparison.on(1, "SBX", "Sactory"), *comparison.on(2, "Sactory"), comparison.PRODUCT]
    learners = {"entries": [entry(name, 10.0 + i) for i, name in enumerate(names)]}
    assert picture.bars(learners, "per_second") == [("Sactory", 11.0), ("SBX", 10.0)]
    out = tmp_path / "images" / "bench.png"
    assert not picture.draw({"sampling": {"entries": []}}, out)
    assert picture.draw({"learner": learners, "end_to_end": learners}, out)
    data = out.read_bytes()
    width, height = struct.unpack(">II", data[16:24])
    assert data[:4] == b"\x89PNG" and width > 2 * height
