"""The model of how a run scales: its sums, its units and who it calls the bottleneck."""

import dataclasses

import pytest

from benchmarks.scaling.model import Cost, Costs, Line, Situation, batch, loads, predict

pytestmark = pytest.mark.timeout(60)

NOTHING = Line(Cost(), Cost())
FREE = Costs(0.0, NOTHING, NOTHING, NOTHING, NOTHING, Cost(), Cost(), Cost(), Cost(), Cost())
COSTS = Costs(
    base=0.02,
    insert=Line(Cost(100e-6, 50e-6, 200e-6, 300, 50), Cost(1e-6, 0, 2e-6, 172, 0)),
    sample=Line(Cost(4e-6, 1e-6, 9e-6, 5, 200), Cost(0.1e-6, 0, 0.3e-6, 0, 172)),
    fetch=Line(Cost(500e-6, 200e-6, 1e-3, 500, 500), Cost(1e-9, 1e-9, 1e-9, 0, 1)),
    publish=Line(Cost(300e-6, 100e-6, 500e-6, 300, 50), Cost(1e-9, 1e-9, 1e-9, 1, 0)),
    report=Cost(150e-6, 60e-6, 300e-6, 500, 50),
    drain=Cost(20e-6, 5e-6, 50e-6, 5, 200),
    probe=Cost(200e-6, 60e-6, 300e-6, 50, 2000),
    read_state=Cost(300e-6, 100e-6, 900e-6, 300, 500),
    tell_state=Cost(150e-6, 60e-6, 300e-6, 400, 50),
)
SYNC = Situation(collectors=4, rows_per_second=20)
ASYNC = dataclasses.replace(SYNC, updates_per_row=None, sync=False)


def test_a_line_goes_through_both_points_and_never_below_zero():
    line = Line.through((1, Cost(10, client=3)), (16, Cost(40, client=3)))
    assert line.of(1).server == pytest.approx(10) and line.of(16).server == pytest.approx(40)
    assert line.of(64).client == pytest.approx(3)
    shrinking = Line.through((1, Cost(40)), (16, Cost(10)))
    assert shrinking.of(1000).server == pytest.approx(40)


def test_costs_survive_json():
    assert Costs.from_json(dataclasses.asdict(COSTS)) == COSTS


def test_a_batch_is_its_items():
    assert batch(COSTS, SYNC).server == pytest.approx(256 * 4.1e-6)
    of_16 = dataclasses.replace(SYNC, segment_length=16)
    assert batch(COSTS, of_16).server == pytest.approx(16 * 4e-6 + 256 * 0.1e-6)


def test_loads_are_rates_times_costs():
    situation = Situation(
        collectors=10, rows_per_second=8, server_cores=4, trainer_cores=2, update_seconds=0.01
    )
    costs = dataclasses.replace(FREE, base=0.4, probe=Cost(server=1e-3, gate=2e-3, sent=1e6))
    used = loads(costs, situation, rows=0, updates=50)
    asked = 10 / 0.25 + 1 / 0.25  # collectors and trainer
    assert used["server"] == pytest.approx((0.4 + asked * 1e-3) / 4)
    assert used["gate"] == pytest.approx(asked * 2e-3)
    assert used["network"] == pytest.approx(asked * 1e6 / 1.25e8)
    assert used["trainer"] == pytest.approx(50 * 0.01 / 2)


def test_weights_are_fetched_no_oftener_than_published_and_looked_for():
    costs = dataclasses.replace(FREE, fetch=Line(Cost(server=1.0), Cost()))

    def fetches(**changes):
        situation = Situation(10, 20, server_cores=1, **changes)
        return loads(costs, situation, rows=0, updates=32)["server"]

    assert fetches() == pytest.approx(10 * 2)  # two calls of 16 updates a second
    assert fetches(updates_per_call=1) == pytest.approx(10 * 4)
    assert fetches(updates_per_call=1, refresh_seconds=2.0) == pytest.approx(10 * 0.5)
    assert fetches(updates_per_call=1, publish_seconds=1.0) == pytest.approx(10 * 1)


def test_reports_come_with_rounds_or_with_rows_if_those_are_rarer():
    costs = dataclasses.replace(FREE, report=Cost(server=1.0), drain=Cost(client=1.0))
    for rows, reports in ((0, 0), (3, 3), (1e6, 40)):
        used = loads(costs, Situation(10, 20, server_cores=1), rows, updates=0)
        assert used["server"] == pytest.approx(reports)
        assert used["publisher"] == pytest.approx(reports)


def test_few_collectors_are_the_bottleneck_themselves():
    told = predict(COSTS, Situation(collectors=1, rows_per_second=20))
    assert (told.rows_limit, told.updates_limit) == ("collectors", "rows")
    assert told.rows_per_second == 20 and told.updates_per_second == 20
    rounds = 4 * (300e-6 + 900e-6 + 300e-6)  # probe, state, report
    fetches = 20 / 16 * COSTS.fetch.of(294e3).client
    assert told.collector_seconds == pytest.approx(20 * 202e-6 + rounds + fetches)


@pytest.mark.parametrize(
    ("changes", "limit"),
    [
        ({"update_seconds": 0.1}, "trainer"),
        ({"server_cores": 0.2}, "server"),
        ({"network": 1e6}, "network"),
    ],
)
def test_what_is_small_holds_a_synchronous_run(changes, limit):
    situation = Situation(collectors=10, rows_per_second=2000, **changes)
    told = predict(COSTS, situation)
    assert (told.rows_limit, told.updates_limit) == (limit, limit)
    assert 0 < told.rows_per_second < 20_000
    assert told.updates_per_second == pytest.approx(told.rows_per_second)
    assert told.loads[limit] == pytest.approx(1) and max(told.loads.values()) < 1 + 1e-9
    ((name, value),) = changes.items()
    better = value / 2 if name == "update_seconds" else value * 2
    wider = predict(COSTS, dataclasses.replace(situation, **{name: better}))
    assert wider.rows_per_second > 1.2 * told.rows_per_second


def test_a_free_running_trainer_takes_what_the_collectors_leave():
    told = predict(COSTS, ASYNC)
    assert (told.rows_limit, told.updates_limit) == ("collectors", "trainer")
    assert told.rows_per_second == 80 and told.updates_per_second > 200
    capped = predict(COSTS, dataclasses.replace(ASYNC, updates_per_row=0.5))
    assert capped.updates_per_second == pytest.approx(40) and capped.updates_limit == "rows"


def test_what_shares_a_full_server_slows_down_alike():
    told = predict(COSTS, dataclasses.replace(ASYNC, collectors=10_000))
    assert told.rows_limit == told.updates_limit != "collectors"
    assert told.loads[told.rows_limit] == pytest.approx(1)
    assert told.refresh_seconds / 0.25 == pytest.approx(200_000 / told.rows_per_second)
    rare = predict(COSTS, dataclasses.replace(ASYNC, collectors=10_000, refresh_seconds=600.0))
    assert rare.rows_per_second > 2 * told.rows_per_second


@pytest.mark.parametrize("situation", [SYNC, ASYNC], ids=["sync", "async"])
def test_more_collectors_never_make_less_load_and_longer_segments_never_fewer_rows(situation):
    counts = (1, 10, 100, 1000)
    told = [predict(COSTS, dataclasses.replace(situation, collectors=c)) for c in counts]
    fullest = [max(t.loads[name] for name in ("server", "gate", "network")) for t in told]
    assert fullest == pytest.approx(sorted(fullest))
    for count, one in zip(counts, told):
        longer = dataclasses.replace(situation, collectors=count, segment_length=16)
        assert predict(COSTS, longer).rows_per_second >= one.rows_per_second * (1 - 1e-9)


def test_a_synchronous_run_without_a_ratio_is_refused():
    with pytest.raises(ValueError, match="ratio"):
        predict(COSTS, dataclasses.replace(SYNC, updates_per_row=None))
