"""Every way an `ops/` file can be wrong, and the one line an operator reads about it."""

from __future__ import annotations

import os
from datetime import date
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, field_validator

from greenops_pipelines import ops
from greenops_pipelines.errors import ConfigurationError
from greenops_pipelines.ops import OpsModel, tree


class Tier(StrEnum):
    GOLD = "gold"
    SILVER = "silver"


class Pause(OpsModel):
    do: Literal["pause"]
    minutes: int = Field(ge=1)


class Check(OpsModel):
    do: Literal["check"]
    metric: str


class Item(OpsModel):
    name: str = Field(min_length=2, max_length=8)
    ratio: float = Field(1.0, ge=1)
    count: int = Field(0, gt=-1, lt=100)
    live: bool = False
    since: date | None = None
    tier: Tier = Tier.GOLD
    price: Decimal = Decimal(0)
    zone: str = Field("DE", pattern="^[A-Z]+$", examples=["DE"])
    steps: tuple[Annotated[Pause | Check, Field(discriminator="do")], ...] = ()
    limit: int | list[int] | None = None
    labels: dict[str, str] = Field(default_factory=dict)

    @field_validator("name", mode="after")
    @classmethod
    def _not_reserved(cls, value: str) -> str:
        if value == "default":
            raise ValueError("a name other than 'default', which is reserved")
        return value


class File(OpsModel):
    items: tuple[Item, ...] = Field(min_length=1)


@pytest.fixture(autouse=True)
def _in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ops").mkdir()
    monkeypatch.chdir(tmp_path)


def refusal(content: str | bytes, path: str = "ops/items.yaml") -> str:
    Path(path).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigurationError) as error:
        ops.read(Path(path), File)
    return str(error.value)


def item(*lines: str) -> str:
    """A file whose item has these fields, the first of them in line 3."""
    return "\n".join(["items:", "  - name: one", *(f"    {line}" for line in lines), ""])


def test_values_arrive_as_their_types(tmp_path: Path) -> None:
    text = item(
        "ratio: 2", "count: 1_0", "live: yes", "since: 2026-01-31", "tier: silver", "price: '1.10'", "zone: 'NO'",
        "steps: [{do: pause, minutes: 2}, {do: check, metric: errors}]", "limit: [1, 2]", "labels: {'010': a}",
    )  # fmt: skip
    Path("ops/items.yaml").write_text(text)
    (only,) = ops.read(Path("ops/items.yaml"), File).items
    assert only == Item(
        name="one", ratio=2.0, count=10, live=True, since=date(2026, 1, 31), tier=Tier.SILVER, price=Decimal("1.10"),
        zone="NO", steps=(Pause(do="pause", minutes=2), Check(do="check", metric="errors")), limit=[1, 2],
        labels={"010": "a"},
    )  # fmt: skip
    assert isinstance(only.ratio, float)


def test_an_alias_is_the_value_it_names() -> None:
    Path("ops/items.yaml").write_text("items:\n  - &one {name: one}\n  - *one\n")
    assert [only.name for only in ops.read(Path("ops/items.yaml"), File).items] == ["one", "one"]


@pytest.mark.parametrize(
    ("field", "line"),
    [
        ("ratio: abc", "items[0].ratio: found 'abc', allowed: a number >= 1"),
        ("ratio: 0.5", "items[0].ratio: found 0.5, allowed: a number >= 1"),
        ('ratio: "1.35"', "items[0].ratio: found '1.35', allowed: a number >= 1; take the quotes away"),
        ("ratio: 1e3", "items[0].ratio: found '1e3', allowed: a number >= 1; write 1000.0"),
        ("ratio: yes", "items[0].ratio: found yes (in YAML: true), allowed: a number >= 1"),
        ("ratio:", "items[0].ratio: found no value, allowed: a number >= 1"),
        ("ratio: [1]", "items[0].ratio: found a list, allowed: a number >= 1"),
        ("ratio: .nan", "items[0].ratio: found .nan, allowed: a decimal number, or text in quotes"),
        ("ratio: -.INF", "items[0].ratio: found -.INF, allowed: a decimal number, or text in quotes"),
        ("ratio: 1.0e+999", "items[0].ratio: found 1.0e+999, allowed: a decimal number, or text in quotes"),
        ("ratio: 1:30.5", "items[0].ratio: found 1:30.5 (in YAML: 90.5), allowed: a decimal number, or text in quotes"),
        ("count: 010", "items[0].count: found 010 (in YAML: 8), allowed: a decimal number, or text in quotes"),
        ("count: 10:30", "items[0].count: found 10:30 (in YAML: 630), allowed: a decimal number, or text in quotes"),
        ("count: 0x1F", "items[0].count: found 0x1F (in YAML: 31), allowed: a decimal number, or text in quotes"),
        ("count: 0b11", "items[0].count: found 0b11 (in YAML: 3), allowed: a decimal number, or text in quotes"),
        ("count: " + "9" * 5000, "items[0].count: found 5000 digits, allowed: at most 30"),
        ("count: 100", "items[0].count: found 100, allowed: a whole number > -1 and < 100"),
        ("count: 1.0", "items[0].count: found 1.0, allowed: a whole number > -1 and < 100"),
        ("live: 1", "items[0].live: found 1, allowed: true or false"),
        ("since: 2026-02-30", "items[0].since: found '2026-02-30', allowed: a date such as 2026-01-31 or no value"),
        ("tier: Gold", "items[0].tier: found 'Gold', allowed: one of 'gold', 'silver'"),
        ("zone: NO", "items[0].zone: found NO (in YAML: false), allowed: text that matches ^[A-Z]+$, such as DE; put it in quotes"),
        ("zone: 7", "items[0].zone: found 7, allowed: text that matches ^[A-Z]+$, such as DE; put it in quotes"),
        ("zone: de", "items[0].zone: found 'de', allowed: text that matches ^[A-Z]+$, such as DE"),
        ("steps: [{do: pause, minutes: 0}]", "items[0].steps[0].minutes: found 0, allowed: a whole number >= 1"),
        ("steps: [{do: check}]", "items[0].steps[0].metric: found nothing, allowed: text"),
        ("limit: x", "items[0].limit: found 'x', allowed: a whole number or a list or no value"),
        ("labels: {a.b: 1}", "items[0].labels['a.b']: found 1, allowed: text; put it in quotes"),
        ("labels: {no: x}", "items[0].labels: found no (in YAML: false) as a key, allowed: text; put it in quotes"),
        ("labels: {[a]: x}", "items[0].labels: found a list as a key, allowed: text; write the fields out"),
        ("<<: {live: true}", "items[0]: found '<<' as a key, allowed: text; write the fields out"),
        ("name: two", "items[0].name: found a second time, first in line 2, allowed: once"),
        ("live: !!python/name:os.system x", "items[0].live: found the tag !!python/name:os.system, allowed: plain values without a tag"),
        ("live: !secret x", "items[0].live: found the tag !secret, allowed: plain values without a tag"),
        ("labels: !!set {a}", "items[0].labels: found the tag !!set, allowed: plain values without a tag"),
        ("live: !!bool maybe", "items[0].live: found the tag !!bool, allowed: plain values without a tag"),
        ("count: !!int x", "items[0].count: found x, allowed: a decimal number, or text in quotes"),
        (r'zone: "\ud800"', "items[0].zone: found half of a surrogate pair, allowed: Unicode text"),
    ],
)  # fmt: skip
def test_one_wrong_field_is_one_line(field: str, line: str) -> None:
    assert refusal(item(field)) == f"ops/items.yaml:3: {line}"


def test_an_unknown_field_names_the_one_that_was_probably_meant() -> None:
    known = "name, ratio, count, live, since, tier, price, zone, steps, limit, labels"
    expected = f"items[0].ration: found an unknown field, allowed: {known}; did you mean ratio?"
    assert refusal(item("ration:", "  x: 1")) == f"ops/items.yaml:3: {expected}"
    assert refusal(item("qqq: 1")) == f"ops/items.yaml:3: items[0].qqq: found an unknown field, allowed: {known}"


def test_a_validators_own_words_are_what_is_allowed() -> None:
    expected = (
        "ops/items.yaml:1: items[0].name: found 'default', allowed: a name other than 'default', which is reserved"
    )
    assert refusal("items: [{name: default}]") == expected


def test_a_missing_field_is_told_at_its_mapping() -> None:
    expected = "ops/items.yaml:3: items[0].name: found nothing, allowed: text of at least 2 and at most 8 characters"
    assert refusal("# comment\nitems:\n  - ratio: 2\n") == expected


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("", ":1: found an empty file, allowed: a mapping with the fields items"),
        ("# only a comment\n---\n", ":3: top level: found no value, allowed: a mapping with the fields items"),
        ("- 1\n", ":1: top level: found a list, allowed: a mapping with the fields items"),
        ("items: []", ":1: items: found an empty list, allowed: a list of at least 1 item"),
        ("items: {a: 1}", ":1: items: found a mapping, allowed: a list of at least 1 item"),
        ("items: []\nitems: []", ":2: items: found a second time, first in line 1, allowed: once"),
        (b"items: []\n# caf\xe9\n", ":2: found the byte 0xe9, allowed: text in UTF-8"),
        ("items:\n\n# \x07", ":3: found the control character U+0007, allowed: printable text"),
        ("#" * 1024 * 1024 + "\n", ": found more than 1048576 bytes, allowed: at most that"),
        ("items: &a [*a]", ":1: found aliases over 32 levels deep, or one inside itself, allowed: values written out"),
    ],
)  # fmt: skip
def test_files_that_are_wrong_as_a_whole(content: str | bytes, line: str) -> None:
    assert refusal(content) == f"ops/items.yaml{line}"


@pytest.mark.parametrize(
    ("content", "line", "problem"),
    [
        ("items:\n  - name: [a\n    b: c\n", 3, "expected ',' or ']', but got ':'"),
        ("items:\n\t- a\n", 2, r"character '\t' that cannot start any token"),
        ("a: 1\n---\nb: 2\n", 2, "but found another document"),
        ("a: *nowhere\n", 1, "undefined alias 'nowhere'"),
        ("a: 'x\n", 2, "unexpected end of stream"),
        ("\n" + "[" * 200_000, 2, "more than 32 levels of nesting"),
        ("{a: " * 100_000, 1, "more than 32 levels of nesting"),
    ],
)
def test_syntax_errors_name_the_line(content: str, line: int, problem: str) -> None:
    tail = "allowed: one valid document, at most 32 levels deep"
    assert refusal(content) == f"ops/items.yaml:{line}: found unusable YAML ({problem}), {tail}"


def test_32_levels_are_taken_and_33_are_not() -> None:
    deep = tree.compose("[" * 32 + "1" + "]" * 32, "f")
    assert deep is not None
    assert str(tree.build(deep, "f")[0]).count("[") == 32
    with pytest.raises(ConfigurationError, match="more than 32 levels"):
        tree.compose("[" * 33 + "1" + "]" * 33, "f")


def test_a_billion_laughs_are_cut_short() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]
    assert refusal("\n".join(lines)) == "ops/items.yaml: found over 100000 values, aliases written out, allowed: fewer"


def test_no_tag_runs_code(tmp_path: Path) -> None:
    refusal(f"items: !!python/object/apply:os.mkdir ['{tmp_path}/made']")
    assert not (tmp_path / "made").exists()


def test_twenty_faults_are_shown_in_the_order_of_the_file_and_the_rest_counted() -> None:
    lines = refusal("items:\n" + "  - {name: one, ratio: x}\n" * 25).splitlines()
    assert lines[:-1] == [
        f"ops/items.yaml:{n + 2}: items[{n}].ratio: found 'x', allowed: a number >= 1" for n in range(20)
    ]
    assert lines[-1] == "... and 5 more"


def test_what_is_found_is_shown_short_and_in_one_line() -> None:
    assert refusal(item(f'zone: "{"a" * 500}"')).startswith(f"ops/items.yaml:3: items[0].zone: found '{'a' * 56}..., ")
    assert refusal(item(r'zone: "a\nb\e"')).count("\n") == 0


def test_files_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as missing:
        ops.read(Path("ops/none.yaml"), File)
    assert str(missing.value) == "ops/none.yaml: found no such file, allowed: a YAML file; create or restore it"
    os.mkfifo("ops/pipe.yaml")
    for path in ("ops", "ops/pipe.yaml"):
        with pytest.raises(ConfigurationError) as other:
            ops.read(Path(path), File)
        assert str(other.value) == f"{path}: found something that is not a file, allowed: a YAML file"
    Path("ops/loop.yaml").symlink_to("loop.yaml")
    with pytest.raises(ConfigurationError, match=r"^ops/loop\.yaml: found 'Too many levels of symbolic links'"):
        ops.read(Path("ops/loop.yaml"), File)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file() -> None:
    Path("ops/items.yaml").touch(0o000)
    with pytest.raises(ConfigurationError, match=r"^ops/items\.yaml: found 'Permission denied', allowed: a file that"):
        ops.read(Path("ops/items.yaml"), File)


def test_paths_outside_the_working_directory_stay_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path / "ops")
    assert refusal("- 1", path=f"{tmp_path}/elsewhere.yaml").startswith(f"{tmp_path}/elsewhere.yaml:1: top level")


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm() -> None:
    Path("ops/items.yaml").write_bytes(b"\xef\xbb\xbfitems:\r\n  - name: one\r\n")
    assert ops.read(Path("ops/items.yaml"), File).items[0].name == "one"
    assert refusal(b"\xef\xbb\xbfitems:\r\n  - name: 1\r\n").startswith("ops/items.yaml:2: items[0].name: found 1")


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**15), 10**15) | st.text(max_size=20)
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@given(PLAIN)
def test_whatever_is_plain_comes_back_as_it_was(value: object) -> None:
    text = yaml.safe_dump(value)
    root = tree.compose(text, "f")
    assert root is not None
    assert tree.build(root, "f") == (value, [])


@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_no_bytes_end_in_anything_but_a_refusal(content: bytes) -> None:
    path = Path("fuzz.yaml")
    path.write_bytes(content)
    with pytest.raises(ConfigurationError) as error:
        ops.read(path, File)
    assert str(error.value).startswith("fuzz.yaml")
