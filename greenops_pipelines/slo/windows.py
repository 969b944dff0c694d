"""Alert windows: which two windows and which share of the budget make an alert. Sloth's `AlertWindows` files.

A burn rate of 1 spends exactly the whole error budget over the SLO's period. Source: SRE Workbook, "Alerting on SLOs".
Not here: named profiles of ours (`profiles.py`), and what the windows are worth (`certificate.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from greenops_pipelines.errors import BadInput
from greenops_pipelines.slo import durations, yaml_go

API_VERSION = "sloth.slok.dev/v1"
KIND = "AlertWindows"


@dataclass(frozen=True)
class Window:
    """One pair: the alert holds while both windows burn faster than the factor. `budget_percent` is spent by then."""

    budget_percent: float
    short: timedelta
    long: timedelta

    def factor(self, period: timedelta) -> float:
        """How many times faster than allowed the budget burns at the threshold.

        `budget_percent x period hours / 100 / long hours`, in this order: the last digit depends on it.
        """
        return self.budget_percent * durations.hours(period) / 100 / durations.hours(self.long)


@dataclass(frozen=True)
class Windows:
    """The four pairs for SLOs of one period. Page and ticket each fire when their quick or their slow pair holds."""

    period: timedelta
    page_quick: Window
    page_slow: Window
    ticket_quick: Window
    ticket_slow: Window

    @property
    def pairs(self) -> tuple[Window, Window, Window, Window]:
        return (self.page_quick, self.page_slow, self.ticket_quick, self.ticket_slow)

    @property
    def lengths(self) -> tuple[timedelta, ...]:
        """Every window that a rule is needed for, each once, shortest first."""
        return tuple(sorted({length for pair in self.pairs for length in (pair.short, pair.long)}))


def _window(budget: float, short: str, long: str) -> Window:
    return Window(budget, durations.parse(short), durations.parse(long))


def _workbook(days: int) -> Windows:
    """The workbook's table, which Sloth uses for 28 and for 30 days alike."""
    return Windows(
        timedelta(days=days),
        page_quick=_window(2, "5m", "1h"),
        page_slow=_window(5, "30m", "6h"),
        ticket_quick=_window(10, "2h", "1d"),
        ticket_slow=_window(10, "6h", "3d"),
    )


DEFAULT: Mapping[timedelta, Windows] = {windows.period: windows for windows in (_workbook(28), _workbook(30))}


def read_folder(folder: Path) -> dict[timedelta, Windows]:
    """All `AlertWindows` files below `folder`, by period; they replace the defaults. `BadInput` for each fault."""
    if not folder.is_dir():
        raise BadInput(f"{folder}: found no folder, allowed: a folder of AlertWindows files")
    found: dict[timedelta, Windows] = {}
    for path in sorted(p for p in folder.rglob("*") if p.suffix in (".yaml", ".yml") and p.is_file()):
        windows = read(path.read_bytes(), str(path))
        if windows.period in found:
            raise BadInput(
                f"{path}: spec.sloPeriod: {durations.text(windows.period)} is declared by another file already"
            )
        found[windows.period] = windows
    return found


def read(content: bytes, file: str) -> Windows:
    """One `AlertWindows` document."""
    document = yaml_go.load(content, file)
    if not isinstance(document, dict) or (document.get("apiVersion"), document.get("kind")) != (API_VERSION, KIND):
        raise BadInput(f"{file}: apiVersion, kind: found another document, allowed: {API_VERSION} and {KIND}")
    spec = _mapping(document, "spec", file)
    period = _duration(spec, "sloPeriod", file, "spec")
    pairs = {
        f"{severity}_{speed}": _pair(
            _mapping(_mapping(spec, severity, file), speed, file), f"spec.{severity}.{speed}", file
        )
        for severity in ("page", "ticket")
        for speed in ("quick", "slow")
    }
    for name, pair in pairs.items():
        if not pair.short < pair.long <= period:
            raise BadInput(
                f"{file}: spec.{name.replace('_', '.')}: found {durations.text(pair.short)} and "
                f"{durations.text(pair.long)} in a period of {durations.text(period)}, allowed: short < long <= period"
            )
    return Windows(period, **pairs)


def _pair(node: dict[str, Any], at: str, file: str) -> Window:
    budget = node.get("errorBudgetPercent")
    if isinstance(budget, bool) or not isinstance(budget, int | float) or not 0 < budget <= 100:
        raise BadInput(f"{file}: {at}.errorBudgetPercent: found {budget!r}, allowed: a percentage above 0, up to 100")
    return Window(float(budget), _duration(node, "shortWindow", file, at), _duration(node, "longWindow", file, at))


def _mapping(node: dict[str, Any], key: str, file: str) -> dict[str, Any]:
    value = node.get(key)
    if not isinstance(value, dict):
        raise BadInput(f"{file}: {key}: found {'nothing' if value is None else repr(value)[:40]}, allowed: a mapping")
    return value


def _duration(node: dict[str, Any], key: str, file: str, at: str) -> timedelta:
    try:
        duration = durations.parse(str(node.get(key, "")))
    except BadInput as error:
        raise BadInput(f"{file}: {at}.{key}: {error}") from None
    if not duration:
        raise BadInput(f"{file}: {at}.{key}: found 0, allowed: a duration above 0")
    return duration
