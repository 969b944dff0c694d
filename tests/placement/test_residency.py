"""Residency: which regions are left, what is counted as outside, and the refusal before dispatch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenops_pipelines.carbon.regions import Region, Residency, Tenant
from greenops_pipelines.errors import PermanentError, ResidencyViolation, SchemaViolation
from greenops_pipelines.placement.residency import Violations, allowed_regions, refuse, violations
from tests.placement.small_ops import declared, small_ops

RTT = {"eu-central-1": {"eu-west-1": 25.0, "eu-north-1": 24.0, "eu-west-2": 15.0}}


@pytest.fixture
def platform(tmp_path: Path) -> tuple[tuple[Region, ...], tuple[Tenant, ...]]:
    return declared(small_ops(tmp_path / "ops"))


Platform = tuple[tuple[Region, ...], tuple[Tenant, ...]]


@dataclass(frozen=True)
class Piece:
    tenant: str
    key: str = "nightly:2026-11-25T02:00Z"


def test_the_regions_left_are_those_of_area_wish_and_latency(platform: Platform) -> None:
    regions, (acme, beta) = platform
    assert allowed_regions(acme, regions) == ("eu-central-1", "eu-west-1", "eu-north-1")
    assert allowed_regions(beta, regions) == tuple(region.region for region in regions)
    assert allowed_regions(acme, regions, wanted=["eu-north-1", "us-east-1"]) == ("eu-north-1",)
    assert allowed_regions(acme, regions, wanted=[]) == ()
    assert allowed_regions(acme, regions, max_rtt_ms=24, rtt=RTT) == ("eu-central-1", "eu-north-1")
    assert allowed_regions(acme, regions, max_rtt_ms=23.9, rtt=RTT) == ("eu-central-1",)
    assert allowed_regions(acme, regions, ["eu-west-1"], max_rtt_ms=24, rtt=RTT) == ()
    assert allowed_regions(acme, regions, max_rtt_ms=1000) == ("eu-central-1",)
    # From Dublin nothing is declared: only Dublin itself is near enough for certain.
    assert allowed_regions(acme, regions, home="eu-west-1", max_rtt_ms=1000, rtt=RTT) == ("eu-west-1",)
    # A home outside the area does not let anything out either.
    assert allowed_regions(acme, regions, home="us-east-1", max_rtt_ms=1000, rtt=RTT) == ()
    assert allowed_regions(beta, regions, home="eu-central-1", max_rtt_ms=15, rtt=RTT) == ("eu-central-1", "eu-west-2")


AREAS = get_args(Residency)
NAMES = tuple(f"{area}-x-{n}" for area in AREAS for n in range(3))
SOME = st.lists(st.sampled_from((*NAMES, "mars-1")), max_size=12)


@given(
    bound_to=st.sampled_from((*AREAS, "any")),
    areas=st.lists(st.sampled_from(AREAS), min_size=len(NAMES), max_size=len(NAMES)),
    home=st.sampled_from(NAMES),
    wanted=st.none() | SOME,
    start=st.none() | st.sampled_from((*NAMES, "mars-1")),
    limit=st.none() | st.floats(0, 100),
    reach=st.dictionaries(
        st.sampled_from(NAMES), st.dictionaries(st.sampled_from((*NAMES, "mars-1")), st.floats(0, 100))
    ),
)
def test_no_region_outside_a_bound_tenants_area_is_ever_allowed(
    bound_to: Residency,
    areas: list[Residency],
    home: str,
    wanted: list[str] | None,
    start: str | None,
    limit: float | None,
    reach: dict[str, dict[str, float]],
) -> None:
    area_of = dict(zip(NAMES, areas, strict=True))
    regions = [
        Region(region=name, zone="DE", pue=1.1, pue_source="x", residency=area) for name, area in area_of.items()
    ]
    tenant = Tenant(tenant="acme", residency=bound_to, home_region=home)
    found = allowed_regions(tenant, regions, wanted, start, limit, reach)
    assert set(found) <= set(area_of)
    assert bound_to == "any" or {area_of[region] for region in found} <= {bound_to}
    assert wanted is None or set(found) <= set(wanted)
    near = {start or home} | {to for to, ms in reach.get(start or home, {}).items() if limit is None or ms <= limit}
    assert limit is None or set(found) <= near
    assert list(found) == sorted(found, key=list(area_of).index)


def rows(*pairs: tuple[str | None, str | None]) -> pa.Table:
    return pa.table({
        "kwh": [1.0] * len(pairs),
        "region": pa.array([region for _, region in pairs], pa.string()),
        "tenant": pa.array([tenant for tenant, _ in pairs], pa.string()),
    })  # fmt: skip


def test_rows_outside_and_rows_of_nobody_are_counted_apart(platform: Platform) -> None:
    fine = [("acme", "eu-west-1"), ("beta", "us-east-1"), ("beta", "eu-west-2")] * 100
    assert violations(rows(*fine), *platform) == Violations(300, 0, 0, None)
    assert violations(rows(), *platform) == Violations(0, 0, 0, None)
    found = violations(
        rows(
            *fine,
            ("zeta", "eu-west-1"),
            ("acme", "eu-mars-1"),
            (None, "eu-west-1"),
            ("acme", None),
            ("acme", "us-east-1"),
            ("acme", "us-east-1"),
            ("acme", "eu-west-2"),
        ),
        *platform,
    )
    assert found == Violations(307, 3, 4, "tenant acme (bound to eu) in region eu-west-2 (of uk)")
    assert found.total == 7


@pytest.mark.parametrize(
    ("pair", "example"),
    [
        (("zeta", "eu-west-1"), "the undeclared tenant 'zeta' in region eu-west-1 (of eu)"),
        (("beta", "eu-mars-1"), "tenant beta (bound to any) in the undeclared region 'eu-mars-1'"),
        ((None, "us-east-1"), "no tenant in region us-east-1 (of us)"),
        (("acme", None), "tenant acme (bound to eu) in no region"),
    ],
)
def test_what_is_not_declared_is_named(pair: tuple[str | None, str | None], example: str, platform: Platform) -> None:
    assert violations(rows(pair), *platform) == Violations(1, 0, 1, example)


def test_a_table_without_tenants_asserts_nothing(platform: Platform) -> None:
    with pytest.raises(SchemaViolation) as error:
        violations(pa.table({"tenants": ["acme"]}), *platform)
    assert str(error.value) == "residency: found no column tenant and no region, allowed: both tenant and region"


def test_dispatch_inside_the_area_passes(platform: Platform) -> None:
    refuse(Piece("acme"), "eu-north-1", *platform)
    refuse(Piece("beta"), "eu-west-2", *platform)


@pytest.mark.parametrize(
    ("tenant", "region", "line"),
    [
        (
            "acme",
            "us-east-1",
            "found tenant acme (bound to eu) in region us-east-1 (of us), allowed: eu-central-1, eu-west-1, eu-north-1",
        ),
        (
            "acme",
            "eu-mars-1",
            "found tenant acme (bound to eu) in the undeclared region 'eu-mars-1', "
            "allowed: eu-central-1, eu-west-1, eu-north-1",
        ),
        (
            "zeta",
            "eu-west-1",
            "found the undeclared tenant 'zeta' in region eu-west-1 (of eu), allowed: declared tenants and regions",
        ),
    ],
)
def test_dispatch_outside_the_area_is_refused(tenant: str, region: str, line: str, platform: Platform) -> None:
    with pytest.raises(ResidencyViolation) as error:
        refuse(Piece(tenant), region, *platform)
    assert str(error.value) == f"nightly:2026-11-25T02:00Z: {line}"
    assert isinstance(error.value, PermanentError)


def test_a_request_that_was_fine_when_it_was_planned_is_refused_after_the_declarations_changed(tmp_path: Path) -> None:
    folder = small_ops(tmp_path / "ops")
    refuse(Piece("beta"), "us-east-1", *declared(folder))
    tenants = (folder / "tenants.yaml").read_text()
    (folder / "tenants.yaml").write_text(tenants.replace("any, home_region: us-east-1", "uk, home_region: eu-west-2"))
    with pytest.raises(
        ResidencyViolation, match=r"beta \(bound to uk\) in region us-east-1 \(of us\), allowed: eu-west-2$"
    ):
        refuse(Piece("beta"), "us-east-1", *declared(folder))
