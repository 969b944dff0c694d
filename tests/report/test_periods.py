"""Months and weeks by name."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenops_pipelines.errors import BadInput
from greenops_pipelines.report.periods import containing, parse


@pytest.mark.parametrize(
    ("name", "first", "last", "title", "before"),
    [
        ("2026-10", date(2026, 10, 1), date(2026, 10, 31), "October 2026", "2026-09"),
        ("2024-02", date(2024, 2, 1), date(2024, 2, 29), "February 2024", "2024-01"),
        ("2026-01", date(2026, 1, 1), date(2026, 1, 31), "January 2026", "2025-12"),
        ("2026-W47", date(2026, 11, 16), date(2026, 11, 22), "Week 47, 16 November to 22 November 2026", "2026-W46"),
        # ISO weeks belong to the year of their Thursday.
        ("2026-W53", date(2026, 12, 28), date(2027, 1, 3), "Week 53, 28 December to 3 January 2027", "2026-W52"),
        ("2027-W01", date(2027, 1, 4), date(2027, 1, 10), "Week 1, 4 January to 10 January 2027", "2026-W53"),
    ],
)
def test_a_period_is_its_days(name: str, first: date, last: date, title: str, before: str) -> None:
    period = parse(name)
    assert (period.first, period.last, period.title, period.before().name) == (first, last, title, before)


@pytest.mark.parametrize(
    "text", ["", "2026", "2026-13", "2026-00", "2026-W54", "2025-W53", "2026-1", "2026-10-01", "../2026-10"]
)
def test_what_is_no_period_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match=r"allowed: 2026-10 \(a month\) or 2026-W44"):
        parse(text)


@given(st.dates(date(1970, 1, 1), date(2200, 1, 1)), st.sampled_from(["month", "week"]))
def test_periods_follow_one_another_without_a_gap(day: date, kind) -> None:
    period = containing(kind, day)
    assert period.first <= day <= period.last
    assert parse(period.name) == period
    assert period.before().end == period.first
    assert period.days == (period.end - period.first) // timedelta(days=1)
