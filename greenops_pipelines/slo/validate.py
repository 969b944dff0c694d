"""What Sloth refuses in an SLO, and two things more: an objective of 100, and a label of several lines.

One line per fault: file, SLO, field, found, allowed. Not here: types and unknown documents (`load.py`).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping

from greenops_pipelines.errors import BadInput
from greenops_pipelines.slo.model import Group, Slo
from greenops_pipelines.slo.promql import MAX_LENGTH

NAME = re.compile(r"[A-Za-z0-9][-A-Za-z0-9_.]*[A-Za-z0-9]", re.ASCII)
_HAS_WINDOW = re.compile(r"\{\{ *\.window *\}\}")
_ACTION = re.compile(r"(\s*)\{\{(- )?(.*?)( -)?\}\}(\s*)", re.DOTALL)
_COMMENT = re.compile(r"/\*.*\*/", re.DOTALL)


def render(query: str, window: str) -> str:
    """The query with its `{{.window}}` filled in. `BadInput` for any other template action: Sloth knows no other."""

    def replaced(match: re.Match[str]) -> str:
        before, trims_before, action, trims_after, after = match.groups()
        inner = action.strip()
        if inner == ".window":
            value = window
        elif _COMMENT.fullmatch(inner):
            value = ""
        else:
            raise BadInput(f"found the template action {match[0].strip()[:40]!r}, allowed: {{{{.window}}}}")
        return ("" if trims_before else before) + value + ("" if trims_after else after)

    return _ACTION.sub(replaced, query)


def faults(group: Group, file: str, *, allow_objective_100: bool = False) -> list[str]:
    """Everything wrong with the group's SLOs, a line each."""
    found = [
        f"{file}: {slo.name or '(no name)'}: {fault}" for slo in group.slos for fault in _slo(slo, allow_objective_100)
    ]
    seen: set[str] = set()
    for slo in group.slos:
        if slo.id in seen:
            found.append(f"{file}: {slo.name}: name: found the SLO {slo.id} a second time, allowed: once")
        seen.add(slo.id)
    return found


def check(group: Group, file: str, *, allow_objective_100: bool = False) -> None:
    """Raises `BadInput` with every fault of the group."""
    if found := faults(group, file, allow_objective_100=allow_objective_100):
        raise BadInput("\n".join(found))


def _slo(slo: Slo, allow_objective_100: bool) -> Iterator[str]:
    for field, name in (("name", slo.name), ("service", slo.service)):
        if not NAME.fullmatch(name):
            allowed = "at least two characters of letters, digits, . _ and -, a letter or digit first and last"
            yield f"{field}: found {_shown(name)}, allowed: {allowed}"
    if not 0 < slo.objective <= 100:
        yield f"objective: found {slo.objective:g}, allowed: a percentage above 0 and below 100"
    elif slo.objective == 100 and not allow_objective_100:
        yield "objective: found 100, allowed: below 100, where there is no budget to burn (--allow-objective-100 takes it)"
    yield from _pairs("labels", slo.labels, is_label=True)
    yield from _sli(slo)
    if any(alert is not None and not alert.name for alert in (slo.page, slo.ticket)):
        yield "alerting.name: found nothing, allowed: a name, or disable: true for page_alert and ticket_alert"
    for field, alert in (("page_alert", slo.page), ("ticket_alert", slo.ticket)):
        if alert is not None:
            yield from _pairs(f"alerting.{field}.labels", alert.labels, is_label=True)
            yield from _pairs(f"alerting.{field}.annotations", alert.annotations, is_label=False)


def _sli(slo: Slo) -> Iterator[str]:
    if slo.events is None and slo.raw is None:
        yield "sli: found nothing, allowed: events or raw"
    if slo.events is not None and slo.raw is not None:
        yield "sli: found events and raw, allowed: one of them"
    if slo.events is not None:
        if slo.events.error_query == slo.events.total_query:
            yield "sli.events: found the same error_query and total_query, allowed: two that differ"
        yield from _query("sli.events.error_query", slo.events.error_query)
        yield from _query("sli.events.total_query", slo.events.total_query)
    if slo.raw is not None:
        yield from _query("sli.raw.error_ratio_query", slo.raw.error_ratio_query)


def _query(field: str, query: str) -> Iterator[str]:
    if not query:
        yield f"{field}: found nothing, allowed: a PromQL query with {{{{.window}}}}"
        return
    if fault := query_fault(query):
        yield f"{field}: {fault}"
    elif not _HAS_WINDOW.search(query):
        yield f"{field}: found no {{{{.window}}}}, allowed: a query over {{{{.window}}}}"


@functools.lru_cache(maxsize=8192)
def query_fault(query: str) -> str | None:
    """Why the query is no PromQL with a window of 1m filled in; None if it is."""
    import promql_parser

    if len(query) > MAX_LENGTH:
        return f"found a query of {len(query):,} characters, allowed: at most {MAX_LENGTH:,}"
    try:
        promql_parser.parse(render(query, "1m"))
    except BadInput as error:
        return str(error)
    except ValueError as error:
        return f"found no PromQL: {' '.join(str(error).split())[:160]}"
    return None


def _pairs(field: str, pairs: Mapping[str, str], *, is_label: bool) -> Iterator[str]:
    for key, value in pairs.items():
        if not key or "\n" in key or (is_label and key == "__name__"):
            yield f"{field}: found the key {_shown(key)}, allowed: a label's name on one line"
        if not value:
            yield f"{field}.{key}: found nothing, allowed: text"
        elif is_label and "\n" in value:
            yield f"{field}.{key}: found {_shown(value)}, allowed: one line"


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:57]}...")
