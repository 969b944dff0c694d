"""What is declared in `ops/` -> the files under `observability/prometheus/` and `k8s/base/`, and the tables about them.

Same declarations, same bytes. Not here: how a rule is compiled (`rules.py`), and where the files go (`gitops.py`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cached_property
from pathlib import Path

import pyarrow as pa

from greenops_pipelines import __version__
from greenops_pipelines.errors import ConfigurationError
from greenops_pipelines.lake.tables import SLO_DEFINITIONS, SLO_RULES
from greenops_pipelines.measurement import Measurement
from greenops_pipelines.slo import load, output, rule_tests, rules, validate
from greenops_pipelines.slo.catalogue import Catalogue, read_catalogue, series_measurement
from greenops_pipelines.slo.certificate import confirm_declared
from greenops_pipelines.slo.certificates import Row, of_slos, windows_of
from greenops_pipelines.slo.configmap import configmap
from greenops_pipelines.slo.declared import Declared, read_declared
from greenops_pipelines.slo.model import KubernetesMeta, RuleGroup, Slo
from greenops_pipelines.slo.profiles import PERIOD, PROFILES
from greenops_pipelines.slo.service_alerts import service_alerts
from greenops_pipelines.slo.windows import Windows

PROMETHEUS = "observability/prometheus"
ALERTS = f"{PROMETHEUS}/rules/slo-alerts.yaml"
KUBERNETES = "k8s/base"
NAMESPACE = "observability"
_SHIPPED_TESTS = f"{PROMETHEUS}/tests"
_TESTED = f"{_SHIPPED_TESTS}/rules/"
"""The rules of one SLO each, cut from those that Prometheus is to load."""
_GROUP = re.compile(r"^- name: ", re.MULTILINE)
_LABELS = {"app.kubernetes.io/component": "slo", "app.kubernetes.io/managed-by": "greenops-pipelines"}


def recordings_file(service: str) -> str:
    """A service's recording rules: a file each, so that a team finds its own."""
    return f"{PROMETHEUS}/rules/slo-recordings-{service}.yaml"


_OPTIONS = rules.Options(version=f"greenops-{__version__}", guard_empty=True, dashboard_window=True)
"""Ours: no 0/0 in an SLI, and the SLI that dashboards read, whichever windows alert."""
_HEADER = (
    "# Rendered by greenops from ops/slo-definitions, ops/slo.yaml and ops/metrics.yaml. Change those, not this.\n\n"
)


@dataclass(frozen=True)
class Slos:
    """Everything declared about SLOs, read and checked. `files` are the definitions' texts by file name."""

    files: Mapping[str, str]
    slos: tuple[Slo, ...]
    declared: Declared
    catalogue: Catalogue

    @cached_property
    def chosen(self) -> dict[str, str]:
        """The alert profile of each service."""
        return {name: service.profile for name, service in self.declared.services.items()}

    def shipped(self, slo: Slo) -> tuple[RuleGroup, ...]:
        """The groups of one SLO among those that Prometheus is to load."""
        names = {group.name for group in self.compiled(slo, self.chosen[slo.service])}
        return tuple(group for group in (*self.recordings, *self.alerts) if group.name in names)

    @property
    def alerting(self) -> tuple[Slo, ...]:
        """The SLOs with burn-rate alerts."""
        return tuple(slo for slo in self.slos if slo.page or slo.ticket)

    def compiled(self, slo: Slo, profile: str) -> tuple[RuleGroup, ...]:
        """All groups of one SLO under a profile, evaluated as often as its service wants."""
        groups = rules.compile_slo(slo, windows_of(profile), _OPTIONS)
        interval = self.declared.services[slo.service].evaluation_interval
        return tuple(replace(group, interval=interval) for group in groups)

    @cached_property
    def recordings(self) -> tuple[RuleGroup, ...]:
        """Recording rules of all SLOs under the chosen profiles."""
        return tuple(group for slo in self.slos for group in self._groups(slo, recordings=True))

    def recordings_of(self, service: str) -> tuple[RuleGroup, ...]:
        """Those of one service."""
        return tuple(group for group in self.recordings if group.rules[0].labels["sloth_service"] == service)

    @cached_property
    def alerts(self) -> tuple[RuleGroup, ...]:
        """Burn-rate alerts under the chosen profiles, and the services' other alerts."""
        burning = tuple(group for slo in self.slos for group in self._groups(slo, recordings=False))
        return (*burning, *service_alerts(self.declared, self.slos))

    def _groups(self, slo: Slo, *, recordings: bool) -> Iterator[RuleGroup]:
        for group in self.compiled(slo, self.chosen[slo.service]):
            if group.name.startswith("sloth-slo-alerts-") != recordings:
                yield group

    def series(self) -> Measurement:
        """The expected number of active series against the budget of the catalogue."""
        recorded = Counter(
            rule.labels["sloth_service"] for group in self.recordings for rule in group.rules if rule.record
        )
        return series_measurement(self.catalogue, recorded)

    @property
    def certificates(self) -> list[Row]:
        """Of each SLO that alerts, under every profile."""
        return of_slos(self.slos, self.chosen, PROFILES)


def read(ops_dir: Path) -> Slos:
    """The declarations, each checked by itself and against the others. `ConfigurationError`, a line per fault."""
    folder = ops_dir / "slo-definitions"
    paths = sorted(folder.glob("*.yaml"))
    if not paths:
        raise ConfigurationError(f"{folder}: found no file, allowed: a Sloth document per service")
    files = {path.name: load.text_of(path) for path in paths}
    groups = {path.name: load.read_file(path, PERIOD) for path in paths}
    faults = [
        fault
        for name, found in groups.items()
        for group in found
        for fault in validate.faults(group, f"{folder.name}/{name}")
    ]
    slos = tuple(slo for found in groups.values() for group in found for slo in group.slos)
    if faults:
        raise ConfigurationError("\n".join(faults))
    declared, catalogue = read_declared(ops_dir, slos), read_catalogue(ops_dir)
    found = Slos(files, slos, declared, catalogue)
    _confirm(found)
    return found


def _confirm(found: Slos) -> None:
    """Every query is on the catalogue's metrics, and every declared budget is the one the windows give."""
    faults = found.catalogue.check_rules((*found.recordings, *found.alerts))
    if faults:
        raise ConfigurationError("\n".join(faults))
    for row in of_slos(found.slos, found.chosen, PROFILES):
        if not row.is_chosen or row.slo is None:
            continue
        service = found.declared.services[row.slo.service]
        told = service.declared_budget_percent
        for severity in row.certificate.severities:
            wanted = getattr(told, severity.name, None) if told else None
            if wanted is not None:
                where = f"ops/slo.yaml: services ({row.slo.service}).declared_budget_percent.{severity.name}"
                # An alert of two pairs fires at the latest when the dearer one does.
                spent = max(pair.budget_percent for pair in severity.pairs)
                confirm_declared(wanted, spent, service.acknowledged, where)


def files(found: Slos) -> dict[str, str]:
    """Path to text, of everything that is rendered for the SLOs."""
    rendered = {
        ALERTS: _HEADER + output.rule_file(found.alerts),
        **{
            recordings_file(service): _HEADER + output.rule_file(found.recordings_of(service))
            for service in found.chosen
        },
        f"{KUBERNETES}/slo-alerts.yaml": _object(found.alerts, "slo-alerts"),
        f"{KUBERNETES}/slo-recordings.yaml": _object(found.recordings, "slo-recordings"),
        f"{KUBERNETES}/slo-definitions.yaml": configmap("slo-definitions", found.files, NAMESPACE, _LABELS),
    }
    for slo in found.alerting:
        # With all rules of the service and all alerts loaded, promtool takes five times as long for the same verdict.
        rendered[f"{_TESTED}{slo.id}.yaml"] = _HEADER + output.rule_file(found.shipped(slo))
        chosen = windows_of(found.chosen[slo.service])
        rendered |= _tests(slo, chosen, _SHIPPED_TESTS, [f"rules/{slo.id}.yaml"])
        for profile in PROFILES:
            folder = f"{PROMETHEUS}/profiles/{profile}"
            rendered[f"{folder}/rules/{slo.id}.yaml"] = _HEADER + output.rule_file(found.compiled(slo, profile))
            rendered |= _tests(slo, windows_of(profile), f"{folder}/tests", [f"../rules/{slo.id}.yaml"])
    return dict(sorted(rendered.items()))


def _tests(slo: Slo, windows: Windows, folder: str, rule_files: list[str]) -> dict[str, str]:
    made = rule_tests.promtool_tests(slo, windows, rule_files)
    return {f"{folder}/{slo.id}-{severity}.yaml": _HEADER + text for severity, text in made.items()}


def shipped_tests(rendered: Iterable[str]) -> list[str]:
    """Those of the rendered paths that are rule tests of the rules that Prometheus is to load."""
    return [path for path in rendered if path.startswith(f"{_SHIPPED_TESTS}/") and not path.startswith(_TESTED)]


def not_shipped(rendered: Mapping[str, str]) -> list[str]:
    """Rule groups that are tested and are not, letter by letter, among those that Prometheus is to load."""
    shipped = {group for path in rule_files(rendered) for group in _groups_in(rendered[path])}
    tested = [(path, group) for path in rendered if path.startswith(_TESTED) for group in _groups_in(rendered[path])]
    return [f"{path}: {group.partition(chr(10))[0]}" for path, group in tested if group not in shipped]


def rule_files(rendered: Iterable[str]) -> list[str]:
    """Those of the rendered paths that Prometheus is to load."""
    return [path for path in rendered if path.startswith(f"{PROMETHEUS}/rules/")]


def _groups_in(text: str) -> list[str]:
    """The groups of a rule file, as text."""
    return [group.strip() for group in _GROUP.split(text)[1:]]


def _object(groups: tuple[RuleGroup, ...], name: str) -> str:
    return _HEADER + output.prometheus_rule(groups, KubernetesMeta(name, NAMESPACE), _LABELS)


def definitions_table(found: Slos) -> pa.Table:
    """Rows of SLO_DEFINITIONS."""
    rows = [
        {
            "slo_id": slo.id,
            "service": slo.service,
            "slo": slo.name,
            "objective": slo.objective,
            "error_budget_minutes": (100 - slo.objective) / 100 * (slo.period / timedelta(minutes=1)),
            "period_days": slo.period / timedelta(days=1),
            "profile": found.chosen[slo.service],
            "pages": slo.page is not None,
            "tickets": slo.ticket is not None,
            "team": found.declared.services[slo.service].team,
            "description": " ".join(slo.description.split()),
            "error_query": slo.events.error_query if slo.events else slo.raw.error_ratio_query if slo.raw else "",
            "total_query": slo.events.total_query if slo.events else None,
            "time_zone": found.declared.ledger.time_zone,
            "yellow_below_percent": found.declared.ledger.yellow_below_percent,
        }
        for slo in found.slos
    ]
    return pa.Table.from_pylist(rows, schema=SLO_DEFINITIONS.schema)


def rules_table(found: Slos) -> pa.Table:
    """Rows of SLO_RULES, of the files that Prometheus is to load."""
    rows = [
        {
            "file": file,
            "rule_group": group.name,
            "position": position,
            "kind": "alert" if rule.alert else "record",
            "name": rule.alert or rule.record,
            "severity": rule.labels.get("severity") if rule.alert else None,
            "team": rule.labels.get("team"),
            "held_for": rule.hold or None,
            "expr": rule.expr,
            "runbook": rule.annotations.get("runbook"),
        }
        for file, groups in (
            (ALERTS, found.alerts),
            *((recordings_file(service), found.recordings_of(service)) for service in found.chosen),
        )
        for group in groups
        for position, rule in enumerate(group.rules)
    ]
    return pa.Table.from_pylist(rows, schema=SLO_RULES.schema)
