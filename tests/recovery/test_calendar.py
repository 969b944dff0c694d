"""When GameDays are: what is due, what is made up for, which months were missed. Each on the first Tuesday at 09:00 UTC."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenops_pipelines.recovery.calendar import Due, after, before, begins, coming, due, due_now, missed
from greenops_pipelines.recovery.declared import GameDays

# First Tuesdays: 6 October, 3 November, 1 December 2026; 5 January, 2 February 2027.
GAMEDAYS = GameDays.model_validate(
    {
        "databases": ({"name": "orders", "primary": "us-east-1", "standby": "eu-west-1", "tenants": ("shop",)},),
        "replica": {"home_region": "us-east-1", "region": "eu-west-1"},
    }
)
LAST_SUNDAY = GAMEDAYS.model_copy(
    update={"gameday": GAMEDAYS.gameday.model_copy(update={"weekday": "sunday", "week": "last", "hour": 23})}
)
"""29 November, 27 December 2026, 31 January 2027."""

SECOND = timedelta(seconds=1)
DAY = timedelta(days=1)
INSTANTS = st.datetimes(datetime(2026, 1, 1), datetime(2031, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 (hypothesis adds the zone)


def at(year: int, month: int, day: int, hour: int = 9, minute: int = 0) -> datetime:
    return datetime(year, month, day, hour, minute, tzinfo=UTC)


def months(first: str, count: int) -> set[str]:
    """As many months in a row, as they stand in the lake."""
    found, month = set(), date(int(first[:4]), int(first[5:]), 1)
    for _ in range(count):
        found.add(f"{month:%Y-%m}")
        month = after(month)
    return found


# What should have been held by now


def test_a_gameday_begins_on_its_day_at_its_hour() -> None:
    assert begins(GAMEDAYS, date(2026, 11, 1)) == at(2026, 11, 3)
    assert begins(LAST_SUNDAY, date(2026, 11, 1)) == at(2026, 11, 29, 23)


@pytest.mark.parametrize(
    ("now", "month"),
    [
        (at(2026, 11, 1, 0), "2026-10"),
        (at(2026, 11, 3, 8, 59), "2026-10"),
        (at(2026, 11, 3), "2026-11"),
        (at(2026, 11, 30, 23), "2026-11"),
        (at(2026, 12, 1, 8), "2026-11"),
        (at(2026, 12, 1, 9), "2026-12"),
        (at(2026, 12, 31, 23, 59), "2026-12"),
        (at(2027, 1, 1, 0), "2026-12"),
        (at(2027, 1, 5, 9), "2027-01"),
    ],
)
def test_the_month_whose_gameday_was_the_last_to_begin_is_due(now: datetime, month: str) -> None:
    assert due(GAMEDAYS, now) == month


def test_the_last_sunday_of_december_is_due_until_that_of_january() -> None:
    assert due(LAST_SUNDAY, at(2026, 12, 27, 22)) == "2026-11"
    assert due(LAST_SUNDAY, at(2026, 12, 27, 23)) == "2026-12"
    assert due(LAST_SUNDAY, at(2027, 1, 31, 22, 59)) == "2026-12"


@given(INSTANTS, st.sampled_from([GAMEDAYS, LAST_SUNDAY]))
def test_what_is_due_has_begun_and_what_comes_next_has_not(now: datetime, declared: GameDays) -> None:
    month = due(declared, now)
    first = date(int(month[:4]), int(month[5:]), 1)
    [(day, _)] = coming(declared, now, 1)
    assert begins(declared, first) <= now < begins(declared, after(first))
    assert day == begins(declared, after(first)).date()


# What comes


def test_the_next_gamedays_are_listed_with_what_each_drills() -> None:
    assert coming(GAMEDAYS, at(2026, 11, 3, 8), 3) == [
        (date(2026, 11, 3), ("kill", "stall")),
        (date(2026, 12, 1), ("kill", "planned")),
        (date(2027, 1, 5), ("kill", "hang")),
    ]


def test_a_gameday_that_has_begun_is_not_coming_any_more() -> None:
    assert coming(GAMEDAYS, at(2026, 11, 3), 1) == [(date(2026, 12, 1), ("kill", "planned"))]
    assert coming(GAMEDAYS, at(2026, 12, 31), 1) == [(date(2027, 1, 5), ("kill", "hang"))]
    assert coming(GAMEDAYS, at(2026, 12, 31), 0) == []


# What is to be held now


def test_in_the_hour_before_nothing_is_to_be_held() -> None:
    assert due_now(GAMEDAYS, {"2026-10"}, at(2026, 11, 3, 8, 59)) == Due(
        None, "2026-10 was held; the next one is on 2026-11-03"
    )


@pytest.mark.parametrize("now", [at(2026, 11, 3), at(2026, 11, 3, 9, 1), at(2026, 11, 3, 23, 59)])
def test_from_its_hour_on_it_is_to_be_held_once_on_its_day(now: datetime) -> None:
    assert due_now(GAMEDAYS, {"2026-10"}, now) == Due(
        "2026-11", "2026-11 is due since 2026-11-03 09:00Z", "gameday:2026-11"
    )


def test_what_was_held_is_not_held_again() -> None:
    assert due_now(GAMEDAYS, {"2026-10", "2026-11"}, at(2026, 11, 3, 10)) == Due(
        None, "2026-11 was held; the next one is on 2026-12-01"
    )


def test_an_ad_hoc_drill_is_no_gameday() -> None:
    assert due_now(GAMEDAYS, {"ad hoc"}, at(2026, 11, 3, 10)).month == "2026-11"


def test_a_gameday_that_failed_is_made_up_for_with_another_run_key_each_day_for_a_week() -> None:
    found = [due_now(GAMEDAYS, {"2026-10"}, at(2026, 11, 3, 9) + n * DAY) for n in range(9)]
    assert [each.run_key for each in found] == [
        "gameday:2026-11",
        *(f"gameday:2026-11:2026-11-{day:02}" for day in range(4, 11)),
        "",
    ]
    assert [each.month for each in found] == ["2026-11"] * 8 + [None]


def test_the_week_ends_to_the_second() -> None:
    end = at(2026, 11, 10)
    assert due_now(GAMEDAYS, set(), end).month == "2026-11"
    assert due_now(GAMEDAYS, set(), end + SECOND) == Due(
        None, "the one of 2026-11 is too long ago to be made up for; the next one is on 2026-12-01"
    )


def test_the_run_key_of_a_day_is_the_same_all_day() -> None:
    keys = [due_now(GAMEDAYS, set(), at(2026, 11, 4, hour)).run_key for hour in range(24)]
    # Not in the night: at the hour of GameDays, when people are there.
    assert keys == [""] * 9 + ["gameday:2026-11:2026-11-04"] * 15


def test_a_gameday_of_december_is_made_up_for_in_january() -> None:
    # 27 December at 23:00 and a week.
    assert due_now(LAST_SUNDAY, {"2026-11"}, at(2026, 12, 27, 22)).month is None
    assert due_now(LAST_SUNDAY, {"2026-11"}, at(2026, 12, 27, 23)).run_key == "gameday:2026-12"
    assert due_now(LAST_SUNDAY, {"2026-11"}, at(2027, 1, 2, 23)) == Due(
        "2026-12", "2026-12 is due since 2026-12-27 23:00Z", "gameday:2026-12:2027-01-02"
    )
    assert due_now(LAST_SUNDAY, {"2026-11"}, at(2027, 1, 4)) == Due(
        None, "the one of 2026-12 is too long ago to be made up for; the next one is on 2027-01-31"
    )


def test_january_does_not_hold_december_again() -> None:
    assert due_now(GAMEDAYS, {"2026-12"}, at(2027, 1, 5, 8)) == Due(
        None, "2026-12 was held; the next one is on 2027-01-05"
    )
    assert due_now(GAMEDAYS, {"2026-12"}, at(2027, 1, 5)).run_key == "gameday:2027-01"


@given(INSTANTS)
def test_a_run_key_is_given_on_one_day_only(now: datetime) -> None:
    found, tomorrow = due_now(GAMEDAYS, set(), now), due_now(GAMEDAYS, set(), now + DAY)
    assert not found.run_key or found.run_key != tomorrow.run_key
    assert bool(found.run_key) == (found.month is not None)


# What went by


def gone(held: Collection[str], since: datetime, now: datetime) -> list[str]:
    return missed(GAMEDAYS, held, since, now)


def test_a_month_without_its_gameday_is_missed() -> None:
    # December's was on the first; it is the sixth.
    assert gone({"2026-10", "2026-12"}, at(2026, 10, 1), at(2026, 12, 6)) == ["2026-11"]
    assert gone(months("2026-10", 3), at(2026, 10, 1), at(2026, 12, 6)) == []


def test_it_is_not_missed_before_a_day_has_passed() -> None:
    assert gone({"2026-10"}, at(2026, 10, 1), at(2026, 11, 4, 8, 59)) == []
    assert gone({"2026-10"}, at(2026, 10, 1), at(2026, 11, 4)) == ["2026-11"]


def test_what_was_before_the_first_drill_is_not_missed() -> None:
    assert gone(set(), at(2026, 10, 20), at(2026, 12, 6)) == ["2026-11", "2026-12"]


def test_a_gameday_that_had_begun_before_the_first_drill_is_not_missed() -> None:
    """Whoever installs the platform at noon of a GameDay has missed nothing."""
    assert gone({"ad hoc"}, at(2026, 11, 3, 12), at(2026, 11, 20)) == []
    assert gone({"ad hoc"}, at(2026, 11, 3, 9), at(2026, 11, 20)) == []
    assert gone({"ad hoc"}, at(2026, 11, 3, 8), at(2026, 11, 20)) == ["2026-11"]


def test_at_most_twelve_months_are_missed() -> None:
    assert gone(set(), at(2020, 1, 1), at(2026, 12, 6)) == sorted(months("2026-01", 12))


def test_a_year_ends_in_between() -> None:
    assert gone({"2026-11"}, at(2026, 11, 1), at(2027, 1, 20)) == ["2026-12", "2027-01"]


def test_a_gameday_that_was_made_up_for_is_not_missed_any_more() -> None:
    now = at(2026, 11, 6)
    assert gone({"2026-10"}, at(2026, 10, 1), now) == ["2026-11"]
    assert gone({"2026-10", "2026-11"}, at(2026, 10, 1), now) == []


@given(INSTANTS, st.sets(st.sampled_from(sorted(months("2025-01", 80)))))
def test_missed_months_were_due_and_not_held(now: datetime, held: set[str]) -> None:
    since = at(2026, 3, 15)
    found = gone(held, since, now)
    assert found == sorted(set(found) - held)
    assert len(found) <= 12
    assert all("2026-04" <= month <= due(GAMEDAYS, now) for month in found)


# Months


def test_months_follow_each_other_over_years_and_leap_days() -> None:
    assert after(date(2026, 12, 1)) == date(2027, 1, 1)
    assert before(date(2027, 1, 1)) == date(2026, 12, 1)
    assert after(date(2028, 2, 1)) == date(2028, 3, 1)
    assert before(date(2028, 3, 1)) == date(2028, 2, 1)


@given(st.dates(date(2020, 1, 1), date(2040, 1, 1)))
def test_the_month_after_the_one_before_is_the_same(day: date) -> None:
    month = day.replace(day=1)
    assert after(before(month)) == before(after(month)) == after(day.replace(day=1) - DAY) == month
