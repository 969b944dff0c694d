"""Rendered dashboards -> what is wrong with them, and which of the promised features they have.

    faults(files, subjects, pages)          one line each, none where all is well
    features(dashboard, subjects)           every feature of the SLO dashboard by name, and whether it is there

Checked on the JSON as it is rendered, not on what it was made of. Not here: Grafana's own schemas, which the tests hold
the documents against.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from greenops_pipelines.observability import links, queries
from greenops_pipelines.observability.dashboard import RANGES, WIDTH
from greenops_pipelines.observability.links import Pages
from greenops_pipelines.observability.subjects import Subjects, uid_of

_NUMBERLESS = ("row", "logs")
"""Panels without figures: they have neither unit nor thresholds."""
OVERVIEW_ALONE = ("variable $service", "drill-downs")
"""Features of the overview that a service's own dashboard has no use for."""


@dataclass(frozen=True)
class Feature:
    """One promised feature; `where` names the panel or variable that has it."""

    name: str
    is_there: bool
    where: str


def faults(files: Mapping[str, str], subjects: Subjects, known: Pages) -> list[str]:
    """One line for each fault of the dashboards, `<file>: <place>: found ..., allowed: ...`."""
    found: list[str] = []
    seen: dict[str, str] = {}
    for path, text in sorted(files.items()):
        dashboard = json.loads(text)
        uid = str(dashboard.get("uid"))
        if uid in seen:
            found.append(f"{path}: uid: found {uid}, allowed: another than that of {seen[uid]}")
        seen[uid] = path
        found += [f"{path}: {fault}" for fault in _dashboard(dashboard, subjects, known)]
        is_overview = uid == uid_of(subjects.overview)
        found += [
            f"{path}: found no {each.name}, allowed: all that is promised"
            for each in features(dashboard, subjects)
            if not each.is_there and (is_overview or each.name not in OVERVIEW_ALONE)
        ]
    found += [f"dashboards: found none with the uid {uid}, allowed: one" for uid in sorted(subjects.uids - set(seen))]
    return found


def _dashboard(dashboard: dict[str, Any], subjects: Subjects, known: Pages) -> Iterator[str]:
    panels = dashboard["panels"]
    variables = {each["name"] for each in dashboard["templating"]["list"]}
    numbers = [each.get("id") for each in panels]
    if len(set(numbers)) < len(numbers) or None in numbers:
        yield "panels: found an id missing or twice, allowed: one each"
    yield from _layout(panels)
    for panel in panels:
        for fault in _panel(panel, variables, subjects):
            yield f"panel {panel.get('title')!r}: {fault}"
    for annotation in dashboard["annotations"]["list"]:
        for fault in queries.faults(annotation["expr"], subjects.series):
            yield f"annotation {annotation['name']!r}: {fault}"
    for where, url in _links(dashboard):
        if dead := links.fault(url, subjects, known):
            yield f"{where}: {dead}"


def _panel(panel: dict[str, Any], variables: set[str], subjects: Subjects) -> Iterator[str]:
    if panel["type"] == "row":
        return
    for name in ("title", "description"):
        if not panel.get(name):
            yield f"{name}: found none, allowed: a sentence"
    uid = (panel.get("datasource") or {}).get("uid", "")
    if uid.strip("${}") not in variables:
        yield f"datasource: found {uid!r}, allowed: a variable of the dashboard"
    if panel["type"] not in _NUMBERLESS:
        defaults = panel.get("fieldConfig", {}).get("defaults", {})
        if not defaults.get("unit"):
            yield "unit: found none, allowed: one of Grafana's"
        steps = defaults.get("thresholds", {}).get("steps", [])
        if not steps or steps[0]["value"] is not None:
            yield "thresholds: found none that begins at null, allowed: one at least"
        for step in steps:
            bound = "" if step["value"] is None else f" from {step['value']:g}"
            said = f"- {step['color']}{bound}: "
            if said not in panel.get("description", ""):
                yield f"description: found no meaning of the threshold {said[2:-2]!r}, allowed: one line each"
    if not panel.get("targets"):
        yield "targets: found none, allowed: a query"
    for target in panel.get("targets", []):
        kind = (target.get("datasource") or {}).get("type")
        if kind == "prometheus":
            yield from (
                f"query {target['refId']}: {fault}" for fault in queries.faults(target["expr"], subjects.series)
            )
        elif kind == "loki":
            yield from (f"query {target['refId']}: {fault}" for fault in queries.log_faults(target["expr"]))


def _layout(panels: list[dict[str, Any]]) -> Iterator[str]:
    """No two panels share a cell, and none reaches beyond the grid."""
    taken: dict[tuple[int, int], str] = {}
    for panel in panels:
        at, title = panel["gridPos"], panel.get("title", "")
        if at["x"] + at["w"] > WIDTH or at["x"] < 0:
            yield f"panel {title!r}: gridPos: found columns to {at['x'] + at['w']}, allowed: {WIDTH}"
        cells = [(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])]
        if others := {taken[cell] for cell in cells if cell in taken}:
            yield f"panel {title!r}: gridPos: found cells of {', '.join(sorted(others))}, allowed: its own"
        taken.update(dict.fromkeys(cells, title))


def _links(dashboard: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Where a link stands, and its address: above the panels, of their data, and of single columns."""
    for link in dashboard.get("links", []):
        yield f"link {link['title']!r}", link["url"]
    for panel in dashboard["panels"]:
        config = panel.get("fieldConfig", {})
        found = list(config.get("defaults", {}).get("links", [])) + list(panel.get("links", []))
        for override in config.get("overrides", []):
            for each in override["properties"]:
                found += each["value"] if each["id"] == "links" else []
        for link in found:
            yield f"panel {panel.get('title')!r}", link["url"]


def features(dashboard: Mapping[str, Any], subjects: Subjects) -> tuple[Feature, ...]:
    """Each feature that the SLO dashboard is promised to have, in the order of the promise."""
    panels = dashboard["panels"]
    variables = {each["name"]: each for each in dashboard["templating"]["list"]}
    annotations = " ".join(each["expr"] for each in dashboard["annotations"]["list"])
    addresses = [url for _, url in _links(dict(dashboard))]

    def of(kind: str, *patterns: str, window: str = "", colors: tuple[str, ...] = ()) -> str:
        """The title of a panel of the kind whose queries match all patterns."""
        for panel in panels:
            asked = " ".join(target.get("expr", "") for target in panel.get("targets", []))
            steps = panel.get("fieldConfig", {}).get("defaults", {}).get("thresholds", {}).get("steps", [])
            if (
                panel["type"] == kind
                and all(re.search(pattern, asked) for pattern in patterns)
                and (not window or panel.get("timeFrom") == window)
                and set(colors) <= {step["color"] for step in steps}
            ):
                return str(panel["title"])
        return ""

    def variable(name: str, values: tuple[str, ...], *, several: bool = False) -> str:
        found = variables.get(name, {})
        listed = tuple(str(found.get("query", "")).split(","))
        is_right = listed == values and (not several or (found.get("multi") and found.get("includeAll")))
        return f"${name}" if is_right else ""

    own = {f"/d/{each.uid}" for each in subjects.services}
    reached = {expanded for url in addresses for expanded in _expanded(url, subjects)}
    books = {each.runbook for each in subjects.services}
    shown = {each.runbook for each in subjects.services if each.uid == dashboard.get("uid")} or books
    rollouts = "rollout_info" in annotations and "version" in annotations
    quantiles = (r"histogram_quantile\(0\.5,", r"histogram_quantile\(0\.95,", r"histogram_quantile\(0\.99,")
    found = {
        "error-budget gauge": of("gauge", "slo:period_error_budget_remaining:ratio"),
        "burn-rate lines of 7 days": of("timeseries", "slo:current_burn_rate:ratio", window="7d"),
        "compliance status": of("stat", "slo:period_error_budget_remaining", colors=("green", "yellow", "red")),
        "latency heatmap": of("heatmap", r"sum by \(le\)"),
        "P50, P95, P99": of("timeseries", *quantiles),
        "drill-downs": "links of panels and of the dashboard" if own <= reached else "",
        "deployment annotations": "annotations" if rollouts else "",
        "runbook links": "links of panels and of the dashboard" if shown <= reached else "",
        "variable $service": variable("service", tuple(each.name for each in subjects.services), several=True),
        "variable $timeRange": variable("timeRange", RANGES),
        "variable $environment": variable("environment", subjects.environments),
    }
    return tuple(Feature(name, bool(where), where) for name, where in found.items())


def _expanded(url: str, subjects: Subjects) -> set[str]:
    bare = url.split("?")[0]
    return {re.sub(r"\$\{__[\w.]+\}", each.name, bare) for each in subjects.services}
