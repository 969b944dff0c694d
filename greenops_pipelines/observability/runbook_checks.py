"""Rendered runbooks -> what is wrong with them: commands, queries, links, and alerts without a page or with two.

    faults(files, subjects, connection)     one line each, `<file>:<line>: found ..., allowed: ...`

Every fenced block says in which language it is. `sh` has to parse for bash, and its commands and options have to exist; the
queries that a command carries are read like those of a block of their own. `promql` parses and asks for what exists. `logql` is read as far as
`queries.py` says. `sql` is prepared on the connection, an empty lake's. Not here: running anything.
"""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from greenops_pipelines.observability import commands, links, queries
from greenops_pipelines.observability.links import Pages
from greenops_pipelines.observability.runbooks import path_of, title
from greenops_pipelines.observability.subjects import Subjects

if TYPE_CHECKING:
    import duckdb

LANGUAGES = ("sh", "promql", "logql", "sql")
_BLOCK = re.compile(r"^```(?P<language>\w*)[ \t]*\n(?P<text>.*?)^```[ \t]*$", re.MULTILINE | re.DOTALL)
_SHELL_VARIABLE = re.compile(r"\$[A-Z][A-Z_]*")
_BASH_SECONDS = 10


@dataclass(frozen=True)
class Block:
    """A fenced block of a page, and the line that it begins on."""

    language: str
    text: str
    line: int


def blocks(markdown: str) -> Iterator[Block]:
    """The fenced blocks of a page, in their order."""
    for match in _BLOCK.finditer(markdown):
        yield Block(match["language"], match["text"], markdown.count("\n", 0, match.start()) + 2)


def faults(files: Mapping[str, str], subjects: Subjects, connection: duckdb.DuckDBPyConnection) -> list[str]:
    """One line for each fault of the Markdown files among `files`; none where all is well."""
    markdown = {path: text for path, text in files.items() if path.endswith(".md")}
    known = links.pages(markdown)
    found = [fault for path in sorted(markdown) for fault in _page(path, markdown[path], subjects, known, connection)]
    return [*found, *_alerts(markdown, subjects, known)]


def _page(
    path: str, markdown: str, subjects: Subjects, known: Pages, connection: duckdb.DuckDBPyConnection
) -> Iterator[str]:
    found = list(blocks(markdown))
    # One process for the whole page; which block it is, is asked only where there is a fault.
    shells = [block for block in found if block.language == "sh"]
    if bash_faults("\n".join(block.text for block in shells)):
        yield from (f"{path}:{block.line}: {fault}" for block in shells for fault in bash_faults(block.text))
    for block in found:
        for fault in block_faults(block, subjects, connection):
            yield f"{path}:{block.line}: {fault}"
    for url in links.of_markdown(markdown):
        if dead := links.fault(url, subjects, known, path):
            yield f"{path}: {dead}"


def block_faults(block: Block, subjects: Subjects, connection: duckdb.DuckDBPyConnection) -> list[str]:
    """One line for each fault of a block; what bash says of its syntax aside."""
    match block.language:
        case "sh":
            return [*commands.faults(block.text), *_carried(block.text, subjects, connection)]
        case "promql":
            return queries.faults(block.text, subjects.series)
        case "logql":
            return queries.log_faults(block.text)
        case "sql":
            return _sql(block.text, connection)
    return [f"found a block in {block.language or 'no language'}, allowed: {', '.join(LANGUAGES)}"]


def bash_faults(text: str) -> list[str]:
    """What bash says of a text's syntax; it reads and does not run it."""
    done = subprocess.run(
        ["bash", "-n"], input=text, capture_output=True, text=True, timeout=_BASH_SECONDS, check=False
    )
    return [] if done.returncode == 0 else [f"found no shell: {' '.join(done.stderr.split())[:160]}"]


def _carried(text: str, subjects: Subjects, connection: duckdb.DuckDBPyConnection) -> Iterator[str]:
    """Faults of the queries among a command's arguments."""
    try:
        found = commands.split(text)
    except ValueError:
        return
    for words in found:
        query = _SHELL_VARIABLE.sub(queries.ANY, words[-1] if words[0] == "promtool" else words[2] if words[2:] else "")
        if words[:2] == ("promtool", "query"):
            yield from (f"promtool: {fault}" for fault in queries.faults(query, subjects.series))
        elif words[:2] == ("logcli", "query"):
            yield from (f"logcli: {fault}" for fault in queries.log_faults(query))
        elif words[:2] == ("greenops", "sql"):
            yield from (f"greenops sql: {fault}" for fault in _sql(query, connection))


def _sql(text: str, connection: duckdb.DuckDBPyConnection) -> list[str]:
    import duckdb

    try:
        connection.execute(f"explain {text.strip().rstrip(';')}")
    except duckdb.Error as error:
        return [f"found no SQL of this warehouse: {' '.join(str(error).split())[:200]}"]
    return []


def _alerts(markdown: Mapping[str, str], subjects: Subjects, known: Pages) -> Iterator[str]:
    """Every alert has exactly one page, its link leads to a heading, and no page is of an alert that there is not."""
    pages = Counter(text.split("\n", 1)[0] for path, text in markdown.items() if path.startswith("runbooks/alerts/"))
    for alert in subjects.alerts:
        where = f"{alert.name} ({alert.severity})"
        if pages[title(alert)] != 1:
            yield f"{where}: found {pages[title(alert)]} runbooks, allowed: exactly one, {path_of(subjects, alert)}"
        for kind, url in (("runbook", alert.runbook), ("dashboard", alert.dashboard)):
            if fault := links.fault(url, subjects, known):
                yield f"{where}: {kind}: {fault}"
    for orphan in sorted(set(pages) - {title(alert) for alert in subjects.alerts}):
        yield f"runbooks/alerts: found a page {orphan!r}, allowed: one per alert that there is"
