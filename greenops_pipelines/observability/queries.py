"""A query of a panel or a runbook -> what in it does not exist: PromQL by its parser, LogQL as far as selector and filters.

    faults('sum(rate(http_request_total[$__rate_interval]))', series)
    ["found the metric 'http_request_total', allowed: ...; nearest: http_server_requests_total"]

PromQL: the query parses once Grafana's variables are filled in; its metrics exist; its labels, in selectors and in `by`,
`on` and the like, are labels that these metrics have; values are known where the values of a label are. LogQL has no
parser in Python: checked are the stream selector, line filters, label filters and the parsers between them, alone or
inside range and vector aggregations; templates of `line_format` are not read. Not here: what a query means.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from greenops_pipelines.errors import BadInput
from greenops_pipelines.observability.subjects import Series

MAX_LENGTH = 8000
"""PromQL's parser is recursive native code: 100,000 brackets end the whole process."""
ANY = "anything"
"""Stands where a variable stood inside a label's value."""
DURATIONS = ("__rate_interval", "__interval", "__range", "__auto", "timeRange")
TEXTS = ("service", "environment")

LOG_LABELS = ("service_name", "k8s_namespace_name", "k8s_cluster_name", "deployment_environment")
"""Stream labels: those that Loki makes of OTLP resource attributes by default (its docs, "Ingesting logs to Loki using
OpenTelemetry Collector"). Everything else is structured metadata, and no part of a selector. Loki's documentation advises
against a pod's name among them, so pods are filtered for, which works either way."""

_VARIABLE = re.compile(r"\$\{(?P<braced>\w+)(?::\w+)?\}|\$(?P<bare>\w+)|\{\{\s*args\.[A-Za-z0-9_-]+\s*\}\}")


def filled(query: str) -> str:
    """The query with five minutes for each duration, `ANY` for each text. `BadInput` for a variable that nobody fills."""

    def value(match: re.Match[str]) -> str:
        name = match["braced"] or match["bare"]
        if name is None or name in TEXTS:
            return ANY
        if name in DURATIONS:
            return "5m"
        raise BadInput(f"found the variable ${name}, allowed: {', '.join('$' + n for n in (*DURATIONS, *TEXTS))}")

    return _VARIABLE.sub(value, query)


def faults(query: str, series: Mapping[str, Series]) -> list[str]:
    """One line for each thing that is wrong with a PromQL query; none for a good one."""
    # Native code that costs 10 ms; only who checks queries needs it.
    import promql_parser

    if len(query) > MAX_LENGTH:
        return [f"found a query of {len(query):,} characters, allowed: at most {MAX_LENGTH:,}"]
    try:
        tree = promql_parser.parse(filled(query))
    except BadInput as error:
        return [str(error)]
    except ValueError as error:
        return [f"found no PromQL: {' '.join(str(error).split())[:160]}"]
    return list(dict.fromkeys(_walk(tree, series)))


def metrics(query: str) -> frozenset[str]:
    """Names of the metrics of a query that parses."""
    import promql_parser

    return frozenset(name for node in _selectors(promql_parser.parse(filled(query))) if (name := _name(node)))


def _children(node: Any) -> Iterator[Any]:
    for name in ("expr", "lhs", "rhs", "param", "vector_selector"):
        child = getattr(node, name, None)
        if child is not None:
            yield child
    yield from getattr(node, "args", None) or ()


def _selectors(node: Any) -> Iterator[Any]:
    if type(node).__name__ == "VectorSelector":
        yield node
        return
    for child in _children(node):
        yield from _selectors(child)


def _name(selector: Any) -> str | None:
    return str(selector.name) if selector.name else None


def _walk(node: Any, series: Mapping[str, Series]) -> Iterator[str]:
    if type(node).__name__ == "VectorSelector":
        yield from _selector(node, series)
        return
    for words, labels in _grouped(node):
        below = [series[name] for each in _selectors(node) if (name := _name(each)) and name in series]
        made = set(_made(node))
        known = set().union(*(set(each.labels) for each in below)) | made
        for label in labels:
            if below and label not in known:
                yield f"found the label {label!r} in `{words}`, allowed: {', '.join(sorted(known))}"
    for child in _children(node):
        yield from _walk(child, series)


def _grouped(node: Any) -> Iterator[tuple[str, list[str]]]:
    modifier = getattr(node, "modifier", None)
    if modifier is None:
        return
    if type(node).__name__ == "AggregateExpr":
        yield "by" if str(modifier.type).endswith("By") else "without", list(modifier.labels)
        return
    if modifier.matching is not None:
        yield "on" if str(modifier.matching.type).endswith("Include") else "ignoring", list(modifier.matching.labels)
    if modifier.group_labels is not None:
        yield "group_left, group_right", list(modifier.group_labels)


def _made(node: Any) -> Iterator[str]:
    """Labels that `label_replace` and `label_join` make somewhere below."""
    if type(node).__name__ == "Call" and node.func.name in ("label_replace", "label_join"):
        yield str(node.args[1].val)
    for child in _children(node):
        yield from _made(child)


def _selector(node: Any, series: Mapping[str, Series]) -> Iterator[str]:
    name = _name(node)
    if name is None:
        yield f"found the selector {node} without a metric's name, allowed: one metric by its name"
        return
    found = series.get(name)
    if found is None:
        nearest = difflib.get_close_matches(name, sorted(series), n=1, cutoff=0)
        yield f"found the metric {name!r}, allowed: one that a rule records or a service emits; nearest: {nearest[0]}"
        return
    for matcher in node.matchers.matchers:
        if matcher.name not in found.labels:
            reason = ", which no rule records" if found.is_recorded else ""
            yield (
                f"found the label {matcher.name!r} of {name}{reason}, allowed: {', '.join(sorted(found.labels)) or 'none'}"
            )
            continue
        values = found.labels[matcher.name]
        if values and ANY not in matcher.value and str(matcher.op).endswith(".Equal") and matcher.value not in values:
            yield f"found {matcher.name}={matcher.value!r} of {name}, allowed: {', '.join(sorted(values))}"


_TEXT = r'"(?:\\.|[^"\\])*"|`[^`]*`'
_MATCHER = re.compile(rf"\s*(?P<label>[A-Za-z_]\w*)\s*(?P<op>=~|!~|!=|=)\s*(?P<text>{_TEXT})\s*")
_LINE = re.compile(rf"\s*(?P<op>\|=|!=|\|~|!~)\s*(?P<text>{_TEXT})\s*")
_STAGE = re.compile(r"\s*\|\s*(?:json|logfmt|unpack|decolorize)\b\s*(?![=!<>~])")
_FORMAT = re.compile(rf"\s*\|\s*line_format\s+(?:{_TEXT})\s*")
_FILTER = re.compile(
    rf"\s*(?:\||and|or|,)\s*(?P<label>[A-Za-z_]\w*)\s*(?P<op>=~|!~|!=|==|=|>=|<=|>|<)\s*(?P<text>{_TEXT}|[0-9.]+[a-zA-Z]*)\s*"
)
_WRAPPED = re.compile(
    r"\s*(?:sum|min|max|avg|count|topk|bottomk)\s*(?:by\s*\([\w\s,]*\)\s*)?\(\s*(?:\d+\s*,)?(?P<inner>.*)\)\s*"
    r"(?:by\s*\([\w\s,]*\)\s*)?",
    re.DOTALL,
)
_RANGED = re.compile(
    r"\s*(?:rate|count_over_time|bytes_rate|bytes_over_time)\s*\((?P<inner>.*)\[(?:\d+[smhdwy])+\]\s*\)\s*", re.DOTALL
)


def log_faults(query: str, labels: Iterable[str] = LOG_LABELS) -> list[str]:
    """One line for each thing that is wrong with a LogQL query, as far as it is read."""
    try:
        text = filled(query)
    except BadInput as error:
        return [str(error)]
    while match := _WRAPPED.fullmatch(text):
        text = match["inner"]
    if match := _RANGED.fullmatch(text):
        text = match["inner"]
    text = text.strip()
    if not text.startswith("{"):
        return [f"found no stream selector at {text[:40]!r}, allowed: {{label=...}} first"]
    return _stream(text, tuple(labels))


def _stream(text: str, labels: tuple[str, ...]) -> list[str]:
    found: list[str] = []
    at, matchers = 1, 0
    while match := _MATCHER.match(text, at):
        matchers += 1
        if match["label"] not in labels:
            found.append(f"found the stream label {match['label']!r}, allowed: {', '.join(labels)}")
        found += _pattern(match["op"], match["text"])
        at = match.end()
        if text[at : at + 1] != ",":
            break
        at += 1
    if not matchers or text[at : at + 1] != "}":
        return [*found, f"found {text[at : at + 20]!r} in the stream selector, allowed: label=..., and }}"]
    at += 1
    while at < len(text):
        match = _LINE.match(text, at) or _FORMAT.match(text, at) or _STAGE.match(text, at) or _FILTER.match(text, at)
        if match is None:
            return [*found, f"found {text[at : at + 30].strip()!r}, allowed: line filters, json, logfmt, label filters"]
        if "op" in match.re.groupindex:
            found += _pattern(match["op"], match["text"])
        at = match.end()
    return found


def _pattern(operator: str, text: str) -> list[str]:
    if "~" not in operator:
        return []
    try:
        re.compile(text[1:-1])
    except re.error as error:
        return [f"found the expression {text}, allowed: one that compiles ({error})"]
    return []
