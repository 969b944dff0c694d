"""Settings: `.env.example` against the defaults, bad values, secrets."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from greenops_pipelines.errors import ConfigurationError
from greenops_pipelines.settings import Settings, load_settings, unknown_variables

EXAMPLE = Path(__file__).parents[1] / ".env.example"
HIDDEN = "s3cret-t0ken"


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No `.env` and no variable of the machine that runs the tests."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.upper().startswith("GREENOPS_")]:
        monkeypatch.delenv(name)
    return tmp_path


def refusal() -> str:
    with pytest.raises(ConfigurationError) as error:
        load_settings()
    message = str(error.value)
    assert "\n" not in message
    return message


# The example


def test_the_example_lists_every_variable_once_with_its_description() -> None:
    lines = [line for line in EXAMPLE.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    parts = [re.fullmatch(r"GREENOPS_([A-Z0-9_]+)=(\S*)  # (.+)", line) for line in lines]
    assert all(parts)
    assert [part[1].lower() for part in parts if part] == list(Settings.model_fields)
    for part in parts:
        assert part
        assert part[3].startswith(Settings.model_fields[part[1].lower()].description or "?")


def test_loading_the_example_gives_exactly_the_defaults(empty_folder: Path) -> None:
    defaults = load_settings()
    (empty_folder / ".env").write_bytes(EXAMPLE.read_bytes())
    assert load_settings() == defaults
    assert {name for name in Settings.model_fields if getattr(defaults, name) in ("", None)} == {
        "dbt_cache",
        "lake_url",
        "s3_endpoint",
        "carbon_path",
        "carbon_base_url",
        "carbon_user",
        "cost_path",
        "opencost_url",
        "evidence_url",
        "replica_url",
        "sbom_url",
        "syft",
        "scan_reports",
        "advisories",
        "evidence_key",
        "evidence_tsa_url",
        "evidence_tsa_ca",
        "evidence_checkpoints",
        "evidence_checkpoints_region",
        "kube_contexts",
        "kubeconfig",
        "usage_path",
    }
    assert unknown_variables() == {}


def test_every_line_of_the_example_can_be_changed(empty_folder: Path) -> None:
    """A comment that swallowed the value would pass unnoticed where the default is the same."""
    text = EXAMPLE.read_text(encoding="utf-8")
    text = text.replace("GREENOPS_LAKE_URL=  #", "GREENOPS_LAKE_URL=s3://bucket/a  #")
    text = text.replace("GREENOPS_RUN_DAYS=35  #", "GREENOPS_RUN_DAYS=7  #")
    (empty_folder / ".env").write_text(text, encoding="utf-8")
    assert (load_settings().lake_url, load_settings().run_days) == ("s3://bucket/a", 7)


# Where values come from


def test_the_environment_wins_over_the_file_and_nothing_means_the_default(
    empty_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (empty_folder / ".env").write_text("GREENOPS_RUN_DAYS=7\nGREENOPS_UI_PORT=4000\nGREENOPS_S3_REGION=\n")
    monkeypatch.setenv("GREENOPS_RUN_DAYS", "9")
    monkeypatch.setenv("GREENOPS_RETENTION_DAYS", "")
    found = load_settings()
    assert (found.run_days, found.ui_port, found.s3_region, found.retention_days) == (9, 4000, "eu-central-1", 90)


def test_paths_are_absolute_and_follow_the_home(empty_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = load_settings()
    assert found.home == empty_folder / ".greenops"
    assert (found.ops_dir, found.dbt_dir) == (empty_folder / "ops", empty_folder / "dbt")
    assert found.dagster_home == empty_folder / ".greenops" / "dagster"
    assert found.warehouse == empty_folder / ".greenops" / "warehouse.duckdb"
    assert found.reports == empty_folder / ".greenops" / "reports"
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.setenv("GREENOPS_HOME", "~/green")
    assert load_settings().home == Path("/home/someone/green")


# Bad values


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "GREENOPS_CARBON_PROVIDER",
            "electricitymaps",
            "found 'electricitymaps'; input should be 'sample', 'file', 'electricity-maps', 'energy-charts', 'uk-neso' or 'watttime'",
        ),
        ("GREENOPS_RUN_DAYS", "many", "found 'many'; input should be a valid integer"),
        ("GREENOPS_RUN_DAYS", "0", "found '0'; input should be greater than or equal to 1"),
        ("GREENOPS_CARBON_LOOKBACK_DAYS", "31", "found '31'; input should be less than or equal to 30"),
        ("GREENOPS_UI_PORT", "65536", "found '65536'; input should be less than or equal to 65535"),
        ("GREENOPS_CARBON_API_VERSION", "v5", "found 'v5'; input should be 'v4' or 'v3'"),
        ("GREENOPS_HOME", "~nobody-of-this-name/x", "found '~nobody-of-this-name/x'; value error, "),
        (
            "GREENOPS_KUBE_CONTEXTS",
            "eu-central-1=a,prod-eu",
            "found 'eu-central-1=a,prod-eu'; value error, 'prod-eu' is not region=context, such as eu-central-1=prod-eu",
        ),
        ("GREENOPS_KUBE_CONTEXTS", "EU=a", "found 'EU=a'; value error, 'EU=a' is not region=context, "),
        ("GREENOPS_KUBE_CONTEXTS", "eu=a b", "found 'eu=a b'; value error, 'eu=a b' is not region=context, "),
        ("GREENOPS_KUBE_CONTEXTS", "eu=a,eu=b", "found 'eu=a,eu=b'; value error, eu stands twice; "),
        ("GREENOPS_RUN_DAYS", "7\n8", r"found '7\n8'; "),
    ],
)
def test_a_bad_value_gives_one_line_that_names_the_variable(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str
) -> None:
    monkeypatch.setenv(name, value)
    assert refusal().startswith(f"{name}: {message}")


def test_contexts_are_read_by_region(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings().context_of == {}
    arn = "arn:aws:eks:us-east-1:111122223333:cluster/prod"
    monkeypatch.setenv("GREENOPS_KUBE_CONTEXTS", f"eu-central-1=admin@prod-eu, us-east-1={arn},")
    assert load_settings().context_of == {"eu-central-1": "admin@prod-eu", "us-east-1": arn}


def test_a_bad_value_in_the_file_is_named_too(empty_folder: Path) -> None:
    (empty_folder / ".env").write_text("GREENOPS_UI_PORT=http\n")
    assert refusal().startswith("GREENOPS_UI_PORT: found 'http'; ")


def test_a_file_in_another_encoding_is_named(empty_folder: Path) -> None:
    (empty_folder / ".env").write_bytes(b"# caf\xe9\nGREENOPS_UI_PORT=4000\n")
    assert refusal() == ".env: not UTF-8 text (byte 5); save the file as UTF-8"


def test_variables_that_mean_nothing_are_found_with_the_one_that_was_meant(
    empty_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (empty_folder / ".env").write_text("GREENOPS_CARBON_PROVDER=file\nOTHER=1\ngreenops_run_days=7\n")
    monkeypatch.setenv("GREENOPS_XYZZY", "1")
    monkeypatch.setenv("GREENOPS_REQUIRE_REAL", "1")
    assert unknown_variables() == {"GREENOPS_CARBON_PROVDER": "GREENOPS_CARBON_PROVIDER", "GREENOPS_XYZZY": ""}


# Secrets


def test_a_token_never_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GREENOPS_CARBON_TOKEN", HIDDEN)
    found = load_settings()
    assert found.carbon_token.get_secret_value() == HIDDEN
    for shown in (repr(found), str(found), str(found.model_dump()), found.model_dump_json(), repr(vars(found))):
        assert HIDDEN not in shown
    monkeypatch.setenv("GREENOPS_UI_PORT", "x")
    assert HIDDEN not in refusal()
