"""What a failover has cost: cases that a person counts by hand, and rules that hold for any ledger."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenops_pipelines.recovery.accounting import Account, Loss, account, loss
from greenops_pipelines.recovery.ledger import Outcome, Write

US, EU = "us-east-1", "eu-central-1"


def write(number: int, ended: float, region: str | None = US, outcome: Outcome = "ok") -> Write:
    """One that took 0.1 s."""
    return Write(number, "client-1", f"digest-{number}", ended - 0.1, ended, outcome, region, "")


def rows(*numbers: int) -> dict[int, str]:
    """What a server has, as it was written."""
    return {number: f"digest-{number}" for number in numbers}


def counted(
    writes: Sequence[Write],
    after_failover: Mapping[int, str] | None,
    *,
    fault_at: float = 10.0,
    fenced_at: float | None = 12.0,
    failback_at: float | None = None,
    after_failback: Mapping[int, str] | None = None,
) -> Account:
    """us-east-1 fails at 10 s and is fenced at 12 s."""
    return account(writes, US, EU, fault_at, fenced_at, after_failover, failback_at, after_failback)


# Ten writes a second apart, the last at the fault; the other region answers from 13.5 s on.
BEFORE = [write(n, float(n)) for n in range(1, 11)]
AFTER = [write(n, n + 2.5, EU) for n in range(11, 14)]
BACK = [write(n, n + 6.0) for n in range(14, 16)]
"""At 20 and 21 s: the failback begins at 18 s."""


# The loss alone


def test_nothing_lost_is_an_rpo_of_zero() -> None:
    assert loss(BEFORE, rows(*range(1, 11))) == Loss(10, 10, (), 0.0)


def test_the_last_three_of_ten_lost() -> None:
    # The last that survived was acknowledged at 7 s, the last of all at 10 s.
    assert loss(BEFORE, rows(*range(1, 8))) == Loss(10, 7, (8, 9, 10), 3.0)


def test_the_last_one_lost() -> None:
    assert loss(BEFORE, rows(*range(1, 10))) == Loss(10, 9, (10,), 1.0)


def test_a_gap_counts_from_the_first_write_that_is_gone() -> None:
    # 4 and 9 are gone, 10 is there: from the last survivor alone it would be nothing.
    assert loss(BEFORE, rows(1, 2, 3, 5, 6, 7, 8, 10)) == Loss(10, 8, (4, 9), 6.0)


def test_where_both_are_lost_a_gap_and_the_last_the_longer_span_counts() -> None:
    # The last survivor is 8 (2 s before the end), the first that is gone is 5 (5 s before it).
    assert loss(BEFORE, rows(1, 2, 3, 4, 6, 7, 8)) == Loss(10, 7, (5, 9, 10), 5.0)


def test_where_nothing_survived_it_is_everything_since_the_first_write_was_sent() -> None:
    found = loss(BEFORE, {})
    assert (found.acked, found.survived, found.lost) == (10, 0, tuple(range(1, 11)))
    assert found.rpo_s == pytest.approx(9.1)


def test_where_nothing_was_acknowledged_nothing_can_be_lost() -> None:
    assert loss([], rows(1)) == Loss(0, 0, (), 0.0)


def test_writes_may_come_in_any_order() -> None:
    assert loss(BEFORE[::-1], rows(*range(1, 8))) == Loss(10, 7, (10, 9, 8), 3.0)


def test_a_loss_in_the_same_instant_as_the_last_survivor_is_counted_though_no_time_lies_between() -> None:
    assert loss([write(1, 5.0), write(2, 5.0)], rows(1)) == Loss(2, 1, (2,), 0.0)


# A whole drill


def test_nothing_lost() -> None:
    assert counted([*BEFORE, *AFTER], rows(*range(1, 14))) == Account(
        writes=13,
        acked=13,
        acked_before=10,
        acked_after=3,
        acked_back=0,
        lost_writes=0,
        rpo_s=0.0,
        rto_s=3.5,
        client_outage_s=3.5,
        in_doubt_writes=0,
        in_doubt_kept=0,
        failed_writes=0,
        late_acks=0,
        faults=(),
    )


def test_a_failover_and_its_failback() -> None:
    kept = rows(*range(1, 8), *range(11, 16))
    found = counted([*BEFORE, *AFTER, *BACK], rows(*range(1, 8), 11, 12, 13), failback_at=18.0, after_failback=kept)
    assert (found.acked_before, found.acked_after, found.acked_back, found.acked) == (10, 3, 2, 15)
    assert (found.lost_writes, found.rpo_s, found.rto_s, found.faults) == (3, 3.0, 3.5, ())


def test_recovery_is_timed_from_the_fault_and_the_outage_from_the_last_answer() -> None:
    # The last answer of the one came at 10 s, the fault was at 10.25 s, the first of the other at 13.5 s.
    found = counted([*BEFORE, *AFTER], rows(*range(1, 14)), fault_at=10.25)
    assert (found.rto_s, found.client_outage_s) == (3.25, 3.5)


def test_without_a_write_elsewhere_there_is_no_recovery_time() -> None:
    found = counted(BEFORE, rows(*range(1, 11)))
    assert (found.rto_s, found.client_outage_s, found.acked_after) == (None, None, 0)


def test_without_a_write_before_the_fault_there_is_no_outage() -> None:
    found = counted(AFTER, rows(11, 12, 13))
    assert (found.rto_s, found.client_outage_s, found.acked_before) == (3.5, None, 0)


def test_writes_in_doubt_are_kept_or_not_and_either_is_well() -> None:
    doubtful = [write(20, 10.0, None, "in doubt"), write(21, 10.0, None, "in doubt"), write(22, 10.0, None, "in doubt")]
    found = counted([*BEFORE, *AFTER, *doubtful], rows(*range(1, 14), 21))
    assert (found.in_doubt_writes, found.in_doubt_kept, found.lost_writes, found.rpo_s) == (3, 1, 0, 0.0)
    assert (found.acked, found.writes, found.faults) == (13, 16, ())


def test_a_write_in_doubt_without_an_end_is_one_of_them() -> None:
    unfinished = Write(20, "client-1", "digest-20", 9.9, None, "in doubt", None, "no end was recorded")
    found = counted([*BEFORE, *AFTER, unfinished], rows(*range(1, 14), 20))
    assert (found.in_doubt_writes, found.in_doubt_kept, found.faults) == (1, 1, ())


def test_a_refused_write_is_not_there() -> None:
    found = counted([*BEFORE, *AFTER, write(20, 11.0, None, "fail")], rows(*range(1, 14)))
    assert (found.failed_writes, found.faults) == (1, ())


def test_a_refused_write_that_is_there_is_a_fault() -> None:
    refused = [write(20, 11.0, None, "fail"), write(21, 11.0, None, "fail")]
    found = counted([*BEFORE, *AFTER, *refused], rows(*range(1, 14), 21))
    assert found.faults == ("1 writes that were refused are there all the same, such as 21",)


def test_a_row_that_nobody_wrote_is_a_fault() -> None:
    found = counted([*BEFORE, *AFTER], rows(*range(1, 14), 99, 98))
    assert found.faults == ("2 rows that nobody wrote, such as 98",)
    assert (found.lost_writes, found.writes) == (0, 13)


def test_a_changed_payload_is_a_fault_and_no_loss() -> None:
    found = counted([*BEFORE, *AFTER], rows(*range(1, 14)) | {5: "digest-6"})
    assert found.faults == ("1 rows whose payload is not what was written, such as 5",)
    assert (found.lost_writes, found.rpo_s) == (0, 0.0)


@pytest.mark.parametrize("gone", [3, 12, 15], ids=["of before", "of the standby", "of after the failback"])
def test_a_write_that_is_gone_after_the_failback_is_a_fault(gone: int) -> None:
    survived = rows(*range(1, 14))
    kept = {number: digest for number, digest in rows(*range(1, 16)).items() if number != gone}
    found = counted([*BEFORE, *AFTER, *BACK], survived, failback_at=18.0, after_failback=kept)
    assert found.faults == (f"1 acknowledged writes that had survived are gone, such as {gone}",)
    # It is no loss of the failover.
    assert (found.lost_writes, found.rpo_s) == (0, 0.0)


def test_a_write_of_the_standby_that_is_gone_without_a_failback_is_a_fault() -> None:
    found = counted([*BEFORE, *AFTER], rows(*range(1, 12), 13))
    assert found.faults == ("1 acknowledged writes that had survived are gone, such as 12",)


def test_a_lost_write_that_came_back_is_a_fault() -> None:
    found = counted(
        [*BEFORE, *AFTER, *BACK],
        rows(*range(1, 8), 11, 12, 13),
        failback_at=18.0,
        after_failback=rows(*range(1, 9), *range(11, 16)),
    )
    assert found.faults == ("1 writes that the failover had lost are back, such as 8",)
    assert (found.lost_writes, found.rpo_s) == (3, 3.0)


def test_an_answer_of_the_fenced_primary_is_a_fault() -> None:
    # Begun at 11.95 s, before the fence at 12 s: an answer that was on its way. Begun at 12.4 s: two primaries.
    on_the_way, late = write(20, 12.05), write(21, 12.5)
    found = counted([*BEFORE, *AFTER, on_the_way, late], rows(*range(1, 14), 20, 21))
    assert found.late_acks == 1
    assert found.faults == (f"{US} acknowledged 1 writes that were begun after it had been fenced",)


def test_without_a_fence_no_answer_is_late() -> None:
    found = counted([*BEFORE, *AFTER, write(21, 12.5)], rows(*range(1, 14), 21), fenced_at=None)
    assert (found.late_acks, found.faults) == (0, ())


def test_an_answer_after_the_failback_is_not_one_of_the_fenced_primary() -> None:
    found = counted([*BEFORE, *AFTER, *BACK], rows(*range(1, 14)), failback_at=18.0, after_failback=rows(*range(1, 16)))
    assert (found.late_acks, found.acked_back, found.faults) == (0, 2, ())


def test_where_nobody_looked_nothing_is_found_wrong() -> None:
    found = counted([*BEFORE, *AFTER, write(20, 10.0, None, "in doubt")], None)
    assert (found.acked_before, found.acked_after, found.in_doubt_writes, found.in_doubt_kept) == (10, 3, 1, 0)
    assert (found.rto_s, found.faults) == (3.5, ())


def test_a_failback_that_broke_off_takes_no_later_write_for_lost() -> None:
    """The survivors were looked at after 12; 13 was acknowledged meanwhile, and then the way back failed."""
    found = counted([*BEFORE, *AFTER], rows(*range(1, 13)), failback_at=15.2, after_failback=None)
    assert (found.lost_writes, found.acked_after) == (0, 3)
    assert found.faults == ()


def test_several_faults_are_each_named() -> None:
    found = counted(
        [*BEFORE, *AFTER, write(20, 11.0, None, "fail")], rows(*range(1, 11), 12, 13, 20, 30) | {1: "digest-2"}
    )
    assert found.faults == (
        "1 rows that nobody wrote, such as 30",
        "1 rows whose payload is not what was written, such as 1",
        "1 writes that were refused are there all the same, such as 20",
        "1 acknowledged writes that had survived are gone, such as 11",
    )


# Any drill


@st.composite
def ledgers(draw: st.DrawFn) -> tuple[list[Write], list[int]]:
    """Writes of any outcome with answers in different microseconds, and the order in which the primary committed."""
    some: list[Outcome] = ["ok", "ok", "ok", "in doubt", "fail"]
    outcomes = draw(st.lists(st.sampled_from(some), max_size=25))
    instants = draw(st.lists(st.integers(1, 10**9), min_size=len(outcomes), max_size=len(outcomes), unique=True))
    writes = [
        Write(
            number,
            f"client-{number % 3}",
            f"digest-{number}",
            (micros - draw(st.integers(1, micros))) / 1e6,
            micros / 1e6,
            outcome,
            US if outcome == "ok" else None,
            "",
        )
        for number, (outcome, micros) in enumerate(zip(outcomes, instants, strict=True), 1)
    ]
    # With several clients, answers come in nearly the order of commits, and not quite.
    commits = draw(st.permutations([write.id for write in writes if write.outcome != "fail"]))
    return writes, list(commits)


def acknowledged(writes: Iterable[Write]) -> dict[int, float]:
    return {write.id: write.ended or 0.0 for write in writes if write.outcome == "ok"}


@given(ledgers(), st.integers(0, 25))
def test_for_any_prefix_of_commits_every_acknowledged_write_survived_or_is_lost(
    drill: tuple[list[Write], list[int]], survivors: int
) -> None:
    writes, commits = drill
    kept = rows(*commits[:survivors])
    found, acked = counted(writes, kept, fenced_at=None), acknowledged(writes)
    gone = [number for number in acked if number not in kept]
    assert found.acked_before == found.acked == len(acked)
    assert found.acked_before == len(acked.keys() & kept.keys()) + found.lost_writes
    assert found.lost_writes == len(gone)
    assert found.in_doubt_kept == sum(w.outcome == "in doubt" and w.id in kept for w in writes)
    assert found.writes == found.acked + found.in_doubt_writes + found.failed_writes
    assert found.faults == ()
    # The span.
    assert found.rpo_s >= 0
    assert (found.rpo_s == 0) == (not gone)
    if gone:
        assert found.rpo_s >= max(acked.values()) - min(acked[number] for number in gone)
        assert found.rpo_s <= max(acked.values()) - min(write.begun for write in writes)


@given(ledgers(), st.data())
def test_for_any_survivors_the_loss_adds_up(drill: tuple[list[Write], list[int]], data: st.DataObject) -> None:
    writes, commits = drill
    acked = [write for write in writes if write.outcome == "ok"]
    kept = rows(*(data.draw(st.sets(st.sampled_from(commits))) if commits else ()))
    found = loss(acked, kept)
    assert found.acked == found.survived + len(found.lost) == len(acked)
    assert set(found.lost) == {write.id for write in acked} - kept.keys()


@given(ledgers())
def test_a_survivor_less_never_shortens_the_span(drill: tuple[list[Write], list[int]]) -> None:
    writes, commits = drill
    acked = [write for write in writes if write.outcome == "ok"]
    losses = [loss(acked, rows(*commits[:survivors])) for survivors in range(len(commits), -1, -1)]
    assert [each.rpo_s for each in losses] == sorted(each.rpo_s for each in losses)
    assert [len(each.lost) for each in losses] == sorted(len(each.lost) for each in losses)


@given(ledgers(), st.integers(0, 25), st.integers(26, 10**6))
def test_any_row_that_nobody_wrote_is_named(drill: tuple[list[Write], list[int]], survivors: int, strange: int) -> None:
    writes, commits = drill
    assert counted(writes, rows(*commits[:survivors], strange), fenced_at=None).faults == (
        f"1 rows that nobody wrote, such as {strange}",
    )
