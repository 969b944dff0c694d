"""SLO documents -> groups: Sloth's `prometheus/v1`, its Kubernetes `PrometheusServiceLevel`, OpenSLO v1alpha.

Read as Sloth 0.16 reads them: documents split at `---`, unknown fields ignored, scalar labels turned into text. What is
of the wrong type is refused here with its field; what is wrong in meaning in `validate.py`.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from greenops_pipelines.errors import BadInput
from greenops_pipelines.slo import yaml_go
from greenops_pipelines.slo.model import Alert, Events, Group, KubernetesMeta, Raw, Slo

SLOTH = "prometheus/v1"
KUBERNETES = "sloth.slok.dev/v1"
OPENSLO = "openslo/v1alpha"

_MARK = re.compile("^---", re.MULTILINE)
_COMMENT = re.compile("^#.*$", re.MULTILINE)
_KINDS: Mapping[str, tuple[re.Pattern[str], ...]] = {
    SLOTH: (re.compile(r"""^version: +['"]?prometheus/v1['"]?\r?\n? *$""", re.MULTILINE),),
    KUBERNETES: (
        re.compile(r"""^kind: +['"]?PrometheusServiceLevel['"]? *$""", re.MULTILINE),
        re.compile(r"""^apiVersion: +['"]?sloth.slok.dev/v1['"]? *$""", re.MULTILINE),
    ),
    OPENSLO: (
        re.compile(r"""^kind: +['"]?SLO['"]? *$""", re.MULTILINE),
        re.compile(r"""^apiVersion: +['"]?openslo/v1alpha['"]? *$""", re.MULTILINE),
    ),
}
_RATIO = """
  1 - (
    (
      {good}
    )
    /
    (
      {total}
    )
  )
"""


@dataclass(frozen=True)
class Document:
    """One YAML document of a file: its text, and the place to name in messages."""

    text: str
    place: str


def read_file(path: Path, period: timedelta) -> tuple[Group, ...]:
    """The groups of all documents of a file. `period` is that of SLOs that name none. `BadInput` for the first fault."""
    return tuple(group(document, period) for document in documents(text_of(path), str(path)))


def text_of(path: Path) -> str:
    """The file's text; `BadInput` where there is none, too much of it, or it is not UTF-8."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise BadInput(f"{path}: found something that is not a file, allowed: a YAML file")
        with path.open("rb") as stream:
            content = stream.read(yaml_go.MAX_BYTES + 1)
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}; allowed: a file that can be read") from None
    if len(content) > yaml_go.MAX_BYTES:
        raise BadInput(f"{path}: found more than {yaml_go.MAX_BYTES:,} bytes, allowed: at most that")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise BadInput(f"{path}:{line}: found the byte 0x{content[error.start]:02x}, allowed: text in UTF-8") from None


def documents(text: str, file: str) -> list[Document]:
    """The documents that are not empty. Comments in the first column go first, as Sloth does."""
    parts = [part.strip() for part in _MARK.split(_COMMENT.sub("", text.strip()))]
    kept = [part for part in parts if part]
    return [Document(part, file if len(kept) == 1 else f"{file} (document {n})") for n, part in enumerate(kept, 1)]


def group(document: Document, period: timedelta) -> Group:
    """The document's SLOs. `BadInput` names file and field."""
    spec = kind(document.text)
    if spec is None:
        raise BadInput(
            f"{document.place}: version, apiVersion and kind: found no known specification, allowed: version {SLOTH}, "
            f"{KUBERNETES} PrometheusServiceLevel, or {OPENSLO} SLO"
        )
    root = _Reader(yaml_go.load(document.text, document.place), document.place, "")
    return {SLOTH: _sloth, KUBERNETES: _kubernetes, OPENSLO: _openslo}[spec](root, period)


def kind(text: str) -> str | None:
    """The specification of a document, told by its first column as Sloth does; None if it is none of them."""
    return next((name for name, marks in _KINDS.items() if all(mark.search(text) for mark in marks)), None)


class _Reader:
    """A value with the way to it, so that a fault names its field."""

    def __init__(self, value: Any, place: str, at: str) -> None:
        self.value = value
        self.place = place
        self.at = at

    def refuse(self, allowed: str) -> BadInput:
        found = {dict: "a mapping", list: "a list", type(None): "nothing"}.get(type(self.value))
        return BadInput(
            f"{self.place}: {self.at or 'document'}: found {found or repr(self.value)[:60]}, allowed: {allowed}"
        )

    def __getitem__(self, key: str) -> _Reader:
        if self.value is not None and not isinstance(self.value, dict):
            raise self.refuse("a mapping")
        return _Reader((self.value or {}).get(key), self.place, f"{self.at}.{key}" if self.at else key)

    def items(self) -> Iterator[_Reader]:
        if self.value is None:
            return
        if not isinstance(self.value, list):
            raise self.refuse("a list")
        for index, value in enumerate(self.value):
            named = value.get("name") if isinstance(value, dict) else None
            yield _Reader(value, self.place, f"{self.at}[{index}]" + (f" ({named})" if isinstance(named, str) else ""))

    def text(self) -> str:
        if isinstance(self.value, dict | list):
            raise self.refuse("text")
        return yaml_go.as_text(self.value) or ""

    def texts(self) -> dict[str, str]:
        if self.value is None:
            return {}
        if not isinstance(self.value, dict):
            raise self.refuse("a mapping")
        return {key: self[key].text() for key in self.value}

    def flag(self) -> bool:
        if self.value is not None and not isinstance(self.value, bool):
            raise self.refuse("true or false")
        return bool(self.value)

    def number(self) -> float:
        if self.value is None:
            return 0.0
        if isinstance(self.value, bool) or not isinstance(self.value, int | float):
            hint = "; take the quotes away, and write a point" if isinstance(self.value, str) else ""
            raise self.refuse(f"a number{hint}")
        if self.value != self.value or self.value in (float("inf"), float("-inf")):
            raise self.refuse("a finite number")
        return float(self.value)


def _sloth(root: _Reader, period: timedelta) -> Group:
    if root["version"].value != SLOTH:
        raise root["version"].refuse(SLOTH)
    _refuse_plugins(root["slo_plugins"])
    return Group(_slos(root, period, _SNAKE, "plugins"), SLOTH, "cli-gen-prom")


def _kubernetes(root: _Reader, period: timedelta) -> Group:
    meta, spec = root["metadata"], root["spec"]
    _refuse_plugins(spec["sloPlugins"])
    described = KubernetesMeta(
        meta["name"].text(), meta["namespace"].text(), meta["labels"].texts(), meta["annotations"].texts()
    )
    return Group(_slos(spec, period, _CAMEL, "plugins"), KUBERNETES, "cli-gen-k8s", described)


_SNAKE = {
    "error": "error_query",
    "total": "total_query",
    "ratio": "error_ratio_query",
    "page": "page_alert",
    "ticket": "ticket_alert",
}
_CAMEL = {
    "error": "errorQuery",
    "total": "totalQuery",
    "ratio": "errorRatioQuery",
    "page": "pageAlert",
    "ticket": "ticketAlert",
}


def _slos(root: _Reader, period: timedelta, names: Mapping[str, str], plugins: str) -> tuple[Slo, ...]:
    service, labels = root["service"].text(), root["labels"].texts()
    found = []
    for node in root["slos"].items():
        _refuse_plugins(node[plugins])
        sli, alerting = node["sli"], node["alerting"]
        if sli["plugin"].value is not None:
            named = sli["plugin"]["id"].text()
            raise BadInput(
                f"{node.place}: {sli.at}.plugin: found the SLI plugin {named!r}, allowed: events or raw; a plugin is "
                "written in Go and cannot be run here: write out the query it makes"
            )
        events, raw = sli["events"], sli["raw"]
        name = node["name"].text()
        found.append(
            Slo(
                id=f"{service}-{name}",
                name=name,
                service=service,
                description=node["description"].text(),
                objective=node["objective"].number(),
                period=period,
                labels={**labels, **node["labels"].texts()},
                events=None
                if events.value is None
                else Events(events[names["error"]].text(), events[names["total"]].text()),
                raw=None if raw.value is None else Raw(raw[names["ratio"]].text()),
                page=_alert(alerting, alerting[names["page"]]),
                ticket=_alert(alerting, alerting[names["ticket"]]),
            )
        )
    if not found:
        raise root["slos"].refuse("at least one SLO")
    return tuple(found)


def _alert(alerting: _Reader, own: _Reader) -> Alert | None:
    if own["disable"].flag():
        return None
    return Alert(
        alerting["name"].text(),
        {**alerting["labels"].texts(), **own["labels"].texts()},
        {**alerting["annotations"].texts(), **own["annotations"].texts()},
    )


def _refuse_plugins(plugins: _Reader) -> None:
    for plugin in plugins["chain"].items():
        raise BadInput(
            f"{plugin.place}: {plugin.at}: found the SLO plugin {plugin['id'].text()!r}, allowed: none; a plugin is "
            "written in Go and cannot be run here"
        )
    if plugins["overridePrevious"].flag():
        raise BadInput(f"{plugins.place}: {plugins.at}.overridePrevious: found true without a chain, allowed: false")


def _openslo(root: _Reader, period: timedelta) -> Group:
    spec = root["spec"]
    windows = list(spec["timeWindows"].items())
    if len(windows) > 1:
        raise spec["timeWindows"].refuse("one time window")
    if windows:
        if windows[0]["unit"].text().lower() != "day":
            raise windows[0]["unit"].refuse("Day")
        count = windows[0]["count"].number()
        if count != int(count) or not 0 < count <= 3650:
            raise windows[0]["count"].refuse("a whole number of days")
        period = timedelta(days=int(count))
    service, name = spec["service"].text(), root["metadata"]["name"].text()
    found = []
    for index, objective in enumerate(spec["objectives"].items()):
        ratio = objective["ratioMetrics"]
        if ratio.value is None:
            raise ratio.refuse("good and total (other kinds of objectives are not supported)")
        for part in ("good", "total"):
            if ratio[part]["source"].text() not in ("prometheus", "sloth"):
                raise ratio[part]["source"].refuse("prometheus or sloth")
            if ratio[part]["queryType"].text() != "promql":
                raise ratio[part]["queryType"].refuse("promql")
        if objective["target"].value is None:
            raise objective["target"].refuse("a ratio above 0, up to 1")
        query = _RATIO.format(good=ratio["good"]["query"].text(), total=ratio["total"]["query"].text())
        found.append(
            Slo(
                id=f"{service}-{name}-{index}",
                name=f"{name}-{index}",
                service=service,
                description=spec["description"].text(),
                objective=objective["target"].number() * 100,
                period=period,
                events=None,
                raw=Raw(query),
            )
        )
    if not found:
        raise spec["objectives"].refuse("at least one objective")
    return Group(tuple(found), OPENSLO, "cli-gen-openslo")
