"""What a replay server starts from when its files are damaged, foreign or of other settings."""

import os
import shutil

import pytest

from replay_server import offline
from replay_server.manifest import NAME
from sactory import tables
from sactory.run_dir import read_json
from tests.replay_site import Site, copy_run, make_run, own_time_zone, row

pytestmark = pytest.mark.timeout(120)
OLD, NEW = 20, 30  # rows in the two checkpoints of the run
FUTURE = "2099-01-01T00:00:00.5+00:00"


@pytest.fixture(autouse=True)
def time_zone():
    with own_time_zone():
        yield


@pytest.fixture(scope="module")
def golden(tmp_path_factory):
    """A run with two checkpoints."""
    run_dir = make_run(tmp_path_factory.mktemp("golden") / "run")
    with own_time_zone():
        site = Site(run_dir).start()
        for start, end in ((0, OLD), (OLD, NEW)):
            site.write([row(i) for i in range(start, end)])
            assert site.checkpoints.save(site.client)
        site.stop()
    return run_dir


@pytest.fixture
def run_dir(golden, tmp_path):
    return copy_run(golden, tmp_path / "run")


@pytest.fixture
def serve(run_dir):
    sites = []

    def start(**kwargs):
        sites.append(Site(run_dir, **kwargs).start())
        return sites[-1]

    yield start
    for site in sites:
        site.stop()


def newest(directory):
    return max(p for p in directory.iterdir() if p.is_dir())


def roots(run_dir):
    return sorted(p.name for p in run_dir.replay_checkpoints.iterdir())


def in_quarantine(run_dir):
    names = os.listdir(run_dir.quarantine) if run_dir.quarantine.exists() else []
    return [name for name in names if not name.endswith(".why")]


def change(name, how):
    """Damages a file of the newest checkpoint, which its copy in the history shares."""

    def damage(run_dir):
        path = newest(run_dir.replay_checkpoints) / name
        data = bytearray(path.read_bytes())
        if how == "truncated":
            data = data[: len(data) // 2]
        elif how == "bit-flipped":
            data[len(data) // 2] ^= 1
        elif how == "empty":
            data = b""
        with open(path, "r+b") as f:  # the same inode
            f.truncate(0)
            f.write(data)

    return damage


def remove(name, everywhere=False):
    def damage(run_dir):
        (newest(run_dir.replay_checkpoints) / name).unlink()
        if everywhere:
            (newest(run_dir.replay_history) / name).unlink()

    return damage


def remove_all(*names):
    def damage(run_dir):
        for name in names:
            shutil.rmtree(getattr(run_dir, name))

    return damage


def foreign_file(run_dir):
    (run_dir.replay_checkpoints / "zzz_notes.txt").write_text("mine")


def foreign_directory(name):
    def damage(run_dir):
        shutil.copytree(newest(run_dir.replay_checkpoints), run_dir.replay_checkpoints / name)

    return damage


def cut_off(run_dir):
    path = run_dir.replay_checkpoints / "2026-12-31T00:00:00.5+00:00"
    path.mkdir()
    (path / offline.TABLES).write_bytes(b"half")


def clock_set_back(run_dir):
    for root in (run_dir.replay_checkpoints, run_dir.replay_history):
        os.replace(newest(root), root / FUTURE)


def no_manifest_yet(run_dir):
    shutil.rmtree(newest(run_dir.replay_history))


def bad_manifest(run_dir):
    (newest(run_dir.replay_history) / NAME).write_text('{"sequence": ')


def a_file_instead(run_dir):
    shutil.rmtree(run_dir.replay_checkpoints)
    run_dir.replay_checkpoints.write_text("x")


DAMAGE = {
    # name: damage, rows afterwards, whether something is named and kept in quarantine
    **{
        f"{how} {name}": (change(name, how), OLD, True)
        for how in ("truncated", "bit-flipped", "empty")
        for name in (offline.TABLES, offline.ITEMS, offline.CHUNKS)
    },
    **{f"{name} missing": (remove(name), NEW, True) for name in offline.FILES},
    **{
        f"{name} missing everywhere": (remove(name, everywhere=True), OLD, True)
        for name in offline.FILES
    },
    "Reverb's root missing": (remove_all("replay_checkpoints"), NEW, False),
    "history missing": (remove_all("replay_history"), NEW, False),
    "foreign file": (foreign_file, NEW, True),
    "foreign directory": (foreign_directory("zzz"), NEW, True),
    "another time zone": (foreign_directory("2026-11-21T15:04:21.96+02:00"), NEW, True),
    "stamp from the future": (foreign_directory(FUTURE), NEW, True),
    "clock set back": (clock_set_back, NEW, False),
    "save cut off": (cut_off, NEW, False),
    "killed before the manifest": (no_manifest_yet, NEW, False),
    "manifest damaged": (bad_manifest, NEW, False),
    "a file instead of the root": (a_file_instead, NEW, True),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_matrix(run_dir, serve, case):
    damage, rows, named = DAMAGE[case]
    damage(run_dir)
    site = serve()
    assert site.info.current_size == rows
    assert site.info.rate_limiter_info.insert_stats.completed == rows
    assert site.first_numbers() == set(range(rows))
    assert site.checkpoints.is_loaded({tables.REPLAY: site.info})
    quarantine, roots_before = in_quarantine(run_dir), roots(run_dir)
    assert bool(quarantine) == named
    assert len(roots_before) == 1
    site.write([row(rows)])
    assert site.checkpoints.save(site.client), "the next save works"
    assert roots(run_dir) != roots_before and len(roots(run_dir)) == 1
    recovered = " ".join(site.status()["recovered"])
    assert all(name in recovered for name in quarantine)
    site.stop()
    again = serve()
    assert again.info.current_size == rows + 1
    assert in_quarantine(run_dir) == quarantine, "nothing is found damaged twice"
    assert again.status()["recovered"] == []


def test_a_strangers_file_is_kept(run_dir, serve):
    foreign_file(run_dir)
    site = serve()
    (name,) = in_quarantine(run_dir)
    assert (run_dir.quarantine / name).read_text() == "mine"
    assert "no checkpoint" in (run_dir.quarantine / f"{name}.why").read_text()
    foreign_file(run_dir)  # while the server runs, too
    assert site.checkpoints.save(site.client)
    assert len(in_quarantine(run_dir)) == 2 and len(roots(run_dir)) == 1


def test_a_clock_that_is_set_back_while_it_runs_loses_no_save(run_dir, serve):
    site = serve()
    clock_set_back(run_dir)
    site.write([row(NEW)])
    assert site.checkpoints.save(site.client)
    site.stop()
    assert serve().info.current_size == NEW + 1


@pytest.mark.parametrize("lost", ["damaged", "deleted"])
def test_an_empty_start_is_never_silent(run_dir, serve, lost):
    if lost == "deleted":
        serve().status()  # has reported its checkpoint
        remove_all("replay_checkpoints", "replay_history")(run_dir)
    else:
        for path in run_dir.replay_history.glob(f"*/{offline.ITEMS}"):
            path.write_bytes(b"")
        no_manifest_yet(run_dir)
    site = serve()
    assert site.info.current_size == 0
    assert "it starts empty" in site.status()["recovered"][-1]


def test_a_fresh_run_starts_empty_and_says_nothing(tmp_path):
    site = Site(make_run(tmp_path / "fresh")).start()
    assert site.info.current_size == 0
    site.stop()
    assert site.status()["recovered"] == []


def test_a_server_that_holds_less_than_promised_starts_again_from_an_older_copy(run_dir, serve):
    site = serve()
    site.client.reset(tables.REPLAY)
    assert not site.checkpoints.is_loaded({tables.REPLAY: site.info})
    site.stop()
    assert serve().info.current_size == OLD


def starts(run_dir, times, crash):
    """Rows that each of several starts went on from; Reverb crashes in all, or all are killed."""
    sizes, last = [], {}
    for _ in range(times):
        site = Site(run_dir)
        site.checkpoints.prepare(site.tables)
        if crash:
            with pytest.raises(RuntimeError), site.checkpoints.loading():
                raise RuntimeError
        last = site.status()
        sizes.append(last["checkpoint_rows"])
    return sizes, " ".join(last["recovered"])


def test_a_copy_that_crashes_reverb_is_given_up_in_the_end_but_never_the_last(run_dir):
    sizes, recovered = starts(run_dir, 9, crash=True)
    assert sizes == [NEW] * 4 + [OLD] * 5
    (name,) = in_quarantine(run_dir)
    assert "crashed 4 times" in (run_dir.quarantine / f"{name}.why").read_text()
    assert "it is the last one" in recovered


def test_a_server_that_is_killed_while_it_loads_keeps_its_copy(run_dir, serve):
    sizes, recovered = starts(run_dir, 6, crash=False)
    assert sizes == [NEW] * 6 and not recovered and not in_quarantine(run_dir)
    assert serve().info.current_size == NEW


def test_old_copies_are_pruned_and_manifests_tell(run_dir, serve):
    site = serve(keep_checkpoints=2)
    for _ in range(3):
        assert site.checkpoints.save(site.client)
    copies = sorted(run_dir.replay_history.glob(f"*/{NAME}"))
    assert len(copies) == 2
    manifest = read_json(copies[-1])
    assert manifest["sequence"] == 5
    assert manifest["tables"][tables.REPLAY]["items"] == NEW
    assert manifest["files"][offline.DONE]["size"] == 0
    assert copies[-1].parent.name == roots(run_dir)[0]
    links = [os.stat(p / offline.CHUNKS).st_nlink for p in run_dir.replay_checkpoints.iterdir()]
    assert links == [2], "the copy costs no space"


def test_the_last_save_only_starts_if_it_fits_the_grace(run_dir, serve):
    site = serve()
    before = roots(run_dir)
    site.checkpoints._duration = 10.0
    assert not site.checkpoints.save_last(site.client, left=14.0)
    assert roots(run_dir) == before
    assert site.checkpoints.save_last(site.client, left=16.0)
    assert roots(run_dir) != before


def test_the_first_save_comes_at_once_and_not_again_after_a_restart(run_dir, serve, tmp_path):
    fresh = Site(make_run(tmp_path / "fresh")).start()
    fresh.checkpoints.save_if_due(fresh.client)
    assert len(roots(fresh.run_dir)) == 1
    fresh.stop()
    site, before = serve(), roots(run_dir)
    site.checkpoints.save_if_due(site.client)
    assert roots(run_dir) == before
