"""YAML as Go's yaml.v2 reads and writes it, which is what Sloth speaks: YAML 1.1 scalars, and one spelling of each text.

Reading: `on` is true, `010` is 8, `<<` merges, later keys win, unknown fields are the caller's business. Bounded in
size, depth and in what aliases may grow to. Writing: only what a rule file needs, a scalar as a mapping's value; sources:
resolve.go, encode.go and emitterc.go of gopkg.in/yaml.v2 2.4. Not here: the strict YAML of our own `ops/` (`ops/tree.py`).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable
from typing import Any

import yaml

from greenops_pipelines.errors import BadInput

MAX_BYTES = 2 * 1024 * 1024
MAX_DEPTH = 64
MAX_VALUES = 200_000
_BEST_WIDTH = 80
_INDENT_HINT = "2"

_WORDS: dict[str, tuple[str, Any]] = {
    **dict.fromkeys(("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"), ("bool", True)),
    **dict.fromkeys(("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"), ("bool", False)),
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), ("null", None)),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), ("float", float("nan"))),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), ("float", float("inf"))),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), ("float", float("-inf"))),
    "<<": ("merge", "<<"),
}
_INT = re.compile(r"[+-]?(?:0[xX][0-9a-fA-F]+|0[bB][01]+|0[oO][0-7]+|0[0-7]*|[1-9][0-9]*)", re.ASCII)
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", re.ASCII)
_DOT_FLOAT = re.compile(r"\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?", re.ASCII)
_BASE60 = re.compile(r"[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?", re.ASCII)
_TIME = re.compile(
    r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}"
    r"(?:[Tt][0-9]{1,2}:[0-9]{1,2}:[0-9]{1,2}(?:\.[0-9]+)?(?:Z|[+-][0-9]{2}:[0-9]{2})"
    r"| [0-9]{1,2}:[0-9]{1,2}:[0-9]{1,2}(?:\.[0-9]+)?)?",
    re.ASCII,
)


def resolve(text: str) -> tuple[str, Any]:
    """Tag and value of a plain scalar: bool, int, float, null, timestamp, merge, or str."""
    if text in _WORDS:
        return _WORDS[text]
    first = text[0]
    if first == ".":
        return ("float", float(text.replace("_", ""))) if _DOT_FLOAT.fullmatch(text) else ("str", text)
    if not (first.isdecimal() and first.isascii()) and first not in "+-":
        return "str", text
    if _TIME.fullmatch(text):
        return "timestamp", text
    plain = text.replace("_", "")
    if _INT.fullmatch(plain):
        number = _integer(plain)
        if -(2**63) <= number < 2**63 or (number < 2**64 and plain[0] not in "+-"):
            return "int", number
    if _FLOAT.fullmatch(plain):
        value = float(plain)
        if value not in (float("inf"), float("-inf")):
            return "float", value
    return "str", text


def _integer(plain: str) -> int:
    sign, digits = (-1 if plain[0] == "-" else 1), plain.lstrip("+-")
    octal = len(digits) > 1 and digits[0] == "0" and digits[1].isdecimal()
    return sign * (int(digits, 8) if octal else int(digits, 0))


def load(content: bytes | str, file: str) -> Any:
    """The one document as dicts, lists and scalars. `BadInput` says file, line and what is wrong."""
    if len(content) > MAX_BYTES:
        raise BadInput(f"{file}: found {len(content):,} bytes, allowed: at most {MAX_BYTES:,}")
    text = content if isinstance(content, str) else _decoded(content, file)
    try:
        return _Builder(file).build(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{file}:{mark.line + 1}" if mark else file
        problem = " ".join((error.problem or error.context or "").split())
        raise BadInput(f"{place}: found unusable YAML ({problem}), allowed: one valid document") from None
    except yaml.reader.ReaderError as error:
        raise BadInput(f"{file}: found a character YAML does not allow (position {error.position})") from None


def _decoded(content: bytes, file: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise BadInput(f"{file}:{line}: found the byte 0x{content[error.start]:02x}, allowed: text in UTF-8") from None


_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1


class _Builder:
    """Values from the stream of events; nothing is composed or constructed by the library, so no tag can run code."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._anchors: dict[str, tuple[Any, int]] = {}
        self._values = 0

    def build(self, text: str) -> Any:
        loader = _Loader(text)
        self._next: Callable[[], Any] = loader.get_event
        try:
            self._next()  # the stream
            if isinstance(self._next(), yaml.StreamEndEvent):
                return None
            value = self._node(self._next(), 0)
            self._next()  # the document's end
            if not isinstance(self._next(), yaml.StreamEndEvent):
                raise BadInput(f"{self._file}: found a second document, allowed: one, or several split by ---")
            return value
        finally:
            loader.dispose()

    def _count(self, values: int, event: Any) -> None:
        self._values += values
        if self._values > MAX_VALUES:
            line = _line(event)
            raise BadInput(
                f"{self._file}:{line}: found over {MAX_VALUES:,} values, aliases written out, allowed: fewer"
            )

    def _node(self, event: Any, depth: int) -> Any:
        if depth > MAX_DEPTH:
            line = _line(event)
            raise BadInput(f"{self._file}:{line}: found more than {MAX_DEPTH} levels of nesting, allowed: fewer")
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self._anchors:
                raise BadInput(f"{self._file}:{_line(event)}: found an alias to {event.anchor!r}, which is nowhere")
            value, size = self._anchors[event.anchor]
            self._count(size, event)
            return value
        self._count(1, event)
        before = self._values
        if isinstance(event, yaml.ScalarEvent):
            value = self._scalar(event)
        elif isinstance(event, yaml.SequenceStartEvent):
            value = list(self._items(depth))
        else:
            value = self._mapping(depth)
        if event.anchor:
            self._anchors[event.anchor] = (value, self._values - before + 1)
        return value

    def _items(self, depth: int) -> Iterable[Any]:
        while not isinstance(event := self._next(), yaml.SequenceEndEvent):
            yield self._node(event, depth + 1)

    def _mapping(self, depth: int) -> dict[str, Any]:
        built: dict[str, Any] = {}
        merged: list[dict[str, Any]] = []
        while not isinstance(event := self._next(), yaml.MappingEndEvent):
            is_merge = isinstance(event, yaml.ScalarEvent) and event.implicit[0] and event.value == "<<"
            key = self._node(event, depth + 1)
            value = self._node(self._next(), depth + 1)
            if is_merge:
                merged += value if isinstance(value, list) else [value]
            elif isinstance(key, dict | list):
                raise BadInput(f"{self._file}:{_line(event)}: found a collection as a key, allowed: text")
            else:
                built[as_text(key) or ""] = value
        for source in merged:
            if not isinstance(source, dict):
                raise BadInput(f"{self._file}: <<: found {source!r:.40}, allowed: a mapping")
            built = {**source, **built}
        return built

    def _scalar(self, event: Any) -> Any:
        text = event.value
        tag = (event.tag or "").removeprefix("tag:yaml.org,2002:")
        if tag in ("", "!"):
            return resolve(text)[1] if event.implicit[0] else text
        if tag in ("str", "timestamp"):
            return text
        found, value = resolve(text)
        if tag == found or (tag == "float" and found == "int"):
            return value
        raise BadInput(f"{self._file}:{_line(event)}: found the tag {event.tag[:40]}, allowed: plain values")


def as_text(value: Any) -> str | None:
    """A scalar where text is wanted, as Sloth converts it: 0.2 is "0.2", true is "true", 0x10 is "16". None: nothing."""
    if isinstance(value, str) or value is None:
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int) else shortest(float(value))


def shortest(number: float) -> str:
    """Go's `%g`: the shortest digits that read back; an exponent below 1e-4 and from 1e6 on. `1000000.0` is `1e+06`."""
    if number != number or number in (float("inf"), float("-inf")):
        return {"nan": "NaN", "inf": "+Inf", "-inf": "-Inf"}[str(number)]
    sign, digits, exponent = _decimal(number)
    if not digits:
        return f"{sign}0"
    if exponent < -4 or exponent >= 6:
        mantissa = digits[0] + (f".{digits[1:]}" if len(digits) > 1 else "")
        return f"{sign}{mantissa}e{'-' if exponent < 0 else '+'}{abs(exponent):02d}"
    return sign + _positional(digits, exponent)


def positional(number: float) -> str:
    """Go's `FormatFloat(number, 'f', -1, 64)`: the shortest digits that read back, never an exponent."""
    sign, digits, exponent = _decimal(number)
    return sign + (_positional(digits, exponent) if digits else "0")


def _decimal(number: float) -> tuple[str, str, int]:
    mantissa, _, exponent = f"{number!r}".lower().partition("e")
    sign = "-" if mantissa.startswith("-") else ""
    whole, _, fraction = mantissa.lstrip("-").partition(".")
    digits = (whole + fraction).lstrip("0")
    leading = len(whole + fraction) - len(digits)
    return sign, digits.rstrip("0"), len(whole) - 1 - leading + int(exponent or 0)


def _positional(digits: str, exponent: int) -> str:
    if exponent < 0:
        return "0." + "0" * (-exponent - 1) + digits
    whole = digits[: exponent + 1].ljust(exponent + 1, "0")
    return whole + (f".{digits[exponent + 1 :]}" if len(digits) > exponent + 1 else "")


# Writing

_SPECIAL = re.compile("[^\n\x20-\x7e\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd]")
_FIRST = frozenset("#,[]{}&*!|>'\"%@`")
_PLAIN = re.compile(r"[A-Za-z(/_][A-Za-z0-9_./()*+=<>-]*")
_ESCAPES = {
    "\0": "0", "\x07": "a", "\x08": "b", "\t": "t", "\n": "n", "\x0b": "v", "\x0c": "f", "\r": "r", "\x1b": "e",
    '"': '"', "\\": "\\", "\x85": "N", "\xa0": "_", "\u2028": "L", "\u2029": "P",
}  # fmt: skip


@functools.lru_cache(maxsize=4096)
def scalar(text: str, column: int, indent: int) -> str:
    """A text as the value of a mapping in block style, from after `key: ` on, without the last line's end.

    `column` is where it begins (the key's end, with the colon and the space), `indent` that of the mapping.
    """
    if "\n" in text:
        return _literal(text, indent + 2) if _is_block_allowed(text) else _double(text, column, indent + 2)
    if _PLAIN.fullmatch(text) and text not in _WORDS:
        return text
    if resolve(text)[0] != "str" or _BASE60.fullmatch(text):
        return _double(text, column, indent + 2)
    if _SPECIAL.search(text):
        return _double(text, column, indent + 2)
    if _is_plain_allowed(text):
        return _folded(text, column, indent + 2, 0)
    return "'" + _folded(text.replace("'", "''"), column + 1, indent + 2, 1) + "'"


def _is_plain_allowed(text: str) -> bool:
    """In block style. `text` has one line, and is not empty."""
    if text[0] == " " or text[-1] == " " or text.startswith(("---", "...")):
        return False
    if text[0] in _FIRST or (text[0] in "?:-" and (len(text) == 1 or text[1] == " ")):
        return False
    return ": " not in text and " #" not in text and not text.endswith(":")


def _is_block_allowed(text: str) -> bool:
    return not (_SPECIAL.search(text) or " \n" in text or text[-1] == " ")


def _folded(text: str, column: int, indent: int, quoted: int) -> str:
    """Breaks a line at a single space beyond the best width; in quotes not at the first or the last character."""
    lines, start = [], 0
    for match in re.finditer(" +", text):
        at = match.start()
        single = match.end() - at == 1
        inside = not quoted or 0 < at < len(text) - 1
        if single and inside and column + at - start > _BEST_WIDTH:
            lines.append(text[start:at])
            start, column = match.end(), indent
    lines.append(text[start:])
    return ("\n" + " " * indent).join(lines)


def _literal(text: str, indent: int) -> str:
    hint = _INDENT_HINT if text[0] in " \n" else ""
    chomp = "-" if text[-1] != "\n" else "+" if text == "\n" or text[-2] == "\n" else ""
    body = text[:-1] if text[-1] == "\n" else text
    pad = " " * indent
    return f"|{hint}{chomp}\n" + "\n".join(pad + line if line else "" for line in body.split("\n"))


def _double(text: str, column: int, indent: int) -> str:
    shown = ['"']
    column += 1
    is_after_space = False
    position = 0
    while position < len(text):
        character = text[position]
        if character in '"\\\n' or _SPECIAL.match(character):
            code = ord(character)
            escape = _ESCAPES.get(character) or (
                f"x{code:02X}" if code <= 0xFF else f"u{code:04X}" if code <= 0xFFFF else f"U{code:08X}"
            )
            shown.append("\\" + escape)
            column += 1 + len(escape)
            is_after_space = False
        elif character == " ":
            if not is_after_space and column > _BEST_WIDTH and 0 < position < len(text) - 1:
                shown.append("\n" + " " * indent)
                column = indent
                if text[position + 1] == " ":
                    shown.append("\\")
                    column += 1
            else:
                shown.append(" ")
                column += 1
            is_after_space = True
        else:
            shown.append(character)
            column += 1
            is_after_space = False
        position += 1
    return "".join(shown) + '"'


def sorted_keys(keys: Iterable[str]) -> list[str]:
    """Map keys in yaml.v2's order: letters after everything else, runs of digits by their number."""
    return sorted(keys, key=functools.cmp_to_key(_compare))


def _compare(a: str, b: str) -> int:
    return 0 if a == b else (-1 if _is_less(a, b) else 1)


def _is_less(a: str, b: str) -> bool:
    for at, (left, right) in enumerate(zip(a, b, strict=False)):
        if left == right:
            continue
        if left.isalpha() and right.isalpha():
            return left < right
        if left.isalpha() or right.isalpha():
            return right.isalpha()
        if left == "0" or right == "0":
            before = re.search(r"[0-9]*\Z", a[:at])
            is_inside = bool(before and before[0].strip("0"))
        else:
            is_inside = False
        lead = 1 if is_inside else 0
        mine, others = _digits(a, at), _digits(b, at)
        left_number, right_number = int(f"{lead}{mine}"), int(f"{lead}{others}")
        if left_number != right_number:
            return left_number < right_number
        if len(mine) != len(others):
            return len(mine) < len(others)
        return left < right
    return len(a) < len(b)


def _digits(text: str, at: int) -> str:
    match = re.compile("[0-9]*", re.ASCII).match(text, at)
    return match[0] if match else ""
