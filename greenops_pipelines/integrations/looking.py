"""One look at the clock: what opens, what is decided anew, what is due. Pure: clock, forecasts and memory are handed in.

Until its chosen start has come, the newest forecast decides about an occurrence again and again. Not here: what is
cheapest (`greenest.py`), Dagster.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Protocol

from greenops_pipelines.integrations.waiting import Choice, Launch, Open, State, Terms, minute
from greenops_pipelines.slo.durations import text

if TYPE_CHECKING:
    from greenops_pipelines.integrations.forecasts import Answer, Series
    from greenops_pipelines.integrations.greenest import Sky

NO_FORECAST = "no forecast: run at the deadline"

_MOST_COUNTED = 1000
_FORECAST_AGE = timedelta(hours=24)
"""As `carbon.outlook.FORECAST_AGE`, whose import costs what is to be spared here."""


class Asked(Protocol):
    """Who answers with forecasts."""

    def ask(self, zones: Sequence[str], now: datetime) -> Answer: ...


@dataclass
class Known:
    """The newest forecasts that this process has seen. It forgets them with the process, and then asks once more."""

    source: Asked
    series: dict[str, tuple[datetime, Series]] = field(default_factory=dict)
    faults: Mapping[str, str] = field(default_factory=dict)
    has_asked: bool = False

    def renew(self, zones: Sequence[str], now: datetime) -> None:
        """Ask for all zones. What is not answered leaves what was known before, for a day."""
        answer = self.source.ask(zones, now)
        kept = {zone: old for zone, old in self.series.items() if now - old[0] < _FORECAST_AGE}
        self.series = kept | {zone: (now, series) for zone, series in answer.series.items()}
        self.faults = answer.faults
        self.has_asked = True

    def sky(self, zones: Sequence[str]) -> Sky | None:
        """All that is known, None where nothing is."""
        if not self.series:
            return None
        # numpy, Arrow and what belongs to them cost half a second: here, where something waits, and not at import.
        from greenops_pipelines.integrations import greenest

        return greenest.sky({zone: series for zone, (_, series) in self.series.items()}, zones)


@dataclass(frozen=True)
class Looked:
    """What one look came to."""

    state: State
    launches: tuple[Launch, ...]
    warnings: tuple[str, ...]
    summary: str
    """One line: what waits for what, and the counts."""


def look(terms: Terms, state: State, now: datetime, known: Known) -> Looked:
    """Open what has begun, decide, launch what is due.

    Forecasts are asked for where something waits, once per `terms.refresh`, and once more after a restart.
    """
    state, warnings = _opened(terms, state, now)
    waiting = [_still_chosen(terms, each, now) for each in state.open]
    undecided = any(each.choice is None for each in waiting)
    if any(not _is_due(each, now) for each in waiting):
        # A clock that was put back leaves a time in the future.
        is_old = state.asked is None or not timedelta() <= now - state.asked < terms.refresh
        if is_old or (undecided and not known.has_asked):
            known.renew(terms.zones, now)
            state = replace(state, asked=now)
            warnings += [f"no forecast for zone {zone}: {fault}" for zone, fault in known.faults.items()]
            waiting = [each if _is_due(each, now) else replace(each, choice=None) for each in waiting]
    seen = known.sky(terms.zones) if waiting else None
    old = {each.at: each.choice for each in state.open}
    launches: list[Launch] = []
    left: list[Open] = []
    for occurrence in waiting:
        each = _decided(terms, occurrence, now, seen, old.get(occurrence.at))
        launch, rest = _launched(terms, each, now, seen)
        if launch:
            launches.append(launch)
            rest = rest and _decided(terms, rest, now, seen, None)
        if rest:
            left.append(rest)
    warnings += [f"{launch.key}: {launch.reason}" for launch in launches if launch.is_late or not launch.has_forecast]
    done = [each.at for each in waiting if each.at not in {rest.at for rest in left}]
    counts = replace(
        state.counts,
        launched=state.counts.launched + len(launches),
        late=state.counts.late + sum(launch.is_late for launch in launches),
        no_forecast=state.counts.no_forecast + sum(not launch.has_forecast for launch in launches),
    )
    last = max([*done, *([state.last] if state.last else [])], default=None)
    state = replace(state, open=tuple(left), counts=counts, last=last)
    return Looked(state, tuple(launches), tuple(warnings), _summary(terms, state, known, now))


def _opened(terms: Terms, state: State, now: datetime) -> tuple[State, list[str]]:
    """With what has begun since, and without what ended a window ago or more: that is missed."""
    over = now - 2 * terms.window
    gone = [each.at for each in state.open if each.at <= over]
    if state.through < over:
        for at in terms.recurrence.between(state.through, over):
            gone.append(at)
            if len(gone) >= _MOST_COUNTED:
                break
    opened = [Open(at, at) for at in terms.recurrence.between(max(state.through, over), now)]
    still = (*(each for each in state.open if each.at > over), *opened)
    counts = replace(state.counts, missed=state.counts.missed + len(gone))
    last = max([*gone, *([state.last] if state.last else [])], default=None)
    shown = ", ".join(minute(at) for at in gone[:5]) + (f" and {len(gone) - 5} more" if len(gone) > 5 else "")
    warnings = [f"missed, its deadline was {text(terms.window)} ago or more: {shown}"] if gone else []
    return replace(state, through=max(state.through, now), open=still, counts=counts, last=last), warnings


def _still_chosen(terms: Terms, each: Open, now: datetime) -> Open:
    """Without a choice whose time passed unseen, or whose zone is no longer one of the terms."""
    choice = each.choice
    if choice and (now - choice.start > terms.tolerance or choice.zone not in terms.zones):
        return replace(each, choice=None)
    return each


def _is_due(each: Open, now: datetime) -> bool:
    return each.choice is not None and each.choice.start <= now


def _decided(terms: Terms, each: Open, now: datetime, seen: Sky | None, before: Choice | None) -> Open:
    """With a choice, where one can be made; else what was chosen `before` stands, if its time is still to come."""
    if each.choice is not None:
        return each
    kept = before if before and before.zone in terms.zones and before.start > now else None
    if seen is None:
        return replace(each, choice=kept)
    from greenops_pipelines.integrations import greenest

    at_once = each.at_once_g_per_kwh
    if at_once is None:
        at_once = greenest.mean(seen, terms.zones[0], each.at, terms.duration)
    if terms.is_cut:
        found = greenest.cells(seen, each.at, terms.piece, terms.open_cells(each, now), terms.pieces - each.done)
        # In a cell that the piece before it still reaches into, it starts when that one has had its time.
        slot = replace(found[0], start=max(found[0].start, each.not_before)) if found else None
    else:
        slot = greenest.window(seen, max(each.at, now), each.at + terms.window, terms.duration)
    choice = Choice(slot.start, slot.zone, slot.g_per_kwh) if slot else kept
    return replace(each, choice=choice, at_once_g_per_kwh=at_once)


def _launched(terms: Terms, each: Open, now: datetime, seen: Sky | None) -> tuple[Launch | None, Open | None]:
    """The launch that is due, if any, and the occurrence as it is after it; None where it is done."""
    latest = terms.latest_start(each)
    chosen = each.choice if _is_due(each, now) else None
    if chosen is None and now < latest:
        return None, each
    is_late = now - latest > terms.tolerance
    if chosen is None:
        chosen = _at_once(terms, now, seen)
        why = "run at the latest start" if chosen else NO_FORECAST
        if is_late:
            why = "late, nothing looked when its time came" + ("" if chosen else f"; {NO_FORECAST}")
    else:
        why = f"greenest start until {minute(latest)}"
    shown = f": {chosen.g_per_kwh:.0f} g/kWh in {chosen.zone}" if chosen else ""
    baseline, avoided = each.at_once_g_per_kwh, None
    if chosen and baseline is not None:
        shown += f", {baseline:.0f} at once in {terms.zones[0]}"
        avoided = (baseline - chosen.g_per_kwh) / baseline * 100 if baseline else None
    launch = Launch(
        key=terms.key(each.at, each.done + 1),
        zone=chosen.zone if chosen else terms.zones[0],
        earliest_start=each.at,
        deadline=each.at + terms.window,
        reason=why + shown,
        avoided_pct=avoided,
        has_forecast=chosen is not None,
        is_late=is_late,
        piece=each.done + 1,
        pieces=terms.pieces,
    )
    rest = replace(each, done=each.done + 1, not_before=now + terms.piece, choice=None)
    return launch, rest if rest.done < terms.pieces else None


def _at_once(terms: Terms, now: datetime, seen: Sky | None) -> Choice | None:
    """Where it emits least to run now, if that is known of any zone."""
    if seen is None:
        return None
    from greenops_pipelines.integrations import greenest

    known = [(greenest.mean(seen, zone, now, terms.piece), zone) for zone in terms.zones]
    return min(
        (Choice(now, zone, mean) for mean, zone in known if mean is not None),
        key=lambda choice: choice.g_per_kwh,
        default=None,
    )


def _summary(terms: Terms, state: State, known: Known, now: datetime) -> str:
    said = [_waits(terms, each) for each in state.open[:3]]
    if len(state.open) > 3:
        said.append(f"{len(state.open) - 3} more wait")
    if not state.open:
        said.append(f"nothing waits, the next opens at {minute(next(terms.recurrence.after(now)))}")
    elif known.faults:
        said += [f"no forecast for zone {zone}: {fault}" for zone, fault in list(known.faults.items())[:3]]
    counts = state.counts
    said.append(
        f"so far {counts.launched} launched, {counts.late} late, {counts.no_forecast} without a forecast, "
        f"{counts.missed} missed"
    )
    return "; ".join(said)


def _waits(terms: Terms, each: Open) -> str:
    if each.choice is None:
        return f"{minute(each.at)} waits for a forecast, until {minute(terms.latest_start(each))}"
    return f"{minute(each.at)} waits for {minute(each.choice.start)} in {each.choice.zone}"
