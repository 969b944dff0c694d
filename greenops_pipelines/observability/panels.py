"""Panels of a Grafana dashboard: one function per kind, each with title, description, unit and thresholds.

The meaning of every threshold is stated once, beside its value, and stands in the panel's description. Queries, not
layout: where panels lie is `dashboard.py`. Built with Grafana's own typed builders (Grafana 11.6, schema version 41, which
every later Grafana migrates when it loads it).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

PROMETHEUS = {"type": "prometheus", "uid": "${datasource}"}
LOKI = {"type": "loki", "uid": "${logs}"}
TEMPO = {"type": "tempo", "uid": "${traces}"}


@dataclass(frozen=True)
class Step:
    """From `value` on (None: from below) the panel shows `color`, which means `meaning`."""

    value: float | None
    color: str
    meaning: str


@dataclass(frozen=True)
class Query:
    """One PromQL query of a panel. `table` and `heatmap` are formats; a table is asked for the last moment alone."""

    expr: str
    legend: str = ""
    form: str = "time_series"
    name: str = "A"


@dataclass(frozen=True)
class Link:
    """Where a click leads. `url` may hold Grafana's `${__field.labels.x}` and `${__data.fields.x}`."""

    title: str
    url: str
    new_tab: bool = False


@dataclass(frozen=True)
class Panel:
    """What a panel shows. `window` is a range of its own, in place of the dashboard's; `links` are of its data."""

    title: str
    description: str
    unit: str
    steps: tuple[Step, ...]
    queries: tuple[Query, ...]
    links: tuple[Link, ...] = ()
    window: str = ""
    decimals: int | None = None
    least: float | None = None
    most: float | None = None


def gauge(panel: Panel) -> Any:
    """A gauge per series, of the last value."""
    from grafana_foundation_sdk.builders.common import ReduceDataOptions
    from grafana_foundation_sdk.builders.gauge import Panel as Gauge

    return _dressed(Gauge(), panel).reduce_options(ReduceDataOptions().calcs(["lastNotNull"]))


def status(panel: Panel, words: Sequence[tuple[float | None, float | None, str, str]]) -> Any:
    """A tile per series, coloured by its last value, which is shown as a word: (from, to, word, colour)."""
    from grafana_foundation_sdk.builders.common import ReduceDataOptions
    from grafana_foundation_sdk.builders.stat import Panel as Stat
    from grafana_foundation_sdk.models.common import BigValueColorMode, BigValueGraphMode, BigValueTextMode
    from grafana_foundation_sdk.models.dashboard import DashboardRangeMapOptions, RangeMap, ValueMappingResult

    mappings = [
        RangeMap(DashboardRangeMapOptions(low, high, ValueMappingResult(text=word, color=color, index=index)))
        for index, (low, high, word, color) in enumerate(words)
    ]
    return (
        _dressed(Stat(), panel)
        .mappings(mappings)
        .no_value("no data")
        .color_mode(BigValueColorMode.BACKGROUND)
        .graph_mode(BigValueGraphMode.NONE)
        .text_mode(BigValueTextMode.VALUE_AND_NAME)
        .reduce_options(ReduceDataOptions().calcs(["lastNotNull"]))
    )


def lines(panel: Panel) -> Any:
    """A line per series, thresholds as lines."""
    from grafana_foundation_sdk.builders.common import GraphThresholdsStyleConfig, VizLegendOptions
    from grafana_foundation_sdk.builders.timeseries import Panel as Timeseries
    from grafana_foundation_sdk.models import common

    legend = (
        VizLegendOptions()
        .show_legend(True)
        .display_mode(common.LegendDisplayMode.TABLE)
        .placement(common.LegendPlacement.BOTTOM)
        .calcs(["lastNotNull", "max"])
    )
    drawn = _dressed(Timeseries(), panel).legend(legend).line_width(1).fill_opacity(0)
    modes = common.GraphThresholdsStyleMode
    style = modes.DASHED if any(step.value is not None for step in panel.steps) else modes.OFF
    return drawn.thresholds_style(GraphThresholdsStyleConfig().mode(style))


def heatmap(panel: Panel) -> Any:
    """Buckets of a histogram over time, as Prometheus keeps them: nothing is calculated again."""
    from grafana_foundation_sdk.builders.heatmap import HeatmapColorOptions, YAxisConfig
    from grafana_foundation_sdk.builders.heatmap import Panel as Heatmap
    from grafana_foundation_sdk.models.common import TooltipDisplayMode
    from grafana_foundation_sdk.models.heatmap import HeatmapColorMode

    colors = HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Oranges").steps(64)
    drawn = _dressed(Heatmap(), panel).calculate(False).color(colors)
    return drawn.y_axis(YAxisConfig().unit(panel.unit)).mode(TooltipDisplayMode.SINGLE)


def table(
    panel: Panel,
    names: dict[str, str],
    hidden: Sequence[str],
    linked: str,
    colored: str | None = None,
    units: Mapping[str, str] | None = None,
) -> Any:
    """A row per series. `names` renames columns, in their order; a click on the column `linked` follows the links.

    `colored` is the one column that the thresholds colour; without it no cell is. `units` are those of columns that have another
    one than the panel.
    """
    from grafana_foundation_sdk.models.dashboard import DataTransformerConfig, DynamicConfigValue

    drawn = _dressed(_table(), panel, with_links=False)
    if len(panel.queries) > 1:
        drawn = drawn.with_transformation(DataTransformerConfig(id_val="merge", options={}))
    organised = {
        "excludeByName": dict.fromkeys(hidden, True),
        "renameByName": names,
        "indexByName": {name: index for index, name in enumerate(names)},
    }
    drawn = drawn.with_transformation(DataTransformerConfig(id_val="organize", options=organised))
    links = [{"title": each.title, "url": each.url, "targetBlank": each.new_tab} for each in panel.links]
    drawn = drawn.override_by_name(linked, [DynamicConfigValue(id_val="links", value=links)])
    if colored:
        cell = DynamicConfigValue(id_val="custom.cellOptions", value={"type": "color-background"})
        drawn = drawn.override_by_name(colored, [cell])
    for column, unit in (units or {}).items():
        drawn = drawn.override_by_name(column, [DynamicConfigValue(id_val="unit", value=unit)])
    return drawn


def _table() -> Any:
    from grafana_foundation_sdk.builders.table import Panel as Table
    from grafana_foundation_sdk.models.common import FieldTextAlignment

    return Table().show_header(True).align(FieldTextAlignment.AUTO)


def logs(title: str, description: str, query: str) -> Any:
    """Log lines; the line's trace is one click away, by the data source's derived field."""
    from grafana_foundation_sdk.builders.logs import Panel as Logs
    from grafana_foundation_sdk.builders.loki import Dataquery
    from grafana_foundation_sdk.models.common import LogsSortOrder

    target = Dataquery().ref_id("A").expr(query).query_type("range").max_lines(500).datasource(_source(LOKI))
    drawn = Logs().title(title).description(description).datasource(_source(LOKI)).with_target(target)
    return drawn.show_time(True).enable_log_details(True).wrap_log_message(True).sort_order(LogsSortOrder.DESCENDING)


def traces(panel: Panel, query: str) -> Any:
    """Traces that TraceQL finds; the spans' log lines are one click away, by the data source's tracesToLogsV2."""
    from grafana_foundation_sdk.builders.tempo import TempoQuery

    target = (
        TempoQuery().ref_id("A").query_type("traceql").query(query).limit(20).filters([]).datasource(_source(TEMPO))
    )
    return _dressed(_table(), panel, source=TEMPO).with_target(target)


def stated(panel: Panel) -> str:
    """The description with the meaning of every threshold."""
    meanings = [
        f"- {step.color}{'' if step.value is None else f' from {step.value:g}'}: {step.meaning}" for step in panel.steps
    ]
    return "\n".join([panel.description, "", *meanings])


def _dressed(builder: Any, panel: Panel, *, source: dict[str, str] = PROMETHEUS, with_links: bool = True) -> Any:
    from grafana_foundation_sdk.builders.dashboard import DashboardLink, ThresholdsConfig
    from grafana_foundation_sdk.models.dashboard import DashboardLinkType, Threshold, ThresholdsMode

    steps = [Threshold(value=step.value, color=step.color) for step in panel.steps]
    thresholds = ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)
    builder.title(panel.title).description(stated(panel)).unit(panel.unit).thresholds(thresholds)
    builder.datasource(_source(source))
    for query in panel.queries:
        builder.with_target(_target(query))
    if with_links and panel.links:
        links = [
            DashboardLink(each.title).type(DashboardLinkType.LINK).url(each.url).target_blank(each.new_tab)
            for each in panel.links
        ]
        builder.data_links(links)
    for name, value in (("decimals", panel.decimals), ("min", panel.least), ("max", panel.most)):
        if value is not None:
            getattr(builder, name)(value)
    return builder.time_from(panel.window) if panel.window else builder


def _target(query: Query) -> Any:
    from grafana_foundation_sdk.builders.prometheus import Dataquery
    from grafana_foundation_sdk.models.prometheus import PromQueryFormat

    made = Dataquery().ref_id(query.name).expr(query.expr).format(PromQueryFormat(query.form))
    made = made.datasource(_source(PROMETHEUS))
    if query.legend:
        made = made.legend_format(query.legend)
    return made.instant() if query.form == "table" else made.range()


def _source(reference: dict[str, str]) -> Any:
    from grafana_foundation_sdk.models.dashboard import DataSourceRef

    return DataSourceRef(type_val=reference["type"], uid=reference["uid"])
