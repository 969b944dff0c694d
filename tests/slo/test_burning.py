"""Burns that can be computed by hand, spells that begin and end at a known minute, and what is not known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from greenops_pipelines.lake import Lake
from greenops_pipelines.slo.burning import Burn, Position, burning, figure
from greenops_pipelines.slo.certificate import certify, timing
from greenops_pipelines.slo.model import Slo
from greenops_pipelines.slo.profiles import PROFILES
from greenops_pipelines.slo.windows import Windows
from tests.slo.burning_minutes import BEGIN, MINUTE, Counts, at, bad, gap, good, lake_in, slo, write


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return lake_in(tmp_path)


def workbook(_: Slo) -> Windows:
    return PROFILES["workbook"]


def decide(
    lake: Lake,
    counts: list[Counts],
    *,
    since: dict[tuple[str, str], Position] | None = None,
    windows_of: Callable[[Slo], Windows] = workbook,
    objective: float = 99.9,
) -> dict[str, Burn]:
    """Page and ticket of one SLO with these minutes, a minute after the last."""
    write(lake, {"shop-availability": counts})
    found = burning(
        lake, [slo(objective=objective)], windows_of, "sample", at(len(counts)) + timedelta(seconds=5), since
    )
    return {burn.severity: burn for burn in found}


def test_burns_are_those_of_the_counts(lake: Lake) -> None:
    """120 minutes of 1,000 events. The last 3 fail wholly: 3/5 over 5 minutes is 600x of 0.1 %, 3/60 is 50x, 3/30 100x,
    and over 6 hours, of which 2 are known, 3/120 is 25x."""
    found = decide(lake, good(117) + bad(3))
    page, ticket = found["page"].pairs[0], found["ticket"].pairs[0]
    assert (page.short_burn, page.long_burn) == pytest.approx((600, 50))
    assert (ticket.short_burn, ticket.long_burn) == pytest.approx((100, 25))
    assert (page.factor, ticket.factor) == pytest.approx((14.4, 6))
    assert {burn.state for burn in found.values()} == {"burning"}
    assert found["page"].newest == at(119)
    assert found["page"].why == "above at 2026-03-02 01:59: 600x over 5m and 50x over 1h (14.4x allowed)"


def test_real_counts_weigh_more_than_ratios(lake: Lake) -> None:
    """A minute of 9,000 events without a fault beside one of 1,000 with 100: 1 %, where the mean of ratios is 5 %."""
    found = decide(lake, [(9000.0, 0.0), (1000.0, 100.0)])
    assert found["page"].pairs[0].short_burn == pytest.approx(10)


def test_both_windows_have_to_be_above(lake: Lake) -> None:
    """One failed minute of an hour: 200x over 5 minutes, 16.7x over the hour. At 0.8 of it, 13.3x: no page."""
    assert decide(lake, good(59) + bad(1))["page"].state == "burning"
    assert decide(lake, good(59) + bad(1, 0.8))["page"].state == "quiet"
    # And the hour alone does not page: the failed minutes are 6 ago.
    assert decide(lake, good(50) + bad(4) + good(6))["page"].state == "quiet"


def test_a_burn_that_equals_the_factor_is_not_above_it(lake: Lake) -> None:
    """14.4x of 0.1 % is 144 of 10,000, in every window."""
    assert decide(lake, [(10_000.0, 144.0)] * 60)["page"].state == "quiet"
    assert decide(lake, [(10_000.0, 145.0)] * 60)["page"].state == "burning"


def test_only_known_minutes_count(lake: Lake) -> None:
    found = decide(lake, gap(50) + bad(1) + gap(4) + good(1) + gap(2) + [(0.0, 0.0)] * 2)
    # Of the last 5 minutes 3 are known, and of these one had events; of the hour one of two failed.
    assert (found["page"].pairs[0].short_burn, found["page"].pairs[0].long_burn) == pytest.approx((0, 500))


def test_without_events_nothing_burns(lake: Lake) -> None:
    found = decide(lake, [(0.0, 0.0)] * 10)
    assert found["page"].state == "quiet"
    assert found["page"].pairs[0].short_burn == 0


def test_a_burst_between_two_looks_is_found(lake: Lake) -> None:
    """It was over when somebody looked. Hours of 1,000 events a minute, then 5 minutes at 100 %:

    the hour's burn reaches 16.7x with the first failed minute. The 5-minute window falls below 14.4x with the 5th good
    minute after the last failed one.
    """
    since = {("shop-availability", name): Position(at(99)) for name in ("page", "ticket")}
    page = decide(lake, good(100) + bad(5) + good(60), since=since)["page"]
    assert page.state == "quiet"
    [spell] = page.spells
    assert (spell.opened_at, spell.closed_at, spell.counted_to) == (at(100), at(109), at(108))
    assert (spell.bad, spell.total, spell.known_minutes) == (5000, 9000, 9)
    assert spell.peak_burn == pytest.approx(1000)
    assert not spell.continues
    assert page.through == at(164)


def test_two_bursts_are_two_spells_and_a_short_calm_is_none(lake: Lake) -> None:
    """Calm minutes after a failed one begin with the 5th good one; 5 of them end it: 9 good minutes are an end, 8 none."""
    eight = decide(lake, good(100) + bad(1) + good(8) + bad(1) + good(20))["page"].spells
    nine = decide(lake, good(100) + bad(1) + good(9) + bad(1) + good(20))["page"].spells
    assert [(spell.opened_at, spell.closed_at) for spell in eight] == [(at(100), at(114))]
    assert [(spell.opened_at, spell.closed_at) for spell in nine] == [(at(100), at(105)), (at(110), at(115))]


def test_gaps_are_no_calm_minutes(lake: Lake) -> None:
    page = decide(lake, good(100) + bad(1) + good(8) + gap(30) + good(1))["page"]
    assert page.spells[0].closed_at == at(105)
    page = decide(lake, good(100) + bad(1) + good(8) + gap(3))["page"]
    assert page.spells[0].closed_at is None
    assert page.through == at(104)


def test_it_goes_on_from_where_it_was(lake: Lake) -> None:
    """Minute by minute or in one pass: the same spells, and the sums of the parts are those of the whole."""
    counts = good(70) + bad(3, 0.9) + good(7) + bad(2) + good(12) + bad(4) + good(12)
    [whole, later] = decide(lake, counts)["page"].spells
    position, opened, closed, sums = Position(at(60)), [], [], [0.0, 0.0, 0]
    for n in range(61, len(counts) + 1):
        found = burning(lake, [slo(ticket=False)], workbook, "sample", at(n), {("shop-availability", "page"): position})
        for spell in found[0].spells:
            opened += [] if spell.continues else [spell.opened_at]
            closed += [spell.closed_at] if spell.closed_at else []
            sums = [a + b for a, b in zip(sums, (spell.bad, spell.total, spell.known_minutes), strict=True)]
        is_open = len(opened) > len(closed)
        assert found[0].through is not None
        position = Position(found[0].through, "x" if is_open else "")
    assert opened == [whole.opened_at, later.opened_at]
    assert closed == [whole.closed_at, later.closed_at]
    assert sums == [whole.bad + later.bad, whole.total + later.total, whole.known_minutes + later.known_minutes]


def test_an_slo_behind_the_others_is_unknown(lake: Lake) -> None:
    counts = {"shop-availability": good(100) + bad(1), "shop-latency": good(117)}
    write(lake, counts)
    both = [slo(ticket=False), slo("latency", ticket=False)]
    stopped, other = burning(lake, both, workbook, "sample", at(117))
    assert (stopped.state, stopped.spells, stopped.through) == ("unknown", (), None)
    assert stopped.why == "nothing is known of it since 2026-03-02 01:40, and of others until 01:56"
    assert other.state == "quiet"
    write(lake, counts | {"shop-latency": good(116)})
    assert burning(lake, both, workbook, "sample", at(117))[0].state == "burning"


def test_late_data_are_decided_as_of_their_newest_minute_and_then_it_is_unknown(lake: Lake) -> None:
    counts = good(100) + bad(1)
    write(lake, {"shop-availability": counts})
    [late] = burning(lake, [slo(ticket=False)], workbook, "sample", at(3000))
    assert (late.state, late.newest) == ("burning", at(100))
    since = {("shop-availability", "page"): Position(at(100), "x")}
    [nothing_new] = burning(lake, [slo(ticket=False)], workbook, "sample", at(3000), since)
    assert (nothing_new.state, nothing_new.why) == ("unknown", "nothing new is known since 2026-03-02 01:40")
    [soon] = burning(lake, [slo(ticket=False)], workbook, "sample", at(115), since)
    assert (soon.state, soon.through) == ("burning", at(100))


@pytest.mark.parametrize("incident", ["", "x"])
def test_a_position_never_goes_back(lake: Lake, incident: str) -> None:
    """A clock that was set back by 13 minutes, or by 70, and counts that were replaced by fewer."""
    since = {("shop-availability", "page"): Position(at(130), incident)}
    write(lake, {"shop-availability": good(100) + bad(5) + good(75)})
    for minute in (118, 61):
        [back] = burning(lake, [slo(ticket=False)], workbook, "sample", at(minute), since)
        assert (back.newest, back.spells, back.through) == (at(minute - 1), (), at(130))
    write(lake, {"shop-availability": good(100) + bad(5) + good(20)})
    [fewer] = burning(lake, [slo(ticket=False)], workbook, "sample", at(131), since)
    assert (fewer.newest, fewer.spells, fewer.through) == (at(124), (), at(130))


def test_a_burn_that_ends_since_nobody_comes_any_more_says_so(lake: Lake) -> None:
    """The last event was in minute 110. Among the five calm minutes after the next burst there are some with events."""
    silent = decide(lake, good(100) + bad(10) + bad(1) + [(0.0, 0.0)] * 40)["page"].spells
    assert [(spell.closed_at, spell.silent_since) for spell in silent] == [(at(115), at(111))]
    some = decide(lake, good(100) + bad(10) + [(0.0, 0.0)] * 6 + good(1) + [(0.0, 0.0)] * 33)["page"].spells
    assert [(spell.closed_at, spell.silent_since) for spell in some] == [(at(114), None)]
    gone_on = decide(lake, good(100) + bad(10) + [(0.0, 0.0)] * 3 + gap(20) + [(0.0, 0.0)] * 9)["page"].spells
    assert [(spell.closed_at, spell.silent_since) for spell in gone_on] == [(at(133), at(110))]


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (1000, "1,000"),
        (1234.5, "1,234"),
        (555.6, "556"),
        (99.96, "100"),
        (14.4, "14.4"),
        (6.0, "6"),
        (0.0231, "0.0231"),
        (0.001, "0.001"),
        (0.00002, "under 0.001"),
        (0.0, "0"),
    ],
)
def test_figures_are_for_people(number: float, text: str) -> None:
    assert figure(number) == text


def test_no_minute_at_all_is_unknown(lake: Lake) -> None:
    found = burning(lake, [slo()], workbook, "sample", at(0))
    assert [(burn.severity, burn.state, burn.why) for burn in found] == [
        ("page", "unknown", "no minute of it is known"),
        ("ticket", "unknown", "no minute of it is known"),
    ]


def test_a_minute_that_is_not_over_is_not_looked_at(lake: Lake) -> None:
    write(lake, {"shop-availability": good(100) + bad(1)})
    [burn] = burning(lake, [slo(ticket=False)], workbook, "sample", at(101) - timedelta(seconds=1))
    assert (burn.newest, burn.state) == (at(99), "quiet")


def test_sources_do_not_mix(lake: Lake) -> None:
    write(lake, {"shop-availability": bad(60)})
    write(lake, {"shop-availability": good(60)}, source="prometheus")
    [burn] = burning(lake, [slo(ticket=False)], workbook, "prometheus", at(60))
    assert burn.state == "quiet"


def test_a_day_of_gaps_at_the_end_does_not_hide_the_newest_minute(lake: Lake) -> None:
    found = decide(lake, good(1400) + bad(5) + gap(35) + gap(10))
    assert found["page"].newest == at(1404)


def test_alerts_that_are_disabled_are_not_decided(lake: Lake) -> None:
    write(lake, {"shop-availability": bad(60)})
    found = burning(lake, [slo(page=False), slo("latency", page=False, ticket=False)], workbook, "sample", at(60))
    assert [(burn.slo.id, burn.severity) for burn in found] == [("shop-availability", "ticket")]


def test_pairs_are_joined_by_or(lake: Lake) -> None:
    """Sloth's page: 14.4x over 5m and 1h, or 6x over 30m and 6h. 1 % for 6 hours is 10x: the slow pair alone."""
    found = decide(lake, bad(360, 0.01), windows_of=lambda _: PROFILES["sloth"])
    quick, slow = found["page"].pairs
    assert (quick.is_above, slow.is_above, found["page"].state) == (False, True, "burning")
    assert [len(burn.pairs) for burn in decide(lake, bad(360, 0.01)).values()] == [1, 1]


def test_slos_of_several_profiles_in_one_call(lake: Lake) -> None:
    write(lake, {"shop-availability": good(120) + bad(4), "shop-latency": good(120) + bad(4)})
    profiles = {"shop-availability": "workbook", "shop-latency": "user-table"}
    found = burning(
        lake, [slo(ticket=False), slo("latency", ticket=False)], lambda s: PROFILES[profiles[s.id]], "sample", at(124)
    )
    assert [burn.slo.id for burn in found] == ["shop-availability", "shop-latency"]
    assert [burn.pairs[0].short_burn for burn in found] == pytest.approx([800, 4 / 60 / 0.001])


@pytest.mark.parametrize("profile", sorted(PROFILES))
@pytest.mark.parametrize("error_percent", [100.0, 10.0, 2.0])
def test_detection_is_what_the_certificate_says(lake: Lake, profile: str, error_percent: float) -> None:
    """The closed form, rounded up to a whole minute, after three days of constant traffic without a fault."""
    certificate = certify(99.9, PROFILES[profile], profile=profile)
    before = 3 * 1440
    wanted = {}
    for severity in certificate.severities:
        found = timing(severity.pairs, error_percent, certificate.budget, certificate.windows.period)
        assert found.detection is not None
        # After `detection` the burn equals the factor; a minute later at the latest it is above.
        wanted[severity.name] = int(found.detection / MINUTE + 1e-6) + 1
    lasts = max(wanted.values()) + 10
    burns = decide(lake, good(before) + bad(lasts, error_percent / 100), windows_of=lambda _: PROFILES[profile])
    begun = {name: burn.spells[0].opened_at for name, burn in burns.items()}
    assert begun == {name: at(before + minutes - 1) for name, minutes in wanted.items()}


def test_after_a_long_pause_three_days_are_looked_at_and_it_says_so(lake: Lake) -> None:
    days = 5 * 1440
    counts = bad(1) + good(99) + bad(1) + good(days - 101)
    since = {("shop-availability", name): Position(at(50)) for name in ("page", "ticket")}
    page = decide(lake, counts, since=since)["page"]
    assert page.spells == ()
    assert page.why.endswith("; minutes before 2026-03-03 23:59 were left out, since the last look was before that")


def test_only_the_days_that_are_needed_are_read(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    write(lake, {"shop-availability": good(12 * 1440)})
    asked = []
    read = lake.read

    def spied(table, where, columns):  # type: ignore[no-untyped-def]
        asked.append(where["day"])
        return read(table, where, columns)

    monkeypatch.setattr(lake, "read", spied)
    since = {("shop-availability", name): Position(at(12 * 1440 - 2)) for name in ("page", "ticket")}
    burning(lake, [slo()], workbook, "sample", at(12 * 1440), since)
    last = (BEGIN + timedelta(days=11)).date()
    assert asked == [last, (last, last)]


def _by_hand(counts: list[Counts], windows: Windows) -> list[tuple[int, int | None]]:
    """Spells of the page by loops over minutes, as somebody would do it on paper."""
    pair, calm = windows.page_quick, 0
    spells: list[tuple[int, int | None]] = []
    begun: int | None = None

    def burn(m: int, length: timedelta) -> float:
        known = [c for c in counts[max(0, m - length // MINUTE + 1) : m + 1] if c[0] is not None]
        total = sum(c[0] or 0 for c in known)
        return sum(c[1] or 0 for c in known) / total / 0.001 if total else 0.0

    for m, (total, _) in enumerate(counts):
        if total is None:
            continue
        short, long = burn(m, pair.short), burn(m, pair.long)
        limit = pair.factor(windows.period) * (1 + 1e-9)
        calm = 0 if short > limit else calm + 1
        if begun is None and min(short, long) > limit:
            begun = m
        elif begun is not None and calm == 5:
            known = [n for n in range(m + 1) if counts[n][0] is not None]
            spells.append((begun, known[known.index(m) - 4]))
            begun = None
    return [*spells, (begun, None)] if begun is not None else spells


STRETCHES = st.lists(
    st.tuples(
        st.sampled_from([good, bad, gap, lambda n: bad(n, 0.02), lambda n: [(0.0, 0.0)] * n]), st.integers(1, 25)
    ),
    min_size=1,
    max_size=12,
)


@hypothesis_settings(max_examples=12)
@given(stretches=STRETCHES)
def test_any_minutes_give_the_spells_of_paper(
    tmp_path_factory: pytest.TempPathFactory, stretches: list[tuple[Callable[[int], list[Counts]], int]]
) -> None:
    counts = [count for make, length in stretches for count in make(length)] + good(1)
    found = decide(lake_in(tmp_path_factory.mktemp("lake")), counts)["page"].spells
    spells = [(spell.opened_at, spell.closed_at) for spell in found]
    assert spells == [(at(a), None if b is None else at(b)) for a, b in _by_hand(counts, PROFILES["workbook"])]


def test_a_position_is_not_shared_by_page_and_ticket(lake: Lake) -> None:
    since = {("shop-availability", "page"): Position(at(130)), ("shop-availability", "ticket"): Position(at(99))}
    found = decide(lake, good(100) + bad(5) + good(30), since=since)
    assert [len(found[name].spells) for name in ("page", "ticket")] == [0, 1]
    assert replace(found["page"], slo=slo()).since == Position(at(130))
