"""expr-lang as conditions use it. The expectations are what expr-lang/expr 1.17.7 answers in Argo Rollouts' environment."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greenops_pipelines.errors import BadInput
from greenops_pipelines.slo import conditions
from greenops_pipelines.slo.conditions import Condition, ConditionError, sample_text

NAN, INF = math.nan, math.inf
TWO = [10.0, 11.0]

TRUE: list[tuple[str, object]] = [
    ("result == true", True),
    ("all(result.service_apdex.values.values, {# > 1})", {"service_apdex": {"values": {"values": [2.0, 2.0]}}}),
    ("2 in result", [2.0, 2.0]),
    ("result > 1", 5.0),
    ("asInt(result) == 1", "1"),
    ("asInt(result) == 1", 1),
    ("asInt(result) == 1", 1.123),
    ("asFloat(result) == 1.1", "1.1"),
    ("asFloat(result) >= 1.1", "1.1"),
    ("asFloat(result) <= 1.1", 1.1),
    ("asFloat(result) == 1", 1),
    ("isInf(result)", INF),
    ("not isNaN(1) and not isInf(-2 * 3)", None),
    ("result >= 0.9 || isNaN(result)", NAN),
    ("result != result", NAN),
    ("not (result[0] in result)", [NAN]),
    ("isNil(result)", None),
    ("isNil(5)", None),
    ("default(result, 3) == 3", None),
    ("default(nil, 3) == 4", 4.0),
    ("10 == 10.0", None),
    ("10 in [10, 11] and 10.0 in [10, 11]", None),
    ("10 not in [11] and not (10 in [])", None),
    ("7 / 2 == 3.5 and 6 / 2 == 3", None),
    ("-7 % 3 == -1", None),
    ("2 ** 3 ** 2 == 512 and 2 ^ 3 == 8", None),
    ("-2 ** 2 == -4", None),
    ("1 / 0 > 5 and -1 / 0 < 0", None),
    ("9223372036854775807 + 1 < 0", None),
    ("0x10 == 16 and 0b11 == 3 and 0o17 == 15 and 1_000 == 1e3 and .5 == 0.5", None),
    ("1 < result < 20", 10.0),
    ("not true or true", None),
    ("true or false and false", None),
    ("5 in 1..10 and len(1..3) == 3 and len(3..1) == 0", None),
    ("result in 1..10", 5.0),
    ("1..3 == [1, 2, 3] and [1, 2,] == [1.0, 2.0]", None),
    ("'a' in {a: 1} and {'a': 1, b: [2]} == {b: [2], a: 1}", None),
    ("'abc' contains 'b' and 'abc' startsWith \"a\" and 'abc' endsWith `c` and 'abc' matches '^a.c$'", None),
    ("'abc' not contains 'x' and 'a' + 'b' == 'ab' and 'a' < 'b'", None),
    (r"'\u0041\x41\101' == 'AAA' and 'it\'s' == `it's` and `a``b` == 'a`b'", None),
    ("len('héé') == 3", None),
    ("result[0] == 10 and result[-1] == 11 and result[len(result) - 1] == 11", TWO),
    ("result[0:1] == [10] and result[:-1] == [10.0] and result[5:] == []", TWO),
    ("result.a.b[0] == result['a'][\"b\"][0]", {"a": {"b": [1.0]}}),
    ("result.b == nil and result['b'] == nil", {"a": 1.0}),
    ("result?.a?.b == nil and result.a?.b.c == nil", {"a": None}),
    ("(result.a ?? 2) > 1 and result.b ?? true", {}),
    ("result ? true : false", True),
    ("result ?: false", True),
    ("result > 1 ? result < 20 : false", 10.0),
    ("sum(result) == 21 and mean(result) == 10.5 and median(result) == 10.5", TWO),
    ("sum(result, # * 2) == 42 and max(result) == 11 and min(result, 3) == 3", TWO),
    ("median([3, 1, 2]) == 2 and mean([]) == 0 and max([]) == nil", None),
    ("abs(-1.5) == 1.5 and round(2.5) == 3 and round(-2.5) == -3 and ceil(1.2) == 2 and floor(-1.2) == -2", None),
    ("int('12') == 12 and int(1.9) == 1 and float('1.5') == 1.5 and float('inf') > 1", None),
    ("string(1.0) == '1' and string(true) == 'true' and string(1e21) == '1e+21' and string(0.00001) == '1e-05'", None),
    ("string([1, 2.5, nil]) == '[1 2.5 <nil>]' and string({b: 1, a: 2}) == 'map[a:2 b:1]'", None),
    ("first(result) == 10 and last(result) == 11 and first([]) == nil", TWO),
    ("find(result, # > 10) == 11 and findIndex(result, # > 10) == 1 and find(result, # > 100) == nil", TWO),
    ("one(result, # > 10) and none(result, # > 100) and any(result, {# > 10}) and all(result, # > 1)", TWO),
    ("count(result, # > 1) == 2 and count([true, false]) == 1", TWO),
    ("len(filter(result, # > 10)) == 1 and map(result, # * 2)[1] == 22 and map(result, #index) == [0, 1]", TWO),
    ("result | filter(# > 10) | len() == 1", TWO),
    ("all(result, .a > 1) and all(result, {#.a > 1})", [{"a": 2.0}]),
    ("any(result, any(#, # > 2))", [[1.0, 2.0], [3.0]]),
    ("len(result) >= 3 && all(result, # > 0.0144)", [0.02, 0.02, 0.02]),
    ("/* why */ true // end", None),
    ("result[5] > 1 || true", TWO),
]

FALSE: list[tuple[str, object]] = [
    ("result == false", True),
    ("result >= 0.95", NAN),
    ("result < 0.95", NAN),
    ("0 / 0 == 0 / 0", None),
    ("isNil(nil)", 5.0),
    ("{a: 1} == {a: 1.0}", None),
    ("1 == nil", None),
    ("result[5] > 1 && false", TWO),
    ("string(100000.0) == '1e+05' or string(1e6) == '1000000'", None),
    ("result.a contains 'a'", {"a": None}),
]

ERRORS: list[tuple[str, object, str]] = [
    ("1", True, "expected bool, but got int"),
    ("result", 1.5, "expected bool, but got float64"),
    ("'a'", None, "expected bool, but got string"),
    ("result", TWO, "expected bool, but got []float64"),
    ("result.Name() == 'hi'", True, "type bool has no method Name"),
    ("asInt(result) == 1.1", "1.1", 'strconv.ParseInt: parsing "1.1": invalid syntax'),
    ("asInt(result) == 1", "notint", "invalid syntax"),
    ("asInt(result) == 1", True, "asInt() not supported on bool true"),
    ("asFloat(result) == 1.1", "NotANum", 'strconv.ParseFloat: parsing "NotANum": invalid syntax'),
    ('asFloat(result) == "1.1"', "1.1", "invalid operation: == (mismatched types float64 and string)"),
    ("result[5] > 1", TWO, "index out of range: 5 (array length is 2)"),
    ("result[-3] > 1", TWO, "index out of range: -1 (array length is 2)"),
    ("result[0] >= 0.95", [], "index out of range: 0 (array length is 0)"),
    ("result[0] >= 0.95", None, "type unknown[int] is undefined"),
    ("result > 1", None, "invalid operation: > (mismatched types unknown and int)"),
    ("result > 1", TWO, "invalid operation: > (mismatched types []float64 and int)"),
    ("result == 'a'", 5.0, "invalid operation: == (mismatched types float64 and string)"),
    ("result == 5 || result == 'a'", 5.0, "invalid operation: == (mismatched types float64 and string)"),
    ("result.a > 1", {"a": "x"}, "invalid operation: string > int"),
    ("result.a.b > 1", {"a": None}, "cannot fetch b from <nil>"),
    ("result.x > 1", TWO, "array elements can only be selected using an integer (got string)"),
    ("result > 1", ["a"], "invalid operation: > (mismatched types []interface {} and int)"),
    ("result[-1] > 1", None, "type unknown[int] is undefined"),
    ("result.Name() == 'hi'", None, "type nil has no field Name"),
    ("isNaN(result)", TWO, "cannot use []float64 as argument (type float64) to call isNaN"),
    ("isInf(result)", None, "cannot use nil as argument (type float64) to call isInf"),
    ("isNaN(result.a)", {"a": 5}, "interface conversion: interface {} is int, not float64"),
    ("result % 2 == 0", 5.0, "invalid operation: % (mismatched types float64 and int)"),
    ("result.a % 0 == 1", {"a": 1}, "integer divide by zero"),
    ("result.a in ['a']", {"a": 1.0}, "cannot use float64"),
    ("findIndex(result, # > 100) == 0", TWO, "interface conversion: interface {} is nil, not int"),
    ("all(result, true)", 5.0, "builtin all takes only array (got float64)"),
    ("all(result, # + 1)", TWO, "predicate should return boolean (got float64)"),
    ("result.a && true", {"a": 5}, "expected bool, but got int"),
    ("!result.a", {"a": None}, "interface conversion: interface {} is nil, not bool"),
    ("len(1..10000000) > 1", None, "memory budget exceeded"),
    ("all(1..9999, all(1..9999, true))", None, "memory budget exceeded"),
]

REFUSED = [
    ("a == true", "unknown name a"),
    ("invalidVariable", "unknown name invalidVariable"),
    ("foo(1)", "unknown name foo"),
    ("result > ", "unexpected token EOF"),
    ("(result > 1", "unexpected token EOF"),
    ("", "unexpected token EOF"),
    ("true true", 'unexpected token Identifier("true")'),
    ("result >> 1", 'unexpected token Operator(">")'),
    ("1abc > 1", "bad number syntax"),
    ("'abc", "literal not terminated"),
    (r"'\q' == ''", "invalid char escape"),
    ("result @ 1", "unrecognized character '@'"),
    ("# > 1", 'unexpected token Operator("#")'),
    ("all(result)", "expected at least 2 arguments"),
    ("all(result, #x > 1)", "unknown pointer #x"),
    ("len() > 1", "not enough arguments"),
    ("isNaN(1, 2)", "too many arguments"),
    ("'a' + 1 == 'a1'", "invalid operation: + (mismatched types string and int)"),
    ("result ?? 3 == 3", "cannot be mixed"),
    ("true && 5", "invalid operation: && (mismatched types bool and int)"),
    ("1 ? true : false", "non-bool expression (type int) used as condition"),
    ("9223372036854775808 > 1", "too large"),
    ("1e400 > 1", "too large"),
    ("1 % 0 == 1", "integer divide by zero"),
    ("result matches '('", "error parsing regexp"),
    ("result matches '(a+)+$'", "no repeated group"),
    ("let x = 1; x > 0", 'unexpected token Operator("let")'),
]


@pytest.mark.parametrize(("expression", "result"), TRUE)
def test_holds(expression: str, result: object) -> None:
    assert conditions.compile(expression).evaluate(result) is True


@pytest.mark.parametrize(("expression", "result"), FALSE)
def test_does_not_hold(expression: str, result: object) -> None:
    assert conditions.compile(expression).evaluate(result) is False


@pytest.mark.parametrize(("expression", "result", "words"), ERRORS)
def test_fails_on_the_result_in_gos_words(expression: str, result: object, words: str) -> None:
    with pytest.raises(ConditionError) as caught:
        conditions.compile(expression).evaluate(result)
    assert words in str(caught.value)


@pytest.mark.parametrize(("expression", "words"), REFUSED)
def test_is_refused_before_any_result(expression: str, words: str) -> None:
    with pytest.raises(BadInput) as caught:
        conditions.compile(expression)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "unit", ["(", "[", "!", "-", "{a:", "all(result,", "true?", "1+", "1<", "1**", "result.a.", "result[0]", "x ?? "]
)
def test_no_nesting_ends_the_process(unit: str) -> None:
    with pytest.raises(ConditionError):
        conditions.compile((unit * 10_000)[:9_990] + "1")
    with pytest.raises(ConditionError, match="found 30001 characters"):
        conditions.compile("1" * 30_001)


def test_sixty_levels_and_two_hundred_operations_are_enough() -> None:
    assert conditions.compile("(" * 50 + "true" + ")" * 50).evaluate()
    assert conditions.compile(" + ".join(["1"] * 190) + " == 190").evaluate()


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (10.0, "10"),
        (-0.5, "-0.5"),
        (0.1, "0.1"),
        (-0.0, "-0"),
        (1e21, "1000000000000000000000"),
        (1e-7, "0.0000001"),
        (NAN, "NaN"),
        (INF, "+Inf"),
        (-INF, "-Inf"),
    ],
)
def test_a_sample_is_printed_as_gos_client_does(value: float, shown: str) -> None:
    assert sample_text(value) == shown


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_printed_sample_reads_back(value: float) -> None:
    shown = sample_text(value)
    assert float(shown) == value
    assert "e" not in shown


def answer(condition: Condition, result: object) -> bool | None:
    try:
        return condition.evaluate(result)
    except ConditionError:
        return None


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=2),
    max_leaves=6,
)
WORDS = st.sampled_from(
    [
        "result",
        "#",
        ".",
        ".a",
        "?.",
        "??",
        "?",
        ":",
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        ",",
        "1",
        "2.5",
        "'a'",
        "nil",
        "true",
        "not",
        "in",
        "and",
        "||",
        "==",
        "!=",
        "<",
        ">=",
        "+",
        "-",
        "*",
        "/",
        "%",
        "**",
        "..",
        "|",
        "contains",
        "matches",
        "len(",
        "all(",
        "any(",
        "filter(",
        "sum(",
        "max(",
        "isNaN(",
        "default(",
        "string(",
        "asInt(",
    ]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(WORDS, max_size=12).map(" ".join) | st.text(max_size=30), VALUES)
def test_any_text_over_any_result_is_answered_or_refused(text: str, result: object) -> None:
    try:
        condition = conditions.compile(text)
    except ConditionError:
        return
    assert answer(condition, result) in (True, False, None)


@given(st.lists(st.floats(), max_size=6), st.floats(-1e6, 1e6))
def test_quantifiers_agree_with_each_other(values: list[float], threshold: float) -> None:
    above = f"# > {sample_text(threshold)}"
    assert answer(conditions.compile(f"all(result, {above})"), values) == answer(
        conditions.compile(f"none(result, not ({above}))"), values
    )
    assert answer(conditions.compile(f"any(result, {above})"), values) == answer(
        conditions.compile(f"count(result, {above}) > 0"), values
    )
    assert answer(conditions.compile(f"one(result, {above})"), values) == answer(
        conditions.compile(f"len(filter(result, {above})) == 1"), values
    )


@given(st.floats(), st.floats())
def test_comparisons_with_nan_never_hold(left: float, right: float) -> None:
    for operator in ("<", ">", "<=", ">=", "=="):
        held = conditions.compile(f"result[0] {operator} result[1]").evaluate([left, right])
        assert not held or not (math.isnan(left) or math.isnan(right))
