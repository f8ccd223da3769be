"""Edits of a checkpoint: changed settings, bad items, seeds."""

import numpy as np
import pytest
import reverb
import tensorflow as tf

from sactory import settings, tables
from sactory.errors import UserError
from sactory.run_dir import write_json
from tests.replay_site import ROW, Site, make_run, own_time_zone, row

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(autouse=True)
def time_zone():
    with own_time_zone():
        yield


@pytest.fixture
def serve(tmp_path):
    sites = []

    def start(name="run", text="", **kwargs):
        sites.append(Site(make_run(tmp_path / name, text=text), **kwargs).start())
        return sites[-1]

    yield start
    for site in sites:
        site.stop()


def saved(site, rows=40):
    site.write([row(i) for i in range(rows)])
    assert site.checkpoints.save(site.client)
    site.stop()
    return site


def test_a_smaller_capacity_drops_the_oldest_and_keeps_the_counters(serve):
    saved(serve())
    site = serve(capacity=15)
    info = site.info
    assert (info.max_size, info.current_size) == (15, 15)
    assert info.rate_limiter_info.insert_stats.completed == 40
    assert site.first_numbers() == set(range(25, 40))
    site.write([row(40)])
    assert site.first_numbers() == set(range(26, 41)), "the oldest still goes first"
    assert site.checkpoints.save(site.client)
    site.stop()
    again = serve(capacity=500)
    assert (again.info.max_size, again.info.current_size) == (500, 15)
    assert again.first_numbers() == set(range(26, 41))


def test_settings_that_did_not_change_leave_the_checkpoint_alone(serve):
    saved(serve())
    before = sorted(p.name for p in make_run(serve().run_dir.root).replay_checkpoints.iterdir())
    site = serve()
    assert sorted(p.name for p in site.run_dir.replay_checkpoints.iterdir()) == before


def test_the_table_of_another_run_makes_room_for_ones_own(serve):
    saved(serve(run_id="parent"))
    site = serve(run_id="child")
    infos = site.client.server_info(timeout=5)
    assert tables.identity("child") in infos and tables.identity("parent") not in infos
    assert site.info.current_size == 40


def test_items_of_a_table_that_is_gone_go_with_it(serve):
    site = serve()
    site.client.insert(np.zeros(5, np.float32), {tables.WEIGHTS: 1.0})
    saved(site)
    replay = tables.build_tables(ROW, site.limits, 1, "a")[0]
    fewer = serve(tables_of=lambda: [replay, reverb.Table.queue("new", 5)])
    infos = fewer.client.server_info(timeout=5)
    assert sorted(infos) == ["new", tables.REPLAY]
    assert fewer.first_numbers() == set(range(40))


@pytest.mark.parametrize("after", [0.5, 3.0, None])
def test_another_rate_leaves_no_debt(serve, after):
    site = serve(updates_per_row=1.0)
    site.write([row(i) for i in range(40)])
    drawn = 8 * 30 - 16  # 30 rows beyond the random ones, 8 rows a batch; two batches behind
    site.first_numbers(drawn)
    counted = site.info.rate_limiter_info.sample_stats.completed
    assert site.checkpoints.save(site.client)
    site.stop()
    other = serve(updates_per_row=after)
    info = other.info.rate_limiter_info
    assert info.insert_stats.completed == 40
    lead = counted - 8 * 30
    assert info.sample_stats.completed == (counted if after is None else 8 * after * 30 + lead)
    if after is not None:
        assert info.samples_per_insert == 8 * after
    other.stop()


def test_rows_of_another_form_are_refused(serve):
    saved(serve())
    with pytest.raises(UserError, match=r"float32 \[1, 8\] .* run's are float32 \[2, 8\]"):
        serve(segment_length=2)


def with_request(site):
    write_json(site.run_dir.repair, {"reason": "rows that are not finite", "time": 1.0})
    return site


@pytest.mark.parametrize("length", [1, 2])
def test_bad_items_are_taken_out_and_all_good_ones_stay(serve, length):
    site = serve(segment_length=length)
    poisons = [
        (np.zeros([length, 3], np.float32), 1.0),  # wrong shape
        (np.zeros([length + 1, 8], np.float32), 1.0),
        (np.zeros([length, 8], np.int32), 1.0),  # wrong type
        (np.full([length, 8], np.nan, np.float32), 1.0),
        (np.stack([row(3)] * length) * np.float32(np.inf), 1.0),
        (np.stack([row(3)] * length) * np.float32(1e25), 1.0),
        (np.stack([row(3)] * length), -1.0),  # negative priority
        (np.stack([row(3)] * length), np.inf),
    ]
    for i, (array, priority) in enumerate(poisons):
        site.write([row(j) for j in range(20 * i, 20 * i + 20)])
        site.write_item(array, priority)
    bad_row = row(1).copy()
    bad_row[4] = np.nan
    first = 20 * len(poisons)
    site.write([row(first), row(first + 1), bad_row, *map(row, range(first + 2, first + 7))])
    count = site.info.current_size
    assert site.checkpoints.save(with_request(site).client)
    site.stop()
    site = serve(segment_length=length)
    status = site.status()
    assert status["repaired_items"] == len(poisons) + 1
    assert site.info.current_size == count - len(poisons) - 1
    gone = {first + 2} if length == 2 else set()  # it shared a segment with the bad row
    assert site.first_numbers(4000) == set(range(first + 7)) - gone
    assert not site.run_dir.repair.exists()
    dataset = reverb.TrajectoryDataset(
        f"127.0.0.1:{site.server.port}", tables.REPLAY, tf.float32, tf.TensorShape([length, 8]), 8
    )
    batch = next(iter(dataset.batch(500)))
    assert np.isfinite(batch.data.numpy()).all()
    site.stop()
    assert serve(segment_length=length).status()["repaired_items"] == len(poisons) + 1


def test_a_priority_that_killed_its_table_is_taken_out(serve):
    def prioritized():
        return [
            reverb.Table(
                tables.REPLAY,
                sampler=reverb.selectors.Prioritized(0.6),
                remover=reverb.selectors.Fifo(),
                max_size=100,
                rate_limiter=reverb.rate_limiters.MinSize(1),
                signature=tf.TensorSpec([1, ROW.size], tf.float32),
            )
        ]

    site = serve(tables_of=prioritized)
    site.write([row(i) for i in range(10)])
    site.write_item(row(3)[None], -1.0)
    assert site.checkpoints.save(with_request(site).client), "a dead table can be saved"
    site.stop()
    site = serve(tables_of=prioritized)
    assert site.first_numbers() == set(range(10))
    site.write([row(10)])
    assert site.info.current_size == 11


def test_a_request_without_a_bad_item_changes_nothing(serve):
    site = saved(with_request(serve()))
    write_json(site.run_dir.repair, {"reason": "", "time": 1.0})
    site = serve()
    assert site.info.current_size == 40 and not site.run_dir.repair.exists()


def demonstrations(path, count=30, **changes):
    rows = np.stack([row(i) for i in range(count)])
    arrays = {
        "observation": rows[:, :2],
        "action": rows[:, 2:3],
        "reward": rows[:, 3],
        "discount": np.ones(count),
        "next_observation": rows[:, 5:7],
        **changes,
    }
    np.savez(path, **{k: v for k, v in arrays.items() if v is not None})
    return str(path)


@pytest.mark.parametrize("length", [1, 4])
def test_demonstrations_are_entered_once_and_count_as_no_rows_of_the_run(serve, tmp_path, length):
    path = demonstrations(tmp_path / "demo.npz")
    site = serve(seed_from=path, segment_length=length)
    whole = 30 // length * length
    assert site.info.current_size == 30 // length
    assert site.info.rate_limiter_info.insert_stats.completed == 0
    assert site.first_numbers() == set(range(30 - whole, 30))
    site.write([row(i) for i in range(30, 34)])
    assert site.checkpoints.save(site.client)
    site.stop()
    again = serve(seed_from=path, segment_length=length)
    assert again.info.current_size == (whole + 4) // length
    assert again.info.rate_limiter_info.insert_stats.completed == 4 // length
    again.stop()
    assert serve("small", capacity=20, seed_from=path).first_numbers() == set(range(10, 30))


def test_the_rows_of_another_run(serve, tmp_path):
    source = serve("source")
    source.write_item(np.full([1, 8], np.nan, np.float32))
    saved(source, rows=40)
    kwargs = {"capacity": 25, "seed_from": str(source.run_dir), "updates_per_row": 1.0}
    site = serve("new", **kwargs)
    assert site.info.current_size == 25
    info = site.info.rate_limiter_info
    assert (info.insert_stats.completed, info.sample_stats.completed) == (0, 0)
    site.write([row(i) for i in range(40, 51)])  # one more than the random rows
    assert site.first_numbers(8) <= set(range(26, 51))
    site.stop()
    assert serve("new", **kwargs).info.current_size == 25, "from the seed's own checkpoint"


BAD_SEEDS = {
    "there is no such file": None,
    "it is no .npz": b"no",
    "it is no .npz as np.savez writes it .EOFError": b"",
    "it is no .npz as np.savez writes it .ValueError: it is one array": np.ones(30),
    "it is no .npz as np.savez writes it .error: Error -3 while decompressing": "flipped",
    "'reward' is one number": {"reward": 1.0},
    "it holds 0 rows, at least replay.segment_length = 1": {"reward": np.zeros(0)},
    "it holds 3 rows, at least replay.segment_length = 4": {"count": 3},
    "the array 'reward' is missing": {"reward": None},
    r"'observation' is float32 \[30, 3\]": {"observation": np.zeros([30, 3], np.float32)},
    "'reward' holds NaN": {"reward": np.full(30, np.nan)},
    "'action' goes from -2 to -2, outside of -1 to 1": {"action": np.full([30, 1], -2.0)},
    "'discount' is neither 0": {"discount": np.full(30, 0.99)},
}


def flip_compressed(path):
    """Spoils the compressed data of an .npz, not the directory of its members."""
    np.savez_compressed(path, observation=np.ones([30, 2]))
    data = bytearray(path.read_bytes())
    name, extra = (int.from_bytes(data[at : at + 2], "little") for at in (26, 28))  # their lengths
    start = 30 + name + extra
    data[start : start + 4] = b"\xff" * 4
    path.write_bytes(data)


@pytest.mark.parametrize("message", BAD_SEEDS)
def test_a_seed_that_does_not_fit_is_refused(serve, tmp_path, message):
    path, how = tmp_path / "demo.npz", BAD_SEEDS[message]
    if isinstance(how, bytes):
        path.write_bytes(how)
    elif isinstance(how, np.ndarray):
        with path.open("wb") as f:
            np.save(f, how)
    elif how == "flipped":
        flip_compressed(path)
    elif how is not None:
        demonstrations(path, **how)
    with pytest.raises(UserError, match=f"replay.seed_from = '{path}': {message}"):
        serve(seed_from=str(path), segment_length=4 if message.startswith("it holds 3") else 1)


def test_a_run_with_other_rows_is_no_seed(serve):
    source = saved(serve("source", text="replay.n_step = 3\n"))
    with pytest.raises(UserError, match=r"its replay.n_step is 3, this run's 1"):
        serve("new", seed_from=str(source.run_dir))
    empty = make_run(source.run_dir.root.with_name("empty"))
    with pytest.raises(UserError, match="it has no whole checkpoint"):
        serve("other", seed_from=str(empty))
    with pytest.raises(UserError, match=r"replay.seed_from = 'demo.npz'"):
        settings.Replay(seed_from="demo.npz")
