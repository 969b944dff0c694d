"""Which series were born at 0, so that their first value counts, and of which nobody knows since when they count."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.slo.counted_days import Line, Told, counted, events

NOON = 12 * 3600
_OK = [(30.0 + 60 * n, 5e6 + 60 * n) for n in range(1440)]
_ERRORS = [(s, 3e5) for s, _ in _OK]
_MARK: list[tuple[float, float | None]] = [(NOON + 5, None)]


def _line(status: str, points: Sequence[tuple[float, float | None]], **labels: str) -> Line:
    return "req_total", {"status": status, "instance": "a", "job": "shop"} | labels, points


def _until_noon(points: Sequence[tuple[float, float]]) -> list[tuple[float, float | None]]:
    return [p for p in points if p[0] < NOON]


def _since_noon(points: Sequence[tuple[float, float]]) -> list[tuple[float, float | None]]:
    return [p for p in points if p[0] >= NOON]


@pytest.mark.parametrize("end", [[], _MARK], ids=["", "with marks"])
def test_a_process_that_goes_on_under_another_label_brings_no_events(end: list[tuple[float, float | None]]) -> None:
    """A lifetime of 5.3M requests, 300,000 of them bad. At noon `env` is added: what that minute held is lost, 60 requests."""
    lines = [
        _line("200", _until_noon(_OK) + end),
        _line("5xx", _until_noon(_ERRORS) + end),
        _line("200", _since_noon(_OK), env="prod"),
        _line("5xx", _since_noon(_ERRORS), env="prod"),
    ]
    told = Told(counted(events(), lines))
    assert [told[minute] for minute in (719, 720, 721)] == [(60, 0), (0, 0), (60, 0)]
    assert (told.day["total"], told.day["bad"], told.unplaced) == (60 * 1438, 0, {})
    assert (told.figures.births, told.gaps) == (0, [])


def test_labels_that_changed_at_midnight_bring_no_events() -> None:
    before = [_line("200", [(-90, 5e6 - 120), (-30, 5e6 - 60)]), _line("5xx", [(-90, 3e5), (-30, 3e5)])]
    told = Told(counted(events(), [_line("200", _OK, cluster="eu"), _line("5xx", _ERRORS, cluster="eu")], before))
    assert (told[0], told[1], told.unplaced) == ((0, 0), (60, 0), {})
    assert (told.day["total"], told.day["bad"]) == (60 * 1439, 0)


def test_series_without_a_target_say_nothing_of_each_other() -> None:
    """Recorded or pushed: service b is new at noon, with a lifetime of its own."""

    def recorded(service: str, status: str, points: Sequence[tuple[float, float | None]]) -> Line:
        return "req_total", {"service": service, "status": status}, points

    lines = [
        recorded("a", "200", _OK),
        recorded("a", "5xx", [(s, 0.0) for s, _ in _OK]),
        recorded("b", "200", _since_noon(_OK)),
        recorded("b", "5xx", _since_noon(_ERRORS)),
    ]
    told = Told(counted(events(), lines))
    assert (told[720], told[721], told.day["bad"], told.unplaced) == ((60, 0), (120, 0), 0, {})


def test_only_one_of_the_same_scrape_vouches() -> None:
    """Of the two, one was there a minute before, the other is there at 00:03:00: neither both."""
    lines = [
        _line("200", [(60, 7), (120, 8), (181, 9)]),
        _line("404", [(180, 4), (240, 4)]),
        _line("5xx", [(180, 9000), (240, 9001)]),
    ]
    told = Told(counted(events(), lines, until_seconds=241))
    assert [told[minute] for minute in (2, 3)] == [(0, 0), (2, 1)]
    assert told.figures.births == 0


def test_born_in_a_scrape_that_others_were_in() -> None:
    lines = [_line("200", [(60, 7), (120, 8), (180, 9), (240, 9)]), _line("5xx", [(180, 3), (240, 4)])]
    told = Told(counted(events(), lines, until_seconds=241))
    assert [told[minute] for minute in (2, 3)] == [(4, 3), (1, 1)]
    assert told.figures.births == 1


def test_the_other_pods_scrape_says_nothing_of_this_one() -> None:
    lines = [
        _line("200", [(60, 7), (120, 8), (180, 9)]),
        _line("5xx", [(180, 3), (240, 4)], instance="b"),
        ("other_total", {"instance": "b", "job": "shop"}, [(60, 7), (120, 8), (180, 9)]),
    ]
    told = Told(counted(events(), lines, until_seconds=241))
    assert (told[2], told[3]) == ((1, 0), (1, 1))


def test_what_comes_back_smaller_with_its_target_is_unplaced() -> None:
    """It was seen before, so what it counted since its restart happened; when, nobody knows."""
    told = Told(counted(events(), [_line("200", [(0, 100), (60, 110), (3600, 40), (3660, 41)])], until_seconds=3661))
    assert (told.unplaced, told[60]) == ({59: (40, 0)}, (1, 0))
