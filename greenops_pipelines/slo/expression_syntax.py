"""expr-lang's grammar: text to a tree of `Node`. Not here: what the tree means (`expression_types.py`, `conditions.py`)."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from greenops_pipelines.errors import BadInput

_LONGEST = 10_000
"""Characters. With the two depths below it keeps the interpreter's stack out of reach of any text."""
_DEEPEST_NESTING = 60
_DEEPEST_TREE = 200
LEAST, MOST = -(2**63), 2**63 - 1


class ConditionError(BadInput):
    """An expression that does not parse, names what is not there, mixes types, or fails on this result."""


_TOKEN = re.compile(
    r"""(?P<space>\s+|//[^\n]*|/\*.*?\*/)
    |(?P<Number>0[xX][0-9a-fA-F_]*|0[oO][0-7_]*|0[bB][01_]*|(?:\d[\d_]*(?:\.(?!\.)[\d_]*)?|\.\d[\d_]*)(?:[eE][+-]?[\d_]*)?)
    |(?P<Identifier>(?:[^\W\d]|\$)[\w$]*)
    |(?P<String>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|`(?:[^`]|``)*`)
    |(?P<Operator>\?\.|\?\?|\?|\|\|?|::?|\#\#?|\.\.?|[&!=*<>][&=*]?|[,;%+\-^/])
    |(?P<Bracket>[()\[\]{}])""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPE = re.compile(
    r"\\(?:u\{([0-9a-fA-F]{1,6})\}|x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-3][0-7]{2})|(.))",
    re.DOTALL,
)
_ESCAPED = {**dict(zip("abfnrtv", "\a\b\f\n\r\t\v", strict=True)), "\\": "\\", "'": "'", '"': '"', "`": "`", "?": "?"}
_WORD_OPERATORS = {"not", "in", "or", "and", "matches", "contains", "startsWith", "endsWith", "let", "if", "else"}


class _Token(NamedTuple):
    kind: str
    text: str

    def __str__(self) -> str:
        return self.kind if self.kind == "EOF" else f'{self.kind}("{self.text[:40]}")'


def _unescaped(literal: str) -> str:
    if literal[0] == "`":
        return literal[1:-1].replace("``", "`")

    def character(match: re.Match[str]) -> str:
        *coded, plain = match.groups()
        for digits, base in zip(coded, (16, 16, 16, 16, 8), strict=True):
            if digits is not None and int(digits, base) <= 0x10FFFF:
                return chr(int(digits, base))
        if plain is None or plain not in _ESCAPED:
            raise ConditionError(f"invalid char escape {match[0]!r}")
        return _ESCAPED[plain]

    return _ESCAPE.sub(character, literal[1:-1])


def _tokens(text: str) -> list[_Token]:
    if len(text) > _LONGEST:
        raise ConditionError(f"condition: found {len(text)} characters, allowed: {_LONGEST}")
    tokens, at = [], 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            what = "literal not terminated" if text[at] in "\"'`" else f"unrecognized character {text[at]!r}"
            raise ConditionError(f"{what} at position {at}")
        at, kind, found = match.end(), str(match.lastgroup), match[0]
        if kind == "Number" and re.match(r"[\w$]", text[at : at + 1]):
            raise ConditionError(f"bad number syntax: {(found + text[at])[:40]!r}")
        if kind == "Identifier" and found in _WORD_OPERATORS:
            kind = "Operator"
        if kind != "space":
            tokens.append(_Token(kind, _unescaped(found) if kind == "String" else found))
    return [*tokens, _Token("EOF", "")]


@dataclass(frozen=True, slots=True)
class Node:
    """`kind` decides what `value` and `args` are: an operator with operands, a name, a constant."""

    kind: str
    value: object = None
    args: tuple[Node, ...] = ()
    depth: int = 1


def new_node(kind: str, value: object = None, *args: Node) -> Node:
    depth = 1 + max((arg.depth for arg in args), default=0)
    if depth > _DEEPEST_TREE:
        raise ConditionError(f"condition: operations nested above {_DEEPEST_TREE}")
    return Node(kind, value, args, depth)


_UNARY = {"not": 50, "!": 50, "-": 90, "+": 90}
_BINARY = {
    **{"|": 0, "or": 10, "||": 10, "and": 15, "&&": 15, "..": 25, "+": 30, "-": 30},
    **dict.fromkeys(("==", "!=", "<", ">", ">=", "<=", "in", "matches", "contains", "startsWith", "endsWith"), 20),
    **{"*": 60, "/": 60, "%": 60, "**": 100, "^": 100, "??": 500},
}
COMPARISONS = ("<", ">", ">=", "<=")
_NEGATABLE = ("in", "matches", "contains", "startsWith", "endsWith")
_SAME = {"or": "||", "and": "&&", "^": "**", "not": "!"}
_PREDICATES = {
    **dict.fromkeys(("all", "none", "any", "one", "filter", "map", "find", "findIndex"), (2, 2)),
    **dict.fromkeys(("count", "sum"), (1, 2)),
}


class Parser:
    def __init__(self, text: str) -> None:
        self.tokens, self.at = _tokens(text), 0
        self.nesting = self.predicates = 0

    def parse(self) -> Node:
        node = self.expression()
        if self.now.kind != "EOF":
            raise self.unexpected()
        return node

    @property
    def now(self) -> _Token:
        return self.tokens[self.at]

    def unexpected(self) -> ConditionError:
        return ConditionError(f"unexpected token {self.now}")

    def take(self) -> _Token:
        token = self.now
        self.at = min(self.at + 1, len(self.tokens) - 1)
        return token

    def accept(self, kind: str, *texts: str) -> bool:
        if self.now.kind == kind and self.now.text in texts:
            self.take()
            return True
        return False

    def expect(self, kind: str, *texts: str) -> str:
        if self.now.kind != kind or (texts and self.now.text not in texts):
            raise self.unexpected()
        return self.take().text

    def expression(self, precedence: int = 0) -> Node:
        self.nesting += 1
        if self.nesting > _DEEPEST_NESTING:
            raise ConditionError(f"condition: nested above {_DEEPEST_NESTING}")
        left, previous = self.primary(), ""
        while self.now.kind == "Operator":
            operator = self.now.text
            negated = operator == "not"
            if negated:
                operator = self.tokens[self.at + 1].text
                if operator not in _NEGATABLE:
                    self.take()
                    raise self.unexpected()
            if _BINARY.get(operator, -1) < precedence:
                break
            self.take()
            if negated:
                self.take()
            if operator == "|":
                left = self.call(self.expect("Identifier"), (left,))
            elif previous == "??" != operator:
                raise ConditionError(
                    f"Operator ({operator}) and coalesce expressions (??) cannot be mixed. Wrap either by parentheses."
                )
            elif operator in COMPARISONS:
                left = self.comparison(left, operator)
            else:
                right = self.expression(_BINARY[operator] + (operator not in ("**", "^")))
                left = new_node("binary", _SAME.get(operator, operator), left, right)
                left = new_node("unary", "!", left) if negated else left
            previous = operator
        while precedence == 0 and self.accept("Operator", "?"):
            left = self.conditional(left)
        self.nesting -= 1
        return left

    def comparison(self, left: Node, operator: str) -> Node:
        """`1 < x < 3` is `1 < x && x < 3`."""
        joined = None
        while True:
            right = self.expression(_BINARY[operator] + 1)
            node = new_node("binary", operator, left, right)
            joined = node if joined is None else new_node("binary", "&&", joined, node)
            left = right
            if self.now.kind != "Operator" or self.now.text not in COMPARISONS:
                return joined
            operator = self.take().text

    def conditional(self, condition: Node) -> Node:
        if self.accept("Operator", ":"):
            return new_node("if_", None, condition, condition, self.expression())
        then = self.expression()
        self.expect("Operator", ":")
        return new_node("if_", None, condition, then, self.expression())

    def primary(self) -> Node:
        token = self.now
        if token.kind == "Operator" and token.text in _UNARY:
            operand = self.expression(_UNARY[self.take().text])
            return self.postfix(new_node("unary", _SAME.get(token.text, token.text), operand))
        if self.accept("Bracket", "("):
            inner = self.expression()
            self.expect("Bracket", ")")
            return self.postfix(inner)
        if self.predicates and token.kind == "Operator" and token.text in ("#", "."):
            name = ""
            if self.accept("Operator", "#") and self.now.kind == "Identifier":
                name = self.take().text
            return self.postfix(new_node("pointer", name))
        if self.accept("Operator", "::"):
            return self.postfix(self.call(self.expect("Identifier"), ()))
        return self.secondary()

    def secondary(self) -> Node:
        token = self.take()
        if token.kind == "Number":
            return new_node("const", _number(token.text))
        if token.kind == "String":
            return self.postfix(new_node("const", token.text))
        if token.kind == "Identifier":
            if token.text in ("true", "false", "nil"):
                return new_node("const", {"true": True, "false": False}.get(token.text))
            if self.now == ("Bracket", "("):
                return self.postfix(self.call(token.text, ()))
            return self.postfix(new_node("name", token.text))
        if token == ("Bracket", "["):
            return self.postfix(new_node("array", None, *self.listed("]", self.expression)))
        if token == ("Bracket", "{"):
            pairs = self.listed("}", self.pair)
            return self.postfix(new_node("map", None, *(part for pair in pairs for part in pair.args)))
        raise ConditionError(f"unexpected token {token}")

    def listed(self, closing: str, element: Callable[[], Node]) -> tuple[Node, ...]:
        """Elements up to `closing`; a comma may trail."""
        found: list[Node] = []
        while not self.accept("Bracket", closing):
            if found:
                self.expect("Operator", ",")
                if self.accept("Bracket", closing):
                    break
            found.append(element())
        return tuple(found)

    def pair(self) -> Node:
        if self.now.kind in ("Number", "String", "Identifier"):
            key = new_node("const", self.take().text)
        elif self.now == ("Bracket", "("):
            key = self.expression()
        else:
            raise ConditionError(f"a map key must be a name, a string, a number or in parentheses, found {self.now}")
        self.expect("Operator", ":")
        return new_node("pair", None, key, self.expression())

    def call(self, name: str, given: tuple[Node, ...]) -> Node:
        """`given` is what a pipe hands in first."""
        self.expect("Bracket", "(")
        if name not in _PREDICATES:
            return new_node("call", name, *given, *self.listed(")", self.expression))
        least, most = _PREDICATES[name]
        args = list(given)
        while len(args) < most and not self.accept("Bracket", ")"):
            if len(args) > len(given):
                self.expect("Operator", ",")
            args.append(self.predicate() if args else self.expression())
        else:
            if len(args) == most:
                self.accept("Operator", ",")
                self.expect("Bracket", ")")
        if len(args) < least:
            raise ConditionError(f"expected at least {least} arguments for {name}")
        return new_node("loop", name, *args)

    def predicate(self) -> Node:
        self.predicates += 1
        braced = self.accept("Bracket", "{")
        node = self.expression()
        if braced:
            self.expect("Bracket", "}")
        self.predicates -= 1
        return node

    def postfix(self, node: Node) -> Node:
        while self.now.kind in ("Operator", "Bracket") and self.now.text in (".", "?.", "["):
            optional = self.now.text == "?."
            if self.take().text == "[" or (optional and self.accept("Bracket", "[")):
                node = self.bracketed(node, optional)
                continue
            name = self.take()
            if name.kind != "Identifier" and name.text not in _WORD_OPERATORS:
                raise ConditionError(f"expected name, found {name}")
            chained = node.kind == "chain" or optional
            node = new_node(
                "member", optional, node.args[0] if node.kind == "chain" else node, new_node("const", name.text)
            )
            if self.accept("Bracket", "("):
                node = new_node("method", name.text, node, *self.listed(")", self.expression))
            node = new_node("chain", None, node) if chained else node
        return node

    def bracketed(self, node: Node, optional: bool) -> Node:
        """After `[`: an index or a slice, whose missing ends are nil."""
        nil = new_node("const", None)
        start = nil if self.now == ("Operator", ":") else self.expression()
        if self.accept("Operator", ":"):
            stop = nil if self.now == ("Bracket", "]") else self.expression()
            node = new_node("slice", (start is not nil, stop is not nil), node, start, stop)
        else:
            node = new_node("member", optional, node, start)
            node = new_node("chain", None, node) if optional else node
        self.expect("Bracket", "]")
        return node


def _number(text: str) -> int | float:
    plain = text.replace("_", "").lower()
    try:
        if plain.startswith("0x") or not re.search(r"[.eobx]", plain):
            value: int | float = int(plain, 16 if "x" in plain else 10)
        elif re.search(r"[.e]", plain):
            value = float(plain)
        else:
            value = int(plain, 0)
    except ValueError:
        raise ConditionError(f"invalid number literal {text[:40]!r}") from None
    if value > MOST if isinstance(value, int) else math.isinf(value):
        raise ConditionError(f"number literal {text[:40]!r} is too large")
    return value


TEXT_OPERATORS = ("matches", "contains", "startsWith", "endsWith")
