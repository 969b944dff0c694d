"""Go's operators and expr's functions over plain Python values. Not here: the order in which they are applied."""

from __future__ import annotations

import math
import operator as op
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from functools import partial
from typing import Any, NamedTuple, TypeGuard

from greenops_pipelines.slo.expression_syntax import COMPARISONS, LEAST, MOST, TEXT_OPERATORS, ConditionError


class Array(NamedTuple):
    """`made`: built by the expression, so that Go knows its elements only as `any`."""

    of: Type
    made: bool = True

    def __str__(self) -> str:
        return "[]interface {}" if self.made or self.of == ANY else f"[]{self.of}"


Type = str | Array
ANY, NIL, BOOL, INT, FLOAT, STRING = "unknown", "nil", "bool", "int", "float64", "string"
MAP = "map[string]interface {}"
NUMBERS = (INT, FLOAT)


def type_of(value: object, outermost: bool = True) -> Type:
    """As Go's `%T` names it. Nothing but floats is what the Prometheus provider hands over, `[]float64`."""
    match value:
        case None:
            return NIL
        case bool():
            return BOOL
        case int():
            return INT
        case float():
            return FLOAT
        case str():
            return STRING
        case Mapping():
            return MAP
        case Sequence():
            kinds = {type_of(item, False) for item in value} if outermost else {ANY}
            return Array(FLOAT if kinds <= {FLOAT} else ANY, False)
    raise ConditionError(f"result: found a {type(value).__name__}, allowed: what JSON can hold")


def go_type(value: object) -> str:
    return "<nil>" if value is None else str(type_of(value)).replace(ANY, "interface {}")


def is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_int(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def truth(value: object) -> bool:
    if isinstance(value, bool):
        return value
    shown = "nil" if value is None else go_type(value)
    raise ConditionError(f"interface conversion: interface {{}} is {shown}, not bool")


def wrapped(value: int | float) -> int | float:
    """64 bits, as Go's integers have."""
    return (value - LEAST) % 2**64 + LEAST if isinstance(value, int) else value


def _truncated(value: float) -> int:
    """`int(x)` of amd64: what does not fit, and NaN, is the least integer."""
    return int(value) if math.isfinite(value) and LEAST <= value < -LEAST else LEAST


def position(value: object) -> int:
    if not is_number(value):
        raise ConditionError(f"invalid operation: int({go_type(value)})")
    return value if isinstance(value, int) else _truncated(value)


def fetched(base: object, key: object) -> object:
    if isinstance(base, Mapping):
        if key is not None and not isinstance(key, str):
            raise ConditionError(f"cannot use {go_type(key)} to get an element from {MAP}")
        return base.get(key or "")
    if isinstance(base, str | list | tuple):
        items: Sequence[object] = list(base.encode()) if isinstance(base, str) else base
        index = position(key)
        index += len(items) if index < 0 else 0
        if not 0 <= index < len(items):
            raise ConditionError(f"index out of range: {index} (array length is {len(items)})")
        return items[index]
    raise ConditionError(f"cannot fetch {_text(key)} from {go_type(base)}")


def _equal(left: object, right: object) -> bool:
    if is_number(left) and is_number(right):
        both_whole = isinstance(left, int) and isinstance(right, int)
        return left == right if both_whole else float(left) == float(right)
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        return len(left) == len(right) and all(_equal(a, b) for a, b in zip(left, right, strict=True))
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return left.keys() == right.keys() and all(_identical(left[key], right[key]) for key in left)
    return type(left) is type(right) and left == right


def _identical(left: object, right: object) -> bool:
    """Inside maps Go compares types too: 1 is not 1.0."""
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        return len(left) == len(right) and all(_identical(a, b) for a, b in zip(left, right, strict=True))
    return (isinstance(left, Mapping) or type(left) is type(right)) and _equal(left, right)


def contained(needle: object, items: object) -> bool:
    if items is None:
        return False
    if isinstance(items, Mapping):
        if needle is not None and not isinstance(needle, str):
            raise ConditionError(f"cannot use {go_type(needle)} as type string in map key")
        return (needle or "") in items
    if isinstance(items, list | tuple):
        return any(_equal(item, needle) for item in items)
    raise ConditionError(f'operator "in" not defined on {go_type(items)}')


def _compared(operator: str) -> Callable[[object, object], bool]:
    meaning: Callable[[Any, Any], bool] = {"<": op.lt, ">": op.gt, "<=": op.le, ">=": op.ge}[operator]

    def compare(left: object, right: object) -> bool:
        if _is_int(left) and _is_int(right):
            return meaning(left, right)
        if is_number(left) and is_number(right):
            return meaning(float(left), float(right))
        if isinstance(left, str) and isinstance(right, str):
            return meaning(left.encode(), right.encode())
        raise ConditionError(f"invalid operation: {go_type(left)} {operator} {go_type(right)}")

    return compare


def arithmetic(operator: str, left: object, right: object) -> object:
    if is_number(left) and is_number(right):
        whole = isinstance(left, int) and isinstance(right, int)
        a, b = (left, right) if whole else (float(left), float(right))
        if operator == "/":
            return _divided(float(left), float(right))
        if operator == "**":
            return _power(float(left), float(right))
        if operator != "%":
            return wrapped(a + b if operator == "+" else a - b if operator == "-" else a * b)
        if whole:
            if not right:
                raise ConditionError("integer divide by zero")
            rest = abs(left) % abs(right)
            return -rest if left < 0 else rest
    if operator == "+" and isinstance(left, str) and isinstance(right, str):
        return left + right
    raise ConditionError(f"invalid operation: {go_type(left)} {operator} {go_type(right)}")


def _divided(left: float, right: float) -> float:
    if right:
        return left / right
    return math.nan if left == 0 or math.isnan(left) else math.copysign(math.inf, left) * math.copysign(1, right)


def _power(base: float, exponent: float) -> float:
    try:
        return math.pow(base, exponent)
    except OverflowError:
        return -math.inf if base < 0 and exponent % 2 == 1 else math.inf
    except ValueError:
        if base:
            return math.nan
        return math.copysign(math.inf, base) if exponent % 2 == 1 else math.inf


def pattern_of(text: str) -> re.Pattern[str]:
    """A pattern that RE2 and Python read alike and that ends soon: Python backtracks, RE2 does not."""
    repeats = len(re.findall(r"(?<!\\)[*+{]", text))
    if len(text) > 200 or repeats > 3 or re.search(r"\)[*+?{]|\(\?(?![:i])|\\[1-9ZQ]", text):
        raise ConditionError(
            f"matches: found {text[:40]!r}, allowed: at most 200 characters and 3 repeats, no repeated group, "
            "no look-around, no back reference"
        )
    try:
        return re.compile(text, re.ASCII)
    except (re.error, OverflowError, RecursionError) as error:
        raise ConditionError(f"error parsing regexp: {error}") from None


def _on_texts(operator: str) -> Callable[[object, object], bool]:
    def test(left: object, right: object) -> bool:
        if left is None or right is None:
            return False
        if not isinstance(left, str) or not isinstance(right, str):
            raise ConditionError(f"{operator}: found {go_type(left)} and {go_type(right)}, allowed: string")
        if operator == "matches":
            if len(left) > 200:
                raise ConditionError(f"matches: found a text of {len(left)} characters, allowed: 200")
            return pattern_of(right).search(left) is not None
        if operator == "contains":
            return right in left
        return left.startswith(right) if operator == "startsWith" else left.endswith(right)

    return test


OPERATORS: dict[str, Callable[[object, object], object]] = {
    "==": _equal,
    "!=": lambda left, right: not _equal(left, right),
    "in": contained,
    **{name: _compared(name) for name in COMPARISONS},
    **{name: partial(arithmetic, name) for name in ("+", "-", "*", "/", "%", "**")},
    **{name: _on_texts(name) for name in TEXT_OPERATORS},
}


def _text(value: object) -> str:
    """Go's `%v`."""
    match value:
        case None:
            return "<nil>"
        case bool():
            return "true" if value else "false"
        case float():
            return _shortest(value, 6)
        case str():
            return value
        case Mapping():
            return f"map[{' '.join(f'{key}:{_text(value[key])}' for key in sorted(value))}]"
        case list() | tuple():
            return f"[{' '.join(map(_text, value))}]"
    return str(value)


def sample_text(value: float) -> str:
    """A sample as Prometheus' Go client prints it: the shortest digits that read back, never an exponent, `+Inf`."""
    return _shortest(value, 400)


def _shortest(value: float, exponent_from: int) -> str:
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
    digits = Decimal(repr(value)).normalize()
    exponent = digits.adjusted() if value else 0
    if exponent >= exponent_from or (exponent < -4 and exponent_from < 400):
        mantissa = format(digits.scaleb(-exponent), "f")
        return f"{mantissa}e{'-' if exponent < 0 else '+'}{abs(exponent):02}"
    return format(digits, "f")


def _parsed(name: str, text: str, whole: bool) -> int | float:
    if whole and re.fullmatch(r"[+-]?[0-9]+", text) and LEAST <= int(text) <= MOST:
        return int(text)
    written = r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?|[+-]?inf(inity)?|nan"
    if not whole and re.fullmatch(written, text, re.IGNORECASE):
        value = float(text)
        if math.isfinite(value) or not any(digit.isdigit() for digit in text):
            return value
    parser = "ParseInt" if whole else "ParseFloat"
    if name.startswith("as"):
        raise ConditionError(f'strconv.{parser}: parsing "{text}": invalid syntax')
    raise ConditionError(f"invalid operation: {name}({text})")


def _converted(name: str) -> Callable[[object], int | float]:
    whole = name in ("asInt", "int")

    def convert(value: object) -> int | float:
        if is_number(value):
            return position(value) if whole else float(value)
        if isinstance(value, str):
            return _parsed(name, value, whole)
        raise ConditionError(f"{name}() not supported on {go_type(value)} {_text(value)}")

    return convert


def not_finite(name: str, value: object) -> bool:
    if not isinstance(value, float):
        shown = "nil" if value is None else go_type(value)
        raise ConditionError(f"interface conversion: interface {{}} is {shown}, not float64")
    return math.isnan(value) if name == "isNaN" else math.isinf(value)


def _rounded(name: str) -> Callable[[object], float]:
    def half_away(value: float) -> float:
        whole = math.floor(abs(value))
        return math.copysign(whole + (abs(value) - whole >= 0.5), value)

    def convert(value: object) -> float:
        if not is_number(value):
            raise ConditionError(f"invalid argument for {name} (type {go_type(value)})")
        if not math.isfinite(value):
            return value
        if name == "round":
            return half_away(float(value))
        return math.copysign(math.ceil(value) if name == "ceil" else math.floor(value), value)

    return convert


def _abs(value: object) -> int | float:
    if not is_number(value):
        raise ConditionError(f"invalid argument for abs (type {go_type(value)})")
    return wrapped(abs(value))


def _len(value: object) -> int:
    if isinstance(value, str | list | tuple | Mapping):
        return len(value)
    raise ConditionError(f"invalid argument for len (type {go_type(value)})")


def _numbers(name: str, values: Iterable[object]) -> Iterator[int | float]:
    for value in values:
        if isinstance(value, list | tuple):
            yield from _numbers(name, value)
        elif is_number(value):
            yield value
        else:
            raise ConditionError(f"invalid argument for {name} (type {go_type(value)})")


def _extreme(name: str) -> Callable[..., object]:
    passed = _compared(">" if name == "min" else "<")

    def extreme(*values: object) -> object:
        if len(values) == 1 and not isinstance(values[0], list | tuple):
            return values[0]
        found = None
        for value in _numbers(name, values):
            if found is None or passed(found, value):
                found = value
        return found

    return extreme


def _mean(*values: object) -> float:
    numbers = [float(value) for value in _numbers("mean", values)]
    total = 0.0
    for number in numbers:
        total += number
    return total / len(numbers) if numbers else 0.0


def _median(*values: object) -> float:
    numbers = sorted((float(value) for value in _numbers("median", values)), key=lambda n: (not math.isnan(n), n))
    if not numbers:
        return 0.0
    middle, odd = divmod(len(numbers), 2)
    return numbers[middle] if odd else (numbers[middle - 1] + numbers[middle]) / 2


def _end(at: int) -> Callable[[object], object]:
    def element(value: object) -> object:
        try:
            return fetched(value, at)
        except ConditionError:
            return None

    return element


CALLS: dict[str, Callable[..., object]] = {
    **{name: _converted(name) for name in ("asInt", "asFloat", "int", "float")},
    **{name: _rounded(name) for name in ("ceil", "floor", "round")},
    **{name: _extreme(name) for name in ("min", "max")},
    **{"abs": _abs, "len": _len, "string": _text, "mean": _mean, "median": _median},
    **{"first": _end(0), "last": _end(-1)},
}
