"""The metrics catalogue, `ops/metrics.yaml`: which series exist, what a query may ask of them, how many there will be.

    catalogue = read_catalogue(Path("ops"))
    catalogue.check('sum(rate(http_request_total[5m]))', "panel 3")
    ["panel 3: found the metric 'http_request_total', allowed: ...; nearest: http_server_requests_total"]

Not here: whether a query means what its author thinks, and which rules there are.
"""

from __future__ import annotations

import difflib
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from greenops_pipelines import ops
from greenops_pipelines.errors import BadInput
from greenops_pipelines.measurement import Measurement
from greenops_pipelines.ops import OpsModel
from greenops_pipelines.slo import durations, promql
from greenops_pipelines.slo.model import RuleGroup

FILE = "metrics.yaml"
CHECK = "slo/definitions:series_budget"
_BEYOND_BUCKETS = 3
"""Series of a histogram besides its declared buckets: the bucket +Inf, `_sum` and `_count`."""
_HIGHEST = 1.7976931348623157e308

Service = Annotated[str, Field(pattern=r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$", max_length=40, examples=["api-gateway"])]
Label = Annotated[str, Field(pattern=r"^[a-zA-Z_][a-zA-Z0-9_]*$", max_length=60, examples=["status"])]
Name = Annotated[str, Field(pattern=r"^[a-zA-Z_:][a-zA-Z0-9_:]*$", max_length=120, examples=["http_requests_total"])]
Value = Annotated[str, Field(min_length=1, max_length=120)]
Values = (
    Annotated[tuple[Value, ...], Field(min_length=1)] | Annotated[int, Field(ge=1, le=100_000)] | Literal["services"]
)


class Metric(OpsModel):
    """One entry of the catalogue; the fields are explained at the head of the file."""

    name: Name
    type: Literal["counter", "gauge", "histogram", "recorded"]
    unit: str = Field(min_length=1, max_length=60)
    labels: dict[Label, Values]
    services: tuple[Service, ...] = Field(min_length=1)
    emitter: str = Field(min_length=1, max_length=60)
    comment: str = Field(min_length=1, max_length=300)
    buckets: tuple[float, ...] = ()
    windows: tuple[str, ...] = ()
    per: Literal["instance", "service", "none"] = "instance"

    @property
    def series_per_label_set(self) -> int:
        return len(self.buckets) + _BEYOND_BUCKETS if self.type == "histogram" else 1

    @property
    def cardinality(self) -> int:
        """Series of one instance (or of one service, by `per`)."""
        sizes = (len(v) if isinstance(v, tuple) else v if isinstance(v, int) else 1 for v in self.labels.values())
        return math.prod(sizes) * self.series_per_label_set


class _File(OpsModel):
    series_budget: int = Field(ge=1)
    instances: dict[Service, Annotated[int, Field(ge=1, le=10_000)]] = Field(min_length=1)
    common_labels: tuple[Label, ...]
    metrics: tuple[Metric, ...] = Field(min_length=1)


@dataclass(frozen=True)
class Series:
    """What a selector can name. Of a label, the values it may have; None where any value may come."""

    metric: Metric
    labels: Mapping[str, frozenset[str] | None]


@dataclass(frozen=True)
class Catalogue:
    """All metrics, the labels that every series has besides, instances per service, and the budget of series."""

    metrics: tuple[Metric, ...]
    common_labels: frozenset[str]
    instances: Mapping[str, int]
    series_budget: int

    @cached_property
    def series(self) -> dict[str, Series]:
        """By the name that stands in a query: a histogram's three, a family's one per window."""
        return {name: series for metric in self.metrics for name, series in _series(metric)}

    def check(self, query: str, where: str) -> list[str]:
        """One line for each thing in the query that the catalogue does not know; none for a good query.

        `{{.window}}`, Grafana's variables and `{{args.x}}` of an AnalysisTemplate are filled in first. Refused are
        metrics, labels (in selectors and in `by`, `without`, `on`, `ignoring`, `group_left`), values of labels whose
        values are known, and `rate` of what does not count.
        """
        try:
            faults = _Check(self).of(promql.parse(query))
        except BadInput as error:
            faults = [str(error)]
        return [f"{where}: {fault}" for fault in dict.fromkeys(faults)]

    def check_rules(self, groups: Iterable[RuleGroup]) -> list[str]:
        """The same for every rule, and for the names and labels under which rules record."""
        found = []
        for group in groups:
            for rule in group.rules:
                where = f"{group.name}: {rule.record or rule.alert}"
                found += self.check(rule.expr, where)
                if not rule.record:
                    continue
                series = self.series.get(rule.record)
                if series is None:
                    found.append(f"{where}: {self.unknown_metric(rule.record)}")
                else:
                    known = {*series.labels, *self.common_labels}
                    found += [
                        f"{where}: {_unknown_label(n, rule.record, known)}" for n in rule.labels if n not in known
                    ]
        return found

    def unknown_metric(self, name: str) -> str:
        bare = next((metric for metric in self.metrics if metric.name == name), None)
        if bare is not None and bare.type == "histogram":
            return f"found the histogram {name!r} itself, allowed: {name}_bucket, {name}_sum or {name}_count"
        return f"found the metric {name!r}, allowed: one of ops/{FILE}; nearest: {_nearest(name, self.series)}"


def read_catalogue(ops_dir: Path) -> Catalogue:
    """`ops_dir`/metrics.yaml. Raises `ConfigurationError` with one line per fault."""
    document = ops.load(ops_dir / FILE, _File)
    value = document.value
    faults = []
    owner: dict[str, str] = {}
    for index, metric in enumerate(value.metrics):
        at = ("metrics", index)
        faults += [
            document.fault((*at, "services", place), f"a service of instances: {', '.join(value.instances)}")
            for place, service in enumerate(metric.services)
            if service not in value.instances
        ]
        faults += [
            document.fault((*at, "labels", label), "a label that is not among common_labels already")
            for label in metric.labels
            if label in value.common_labels
        ]
        if (metric.type == "histogram") != bool(metric.buckets):
            faults.append(
                document.fault((*at, "buckets"), "upper bounds of a histogram, at least one; of no other type")
            )
        elif list(metric.buckets) != sorted({b for b in metric.buckets if abs(b) < _HIGHEST}):
            faults.append(document.fault((*at, "buckets"), "rising upper bounds, each once"))
        if metric.windows and not all(_is_duration(window) for window in metric.windows):
            faults.append(document.fault((*at, "windows"), "durations as Prometheus writes them, such as 5m and 30d"))
            continue
        if any(owner.setdefault(name, metric.name) != metric.name for name, _ in _series(metric)) or (
            metric in value.metrics[:index] or metric.name in {m.name for m in value.metrics[:index]}
        ):
            faults.append(document.fault((*at, "name"), "each series name once"))
    ops.refuse(faults)
    return Catalogue(value.metrics, frozenset(value.common_labels), dict(value.instances), value.series_budget)


def expected_series(catalogue: Catalogue, recorded: Mapping[str, int]) -> dict[str, int]:
    """Active series per service: metric by metric the product of its labels' values, times instances; and recordings.

    `recorded` is the number of recording rules per service, each of which makes one series.
    """
    found = Counter(dict.fromkeys(catalogue.instances, 0))
    for metric in catalogue.metrics:
        if metric.type == "recorded" or metric.per == "none":
            continue
        for service in metric.services:
            found[service] += metric.cardinality * (catalogue.instances[service] if metric.per == "instance" else 1)
    for service, count in recorded.items():
        found[service] += count
    return dict(found)


def series_measurement(catalogue: Catalogue, recorded: Mapping[str, int]) -> Measurement:
    """All expected series against the planned budget."""
    expected = expected_series(catalogue, recorded)
    total = sum(expected.values())
    room = catalogue.series_budget - total
    return Measurement(
        check=CHECK,
        measured=float(total),
        target=float(catalogue.series_budget),
        comparison="<=",
        unit="series",
        detail=f"{total:,} series are expected of {catalogue.series_budget:,} planned, "
        + (f"{room:,} are left" if room >= 0 else f"{-room:,} too many"),
        figures={**{f"series of {service}": count for service, count in expected.items()}}
        | {"recorded by rules": sum(recorded.values())},
    )


def _series(metric: Metric) -> Iterator[tuple[str, Series]]:
    labels = {
        name: frozenset(metric.services)
        if values == "services"
        else frozenset(values)
        if isinstance(values, tuple)
        else None
        for name, values in metric.labels.items()
    }
    if metric.type == "histogram":
        yield f"{metric.name}_bucket", Series(metric, labels | {"le": frozenset(_bounds(metric.buckets))})
        yield f"{metric.name}_sum", Series(metric, labels)
        yield f"{metric.name}_count", Series(metric, labels)
    else:
        for window in metric.windows or ("",):
            yield metric.name + window, Series(metric, labels)


def _bounds(buckets: Iterable[float]) -> Iterator[str]:
    """As `le` spells them: a whole number is `2` before Prometheus 3, and `2.0` from then on."""
    for bound in buckets:
        yield f"{bound:g}"
        if bound == int(bound):
            yield f"{bound:g}.0"
    yield "+Inf"


def _is_duration(text: str) -> bool:
    try:
        return bool(durations.parse(text))
    except BadInput:
        return False


def _matches(pattern: str, value: str) -> bool:
    try:
        return re.fullmatch(pattern, value) is not None
    except re.error:
        # RE2 knows forms that Python does not, such as \pN: the parser took it, so it is not refused here.
        return True


def _nearest(name: str, known: Iterable[str]) -> str:
    return difflib.get_close_matches(name, sorted(known), n=1, cutoff=0)[0]


def _unknown_label(label: str, metric: str, known: Iterable[str]) -> str:
    listed = sorted(known)
    return f"found the label {label!r} of {metric}, allowed: {', '.join(listed)}; nearest: {_nearest(label, listed)}"


class _Check:
    """One walk over one query. Each step answers which labels its result can have."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._faults: list[str] = []

    def of(self, expression: Any) -> list[str]:
        try:
            self._labels(expression)
        except RecursionError:
            self._faults.append("found a query that is nested too deep, allowed: one that a person can read")
        return self._faults

    def _labels(self, node: Any) -> frozenset[str]:
        match type(node).__name__:
            case "VectorSelector":
                return self._selector(node)
            case "MatrixSelector":
                return self._selector(node.vector_selector)
            case "SubqueryExpr" | "ParenExpr" | "UnaryExpr":
                return self._labels(node.expr)
            case "AggregateExpr":
                return self._aggregate(node)
            case "BinaryExpr":
                return self._binary(node)
            case "Call":
                return self._call(node)
        return frozenset()

    def _selector(self, node: Any) -> frozenset[str]:
        name = promql.metric_of(node)
        if node.matchers.or_matchers:
            self._faults.append(f"found `or` between the matchers of {name}, allowed: what Prometheus parses")
        if name is None:
            self._faults.append(f"found the selector {node} without a metric, allowed: one metric by its name")
            return self._catalogue.common_labels
        series = self._catalogue.series.get(name)
        if series is None:
            self._faults.append(self._catalogue.unknown_metric(name))
            # Its labels are unknown: whatever matches them was said by this line already.
            return _Everything()
        known = self._catalogue.common_labels | set(series.labels)
        for matcher in node.matchers.matchers:
            if matcher.name == "__name__":
                continue
            if matcher.name not in known:
                self._faults.append(_unknown_label(matcher.name, name, known))
            elif values := series.labels.get(matcher.name):
                self._values(matcher, name, values)
        return known

    def _values(self, matcher: Any, metric: str, values: frozenset[str]) -> None:
        """Each alternative of the matcher has to be, or to match, one of the values."""
        if promql.ANY in matcher.value or not matcher.value:
            return
        is_pattern = "Re" in str(matcher.op)
        # Only plain alternatives can be told apart: a bar inside brackets belongs to them.
        splits = is_pattern and not set("([") & set(matcher.value.replace("[.]", ""))
        for part in matcher.value.split("|") if splits else [matcher.value]:
            if not any(_matches(part, value) if is_pattern else part == value for value in values):
                listed = ", ".join(sorted(values))
                self._faults.append(f"found {matcher.name}={part!r} of {metric}, allowed: {listed}")

    def _named(self, words: str, labels: Iterable[str], known: frozenset[str]) -> None:
        for label in labels:
            if label not in known:
                allowed = f"{', '.join(sorted(known))}; nearest: {_nearest(label, known)}" if known else "none is left"
                self._faults.append(f"found the label {label!r} in `{words}`, allowed: {allowed}")

    def _aggregate(self, node: Any) -> frozenset[str]:
        known = self._labels(node.expr)
        made: frozenset[str] = frozenset()
        if node.param is not None:
            self._labels(node.param)
            if str(node.op) == "count_values":
                made = frozenset({node.param.val})
        if node.modifier is None:
            return made if str(node.op) not in ("topk", "bottomk") else known
        is_by = str(node.modifier.type).endswith("By")
        self._named("by" if is_by else "without", node.modifier.labels, known)
        if str(node.op) in ("topk", "bottomk"):
            return known
        return made | (frozenset(node.modifier.labels) if is_by else known - set(node.modifier.labels))

    def _binary(self, node: Any) -> frozenset[str]:
        known = self._labels(node.lhs) | self._labels(node.rhs)
        if node.modifier is not None and node.modifier.matching is not None:
            is_on = str(node.modifier.matching.type).endswith("Include")
            self._named("on" if is_on else "ignoring", node.modifier.matching.labels, known)
        if node.modifier is not None and node.modifier.group_labels is not None:
            self._named("group_left, group_right", node.modifier.group_labels, known)
        return known

    def _call(self, node: Any) -> frozenset[str]:
        known: frozenset[str] = frozenset()
        for argument in node.args:
            known |= self._labels(argument)
        function = node.func.name
        if function in ("rate", "irate", "increase") and type(node.args[0]).__name__ == "MatrixSelector":
            name = promql.metric_of(node.args[0].vector_selector)
            series = self._catalogue.series.get(name or "")
            if series is not None and series.metric.type in ("gauge", "recorded"):
                self._faults.append(f"found {function}() of the {series.metric.type} {name}, allowed: of a counter")
        if function in ("label_replace", "label_join"):
            texts = [argument.val for argument in node.args if type(argument).__name__ == "StringLiteral"]
            sources = texts[2:3] if function == "label_replace" else texts[2:]
            self._named(function, sources, known)
            known |= {texts[0]}
        return known


class _Everything(frozenset[str]):
    """The labels of a metric that nobody knows: every label is among them, whatever is taken away or added."""

    def __contains__(self, label: object) -> bool:
        return True

    def __or__(self, other: Any) -> _Everything:
        return self

    __ror__ = __or__

    def __sub__(self, other: Any) -> _Everything:
        return self
