"""Incoming webhooks as Slack has them; Mattermost, Rocket.Chat and Discord's `/slack` take the same.

Formats: https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks and
https://docs.slack.dev/reference/block-kit/blocks: a header of at most 150 characters, a section of 3,000, 50 blocks. All
blocks together were refused beyond some 13,000 characters, which is documented nowhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import SecretStr

from greenops_pipelines import strict_json
from greenops_pipelines.notify.message import Message, headline, mark
from greenops_pipelines.notify.posting import Address, Answer, NotSent, Refused, SentPerhaps, address, post

VARIABLE = "GREENOPS_NOTIFY_SLACK_URL"
_HEADER_CHARACTERS = 150
_TEXT_CHARACTERS = 2500
_TOGETHER_CHARACTERS = 600
_LISTED = 10
_FAILED = frozenset({500, 503})
"""The server says that it did not do it. 502 and 504 come from a gateway, which knows no more than we do."""


class Slack:
    """A channel behind a webhook. It has no key that would make a second message harmless, so nothing is said twice."""

    name = "slack"
    asks_again = False
    groups = True

    def __init__(self, url: SecretStr, per_hour: int = 30, timeout: tuple[float, float] = (5.0, 10.0)) -> None:
        self.per_hour: int | None = per_hour
        self._address: Address = address(self.name, url, VARIABLE)
        self._timeout = timeout

    def __repr__(self) -> str:
        return f"Slack({self._address.shown})"

    def send(self, messages: Sequence[Message]) -> str:
        """All of them as one message."""
        return self._outcome(post(self._address, payload(messages), self._timeout))

    def _outcome(self, answer: Answer) -> str:
        status, words = answer.status, f"{self._address.shown}: {answer.words}"
        if status == 429 or status in _FAILED:
            raise NotSent(words, answer.retry_after_seconds)
        if status >= 500:
            raise SentPerhaps(words)
        if not 200 <= status < 300:
            raise Refused(words)
        if not answer.is_whole and answer.text != "ok":
            raise SentPerhaps(f"{self._address.shown}: answered {status}, and broke off")
        if not _is_ok(answer.text):
            raise Refused(f"{words}; a webhook answers ok: is this the address of one?")
        return "ok"


def _is_ok(text: str) -> bool:
    if text in ("", "ok"):
        return True
    try:
        document = strict_json.loads(text.encode())
    except ValueError:
        return False
    return isinstance(document, dict) and (document.get("ok") is True or document.get("success") is True)


def payload(messages: Sequence[Message]) -> dict[str, Any]:
    """`text` for notifications, `blocks` for the channel."""
    title = headline(messages)
    blocks: list[dict[str, Any]] = [
        {"type": "header", "text": {"type": "plain_text", "text": _cut(title, _HEADER_CHARACTERS)}}
    ]
    together = len(messages) > 1
    for message in messages[:_LISTED]:
        text = escaped(message.text, _TOGETHER_CHARACTERS if together else _TEXT_CHARACTERS)
        head = f"*{mark(message)} {escaped(message.title, 200)}*\n" if together else ""
        links = " · ".join(f"<{escaped(url, 400)}|{escaped(name, 60)}>" for name, url in message.links.items())
        footer = f"{escaped(message.service, 80)} · team {escaped(message.team, 80)}" + (f" · {links}" if links else "")
        blocks.append({"type": "section", "text": {"type": "mrkdwn", "text": head + text or title}})
        blocks.append({"type": "context", "elements": [{"type": "mrkdwn", "text": footer}]})
    if (more := len(messages) - _LISTED) > 0:
        blocks.append({"type": "section", "text": {"type": "mrkdwn", "text": f"and {more} more"}})
    return {"text": escaped(title, 300), "blocks": blocks}


def escaped(text: str, limit: int) -> str:
    """Text that means itself: `<!channel>` in it calls nobody. At most `limit` characters as it is sent."""
    found: list[str] = []
    length = 0
    for character in text:
        shown = _ENTITIES.get(character, character)
        if (length := length + len(shown)) >= limit:
            return "".join(found) + "…"
        found.append(shown)
    return "".join(found)


_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
