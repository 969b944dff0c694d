"""What an operator configured -> whom messages go to. Without any of it, nothing is sent: dry run.

A setting that is wrong stops nobody else from being told: it stands for a target that refuses everything, with what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pydantic import SecretStr

from greenops_pipelines.errors import ConfigurationError
from greenops_pipelines.notify.mail import Mail
from greenops_pipelines.notify.message import Message
from greenops_pipelines.notify.pagerduty import URL, PagerDuty
from greenops_pipelines.notify.posting import Refused, Target
from greenops_pipelines.notify.slack import Slack

_NONE = SecretStr("")


class Misconfigured:
    """A target whose setting is wrong. `fault`: variable, and what is allowed. It takes what the right one would take."""

    asks_again = False
    per_hour: int | None = None

    def __init__(self, name: str, groups: bool, fault: str) -> None:
        self.name = name
        self.groups = groups
        self.fault = fault

    def __repr__(self) -> str:
        return f"Misconfigured({self.name})"

    def send(self, messages: Sequence[Message]) -> str:
        """Refuses them."""
        raise Refused(self.fault)


def targets(
    slack_url: SecretStr = _NONE,
    pagerduty_key: SecretStr = _NONE,
    mail_url: SecretStr = _NONE,
    *,
    pagerduty_url: str = URL,
    per_hour: int = 30,
) -> tuple[Target, ...]:
    """The targets of GREENOPS_NOTIFY_SLACK_URL, _PAGERDUTY_KEY and _MAIL_URL; none of those that are empty.

    `per_hour` bounds webhook and mail. A setting that is wrong is a `Misconfigured` one.
    """
    found: list[Target] = []
    if pagerduty_key.get_secret_value():
        found.append(_opened(PagerDuty, lambda: PagerDuty(pagerduty_key, pagerduty_url)))
    if slack_url.get_secret_value():
        found.append(_opened(Slack, lambda: Slack(slack_url, per_hour)))
    if mail_url.get_secret_value():
        found.append(_opened(Mail, lambda: Mail(mail_url, per_hour)))
    return tuple(found)


def _opened(kind: type[PagerDuty] | type[Slack] | type[Mail], make: Callable[[], Target]) -> Target:
    try:
        return make()
    except ConfigurationError as error:
        return Misconfigured(kind.name, kind.groups, str(error))
