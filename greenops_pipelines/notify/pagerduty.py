"""PagerDuty's Events API v2: an alert opens by `trigger` and ends by `resolve`, both under one `dedup_key`.

Format, limits and answers: https://developer.pagerduty.com/docs/events-api-v2-overview. 202: taken; 400: never; 429 and 5xx:
later. A second trigger under the key of an open alert adds a line to it, and pages nobody.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from datetime import UTC
from typing import Any

from pydantic import SecretStr

from greenops_pipelines.errors import ConfigurationError
from greenops_pipelines.notify.message import Message, subject
from greenops_pipelines.notify.posting import NotSent, Refused, SentPerhaps, address, post
from greenops_pipelines.redaction import reveal

VARIABLE = "GREENOPS_NOTIFY_PAGERDUTY_KEY"
URL = "https://events.pagerduty.com"
_KEY_CHARACTERS = 255
_SUMMARY_CHARACTERS = 1024


class PagerDuty:
    """One integration. Each message is an event of its own: one that stood in a summary could not be resolved.

    So there is no limit of ours; at most one alert is open per SLO, and PagerDuty answers 429 when it has enough.
    """

    name = "pagerduty"
    asks_again = True
    groups = False
    per_hour: int | None = None

    def __init__(self, key: SecretStr, base_url: str = URL, timeout: tuple[float, float] = (5.0, 10.0)) -> None:
        if not re.fullmatch(r"[A-Za-z0-9]{32}", key.get_secret_value(), re.ASCII):
            raise ConfigurationError(
                f"{VARIABLE}: found (hidden), allowed: the integration key of an Events API v2 integration, "
                "32 letters and digits"
            )
        reveal(key)
        self._key = key
        endpoint = SecretStr(f"{base_url.rstrip('/')}/v2/enqueue")
        self._address = address(self.name, endpoint, "GREENOPS_NOTIFY_PAGERDUTY_URL", is_credential=False)
        self._timeout = timeout

    def __repr__(self) -> str:
        return f"PagerDuty({self._address.shown})"

    def send(self, messages: Sequence[Message]) -> str:
        """One event for each."""
        for message in messages:
            answer = post(self._address, event(message) | {"routing_key": reveal(self._key)}, self._timeout)
            words = f"{self._address.shown}: {answer.words}"
            if answer.status == 429 or answer.status in (500, 503):
                raise NotSent(words, answer.retry_after_seconds)
            if answer.status >= 500:
                raise SentPerhaps(words)
            if answer.status != 202:
                raise Refused(words)
        return "accepted"


def event(message: Message) -> dict[str, Any]:
    """The event without its `routing_key`. A resolve is nothing but its key."""
    found: dict[str, Any] = {"event_action": message.action, "dedup_key": dedup_key(message.dedup_key)}
    if message.action == "resolve":
        return found
    found["client"] = "greenops"
    found["links"] = [{"href": url, "text": name} for name, url in message.links.items()]
    found["payload"] = {
        "summary": subject(message)[:_SUMMARY_CHARACTERS],
        "source": message.service,
        "severity": message.severity,
        "timestamp": message.at.astimezone(UTC).isoformat(timespec="milliseconds"),
        "component": message.component or message.service,
        "group": message.service,
        "class": message.kind or "alert",
        "custom_details": {"text": message.text, "team": message.team, **message.details},
    }
    return found


def dedup_key(key: str) -> str:
    """The key itself, or its beginning and its SHA-256 where it is longer than 255 characters."""
    if len(key) <= _KEY_CHARACTERS:
        return key
    digest = hashlib.sha256(key.encode()).hexdigest()
    return f"{key[: _KEY_CHARACTERS - len(digest) - 1]}-{digest}"
