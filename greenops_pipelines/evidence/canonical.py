"""Canonical JSON (RFC 8785), the one spelling of a document: what is signed has no second form. Not here: its meaning."""

from __future__ import annotations

from typing import Any

import rfc8785

from greenops_pipelines import strict_json


def dumps(value: Any) -> bytes:
    """The one spelling of `value`.

    Raises `ValueError` for what JSON cannot carry without loss: NaN, an integer beyond 2^53, a lone surrogate.
    """
    try:
        return rfc8785.dumps(value)
    except rfc8785.CanonicalizationError as error:
        raise ValueError(str(error)) from error
    except UnicodeEncodeError as error:
        raise ValueError("text with half a surrogate pair") from error


def loads(document: bytes) -> Any:
    """The parsed document; `ValueError` where it is not strict JSON, or is spelled in another way than `dumps` would."""
    value = strict_json.loads(document)
    if dumps(value) != document:
        raise ValueError("not in the canonical form (RFC 8785)")
    return value
