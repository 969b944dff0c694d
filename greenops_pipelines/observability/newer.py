"""What Grafana 11 and later have and the builders of 10.1 do not: brought into a document with Grafana's own defaults.

An older Grafana ignores what it does not know. Source of the names and defaults: Grafana's kinds, packages/grafana-schema.
Goes when the builders are of that line. Not here: anything a person chose.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "stat": {"wideLayout": True, "showPercentChange": False, "percentChangeColorMode": "standard"},
    "gauge": {"sizing": "auto", "minVizWidth": 75, "minVizHeight": 75},
    "table": {"showHeader": True, "cellHeight": "sm", "frameIndex": 0},
    "heatmap": {"tooltip": {"mode": "single", "yHistogram": True, "showColorScale": False}},
    "logs": {"showLogContextToggle": True},
}
_CUSTOM: Mapping[str, Mapping[str, Any]] = {"table": {"align": "auto", "inspect": False}}


def brought_up(document: dict[str, Any]) -> dict[str, Any]:
    """The document, changed in place."""
    # Of 10.1 alone: dark is the default, and later schemas refuse the field.
    document.pop("style", None)
    for variable in document["templating"]["list"]:
        # The builders number all variables alike.
        variable.pop("id", None)
    for panel in document["panels"]:
        if options := _OPTIONS.get(panel["type"]):
            panel["options"] = {**(panel.get("options") or {}), **options}
        if custom := _CUSTOM.get(panel["type"]):
            defaults = panel["fieldConfig"]["defaults"]
            defaults["custom"] = {**(defaults.get("custom") or {}), **custom}
    return document
