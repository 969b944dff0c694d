"""Success and failure conditions of an analysis: the part of expr-lang they are written in, with Go's meaning of it.

An expression is parsed once (`compile`), then typed and run against each result (`Condition.evaluate`), as Argo
Rollouts does: it compiles with the type of the result at hand, so that a type error counts even where `||` would have
hidden it. Not here: what a true or false condition makes of a measurement (`analysis.py`).

Refused, though expr has them: `let`, `if`, `;`, `reduce`, `sortBy`, `groupBy`, dates, JSON and text functions; a
nesting above 60, a pattern that could backtrack without end, and more than a million steps.
Source of behaviour: github.com/expr-lang/expr 1.17.7, docs/language-definition.md, and the environment of
argoproj/argo-rollouts 1.10, utils/evaluate/evaluate.go.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from greenops_pipelines.slo.expression_syntax import ConditionError, Node, Parser
from greenops_pipelines.slo.expression_types import Types
from greenops_pipelines.slo.expression_values import (
    ANY,
    CALLS,
    OPERATORS,
    arithmetic,
    contained,
    fetched,
    go_type,
    is_number,
    not_finite,
    position,
    sample_text,
    truth,
    type_of,
    wrapped,
)

__all__ = ["Condition", "ConditionError", "compile", "sample_text"]
_BUDGET = 1_000_000
"""Elements and predicate calls per evaluation; expr's own memory budget has the same number."""


class _NilInChain(Exception):
    pass


class _Run:
    """One evaluation."""

    def __init__(self, result: object, exact: Mapping[int, type]) -> None:
        self.result, self.exact = result, exact
        self.scopes: list[tuple[object, int]] = []
        self.spent = 0

    def spend(self, steps: int) -> None:
        self.spent += steps
        if self.spent >= _BUDGET:
            raise ConditionError("memory budget exceeded")

    def of(self, node: Node) -> object:
        return getattr(self, node.kind)(node)

    def const(self, node: Node) -> object:
        return node.value

    def name(self, node: Node) -> object:
        if node.value == "result":
            return self.result
        raise ConditionError(f"{node.value} is a function: it needs its arguments")

    def pointer(self, node: Node) -> object:
        return self.scopes[-1][1 if node.value == "index" else 0]

    def unary(self, node: Node) -> object:
        value = self.of(node.args[0])
        if node.value == "!":
            return not truth(value)
        if node.value == "+":
            return value
        if not is_number(value):
            raise ConditionError(f"invalid operation: - {go_type(value)}")
        return wrapped(-value)

    def binary(self, node: Node) -> object:
        left, right = node.args
        if node.value in ("&&", "||"):
            ends = node.value == "||"
            settled = _settled(right)
            if settled is not None:
                return ends if settled == ends else self.of(left)
            return ends if truth(self.of(left)) == ends else self.of(right)
        value = self.of(left)
        if node.value == "??":
            return self.of(right) if value is None else value
        if node.value == "in" and not isinstance(value, str) and _all_texts(right):
            return contained(value, {str(arg.value): None for arg in right.args})
        other = self.of(right)
        if allowed := self.exact.get(id(node)):
            for side in (value, other):
                if type(side) is not allowed:
                    shown = "int" if allowed is int else "string"
                    raise ConditionError(
                        f"interface conversion: interface {{}} is {'nil' if side is None else go_type(side)}, not {shown}"
                    )
        if node.value == "..":
            first, last = position(value), position(other)
            self.spend(max(0, last - first + 1))
            return list(range(first, last + 1))
        return OPERATORS[str(node.value)](value, other)

    def chain(self, node: Node) -> object:
        try:
            return self.of(node.args[0])
        except _NilInChain:
            return None

    def member(self, node: Node) -> object:
        base = self.of(node.args[0])
        if base is None and node.value:
            raise _NilInChain
        return fetched(base, self.of(node.args[1]))

    def method(self, node: Node) -> object:
        raise ConditionError(f"invalid operation: cannot call non-function of type {go_type(self.of(node.args[0]))}")

    def slice(self, node: Node) -> object:
        given = node.value
        base, start, stop = (self.of(arg) for arg in node.args)
        if not isinstance(base, str | list | tuple):
            raise ConditionError(f"cannot slice {go_type(base)}")
        text = base.encode() if isinstance(base, str) else base
        ends = [0, len(text)]
        for at, (end, stated) in enumerate(zip((start, stop), given, strict=True)):  # type: ignore[call-overload]
            if stated:
                index = position(end)
                ends[at] = min(len(text), max(0, index + len(text) if index < 0 else index))
        part = text[ends[0] : max(ends)] if ends[0] <= ends[1] else text[:0]
        return part.decode(errors="replace") if isinstance(part, bytes) else part

    def array(self, node: Node) -> object:
        self.spend(len(node.args))
        return [self.of(arg) for arg in node.args]

    def map(self, node: Node) -> object:
        self.spend(len(node.args))
        parts = [self.of(arg) for arg in node.args]
        if not all(isinstance(key, str) for key in parts[::2]):
            raise ConditionError("map: found a key that is not a string")
        return dict(zip(parts[::2], parts[1::2], strict=True))

    def if_(self, node: Node) -> object:
        condition, then, other = node.args
        return self.of(then) if truth(self.of(condition)) else self.of(other)

    def loop(self, node: Node) -> object:
        name, collection = str(node.value), self.of(node.args[0])
        if isinstance(collection, str) or collection == {}:
            collection = list(collection.encode()) if isinstance(collection, str) else []
        if not isinstance(collection, list | tuple):
            raise ConditionError(f"builtin {name} takes only array (got {go_type(collection)})")
        results = self.each(collection, node.args[1] if len(node.args) == 2 else None)
        if name == "map":
            return [value for _, _, value in results]
        if name == "sum":
            total: object = 0
            for _, _, value in results:
                total = arithmetic("+", value, total)
            return total
        matching = ((at, item) for at, item, value in results if truth(value) == (name != "all"))
        if name in ("all", "none", "any"):
            return (next(matching, None) is not None) == (name == "any")
        if name.startswith("find"):
            at, item = next(matching, (None, None))
            return item if name == "find" else at
        kept = [item for _, item in matching]
        return kept if name == "filter" else len(kept) == 1 if name == "one" else len(kept)

    def each(self, items: Sequence[object], predicate: Node | None) -> Iterator[tuple[int, object, object]]:
        """Position, element and what the predicate says of it, as far as the caller asks."""
        for at, item in enumerate(items):
            self.spend(1)
            if predicate is None:
                yield at, item, item
                continue
            self.scopes.append((item, at))
            value = self.of(predicate)
            self.scopes.pop()
            yield at, item, value

    def call(self, node: Node) -> object:
        name = str(node.value)
        given = [self.of(arg) for arg in node.args]
        if name == "isNil":
            # Argo's isNil and default ask about the result, whatever they are given.
            return self.result is None
        if name == "default":
            return given[1] if self.result is None else self.result
        if name in ("isNaN", "isInf"):
            return not_finite(name, float(given[0]) if _literal(node.args[0]) else given[0])  # type: ignore[arg-type]
        return CALLS[name](*given)


def _settled(node: Node) -> bool | None:
    """What expr folds to a constant before it runs: `x && false` is false although x would fail."""
    if node.kind == "const":
        return node.value if isinstance(node.value, bool) else None
    if node.kind == "unary" and node.value == "!":
        inner = _settled(node.args[0])
        return None if inner is None else not inner
    if node.kind == "binary" and node.value in ("&&", "||"):
        ends = node.value == "||"
        sides = [_settled(arg) for arg in node.args]
        return ends if ends in sides else None if None in sides else not ends
    return None


def _all_texts(node: Node) -> bool:
    """A list of nothing but texts, which expr looks up as a map of texts: another type is a panic there."""
    texts = all(arg.kind == "const" and isinstance(arg.value, str) for arg in node.args)
    return node.kind == "array" and bool(node.args) and texts


def _literal(node: Node) -> bool:
    """Integers written out become floats where a float is asked for."""
    if node.kind == "const":
        return type(node.value) is int
    sums = node.kind == "binary" and node.value in ("+", "-", "*")
    return (node.kind == "unary" or sums) and all(_literal(arg) for arg in node.args)


@dataclass(frozen=True)
class Condition:
    """A parsed expression over `result`."""

    expression: str
    _root: Node

    def evaluate(self, result: object = None) -> bool:
        """Whether it holds. `result` is None, a bool, a number, a text, or lists and string-keyed maps of them.

        Raises `ConditionError` in Go's words where Argo would call the measurement an Error.
        """
        try:
            types = Types(type_of(result))
            types.of(self._root)
            found = _Run(result, types.exact).of(self._root)
        except (OverflowError, RecursionError):
            raise ConditionError("result: found what Go could not hold: a number or a nesting too large") from None
        if isinstance(found, bool):
            return found
        raise ConditionError(f"expected bool, but got {go_type(found)}")


def compile(expression: str) -> Condition:  # noqa: A001  (the word of expr's own interface)
    """Raises `ConditionError` for what no result could make right: syntax, unknown names, types that never fit."""
    root = Parser(expression).parse()
    Types(ANY).of(root)
    return Condition(expression, root)
