"""Links of dashboards and runbooks -> whether they lead somewhere: to a rendered dashboard, page or heading.

Not here: whether a server answers behind a link.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

from greenops_pipelines.errors import BadInput
from greenops_pipelines.observability.subjects import Subjects, runbook_of, uid_of

RUNBOOKS = "runbooks"
"""Folder of the rendered tree that is published at the host of the runbooks' links."""
Pages = Mapping[str, frozenset[str]]
"""Path of a Markdown file in the rendered tree -> anchors of its headings."""

_FENCE = re.compile(r"^```.*?^```[ \t]*$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*$", re.MULTILINE)
_LINK = re.compile(r"\[[^\]]*\]\(([^()\s]+)\)")
_FIELD = re.compile(r"\$\{__(?:field\.labels|data\.fields)\.\w+\}")


def pages(files: Mapping[str, str]) -> Pages:
    """The Markdown files among `files`."""
    return {path: anchors(text) for path, text in files.items() if path.endswith(".md")}


def anchors(markdown: str) -> frozenset[str]:
    """Anchors of the headings, as GitHub and most renderers make them."""
    found = _HEADING.findall(_FENCE.sub("", markdown))
    return frozenset(re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in found)


def of_markdown(markdown: str) -> Iterator[str]:
    """Every link of a page, those in code blocks aside."""
    yield from _LINK.findall(_FENCE.sub("", markdown))


def fault(url: str, subjects: Subjects, known: Pages, page: str | None = None) -> str | None:
    """What is wrong with a link; None where it leads somewhere. `page` is the Markdown file that holds it.

    A variable for a series' service stands for each of the services.
    """
    if _FIELD.search(url):
        expanded = (fault(_FIELD.sub(each.name, url), subjects, known, page) for each in subjects.services)
        return next((found for found in expanded if found), None)
    parts = urlsplit(url)
    if parts.netloc:
        if parts.netloc == urlsplit(subjects.overview).netloc:
            return _dashboard(url, subjects)
        if parts.netloc in {urlsplit(alert.runbook).netloc for alert in subjects.alerts}:
            return _runbook(url, known)
        return f"found the link {url}, allowed: to a rendered dashboard or runbook"
    if parts.path.startswith("/d/"):
        return _dashboard(url, subjects)
    if page is None:
        return f"found the link {url}, allowed: /d/<uid>, or a runbook's address"
    path = posixpath.normpath(posixpath.join(posixpath.dirname(page), parts.path)) if parts.path else page
    return _page(url, path, parts.fragment, known)


def _dashboard(url: str, subjects: Subjects) -> str | None:
    try:
        uid = uid_of(url)
    except BadInput as error:
        return str(error)
    return (
        None
        if uid in subjects.uids
        else f"found the link {url}, allowed: a dashboard of {', '.join(sorted(subjects.uids))}"
    )


def _runbook(url: str, known: Pages) -> str | None:
    try:
        page, anchor = runbook_of(url)
    except BadInput as error:
        return str(error)
    return _page(url, f"{RUNBOOKS}/{page}.md", anchor, known)


def _page(url: str, path: str, anchor: str, known: Pages) -> str | None:
    if path not in known:
        return f"found the link {url}, allowed: a rendered page, and {path} is none"
    if anchor and anchor not in known[path]:
        return f"found the link {url}, allowed: a heading of {path}: {', '.join(sorted(known[path]))}"
    return None
