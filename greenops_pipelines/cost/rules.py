"""The rules of FOCUS, as data.

`focus_rules.csv` holds them, one per line, with the specification's identifier and text (identifiers that begin with `x-`
are ours, for columns of 1.3 and 1.4 whose requirements the published model does not hold). `when` and `check` are SQL over
the columns of FOCUS, plus the functions of `vocabulary.py`. Kinds: `present` (a column is there), `column` (names),
`row`, `group` ("key: condition over the rows of that key") and `all` (every rule named).

Where the model's condition contradicts its own sentence, the sentence holds: ConsumedQuantity-C-006-C,
CommitmentDiscountStatus-C-004-C, CommitmentDiscountQuantity-C-005-C and -C-007-C, PricingCurrencyEffectiveCost-C-004-M and the
allowed values of CommitmentDiscountStatus. Not here: the scans
(`validate.py`).
"""

from __future__ import annotations

import csv
import functools
from dataclasses import dataclass
from importlib import resources
from typing import Literal, cast

from greenops_pipelines.cost.columns import is_between

Kind = Literal["present", "column", "row", "group", "all"]

MANDATORY_LEVELS = ("MUST", "MUST NOT")


@dataclass(frozen=True)
class Rule:
    """A rule as it stands in the file."""

    id: str
    level: str
    kind: Kind
    since: str
    until: str
    criteria: tuple[str, ...]
    when: str
    check: str
    text: str

    @property
    def names(self) -> tuple[str, ...]:
        """Of a rule of kind `all`: the rules it names."""
        return tuple(self.check.split())

    @property
    def is_mandatory(self) -> bool:
        return self.level in MANDATORY_LEVELS


@functools.cache
def all_rules() -> tuple[Rule, ...]:
    """Every rule, of all versions, in the order of the file."""
    text = (resources.files("greenops_pipelines.cost") / "focus_rules.csv").read_text(encoding="utf-8")
    return tuple(
        Rule(
            id=row["id"],
            level=row["level"],
            kind=cast(Kind, row["kind"]),
            since=row["since"],
            until=row["until"],
            criteria=tuple(row["criteria"].split()),
            when=row["when"],
            check=row["check"],
            text=row["text"],
        )
        for row in csv.DictReader(text.splitlines())
    )


def rules_of(spec: str) -> list[Rule]:
    """The rules of one version of the specification."""
    return [rule for rule in all_rules() if is_between(rule.since, rule.until, spec)]
