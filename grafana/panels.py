"""Panels of all kinds that the dashboards use."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from grafana_foundation_sdk.builders import (
    bargauge,
    common,
    dashboard,
    prometheus,
    stat,
    statetimeline,
    table,
    timeseries,
)
from grafana_foundation_sdk.models import common as choice
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models import prometheus as query_model
from promql import PHASES

DATASOURCE = choice.DataSourceRef(type_val="prometheus", uid="${datasource}")

COLORS = {
    "Creating": "super-light-yellow",
    "Pending": "yellow",
    "Running": "green",
    "Terminating": "light-blue",
    "Completed": "blue",
    "Failed": "red",
    "Terminated": "#8e8e8e",
    "Abnormal": "orange",
    "Unknown": "purple",
}

POLL = "1m"
"""Minimum step of series that change with a poll; ``$__rate_interval`` is at least 4 steps."""

SPARSE = "15m"
"""Minimum step of ratios and quantiles of rare events, for windows of at least an hour."""

Builder: TypeAlias = Any
"""A builder of the SDK. Its classes have no common base class with the methods used here."""
Color: TypeAlias = tuple[float | None, str]
"""A threshold: lower bound (None for the lowest) and color."""


@dataclass(frozen=True)
class Query:
    """A query of a panel.

    Attributes:
        expr: PromQL.
        legend: legend format.
        step: minimum step.
        instant: evaluate at the end of the time range only; always true in tables.
    """

    expr: str
    legend: str = ""
    step: str = ""
    instant: bool = False


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        field: label, or ``Value #A`` for the value of the first query, and so on.
        title: column header; must be empty for columns that links refer to.
        time: the values are milliseconds since 1970, shown as times.
        colors: thresholds that color the value.
    """

    field: str
    title: str = ""
    time: bool = False
    colors: Sequence[Color] = ()


@dataclass(frozen=True)
class Link:
    """A link in the context menu of a table row."""

    title: str
    url: str
    new_tab: bool = False


# --- queries --------------------------------------------------------------------------------------


def _target(query: Query, number: int, *, in_table: bool = False) -> prometheus.Dataquery:
    built = (
        prometheus.Dataquery()
        .datasource(DATASOURCE)
        .editor_mode(query_model.QueryEditorMode.CODE)
        .expr(query.expr)
        .ref_id(chr(ord("A") + number))
        .legend_format(query.legend or "__auto")
        .exemplar(exemplar=False)
    )
    if query.step:
        built.interval(query.step)
    if in_table:
        built.format(query_model.PromQueryFormat.TABLE)
    return built.instant() if in_table or query.instant else built.range()


def _common(
    panel: Builder, title: str, text: str, queries: Sequence[Query], *, unit: str, none: str
) -> Builder:
    """Apply the settings common to all panels."""
    for number, query in enumerate(queries):
        panel.with_target(_target(query, number, in_table=isinstance(panel, table.Panel)))
    return panel.title(title).description(text).datasource(DATASOURCE).unit(unit).no_value(none)


# --- colors ---------------------------------------------------------------------------------------


def _thresholds(colors: Sequence[Color]) -> model.ThresholdsConfig:
    return (
        dashboard.ThresholdsConfig()
        .mode(model.ThresholdsMode.ABSOLUTE)
        .steps([model.Threshold(value=value, color=color) for value, color in colors])
    )


def _color(mode: model.FieldColorModeId, fixed: str = "") -> dashboard.FieldColor:
    color = dashboard.FieldColor().mode(mode)
    return color.fixed_color(fixed) if fixed else color


def mapping(texts: Mapping[str, tuple[str, str]]) -> list[model.ValueMap]:
    """Show values as colored texts."""
    return [
        model.ValueMap(
            options={
                value: model.ValueMappingResult(text=text, color=color, index=index)
                for index, (value, (text, color)) in enumerate(texts.items())
            }
        )
    ]


PHASE_NUMBERS = {str(number): (phase, COLORS[phase]) for number, phase in enumerate(PHASES, 1)}
"""For `mapping`: the numbers that `promql.phases` returns."""


def _override(panel: Builder, name: str, setting: str, value: dict[str, Any]) -> None:
    """Set a property of the series or column with the given name.

    Grafana's schema only allows overrides whose value is an object (so no unit and no width), with
    a matcher that is an object as well: a list of names, not a name.
    """
    panel.with_override(
        model.MatcherConfig("byNames", {"mode": "include", "names": [name]}),
        [model.DynamicConfigValue(setting, value)],
    )


def _color_series(panel: Builder, colors: Mapping[str, str]) -> None:
    """Set the colors of series by name."""
    for name, color in colors.items():
        _override(panel, name, "color", {"mode": "fixed", "fixedColor": color})


# --- panels ---------------------------------------------------------------------------------------


def stat_panel(
    title: str,
    text: str,
    queries: Sequence[Query],
    *,
    unit: str = "short",
    none: str = "No data",
    colors: Sequence[Color] = ((None, "text"),),
    texts: Mapping[str, tuple[str, str]] | None = None,
    show: Literal["value", "name", "value_and_name"] = "value",
    decimals: int | None = None,
    graph: bool = False,
    width: int = 3,
    height: int = 4,
) -> Builder:
    """A stat panel with the latest value."""
    panel = (
        _common(stat.Panel(), title, text, queries, unit=unit, none=none)
        .span(width)
        .height(height)
        .color_scheme(_color(model.FieldColorModeId.THRESHOLDS))
        .thresholds(_thresholds(colors))
        .color_mode(choice.BigValueColorMode.VALUE)
        .graph_mode(choice.BigValueGraphMode.AREA if graph else choice.BigValueGraphMode.NONE)
        .justify_mode(choice.BigValueJustifyMode.AUTO)
        .text_mode(choice.BigValueTextMode(show))
        .orientation(choice.VizOrientation.AUTO)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).fields("").values(False))
    )
    if decimals is not None:
        panel.decimals(decimals)
    return panel.mappings(mapping(texts)) if texts else panel


def time_series(
    title: str,
    text: str,
    queries: Sequence[Query],
    *,
    unit: str = "short",
    none: str = "No data in this time range",
    colors: Mapping[str, str] | None = None,
    limits: Sequence[Color] = (),
    stacked: bool = False,
    bars: bool = False,
    sparse: bool = False,
    axis: str = "",
    highest: float | None = None,
    width: int = 12,
    height: int = 8,
    calcs: Sequence[str] = ("lastNotNull", "max"),
) -> Builder:
    """A time series panel with an axis that starts at 0.

    Args:
        title: of the panel.
        text: description for newcomers.
        queries: the queries.
        unit: of the values.
        none: text shown if there is no data.
        colors: of series, by name; other colors are derived from the name.
        limits: thresholds, shown as dashed lines.
        stacked: stack the series as areas.
        bars: draw bars, for events.
        sparse: connect points across gaps of up to 6 hours, for rare events.
        axis: label of the axis.
        highest: maximum of the axis.
        width: in columns, of 24.
        height: in rows.
        calcs: columns of the legend.
    """
    panel = (
        _common(timeseries.Panel(), title, text, queries, unit=unit, none=none)
        .span(width)
        .height(height)
        .min(0)
        .color_scheme(_color(model.FieldColorModeId.PALETTE_CLASSIC_BY_NAME))
        .draw_style(choice.GraphDrawStyle.BARS if bars else choice.GraphDrawStyle.LINE)
        .line_interpolation(choice.LineInterpolation.LINEAR)
        .line_width(1)
        .fill_opacity(60 if bars else 25 if stacked else 8)
        .show_points(choice.VisibilityMode.AUTO)
        .point_size(5)
        .span_nulls(21_600_000 if sparse else False)
        .axis_label(axis)
        .legend(
            common.VizLegendOptions()
            .display_mode(choice.LegendDisplayMode.TABLE)
            .placement(choice.LegendPlacement.BOTTOM)
            .show_legend(show_legend=True)
            .calcs(list(calcs))
        )
        .tooltip(
            common.VizTooltipOptions()
            .mode(choice.TooltipDisplayMode.MULTI)
            .sort(choice.SortOrder.DESCENDING)
        )
    )
    if highest is not None:
        panel.max(highest)
    if stacked or bars:
        panel.stacking(common.StackingConfig().mode(choice.StackingMode.NORMAL).group("A"))
    if limits:
        panel.thresholds(_thresholds(limits)).thresholds_style(
            common.GraphThresholdsStyleConfig().mode(choice.GraphThresholdsStyleMode.DASHED)
        )
    _color_series(panel, colors or {})
    return panel


def bar_gauge(
    title: str,
    text: str,
    queries: Sequence[Query],
    *,
    unit: str = "short",
    none: str = "Nothing in this time range",
    colors: Mapping[str, str] | None = None,
    decimals: int | None = None,
    width: int = 8,
    height: int = 8,
) -> Builder:
    """A bar gauge: a bar for each series, with its latest value."""
    panel = (
        _common(bargauge.Panel(), title, text, queries, unit=unit, none=none)
        .span(width)
        .height(height)
        .min(0)
        .color_scheme(_color(model.FieldColorModeId.PALETTE_CLASSIC_BY_NAME))
        .orientation(choice.VizOrientation.HORIZONTAL)
        .display_mode(choice.BarGaugeDisplayMode.BASIC)
        .value_mode(choice.BarGaugeValueMode.TEXT)
        .name_placement(choice.BarGaugeNamePlacement.LEFT)
        .show_unfilled(show_unfilled=True)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).fields("").values(False))
        .legend(
            common.VizLegendOptions()
            .display_mode(choice.LegendDisplayMode.LIST)
            .placement(choice.LegendPlacement.BOTTOM)
            .show_legend(show_legend=False)
            .calcs([])
        )
    )
    if decimals is not None:
        panel.decimals(decimals)
    _color_series(panel, colors or {})
    return panel


def state_timeline(
    title: str,
    text: str,
    queries: Sequence[Query],
    *,
    texts: Mapping[str, tuple[str, str]],
    none: str = "No data in this time range",
    width: int = 24,
    height: int = 5,
) -> Builder:
    """A state timeline, with a line for each series."""
    return (
        _common(statetimeline.Panel(), title, text, queries, unit="none", none=none)
        .span(width)
        .height(height)
        .mappings(mapping(texts))
        .color_scheme(_color(model.FieldColorModeId.FIXED, "text"))
        .merge_values(merge_values=True)
        .show_value(choice.VisibilityMode.AUTO)
        .align_value(choice.TimelineValueAlignment.LEFT)
        .row_height(0.8)
        .fill_opacity(80)
        .line_width(0)
        .legend(
            common.VizLegendOptions()
            .display_mode(choice.LegendDisplayMode.LIST)
            .placement(choice.LegendPlacement.BOTTOM)
            .show_legend(show_legend=True)
            .calcs([])
        )
        .tooltip(
            common.VizTooltipOptions()
            .mode(choice.TooltipDisplayMode.SINGLE)
            .sort(choice.SortOrder.NONE)
        )
    )


def table_panel(
    title: str,
    text: str,
    queries: Sequence[Query],
    columns: Sequence[Column],
    *,
    links: Sequence[Link] = (),
    sort: str = "",
    width: int = 24,
    height: int = 9,
) -> Builder:
    """A table that merges the rows of all queries with equal labels; other labels are hidden.

    Cells without a value show ``None`` as well.
    """
    times = [column.field for column in columns if column.time]
    panel = (
        _common(table.Panel(), title, text, queries, unit="none", none="None")
        .span(width)
        .height(height)
        .mappings(mapping({phase: (phase, color) for phase, color in COLORS.items()}))
        .color_scheme(_color(model.FieldColorModeId.THRESHOLDS))
        .thresholds(_thresholds([(None, "text")]))
        .cell_options(choice.TableColorTextCellOptions())
        .align(choice.FieldTextAlignment.AUTO)
        .filterable(filterable=True)
        .inspect(inspect=False)
        .show_header(show_header=True)
        .cell_height(choice.TableCellHeight.SM)
        .data_links(
            [
                dashboard.DashboardLink(link.title)
                .url(link.url)
                .target_blank(link.new_tab)
                .placement(None)
                for link in links
            ]
        )
        .with_transformation(model.DataTransformerConfig(id_val="merge", options={}))
    )
    if times:
        conversions = [{"targetField": field, "destinationType": "time"} for field in times]
        panel.with_transformation(
            model.DataTransformerConfig(
                id_val="convertFieldType", options={"fields": {}, "conversions": conversions}
            )
        )
    panel.with_transformation(
        model.DataTransformerConfig(
            id_val="organize",
            options={
                "excludeByName": _hidden(queries, columns),
                "indexByName": {column.field: i for i, column in enumerate(columns)},
                "renameByName": {column.field: column.title for column in columns if column.title},
            },
        )
    )
    if sort:
        panel.sort_by([common.TableSortByFieldState().display_name(sort).desc(desc=True)])
    for column in columns:
        if column.colors:
            steps = [{"value": at, "color": color} for at, color in column.colors]
            threshold = {"mode": "absolute", "steps": steps}
            _override(panel, column.title or column.field, "thresholds", threshold)
    return panel


def _hidden(queries: Sequence[Query], columns: Sequence[Column]) -> dict[str, bool]:
    values = ["Value", *(f"Value #{chr(ord('A') + number)}" for number in range(len(queries)))]
    shown = {column.field for column in columns}
    return {name: True for name in ("Time", *values) if name not in shown}
