"""What expr's checker refuses before it runs, given the type of the result. Not here: values."""

from __future__ import annotations

from greenops_pipelines.slo.expression_syntax import COMPARISONS, TEXT_OPERATORS, ConditionError, Node, new_node
from greenops_pipelines.slo.expression_values import (
    ANY,
    BOOL,
    FLOAT,
    INT,
    MAP,
    NIL,
    NUMBERS,
    STRING,
    Array,
    Type,
    pattern_of,
    type_of,
)


def _maybe(left: Type, right: Type, *kinds: str) -> bool:
    """Both unknown, or one unknown and the other of a kind the operator takes."""
    if left == ANY:
        return right == ANY or right in kinds
    return right == ANY and left in kinds


def _comparable(left: Type, right: Type) -> bool:
    if ANY in (left, right) or NIL in (left, right) or left == right:
        return True
    numbers = left in NUMBERS and right in NUMBERS
    return numbers or (isinstance(left, Array) and isinstance(right, Array))


_FUNCTIONS: dict[str, tuple[int, int, Type]] = {
    **{"asInt": (1, 1, INT), "asFloat": (1, 1, FLOAT), "isNaN": (1, 1, BOOL), "isInf": (1, 1, BOOL)},
    **{"isNil": (1, 1, BOOL), "default": (2, 2, ANY), "len": (1, 1, INT), "string": (1, 1, STRING)},
    **{"abs": (1, 1, ANY), "ceil": (1, 1, FLOAT), "floor": (1, 1, FLOAT), "round": (1, 1, FLOAT)},
    **{"int": (1, 1, INT), "float": (1, 1, FLOAT), "first": (1, 1, ANY), "last": (1, 1, ANY)},
    **dict.fromkeys(("min", "max", "mean", "median"), (1, 1000, ANY)),
}
"""Fewest and most arguments, and what comes back."""


class Types:
    """What expr's checker refuses when the result has this type. Kept by node for the few operators that depend on it."""

    def __init__(self, result: Type) -> None:
        self.result = result
        self.scopes: list[tuple[Type, bool]] = []
        self.exact: dict[int, type] = {}
        """`==` nodes that expr compares as integers or as strings and nothing else: nil on a side is a panic there."""

    def of(self, node: Node) -> Type:
        return getattr(self, node.kind)(node)  # type: ignore[no-any-return]

    def const(self, node: Node) -> Type:
        return type_of(node.value)

    def name(self, node: Node) -> Type:
        if node.value == "result":
            return self.result
        if node.value in _FUNCTIONS:
            return "func"
        raise ConditionError(f"unknown name {node.value}")

    def pointer(self, node: Node) -> Type:
        collection, indexed = self.scopes[-1]
        if node.value == "index" and indexed:
            return INT
        if node.value:
            raise ConditionError(f"unknown pointer #{node.value}")
        return collection.of if isinstance(collection, Array) else ANY

    def unary(self, node: Node) -> Type:
        operand = self.of(node.args[0])
        if node.value == "!" and operand in (BOOL, ANY):
            return BOOL
        if node.value != "!" and operand in (*NUMBERS, ANY):
            return operand
        raise ConditionError(f"invalid operation: {node.value} (mismatched type {_shown(operand)})")

    def binary(self, node: Node) -> Type:
        left, right = self.of(node.args[0]), self.of(node.args[1])
        found = self._binary(str(node.value), left, right)
        if found is None:
            both = f"{_shown(left)} and {_shown(right)}"
            raise ConditionError(f"invalid operation: {node.value} (mismatched types {both})")
        if node.value in ("==", "!=") and left == right and left in (INT, STRING):
            self.exact[id(node)] = int if left == INT else str
        if node.value == "%" and node.args[0].kind == "const" and node.args[1] == new_node("const", 0):
            raise ConditionError("integer divide by zero")
        if node.value == "matches" and node.args[1].kind == "const":
            pattern_of(str(node.args[1].value))
        return found

    def _binary(self, operator: str, left: Type, right: Type) -> Type | None:
        numbers, texts = left in NUMBERS and right in NUMBERS, left == right == STRING
        if operator in ("==", "!="):
            return BOOL if _comparable(left, right) else None
        if operator in ("||", "&&"):
            return BOOL if left == right == BOOL or _maybe(left, right, BOOL) else None
        if operator in COMPARISONS:
            return BOOL if numbers or texts or _maybe(left, right, *NUMBERS, STRING) else None
        if operator in ("+", "-", "*"):
            if numbers:
                return FLOAT if FLOAT in (left, right) else INT
            if operator == "+" and texts:
                return STRING
            return ANY if _maybe(left, right, *NUMBERS, *([STRING] if operator == "+" else ())) else None
        if operator in ("/", "**"):
            return FLOAT if numbers or _maybe(left, right, *NUMBERS) else None
        if operator in ("%", ".."):
            whole = left == right == INT or _maybe(left, right, INT)
            return None if not whole else INT if operator == "%" else Array(INT)
        if operator in TEXT_OPERATORS:
            return BOOL if texts or _maybe(left, right, STRING) else None
        if operator == "in":
            return self._element_of(left, right)
        if NIL in (left, right):
            return right if left == NIL else left
        return left if left == right else ANY

    def _element_of(self, left: Type, right: Type) -> Type | None:
        if right == MAP and left not in (ANY, STRING):
            raise ConditionError(f"cannot use {_shown(left)} as type string in map key")
        if isinstance(right, Array) and not _comparable(left, right.of):
            raise ConditionError(f"cannot use {_shown(left)} as type {_shown(right.of)} in array")
        known = right in (MAP, ANY) or isinstance(right, Array) or (left == ANY and right == STRING)
        return BOOL if known else None

    def chain(self, node: Node) -> Type:
        return self.of(node.args[0])

    def member(self, node: Node) -> Type:
        base, key = self.of(node.args[0]), self.of(node.args[1])
        if base == ANY:
            return ANY
        if base == MAP:
            if key not in (STRING, ANY):
                raise ConditionError(f"cannot use {_shown(key)} to get an element from {base}")
            return ANY
        if isinstance(base, Array):
            if key not in (INT, ANY):
                raise ConditionError(f"array elements can only be selected using an integer (got {_shown(key)})")
            return base.of
        if node.args[1].kind == "const" and isinstance(node.args[1].value, str):
            raise ConditionError(f"type {base} has no field {node.args[1].value}")
        raise ConditionError(f"type {_shown(base)}[{_shown(key)}] is undefined")

    def method(self, node: Node) -> Type:
        if node.args[0].kind == "member" and self.of(node.args[0].args[0]) not in (ANY, MAP, NIL):
            raise ConditionError(f"type {self.of(node.args[0].args[0])} has no method {node.value}")
        callee = self.of(node.args[0])
        if callee != ANY:
            raise ConditionError(f"{callee} is not callable")
        return ANY

    def slice(self, node: Node) -> Type:
        base, *ends = (self.of(arg) for arg in node.args)
        if base == ANY:
            return base
        if base != STRING and not isinstance(base, Array):
            raise ConditionError(f"cannot slice {_shown(base)}")
        for end, arg in zip(ends, node.args[1:], strict=True):
            if end not in (INT, ANY) and arg != new_node("const", None):
                raise ConditionError(f"non-integer slice index {_shown(end)}")
        return base

    def array(self, node: Node) -> Type:
        kinds = [self.of(arg) for arg in node.args]
        same = len({"[]" if isinstance(kind, Array) else kind for kind in kinds}) == 1
        return Array(kinds[-1] if same else ANY)

    def map(self, node: Node) -> Type:
        for arg in node.args:
            self.of(arg)
        return MAP

    def if_(self, node: Node) -> Type:
        condition, then, other = (self.of(arg) for arg in node.args)
        if condition not in (BOOL, ANY):
            raise ConditionError(f"non-bool expression (type {_shown(condition)}) used as condition")
        if NIL in (then, other):
            return other if then == NIL else then
        return then if then == other else ANY

    def loop(self, node: Node) -> Type:
        name = str(node.value)
        collection = self.of(node.args[0])
        if collection != ANY and not isinstance(collection, Array):
            raise ConditionError(f"builtin {name} takes only array (got {_shown(collection)})")
        element = collection.of if isinstance(collection, Array) else ANY
        given = element
        if len(node.args) == 2:
            self.scopes.append((collection, name == "map"))
            given = self.of(node.args[1])
            self.scopes.pop()
            if given == NIL:
                raise ConditionError("predicate should has one input and one output param")
            if name not in ("map", "sum") and given not in (BOOL, ANY):
                raise ConditionError(f"predicate should return boolean (got {_shown(given)})")
        if name in ("all", "none", "any", "one"):
            return BOOL
        if name in ("filter", "map"):
            return Array(element if name == "filter" else given)
        if name == "find":
            return element
        return given if name == "sum" else INT

    def call(self, node: Node) -> Type:
        name = str(node.value)
        if name not in _FUNCTIONS:
            raise ConditionError(f"unknown name {name}" if name != "result" else "result is not callable")
        fewest, most, found = _FUNCTIONS[name]
        given = [self.of(arg) for arg in node.args]
        if not fewest <= len(given) <= most:
            few = "not enough" if len(given) < fewest else "too many"
            raise ConditionError(f"{few} arguments to call {name}: found {len(given)}")
        first = given[0]
        if name in ("isNaN", "isInf"):
            if first not in (*NUMBERS, ANY):
                raise ConditionError(f"cannot use {first} as argument (type float64) to call {name}")
            return found
        if name in ("min", "max", "mean", "median"):
            return self._aggregate(name, given)
        if name in ("asInt", "asFloat", "isNil", "default", "string"):
            return found
        if name in ("first", "last"):
            if isinstance(first, Array):
                return ANY if first.made else first.of
            allowed: tuple[Type, ...] = ()
        elif name == "len":
            allowed = (STRING, MAP, first if isinstance(first, Array) else STRING)
        else:
            allowed = (*NUMBERS, STRING) if name in ("int", "float") else NUMBERS
        if first != ANY and first not in allowed:
            raise ConditionError(f"invalid argument for {name} (type {_shown(first)})")
        return first if name == "abs" else found

    def _aggregate(self, name: str, given: list[Type]) -> Type:
        for kind in given:
            if kind == ANY or isinstance(kind, Array):
                return ANY
            if kind not in NUMBERS:
                raise ConditionError(f"invalid argument for {name} (type {_shown(kind)})")
        return given[0]


def _shown(kind: Type) -> str:
    return ANY if kind == NIL else str(kind)
