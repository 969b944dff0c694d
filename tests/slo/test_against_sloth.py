"""The real Sloth beside ours: the same bytes for documents that nobody chose, and the same verdict on bad ones."""

from __future__ import annotations

import json
import random
import subprocess
from datetime import timedelta
from pathlib import Path

import pytest

from greenops_pipelines.errors import BadInput
from greenops_pipelines.slo import windows
from greenops_pipelines.slo.generate import Job, generated
from greenops_pipelines.slo.rules import Options
from tests.slo.conftest import DOCUMENT, program
from tests.slo.test_generate import WINDOWS_7D

pytestmark = pytest.mark.real_go

SEED, CASES = 20261125, 60
SLOTH = "go install github.com/slok/sloth/cmd/sloth@v0.16.0"
VALUES = [
    "0.2", "true", "yes", "y", "0x1F", "010", "1e3", "1_000", "2026-11-25", "1:30", "'007'", '"x: y"', "a # b", "'#x'", "plain",
    '"with \\"quotes\\""', "'it''s'", '"tab\\there"', "Ünïcode", '"🔥 on fire"', '" lead"', '"trail "', '"{{ $labels.x }}"', "-x",
    '"- x"', '"?"', '"@x"', "[a]" , "1000000.0", "0.00001", "12345678901234567890", "'multi\n\n          line'",
    '"' + "long words that go on " * 6 + '"', '"{' + "long words that go on " * 6 + '"', '"\\u0001' + "long words that go on " * 6 + '"',
    '"a  b ' + "two  spaces and one " * 6 + 'end"', "|\n          block\n            deeper\n", ">\n          folded\n          text\n", "|+\n          kept\n\n",
]  # fmt: skip
QUERIES = [
    'sum(rate(x_total{code=~"5.."}[{{.window}}]))',
    '\'sum(rate(x_total{a="b: c # d"}[{{ .window }}]))\'',
    "|\n          sum(\n            rate(x_total[{{.window}}])\n          )\n",
    "|-\n          sum(rate(x_total[{{.window}}])) \n            / 2\n",
    ">-\n          sum(rate(x_total[{{.window}}]))\n          * 3\n",
    "'sum(rate(x_total{q=\"it''s\"}[{{.window}}]))'",
    "sum by (le) (rate(x_bucket{le=\"0.5\"}[{{.window}}])) # a comment",
]  # fmt: skip


def labels(source: random.Random, indent: int, *, block: bool) -> str:
    names = source.sample(["team", "a1", "a10", "a9", "A", "a_b", "zone", "on", "_x", "b2"], source.randint(1, 5))
    usable = [v for v in VALUES if v != "[a]" and (block or "\n" not in v)]
    return "\n".join(f"{' ' * indent}{name}: {source.choice(usable)}" for name in names)


def document(source: random.Random) -> str:
    slos = []
    for number in range(source.randint(1, 3)):
        objective = source.choice(["99.9", "99", "95.5", "99.99", "99.999", "50", "33.333333", "0.1", "99.95"])
        error, total = source.sample(QUERIES, 2)
        sli = (
            f"      events:\n        error_query: {error}\n        total_query: {total}"
            if source.random() < 0.6
            else f"      raw:\n        error_ratio_query: {error}"
        )
        page = "      page_alert:\n" + (
            "        disable: true" if source.random() < 0.3 else "        labels:\n" + labels(source, 10, block=False)
        )
        annotations = labels(source, 8, block=True)
        slos.append(
            f"  - name: slo{number}\n    objective: {objective}\n    labels:\n{labels(source, 6, block=False)}\n    sli:\n{sli}\n"
            f"    alerting:\n      name: {source.choice(['Alert', 'on', '99', 'a b'])}\n      annotations:\n{annotations}\n{page}"
        )
    return (
        f"version: prometheus/v1\nservice: svc\nlabels:\n{labels(source, 2, block=False)}\nslos:\n"
        + "\n".join(slos)
        + "\n"
    )


def sloth(path: Path, *flags: str) -> tuple[str | None, str]:
    """What Sloth prints, None if it refuses, and its words."""
    command = [program("sloth", SLOTH), "generate", "-i", str(path), *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    return (done.stdout if done.returncode == 0 else None), done.stderr


def ours(path: Path, version: str, **options: bool) -> tuple[str | None, str]:
    job = Job(timedelta(days=30), options=Options(version=version, **options), allow_objective_100=True)
    try:
        return generated(path, job), ""
    except BadInput as error:
        return None, str(error)


def test_documents_that_nobody_chose_come_out_byte_for_byte(tmp_path: Path) -> None:
    source, compared, refused = random.Random(SEED), 0, 0
    for number in range(CASES):
        path = tmp_path / f"{number}.yaml"
        path.write_text(document(source), encoding="utf-8")
        theirs, words = sloth(path)
        version = theirs.split("(", 1)[1].split(")", 1)[0] if theirs else "dev"
        mine, fault = ours(path, version)
        if theirs is None:
            # Sloth stops at the first fault; what it refuses, we refuse.
            assert mine is None, f"{path}: Sloth refuses: {words}"
            refused += 1
            continue
        if mine is None and "one line" in fault:
            refused += 1  # labels of several lines are refused here, and taken by Sloth
            continue
        assert mine == theirs, f"{path}: {fault}"
        compared += 1
    assert compared >= CASES * 0.6, f"{compared} compared, {refused} refused"


@pytest.mark.parametrize(
    "spoil",
    [
        ("99.9", "0"), ("99.9", "101"), ("99.9", "100"), ("99.9", "'99.9'"), ("99.9", "99,9"), ("availability", "a"),
        ("service: shop", "service: -shop"), ("[{{.window}}]))\n        total", "[5m]))\n        total"), ("{{.window}}", "{{.windows}}"),
        ("rate(", "rate(("), ("      name: ShopAvailability", "      labels: {}"), ("service: shop", "service: 12"),
        ("      name: ShopAvailability", "      name: X\n      labels: {a: ''}"), ("service: shop", "service: 'a.b'\nunknown: 1"),
        ("  - name", "  - &a\n    name"), ("      name: ShopAvailability", "      name: 5"), ("slos:", "slos: []\nx:"),
        ("prometheus/v1", "prometheus/v2"), ("version: prometheus/v1", "version: 'prometheus/v1'"), ("events", "event"),
    ],
    ids=lambda spoil: f"{spoil[0][:20]!r}->{spoil[1][:20]!r}",
)  # fmt: skip
def test_the_verdict_on_a_spoilt_document_is_sloths(spoil: tuple[str, str], tmp_path: Path) -> None:
    path = tmp_path / "slo.yaml"
    assert spoil[0] in DOCUMENT
    path.write_text(DOCUMENT.replace(*spoil).lstrip(), encoding="utf-8")
    theirs, words = sloth(path)
    version = theirs.split("(", 1)[1].split(")", 1)[0] if theirs else "dev"
    mine, fault = ours(path, version)
    assert mine == theirs, json.dumps({"theirs": words[-300:], "ours": fault})


def test_the_last_digit_of_a_burn_rate_is_sloths(tmp_path: Path) -> None:
    """1.7 % of 168 h is a factor whose last digit depends on the order of the operations."""
    folder = tmp_path / "windows"
    folder.mkdir()
    (folder / "7d.yaml").write_text(WINDOWS_7D.replace("errorBudgetPercent: 8,", "errorBudgetPercent: 1.7,"), "utf-8")
    path = tmp_path / "slo.yaml"
    path.write_text(DOCUMENT.lstrip(), encoding="utf-8")
    theirs, words = sloth(path, "--default-slo-period", "7d", "--slo-period-windows-path", str(folder))
    assert theirs is not None, words
    version = theirs.split("(", 1)[1].split(")", 1)[0]
    week = timedelta(days=7)
    assert generated(path, Job(week, windows.read_folder(folder), Options(version=version))) == theirs
    assert windows.read_folder(folder)[week].page_quick.factor(week) != 1.7 / 100 * 168
