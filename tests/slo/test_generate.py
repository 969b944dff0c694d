"""`greenops slo generate` prints what Sloth prints; `validate` says one line per fault."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import yaml

from greenops_pipelines import cli
from tests.slo.conftest import DOCUMENT

PAIRS = [
    ("in-base.yaml", "out-base.yaml.tpl", []),
    ("in-base.yaml", "out-base-28d.yaml.tpl", ["--default-slo-period", "28d"]),
    ("in-multifile.yaml", "out-multifile.yaml.tpl", []),
    ("in-openslo.yaml", "out-openslo.yaml.tpl", []),
    ("getting-started.yml", "getting-started.yml", ["-l", "cmd=examplesgen.sh"]),
    ("k8s-getting-started.yml", "k8s-getting-started.yml", ["-l", "cmd=examplesgen.sh"]),
]
WINDOWS_7D = """
apiVersion: sloth.slok.dev/v1
kind: AlertWindows
spec:
  sloPeriod: 7d
  page:
    quick: {errorBudgetPercent: 8, shortWindow: 5m, longWindow: 1h}
    slow: {errorBudgetPercent: 12.5, shortWindow: 30m, longWindow: 6h}
  ticket:
    quick: {errorBudgetPercent: 20, shortWindow: 2h, longWindow: 1d}
    slow: {errorBudgetPercent: 42, shortWindow: 6h, longWindow: 3d}
"""


def greenops(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["greenops", *arguments])
    try:
        cli.main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def expanded(template: Path, version: str = "dev") -> str:
    text = template.read_text(encoding="utf-8").replace("{{ .version }}", version)
    return re.sub(r'\{\{"(.*?)"\}\}', r"\1", text)


@pytest.mark.parametrize(("source", "expected", "flags"), PAIRS, ids=[pair[1] for pair in PAIRS])
def test_the_output_is_sloths_byte_for_byte(
    source: str, expected: str, flags: list[str], sloth_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "rules.yaml"
    arguments = ["-i", str(sloth_data / "in" / source), "-o", str(out), "--sloth-version", "dev", *flags]
    assert greenops(monkeypatch, "slo", "generate", *arguments) == 0
    assert out.read_text(encoding="utf-8") == expanded(sloth_data / "out" / expected)


def written(tmp_path: Path, text: str = DOCUMENT) -> Path:
    path = tmp_path / "shop.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def generated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *flags: str, text: str = DOCUMENT) -> dict:
    out = tmp_path / "out.yaml"
    assert greenops(monkeypatch, "slo", "generate", "-i", str(written(tmp_path, text)), "-o", str(out), *flags) == 0
    return yaml.safe_load(out.read_text(encoding="utf-8"))


def groups(document: dict) -> list[str]:
    return [group["name"] for group in document["groups"]]


def test_switches_leave_out_alerts_or_recordings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert groups(generated(tmp_path, monkeypatch, "--disable-alerts")) == [
        "sloth-slo-sli-recordings-shop-availability",
        "sloth-slo-meta-recordings-shop-availability",
    ]
    assert groups(generated(tmp_path, monkeypatch, "--disable-recordings")) == ["sloth-slo-alerts-shop-availability"]


def test_without_rules_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.yaml"
    flags = ["--disable-alerts", "--disable-recordings"]
    assert greenops(monkeypatch, "slo", "generate", "-i", str(written(tmp_path)), "-o", str(out), *flags) == 2
    assert "rules: found none" in capsys.readouterr().err
    assert not out.exists()


def test_extra_labels_go_on_recordings_and_the_slos_own_win_over_the_ids(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = generated(tmp_path, monkeypatch, "-l", "cluster=eu", "-l", "tier=1")
    rules = [rule for group in document["groups"] for rule in group["rules"]]
    assert all(
        rule["labels"]["cluster"] == "eu" and rule["labels"]["tier"] == "1" for rule in rules if "record" in rule
    )
    assert [rule["labels"] for rule in rules if "alert" in rule] == [
        {"sloth_severity": "page"},
        {"sloth_severity": "ticket"},
    ]


def test_own_windows_of_seven_days(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "windows"
    folder.mkdir()
    (folder / "7d.yaml").write_text(WINDOWS_7D, encoding="utf-8")
    flags = ["--default-slo-period", "7d", "--slo-period-windows-path", str(folder)]
    document = generated(tmp_path, monkeypatch, *flags)
    records = [rule["record"] for rule in document["groups"][0]["rules"]]
    assert records[-1] == "slo:sli_error:ratio_rate1w"  # Prometheus spells seven days in weeks
    page = document["groups"][2]["rules"][0]["expr"]
    # 8 % of 168 h in 1 h is 13.44 times the allowed rate, 12.5 % in 6 h 3.5 times.
    assert "> (13.44 * 0.0009999999999999432)" in page
    assert "> (3.5 * 0.0009999999999999432)" in page


def test_a_folder_of_files_goes_to_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    (source / "team").mkdir(parents=True)
    out.mkdir()
    (source / "team" / "a.yaml").write_text(DOCUMENT, encoding="utf-8")
    (source / "b.yml").write_text(DOCUMENT.replace("shop", "cart"), encoding="utf-8")
    (source / "notes.txt").write_text("no YAML", encoding="utf-8")
    assert greenops(monkeypatch, "slo", "generate", "-i", str(source), "-o", str(out), "-e", "b.yml$") == 0
    assert [str(p.relative_to(out)) for p in sorted(out.rglob("*.*"))] == ["team/a.yaml"]


def spoilt(old: str, new: str) -> str:
    assert old in DOCUMENT
    return DOCUMENT.replace(old, new)


BAD = [
    ("objective: 99.9", "objective: 0", "availability: objective: found 0, allowed: a percentage above 0"),
    ("objective: 99.9", "objective: 100", "availability: objective: found 100, allowed: below 100"),
    ("objective: 99.9", "objective: 101", "availability: objective: found 101"),
    ("objective: 99.9", 'objective: "99,9"', "slos[0] (availability).objective: found '99,9', allowed: a number"),
    ("objective: 99.9", "objective: .nan", "objective: found nan, allowed: a finite number"),
    ('{status="5xx"}[{{.window}}]', '{status="5xx"}[5m]', "error_query: found no {{.window}}"),
    ("sum(rate(http_requests_total[{{.window}}]))", "sum(rate(http_requests_total[{{.window}}])", "total_query: found no PromQL"),
    ("[{{.window}}]))\n        total", "[{{.windows}}]))\n        total", "error_query: found the template action '{{.windows}}'"),
    ("name: availability", "name: a", "name: found 'a', allowed: at least two characters"),
    ("service: shop", "service: sh op", "service: found 'sh op'"),
    ("      name: ShopAvailability", "      labels: {}", "alerting.name: found nothing, allowed: a name"),
    ("    objective", '    labels: {team: "a\\nb"}\n    objective', "labels.team: found 'a\\nb', allowed: one line"),
    ("    objective", '    labels: {"te\\nam": b}\n    objective', "labels: found the key 'te\\nam'"),
    ("    objective", "    labels: {team: }\n    objective", "labels.team: found nothing, allowed: text"),
    ("version: prometheus/v1", "version: prometheus/v2", "found no known specification"),
    ("      events:", "      raw: {error_ratio_query: 'x[{{.window}}]'}\n      events:", "sli: found events and raw"),
    ("slos:", "slos: {}\nother:", "slos: found a mapping, allowed: a list"),
    ("    sli:", "    plugins: {chain: [{id: acme/x}]}\n    sli:", "found the SLO plugin 'acme/x'"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "message"), BAD, ids=[case[2][:50] for case in BAD])
def test_each_fault_is_one_clear_line(
    old: str,
    new: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = written(tmp_path, spoilt(old, new))
    assert greenops(monkeypatch, "slo", "validate", "-i", str(path)) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1] == "greenops: 1 of 1 files are not valid"
    assert len(lines) == 2, lines
    assert str(path) in lines[0]
    assert message in lines[0]
    assert greenops(monkeypatch, "slo", "generate", "-i", str(path)) == 2
    ended = capsys.readouterr()
    assert ended.out == ""
    assert message in ended.err


def test_an_sli_plugin_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = re.sub(r"      events:\n.*\n.*\n", "      plugin: {id: sloth-common/http/v1}\n", DOCUMENT)
    assert greenops(monkeypatch, "slo", "validate", "-i", str(written(tmp_path, text))) == 1
    assert "found the SLI plugin 'sloth-common/http/v1'" in capsys.readouterr().err


def test_an_objective_of_100_can_be_had_as_sloth_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document = generated(tmp_path, monkeypatch, "--allow-objective-100", text=spoilt("99.9", "100"))
    assert document["groups"][1]["rules"][1]["expr"] == "vector(1-1)"


def test_an_slo_in_two_files_is_a_duplicate_unless_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text(DOCUMENT, encoding="utf-8")
    assert greenops(monkeypatch, "slo", "validate", "-i", str(tmp_path)) == 1
    assert f"b.yaml: availability: name: found shop-availability, which stands in {tmp_path}/a.yaml too" in (
        capsys.readouterr().err
    )
    assert greenops(monkeypatch, "slo", "validate", "-i", str(tmp_path), "--ignore-slo-duplicates") == 0
    assert greenops(monkeypatch, "slo", "validate", "-i", str(tmp_path), "--fs-exclude", "b.yaml") == 0
    assert greenops(monkeypatch, "slo", "validate", "-i", str(tmp_path), "--fs-include", "a.yaml") == 0


def test_a_period_needs_windows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for period, message in (("7d", "found 1w, allowed: a period with alert windows (4w, 30d)"), ("x", "found 'x'")):
        assert greenops(monkeypatch, "slo", "validate", "-i", str(tmp_path), "--default-slo-period", period) == 2
        assert message in capsys.readouterr().err
    bad = WINDOWS_7D.replace("longWindow: 3d", "longWindow: 8d")
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "7d.yaml").write_text(bad, encoding="utf-8")
    flags = ["--default-slo-period", "7d", "--slo-period-windows-path", str(tmp_path / "w")]
    assert greenops(monkeypatch, "slo", "validate", "-i", str(written(tmp_path)), *flags) == 2
    assert (
        "spec.ticket.slow: found 6h and 8d in a period of 1w, allowed: short < long <= period"
        in capsys.readouterr().err
    )


def bomb(levels: int) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (DOCUMENT + bomb(9), "found over 200,000 values, aliases written out"),
        (DOCUMENT + "x: " + "a" * 3_000_000, "found more than 2,097,152 bytes"),
        (DOCUMENT + "x: " + "[" * 5000, "found more than 64 levels of nesting"),
        # The parser is recursive native code: unbounded, this ends the process with a segmentation fault.
        (
            spoilt(
                "[{{.window}}]))\n        total",
                "[{{.window}}])) + " + "(" * 20_000 + "1" + ")" * 20_000 + "\n        total",
            ),
            "found a query of 40,0",
        ),
        (DOCUMENT + "x: [1", "found unusable YAML"),
        ("", "found an empty file"),
        (DOCUMENT + "x: *nowhere", "nowhere"),
    ],
)
def test_hostile_files_end_in_one_line(
    text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert greenops(monkeypatch, "slo", "validate", "-i", str(written(tmp_path, text))) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2, lines[:5]
    assert message in lines[0]
