"""When occurrences begin: daylight saving by hand, and against Dagster's own schedules."""

from datetime import UTC, datetime, timedelta

import pytest
from dagster._utils.schedules import cron_string_iterator

from greenops_pipelines.errors import BadInput
from greenops_pipelines.integrations.recurrence import Recurrence


def starts(cron: str, timezone: str, after: str, until: str) -> list[str]:
    found = Recurrence(cron, timezone).between(datetime.fromisoformat(after), datetime.fromisoformat(until))
    return [f"{time:%m-%d %H:%M}" for time in found]


def test_berlin_in_spring_a_time_that_does_not_exist_is_the_end_of_the_gap() -> None:
    # On 2026-03-29 at 02:00 (01:00 UTC) the clock is put forward to 03:00.
    found = starts("30 2 * * *", "Europe/Berlin", "2026-03-27T12:00Z", "2026-03-30T12:00Z")
    assert found == ["03-28 01:30", "03-29 01:00", "03-30 00:30"]
    # Three times of the gap and the one after it are one instant.
    assert starts("*/30 2,3 29 3 *", "Europe/Berlin", "2026-03-28T12:00Z", "2026-03-29T12:00Z") == [
        "03-29 01:00",
        "03-29 01:30",
    ]


def test_berlin_in_autumn_a_time_that_comes_twice_counts_the_second_time() -> None:
    # On 2026-10-25 at 03:00 (01:00 UTC) the clock is put back to 02:00.
    found = starts("30 2 * * *", "Europe/Berlin", "2026-10-23T12:00Z", "2026-10-26T12:00Z")
    assert found == ["10-24 00:30", "10-25 01:30", "10-26 01:30"]
    # Asked between the two, it is still to come; asked after it, it is not.
    assert starts("30 2 * * *", "Europe/Berlin", "2026-10-25T00:45Z", "2026-10-25T12:00Z") == ["10-25 01:30"]
    assert starts("30 2 * * *", "Europe/Berlin", "2026-10-25T01:30Z", "2026-10-25T12:00Z") == []


def test_every_hour_is_every_real_hour() -> None:
    assert starts("15 * * * *", "Europe/Berlin", "2026-10-24T23:30Z", "2026-10-25T02:30Z") == [
        "10-25 00:15",
        "10-25 01:15",
        "10-25 02:15",
    ]
    assert len(starts("15 * * * *", "Europe/Berlin", "2026-03-28T23:00Z", "2026-03-29T22:00Z")) == 23


@pytest.mark.parametrize("timezone", ["Europe/Berlin", "America/New_York", "America/St_Johns", "Asia/Kolkata", "UTC"])
@pytest.mark.parametrize(
    "cron", ["30 2 * * *", "0 2 * * *", "0 3 * * *", "30 1 * * 0", "15 * * * *", "0 */2 * * *", "0 1,2,3 * * *"]
)
def test_a_year_is_that_of_dagsters_schedules(cron: str, timezone: str) -> None:
    begin, end = datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)
    theirs = []
    for time in cron_string_iterator(begin.timestamp(), cron, timezone):
        if time.astimezone(UTC) > end:
            break
        theirs.append(time.astimezone(UTC))
    assert list(Recurrence(cron, timezone).between(begin - timedelta(seconds=1), end)) == theirs


def test_a_half_hour_fold_and_a_day_that_was_left_out() -> None:
    # Lord Howe puts its clock back by 30 minutes on 2026-04-05 at 02:00 (15:00 UTC): 01:45 is at 14:45 and 15:15.
    assert starts("45 1 * * *", "Australia/Lord_Howe", "2026-04-04T00:00Z", "2026-04-05T00:00Z") == ["04-04 15:15"]
    # Samoa had no 2011-12-30: the gap ends with that day, at 10:00 UTC.
    assert starts("0 12 30 12 *", "Pacific/Apia", "2011-12-29T00:00Z", "2011-12-31T23:00Z") == ["12-30 10:00"]


@pytest.mark.parametrize(
    ("cron", "timezone", "problem"),
    [
        ("0 25 * * *", "UTC", r"cron: found '0 25 \* \* \*', allowed: five fields .*; the hour is wrong"),
        ("0 0 1 * * *", "UTC", r"cron: found '0 0 1 \* \* \*', allowed: five fields"),
        ("0 0 30 2 *", "UTC", r"cron: found '0 0 30 2 \*'"),
        ("nightly", "UTC", "cron: found 'nightly'"),
        ("0 1 * * *", "Berlin", "execution_timezone: found 'Berlin', allowed: a name of the IANA database"),
        ("0 1 * * *", "", "execution_timezone: found ''"),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line(cron: str, timezone: str, problem: str) -> None:
    with pytest.raises(BadInput, match=problem) as refused:
        Recurrence(cron, timezone)
    assert "\n" not in str(refused.value)
