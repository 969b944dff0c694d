"""JSON as RFC 8259 means it: no NaN, no infinity, no key twice. Not here: where it comes from, what it means."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn


class TruncatedJsonError(ValueError):
    """The document stops in the middle: a transfer broke off, and another one may not."""


def loads(document: bytes) -> object:
    """The parsed document.

    Raises `TruncatedJsonError` where it ends early, else `ValueError` with what is wrong. Python's own parser accepts NaN and
    Infinity, reads 1e999 as infinity, and lets the last of two equal keys win: each would be a silent wrong number.
    """
    text = wrong = ""
    try:
        text = document.decode("utf-8-sig").rstrip()
        return json.loads(
            text, parse_constant=_no_constant, parse_float=_finite_float, object_pairs_hook=_no_duplicates
        )
    except UnicodeDecodeError as error:
        wrong, truncated = f"not UTF-8 at byte {error.start:,}", error.reason == "unexpected end of data"
    except json.JSONDecodeError as error:
        wrong = f"{error.msg} at character {error.pos:,}"
        truncated = error.pos >= len(text) or error.msg.startswith("Unterminated") or text[-1] not in "]}"
    except RecursionError:
        wrong, truncated = "nested too deeply", False
    raise TruncatedJsonError(wrong) if truncated else ValueError(wrong)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number in JSON")


def _finite_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text} is out of range")
    return value


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} stands twice in one object")
    return result
