"""The typed, line-numbered reader of `ops/*.yaml`: what the operator declares, or one clear line per fault.

    ops/regions.yaml:14: regions[2].pue: found 'abc', allowed: a number >= 1

Here: base model, reader, the way from a pydantic error back to its line. `tree.py` holds the strict YAML subset,
`allowed.py` the words for what a model allows. Not here: any particular file's model; those stand with their domain.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from greenops_pipelines.errors import ConfigurationError
from greenops_pipelines.ops import tree
from greenops_pipelines.ops.allowed import Allowed
from greenops_pipelines.ops.tree import Fault, Location

MAX_FAULTS = 20


class OpsModel(BaseModel):
    """Base of all models of `ops/`: unknown fields refused, immutable, no conversions, no NaN and no infinity.

    A quoted "1.35" is not a number and a number is not text. Dates, times, enumerations and tuples are read from
    their usual YAML form; a `Decimal` keeps its digits exactly when written in quotes.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class Document(Generic[M]):
    """A file that fits its model, with the way back to its lines for checks that no model can make alone."""

    file: str
    value: M
    root: yaml.Node

    def fault(self, at: Location, allowed: str) -> Fault:
        """The value at `at`, e.g. ("tenants", 0, "home_region"), is well-formed and still wrong."""
        node, line = self.root, tree.line_of(self.root)
        for step in at:
            node, line = tree.step_down(node, step) or (node, line)
        return Fault(self.file, line, tree.shown_location(at), f"found {tree.shown_value(node)}, allowed: {allowed}")


def read(path: Path, model: type[M]) -> M:
    """The file at `path` as `model`.

    Raises `ConfigurationError` with one line per fault (the first 20), each naming file, line, field, what was
    found and what is allowed.
    """
    return load(path, model).value


def load(path: Path, model: type[M]) -> Document[M]:
    """As `read`, keeping the lines, for cross-checks: see `Document.fault` and `refuse`."""
    file = _shown_path(path)
    allowed = Allowed(model)
    root = tree.compose(tree.text_of(path, file), file)
    if root is None:
        raise ConfigurationError(str(Fault(file, 1, "", f"found an empty file, allowed: {allowed.at(())}")))
    data, faults = tree.build(root, file)
    refuse(faults)
    try:
        # Through JSON: strict validation of JSON takes a list for a tuple and text for a date, as reading YAML
        # must; strict validation of Python objects would want the tuple and the date themselves.
        value = model.model_validate_json(json.dumps(data))
    except ValidationError as error:
        refused = error
    else:
        return Document(file, value, root)
    raise _refusal(_explain(refused, root, file, allowed))


def refuse(faults: Iterable[Fault]) -> None:
    """Raises `ConfigurationError` with one line per fault, in the order of the file; does nothing without any."""
    found = list(faults)
    if found:
        raise _refusal(found)


def _refusal(faults: list[Fault]) -> ConfigurationError:
    ordered = sorted(faults, key=lambda fault: (fault.file, fault.line or 0))
    lines = [str(fault) for fault in ordered[:MAX_FAULTS]]
    if len(ordered) > MAX_FAULTS:
        lines.append(f"... and {len(ordered) - MAX_FAULTS} more")
    return ConfigurationError("\n".join(lines))


def _explain(error: ValidationError, root: yaml.Node, file: str, allowed: Allowed) -> list[Fault]:
    """One fault per place: a union reports one error per member, which read as "this or that" in one line."""
    places: dict[tuple[int, str, str], list[str]] = {}
    details = error.errors(include_url=False)
    for detail in details:
        if detail["type"] == "too_short" and any(_is_below(other["loc"], detail["loc"]) for other in details):
            # pydantic counts the items that were valid: each of the others has its own line already.
            continue
        line, field, found, permitted = _place(detail, root, allowed)
        permitted_here = places.setdefault((line, field, found), [])
        if permitted not in permitted_here:
            permitted_here.append(permitted)
    return [
        Fault(file, line, field, f"found {found}, allowed: {' or '.join(permitted)}" if found else permitted[0])
        for (line, field, found), permitted in places.items()
    ]


def _is_below(location: Location, above: Location) -> bool:
    return len(location) > len(above) and location[: len(above)] == above


def _place(detail: Any, root: yaml.Node, allowed: Allowed) -> tuple[int, str, str, str]:
    """Line, field, what was found, what is allowed; nothing "found" where a validator's own words say it all."""
    kind, location = str(detail["type"]), tuple(detail["loc"])
    node, line = root, tree.line_of(root)
    at: Location = ()
    for position, step in enumerate(location):
        if below := tree.step_down(node, step):
            (node, line), at = below, (*at, step)
        elif kind == "missing" and position == len(location) - 1:
            at = (*at, step)
        # Otherwise the step is the name of a union's member, which stands in the location but not in the file.
    field = tree.shown_location(at)
    if kind in ("value_error", "assertion_error"):
        words = str(detail["msg"]).split(", ", 1)[-1]
        return line, field, tree.shown_value(node) if isinstance(node, yaml.ScalarNode) else "", words
    if kind == "secret":
        return line, field, "a value that is not shown", str(detail["msg"])
    if kind == "missing":
        return line, field, "nothing", allowed.at(location)
    if kind == "extra_forbidden":
        return line, field, "an unknown field", allowed.fields_at(location[:-1], instead_of=str(location[-1]))
    described = allowed.at(location) or str(detail["msg"])
    return line, field, tree.shown_value(node), described + tree.hint(node, described)


def _shown_path(path: Path) -> str:
    """As the operator would type it: relative to the working directory where it lies below."""
    absolute = path.absolute()
    return str(absolute.relative_to(Path.cwd()) if absolute.is_relative_to(Path.cwd()) else absolute)
