"""What a decision may believe about the intensity of slots to come. Not here: how a forecast is made (`carbon`).

One series for all decisions (`perfect`, `noise:0.05`), or forecasts as issued (`persistence`, `ridge`), each made from the
values of slots that had ended: a decision in slot i knows the slots before i.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from greenops_pipelines.errors import BadInput
from greenops_pipelines.placement.model import HOUR, MINUTE, Floats, Grid, Ints

KINDS = "perfect, persistence, ridge, noise:SHARE (such as noise:0.05)"


@dataclass(frozen=True)
class Issued:
    """Forecasts as they were issued, slot after slot."""

    values: Floats
    """[places, issues, horizon]"""
    row: Ints
    """[slots] where in `values` a slot's forecast stands; -1: none was made."""


@dataclass(frozen=True)
class Belief:
    """Forecasts by place and slot: those that were `issued`, else one series for all decisions."""

    name: str
    series: Floats
    """[places, slots]; without values where there are forecasts as issued."""
    issued: Issued | None = None

    @property
    def is_issued(self) -> bool:
        return self.issued is not None

    def over(self, place: Ints, issue: Ints, slot: Ints) -> Floats:
        """Values [jobs, pieces] for slots [jobs, pieces] at a place per job, as believed in slot `issue` [jobs]."""
        places, slots = np.broadcast_to(place[:, None], slot.shape), slot
        if self.issued is None:
            inside = (slots >= 0) & (slots < self.series.shape[1])
            return np.where(inside, self.series[places, np.where(inside, slots, 0)], np.nan)
        row = self.issued.row
        at_issue = row[np.clip(issue, 0, len(row) - 1)]
        ahead = slots - issue[:, None]
        inside = (ahead >= 0) & (ahead < self.issued.values.shape[2]) & (at_issue >= 0)[:, None]
        return np.where(inside, self.issued.values[places, at_issue[:, None], np.where(inside, ahead, 0)], np.nan)

    def ahead(self, issue: int, slots: int) -> Floats:
        """[places, slots] from slot `issue` on, as believed in it."""
        if self.issued is None:
            part = self.series[:, issue : issue + slots]
        else:
            part = self.issued.values[:, self.issued.row[issue], :slots]
        missing = slots - part.shape[1]
        return np.pad(part, ((0, 0), (0, missing)), constant_values=np.nan) if missing else part


def believe(kind: str, grid: Grid, issues: Ints, horizon: int, seed: int = 0) -> Belief:
    """The belief that a name stands for; `issues` are the slots in which something is decided, `horizon` is in slots.

    Raises `BadInput` for another name.
    """
    from greenops_pipelines.carbon import forecasting

    refuse_unknown(kind)
    name, _, share = kind.partition(":")
    if kind == "perfect":
        return Belief(kind, grid.intensity)
    if name == "noise" and share:
        return Belief(kind, forecasting.noisy(grid.intensity, _share(kind, share), seed))
    if grid.step > HOUR:
        raise BadInput(
            f"--forecast {kind}: found slots of {grid.step // MINUTE} minutes, allowed: up to an hour (--step 1h)"
        )
    per_day = round(24 * HOUR / grid.step)
    wanted = np.unique(issues[(issues >= 0) & (issues < grid.slots)])
    method = forecasting.METHODS[kind]
    # Slots since Monday, 00:00 UTC: 1970 began on a Thursday.
    monday = (grid.start // grid.step + 3 * per_day) % (7 * per_day)
    made = [method(series, wanted, horizon, per_day, week_slot=monday).values for series in grid.intensity]
    # A gap in the record is a gap in nobody's knowledge of the future: only the past counts for a forecast.
    row = np.full(grid.slots, -1)
    row[wanted] = np.arange(len(wanted))
    return Belief(kind, np.full(grid.intensity.shape, np.nan), Issued(np.stack(made), row))


def refuse_unknown(kind: str) -> None:
    """`BadInput` for a name that stands for no belief, also where nobody asks for one."""
    name, _, share = kind.partition(":")
    if name == "noise" and share:
        _share(kind, share)
    elif kind not in ("perfect", "persistence", "ridge"):
        raise BadInput(f"--forecast: found {kind!r}, allowed: {KINDS}")


def _share(kind: str, text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 10:
        raise BadInput(f"--forecast: found {kind!r}, allowed: noise:SHARE with a share of the mean from 0 to 10")
    return share
