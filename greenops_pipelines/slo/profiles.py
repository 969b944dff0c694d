"""Named alert profiles, chosen per service: which windows page, and which open a ticket.

Two severities per service, 14.4x (critical) and 6x (warning). `AlertWindows` has four pairs, so quick and slow are the
same pair within each severity; `sloth` is Sloth's own four. What each is worth: `certificate.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from greenops_pipelines.slo import durations
from greenops_pipelines.slo.windows import DEFAULT, Window, Windows

PERIOD = timedelta(days=30)
DEFAULT_PROFILE = "workbook"


def _two(page: Window, ticket: Window) -> Windows:
    return Windows(PERIOD, page, page, ticket, ticket)


def _pair(budget: float, short: str, long: str) -> Window:
    return Window(budget, durations.parse(short), durations.parse(long))


PROFILES: Mapping[str, Windows] = {
    # SRE Workbook, "Alerting on SLOs", table 5-8: 14.4x and 6x.
    "workbook": _two(page=_pair(2, "5m", "1h"), ticket=_pair(5, "30m", "6h")),
    # The same factors over longer windows: the budget spent by then is factor x long window / period.
    "user-table": _two(page=_pair(12, "1h", "6h"), ticket=_pair(60, "6h", "3d")),
    "sloth": DEFAULT[PERIOD],
}
