"""Looks at a clock that the tests set: what opens, what is chosen, what is launched, by figures worked out by hand."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from greenops_pipelines.errors import BadInput
from greenops_pipelines.integrations.forecasts import Answer, Series
from greenops_pipelines.integrations.looking import NO_FORECAST, Known, Looked, look
from greenops_pipelines.integrations.recurrence import Recurrence
from greenops_pipelines.integrations.waiting import MOST_OPEN, State, Terms, first, resumed

HOUR = timedelta(hours=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def at(text: str) -> datetime:
    """A time of 2026-11-26, UTC."""
    return datetime.fromisoformat(f"2026-11-26T{text}Z")


def terms(**changes: object) -> Terms:
    """Nightly at 01:00 UTC, 6 h to its deadline, an hour long: the latest start is 06:00."""
    base = Terms("nightly", Recurrence("0 1 * * *"), 6 * HOUR, HOUR, ("DE", "FR"), HOUR, HOUR / 4, HOUR / 30)
    return replace(base, **changes)  # type: ignore[arg-type]


class Grid:
    """A source whose forecast the test sets: zone -> values of the hours from 01:00 on; None is a gap."""

    def __init__(self, **hours: Sequence[float | None]) -> None:
        self.hours: Mapping[str, Sequence[float | None]] = hours
        self.asked = 0

    def ask(self, zones: Sequence[str], now: datetime) -> Answer:
        self.asked += 1
        first_us = (at("01:00") - EPOCH) // timedelta(microseconds=1)
        series = {}
        for zone in set(zones) & set(self.hours):
            known = [i for i, value in enumerate(self.hours[zone]) if value is not None]
            values = np.array([self.hours[zone][i] for i in known], dtype=float)
            starts = np.array([first_us + i * 3_600_000_000 for i in known], dtype=np.int64)
            series[zone] = Series(starts, np.full(len(known), 60), values)
        return Answer(series, {zone: "down" for zone in zones if zone not in self.hours})


class Clock:
    """One sensor's life: looks, with the cursor written and read again between them."""

    def __init__(self, grid: Grid, its: Terms, begin: datetime) -> None:
        self.grid, self.terms = grid, its
        self.known = Known(grid)
        self.state = first(begin)

    def restart(self) -> None:
        self.known = Known(self.grid)

    def __call__(self, time: datetime | str) -> Looked:
        found = look(self.terms, self.state, at(time) if isinstance(time, str) else time, self.known)
        restored = State.of(found.state.cursor())
        assert restored == found.state
        self.state = restored
        return found


# Hours from 01:00:      1    2    3    4    5    6
WIND = {"DE": [400, 300, 350, 500, 500, 500], "FR": [200, 210, 90, 220, 230, 240]}


def test_it_waits_for_the_greenest_hour_of_all_zones_and_says_why() -> None:
    clock = Clock(Grid(**WIND), terms(), at("00:30"))
    assert clock("00:30").summary.startswith("nothing waits, the next opens at 2026-11-26T01:00Z")
    assert clock("01:00").summary.startswith("2026-11-26T01:00Z waits for 2026-11-26T03:00Z in FR")
    assert clock("02:59").launches == ()
    [launch] = clock(at("03:00") + timedelta(seconds=20)).launches
    assert launch.key == "nightly:2026-11-26T01:00Z"
    assert launch.tags == {
        "greenops/key": "nightly:2026-11-26T01:00Z",
        "greenops/zone": "FR",
        "greenops/reason": "greenest start until 2026-11-26T06:00Z: 90 g/kWh in FR, 400 at once in DE",
        "greenops/avoided_pct": "77.5",  # (400 - 90) / 400
        "greenops/earliest_start": "2026-11-26T01:00Z",
        "greenops/deadline": "2026-11-26T07:00:00Z",
    }
    assert clock("03:01").launches == ()
    assert clock.state.last == at("01:00")
    assert clock.state.open == ()


def test_a_run_that_starts_inside_an_hour_pays_for_its_parts() -> None:
    """90 minutes: 02:30 to 04:00 costs (0.5 * 100 + 1 * 50) / 1.5 = 66.7, 03:00 to 04:30 (1 * 50 + 0.5 * 90) / 1.5 = 63.3."""
    clock = Clock(
        Grid(DE=[500, 100, 50, 90, 500, 500]), terms(zones=("DE",), duration=1.5 * HOUR, piece=1.5 * HOUR), at("01:00")
    )
    clock("01:00")
    [each] = clock.state.open
    assert each.choice is not None
    assert each.choice.start == at("03:00")
    assert each.choice.g_per_kwh == pytest.approx(190 / 3)
    # With 100 and 90 exchanged it is the other way round, and the best start lies inside an hour.
    clock = Clock(
        Grid(DE=[500, 90, 50, 100, 500, 500]), terms(zones=("DE",), duration=1.5 * HOUR, piece=1.5 * HOUR), at("01:00")
    )
    clock("01:00")
    assert clock.state.open[0].choice is not None
    assert clock.state.open[0].choice.start == at("02:30")


def test_an_hour_of_work_at_01_36_weighs_an_hour() -> None:
    """24 minutes at 400 and 36 at 300, not 0.4 of an hour: 340 at once; 03:00 on would be 350."""
    its = terms(recurrence=Recurrence("36 1 * * *"), zones=("DE",), window=2.4 * HOUR)
    clock = Clock(Grid(DE=[400, 300, 350, 500]), its, at("01:30"))
    clock("01:36")
    [each] = clock.state.open
    assert each.at_once_g_per_kwh == pytest.approx(340)
    assert each.choice is not None
    assert each.choice.start == at("02:00")
    assert each.choice.g_per_kwh == 300


def test_null_never_wins() -> None:
    clock = Clock(Grid(DE=[400, None, 350, None, 500, 500], FR=[None] * 6), terms(), at("01:00"))
    clock("01:00")
    [each] = clock.state.open
    assert each.choice is not None
    assert (each.choice.zone, each.choice.start) == ("DE", at("03:00"))


def test_of_equals_the_earliest_start_and_then_the_first_zone() -> None:
    clock = Clock(Grid(DE=[300, 100, 100, 300, 300, 300], FR=[300, 100, 100, 300, 300, 300]), terms(), at("01:00"))
    clock("01:00")
    assert clock.state.open[0].choice is not None
    assert (clock.state.open[0].choice.zone, clock.state.open[0].choice.start) == ("DE", at("02:00"))


def test_a_newer_forecast_decides_anew_until_the_chosen_start_has_come() -> None:
    grid = Grid(**WIND)
    clock = Clock(grid, terms(), at("01:00"))
    clock("01:00")
    grid.hours = {"DE": [400, 300, 350, 500, 80, 500], "FR": WIND["FR"]}
    assert "waits for 2026-11-26T05:00Z in DE" in clock("01:15").summary
    grid.hours = {"DE": [400, 300, 350, 500, 80, 40], "FR": WIND["FR"]}
    # 05:00 has come: what is known since does not keep it waiting, and nobody is asked.
    asked = grid.asked
    [launch] = clock("05:00").launches
    assert (launch.zone, launch.avoided_pct) == ("DE", pytest.approx(80.0))
    assert grid.asked == asked


def test_the_provider_is_asked_once_per_refresh_and_only_while_something_waits() -> None:
    grid = Grid(**WIND)
    clock = Clock(grid, terms(), at("00:00"))
    for second in range(0, 4 * 3600, 30):
        clock(at("00:00") + timedelta(seconds=second))
    # It waited from 01:00 to 03:00: every 15 minutes, and not at its start.
    assert grid.asked == 8


def test_after_a_restart_what_is_chosen_stands_and_nobody_is_asked_before_the_refresh() -> None:
    grid = Grid(**WIND)
    clock = Clock(grid, terms(), at("01:00"))
    clock("01:00")
    clock.restart()
    assert "waits for 2026-11-26T03:00Z in FR" in clock("01:05").summary
    assert grid.asked == 1
    grid.hours = {}
    # The provider is down from now on: what was chosen before still stands.
    clock.restart()
    assert "waits for 2026-11-26T03:00Z in FR" in clock("02:00").summary
    [launch] = clock("03:00").launches
    assert (launch.zone, launch.has_forecast) == ("FR", True)


def test_without_a_forecast_it_waits_and_runs_at_the_latest_start_and_says_so() -> None:
    grid = Grid()
    clock = Clock(grid, terms(), at("01:00"))
    looked = clock("01:00")
    assert looked.summary.startswith("2026-11-26T01:00Z waits for a forecast, until 2026-11-26T06:00Z; no forecast for")
    assert looked.warnings == ("no forecast for zone DE: down", "no forecast for zone FR: down")
    assert clock("05:59").launches == ()
    looked = clock("06:00")
    [launch] = looked.launches
    assert launch.tags["greenops/reason"] == NO_FORECAST == "no forecast: run at the deadline"
    assert launch.tags["greenops/avoided_pct"] == "unknown"
    assert (launch.zone, launch.is_late) == ("DE", False)
    assert f"nightly:2026-11-26T01:00Z: {NO_FORECAST}" in looked.warnings
    assert clock.state.counts.no_forecast == 1
    assert "1 launched, 0 late, 1 without a forecast, 0 missed" in looked.summary
    # Every 15 minutes it could have come back.
    assert grid.asked <= 4


def test_a_provider_that_comes_back_is_used() -> None:
    grid = Grid()
    clock = Clock(grid, terms(), at("01:00"))
    clock("01:00")
    grid.hours = WIND
    assert "waits for 2026-11-26T03:00Z in FR" in clock("02:30").summary
    [launch] = clock("03:00").launches
    # What running at once would have been is part of the forecast still.
    assert launch.avoided_pct == pytest.approx(77.5)


def test_a_forecast_that_ends_early_is_used_as_far_as_it_goes() -> None:
    clock = Clock(Grid(DE=[400, 300]), terms(), at("01:00"))
    assert "waits for 2026-11-26T02:00Z in DE" in clock("01:00").summary


def test_down_over_its_slot_it_is_decided_anew() -> None:
    clock = Clock(Grid(**WIND), terms(), at("01:00"))
    clock("01:00")
    clock.restart()
    # 03:00 has passed unseen. At once, FR: (20 min * 90 + 40 min * 220) / 60 = 176.7; nothing later is below 220.
    looked = clock("03:40")
    [launch] = looked.launches
    assert launch.zone == "FR"
    assert launch.avoided_pct == pytest.approx((400 - 530 / 3) / 400 * 100)
    assert not launch.is_late


def test_down_past_the_latest_start_it_is_launched_at_once_and_late() -> None:
    clock = Clock(
        Grid(
            **WIND,
        ),
        terms(),
        at("01:00"),
    )
    clock("01:00")
    clock.restart()
    looked = clock("12:59")
    [launch] = looked.launches
    assert launch.is_late
    assert launch.tags["greenops/late"] == "true"
    assert launch.reason.startswith("late, nothing looked when its time came")
    assert (clock.state.counts.late, clock.state.counts.missed) == (1, 0)


def test_down_a_window_beyond_its_deadline_it_is_missed_and_said() -> None:
    clock = Clock(Grid(**WIND), terms(), at("01:00"))
    clock("01:00")
    looked = clock("13:00")
    assert looked.launches == ()
    assert looked.warnings[0] == "missed, its deadline was 6h ago or more: 2026-11-26T01:00Z"
    assert (clock.state.counts.late, clock.state.counts.missed, clock.state.open) == (0, 1, ())
    # Down for a week: those that nobody saw open are counted, the last one is launched late.
    looked = clock(at("08:00") + timedelta(days=7))
    assert looked.warnings[0].startswith(
        "missed, its deadline was 6h ago or more: 2026-11-27T01:00Z, 2026-11-28T01:00Z"
    )
    assert clock.state.counts.missed == 7
    assert [launch.key for launch in looked.launches] == ["nightly:2026-12-03T01:00Z"]


def test_a_first_start_leaves_the_past_alone() -> None:
    clock = Clock(Grid(**WIND), terms(), at("01:01"))
    looked = clock("01:01")
    assert looked.launches == ()
    assert looked.summary.startswith("nothing waits, the next opens at 2026-11-27T01:00Z")
    assert clock.state.counts.missed == 0


def test_a_lost_cursor_takes_up_what_is_open_and_was_not_launched() -> None:
    its = terms(recurrence=Recurrence("0 * * * *"), zones=("DE",))
    launched = {"nightly:2026-11-26T02:00Z", "nightly:2026-11-25T22:00Z"}
    state = resumed(its, at("04:30"), launched.__contains__)
    # 22:00 ended at 04:00; 23:00 to 04:00 are open, 02:00 has run.
    assert [f"{each.at:%H:%M}" for each in state.open] == ["23:00", "00:00", "01:00", "03:00", "04:00"]
    assert State.of("") is State.of("{}") is State.of('{"version": 99}') is State.of("2026-11-26") is None


def test_several_occurrences_are_open_at_once_and_each_is_launched_once() -> None:
    """Hourly, with six hours each: all that opened until 04:00 go into the hour of 04:00."""
    its = terms(recurrence=Recurrence("0 * * * *"), zones=("DE",))
    clock = Clock(Grid(DE=[400, 300, 350, 50, 500, 500, 600, 600, 600, 600, 600]), its, at("01:00"))
    keys = []
    for minutes in range(0, 6 * 60, 2):
        looked = clock(at("01:00") + timedelta(minutes=minutes))
        keys += [(f"{clock.state.through:%H:%M}", launch.key[-6:-1]) for launch in looked.launches]
    assert keys[:4] == [("04:00", "01:00"), ("04:00", "02:00"), ("04:00", "03:00"), ("04:00", "04:00")]
    assert len({key for _, key in keys}) == len(keys)


def test_a_clock_that_is_put_back_opens_nothing_twice() -> None:
    clock = Clock(Grid(**WIND), terms(), at("00:59"))
    clock("01:00")
    assert len(clock("03:00").launches) == 1
    clock("00:30")
    assert clock("01:00").launches == ()
    assert clock("03:00").launches == ()
    assert clock.state.counts.launched == 1


def test_daylight_saving_moves_window_and_deadline_with_the_instant() -> None:
    """02:30 in Berlin comes twice on 2026-10-25 and counts at 01:30 UTC: one launch, its deadline six real hours later."""
    its = terms(recurrence=Recurrence("30 2 * * *", "Europe/Berlin"))
    begin = datetime(2026, 10, 24, 22, tzinfo=UTC)
    clock = Clock(Grid(), its, begin)
    launches = [
        launch for minutes in range(0, 24 * 60, 10) for launch in clock(begin + timedelta(minutes=minutes)).launches
    ]
    assert [(launch.key, launch.tags["greenops/deadline"]) for launch in launches] == [
        ("nightly:2026-10-25T01:30Z", "2026-10-25T07:30:00Z")
    ]


def test_interruptible_work_is_one_run_per_piece_in_the_cheapest_pieces() -> None:
    """Two hours in pieces of one: 03:00 in FR (90) and 01:00 in FR (200) are the two cheapest of six."""
    its = terms(duration=2 * HOUR, piece=HOUR)
    clock = Clock(Grid(**WIND), its, at("01:00"))
    [one] = clock(at("01:00") + timedelta(seconds=20)).launches
    assert (one.key, one.zone, one.tags["greenops/piece"]) == ("nightly:2026-11-26T01:00Z:1", "FR", "1/2")
    assert clock("02:00").launches == ()
    [two] = clock("03:00").launches
    assert (two.key, two.zone, two.tags["greenops/piece"]) == ("nightly:2026-11-26T01:00Z:2", "FR", "2/2")
    assert clock.state.open == ()


def test_pieces_without_a_forecast_end_at_the_deadline_one_after_the_other() -> None:
    its = terms(duration=2 * HOUR, piece=HOUR)
    clock = Clock(Grid(), its, at("01:00"))
    found = [
        (f"{minutes // 60 + 1:02}:{minutes % 60:02}", launch.piece)
        for minutes in range(0, 7 * 60, 5)
        for launch in clock(at("01:00") + timedelta(minutes=minutes)).launches
    ]
    assert found == [("05:00", 1), ("06:00", 2)]
    assert clock.state.counts.no_forecast == 2


def test_a_piece_that_started_late_in_its_hour_pushes_the_next_one_back() -> None:
    """01:00 and 02:00 are the cheapest of three: looked at 01:01:30 first, so the second hour begins at 02:01:30."""
    its = terms(duration=2 * HOUR, piece=HOUR, zones=("DE",))
    clock = Clock(Grid(DE=[100, 110, 400, 400, 400, 400]), its, at("00:59"))
    assert [launch.piece for launch in clock("01:01:30").launches] == [1]
    assert clock.state.open[0].choice is not None
    assert clock.state.open[0].choice.start == at("02:01:30")
    assert clock("02:01").launches == ()
    assert [launch.piece for launch in clock("02:01:30").launches] == [2]


def test_pieces_never_overlap_and_none_starts_inside_an_hour_that_has_no_room_behind_it() -> None:
    """Two hours of two: the hour that began at 01:00 is too late at 01:01:30, so nothing is chosen, only what must be."""
    its = terms(duration=2 * HOUR, piece=HOUR, window=2 * HOUR, zones=("DE",))
    clock = Clock(Grid(DE=[100, 110]), its, at("00:59"))
    [one] = clock("01:01:30").launches
    assert one.reason == "run at the latest start: 100 g/kWh in DE, 105 at once in DE"
    assert clock("02:01").launches == ()
    [two] = clock("02:01:30").launches
    assert (two.piece, two.is_late) == (2, False)


def test_late_pieces_do_not_run_at_once() -> None:
    its = terms(duration=2 * HOUR, piece=HOUR)
    clock = Clock(Grid(), its, at("01:00"))
    clock("01:00")
    [one] = clock("08:00").launches
    assert one.is_late
    assert clock("08:30").launches == ()
    [two] = clock("09:00").launches
    assert two.piece == 2


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"window": HOUR / 2}, "window: found 30m, allowed: at least the duration of 1h"),
        ({"duration": 7 * HOUR}, "window: found 6h, allowed: at least 7 pieces of 1h, for a duration of 7h"),
        (
            {"recurrence": Recurrence("* * * * *")},
            rf"window: found 6h, allowed: one in which '\* \* \* \* \*' comes at most {MOST_OPEN} times",
        ),
    ],
)
def test_terms_that_cannot_be_kept(changes: dict[str, object], problem: str) -> None:
    with pytest.raises(BadInput, match=f"^{problem}$"):
        terms(**changes)
