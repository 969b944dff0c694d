"""Ports on the loopback interface: a free one, and whether a server answers. Not here: anything off this machine."""

from __future__ import annotations

import http.client
import socket
from urllib.parse import urlsplit

LOOPBACK = "127.0.0.1"


def free_port() -> int:
    """A TCP port on 127.0.0.1 that was free a moment ago.

    Another process may take it before the server binds it; the server then exits and `Child.wait_until` says so.
    Where a server can bind port 0 and tell which it got, prefer that.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def accepts_connections(port: int, host: str = LOOPBACK) -> bool:
    """Whether something listens on the port right now."""
    try:
        with socket.create_connection((host, port), timeout=1):
            return True
    except OSError:
        return False


def answers_http(url: str) -> bool:
    """Whether a GET of the http:// address is answered with a status of 200 to 299 within two seconds."""
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        raise ValueError(f"found {url!r}, allowed: an http:// address")
    connection = http.client.HTTPConnection(parts.hostname, parts.port or 80, timeout=2)
    try:
        connection.request("GET", f"{parts.path or '/'}{'?' + parts.query if parts.query else ''}")
        return 200 <= connection.getresponse().status < 300
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
