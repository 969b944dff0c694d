"""Which canary drills are held: as asked for, in a run of the graph, in a week. Not here: holding them (`drills.py`)."""

from __future__ import annotations

import random
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from greenops_pipelines.errors import BadInput
from greenops_pipelines.process import prometheus
from greenops_pipelines.slo.canary import Canaries
from greenops_pipelines.slo.canary_model import Variant
from greenops_pipelines.slo.drill_results import OF_METRICS, Spec, error_ratio
from greenops_pipelines.slo.rollouts import lasts_seconds

AD_HOC = "ad hoc"
MAX_SPEED = 40.0
"""Beyond it a scrape would be due more often than one is done."""
WEEKLY = ("errors-100", "errors-10", "errors-2", "latency", "healthy")
"""What a week's drills are, the quick ones first."""
LATE = "errors-10"
"""That of the week's in which the breach comes at any moment of the Rollout, at steps and checks too."""
_MARGIN = 1.25
"""More requests than the fewest by which a canary is judged, so that a late one does not make it too few."""
_MOST_RATE = 400.0
_LATEST_BREACH_S = 90.0
_SOON_S = 30.0
"""Two scrapes after the first request: a person who waits for it is not to wait for a whole window besides."""
_TUESDAY = 2
_DAY = timedelta(days=1)


def spec(
    canaries: Canaries,
    scenario: str,
    service: str,
    *,
    variant: Variant | None = None,
    rate: float | None = None,
    breach_after_s: float | None = None,
    speed: float = 1.0,
    embedded: bool = False,
    batch: str = AD_HOC,
) -> Spec:
    """One drill as declared; `BadInput` for one that could not come to what it has to.

    Without `breach_after_s` the breach comes at a random moment: certificates are about all. Without `rate` there are more
    requests at the first step than the fewest by which a canary is judged.
    """
    if service not in canaries.services:
        raise BadInput(f"--service: found {service!r}, allowed: {', '.join(canaries.services)}")
    if not 1 <= speed <= MAX_SPEED:
        raise BadInput(f"--speed: found {speed:g}, allowed: 1 to {MAX_SPEED:g}")
    if scenario == "prometheus-restart" and speed > 1:
        # It begins to scrape five seconds after its start, whatever the interval: sped up, that is a minute without a sample.
        raise BadInput(f"--speed: found {speed:g}, allowed: 1 for {scenario}")
    if scenario in OF_METRICS and embedded:
        raise BadInput(f"--embedded: found it with {scenario}, allowed: without, as that is done to Prometheus")
    if scenario in OF_METRICS and not prometheus.found():
        raise BadInput(f"--scenario: found {scenario} and no Prometheus, allowed: install {prometheus.INSTALL}")
    entry = canaries.services[service]
    ratio = error_ratio(scenario)
    if ratio is not None and ratio * 100 <= entry.error_percent:
        raise BadInput(
            f"--scenario: found {scenario}, allowed: above error_percent of {service}, {entry.error_percent:g} %"
        )
    fewest = entry.minimum_requests_per_second * 100 / canaries.steps[0].weight
    wanted = _MARGIN * fewest if rate is None else rate
    if not fewest <= wanted <= _MOST_RATE:
        raise BadInput(
            f"--rate: found {wanted:g} requests a second, allowed: {fewest:g} to {_MOST_RATE:g} for {service}, whose canary is "
            f"judged by {entry.minimum_requests_per_second:g} at {canaries.steps[0].weight} % (ops/canary.yaml)"
        )
    if scenario == "no-traffic":
        # There never was any.
        after = 0.0
    elif breach_after_s is not None:
        after = breach_after_s
    else:
        after = random.uniform(0, _LATEST_BREACH_S)  # noqa: S311 - a phase
    return Spec(
        drill=f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}",
        service=service,
        scenario=scenario,
        variant=variant or entry.variant,
        rate=wanted,
        breach_after_s=after,
        speed=speed,
        embedded=embedded,
        batch=batch,
    )


def first(canaries: Canaries, newest: datetime | None, now: datetime) -> list[Spec]:
    """What is drilled where nobody asked for anything: a canary that fails wholly soon after its first request.

    Of the service that needs the fewest requests: the rest of the graph is made on the same cores.

    Nothing where a breach was rolled back within the last day; `newest` is when.
    """
    if newest is not None and now - newest < _DAY:
        return []
    quietest = min(canaries.services.values(), key=lambda entry: entry.minimum_requests_per_second)
    return [spec(canaries, "errors-100", quietest.service, breach_after_s=_SOON_S)]


def of_batch(canaries: Canaries, scenarios: Collection[str], service: str, batch: str) -> list[Spec]:
    """These, one of them with a breach at any moment before the last two minutes of its Rollout."""
    late = random.uniform(0, lasts_seconds(canaries) - canaries.rollback.deadline_seconds)  # noqa: S311 - a phase
    return [
        spec(canaries, each, service, batch=batch or AD_HOC, breach_after_s=late if each == LATE and batch else None)
        for each in scenarios
    ]


def week_of(now: datetime) -> str:
    """`2026-W48`: the ISO week of a moment, which begins on Monday."""
    year, week, _ = now.astimezone(UTC).isocalendar()
    return f"{year}-W{week:02d}"


@dataclass(frozen=True)
class DueWeek:
    """The week whose drills are due, of which service, and which are left; `week` is None where nothing is due, and `why`."""

    week: str | None
    service: str = ""
    scenarios: tuple[str, ...] = ()
    why: str = ""


def due_week(services: Collection[str], held: Collection[str], now: datetime) -> DueWeek:
    """What is left of this week's drills, from Tuesday on; `held` are those that came to their end.

    Each week it is another service's turn: its gates, its own metrics.
    """
    week = week_of(now)
    if now.astimezone(UTC).isoweekday() < _TUESDAY:
        return DueWeek(None, why=f"{week}: its drills begin on Tuesday")
    left = tuple(scenario for scenario in WEEKLY if scenario not in held)
    if not left:
        return DueWeek(None, why=f"{week}: held")
    return DueWeek(week, list(services)[now.astimezone(UTC).isocalendar().week % len(services)], left)
