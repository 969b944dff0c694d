"""Who we are to a registry: what `docker login` and its credential helpers left. Not here: the token dance (`registry.py`)."""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from greenops_pipelines.errors import ConfigurationError
from greenops_pipelines.process.child import base_environment

DOCKER_HUB = "https://index.docker.io/v1/"
_HELPER_SECONDS = 20
_HELPER = re.compile(r"[A-Za-z0-9._-]+")


@dataclass(frozen=True)
class Credentials:
    """A user and a password; or an identity token, which stands for both (user `<token>`)."""

    user: str
    password: SecretStr

    @property
    def is_identity_token(self) -> bool:
        return self.user == "<token>"


def find(registry: str, config: Path | None = None) -> Credentials | None:
    """Those of Docker's config.json (DOCKER_CONFIG, else ~/.docker) for host[:port]; None where it names none."""
    path = config or Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker") / "config.json"
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        # The reason may quote a line of the file, which holds passwords.
        raise ConfigurationError(f"{path}: cannot be read as JSON; allowed: what `docker login` writes") from None
    for field in ("credHelpers", "auths"):
        if not isinstance(document, dict) or not isinstance(document.get(field) or {}, dict):
            raise ConfigurationError(f"{path}: {field}: found no object, allowed: what `docker login` writes")
    names = [DOCKER_HUB, "docker.io"] if registry == "docker.io" else [registry, f"https://{registry}"]
    helpers = document.get("credHelpers") or {}
    for name in names:
        if helper := helpers.get(name):
            return _ask(helper, name)
    auths = document.get("auths") or {}
    for name in names:
        match auths.get(name):
            case {"identitytoken": str(token)} if token:
                return Credentials("<token>", SecretStr(token))
            case {"auth": str(encoded)} if encoded:
                return _decoded(encoded, path, name)
    store = document.get("credsStore")
    return _ask(store, names[0]) if store else None


def _decoded(encoded: str, path: Path, name: str) -> Credentials:
    try:
        user, colon, password = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        user = colon = password = ""
    if not colon:
        raise ConfigurationError(
            f"{path}: auths[{name!r}].auth is no base64 of user:password; run `docker login` again"
        )
    return Credentials(user, SecretStr(password.rstrip("\0")))


def _ask(helper: object, name: str) -> Credentials | None:
    """Docker's protocol of helpers: the registry on stdin, a document on stdout."""
    if not isinstance(helper, str) or not _HELPER.fullmatch(helper):
        raise ConfigurationError(
            f"Docker's config.json: found the credential helper {str(helper)[:40]!r}, allowed: letters, digits and ._-"
        )
    program = f"docker-credential-{helper}"
    environment = base_environment() | {
        k: v for k, v in os.environ.items() if k.startswith(("AWS_", "GOOGLE_", "AZURE_"))
    }
    try:
        done = subprocess.run(
            [program, "get"], input=name.encode(), capture_output=True, timeout=_HELPER_SECONDS, env=environment
        )
    except OSError:
        raise ConfigurationError(
            f"{program}: found no such program on PATH that runs; Docker's config.json names it"
        ) from None
    except subprocess.TimeoutExpired:
        raise ConfigurationError(f"{program}: no answer for {name} within {_HELPER_SECONDS} s") from None
    if done.returncode != 0:
        if b"not found" in (done.stdout + done.stderr).lower():
            return None
        raise ConfigurationError(
            f"{program}: it could not say who we are to {name} (exit code {done.returncode}); "
            f"run `{program} get` by hand with {name} as its input"
        )
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        answer = None  # the reason may quote the secret
    match answer:
        case {"Username": str(user), "Secret": str(secret)}:
            return Credentials(user, SecretStr(secret))
    raise ConfigurationError(f"{program}: its answer for {name} is no document with Username and Secret")
