"""The declared regions and tenants: the shipped files against the reference figures, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from greenops_pipelines.carbon.regions import read_regions, read_tenants, regions_table, tenants_table
from greenops_pipelines.errors import ConfigurationError
from greenops_pipelines.lake.tables import REGIONS, TENANTS

OPS = Path(__file__).parents[2] / "ops"

REGION = """\
  - region: {region}
    zone: {zone}
    pue: {pue}
    pue_source: measured
    residency: {residency}
    primary: {primary}
"""
TENANT = "  - {{tenant: {tenant}, residency: {residency}, home_region: {home_region}}}\n"


def region(name: str, residency: str = "eu", zone: str = "DE", pue: str = "1.2", primary: str = "true") -> str:
    return REGION.format(region=name, zone=zone, pue=pue, residency=residency, primary=primary)


def tenant(name: str, residency: str, home_region: str) -> str:
    return TENANT.format(tenant=name, residency=residency, home_region=home_region)


@pytest.fixture(autouse=True)
def ops_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "ops"
    folder.mkdir()
    (folder / "regions.yaml").write_text(
        "regions:\n" + region("eu-central-1") + region("us-east-1", "us", "US-MIDA-PJM")
    )
    return Path("ops")


def refused_regions(ops_dir: Path, *regions: str) -> str:
    (ops_dir / "regions.yaml").write_text("regions:\n" + "".join(regions))
    with pytest.raises(ConfigurationError) as error:
        read_regions(ops_dir)
    return str(error.value)


def refused_tenants(ops_dir: Path, *tenants: str) -> str:
    (ops_dir / "tenants.yaml").write_text("tenants:\n" + "".join(tenants))
    with pytest.raises(ConfigurationError) as error:
        read_tenants(ops_dir, read_regions(ops_dir))
    return str(error.value)


def test_the_shipped_regions_are_the_reference_table_and_two_more() -> None:
    assert {(r.region, r.zone, r.pue, r.residency) for r in read_regions(OPS)} == {
        ("us-east-1", "US-MIDA-PJM", 1.15, "us"),
        ("us-west-1", "US-CAL-CISO", 1.18, "us"),
        ("us-west-2", "US-NW-PACW", 1.12, "us"),
        ("eu-central-1", "DE", 1.35, "eu"),
        ("eu-west-1", "IE", 1.11, "eu"),
        ("eu-west-3", "FR", 1.15, "eu"),
        ("eu-south-2", "ES", 1.09, "eu"),
        ("eu-north-1", "SE-SE3", 1.10, "eu"),
        ("eu-south-1", "IT-NO", 1.135, "eu"),
        ("eu-west-2", "GB", 1.135, "uk"),
        ("ca-central-1", "CA-QC", 1.19, "ca"),
        ("ca-west-1", "CA-AB", 1.135, "ca"),
    }


def test_the_shipped_regions_serve_from_one_side_of_the_atlantic_each() -> None:
    regions = read_regions(OPS)
    assert {r.region for r in regions if r.primary} == {"us-east-1", "eu-central-1"}
    assert len({r.zone for r in regions}) == len(regions) == 12
    # A PUE that is nobody's own figure says so.
    assert {r.region for r in regions if "flat figure" in r.pue_source} == {r.region for r in regions if r.pue == 1.135}


def test_the_shipped_tenants_are_eight_and_half_of_them_bound_to_the_eu() -> None:
    tenants = read_tenants(OPS, read_regions(OPS))
    assert [t.residency for t in tenants].count("eu") == [t.residency for t in tenants].count("any") == 4
    assert {t.home_region for t in tenants if t.residency == "eu"} == {"eu-central-1"}
    assert {t.home_region for t in tenants if t.residency == "any"} == {"us-east-1", "eu-central-1"}


def test_rows_fit_the_lakes_tables(ops_dir: Path) -> None:
    (ops_dir / "tenants.yaml").write_text("tenants:\n" + tenant("acme", "eu", "eu-central-1"))
    regions = read_regions(ops_dir)
    table = regions_table(regions)
    assert table.schema.equals(REGIONS.schema, check_metadata=True)
    assert table.to_pylist()[1] == {
        "region": "us-east-1",
        "zone": "US-MIDA-PJM",
        "pue": 1.2,
        "pue_source": "measured",
        "residency": "us",
        "is_primary": True,
    }
    tenants = tenants_table(read_tenants(ops_dir, regions))
    assert tenants.schema.equals(TENANTS.schema, check_metadata=True)
    assert tenants.to_pylist() == [{"tenant": "acme", "residency": "eu", "home_region": "eu-central-1"}]
    assert regions_table([]).schema.equals(REGIONS.schema)


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        ({"pue": "abc"}, "4: regions[0].pue: found 'abc', allowed: a number >= 1 and <= 3"),
        ({"pue": "0.99"}, "4: regions[0].pue: found 0.99, allowed: a number >= 1 and <= 3"),
        ({"pue": "135"}, "4: regions[0].pue: found 135, allowed: a number >= 1 and <= 3"),
        ({"residency": "EU"}, "6: regions[0].residency: found 'EU', allowed: one of 'eu', 'us', 'uk', 'ca'"),
        (
            {"zone": "NO"},
            "3: regions[0].zone: found NO (in YAML: false), allowed: text of at most 20 characters that matches "
            "^[A-Z]{2}(-[A-Z0-9]+)*$, such as DE, US-CAL-CISO; put it in quotes",
        ),
    ],
)
def test_a_wrong_region_is_refused_at_its_line(ops_dir: Path, wrong: dict[str, str], line: str) -> None:
    assert refused_regions(ops_dir, region("eu-central-1", **wrong)) == f"ops/regions.yaml:{line}"


def test_a_pue_of_exactly_one_is_the_best_there_is(ops_dir: Path) -> None:
    (ops_dir / "regions.yaml").write_text("regions:\n" + region("eu-central-1", pue="1"))
    assert read_regions(ops_dir)[0].pue == 1.0


def test_a_region_is_declared_once(ops_dir: Path) -> None:
    expected = "ops/regions.yaml:8: regions[1].region: found 'eu-central-1', allowed: each region once"
    assert refused_regions(ops_dir, region("eu-central-1"), region("eu-central-1", zone="FR")) == expected


def test_some_region_is_primary(ops_dir: Path) -> None:
    expected = "ops/regions.yaml:1: regions: found a list, allowed: at least one region with primary: true"
    assert refused_regions(ops_dir, region("eu-central-1", primary="false")) == expected


def test_all_faults_of_the_tenants_are_told_together(ops_dir: Path) -> None:
    message = refused_tenants(
        ops_dir,
        tenant("acme", "eu", "us-east-1"),
        tenant("beta", "any", "eu-centrl-1"),
        tenant("acme", "any", "us-east-1"),
        tenant("gamma", "uk", "eu-central-1"),
        tenant("delta", "us", "us-east-1"),
    )
    place = "ops/tenants.yaml"
    assert message.splitlines() == [
        f"{place}:2: tenants[0].home_region: found 'us-east-1', allowed: a region with residency eu, as the tenant's: eu-central-1",
        f"{place}:3: tenants[1].home_region: found 'eu-centrl-1', allowed: a region of regions.yaml: eu-central-1, us-east-1",
        f"{place}:4: tenants[2].tenant: found 'acme', allowed: each tenant once",
        f"{place}:5: tenants[3].home_region: found 'eu-central-1', allowed: a region with residency uk, as the tenant's: none is declared",
    ]


def test_a_missing_file_is_named(ops_dir: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"^ops/tenants\.yaml: found no such file"):
        read_tenants(ops_dir, read_regions(ops_dir))
