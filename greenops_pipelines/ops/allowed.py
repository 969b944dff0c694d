"""What a model allows at a place, in words, from its JSON schema: the message cannot disagree with the model.

A pydantic error knows only the rule that failed ("should be a valid number"); an operator wants all of them
("a number >= 1"). Not here: reading files.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from pydantic import BaseModel
from pydantic.errors import PydanticInvalidForJsonSchema

_Schema: TypeAlias = Mapping[str, Any]

_FORMATS = {
    "date": "a date such as 2026-01-31",
    "date-time": "a time such as 2026-01-31T12:00:00Z",
    "time": "a time of day such as '12:00'",
    "duration": "a duration such as PT15M",
}


class Allowed:
    """The words for one model."""

    def __init__(self, model: type[BaseModel]) -> None:
        try:
            self._root: _Schema = model.model_json_schema()
        except PydanticInvalidForJsonSchema:
            self._root = {}

    def at(self, location: Sequence[str | int]) -> str:
        """What may stand at the location; empty where the schema does not say."""
        return self._any(self._schemas(location))

    def fields_at(self, location: Sequence[str | int], instead_of: str) -> str:
        """The fields of the mapping at the location, with the one that was probably meant."""
        fields = [field for schema in self._schemas(location) for field in schema.get("properties", {})]
        return _listed(fields) + _did_you_mean(instead_of, fields)

    def _schemas(self, location: Iterable[str | int]) -> list[_Schema]:
        """The schemas that may apply at the location: several below a union."""
        here = self._members(self._root)
        for step in location:
            below = [found for schema in here for found in self._below(schema, step)]
            # A step that leads nowhere is the name of a union's member.
            here = below or here
        return here

    def _members(self, schema: _Schema) -> list[_Schema]:
        if "$ref" in schema:
            return self._members(self._root["$defs"][schema["$ref"].rsplit("/", 1)[-1]])
        options = schema.get("anyOf") or schema.get("oneOf")
        return [member for option in options for member in self._members(option)] if options else [schema]

    def _below(self, schema: _Schema, step: str | int) -> list[_Schema]:
        if isinstance(step, int):
            prefix = schema.get("prefixItems", ())
            item = prefix[step] if step < len(prefix) else schema.get("items")
        else:
            item = schema.get("properties", {}).get(step, schema.get("additionalProperties"))
        return self._members(item) if isinstance(item, Mapping) else []

    def _any(self, schemas: Iterable[_Schema]) -> str:
        return " or ".join(dict.fromkeys(words for schema in schemas if (words := _words(schema))))


def _words(schema: _Schema) -> str:
    if "const" in schema:
        return _quoted(schema["const"])
    if "enum" in schema:
        return f"one of {_listed(_quoted(value) for value in schema['enum'])}"
    match schema.get("type"):
        case "number":
            return f"a number{_range(schema)}"
        case "integer":
            return f"a whole number{_range(schema)}"
        case "string":
            return _text(schema)
        case "boolean":
            return "true or false"
        case "null":
            return "no value"
        case "array":
            return f"a list{_size(schema, 'minItems', 'maxItems', 'item')}"
        case "object" if fields := schema.get("properties"):
            return f"a mapping with the fields {_listed(fields)}"
        case "object":
            return "a mapping"
    return ""


def _range(schema: _Schema) -> str:
    signs = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {schema[name]:g}" for name, sign in signs.items() if name in schema]
    bounds += [f"a multiple of {schema['multipleOf']:g}"] if "multipleOf" in schema else []
    return f" {' and '.join(bounds)}" if bounds else ""


def _text(schema: _Schema) -> str:
    if schema.get("format") in _FORMATS:
        return _FORMATS[schema["format"]]
    words = f"text{_size(schema, 'minLength', 'maxLength', 'character')}"
    words += f" that matches {schema['pattern']}" if "pattern" in schema else ""
    return words + (f", such as {_listed(schema['examples'])}" if schema.get("examples") else "")


def _size(schema: _Schema, least: str, most: str, unit: str) -> str:
    bounds = [f"at least {schema[least]}"] if schema.get(least) else []
    bounds += [f"at most {schema[most]}"] if most in schema else []
    plural = "" if bounds and bounds[-1].endswith(" 1") else "s"
    return f" of {' and '.join(bounds)} {unit}{plural}" if bounds else ""


def _quoted(value: object) -> str:
    return f"'{value}'" if isinstance(value, str) else str(value).lower()


def _listed(values: Iterable[object]) -> str:
    return ", ".join(dict.fromkeys(str(value) for value in values))


def _did_you_mean(found: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(found, known, n=1)
    return f"; did you mean {close[0]}?" if close else ""
