"""One thing that somebody is told, and how a set of them reads as plain text. Not here: who is told, and how it travels."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Literal

from greenops_pipelines.redaction import redact

Severity = Literal["critical", "warning"]
Action = Literal["trigger", "resolve"]


@dataclass(frozen=True)
class Message:
    """Said once per `key`. What triggers and what resolves share their `dedup_key`, and go out in this order.

    `component` is the part of the service, `kind` what happened to it, `links` address by name, `at` when it happened.
    `details["source"]`, where it is there, says what the figures are from; of `sample` data, every title says so.
    """

    key: str
    severity: Severity
    action: Action
    title: str
    text: str
    service: str
    team: str
    dedup_key: str
    at: datetime
    links: Mapping[str, str] = field(default_factory=dict)
    component: str = ""
    kind: str = ""
    details: Mapping[str, str | float] = field(default_factory=dict)

    def as_json(self) -> str:
        """Text that `from_json` reads back."""
        return json.dumps(
            asdict(self) | {"at": self.at.astimezone(UTC).isoformat()}, ensure_ascii=False, sort_keys=True
        )


def from_json(text: str) -> Message:
    """The message that `as_json` wrote."""
    fields = json.loads(text)
    return Message(**fields | {"at": datetime.fromisoformat(fields["at"])})


def redacted(message: Message) -> Message:
    """The message with stars for secrets wherever people write. What it is found by, its keys and service, stays."""
    return replace(
        message,
        title=redact(message.title),
        text=redact(message.text),
        team=redact(message.team),
        component=redact(message.component),
        kind=redact(message.kind),
        links={redact(name): redact(url) for name, url in message.links.items()},
        details={name: redact(value) if isinstance(value, str) else value for name, value in message.details.items()},
    )


def headline(messages: Sequence[Message]) -> str:
    """One line for all of them: the title of the only one, else how many of which services, and how many are pages."""
    if len(messages) == 1:
        return titled(messages[0])
    services = sorted({message.service for message in messages})
    named = ", ".join(services[:5]) + (f" and {len(services) - 5} more" if len(services) > 5 else "")
    triggered = sum(message.action == "trigger" for message in messages)
    pages = sum(map(_is_page, messages))
    critical = f" ({pages} critical)" if 0 < pages < triggered else ""
    samples = sum(bool(_sample(message)) for message in messages)
    of_them = "" if samples in (0, len(messages)) else f", {samples} of sample data"
    said = f"{named}: {triggered} triggered{critical}, {len(messages) - triggered} resolved{of_them}"
    return f"{_SAMPLE_DATA}{said}" if samples == len(messages) else said


def mark(message: Message) -> str:
    """How bad it is, in a word: CRITICAL, WARNING, or RESOLVED."""
    return "RESOLVED" if message.action == "resolve" else message.severity.upper()


def subject(message: Message) -> str:
    """The title, after a word where its figures are sample data."""
    return f"{_sample(message)}{message.title}"


def titled(message: Message) -> str:
    """How bad it is, and the subject."""
    return f"{mark(message)} {subject(message)}"


def pages_first(messages: Sequence[Message]) -> list[Message]:
    """Critical ones that trigger, then all else, each as they came: where room is short, the last are left out."""
    return sorted(messages, key=lambda message: not _is_page(message))


def plain(messages: Sequence[Message]) -> str:
    """All of it as plain text, a paragraph each, pages first."""
    said = [] if len(messages) == 1 else [headline(messages)]
    for message in pages_first(messages):
        team = f"\nTeam: {message.team}" if message.team else ""
        links = "".join(f"\n{name}: {url}" for name, url in message.links.items())
        said.append(f"{titled(message)}\n{message.text}{team}{links}")
    return "\n\n".join(said)


_SAMPLE_DATA = "[sample data] "


def _sample(message: Message) -> str:
    return _SAMPLE_DATA if message.details.get("source") == "sample" else ""


def _is_page(message: Message) -> bool:
    return message.action == "trigger" and message.severity == "critical"
