"""How grave a vulnerability is, in one order for everybody's words. Not here: what is done about it (`gate.py`)."""

from __future__ import annotations

from collections.abc import Collection
from enum import IntEnum


class Severity(IntEnum):
    """In ascending order. UNKNOWN is below all, so that any word that is known wins over it; `counts` takes it for grave."""

    UNKNOWN = 0
    NEGLIGIBLE = 1
    LOW = 2
    MEDIUM = 3
    HIGH = 4
    CRITICAL = 5


_WORDS = {severity.name: severity for severity in Severity} | {
    # GitHub's and Red Hat's words; and CVSS's for a score of 0.0.
    "MODERATE": Severity.MEDIUM,
    "IMPORTANT": Severity.HIGH,
    "NONE": Severity.NEGLIGIBLE,
}


def parse(word: str) -> Severity:
    """What a scanner or an advisory calls it, in any case; UNKNOWN for a word that nobody has explained."""
    return _WORDS.get(word.strip().upper(), Severity.UNKNOWN)


def of_vector(vector: str) -> Severity:
    """The qualitative rating of a CVSS vector's base score, versions 2.0 to 4.0; UNKNOWN where it is no vector.

    Source: FIRST, CVSS v3.1 and v4.0, "Qualitative Severity Rating Scale"; for 2.0 NVD's three steps.
    """
    from cvss import CVSS2, CVSS3, CVSS4, CVSSError

    kind = CVSS4 if vector.startswith("CVSS:4") else CVSS3 if vector.startswith("CVSS:3") else CVSS2
    try:
        return parse(kind(vector).severities()[0])
    except CVSSError:
        return Severity.UNKNOWN


def counts(severity: Severity, named: Collection[str]) -> bool:
    """Whether it is at least the least of those named (HIGH, CRITICAL), or unknown: nobody has said that it is harmless."""
    return severity is Severity.UNKNOWN or severity >= min(Severity[name] for name in named)
