"""Incoming webhooks as Slack has them; Mattermost, Rocket.Chat and Discord's `/slack` take the same.

Formats: https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks and
https://docs.slack.dev/reference/block-kit/blocks: a header of at most 150 characters, a section of 3,000, 50 blocks. All
blocks together were refused beyond some 13,000 characters, which is documented nowhere. Of many messages the first are said
in full, pages before all else, then titles, then a number.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from pydantic import SecretStr

from greenops_pipelines import strict_json
from greenops_pipelines.notify.message import Message, headline, pages_first, titled
from greenops_pipelines.notify.posting import Address, Answer, NotSent, Refused, SentPerhaps, address, post

VARIABLE = "GREENOPS_NOTIFY_SLACK_URL"
_HEADER_CHARACTERS = 150
_TEXT_CHARACTERS = 2500
_TOGETHER_CHARACTERS = 600
_LINK_CHARACTERS = 1000
_FOOTER_CHARACTERS = 2500
_IN_FULL = 10
_IN_FULL_CHARACTERS = 9500
"""As JSON. With the titles and the header it stays below the 13,000."""
_TITLES_CHARACTERS = 2700


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
        if status in (429, 503) or (status == 500 and answer.text == _NOT_DONE):
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


_NOT_DONE = "rollup_error"
"""What Slack itself says with a 500 (https://api.slack.com/changelog/2016-05-17-changes-to-errors-for-incoming-webhooks). Any
other 500, and 502 and 504, come from who may have posted it before: nobody knows."""


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
    ordered, in_full, length = pages_first(messages), 0, 0
    for message in ordered[:_IN_FULL]:
        said = _in_full(message, len(messages) > 1)
        length += len(json.dumps(said, ensure_ascii=False))
        if in_full and length > _IN_FULL_CHARACTERS:
            break
        blocks += said
        in_full += 1
    if rest := ordered[in_full:]:
        blocks.append({"type": "section", "text": {"type": "mrkdwn", "text": _titles(rest)}})
    return {"text": escaped(title, 300), "blocks": blocks}


def _in_full(message: Message, is_one_of_many: bool) -> list[dict[str, Any]]:
    text = escaped(message.text, _TOGETHER_CHARACTERS if is_one_of_many else _TEXT_CHARACTERS)
    head = f"*{escaped(titled(message), 220)}*\n" if is_one_of_many else ""
    footer = escaped(message.service, 80) + (f" · team {escaped(message.team, 80)}" if message.team else "")
    for name, url in message.links.items():
        # Cut off, an address leads nowhere, or somewhere else.
        link = f" · <{escaped(url, len(url) * 5 + 1)}|{escaped(name, 60)}>"
        if len(link) <= _LINK_CHARACTERS and len(footer) + len(link) <= _FOOTER_CHARACTERS:
            footer += link
    return [
        {"type": "section", "text": {"type": "mrkdwn", "text": head + text or escaped(titled(message), 220)}},
        {"type": "context", "elements": [{"type": "mrkdwn", "text": footer}]},
    ]


def _titles(messages: Sequence[Message]) -> str:
    """A line each, for as many as a section holds, and how many more there are."""
    lines: list[str] = []
    length = 0
    for message in messages:
        line = escaped(titled(message), 130)
        if (length := length + len(line) + 1) > _TITLES_CHARACTERS:
            break
        lines.append(line)
    if more := len(messages) - len(lines):
        lines.append(f"and {more} more")
    return "\n".join(lines)


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
