"""What the SLO dashboards show: the panels of the overview, and those of one service. Not here: where they lie
(`dashboard.py`), and how a panel of a kind is built (`panels.py`).

`environment` is asked of what services emit. The recorded `slo:*` series do not have it, since the rules that make them
sum it away; of them the data source decides, one Prometheus per environment.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from greenops_pipelines.observability import panels
from greenops_pipelines.observability.panels import Link, Panel, Query, Step
from greenops_pipelines.observability.subjects import Histogram, Service, Subjects, uid_of

BURN_DAYS = 7
QUANTILES = (0.5, 0.95, 0.99)
_CARRIED = "${environment:queryparam}&${timeRange:queryparam}&${__url_time_range}"
_EMITTED = 'environment="$environment"'
_BUDGET = "slo:period_error_budget_remaining:ratio"
_BURN = "slo:current_burn_rate:ratio"
_UNITS = {"seconds": "s", "milliseconds": "ms"}
_HIDDEN = ("Time", "__name__", "sloth_id", "sloth_window", "team", "job", "instance")


def drill_down(subjects: Subjects, label: str, service: Service | None) -> tuple[Link, Link]:
    """From a series or a row of a service to its dashboard and its runbook; from its own dashboard to all services.

    `label` is how Grafana names the service of what was clicked.
    """
    if service is not None:
        overview = Link("All services", f"/d/{uid_of(subjects.overview)}?{_CARRIED}")
        return overview, Link("Runbook", service.runbook, new_tab=True)
    uid = uid_of(subjects.dashboard.replace("{service}", "SERVICE")).replace("SERVICE", f"${{{label}}}")
    runbook = subjects.services[0].runbook.replace(subjects.services[0].name, f"${{{label}}}")
    return (
        Link("Dashboard of the service", f"/d/{uid}?{_CARRIED}"),
        Link("Runbook of the service", runbook, new_tab=True),
    )


def compliance(subjects: Subjects, service: Service | None) -> Any:
    """Green, yellow, red: of each chosen service the worst of its objectives; of one service each objective."""
    below = subjects.yellow_below
    steps = (
        Step(None, "red", "missed: in 30 days at least as much has failed as the objective allows"),
        Step(0, "yellow", f"at risk: met, with less than {below:.0%} of the error budget left"),
        Step(below, "green", f"met, with at least {below:.0%} of the error budget left"),
    )
    expr = f"min by (sloth_service) ({_BUDGET}{_of(service)})" if service is None else f"{_BUDGET}{_of(service)}"
    panel = Panel(
        title="Compliance",
        description="Whether the objectives of the last 30 days are met"
        + ("; a service is as good as the worst of its objectives." if service is None else "."),
        unit="percentunit",
        steps=steps,
        queries=(Query(expr, "{{sloth_service}}" if service is None else "{{sloth_slo}}"),),
        links=drill_down(subjects, "__field.labels.sloth_service", service),
    )
    # Both ends of a range belong to it, and the first that matches is taken: nothing left is red.
    words = ((below, None, "met", "green"), (None, 0, "missed", "red"), (0, below, "at risk", "yellow"))
    return panels.status(panel, words)


def budgets(subjects: Subjects, service: Service | None) -> Any:
    """A gauge per service, of its availability; on a service's own dashboard one per objective."""
    below = subjects.exhausted_below
    # Steps have to rise, whichever of the two is declared higher.
    yellow = max(subjects.yellow_below, below)
    chosen = "" if service else f', sloth_slo="{subjects.services[0].budget.name}"'
    panel = Panel(
        title="Error budget left, rolling 30 days",
        description="What is left of the error budget of the last 30 days. An empty gauge is spent, or overspent.",
        unit="percentunit",
        steps=(
            Step(
                None,
                "red",
                f"below {below:.0%}: stop risky changes; of availability, the alert on exhausted budgets fires",
            ),
            Step(below, "yellow", f"less than {yellow:.0%} is left: plan no experiments"),
            Step(yellow, "green", f"{yellow:.0%} or more is left"),
        ),
        queries=(Query(f"{_BUDGET}{_of(service, chosen)}", "{{sloth_slo}}" if service else "{{sloth_service}}"),),
        links=drill_down(subjects, "__field.labels.sloth_service", service),
        decimals=1,
        least=0,
        most=1,
    )
    return panels.gauge(panel)


def burn(subjects: Subjects, service: Service | None) -> Any:
    """Burn rates of seven days, and their mean over seven days."""
    chosen = (service,) if service else subjects.services
    ticket, page = (min(getattr(each, name) for each in chosen) for name in ("ticket_burn", "page_burn"))
    where = _of(service, "" if service else f', sloth_slo="{subjects.services[0].budget.name}"')
    name = "{{sloth_slo}}" if service else "{{sloth_service}}"
    steps = [Step(None, "green", "the budget lasts its 30 days")]
    if ticket > 1:
        # The profile `sloth` opens tickets from 1 on, and leaves no such band.
        steps.append(Step(1, "yellow", "it does not, and nobody is alerted up to the next line"))
    steps.append(Step(ticket, "orange", "where a warning opens a ticket, once it holds in both of its windows"))
    steps.append(Step(page, "red", "where a critical alert pages, once it holds in both of its windows"))
    panel = Panel(
        title=f"Burn rate, last {BURN_DAYS} days",
        description=(
            "How many times faster than sustainable the error budget is spent; at 1 it lasts exactly 30 days. Drawn: the "
            f"last five minutes at each moment, and the mean of the {BURN_DAYS} days before it."
        ),
        unit="suffix:x",
        steps=tuple(steps),
        queries=(
            Query(f"{_BURN}{where}", name),
            Query(f"avg_over_time({_BURN}{where}[{BURN_DAYS}d:5m])", f"{name}, mean of {BURN_DAYS} days", name="B"),
        ),
        links=drill_down(subjects, "__field.labels.sloth_service", service),
        window=f"{BURN_DAYS}d",
        decimals=2,
        least=0,
    )
    return panels.lines(panel)


def firing(subjects: Subjects, service: Service | None) -> Any:
    """Alerts that fire or are about to."""
    chosen = f'service="{service.name}"' if service else 'service=~"$service"'
    panel = Panel(
        title="Alerts",
        description="Alerts that fire, or are pending because they have to hold first. A click on the service leads on.",
        unit="none",
        steps=(Step(None, "red", "every row is an alert; an empty table is the good state"),),
        queries=(Query(f"ALERTS{{{chosen}}}", form="table"),),
        links=drill_down(subjects, "__data.fields.Service", service),
    )
    names = {"service": "Service", "alertname": "Alert", "severity": "Severity", "alertstate": "State"}
    hidden = (*_HIDDEN, "Value", "sloth_service", "sloth_slo", "sloth_severity")
    return panels.table(panel, names, hidden, "Service")


def objectives(subjects: Subjects) -> Any:
    """All objectives of the chosen services: what is promised, what is left, how fast it goes."""
    below = subjects.yellow_below
    panel = Panel(
        title="Objectives",
        description="Every objective of the chosen services. A click on the service leads to its dashboard and runbook.",
        unit="percentunit",
        steps=(
            Step(None, "red", "budget left, nothing or less: the objective is missed"),
            Step(0, "yellow", f"budget left, less than {below:.0%}"),
            Step(below, "green", f"budget left, {below:.0%} or more"),
        ),
        queries=tuple(
            # Without `by` no rows would merge: the windows in the labels differ.
            Query(f"max by (sloth_service, sloth_slo) ({metric}{_of(None)})", form="table", name=name)
            for name, metric in (("A", "slo:objective:ratio"), ("B", _BUDGET), ("C", _BURN))
        ),
        links=drill_down(subjects, "__data.fields.Service", None),
        decimals=2,
    )
    names = {
        "sloth_service": "Service",
        "sloth_slo": "Objective",
        "Value #A": "Promised",
        "Value #B": "Budget left",
        "Value #C": "Burn rate (1 = sustainable)",
    }
    units = {names["Value #C"]: "suffix:x"}
    return panels.table(panel, names, ("Time",), "Service", "Budget left", units)


def latency(subjects: Subjects, service: Service | None) -> list[tuple[Any, Any]]:
    """Per histogram: its heatmap, and P50, P95, P99. The overview shows the one that most services have."""
    if service is not None:
        return [_latency(subjects, service, each, [each]) for each in service.histograms]
    counted = Counter(each.name for one in subjects.services for each in one.histograms)
    name = counted.most_common(1)[0][0]
    found = [each for one in subjects.services for each in one.histograms if each.name == name]
    return [_latency(subjects, None, found[0], found)]


def _latency(subjects: Subjects, service: Service | None, shown: Histogram, all_of: list[Histogram]) -> tuple[Any, Any]:
    chosen = f'service="{service.name}"' if service else 'service=~"$service"'
    rates = f"rate({shown.name}_bucket{{{chosen}, {_EMITTED}}}[$__rate_interval])"
    limits = sorted({each.limit for each in all_of})
    promised = f"P{all_of[0].promised * 100:g}"
    steps = [Step(None, "green", f"below what every service shown promises at {promised}")]
    steps.append(Step(limits[0], "yellow" if len(limits) > 1 else "red", f"beyond the strictest promise at {promised}"))
    if len(limits) > 1:
        steps.append(Step(limits[-1], "red", f"beyond every promise at {promised}"))
    unit = _UNITS.get(shown.unit, "none")
    links = drill_down(subjects, "__field.labels.service", service)
    together = "" if service else " Of all chosen services together; choose one to see it alone."
    heat = Panel(
        title=f"{shown.title}, distribution",
        description=f"How many took how long: the buckets of {shown.name}.{together}",
        unit=unit,
        steps=tuple(steps),
        queries=(Query(f"sum by (le) ({rates})", "{{le}}", "heatmap"),),
        window="$timeRange",
    )
    names = [f"P{quantile * 100:g}" for quantile in QUANTILES]
    drawn = Panel(
        title=f"{shown.title}, {', '.join(names)}",
        description="Quantiles, interpolated within the histogram's buckets: exact only at their bounds.",
        unit=unit,
        steps=tuple(steps),
        queries=tuple(
            Query(
                f"histogram_quantile({quantile:g}, sum by (service, le) ({rates}))",
                name if service else f"{{{{service}}}} {name}",
                name=name,
            )
            for quantile, name in zip(QUANTILES, names, strict=True)
        ),
        links=links,
        window="$timeRange",
        least=0,
    )
    return panels.heatmap(heat), panels.lines(drawn)


def traffic(subjects: Subjects, service: Service | None) -> tuple[Any, Any]:
    """Requests per second, and the share of failed ones over `$timeRange`; of one service per version."""
    chosen = f'service="{service.name}"' if service else 'service=~"$service"'
    by = "service, version" if service else "service"
    where = f"{chosen}, {_EMITTED}"
    failed = f'{where}, status=~"failed|error|5xx"'
    legend = "{{service}} {{version}}" if service else "{{service}}"
    links = drill_down(subjects, "__field.labels.service", service)
    rate = Panel(
        title="Requests per second" + (" and version" if service else ""),
        description="Requests answered, whatever the status.",
        unit="reqps",
        steps=(Step(None, "blue", "no limit: how few are a fault is an objective of its own, where there is one"),),
        queries=(Query(f"sum by ({by}) (rate(http_server_requests_total{{{where}}}[$__rate_interval]))", legend),),
        links=links,
        window="$timeRange",
        least=0,
    )
    allowed = min((100 - each.budget.objective) / 100 for each in ((service,) if service else subjects.services))
    total = f"sum by ({by}) (rate(http_server_requests_total{{{where}}}[$timeRange]))"
    share = Panel(
        title="Failed requests, share over $timeRange",
        description="Share of the requests in the chosen range before each moment that failed through a fault of ours.",
        unit="percentunit",
        steps=(
            Step(None, "green", "within the strictest objective of those shown"),
            Step(round(allowed, 6), "red", "more than the strictest objective of those shown allows over 30 days"),
        ),
        queries=(
            Query(
                f"(sum by ({by}) (rate(http_server_requests_total{{{failed}}}[$timeRange])) or 0 * {total}) / {total}",
                legend,
            ),
        ),
        links=links,
        window="$timeRange",
        least=0,
    )
    return panels.lines(rate), panels.lines(share)


def evidence(service: Service | None) -> tuple[Any, Any]:
    """Errors in the logs and failed traces, each leading to the other."""
    name = service.name if service else "$service"
    operator = "=" if service else "=~"
    log = panels.logs(
        "Errors in the logs",
        "Lines of level error and above. A line's trace is one click away: open the line, and follow `trace_id`.",
        f'{{service_name{operator}"{name}"}} | detected_level=~"error|critical|fatal"',
    )
    trace = Panel(
        title="Failed traces",
        description="Newest traces with a failed span. In a trace, every span leads to its log lines.",
        unit="ms",
        steps=(Step(None, "blue", "durations are not judged here, failed is failed"),),
        queries=(),
    )
    return log, panels.traces(trace, f'{{ resource.service.name {operator} "{name}" && status = error }}')


def _of(service: Service | None, more: str = "") -> str:
    chosen = f'sloth_service="{service.name}"' if service else 'sloth_service=~"$service"'
    return f"{{{chosen}{more}}}"
