"""Secrets in, stars out: what is sent as a secret never shows in a message or in urllib3's log. Not here: storage."""

from __future__ import annotations

import logging
from urllib.parse import quote, quote_plus

from pydantic import SecretStr


class _Redaction(logging.Filter):
    """Stars instead of secrets. urllib3 logs whole URLs, query included, at DEBUG and in some warnings."""

    def __init__(self) -> None:
        super().__init__()
        self.secrets: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        if any(secret in message for secret in self.secrets):
            record.msg, record.args = redact(message), None
        return True


_REDACTION = _Redaction()
for _name in ("connectionpool", "connection", "poolmanager", "response", "util.retry"):
    logging.getLogger(f"urllib3.{_name}").addFilter(_REDACTION)


def reveal(value: str | int | SecretStr) -> str:
    """The value as it is sent. From here on, a secret is starred out of everything `redact` sees."""
    if not isinstance(value, SecretStr):
        return str(value)
    secret = value.get_secret_value()
    if secret:
        _REDACTION.secrets.update({secret, quote(secret, safe=""), quote_plus(secret)})
    return secret


def redact(text: str) -> str:
    """The text with every secret ever revealed, plain or percent-encoded, replaced by stars."""
    for secret in sorted(_REDACTION.secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


def one_line(text: str, limit: int) -> str:
    """Foreign text fit for one line of a message: redacted, printable, at most `limit` characters and an ellipsis."""
    line = " ".join("".join(c if c.isprintable() else " " for c in redact(text)).split())
    return line if len(line) <= limit else line[:limit] + "..."
