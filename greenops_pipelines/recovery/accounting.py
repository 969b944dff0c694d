"""What a failover has cost, from the ledger and the survivors alone: RTO, RPO, the client's outage, and every write accounted for.

RPO: the time between the last write that was acknowledged before the failover and the last one of those that survived it.
RTO: from the fault to the first write that the other region acknowledged. Not here: how either came about.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from greenops_pipelines.recovery.ledger import Write


@dataclass(frozen=True)
class Loss:
    """What one region had acknowledged, held against what the other has."""

    acked: int
    survived: int
    lost: tuple[int, ...]
    """Numbers of acknowledged writes that are gone."""
    rpo_s: float


@dataclass(frozen=True)
class Account:
    """Every write of a drill, accounted for."""

    writes: int
    acked: int
    acked_before: int
    """By the region that failed."""
    acked_after: int
    """By the other one."""
    acked_back: int
    """By the first one again, after failback."""
    lost_writes: int
    rpo_s: float
    rto_s: float | None
    client_outage_s: float | None
    in_doubt_writes: int
    in_doubt_kept: int
    failed_writes: int
    late_acks: int
    """Writes that the failed region acknowledged after it had been fenced: two primaries at once."""
    faults: tuple[str, ...]
    """What cannot be: unknown rows, payloads that changed, failed writes that are there, writes lost at failback."""


def loss(acknowledged: Sequence[Write], kept: Mapping[int, str]) -> Loss:
    """`acknowledged`: the writes of one region before the failover; `kept`: what the other has, by number.

    The RPO is taken from the last survivor; where writes that were acknowledged before it are gone, from the first of those, if
    that is longer: with several clients the order of acknowledgements is not quite that of commits.
    """
    gone = [write for write in acknowledged if write.id not in kept]
    if not gone:
        return Loss(len(acknowledged), len(acknowledged), (), 0.0)
    times = [_ended(write) for write in acknowledged]
    alive = [_ended(write) for write in acknowledged if write.id in kept]
    since = min(_ended(write) for write in gone)
    last_alive = min(max(alive), since) if alive else min(write.begun for write in acknowledged)
    return Loss(len(acknowledged), len(alive), tuple(write.id for write in gone), max(times) - last_alive)


def account(
    writes: Sequence[Write],
    primary: str,
    standby: str,
    fault_at: float,
    fenced_at: float | None,
    after_failover: Mapping[int, str] | None,
    failback_at: float | None,
    after_failback: Mapping[int, str] | None,
) -> Account:
    """Times are seconds of the drill's clock; the mappings are what the surviving server had, None where nobody looked."""
    acked = [write for write in writes if write.outcome == "ok"]
    before = [
        write for write in acked if write.region == primary and (failback_at is None or _ended(write) < failback_at)
    ]
    after = [write for write in acked if write.region == standby]
    back = [
        write for write in acked if write.region == primary and failback_at is not None and _ended(write) >= failback_at
    ]
    doubtful = [write for write in writes if write.outcome == "in doubt"]
    failed = [write for write in writes if write.outcome == "fail"]
    found = loss(before, after_failover) if after_failover is not None else Loss(len(before), 0, (), 0.0)
    last = after_failback if after_failback is not None else after_failover
    faults: list[str] = []
    if last is not None:
        faults += _impossible(writes, last)
        gone = set(found.lost)
        # Once the way back was begun, what was looked at before it says nothing of what came later.
        later = (*after, *back) if after_failback is not None or failback_at is None else ()
        must = [write for write in (*before, *later) if write.id not in gone]
        if missing := [write.id for write in must if write.id not in last]:
            faults.append(f"{len(missing)} acknowledged writes that had survived are gone, such as {missing[0]}")
    if risen := sorted(set(found.lost) & set(after_failback or ())):
        faults.append(f"{len(risen)} writes that the failover had lost are back, such as {risen[0]}")
    placed = len(before) + len(after) + len(back)
    if placed != len(acked):
        faults.append(
            f"{len(acked) - placed} acknowledged writes are of neither region, so nobody held them against anything"
        )
    late = [write for write in before if fenced_at is not None and write.begun > fenced_at]
    if late:
        faults.append(f"{primary} acknowledged {len(late)} writes that were begun after it had been fenced")
    first_after = min((_ended(write) for write in after), default=None)
    last_before = max((_ended(write) for write in before), default=None)
    return Account(
        writes=len(writes),
        acked=len(acked),
        acked_before=len(before),
        acked_after=len(after),
        acked_back=len(back),
        lost_writes=len(found.lost),
        rpo_s=found.rpo_s,
        rto_s=None if first_after is None else first_after - fault_at,
        client_outage_s=None if first_after is None or last_before is None else first_after - last_before,
        in_doubt_writes=len(doubtful),
        in_doubt_kept=sum(write.id in last for write in doubtful) if last is not None else 0,
        failed_writes=len(failed),
        late_acks=len(late),
        faults=tuple(faults),
    )


def _impossible(writes: Sequence[Write], kept: Mapping[int, str]) -> list[str]:
    known = {write.id: write for write in writes}
    faults = []
    if unknown := sorted(set(kept) - set(known)):
        faults.append(f"{len(unknown)} rows that nobody wrote, such as {unknown[0]}")
    if changed := [number for number, digest in kept.items() if number in known and known[number].sha256 != digest]:
        faults.append(f"{len(changed)} rows whose payload is not what was written, such as {changed[0]}")
    if undead := [number for number in kept if number in known and known[number].outcome == "fail"]:
        faults.append(f"{len(undead)} writes that were refused are there all the same, such as {undead[0]}")
    return faults


def _ended(write: Write) -> float:
    return write.ended if write.ended is not None else write.begun
