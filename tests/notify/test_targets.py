"""What a webhook, PagerDuty and a mail relay are sent, what each answer means, and what never shows."""

from __future__ import annotations

import json
import logging
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from greenops_pipelines.errors import ConfigurationError, GreenopsError
from greenops_pipelines.notify.mail import Mail
from greenops_pipelines.notify.message import Message, from_json, headline, plain
from greenops_pipelines.notify.opening import Misconfigured, targets
from greenops_pipelines.notify.pagerduty import PagerDuty, dedup_key, event
from greenops_pipelines.notify.posting import NotSent, Refused, SentPerhaps
from greenops_pipelines.notify.slack import Slack, payload
from greenops_pipelines.redaction import redact
from tests.notify.conftest import say
from tests.notify.servers import BrokenTls, PostServer, SmtpServer

PATH = "/services/T0SECRET1/B0SECRET2/xyzSECRETxyz"
KEY = "0123456789abcdefSECRET9876543210"
SHORT = (0.3, 0.3)


def slack(server: PostServer) -> Slack:
    return Slack(SecretStr(server.url + PATH), timeout=SHORT)


def pagerduty(server: PostServer) -> PagerDuty:
    return PagerDuty(SecretStr(KEY), server.url, timeout=SHORT)


def test_a_message_survives_its_json() -> None:
    assert from_json(say("a").as_json()) == say("a")


def test_a_webhook_is_sent_a_header_the_text_and_the_links(server: PostServer) -> None:
    server.answer()
    assert slack(server).send([say("a", text="p99 < 2 & <!channel> woke")]) == "ok"
    [post] = server.posts
    assert (post.path, post.headers["content-type"]) == (PATH, "application/json; charset=utf-8")
    assert post.body == {
        "text": "CRITICAL a burns",
        "blocks": [
            {"type": "header", "text": {"type": "plain_text", "text": "CRITICAL a burns"}},
            {"type": "section", "text": {"type": "mrkdwn", "text": "p99 &lt; 2 &amp; &lt;!channel&gt; woke"}},
            {
                "type": "context",
                "elements": [
                    {
                        "type": "mrkdwn",
                        "text": "api-gateway · team platform · <https://runbooks.example/slo#api|runbook>",
                    }
                ],
            },
        ],
    }


def test_many_messages_stay_within_the_limits_of_blocks() -> None:
    found = payload([say(f"{n}", title="t" * 400, text="&" * 5000, service=f"s{n}") for n in range(40)])
    blocks = found["blocks"]
    assert found["text"] == "s0, s1, s10, s11, s12 and 35 more: 40 triggered, 0 resolved"
    # A header, 9 in full with a footer each, and the titles.
    assert len(blocks) == 20
    assert len(json.dumps(found)) < 13_000
    assert len(blocks[0]["text"]["text"]) <= 150
    *in_full, titles = [block["text"]["text"] for block in blocks if block["type"] == "section"]
    assert max(map(len, in_full)) <= 830
    # 31 titles of 130 characters: 20 of them fit into 2,700 characters.
    assert titles.splitlines()[0] == f"CRITICAL {'t' * 120}…"
    assert titles.splitlines()[20:] == ["and 11 more"]


def test_a_page_among_many_warnings_is_said_first_and_the_rest_by_title() -> None:
    warnings = [say(f"w{n}", severity="warning", service=f"s{n}") for n in range(12)]
    found = payload([*warnings, say("end", action="resolve"), say("outage")])
    sections = [block["text"]["text"] for block in found["blocks"] if block["type"] == "section"]
    assert sections[0].startswith("*CRITICAL outage burns*\n37 x")
    assert sections[1:10] == [f"*WARNING w{n} burns*\n37 x" for n in range(9)]
    assert sections[10] == "WARNING w9 burns\nWARNING w10 burns\nWARNING w11 burns\nRESOLVED end burns"
    assert found["text"] == "api-gateway, s0, s1, s10, s11 and 8 more: 13 triggered (1 critical), 1 resolved"


def test_long_links_are_left_out_whole_and_all_of_it_stays_within_the_limit() -> None:
    links = {"dashboard": "https://a.example/?q=" + "&" * 300, "runbook": "https://b.example/#x"}
    [_, _, footer] = payload([say("a", links=links)])["blocks"]
    assert footer["elements"][0]["text"] == "api-gateway · team platform · <https://b.example/#x|runbook>"
    many = {f"l{n}": "https://a.example/" + "x" * 900 for n in range(5)}
    found = payload([say(f"{n}", text="t" * 5000, title="t" * 400, links=many) for n in range(40)])
    assert len(json.dumps(found)) < 13_000
    assert all(f"l{n}>" in str(found["blocks"][2]) for n in range(2))
    assert len(found["blocks"][2]["elements"][0]["text"]) < 3000


def test_who_has_no_team_is_said_without() -> None:
    [_, _, footer] = payload([say("a", team="", links={})])["blocks"]
    assert footer["elements"][0]["text"] == "api-gateway"
    assert plain([say("a", team="", links={})]) == "CRITICAL a burns\n37 x"


def test_sample_data_is_called_that_wherever_it_is_said() -> None:
    sample, real = say("a", details={"source": "sample"}), say("b", details={"source": "prometheus"})
    found = payload([sample])
    assert found["text"] == "CRITICAL [sample data] a burns"
    assert found["blocks"][0]["text"]["text"] == "CRITICAL [sample data] a burns"
    assert plain([sample]).startswith("CRITICAL [sample data] a burns\n37 x\n")
    assert event(sample)["payload"]["summary"] == "[sample data] a burns"
    assert "sample" not in str(payload([real])) + plain([real]) + str(event(real))
    assert headline([sample, real]) == "api-gateway: 2 triggered, 0 resolved, 1 of sample data"
    assert headline([sample, sample]) == "[sample data] api-gateway: 2 triggered, 0 resolved"
    assert "*CRITICAL [sample data] a burns*" in str(payload([sample, real]))


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (429, "rate_limited", NotSent),
        (500, "rollup_error", NotSent),
        (500, "<h1>Server Error</h1>", SentPerhaps),
        (503, "", NotSent),
        (502, "", SentPerhaps),
        (504, "", SentPerhaps),
        (400, "invalid_payload", Refused),
        (404, "no_service", Refused),
        (302, "", Refused),
        (200, "<html>log in</html>", Refused),
        (200, '{"ok": false}', Refused),
    ],
)
def test_what_a_webhooks_answer_means(server: PostServer, status: int, body: str, kind: type[Exception]) -> None:
    server.answer(status, body, Location="http://elsewhere.example/")
    with pytest.raises(GreenopsError) as raised:
        slack(server).send([say("a")])
    assert type(raised.value) is kind
    assert str(raised.value).startswith(f"slack (127.0.0.1): answered {status}")
    assert len(server.posts) == 1


@pytest.mark.parametrize("body", ["ok", "", '{"ok": true}', '{"success":true}'])
def test_what_compatible_webhooks_answer(server: PostServer, body: str) -> None:
    server.answer(200, body)
    assert slack(server).send([say("a")]) == "ok"


def test_retry_after_is_handed_on(server: PostServer) -> None:
    server.answer(429, "", Retry_After="17")
    with pytest.raises(NotSent) as raised:
        slack(server).send([say("a")])
    assert raised.value.retry_after_seconds == 17


def test_an_answer_that_breaks_off_or_never_comes_leaves_it_unknown(server: PostServer) -> None:
    server.answer(200, "o", declared_bytes=2)
    server.hang_up()
    server.hang()
    for words in ("answered 200, and broke off", "the connection failed", "no answer within the read timeout"):
        with pytest.raises(SentPerhaps, match=words):
            slack(server).send([say("a")])
    assert len(server.posts) == 3


def test_a_connection_that_never_came_about_sent_nothing() -> None:
    server = PostServer()
    server.close()
    for target in (slack(server), pagerduty(server)):
        with pytest.raises(NotSent, match=r"\(127.0.0.1\): the connection failed"):
            target.send([say("a")])


@pytest.fixture
def broken(certificate: Path) -> Iterator[BrokenTls]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server = BrokenTls(context)
    yield server
    server.close()


def test_tls_that_breaks_while_the_answer_is_awaited_leaves_it_unknown(
    broken: BrokenTls, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("requests.adapters.DEFAULT_CA_BUNDLE_PATH", str(certificate))
    with pytest.raises(SentPerhaps, match=r"^slack \(localhost\): TLS failed \([A-Z_]+\)$"):
        Slack(SecretStr(broken.url + PATH)).send([say("a")])
    assert len(broken.posts) == 1


def test_tls_that_does_not_come_about_sent_nothing(broken: BrokenTls, server: PostServer) -> None:
    with pytest.raises(
        NotSent, match=r"^slack \(localhost\): its certificate is not trusted \(self.signed certificate\)$"
    ):
        Slack(SecretStr(broken.url + PATH)).send([say("a")])
    with pytest.raises(NotSent, match=r"^slack \(127.0.0.1\): TLS failed \(WRONG_VERSION_NUMBER\)$"):
        Slack(SecretStr(server.url.replace("http:", "https:") + PATH)).send([say("a")])
    assert (broken.posts, server.posts) == ([], [])


def test_pagerduty_is_sent_an_event(server: PostServer) -> None:
    server.answer(202, '{"status":"success","message":"Event processed","dedup_key":"a"}')
    assert pagerduty(server).send([say("a", at=datetime(2026, 3, 2, 11, tzinfo=UTC))]) == "accepted"
    [post] = server.posts
    assert post.path == "/v2/enqueue"
    assert post.body == {
        "routing_key": KEY,
        "event_action": "trigger",
        "dedup_key": "a",
        "client": "greenops",
        "links": [{"href": "https://runbooks.example/slo#api", "text": "runbook"}],
        "payload": {
            "summary": "a burns",
            "source": "api-gateway",
            "severity": "critical",
            "timestamp": "2026-03-02T11:00:00.000+00:00",
            "component": "availability",
            "group": "api-gateway",
            "class": "burn",
            "custom_details": {"text": "37 x", "team": "platform", "burn": 37.5},
        },
    }


def test_pagerduty_is_sent_a_resolve_under_the_same_key(server: PostServer) -> None:
    server.answer(202, "{}")
    pagerduty(server).send([say("a:resolve", dedup_key="a", action="resolve")])
    assert server.posts[0].body == {"routing_key": KEY, "event_action": "resolve", "dedup_key": "a"}


def test_pagerdutys_limits_are_kept(server: PostServer) -> None:
    server.answer(202, "{}")
    long = "k" * 300
    pagerduty(server).send([say(long, title="t" * 2000), say("k" * 255)])
    assert len(server.posts[0].body["payload"]["summary"]) == 1024
    assert len(server.posts[0].body["dedup_key"]) == 255
    assert server.posts[1].body["dedup_key"] == "k" * 255
    assert dedup_key(long) != dedup_key(long + "x")


@pytest.mark.parametrize(
    ("status", "kind"), [(429, NotSent), (500, NotSent), (502, SentPerhaps), (400, Refused), (200, Refused)]
)
def test_what_pagerdutys_answer_means(server: PostServer, status: int, kind: type[Exception]) -> None:
    server.answer(status, '{"status":"invalid event"}')
    with pytest.raises(GreenopsError) as raised:
        pagerduty(server).send([say("a")])
    assert type(raised.value) is kind


@pytest.mark.parametrize(
    "wrong",
    [
        {"slack_url": "hooks.slack.com/services/SECRET"},
        {"slack_url": "http://hooks.slack.com/services/SECRET"},
        {"slack_url": "https://user:SECRET@hooks.slack.com/x"},
        {"slack_url": "https://[SECRET"},
        {"pagerduty_key": "SECRET"},
        {"mail_url": "smtp://u:SECRET@relay.example"},
        {"mail_url": "smtp://u:SECRET@relay.example/?from=a@b.example"},
        {"mail_url": "smtp://u:SECRET@relay.example/?from=a&to=b@c.example"},
        {"mail_url": "smtp://u:SECRET@relay.example/?from=a@b.example&to=b@c.example%0D%0ARCPT"},
        {"mail_url": "smtp://u:SECRET@relay.example:99999/?from=a@b.example&to=b@c.example"},
    ],
)
def test_a_wrong_setting_names_its_variable_and_shows_nothing(wrong: dict[str, str]) -> None:
    [found] = targets(**{name: SecretStr(value) for name, value in wrong.items()})
    [name] = wrong
    assert isinstance(found, Misconfigured)
    assert found.name == name.partition("_")[0]
    with pytest.raises(Refused) as raised:
        found.send([say("a")])
    assert str(raised.value).startswith(f"GREENOPS_NOTIFY_{name.upper()}: found (hidden), allowed: ")
    assert str(raised.value) == found.fault
    assert "SECRET" not in str(raised.value) + repr(found)


@pytest.mark.parametrize("kind", [Slack, PagerDuty, Mail])
def test_each_kind_alone_says_that_its_setting_is_wrong(kind: type[Slack]) -> None:
    with pytest.raises(ConfigurationError, match=r"found \(hidden\)"):
        kind(SecretStr("SECRET"))


def test_a_wrong_address_of_pagerduty_is_pagerdutys_fault() -> None:
    [found] = targets(pagerduty_key=SecretStr(KEY), pagerduty_url="ftp://x")
    assert isinstance(found, Misconfigured)
    assert (found.name, found.groups) == ("pagerduty", False)
    assert found.fault.startswith("GREENOPS_NOTIFY_PAGERDUTY_URL: found (hidden)")


@pytest.mark.parametrize(
    "url",
    [
        "https://hooks.slack.com/services/T01234567/B01234567/abcdEFGH0123",
        "https://discord.example/api/webhooks/123456789012345678/to-ken_ABC/slack",
        "https://chat.example/severity/component/notifications/abcdefghijklmnopqrstuvwxyz",
        "https://flow.example/workflows/manual?sig=abcd0123efgh&version=1",
    ],
)
def test_tokens_of_an_address_are_secret_and_its_words_are_not(url: str) -> None:
    Slack(SecretStr(url))
    words = "3 services, webhooks, workflows; severity, component, notifications; k8s/services.yaml, shared-services"
    assert redact(words) == words
    path, _, query = url.partition("?")
    [longest] = sorted(path.split("/")[3:], key=len)[-1:]
    token = query.partition("=")[2].partition("&")[0] or longest
    assert redact(f"no {token} here") == "no *** here"
    assert redact(f"POST {url}") == "POST ***"


def test_only_what_is_configured_is_a_target() -> None:
    assert targets() == ()
    found = targets(SecretStr("https://hooks.slack.com/services/x"), SecretStr(KEY))
    assert [target.name for target in found] == ["pagerduty", "slack"]
    assert repr(found) == "(PagerDuty(pagerduty (events.pagerduty.com)), Slack(slack (hooks.slack.com)))"


def test_no_secret_is_in_an_error_or_a_log(server: PostServer, caplog: pytest.LogCaptureFixture) -> None:
    """The server quotes path and key back; urllib3 logs whole paths at DEBUG."""
    caplog.set_level(logging.DEBUG)
    server.answer(404, f"{PATH} xyzSECRETxyz {KEY} unknown")
    for target in (slack(server), pagerduty(server)):
        with pytest.raises(Refused) as raised:
            target.send([say("a")])
        assert "unknown" in str(raised.value)
        assert "SECRET" not in str(raised.value) + repr(raised.value.__cause__) + repr(raised.value.__context__)
    assert "SECRET" not in repr(targets(SecretStr(server.url + PATH), SecretStr(KEY)))
    assert "POST" in caplog.text
    assert "SECRET" not in caplog.text


@pytest.fixture
def smtp() -> Iterator[SmtpServer]:
    server = SmtpServer()
    yield server
    server.close()


def relay(server: SmtpServer, host: str = "127.0.0.1", **more: object) -> Mail:
    url = f"smtp://user:pass%2FSECRET@{host}:{server.port}/?from=greenops@a.example&to=b@c.example,d@c.example"
    return Mail(SecretStr(url), timeout_seconds=1.0, **more)  # type: ignore[arg-type]


def test_a_mail_says_it_in_plain_text(smtp: SmtpServer) -> None:
    assert relay(smtp).send([say("a")]) == "accepted"
    [mail] = smtp.mails
    assert "Subject: CRITICAL a burns\r\n" in mail
    assert "To: b@c.example, d@c.example\r\n" in mail
    assert mail.endswith("37 x\r\nTeam: platform\r\nrunbook: https://runbooks.example/slo#api\r\n")
    assert smtp.verbs == ["EHLO", "AUTH", "MAIL", "RCPT", "RCPT", "DATA", "QUIT"]


def test_a_mail_is_seven_bits(smtp: SmtpServer) -> None:
    relay(smtp).send([say("a", text="größer als 14,4", title="ü")])
    assert smtp.mails[0].isascii()
    assert "gr=C3=B6=C3=9Fer" in smtp.mails[0] or "base64" in smtp.mails[0]


@pytest.mark.parametrize("answer", [421, 554, 0])
def test_a_mail_that_was_taken_is_taken_whatever_the_goodbye(smtp: SmtpServer, answer: int) -> None:
    smtp.codes = {"QUIT": answer}
    assert relay(smtp).send([say("a")]) == "accepted"
    assert (len(smtp.mails), smtp.verbs[-1]) == (1, "QUIT")


def test_a_goodbye_does_not_hide_why_a_mail_was_not_sent(smtp: SmtpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    smtp.codes = {"MAIL": 550, "QUIT": 421}
    with pytest.raises(Refused, match="answered 550"):
        relay(smtp).send([say("a")])
    monkeypatch.setattr("greenops_pipelines.notify.mail.LOOPBACK", ())
    with pytest.raises(Refused, match="offers no STARTTLS"):
        relay(smtp).send([say("a")])


def test_a_relay_that_is_slow_at_every_command_ends_before_the_text(smtp: SmtpServer) -> None:
    with pytest.raises(NotSent, match="TimeoutError"):
        relay(smtp, total_seconds=0.0).send([say("a")])
    assert smtp.mails == []


def test_a_title_cannot_add_a_header(smtp: SmtpServer) -> None:
    relay(smtp).send([say("a", title="x\r\nBcc: all@c.example")])
    assert "Subject: CRITICAL x Bcc: all@c.example\r\n" in smtp.mails[0]


@pytest.mark.parametrize(
    ("codes", "kind"),
    [
        ({"MAIL": 451}, NotSent),
        ({"MAIL": 550}, Refused),
        ({"RCPT": 450}, NotSent),
        ({"RCPT": 550}, Refused),
        ({"AUTH": 535}, Refused),
        ({"RCPT": 0}, NotSent),
        ({"DATA.": 452}, NotSent),
        ({"DATA.": 554}, Refused),
        ({"DATA.": 0}, SentPerhaps),
    ],
)
def test_what_a_relays_answer_means(smtp: SmtpServer, codes: dict[str, int], kind: type[Exception]) -> None:
    smtp.codes = codes
    with pytest.raises(GreenopsError) as raised:
        relay(smtp).send([say("a")])
    assert type(raised.value) is kind
    assert str(raised.value).startswith("mail (127.0.0.1): ")
    assert "SECRET" not in str(raised.value)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + private)
    return path


def test_starttls_is_used_where_it_is_offered_and_the_certificate_is_checked(certificate: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server = SmtpServer(context)
    try:
        trusting = ssl.create_default_context(cafile=str(certificate))
        assert relay(server, "localhost", context=trusting).send([say("a")]) == "accepted"
        assert server.verbs[:4] == ["EHLO", "STARTTLS", "EHLO over TLS", "AUTH over TLS"]
        with pytest.raises(NotSent, match="SSLCertVerificationError"):
            relay(server, "localhost").send([say("a")])
    finally:
        server.close()
    assert len(server.mails) == 1


def test_a_password_is_not_sent_in_the_clear(smtp: SmtpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    # The name of another machine that leads here: what is refused must be the name, not where it leads.
    monkeypatch.setattr("greenops_pipelines.notify.mail.LOOPBACK", ())
    with pytest.raises(Refused, match="offers no STARTTLS, and a password is not sent in the clear"):
        relay(smtp).send([say("a")])
    assert smtp.verbs == ["EHLO", "QUIT"]


def test_messages_of_a_summary_are_all_named(smtp: SmtpServer) -> None:
    several: list[Message] = [say("a"), say("b", service="cockpit", action="resolve")]
    relay(smtp).send(several)
    assert "Subject: api-gateway, cockpit: 1 triggered, 1 resolved\r\n" in smtp.mails[0]
    assert "CRITICAL a burns" in smtp.mails[0]
    assert "RESOLVED b burns" in smtp.mails[0]
