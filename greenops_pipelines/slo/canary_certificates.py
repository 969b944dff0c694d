"""Gates, rollback certificates and chances of all services, as tables and in words. Not here: the formulas (`rollback.py`)."""

from __future__ import annotations

import pyarrow as pa

from greenops_pipelines.lake.canary_tables import CANARY_CHANCES, CANARY_GATES, ROLLBACK_CERTIFICATES
from greenops_pipelines.slo import gates, rollback, rollouts
from greenops_pipelines.slo.canary import Canaries, CanaryEntry, Gate


def gates_table(canaries: Canaries) -> pa.Table:
    """Rows of CANARY_GATES, of the variant that each service has chosen."""
    rows = [
        {
            "service": name,
            "gate": metric["name"],
            "variant": entry.variant,
            "threshold_percent": _percent(_threshold(entry, metric["name"])),
            "condition": metric.get("successCondition") or metric.get("failureCondition"),
            "query": metric["provider"]["prometheus"]["query"],
        }
        for name, entry in canaries.services.items()
        for metric in gates.metrics(canaries, name, entry.variant, "background")
    ]
    return pa.Table.from_pylist(rows, schema=CANARY_GATES.schema)


def certificates_table(canaries: Canaries) -> pa.Table:
    """Rows of ROLLBACK_CERTIFICATES: each gate that turns at a share of bad requests, at each error rate."""
    rows = [
        {
            "service": name,
            "gate": gate,
            "error_percent": percent,
            "threshold_percent": timing.threshold * 100,
            "worst_s": rollback.worst_case(timing, percent / 100),
            "from_start_s": rollback.worst_case(timing, percent / 100, 0),
            "requests_per_second": entry.minimum_requests_per_second,
            "deadline_s": canaries.rollback.deadline_seconds,
            "rate_window_s": timing.window_s,
            "scrape_s": timing.scrape_s,
            "interval_s": timing.interval_s,
        }
        for name, entry in canaries.services.items()
        for gate in entry.gates
        if (threshold := _threshold(entry, gate)) is not None
        for timing in [
            canaries.timing(
                threshold,
                entry.minimum_requests_per_second,
                canaries.timeout_s if gate in gates.OF_SLOW or gate == "latency-p99" else 0.0,
            )
        ]
        for percent in sorted({*rollback.ERROR_PERCENTS, canaries.rollback.at_error_percent}, reverse=True)
    ]
    return pa.Table.from_pylist(rows, schema=ROLLBACK_CERTIFICATES.schema)


def chances_table(canaries: Canaries) -> pa.Table:
    """Rows of CANARY_CHANCES, one per service: its error-rate gate at its minimum volume."""
    rows = []
    for name, entry in canaries.services.items():
        timing = canaries.timing(entry.error_percent / 100, entry.minimum_requests_per_second)
        found = rollback.chance(
            timing,
            entry.minimum_requests_per_second,
            entry.healthy_error_percent / 100,
            canaries.rollback.at_error_percent / 100,
            rollouts.lasts_seconds(canaries),
            consecutive=entry.variant == "consecutive",
            deadline_s=canaries.rollback.deadline_seconds,
        )
        rows.append(
            {
                "service": name,
                "requests_per_second": found.at_volume,
                "requests_per_window": round(found.at_volume * timing.window_s),
                "healthy_error_percent": found.healthy_error * 100,
                "bad_error_percent": found.bad_error * 100,
                "threshold_percent": timing.threshold * 100,
                "false_bad_sample": found.one_sample,
                "false_rollback": found.false_rollback,
                "found_in_time": found.found_in_time,
                "found": found.found,
                "runs": found.runs,
            }
        )
    return pa.Table.from_pylist(rows, schema=CANARY_CHANCES.schema)


def lines(canaries: Canaries) -> list[str]:
    """The certificates in sentences, for `greenops slo canary`."""
    said = []
    chances = {row["service"]: row for row in chances_table(canaries).to_pylist()}
    certificates = certificates_table(canaries).to_pylist()
    for name, entry in canaries.services.items():
        own = [row for row in certificates if row["service"] == name and row["gate"] == "error-rate"]
        first = own[0]
        said.append(
            f"{name}: {entry.variant}, more than {first['threshold_percent']:g} % errors over {first['rate_window_s']:g} s, "
            f"scraped every {first['scrape_s']:g} s, measured every {first['interval_s']:g} s"
        )
        said.append(
            "  rolled back at the latest after "
            + ", ".join(
                f"{row['worst_s']:.1f} s at {row['error_percent']:g} % errors"
                if row["worst_s"] is not None
                else f"never at {row['error_percent']:g} %"
                for row in own
            )
            + f"; {own[0]['from_start_s']:.1f} s at 100 % from its first request on; "
            f"allowed {first['deadline_s']:g} s at {canaries.rollback.at_error_percent:g} %"
        )
        chance = chances[name]
        said.append(
            f"  at {chance['requests_per_second']:g} requests a second: a good one ({chance['healthy_error_percent']:g} % errors) is "
            f"taken back with probability {_chance(chance['false_rollback'], chance['runs'])}, "
            f"one with {chance['bad_error_percent']:g} % errors is taken back in time with "
            f"{_chance(chance['found_in_time'], chance['runs'])}, before its promotion with {_chance(chance['found'], chance['runs'])}"
        )
    return said


def _chance(probability: float, runs: int) -> str:
    """No share of runs that were played through says 0 or 1 exactly: the rule of three."""
    least = 3 / runs
    if probability < least:
        return f"below {least:.2g}"
    return f"above {1 - least:.5g}" if probability > 1 - least else f"{probability:.3g}"


def _threshold(entry: CanaryEntry, gate: Gate) -> float | None:
    return gates.breach_threshold(entry, gate) if gate in gates.CERTIFIED else None


def _percent(ratio: float | None) -> float | None:
    return None if ratio is None else ratio * 100
