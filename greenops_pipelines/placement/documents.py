"""A submission as a document: its fields, how it is read, and the line that says what is wrong with it.

Not here: accepting it (`acceptance.py`), the ways in (`submissions.py`), what its fields mean (`requests.py`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from pydantic import Field, ValidationError, field_validator

from greenops_pipelines import strict_json
from greenops_pipelines.errors import BadInput, ConfigurationError
from greenops_pipelines.ops import tree
from greenops_pipelines.ops.allowed import Allowed
from greenops_pipelines.ops.tree import Fault, Location
from greenops_pipelines.placement.requests import Instant, Work
from greenops_pipelines.redaction import one_line

MAX_BYTES = 64 * 1024
"""Of one document; a submission has about 600."""
_OF_DECLARED = re.compile(r"[a-z0-9-]+:\d{4}-\d\d-\d\dT\d\d:\d\dZ")
_PLAIN_VALUES = "allowed: plain values in Unicode"
_NOTHING = object()


class SubmissionRefused(BadInput):
    """The document is at fault, and no later try with it can succeed."""


class UnreadableSubmission(SubmissionRefused):
    """No document can be read from it: it may be one that is still being written."""


class Submission(Work):
    """A document that is submitted: work, once, under a natural key that the submitter chose."""

    key: str = Field(min_length=1, max_length=120, examples=["month-end-2026-11"])
    earliest_start: Instant

    @field_validator("key", mode="after")
    @classmethod
    def _plain(cls, value: str) -> str:
        if not value.isprintable() or value != value.strip():
            raise ValueError("printable text without blanks at its ends")
        if _OF_DECLARED.fullmatch(value):
            raise ValueError("another form than <name>:<time>, which names occurrences of declared workloads")
        return value

    @property
    def deadline(self) -> datetime:
        return self.earliest_start + timedelta(minutes=self.window_minutes)


_ALLOWED = Allowed(Submission)


def read_document(content: bytes, name: str) -> Mapping[str, Any]:
    """The mapping in a file's content: YAML where its name says so, JSON where it does or where it begins with a brace.

    Raises `UnreadableSubmission` where there is none, `SubmissionRefused` for what YAML would let pass in silence.
    """
    if len(content) > MAX_BYTES:
        raise SubmissionRefused(f"{name}: found more than {MAX_BYTES} bytes, allowed: at most that")
    is_yaml = name.endswith((".yaml", ".yml")) or not (name.endswith(".json") or content.lstrip()[:1] == b"{")
    document = _yaml(content, name) if is_yaml else _json(content, name)
    if not isinstance(document, Mapping):
        raise UnreadableSubmission(f"{name}: found no mapping, allowed: the fields of one submission")
    return document


def _json(content: bytes, name: str) -> object:
    try:
        return strict_json.loads(content)
    except ValueError as error:
        raise UnreadableSubmission(f"{name}: found unusable JSON ({error}), allowed: one valid document") from None


def _yaml(content: bytes, name: str) -> object:
    try:
        root = tree.compose(content.decode("utf-8-sig"), name)
        if root is None:
            return None
        document, faults = tree.build(root, name)
    except UnicodeDecodeError as error:
        raise UnreadableSubmission(f"{name}: found the byte 0x{content[error.start]:02x}, allowed: UTF-8") from None
    except ConfigurationError as error:
        raise UnreadableSubmission(str(error)) from None
    if faults:
        raise SubmissionRefused("\n".join(map(str, faults)))
    return document


def checked(document: Mapping[str, Any], place: str) -> Submission:
    """The document as a submission; `SubmissionRefused` with one line per fault, each beginning with `place`."""
    try:
        # Through JSON, as `ops.load` does: strict validation takes a list for a tuple there.
        text = json.dumps(document, default=_jsonable)
    except (TypeError, ValueError, RecursionError) as error:
        reason = one_line(str(error), 80)
        raise SubmissionRefused(f"{place}: found what JSON cannot hold ({reason}), {_PLAIN_VALUES}") from None
    try:
        return Submission.model_validate_json(text)
    except ValidationError as error:
        told = error.errors(include_url=False)
    # Of a list whose items are wrong pydantic says too that it is short of valid ones.
    longer = {detail["loc"][:-1] for detail in told}
    details = [detail for detail in told if detail["type"] != "too_short" or detail["loc"] not in longer]
    plain = json.loads(text)
    raise SubmissionRefused("\n".join(dict.fromkeys(str(_explained(detail, plain, place)) for detail in details)))


def _explained(detail: Any, document: Mapping[str, Any], place: str) -> Fault:
    """The fault behind a pydantic error, in the words of `ops/` files."""
    kind, location = detail["type"], detail["loc"]
    if kind == "json_invalid":
        reason = one_line(str(detail["ctx"]["error"]), 80)
        return Fault(place, None, "", f"found what JSON cannot hold ({reason}), {_PLAIN_VALUES}")
    # A step that is not in the document is the name of a union's member.
    at: Location = ()
    for step in location:
        if _below(document, (*at, step)) is not _NOTHING or (kind == "missing" and step == location[-1]):
            at = (*at, step)
    if kind in ("value_error", "assertion_error"):
        words = str(detail["msg"]).split(", ", 1)[-1]
        found = _below(document, at)
        text = words if isinstance(found, Mapping) else f"found {_shown(found)}, allowed: {words}"
        return Fault(place, None, tree.shown_location(at) if at else "", text)
    if kind == "missing":
        return Fault(place, None, tree.shown_location(at), f"found nothing, allowed: {_ALLOWED.at(location)}")
    if kind == "extra_forbidden":
        allowed = _ALLOWED.fields_at(location[:-1], instead_of=str(location[-1]))
        return Fault(place, None, tree.shown_location(at), f"found an unknown field, allowed: {allowed}")
    return fault(place, document, at, _ALLOWED.at(location) or str(detail["msg"]))


def fault(place: str, document: Mapping[str, Any], at: Location, allowed: str) -> Fault:
    """What stands in the document at `at` is well-formed and still wrong."""
    return Fault(place, None, tree.shown_location(at), f"found {_shown(_below(document, at))}, allowed: {allowed}")


def _below(value: Any, at: Location) -> Any:
    for step in at:
        if isinstance(value, list | tuple):
            value = dict(enumerate(value))
        if not isinstance(value, Mapping) or step not in value:
            return _NOTHING
        value = value[step]
    return value


def _shown(value: Any) -> str:
    """As `tree.shown_value` shows what stands in a file."""
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list" if value else "an empty list"
    if value is None or value is _NOTHING:
        return "no value"
    return tree.clip(str(value).lower() if isinstance(value, bool) else repr(value))


def _jsonable(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__}")
