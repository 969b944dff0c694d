"""What a decision goes by: the grid, what is believed of it, what counts, and the room that is left.

Here: the price of a kWh under all of that. Not here: what anybody decides by it (`policies.py`, `optimise.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from greenops_pipelines.placement.belief import Belief
from greenops_pipelines.placement.model import Floats, Grid, Ints, Jobs
from greenops_pipelines.placement.windows import Window

ROOM = 1e-9
"""kW that a sum of floats may be short of the room it needs."""


@dataclass(frozen=True)
class Sight:
    """What a decision goes by: the grid, what is believed of it, what counts, and the room that is left."""

    grid: Grid
    belief: Belief
    counts: Literal["carbon", "cost", "both"] = "carbon"
    cost_weight_g: float = 0.0
    """gCO2e that one unit of money is worth, where both count."""
    free_kw: Floats | None = None
    """[places, slots]; None: there is no limit anywhere."""
    surcharge: Floats | None = None
    """[places, slots] per kWh: what room is worth to others, on top of the price."""

    @property
    def room_kw(self) -> Floats:
        """[places, slots], infinite where there is no limit."""
        return self.grid.capacity_kw if self.free_kw is None else self.free_kw

    @property
    def believed(self) -> Grid:
        """The grid as it is believed to be: of one series, not of forecasts as issued."""
        return replace(self.grid, intensity=self.belief.series)

    def weight(self, jobs: Jobs) -> Floats:
        """gCO2e per unit of money, per job."""
        own = jobs.cost_weight_g
        return np.full(len(jobs), self.cost_weight_g) if own is None else own

    def price(self, jobs: Jobs, view: Window, place: Ints) -> Floats:
        """Per kWh of the jobs' IT energy [jobs, pieces] at a place per job; infinite where they cannot run."""
        issue = self.grid.slot_of(jobs.release)
        believed = self.belief.over(place, issue, view.slot)
        value = believed * self.grid.pue[place][:, None]
        share = np.where(place == jobs.home, 0.0, jobs.transfer_share(self.grid.network_kwh_per_gb))
        if share.any():
            value = value + share[:, None] * (believed + self.belief.over(jobs.home, issue, view.slot)) / 2
        if self.counts != "carbon":
            money = self.grid.price_per_kwh
            paid = np.zeros(len(jobs)) if money is None else money[place]
            weight = self.weight(jobs) if self.counts == "both" else np.ones(len(jobs))
            value = (value if self.counts == "both" else 0.0 * value) + (weight * paid)[:, None]
        open_ = np.isfinite(value) & view.inside
        slot = np.where(view.inside, view.slot, 0)
        if self.surcharge is not None:
            value = value + self.surcharge[place[:, None], slot]
        if self.free_kw is not None:
            open_ &= self.free_kw[place[:, None], slot] >= (jobs.power_kw - ROOM)[:, None]
        return np.where(open_, value, np.inf)
