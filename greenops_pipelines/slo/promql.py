"""A PromQL text -> its syntax tree, with the variables of those who carry queries filled in.

Here: `{{.window}}` of Sloth, `$__rate_interval` and the like of Grafana, `{{args.x}}` of an AnalysisTemplate. Not here:
what a query may ask for (`catalogue.py`).
"""

from __future__ import annotations

import re
from typing import Any

from greenops_pipelines.errors import BadInput

ANY = "__any__"
"""Stands for a variable inside a label's value."""
MAX_LENGTH = 8000
"""The parser is recursive native code: 100,000 brackets end the whole process."""

_VARIABLE = (
    r"\{\{\s*\.window\s*\}\}"
    r"|\{\{\s*args\.[A-Za-z0-9_-]+\s*\}\}"
    r"|\$\{(?:__rate_interval|__interval|__range|timeRange|service|environment)(?::[a-z]+)?\}"
    r"|\$(?:__rate_interval|__interval|__range|timeRange|service|environment)(?![A-Za-z0-9_])"
    r"|\$(?:__interval_ms|__range_ms|__range_s)(?![A-Za-z0-9_])"
)
_TOKEN = re.compile(rf"""(?P<text>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|`[^`]*`)|(?P<comment>\#[^\n]*)|{_VARIABLE}""")
_INSIDE = re.compile(_VARIABLE)
_NUMBER = re.compile(r"__interval_ms|__range_m?s")
_AFTER_RANGE = re.compile(r"[\[:]\s*$")


def filled(query: str) -> str:
    """The query with a minute for each duration, `ANY` for each variable inside a text, 1 for any other argument."""

    def replaced(match: re.Match[str]) -> str:
        if match["comment"]:
            return match[0]
        if match["text"]:
            return _INSIDE.sub(ANY, match[0])
        if _NUMBER.search(match[0]):
            return "60"
        if "args." in match[0]:
            return "1m" if _AFTER_RANGE.search(query, 0, match.start()) else "1"
        if re.search("service|environment", match[0]):
            return match[0]
        return "1m"

    return _TOKEN.sub(replaced, query)


def parse(query: str) -> Any:
    """The tree of the query. `BadInput` for no PromQL, and for one too long to be parsed safely."""
    # Costs 10 ms and native code; only who checks queries needs it.
    import promql_parser

    if len(query) > MAX_LENGTH:
        raise BadInput(f"found a query of {len(query):,} characters, allowed: at most {MAX_LENGTH:,}")
    try:
        return promql_parser.parse(filled(query))
    except ValueError as error:
        raise BadInput(f"found no PromQL: {' '.join(str(error).split())[:160]}") from None


def metric_of(selector: Any) -> str | None:
    """The one metric that a vector selector names; None where it names none, or a pattern."""
    if selector.name:
        return str(selector.name)
    named = [m for m in selector.matchers.matchers if m.name == "__name__" and str(m.op).endswith(".Equal")]
    return str(named[0].value) if named else None
