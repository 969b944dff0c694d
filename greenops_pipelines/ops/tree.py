"""The strict subset of YAML that `ops/` is written in: text -> nodes with lines -> plain values.

YAML lets much pass in silence: a key given twice, `NO` read as false, `010` as 8 and `10:30` as 630, a tag that
runs code, nine levels of aliases that grow to 387 million values. Each is refused here with its line. Numbers are
decimal; keys are text; merge keys (`<<`) and tags are not taken. Not here: models and validation.
"""

from __future__ import annotations

import math
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import yaml

from greenops_pipelines.errors import ConfigurationError

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 32
MAX_VALUES = 100_000
MAX_DIGITS = 30
_MAX_SHOWN = 60

Location: TypeAlias = tuple[str | int, ...]
Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

_YAML = "tag:yaml.org,2002:"
_TRUTH = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


@dataclass(frozen=True)
class Fault:
    """One thing wrong with one file. `str()` is the line an operator reads."""

    file: str
    line: int | None
    field: str
    text: str

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return ": ".join(part for part in (place, self.field, self.text) if part)


def text_of(path: Path, file: str) -> str:
    """The file's text; raises `ConfigurationError` where there is none, too much, or another encoding."""
    try:
        # A named pipe would block for ever in open().
        if not stat.S_ISREG(path.stat().st_mode):
            raise _refused(file, None, "found something that is not a file, allowed: a YAML file")
        with path.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise _refused(file, None, "found no such file, allowed: a YAML file; create or restore it") from None
    except OSError as error:
        raise _refused(file, None, f"found {error.strerror!r}, allowed: a file that can be read") from None
    if len(content) > MAX_BYTES:
        raise _refused(file, None, f"found more than {MAX_BYTES} bytes, allowed: at most that")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise _refused(file, line, f"found the byte 0x{content[error.start]:02x}, allowed: text in UTF-8") from None


def compose(text: str, file: str) -> yaml.Node | None:
    """The root node, None for an empty document; raises `ConfigurationError` naming the line of a syntax error."""
    try:
        composer = _Composer(text)
        try:
            return composer.get_single_node()
        finally:
            composer.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = " ".join((error.problem or error.context or "").removeprefix("found ").split())
        text = f"found unusable YAML ({problem}), allowed: one valid document, at most {MAX_DEPTH} levels deep"
        raise _refused(file, mark.line + 1 if mark else None, text) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        code = error.character if isinstance(error.character, int) else ord(error.character)
        raise _refused(file, line, f"found the control character U+{code:04X}, allowed: printable text") from None


def build(root: yaml.Node, file: str) -> tuple[Json, list[Fault]]:
    """Plain values of the tree, and everything that YAML would have let pass in silence.

    Raises `ConfigurationError` at once where aliases grow beyond all bounds.
    """
    builder = _Builder(file)
    return builder.build(root, ()), builder.faults


def step_down(node: yaml.Node, step: str | int) -> tuple[yaml.Node, int] | None:
    """The node one step below and the line to name: of an item its own, of a field its key's. None: not there."""
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and 0 <= step < len(node.value):
        return node.value[step], line_of(node.value[step])
    if isinstance(node, yaml.MappingNode):
        return next(((value, line_of(key)) for key, value in node.value if key.value == step), None)
    return None


def line_of(node: yaml.Node) -> int:
    """Line of the node's first character, from 1."""
    return int(node.start_mark.line) + 1


def shown_location(at: Location) -> str:
    """As an operator writes it: `regions[2].pue`."""
    shown = ""
    for step in at:
        if isinstance(step, int):
            shown += f"[{step}]"
        elif step.replace("_", "").replace("-", "").isalnum():
            shown += f".{step}" if shown else step
        else:
            shown += f"[{clip(repr(step))}]"
    return shown or "top level"


def shown_value(node: yaml.Node) -> str:
    """What stands in the file, short: text in quotes, other values as written, collections by kind."""
    if isinstance(node, yaml.MappingNode):
        return "a mapping"
    if isinstance(node, yaml.SequenceNode):
        return "a list" if node.value else "an empty list"
    if node.tag == f"{_YAML}null":
        return "no value"
    if node.tag == f"{_YAML}bool" and node.value.lower() not in ("true", "false"):
        return f"{node.value} (in YAML: {str(_TRUTH[node.value.lower()]).lower()})"
    if node.tag in (f"{_YAML}bool", f"{_YAML}int", f"{_YAML}float"):
        return clip(node.value)
    return clip(repr(node.value))


def hint(node: yaml.Node, allowed: str) -> str:
    """What to do about a value whose quotes, or the want of them, made it another type than meant."""
    if not isinstance(node, yaml.ScalarNode):
        return ""
    wants_text = allowed.startswith(("text", "one of", "a date", "a time", "a duration")) or allowed.startswith("'")
    if wants_text and node.tag in (f"{_YAML}bool", f"{_YAML}int", f"{_YAML}float"):
        return "; put it in quotes"
    if node.tag == f"{_YAML}str" and "number" in allowed:
        try:
            number = float(node.value)
        except ValueError:
            return ""
        if math.isfinite(number):
            return "; take the quotes away" if node.style else f"; write {number!r}"
    return ""


def clip(text: str) -> str:
    """At most 60 characters of it, so that one fault stays one line."""
    return text if len(text) <= _MAX_SHOWN else f"{text[: _MAX_SHOWN - 3]}..."


class _Composer(yaml.SafeLoader):
    """Composes nodes and constructs nothing, so that no tag can run code; bounded in depth.

    PyYAML composes recursively: without the bound, a file of brackets ends in RecursionError.
    """

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self._depth > MAX_DEPTH:
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(problem=f"more than {MAX_DEPTH} levels of nesting", problem_mark=mark)
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


class _Builder:
    def __init__(self, file: str) -> None:
        self.file = file
        self.faults: list[Fault] = []
        self._values = 0

    def build(self, node: yaml.Node, at: Location) -> Json:
        self._values += 1
        if self._values > MAX_VALUES:
            raise _refused(self.file, None, f"found over {MAX_VALUES} values, aliases written out, allowed: fewer")
        if len(at) > MAX_DEPTH:
            # What is written out was bounded by the composer: only aliases get here.
            text = f"found aliases over {MAX_DEPTH} levels deep, or one inside itself, allowed: values written out"
            raise _refused(self.file, line_of(node), text)
        if isinstance(node, yaml.MappingNode) and node.tag == f"{_YAML}map":
            return self._mapping(node, at)
        if isinstance(node, yaml.SequenceNode) and node.tag == f"{_YAML}seq":
            return [self.build(item, (*at, index)) for index, item in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, at)
        self._note_tag(node, at)
        return None

    def _mapping(self, node: yaml.MappingNode, at: Location) -> Json:
        built: dict[str, Json] = {}
        first: dict[str, int] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag not in (f"{_YAML}str", f"{_YAML}timestamp"):
                quotable = isinstance(key, yaml.ScalarNode) and key.tag != f"{_YAML}merge"
                remedy = "text; put it in quotes" if quotable else "text; write the fields out"
                self._note(key, at, f"found {shown_value(key)} as a key, allowed: {remedy}")
            elif key.value in first:
                text = f"found a second time, first in line {first[key.value]}, allowed: once"
                self._note(key, (*at, key.value), text)
            else:
                first[key.value] = line_of(key)
                built[self._text(key, at)] = self.build(value, (*at, key.value))
        return built

    def _scalar(self, node: yaml.ScalarNode, at: Location) -> Json:
        match node.tag.removeprefix(_YAML):
            case "str" | "value" | "timestamp":
                return self._text(node, at)
            case "null":
                return None
            case "bool" if node.value.lower() in _TRUTH:
                return _TRUTH[node.value.lower()]
            case "int" | "float":
                return self._number(node, at)
        self._note_tag(node, at)
        return None

    def _text(self, node: yaml.ScalarNode, at: Location) -> str:
        text = str(node.value)
        if any("\ud800" <= character <= "\udfff" for character in text):
            self._note(node, at, "found half of a surrogate pair, allowed: Unicode text")
        return text

    def _number(self, node: yaml.ScalarNode, at: Location) -> int | float | None:
        digits = str(node.value).replace("_", "")
        unsigned = digits.lstrip("+-")
        if unsigned.isdecimal() and len(unsigned) > MAX_DIGITS:
            self._note(node, at, f"found {len(unsigned)} digits, allowed: at most {MAX_DIGITS}")
            return None
        try:
            if node.tag == f"{_YAML}float":
                number = float(digits)
                if math.isfinite(number):
                    return number
            elif unsigned == "0" or not unsigned.startswith("0"):
                return int(digits)
        except ValueError:
            pass
        self._note(node, at, f"found {clip(node.value)}{_meaning(node)}, allowed: a decimal number, or text in quotes")
        return None

    def _note_tag(self, node: yaml.Node, at: Location) -> None:
        tag = node.tag.replace(_YAML, "!!")
        self._note(node, at, f"found the tag {clip(tag)}, allowed: plain values without a tag")

    def _note(self, node: yaml.Node, at: Location, text: str) -> None:
        self.faults.append(Fault(self.file, line_of(node), shown_location(at), text))


def _meaning(node: yaml.ScalarNode) -> str:
    """What YAML 1.1 makes of `010`, `0x1F` or `10:30`, which is rarely what was meant."""
    try:
        value = yaml.SafeLoader("").construct_object(node)
    except (yaml.YAMLError, ValueError, OverflowError):
        return ""
    return f" (in YAML: {value})" if str(value) != node.value and math.isfinite(value) else ""


def _refused(file: str, line: int | None, text: str) -> ConfigurationError:
    return ConfigurationError(str(Fault(file, line, "", text)))
