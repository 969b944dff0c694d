"""What an operator configured -> whom messages go to. Without any of it, nothing is sent: dry run."""

from __future__ import annotations

from pydantic import SecretStr

from greenops_pipelines.notify.mail import Mail
from greenops_pipelines.notify.pagerduty import URL, PagerDuty
from greenops_pipelines.notify.posting import Target
from greenops_pipelines.notify.slack import Slack

_NONE = SecretStr("")


def targets(
    slack_url: SecretStr = _NONE,
    pagerduty_key: SecretStr = _NONE,
    mail_url: SecretStr = _NONE,
    *,
    pagerduty_url: str = URL,
    per_hour: int = 30,
) -> tuple[Target, ...]:
    """The targets of GREENOPS_NOTIFY_SLACK_URL, _PAGERDUTY_KEY and _MAIL_URL; none of those that are empty.

    `per_hour` bounds webhook and mail. `ConfigurationError` names the variable, and not what stands in it.
    """
    found: list[Target] = []
    if pagerduty_key.get_secret_value():
        found.append(PagerDuty(pagerduty_key, pagerduty_url))
    if slack_url.get_secret_value():
        found.append(Slack(slack_url, per_hour))
    if mail_url.get_secret_value():
        found.append(Mail(mail_url, per_hour))
    return tuple(found)
