"""A file of charges against the rules of FOCUS: every rule with its status, the rows that break it, three examples.

All row rules are evaluated in one scan; a second one looks up examples, for the rules that failed only; rules about groups of
rows cost one narrow scan per key. Not here: the rules (`rules.py`), reading (`reading.py`).
"""

from __future__ import annotations

import difflib
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import duckdb

from greenops_pipelines.cost.columns import SPECS, focus_columns, spec_of
from greenops_pipelines.cost.reading import Opened, opened
from greenops_pipelines.cost.rules import Rule, rules_of
from greenops_pipelines.cost.vocabulary import CATEGORIES, KEYED, Vocabulary
from greenops_pipelines.errors import BadInput
from greenops_pipelines.lake.catalog import identifier

Status = Literal["passed", "failed", "not applicable"]
STATUSES: tuple[Status, ...] = ("passed", "failed", "not applicable")
EXAMPLES = 3
_RULES_PER_QUERY = 60
_BITS = 62
_SELECTIVE = re.compile(r"\bCh?[A-Za-z]+ = '(Credit|Purchase|Tax|Used|Unused)'")


@dataclass(frozen=True)
class Outcome:
    """What became of one rule. `failing_rows` of a rule about the file's columns are all rows of the file."""

    rule: Rule
    status: Status
    failing_rows: int = 0
    examples: tuple[Mapping[str, Any], ...] = ()
    reason: str = ""


@dataclass(frozen=True)
class Validation:
    """A file's rows and the outcome of every rule of `spec`, in the order of the rules."""

    file: str
    spec: str
    rows: int
    outcomes: tuple[Outcome, ...]
    unknown_columns: tuple[str, ...] = ()

    @property
    def counts(self) -> dict[Status, int]:
        """Rules per status."""
        return {status: sum(o.status == status for o in self.outcomes) for status in STATUSES}

    @property
    def failed(self) -> list[Outcome]:
        """Rules that failed; those that MUST hold first."""
        return sorted((o for o in self.outcomes if o.status == "failed"), key=lambda o: not o.rule.is_mandatory)

    @property
    def conforms(self) -> bool:
        """Whether every rule that MUST hold does."""
        return not any(o.rule.is_mandatory for o in self.failed)

    def as_document(self) -> dict[str, Any]:
        """For scripts."""
        return {
            "file": self.file,
            "spec": self.spec,
            "rows": self.rows,
            "conforms": self.conforms,
            "counts": self.counts,
            "rules": [
                {
                    "id": o.rule.id,
                    "level": o.rule.level,
                    "status": o.status,
                    "failing_rows": o.failing_rows,
                    "examples": list(o.examples),
                    "text": o.rule.text,
                    **({"reason": o.reason} if o.reason else {}),
                }
                for o in self.outcomes
            ],
        }


@dataclass
class _Found:
    """What the scan found, by the rule's identifier."""

    failing: dict[str, int] = field(default_factory=dict)
    applicable: dict[str, int] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)
    """SQL over the rows that is true for one that breaks the rule."""


def validate(path: Path, spec: str | None = None, only: Sequence[str] = ()) -> Validation:
    """The file at `path` against FOCUS `spec`; by default the version that its columns point to.

    `only` names rules to ask; those that they name are asked with them. Raises `BadInput` where the file cannot be read, or the
    version or a rule is unknown.
    """
    if spec is not None and spec not in SPECS:
        raise BadInput(f"--spec: found {spec!r}, allowed: {', '.join(SPECS)}")
    with opened(path) as file:
        version = spec or spec_of(file.types)
        return _validated(file, version, _chosen(rules_of(version), only, version))


def _chosen(rules: list[Rule], only: Sequence[str], spec: str) -> list[Rule]:
    if not only:
        return rules
    by_id = {rule.id: rule for rule in rules}
    unknown = [name for name in only if name not in by_id]
    if unknown:
        near = difflib.get_close_matches(unknown[0], by_id, 3)
        raise BadInput(
            f"--rule: found {unknown[0]}, allowed: a rule of FOCUS {spec}{', such as ' + ', '.join(near) if near else ''}"
        )
    pending, wanted = list(only), set()
    while pending:
        name = pending.pop()
        if name in by_id and name not in wanted:
            wanted.add(name)
            pending += by_id[name].names if by_id[name].kind == "all" else ()
    return [rule for rule in rules if rule.id in wanted]


def _validated(file: Opened, spec: str, rules: list[Rule]) -> Validation:
    words = Vocabulary(file.types, file.is_text)
    file.connection.execute("create macro select_finite(x) as case when isfinite(x) then x end")
    file.connection.execute(f"create view charges as {words.source()}")
    file.connection.execute(f"create view numbered_charges as {words.source(is_numbered=True)}")
    asked = [r for r in rules if r.kind in ("row", "group") and words.is_answerable(r) and _concerns(r, words)]
    rows, found = _scan(file.connection, words, asked)
    outcomes = {r.id: _outcome(r, words, found, rows) for r in rules if r.kind != "all"}
    _combine(rules, outcomes, rows)
    _add_examples(file.connection, words, rules, outcomes, found)
    unknown = tuple(n for n in file.types if n not in focus_columns() and not n.startswith("x_"))
    return Validation(file.name, spec, rows, tuple(outcomes[r.id] for r in rules), unknown)


def _concerns(rule: Rule, words: Vocabulary) -> bool:
    return all(words.shows(criterion) for criterion in rule.criteria)


def _scan(connection: duckdb.DuckDBPyConnection, words: Vocabulary, rules: Sequence[Rule]) -> tuple[int, _Found]:
    """One scan of the file for all rules: the number of rows, and what was found.

    A rule about a row is split into its condition and its check. What cannot be told from the columns of few values and from
    nulls is computed per row, as one bit; then the rows are counted per combination of those columns, nulls and bits. There are
    a few hundred of them, on which the rules are evaluated. Rules about groups ride along as further grouping sets.
    """
    bits = _Bits(words)
    of_rows = {r.id: bits.rule(r) for r in rules if r.kind == "row"}
    of_groups = {r.id: _Group(r, words) for r in rules if r.kind == "group"}
    sets = {"rows": [*CATEGORIES, *(f"keys:{name}" for name in KEYED)]}
    for group in of_groups.values():
        sets[group.key] = list(dict.fromkeys([*sets.get(group.key, [group.key]), *group.columns]))
    summed = sorted({name for group in of_groups.values() for name in group.summed})
    named = list(dict.fromkeys(name for names in sets.values() for name in names))
    aggregates = [
        "count(*) as n",
        *(f"sum({identifier(f'n:{name}')}) as {identifier(f'n:{name}')}" for name in summed),
        'min("t:ChargePeriodStart") as first',
        'max("t:ChargePeriodEnd") as last',
    ]
    # m0 is grouped in the first set only: whoever asks for a set knows it by the columns that it does not have.
    grouping_sets = ", ".join(
        "(" + ", ".join([*map(identifier, names), *(bits.masks if key == "rows" else [])]) + ")"
        for key, names in sets.items()
    )
    connection.execute(
        f"create temp table scanned as select {', '.join(map(identifier, named))}, {', '.join(bits.masks)}, "
        f"grouping({', '.join(map(identifier, named))}) as g, {', '.join(aggregates)} "
        f"from (select *, {bits.packed} from charges) group by grouping sets ({grouping_sets})"
    )
    level = {
        key: sum(1 << (len(named) - 1 - n) for n, name in enumerate(named) if name not in names)
        for key, names in sets.items()
    }
    found = _Found()
    _count_rows(connection, rules, of_rows, bits, level["rows"], found)
    for rule in rules:
        if rule.kind == "row":
            when = words.sql(rule.when) if rule.when else "true"
            found.broken[rule.id] = f"(({when}) and not coalesce(({words.sql(rule.check)}), false))"
        else:
            _count_groups(connection, rule, of_groups[rule.id], level[of_groups[rule.id].key], found)
    total = connection.sql(f"select coalesce(sum(n), 0)::bigint from scanned where g = {level['rows']}").fetchall()[0][
        0
    ]
    return int(total), found


def _count_groups(connection: duckdb.DuckDBPyConnection, rule: Rule, group: _Group, level: int, found: _Found) -> None:
    table, key = identifier(f"group:{rule.id}"), identifier(group.key)
    connection.execute(
        f"create temp table {table} as select {key} as key, coalesce(sum(n) filter (where {group.when}), 0)::bigint as n, "
        f"coalesce(({group.holds}), true) as holds from scanned where g = {level} and {key} is not null group by {key}"
    )
    broken, rows = connection.sql(
        f"select coalesce(sum(n) filter (where not holds), 0)::bigint, coalesce(sum(n), 0)::bigint from {table}"
    ).fetchall()[0]
    found.failing[rule.id], found.applicable[rule.id] = broken, rows
    found.broken[rule.id] = f"(({group.when}) and {key} in (select key from {table} where not holds))"


class _Bits:
    """What is computed per row, one bit each: nulls, and expressions that need more than the columns of few values."""

    def __init__(self, words: Vocabulary) -> None:
        self._words = words
        self._bits: dict[str, str] = {
            f"null:{name}": identifier(f"null:{name}") for name in focus_columns() if name in words.present
        }
        self._named: dict[str, str] = {}

    def rule(self, rule: Rule) -> tuple[str, str]:
        """A rule's condition and check as SQL over the combinations."""
        when = self._sql(rule.when) if rule.when else "true"
        if _SELECTIVE.search(rule.when) and self._words.is_simple(rule.when) and not self._words.is_simple(rule.check):
            # A condition that few rows meet: its check is worked out for those alone.
            return when, self._bit(
                f"case when {self._words.sql(rule.when)} then {self._words.sql(rule.check)} else true end"
            )
        return when, self._sql(rule.check)

    def _sql(self, expression: str) -> str:
        if self._words.is_simple(expression):
            return self._words.over_profile(expression)
        if parts := self._words.split_every(expression):
            few, rest = parts
            return few if rest == "true" else f"({few}) and {self._bit(rest)}"
        sql = self._words.sql(expression)
        return sql if sql in ("true", "false") else self._bit(sql)

    def _bit(self, sql: str) -> str:
        if sql not in self._named:
            self._named[sql] = f"bit:{len(self._named)}"
            self._bits[self._named[sql]] = f"coalesce(({sql}), false)"
        return identifier(self._named[sql])

    @property
    def masks(self) -> list[str]:
        """Names of the columns that hold the bits."""
        return [f"m{n}" for n in range(max(1, -(-len(self._bits) // _BITS)))]

    @property
    def packed(self) -> str:
        """SQL of those columns."""
        listed = list(self._bits.values())
        parts = [listed[n * _BITS : (n + 1) * _BITS] for n in range(len(self.masks))]
        return ", ".join(
            (" + ".join(f"(({sql})::bigint << {place})" for place, sql in enumerate(part)) or "0") + f" as m{n}"
            for n, part in enumerate(parts)
        )

    @property
    def unpacked(self) -> str:
        """SQL of the bits, by name, from those columns; what the file lacks is null."""
        known = [f"((m{n // _BITS} >> {n % _BITS}) & 1) = 1 as {identifier(name)}" for n, name in enumerate(self._bits)]
        absent = [
            f"true as {identifier(f'null:{name}')}" for name in focus_columns() if name not in self._words.present
        ]
        return ", ".join([*known, *absent])


class _Group:
    """A rule about the rows of one key: "key: condition". The condition is asked of the combinations of the columns it names."""

    def __init__(self, rule: Rule, words: Vocabulary) -> None:
        self.key, _, condition = rule.check.partition(": ")
        self.when = words.sql(rule.when) if rule.when else "true"
        self.summed = [name for name in words.columns(condition) if focus_columns()[name].type == "decimal"]
        named = [*words.columns(condition), *words.columns(rule.when)]
        if "is_partial()" in condition:
            named += ["ChargeCategory", "CommitmentDiscountStatus"]
        self.columns = [name for name in dict.fromkeys(named) if name not in self.summed]
        # `is_partial()`: the file holds a part of the commitment's time only, so that its sums cannot meet.
        bought = "filter (where \"ChargeCategory\" = 'Purchase')"
        used = "filter (where \"CommitmentDiscountStatus\" in ('Used', 'Unused'))"
        partial = f"coalesce(min(first) {bought} <> min(first) {used} or max(last) {bought} <> max(last) {used}, true)"
        sql = words.sql(condition.replace("is_partial()", "IS_PARTIAL").replace("count(*)", "sum(n)"))
        self.holds = sql.replace("IS_PARTIAL", partial)


def _count_rows(
    connection: duckdb.DuckDBPyConnection,
    rules: Sequence[Rule],
    of_rows: Mapping[str, tuple[str, str]],
    bits: _Bits,
    level: int,
    found: _Found,
) -> None:
    names = ", ".join(map(identifier, [*CATEGORIES, *(f"keys:{name}" for name in KEYED)]))
    connection.execute(
        f"create temp table profile as select {names}, {bits.unpacked}, n from scanned where g = {level}"
    )
    ids = [r.id for r in rules if r.id in of_rows]
    for begin in range(0, len(ids), _RULES_PER_QUERY):
        part = ids[begin : begin + _RULES_PER_QUERY]
        sql = ", ".join(
            f"coalesce(sum(n) filter (where {when}), 0)::bigint as a{i}, "
            f"coalesce(sum(n) filter (where ({when}) and not coalesce(({check}), false)), 0)::bigint as f{i}"
            for i, (when, check) in enumerate(of_rows[name] for name in part)
        )
        answer = connection.sql(f"select {sql} from profile").to_arrow_table().to_pylist()[0]
        for i, name in enumerate(part):
            found.applicable[name], found.failing[name] = answer[f"a{i}"], answer[f"f{i}"]


def _outcome(rule: Rule, words: Vocabulary, found: _Found, rows: int) -> Outcome:
    if not _concerns(rule, words):
        return Outcome(
            rule, "not applicable", reason=f"nothing in the file shows {' and '.join(rule.criteria).lower()}"
        )
    if rule.kind == "present":
        is_there = rule.check in words.present
        return Outcome(rule, "passed" if is_there else "failed", 0 if is_there else rows)
    if rule.kind == "column":
        bad = _misnamed(rule.check, words)
        shown = tuple({"column": name} for name in bad[:EXAMPLES])
        return Outcome(rule, "failed" if bad else "passed", rows if bad else 0, shown)
    if rule.id not in found.failing:
        return Outcome(rule, "not applicable", reason="the file lacks a column that it speaks of")
    if not found.applicable[rule.id]:
        return Outcome(rule, "not applicable", reason="no row to which it applies")
    return Outcome(rule, "failed" if found.failing[rule.id] else "passed", found.failing[rule.id])


def _misnamed(check: str, words: Vocabulary) -> list[str]:
    custom = [name for name in words.given if name not in words.present]
    if check == "custom_prefix":
        return [name for name in custom if not name.startswith("x_")]
    bare = [name.removeprefix("x_") for name in words.given]
    if check == "pascal_case":
        return [
            name
            for name, core in zip(words.given, bare, strict=True)
            if not core[:1].isupper() or "_" in core or core.isupper()
        ]
    return [name for name, core in zip(words.given, bare, strict=True) if not (core.isascii() and core.isalnum())]


def _combine(rules: Sequence[Rule], outcomes: dict[str, Outcome], rows: int) -> None:
    """Rules that name others: failed where one that MUST hold did, passed where any did and none failed."""
    pending = {r.id: r for r in rules if r.kind == "all"}

    def settle(rule: Rule) -> Outcome:
        parts = []
        for name in rule.names:
            if name in pending and name not in outcomes:
                settle(pending[name])
            if name in outcomes:
                parts.append(outcomes[name])
        bad = [p for p in parts if p.status == "failed" and (p.rule.is_mandatory or not rule.is_mandatory)]
        if bad:
            done = Outcome(
                rule,
                "failed",
                rows if any(p.rule.kind in ("present", "column") for p in bad) else max(p.failing_rows for p in bad),
            )
        elif any(p.status == "passed" for p in parts):
            done = Outcome(rule, "passed")
        else:
            done = Outcome(rule, "not applicable", reason="none of the rules it names applies")
        outcomes[rule.id] = done
        return done

    for rule in pending.values():
        if rule.id not in outcomes:
            settle(rule)


def _add_examples(
    connection: duckdb.DuckDBPyConnection,
    words: Vocabulary,
    rules: Sequence[Rule],
    outcomes: dict[str, Outcome],
    found: _Found,
) -> None:
    """Rows that break the rules that failed; of rules that name others also how many rows break any of them."""
    by_id = {r.id: r for r in rules}

    def leaves(rule: Rule) -> list[str]:
        if rule.kind != "all":
            return [rule.id] if outcomes[rule.id].status == "failed" and rule.id in found.broken else []
        kept = [by_id[n] for n in rule.names if n in by_id and (by_id[n].is_mandatory or not rule.is_mandatory)]
        return list(dict.fromkeys(leaf for part in kept for leaf in leaves(part)))

    wanted = {
        r.id: " or ".join(found.broken[leaf] for leaf in broken)
        for r in rules
        if outcomes[r.id].status == "failed" and (broken := leaves(r))
    }
    names = list(wanted)
    listed: dict[str, list[int]] = {}
    counted: dict[str, int] = {}
    for begin in range(0, len(names), _RULES_PER_QUERY):
        part = names[begin : begin + _RULES_PER_QUERY]
        sql = ", ".join(
            f'min("#row", {EXAMPLES}) filter (where {wanted[n]}) as e{i}, count(*) filter (where {wanted[n]}) as c{i}'
            for i, n in enumerate(part)
        )
        answer = connection.sql(f"select {sql} from numbered_charges").to_arrow_table().to_pylist()[0]
        for i, name in enumerate(part):
            listed[name], counted[name] = answer[f"e{i}"] or [], answer[f"c{i}"]
    values = _values(connection, sorted({row for rows in listed.values() for row in rows}))
    for name, rows in listed.items():
        rule, before = by_id[name], outcomes[name]
        shown = _shown(words, rule)
        failing = max(before.failing_rows, counted[name]) if rule.kind == "all" else before.failing_rows
        examples = tuple({"row": row, "values": {c: values[row][c] for c in shown}} for row in rows)
        outcomes[name] = Outcome(rule, before.status, failing, examples, before.reason)


def _values(connection: duckdb.DuckDBPyConnection, rows: Sequence[int]) -> dict[int, dict[str, Any]]:
    found: dict[int, dict[str, Any]] = defaultdict(dict)
    if rows:
        names = ", ".join(['"#row"', *(identifier(n) for n in focus_columns())])
        listed = ", ".join(map(str, rows))
        for row in (
            connection.sql(f'select {names} from numbered_charges where "#row" in ({listed})')
            .to_arrow_table()
            .to_pylist()
        ):
            found[row["#row"]] = row
    return found


def _shown(words: Vocabulary, rule: Rule) -> list[str]:
    """The columns that explain an example."""
    if rule.kind == "all":
        about = rule.id.removeprefix("CAU-").removeprefix("x-").split("-")[0]
        return [about] if about in focus_columns() else []
    return list(dict.fromkeys([*words.columns(rule.check), *words.columns(rule.when)]))
