"""Scalars as yaml.v2 resolves and spells them; a text that is written reads back as itself."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from greenops_pipelines.errors import BadInput
from greenops_pipelines.slo import durations
from greenops_pipelines.slo.windows import Window
from greenops_pipelines.slo.yaml_go import as_text, load, positional, resolve, scalar, shortest, sorted_keys


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("0.2", "0.2"), ("1.0", "1"), ("true", "true"), ("yes", "true"), ("n", "false"), ("0x10", "16"), ("010", "8"),
        ("1_000", "1000"), ("1e3", "1000"), ("1000000.0", "1e+06"), ("0.00001", "1e-05"), ("2026-11-25", "2026-11-25"),
        ("1:30", "1:30"), ("'007'", "007"), ("~", None), ("plain", "plain"), ("18446744073709551615", "18446744073709551615"),
        ("18446744073709551616", "1.8446744073709552e+19"), ("-0b11", "-3"), ("+12", "12"),
    ],
)  # fmt: skip
def test_scalars_become_text_as_sloth_converts_them(written: str, text: str | None) -> None:
    assert as_text(load(f"a: {written}", "f")["a"]) == text


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("99.9", '"99.9"'), ("yes", '"yes"'), ("y", '"y"'), ("", '""'), ("<<", '"<<"'), ("1:30", '"1:30"'), ("1.2.3", "1.2.3"),
        ("2026-11-25", '"2026-11-25"'), ("0o17", '"0o17"'), ("#x", "'#x'"), ("a: b", "'a: b'"), ("a #b", "'a #b'"),
        ("- x", "'- x'"), ("-x", "-x"), ("it's", "it's"), ("'a", "'''a'"), ("a:", "'a:'"), (" a", "' a'"), ("a\tb", r'"a\tb"'),
        ("Ü", "Ü"), ("🔥", r'"\U0001F525"'), ("a\nb", "|-\n    a\n    b"), ("a\nb\n", "|\n    a\n    b"),
        (" a\nb", "|2-\n     a\n    b"), ("a \nb", r'"a \nb"'), ("a\n\nb", "|-\n    a\n\n    b"), ("?", "'?'"), ("?x", "?x"),
        ("---a", "'---a'"), ("@a", "'@a'"), ("{{ $x }}", "'{{ $x }}'"), ("a\x85b", r'"a\Nb"'),
    ],
)  # fmt: skip
def test_a_text_has_one_spelling(text: str, written: str) -> None:
    assert scalar(text, 5, 2) == written


def test_long_texts_break_at_a_single_space_beyond_80_columns() -> None:
    words = "word " * 20
    assert scalar(words.strip(), 0, 0) == "word " * 16 + "word\n  word word word"
    assert scalar("{" + words.strip(), 0, 0) == "'{" + "word " * 15 + "word\n  word word word word'"
    assert "\n" not in scalar("wordx  " * 20 + "x", 0, 0)


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\r\x85\u2028\u2029\ufeff"), max_size=200)


@given(TEXT, st.integers(0, 40))
def test_what_is_written_reads_back(text: str, indent: int) -> None:
    """By a YAML reader that is not ours. Trailing line breaks need the end of the mapping's line."""
    key = " " * indent + "k: "
    nested = "".join(f"{' ' * depth}m:\n" for depth in range(indent))
    read = yaml.load(nested + key + scalar(text, len(key), indent) + "\n", Loader=yaml.BaseLoader)  # noqa: S506
    for _ in range(indent):
        read = read["m"]
    assert read["k"] == text


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_keep_their_value_in_both_forms(number: float) -> None:
    assert float(shortest(number)) == number
    assert float(positional(number)) == number
    assert "e" not in positional(number)


def test_the_order_of_keys_is_natural_with_letters_last() -> None:
    assert sorted_keys(["b", "a10", "a9", "a", "a_x", "ab", "A", "a01", "a1"]) == [
        "A", "a", "a_x", "a1", "a01", "a9", "a10", "ab", "b",
    ]  # fmt: skip


def test_merges_later_keys_and_anchors() -> None:
    document = load("x: &x {a: 1, b: 2}\nm: {<<: *x, b: 3}\nz: 1\nz: 2", "f")
    assert document == {"x": {"a": 1, "b": 2}, "m": {"a": 1, "b": 3}, "z": 2}


def test_tags_run_nothing() -> None:
    with pytest.raises(BadInput, match="found the tag"):
        load("a: !!python/object/apply:os.system ['true']\nb: !!binary eA==", "f")
    assert resolve("!!") == ("str", "!!")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("30d", "30d"),
        ("28d", "4w"),
        ("7d", "1w"),
        ("90m", "1h30m"),
        ("365d", "1y"),
        ("36h", "1d12h"),
        ("0", "0s"),
        ("250ms", "250ms"),
    ],
)
def test_durations_are_spelled_as_prometheus_does(text: str, shown: str) -> None:
    assert durations.text(durations.parse(text)) == shown


@pytest.mark.parametrize("text", ["", "d", "1", "1m1h", "1h1h", "-1d", "1.5h", "99999999y", "5 m"])
def test_durations_that_are_none(text: str) -> None:
    with pytest.raises(BadInput, match="duration: found"):
        durations.parse(text)


def test_the_order_of_operations_decides_the_last_digit_of_a_factor() -> None:
    """`percent x hours / 100 / long hours`, as Go does it: 1.7 % of a week in an hour is 2.856, not 2.8560000000000003."""
    hour, week = durations.parse("1h"), durations.parse("7d")
    assert Window(1.7, durations.parse("5m"), hour).factor(week) == 2.856
