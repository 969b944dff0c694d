"""What `docker login` and its helpers left, and what cannot be used of it: never shown."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest

from greenops_pipelines.errors import ConfigurationError
from greenops_pipelines.supply_chain import credentials
from greenops_pipelines.supply_chain.credentials import Credentials, find

HOST = "registry.example.com:5000"
SECRET = "pass:w0rd"  # noqa: S105 - a test's own
ENCODED = base64.b64encode(f"robot:{SECRET}".encode()).decode()


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "config.json"


def found(config: Path, document: Any, registry: str = HOST) -> tuple[str, str] | None:
    config.write_text(json.dumps(document))
    known = find(registry, config)
    assert SECRET not in repr(known)
    return (known.user, known.password.get_secret_value()) if known else None


def helper(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str, name: str = "test") -> Path:
    """A credential helper on PATH that keeps what it was asked."""
    path = folder / f"docker-credential-{name}"
    path.write_text(f'#!/bin/sh\n[ "$1" = get ] || exit 9\ncat > "{folder}/asked"\n{script}\n')
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder / "asked"


def answering(user: str = "robot", secret: str = SECRET) -> str:
    return f"echo '{json.dumps({'ServerURL': 'x', 'Username': user, 'Secret': secret})}'"


@pytest.mark.parametrize("name", [HOST, f"https://{HOST}"])
def test_the_password_is_what_docker_login_wrote(config: Path, name: str) -> None:
    assert found(config, {"auths": {name: {"auth": ENCODED}}}) == ("robot", SECRET)


@pytest.mark.parametrize("name", ["https://index.docker.io/v1/", "docker.io"])
def test_docker_hub_goes_by_its_old_name(config: Path, name: str) -> None:
    assert found(config, {"auths": {name: {"auth": ENCODED}}}, "docker.io") == ("robot", SECRET)


def test_an_identity_token_stands_for_user_and_password(config: Path) -> None:
    assert found(config, {"auths": {HOST: {"auth": ENCODED, "identitytoken": SECRET}}}) == ("<token>", SECRET)
    assert Credentials("<token>", find(HOST, config).password).is_identity_token  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "document",
    [{}, {"auths": {}}, {"auths": None}, {"auths": {HOST: {}}}, {"auths": {"other.example": {"auth": ENCODED}}},
     {"auths": {"registry.example.com": {"auth": ENCODED}}}],
)  # fmt: skip
def test_one_that_is_not_named_has_none(config: Path, document: Any) -> None:
    assert found(config, document) is None


def test_without_the_file_there_are_none(config: Path) -> None:
    assert find(HOST, config) is None


def test_docker_config_names_the_folder(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config.write_text(json.dumps({"auths": {HOST: {"auth": ENCODED}}}))
    monkeypatch.setenv("DOCKER_CONFIG", str(config.parent))
    known = find(HOST)
    assert known is not None
    assert known.user == "robot"


@pytest.mark.parametrize("field", ["credHelpers", "credsStore"])
def test_a_helper_is_asked_as_docker_asks_it(config: Path, monkeypatch: pytest.MonkeyPatch, field: str) -> None:
    asked = helper(config.parent, monkeypatch, answering())
    document = (
        {"credHelpers": {HOST: "test"}} if field == "credHelpers" else {"credsStore": "test", "auths": {HOST: {}}}
    )
    assert found(config, document) == ("robot", SECRET)
    assert asked.read_text() == HOST


def test_a_helper_of_the_registry_goes_before_what_is_written_down(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    helper(config.parent, monkeypatch, answering("helped"))
    document = {"credHelpers": {HOST: "test"}, "auths": {HOST: {"auth": ENCODED}}, "credsStore": "no-such"}
    assert found(config, document) == ("helped", SECRET)


def test_a_helper_that_knows_nothing_is_no_fault(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper(config.parent, monkeypatch, "echo 'credentials not found in native keychain'; exit 1")
    assert found(config, {"credsStore": "test"}) is None


def test_a_helper_sees_none_of_our_secrets(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GREENOPS_TOKEN", SECRET)
    monkeypatch.setenv("AWS_PROFILE", "build")
    helper(config.parent, monkeypatch, f'env > "{config.parent}/env"; {answering()}')
    found(config, {"credsStore": "test"})
    assert SECRET not in (config.parent / "env").read_text()
    assert "AWS_PROFILE=build" in (config.parent / "env").read_text()


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("echo pass:w0rd >&2; exit 3", f"it could not say who we are to {HOST} (exit code 3); run `docker-credential-test"),
        ("echo pass:w0rd", "is no document with Username and Secret"),
        ("echo '[\"pass:w0rd\"]'", "is no document with Username and Secret"),
        ('echo \'{"Username": "x", "Secret": 5}\'', "is no document with Username and Secret"),
        ("exec sleep 60", "no answer for registry.example.com:5000 within 0.2 s"),
    ],
)  # fmt: skip
def test_a_helper_that_fails_is_named_and_not_quoted(
    config: Path, monkeypatch: pytest.MonkeyPatch, script: str, says: str
) -> None:
    monkeypatch.setattr(credentials, "_HELPER_SECONDS", 0.2)
    helper(config.parent, monkeypatch, script)
    with pytest.raises(ConfigurationError) as refused:
        found(config, {"credsStore": "test"})
    assert str(refused.value).startswith("docker-credential-test: ")
    assert says in str(refused.value)
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({"auths": {HOST: {"auth": "pass:w0rd"}}}, f"auths[{HOST!r}].auth is no base64 of user:password; run `docker login`"),
        ({"auths": {HOST: {"auth": base64.b64encode(b"pass w0rd").decode()}}}, "is no base64 of user:password"),
        ({"credHelpers": {HOST: "../../bin/sh"}}, "found the credential helper '../../bin/sh', allowed: letters"),
        ({"credHelpers": {HOST: 5}}, "found the credential helper '5', allowed: letters"),
        ({"credsStore": "no-such-helper"}, "docker-credential-no-such-helper: found no such program on PATH"),
        ({"auths": ["pass:w0rd"]}, "auths: found no object"),
        ({"credHelpers": "x"}, "credHelpers: found no object"),
        (["pass:w0rd"], "found no object, allowed: what `docker login` writes"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_named_and_not_quoted(config: Path, document: Any, says: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        found(config, document)
    assert says in str(refused.value)
    assert "w0rd" not in str(refused.value)


@pytest.mark.parametrize("data", [b"", b'{"auths": {"x": "pass:w0rd"', b"\xff\xfe pass:w0rd"])
def test_a_file_that_is_no_json_is_named_and_not_quoted(config: Path, data: bytes) -> None:
    config.write_bytes(data)
    with pytest.raises(ConfigurationError) as refused:
        find(HOST, config)
    assert str(refused.value) == f"{config}: cannot be read as JSON; allowed: what `docker login` writes"
    assert refused.value.__cause__ is None
