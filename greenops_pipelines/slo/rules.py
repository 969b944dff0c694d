"""SLO -> recording and alert rules, as Sloth 0.16 generates them.

Three groups per SLO: the SLI over every window, what is known of the SLO, and its burn-rate alerts. A chain of pure
steps. Not here: how rules are written down (`output.py`), and which SLOs are valid (`validate.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from greenops_pipelines.errors import BadInput
from greenops_pipelines.slo import durations
from greenops_pipelines.slo.model import Alert, Group, Rule, RuleGroup, Slo
from greenops_pipelines.slo.validate import render
from greenops_pipelines.slo.windows import Window, Windows
from greenops_pipelines.slo.yaml_go import positional, shortest

SLI = "slo:sli_error:ratio_rate"
DASHBOARD_WINDOW = timedelta(minutes=5)


@dataclass(frozen=True)
class Options:
    """What a caller may change. Everything beyond `extra_labels` and the three switches leaves Sloth's output.

    `guard_empty` keeps the SLI away from 0/0: a NaN in the shortest window would poison the period's value for the whole
    period. `dashboard_window` records the 5-minute SLI whichever windows alert, since dashboards read it.
    """

    extra_labels: Mapping[str, str] = field(default_factory=dict)
    recordings: bool = True
    alerts: bool = True
    optimized: bool = True
    version: str = ""
    spec: str = "prometheus/v1"
    mode: str = "cli-gen-prom"
    guard_empty: bool = False
    dashboard_window: bool = False


def compile_group(group: Group, catalogue: Mapping[timedelta, Windows], options: Options) -> tuple[RuleGroup, ...]:
    """The rule groups of a document's SLOs. `BadInput` where a period has no windows."""
    found: list[RuleGroup] = []
    for slo in group.slos:
        windows = catalogue.get(slo.period)
        if windows is None:
            known = ", ".join(sorted(map(durations.text, catalogue))) or "none"
            raise BadInput(
                f"{slo.id}: period: found {durations.text(slo.period)}, allowed: one with alert windows ({known})"
            )
        found += compile_slo(slo, windows, options)
    return tuple(found)


def compile_slo(slo: Slo, windows: Windows, options: Options) -> tuple[RuleGroup, ...]:
    """SLI recordings, metadata recordings and alerts of one SLO; a group without rules is left out."""
    labels = {**slo.labels, **options.extra_labels}
    groups = []
    if options.recordings:
        groups.append(RuleGroup(f"sloth-slo-sli-recordings-{slo.id}", sli_rules(slo, windows, labels, options)))
        groups.append(RuleGroup(f"sloth-slo-meta-recordings-{slo.id}", metadata_rules(slo, windows, labels, options)))
    if options.alerts and (alerts := alert_rules(slo, windows)):
        groups.append(RuleGroup(f"sloth-slo-alerts-{slo.id}", alerts))
    return tuple(groups)


def _ids(slo: Slo) -> dict[str, str]:
    return {"sloth_id": slo.id, "sloth_service": slo.service, "sloth_slo": slo.name}


def selector(slo: Slo) -> str:
    """The label selector of everything recorded for the SLO."""
    return "{" + ", ".join(f'{name}="{value}"' for name, value in _ids(slo).items()) + "}"


def sli_rules(slo: Slo, windows: Windows, labels: Mapping[str, str], options: Options) -> tuple[Rule, ...]:
    """The error ratio over every alert window, shortest first, then over the whole period.

    The period is the mean of the shortest page window's values: cheap, and biased where traffic varies.
    """
    shortest_page = windows.page_quick.short
    lengths = set(windows.lengths) | ({DASHBOARD_WINDOW} if options.dashboard_window else set())
    found = []
    for length in (*sorted(lengths), windows.period):
        text = durations.text(length)
        if length == windows.period and options.optimized:
            basis = DASHBOARD_WINDOW if options.dashboard_window else shortest_page
            metric = f"{SLI}{durations.text(basis)}{selector(slo)}[{text}]"
            expr = f"sum_over_time({metric})\n/ ignoring (sloth_window)\ncount_over_time({metric})\n"
        else:
            expr = _ratio(slo, text, options)
        found.append(Rule(expr, record=f"{SLI}{text}", labels={**_ids(slo), "sloth_window": text, **labels}))
    return tuple(found)


def _ratio(slo: Slo, window: str, options: Options) -> str:
    if slo.events is not None:
        total = f"({render(slo.events.total_query, window)})"
        if options.guard_empty:
            total = f"({total} > 0)"
        return f"({render(slo.events.error_query, window)})\n/\n{total}\n"
    if slo.raw is not None:
        return f"({render(slo.raw.error_ratio_query, window)})"
    raise BadInput(f"{slo.id}: sli: found nothing, allowed: events or raw")


def metadata_rules(slo: Slo, windows: Windows, labels: Mapping[str, str], options: Options) -> tuple[Rule, ...]:
    """Objective, budget, period, burn rates and what is left of the budget, for dashboards and reports."""
    recorded = {**_ids(slo), **labels}
    where = selector(slo)
    ratio = shortest(slo.objective / 100)
    basis = DASHBOARD_WINDOW if options.dashboard_window else windows.page_quick.short

    def burn_rate(window: timedelta) -> str:
        return (
            f"{SLI}{durations.text(window)}{where}\n"
            "/ on(sloth_id, sloth_slo, sloth_service) group_left\n"
            f"slo:error_budget:ratio{where}\n"
        )

    days = shortest(durations.hours(slo.period) / 24)
    info = {
        "sloth_version": options.version,
        "sloth_mode": options.mode,
        "sloth_spec": options.spec,
        "sloth_objective": positional(slo.objective),
    }
    return (
        Rule(f"vector({ratio})", record="slo:objective:ratio", labels=recorded),
        Rule(f"vector(1-{ratio})", record="slo:error_budget:ratio", labels=recorded),
        Rule(f"vector({days})", record="slo:time_period:days", labels=recorded),
        Rule(burn_rate(basis), record="slo:current_burn_rate:ratio", labels=recorded),
        Rule(burn_rate(slo.period), record="slo:period_burn_rate:ratio", labels=recorded),
        Rule(
            f"1 - slo:period_burn_rate:ratio{where}", record="slo:period_error_budget_remaining:ratio", labels=recorded
        ),
        Rule("vector(1)", record="sloth_slo_info", labels={**recorded, **info}),
    )


def alert_rules(slo: Slo, windows: Windows) -> tuple[Rule, ...]:
    """The page and the ticket alert, where they are enabled. Labels of the SLO come with the recorded series."""
    found = []
    if slo.page is not None:
        found.append(_alert_rule(slo, slo.page, "page", windows.page_quick, windows.page_slow))
    if slo.ticket is not None:
        found.append(_alert_rule(slo, slo.ticket, "ticket", windows.ticket_quick, windows.ticket_slow))
    return tuple(found)


def _alert_rule(slo: Slo, alert: Alert, severity: str, quick: Window, slow: Window) -> Rule:
    # In this order: 100 - 99.9 is 0.09999999999999432, and Sloth's rules say so.
    budget = shortest((100 - slo.objective) / 100)
    where = selector(slo)

    def burning(window: timedelta, factor: float) -> str:
        metric = f"{SLI}{durations.text(window)}{where}"
        return f"    max({metric} > ({shortest(factor)} * {budget})) without (sloth_window)\n"

    def pair(window: Window) -> str:
        factor = window.factor(slo.period)
        return f"(\n{burning(window.short, factor)}    and\n{burning(window.long, factor)})\n"

    named = "{{$labels.sloth_service}} {{$labels.sloth_slo}} SLO error budget burn rate is"
    return Rule(
        f"{pair(quick)}or\n{pair(slow)}",
        alert=alert.name,
        labels={"sloth_severity": severity, **alert.labels},
        annotations={
            "title": f"({severity}) {named} too fast.",
            "summary": f"{named} over expected.",
            **alert.annotations,
        },
    )
