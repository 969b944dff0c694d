"""Mail through a relay: STARTTLS where it is offered, and no password without it. Not here: addresses per team."""

from __future__ import annotations

import smtplib
import ssl
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email import policy
from email.message import EmailMessage
from email.utils import format_datetime, make_msgid
from urllib.parse import parse_qs, unquote, urlsplit

from pydantic import SecretStr

from greenops_pipelines.errors import ConfigurationError
from greenops_pipelines.notify.message import Message, headline, plain
from greenops_pipelines.notify.posting import LOOPBACK, NotSent, Refused, SentPerhaps
from greenops_pipelines.redaction import one_line, reveal

VARIABLE = "GREENOPS_NOTIFY_MAIL_URL"
_SEVEN_BITS = policy.SMTP.clone(cte_type="7bit")
"""Every relay takes it; 8 bits are an extension."""
_QUIT_SECONDS = 2.0
_ALLOWED = "smtp://[user:password@]host[:port]/?from=address&to=address[,address]"


@dataclass(frozen=True)
class _Relay:
    host: str
    port: int
    user: str
    password: SecretStr = field(repr=False)
    sender: str
    receivers: tuple[str, ...]


class Mail:
    """One relay and whom it writes to. A second mail would be a second alert, so nothing is sent twice."""

    name = "mail"
    asks_again = False
    groups = True

    def __init__(
        self,
        url: SecretStr,
        per_hour: int = 30,
        timeout_seconds: float = 10.0,
        context: ssl.SSLContext | None = None,
        total_seconds: float = 25.0,
    ) -> None:
        """Timeouts: of each answer, and after which no command is begun any more."""
        self.per_hour: int | None = per_hour
        self._relay = _parsed(url)
        self._timeout_seconds = timeout_seconds
        self._context = context
        self._total_seconds = total_seconds

    def __repr__(self) -> str:
        return f"Mail({self._shown})"

    @property
    def _shown(self) -> str:
        return f"{self.name} ({self._relay.host})"

    def send(self, messages: Sequence[Message]) -> str:
        """All of them in one mail."""
        text = self._letter(messages).as_bytes(policy=_SEVEN_BITS)
        deadline = time.monotonic() + self._total_seconds
        smtp: smtplib.SMTP | None = None
        fault: NotSent | SentPerhaps | Refused | None = None
        refused: list[str] = []
        is_handed_over = False
        try:
            smtp = smtplib.SMTP(self._relay.host, self._relay.port, timeout=self._timeout_seconds)
            self._greet(smtp, deadline)
            refused = self._address(smtp, deadline)
            is_handed_over = True
            code, said = smtp.data(text)
            if code != 250:
                raise smtplib.SMTPDataError(code, said)
        except smtplib.SMTPResponseException as error:
            # An answer: it was not taken. 4xx is for now, 5xx for good (RFC 5321, 4.2.1).
            kind = NotSent if 400 <= error.smtp_code < 500 else Refused
            fault = kind(f"{self._shown}: answered {error.smtp_code}: {_words(error.smtp_error)}")
        except (smtplib.SMTPException, OSError) as error:
            lost = SentPerhaps if is_handed_over else NotSent
            fault = lost(f"{self._shown}: the connection failed ({type(error).__name__})")
        finally:
            if smtp is not None:
                _leave(smtp)
        if fault is not None:
            raise fault
        return "accepted" + (f", not for {len(refused)} of {len(self._relay.receivers)} addresses" if refused else "")

    def _greet(self, smtp: smtplib.SMTP, deadline: float) -> None:
        smtp.ehlo_or_helo_if_needed()
        _in_time(deadline)
        is_private = self._relay.host in LOOPBACK
        if smtp.has_extn("starttls"):
            smtp.starttls(context=self._context or ssl.create_default_context())
            smtp.ehlo()
            is_private = True
        _in_time(deadline)
        if self._relay.user:
            if not is_private:
                raise Refused(f"{self._shown}: offers no STARTTLS, and a password is not sent in the clear")
            smtp.login(self._relay.user, reveal(self._relay.password))

    def _address(self, smtp: smtplib.SMTP, deadline: float) -> list[str]:
        """Names sender and receivers; those that were refused while others were not."""
        code, said = smtp.mail(self._relay.sender)
        if code != 250:
            raise smtplib.SMTPResponseException(code, said)
        refused = []
        for receiver in self._relay.receivers:
            _in_time(deadline)
            code, said = smtp.rcpt(receiver)
            if code not in (250, 251):
                refused.append(receiver)
        if len(refused) == len(self._relay.receivers):
            raise smtplib.SMTPResponseException(code, said)
        _in_time(deadline)
        return refused

    def _letter(self, messages: Sequence[Message]) -> EmailMessage:
        letter = EmailMessage()
        letter["From"] = self._relay.sender
        letter["To"] = ", ".join(self._relay.receivers)
        letter["Subject"] = one_line(headline(messages), 200)
        letter["Date"] = format_datetime(datetime.now(UTC))
        letter["Message-ID"] = make_msgid(domain="greenops.invalid")
        letter["Auto-Submitted"] = "auto-generated"  # RFC 3834: no holiday notes in return
        letter.set_content(plain(messages))
        return letter


def _in_time(deadline: float) -> None:
    if time.monotonic() >= deadline:
        raise TimeoutError


def _leave(smtp: smtplib.SMTP) -> None:
    """Says goodbye, whatever the answer: what became of the mail was said when its text was."""
    with suppress(smtplib.SMTPException, OSError):
        if smtp.sock is not None:
            smtp.sock.settimeout(_QUIT_SECONDS)
        smtp.quit()
    smtp.close()


def _words(said: bytes | str) -> str:
    return one_line(said.decode("utf-8", "replace") if isinstance(said, bytes) else said, 120)


def _parsed(url: SecretStr) -> _Relay:
    fault, relay = False, None
    try:
        parts = urlsplit(url.get_secret_value().strip())
        query = parse_qs(parts.query, strict_parsing=True)
        receivers = tuple(filter(None, (a.strip() for each in query.pop("to") for a in each.split(","))))
        [sender] = query.pop("from")
        relay = _Relay(
            parts.hostname or "",
            parts.port or 25,
            unquote(parts.username or ""),
            SecretStr(unquote(parts.password or "")),
            sender,
            receivers,
        )
        fault = bool(query) or parts.scheme != "smtp" or not relay.host or not receivers
        # A line break in an address would be a command of its own.
        fault = fault or not all("@" in a and a.isprintable() and " " not in a for a in (sender, *receivers))
    except (ValueError, KeyError):
        fault = True
    if fault or relay is None:
        raise ConfigurationError(f"{VARIABLE}: found (hidden), allowed: {_ALLOWED}")
    reveal(url)
    reveal(relay.password)
    return relay
