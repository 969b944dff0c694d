"""Where a second copy may lie: in another region than the source, inside the area of every tenant that is bound to one.

Not here: the regions and tenants themselves, which `ops/regions.yaml` and `ops/tenants.yaml` declare.
"""

from __future__ import annotations

from collections.abc import Mapping

from greenops_pipelines.errors import ConfigurationError, PermanentError, ResidencyViolation
from greenops_pipelines.recovery.vault import Vault

_ANY = "any"


def allowed_target(region: str, areas: Mapping[str, str], tenants: Mapping[str, str]) -> None:
    """Nothing, where a copy of all tenants' rows may lie in `region`; else `ResidencyViolation`.

    `areas` is region -> residency area, `tenants` is tenant -> the area it is bound to, or `any`.
    """
    bound = {tenant: area for tenant, area in sorted(tenants.items()) if area != _ANY}
    inside = sorted(name for name, area in areas.items() if all(area == wanted for wanted in bound.values()))
    allowed = ", ".join(inside) or (
        f"none: tenants are bound to {' and '.join(sorted(set(bound.values())))}, and one copy cannot lie in each"
        if len(set(bound.values())) > 1
        else f"none is declared in {', '.join(set(bound.values())) or 'any area'}"
    )
    if region not in areas:
        raise ResidencyViolation(
            f"second copy in {region}: found a region that ops/regions.yaml does not declare, so that nobody knows its "
            f"area; allowed: {allowed}"
        )
    for tenant, wanted in bound.items():
        if areas[region] != wanted:
            raise ResidencyViolation(
                f"second copy in {region} (area {areas[region]}): tenant {tenant} is bound to {wanted}, and its rows are "
                f"in the lake; allowed: {allowed}"
            )


def check_target(vault: Vault, target: str, source: str) -> None:
    """Raises where the declared region is the source's, or is not the one that the vault really lies in."""
    if target == source:
        raise ConfigurationError(
            f"second copy in {target}: found the region of the first one, allowed: another region; "
            "what takes one away would take both"
        )
    real = vault.region()
    if real is not None and real != target:
        raise PermanentError(
            f"{vault.place}: found it in {real}, declared: {target}; a declaration is no proof: name a bucket in {target}, "
            f"or declare {real} where the tenants' residency allows it"
        )
