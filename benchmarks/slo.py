"""What compiling SLOs costs: 1,000 services with 3 SLOs each, from the documents' text to the text of their rules.

The floor is the same bytes from a plain template: what string replacement alone costs. The peer is Sloth itself, where
it is installed, over a folder of the same documents.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

from benchmarks.measure import Row
from greenops_pipelines.slo import load, output, rules, validate, windows
from greenops_pipelines.slo.generate import Job, generated
from greenops_pipelines.slo.rules import Options

SERVICES = 1_000
_SLO = """
  - name: {name}
    objective: {objective}
    description: "How often it works."
    labels:
      tier: "1"
    sli:
      events:
        error_query: sum(rate(http_server_requests_total{{service="{service}",status=~"error|5xx"}}[{{{{.window}}}}]))
        total_query: sum(rate(http_server_requests_total{{service="{service}"}}[{{{{.window}}}}]))
    alerting:
      name: HighErrorRate
      page_alert:
        labels:
          severity: critical
      ticket_alert:
        labels:
          severity: warning
"""
_NAMES = (("availability", "99.9"), ("latency", "95"), ("freshness", "99.5"))


def document(service: str) -> str:
    """One service's document. Names have one length, so that lines break at the same place in all of them."""
    slos = "".join(_SLO.format(name=name, objective=objective, service=service) for name, objective in _NAMES)
    return f"version: prometheus/v1\nservice: {service}\nlabels:\n  team: platform\nslos:{slos}"


def main() -> list[Row]:
    """Seconds from text to text, by stage, against the floor and the peer."""
    names = [f"service-{number:04d}" for number in range(SERVICES)]
    with tempfile.TemporaryDirectory(prefix="greenops-bench-") as folder:
        source, target = Path(folder) / "in", Path(folder) / "out"
        source.mkdir()
        target.mkdir()
        for name in names:
            (source / f"{name}.yaml").write_text(document(name), encoding="utf-8")
        begun = time.perf_counter()
        texts = [generated(source / f"{name}.yaml", Job(options=Options(version="bench"))) for name in names]
        whole = time.perf_counter() - begun
        rows = [
            Row(f"compile {SERVICES:,} services x 3 SLOs", whole, "s", f"{sum(map(len, texts)) / 1e6:.1f} MB of rules")
        ]
        rows += _stages(names)
        template = texts[0]
        begun = time.perf_counter()
        floor = [template.replace(names[0], name) for name in names]
        floored = time.perf_counter() - begun
        assert floor == texts
        rows.append(Row("  the same bytes from a template", floored, "s", f"the floor; {whole / floored:,.0f}x"))
        return rows + _peer(source, target, whole)


def _stages(names: list[str]) -> list[Row]:
    period, options = timedelta(days=30), Options(version="bench")
    texts = [document(name) for name in names]
    marks = [time.perf_counter()]
    groups = [load.group(load.Document(text, name), period) for name, text in zip(names, texts, strict=True)]
    marks.append(time.perf_counter())
    validate.query_fault.cache_clear()
    for group in groups:
        validate.check(group, "bench")
    marks.append(time.perf_counter())
    compiled = [rules.compile_group(group, windows.DEFAULT, options) for group in groups]
    marks.append(time.perf_counter())
    for found in compiled:
        output.prometheus(found, "bench")
    marks.append(time.perf_counter())
    stages = ("read YAML", "validate, PromQL parsed", "compile", "write YAML")
    return [
        Row(f"  {stage}", end - start, "s", "") for stage, (start, end) in zip(stages, pairwise(marks), strict=True)
    ]


def _peer(source: Path, target: Path, whole: float) -> list[Row]:
    tools = os.environ.get("GREENOPS_TOOLS", str(Path.home() / ".cache" / "greenops-tools"))
    sloth = shutil.which("sloth") or shutil.which("sloth", path=f"{tools}/bin")
    if sloth is None:
        return []
    begun = time.perf_counter()
    subprocess.run([sloth, "generate", "-i", str(source), "-o", str(target)], check=True, capture_output=True)
    peer = time.perf_counter() - begun
    return [Row("  Sloth 0.16 over the same folder", peer, "s", f"the peer; we take {whole / peer:.2f}x")]
