"""One thing that somebody is told, and how a set of them reads as plain text. Not here: who is told, and how it travels."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Literal

Severity = Literal["critical", "warning"]
Action = Literal["trigger", "resolve"]


@dataclass(frozen=True)
class Message:
    """Said once per `key`. What triggers and what resolves share their `dedup_key`, and go out in this order.

    `component` is the part of the service, `kind` what happened to it, `links` address by name, `at` when it happened.
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


def headline(messages: Sequence[Message]) -> str:
    """One line for all of them: the title of the only one, else how many of which services."""
    if len(messages) == 1:
        return f"{mark(messages[0])} {messages[0].title}"
    services = sorted({message.service for message in messages})
    named = ", ".join(services[:5]) + (f" and {len(services) - 5} more" if len(services) > 5 else "")
    triggered = sum(message.action == "trigger" for message in messages)
    return f"{named}: {triggered} triggered, {len(messages) - triggered} resolved"


def mark(message: Message) -> str:
    """How bad it is, in a word: CRITICAL, WARNING, or RESOLVED."""
    return "RESOLVED" if message.action == "resolve" else message.severity.upper()


def plain(messages: Sequence[Message]) -> str:
    """All of it as plain text, a paragraph each."""
    said = [] if len(messages) == 1 else [headline(messages)]
    for message in messages:
        links = "".join(f"\n{name}: {url}" for name, url in message.links.items())
        said.append(f"{mark(message)} {message.title}\n{message.text}\nTeam: {message.team}{links}")
    return "\n\n".join(said)
