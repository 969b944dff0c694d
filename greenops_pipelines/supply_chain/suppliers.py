"""Who supplies a component: taken from the package's own metadata, else from its module path, else from its registry.

Not here: reading files out of images (`layers.py`), and where suppliers stand in a document (`sbom.py`).
"""

from __future__ import annotations

from email.message import Message
from email.parser import HeaderParser


def python_headers(metadata: bytes) -> Message:
    """The fields of METADATA or PKG-INFO (core metadata), without the description below them."""
    head, _, _ = metadata.replace(b"\r\n", b"\n").partition(b"\n\n")
    return HeaderParser().parsestr(head.decode("utf-8", "replace"))
